//! Ruby: its static tracepoint `ruby:raise(class, file, line)`, which every raise passes once. Its message
//! is not told there.

use agent_common::function::Op;

use super::chunks::Chunks;
use super::code::Code;
use super::usdt::{self, Tracepoint};
use super::{NAME_MAX, PATH_MAX, Place, Raised, Seen};
use crate::inspect::elf::Module;

const NAME: u16 = 0;
const FILE: u16 = 1;
const LINE: u16 = 2;

/// How the language ends loops over enumerators.
const CONTROL_FLOW: &str = "StopIteration";

pub(super) fn tracepoints(module: &Module) -> Vec<(Tracepoint, Vec<Op>)> {
    let found = usdt::find(module, "ruby", "raise");
    found.into_iter().filter_map(|point| code(&point).map(|ops| (point, ops))).collect()
}

fn code(point: &Tracepoint) -> Option<Vec<Op>> {
    let [class, file, line] = point.arguments[..] else { return None };
    let mut code = Code::default();
    code.chunk(NAME);
    class.load(&mut code);
    code.string(NAME_MAX).chunk(FILE);
    file.load(&mut code);
    code.string(PATH_MAX).chunk(LINE);
    line.load(&mut code);
    code.put(4);
    Some(code.finish())
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
    raised.place =
        line.zip(chunks.name(FILE)).map(|(line, file)| Place { file: file.to_owned(), line });
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
        let place = Some(Place { file: "app.rb".to_owned(), line: 3 });
        let raised = Raised { place, ..Raised::new("App::Missing", None) };
        assert_eq!(decode(Chunks(&chunks(b"App::Missing"))), Some(Seen::Raised(raised)));
    }
}
