//! Ruby: its static tracepoint `ruby:raise(class, file, line)`, which every raise passes once. Its message
//! is not told there.

use super::chunks::Chunks;
use super::code::Code;
use super::{Decode, Hook, NAME_MAX, PATH_MAX, Raised, Seen};
use crate::function::site::{CostClass, Site, SiteKind};
use crate::inspect::elf::Module;
use crate::inspect::usdt::{self, Argument, Place, Tracepoint};

const NAME: u16 = 0;
const FILE: u16 = 1;
const LINE: u16 = 2;

/// How the language ends loops over enumerators.
const CONTROL_FLOW: &str = "StopIteration";

/// The instruction of one byte that does nothing. One of several would not be emulated, or worse.
const NOP: u8 = 0x90;

pub(super) fn hooks(module: &Module) -> Vec<Hook> {
    let found = usdt::tracepoints(module).unwrap_or_default();
    let of_raises = found.iter().filter(|point| point.provider == "ruby" && point.name == "raise");
    of_raises.filter_map(|point| hook(module, point)).collect()
}

fn hook(module: &Module, point: &Tracepoint) -> Option<Hook> {
    if module.read(point.address, 1).ok()?.first() != Some(&NOP) {
        return None;
    }
    let [Some(class), Some(file), Some(line)] = point.arguments[..] else { return None };
    let mut code = Code::default();
    code.chunk(NAME);
    load(&mut code, class)?;
    code.string(NAME_MAX).chunk(FILE);
    load(&mut code, file)?;
    code.string(PATH_MAX).chunk(LINE);
    load(&mut code, line)?;
    code.put(4);
    let site = Site {
        address: point.address,
        offset: point.offset?,
        kind: SiteKind::Event,
        sp_adjust: 0,
        cost: CostClass::Emulated,
    };
    Some(Hook {
        name: "ruby:raise".to_owned(),
        site,
        semaphore: point.semaphore,
        ops: code.finish(),
        decode: Decode::Ruby,
        in_goroutine: false,
        catchers: Vec::new(),
    })
}

/// Puts an argument into the accumulator.
fn load(code: &mut Code, argument: Argument) -> Option<()> {
    match argument.place {
        Place::Register { register, shift: 0 } => {
            code.register(register);
        }
        Place::Memory { base: Some(base), index: None, displacement } => {
            let displacement = i32::try_from(displacement).ok()?;
            code.register(base).load(displacement, argument.size.into());
        }
        _ => return None,
    }
    Some(())
}

pub(super) fn decode(chunks: Chunks<'_>) -> Option<Seen> {
    let name = chunks.name(NAME)?;
    if name == CONTROL_FLOW {
        return Some(Seen::ControlFlow);
    }
    let mut raised = Raised::new(name, None);
    let line =
        chunks.whole(LINE).and_then(|line| Some(u32::from_le_bytes(line.bytes.try_into().ok()?)));
    let line = line.filter(|line| (1..1 << 24).contains(line));
    raised.place = line
        .zip(chunks.name(FILE))
        .map(|(line, file)| super::Place { file: file.to_owned(), line });
    Some(Seen::Raised(raised))
}

#[cfg(test)]
mod tests {
    use super::super::chunks::written;
    use super::*;

    #[test]
    fn loops_end_without_an_exception() {
        let line = 3u32.to_le_bytes();
        let chunks =
            |name| written(&[(NAME, 0, name), (FILE, 0, b"app.rb".as_slice()), (LINE, 0, &line)]);
        assert_eq!(decode(Chunks(&chunks(b"StopIteration"))), Some(Seen::ControlFlow));
        let place = Some(super::super::Place { file: "app.rb".to_owned(), line: 3 });
        let raised = Raised { place, ..Raised::new("App::Missing", None) };
        assert_eq!(decode(Chunks(&chunks(b"App::Missing"))), Some(Seen::Raised(raised)));
    }
}
