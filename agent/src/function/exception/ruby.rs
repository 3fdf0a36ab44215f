//! Ruby: its static tracepoint `ruby:raise(class, file, line)`, which every raise passes once. The class's
//! name comes from `rb_obj_classname`, called right before with the exception, which leads to its message:
//! of 3.1 alone, and if that is text (of a `NameError` it is not). An exception keeps it as a variable that
//! has no name for programs, at a place that its class says (`ivar_index_tbl` of `internal/class.h`, `st.h`,
//! `internal/variable.h`, `include/ruby/internal/core/rstring.h`).

#[cfg(test)]
use agent_common::function::{Op, register};

use super::chunks::Chunks;
use super::code::Code;
use super::{Decode, Hook, MESSAGE_MAX, NAME_MAX, PATH_MAX, Raised, Seen, data};
use crate::function::site::{CostClass, Site, SiteKind};
use crate::inspect::code::{Kept, argument_before};
use crate::inspect::elf::Module;
use crate::inspect::symbols::Index;
use crate::inspect::usdt::{self, Argument, Place, Tracepoint};

const NAME: u16 = 0;
const FILE: u16 = 1;
const LINE: u16 = 2;
/// Of the message how it is encoded, and it.
const ENCODING: u16 = 3;
const TEXT: u16 = 4;

/// Most pointers that are followed to the exception.
const OFFSETS_MAX: usize = 4;

/// `RBasic.flags`: what something is, and of a class whether it is one object's own.
const KIND: i32 = 0x1f;
const OBJECT: i32 = 1;
const CLASS: i32 = 2;
const STRING: i32 = 5;
const SINGLETON: i32 = 1 << 12;
/// Of an object whether its variables lie within it; of a string whether its text does not, how long it is
/// if it does, and its encoding: bytes, UTF-8, ASCII, and others behind those.
const EMBEDDED_BIT: i32 = 13;
const SEPARATE_BIT: i32 = 13;
const LENGTH_BIT: i32 = 14;
const ENCODING_BIT: i32 = 22;
const ENCODING_ASCII: u8 = 2;

/// `RClass.ptr`, which begins with the table of the places of variables (`st_table`): how many entries that
/// has, and they.
const CLASS_MORE: i32 = 24;
const TABLE_BOUND: i32 = 40;
const TABLE_ENTRIES: i32 = 48;
/// An entry: its hash, its key, what it leads to.
const ENTRY: i32 = 24;
const ENTRY_KEY: i32 = 8;
const ENTRY_VALUE: i32 = 16;
/// Most entries that are looked at.
const ENTRIES_MAX: i32 = 4;

/// Ids of variables (`id.h` of 3.1): the message, and the backtrace, which is always made next.
const MESSAGE_ID: i32 = 0xd61;
const BACKTRACE_ID: i32 = 0xd31;

/// How the language ends loops over enumerators.
const CONTROL_FLOW: &str = "StopIteration";

/// The instruction of one byte that does nothing. One of several would not be emulated, or worse.
const NOP: u8 = 0x90;

pub(super) fn hooks(module: &Module, index: &Index) -> Vec<Hook> {
    let found = usdt::tracepoints(module).unwrap_or_default();
    let of_raises = found.iter().filter(|point| point.provider == "ruby" && point.name == "raise");
    of_raises.filter_map(|point| hook(module, index, point)).collect()
}

fn hook(module: &Module, index: &Index, point: &Tracepoint) -> Option<Hook> {
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
    if has_known_layout(module)
        && let Some(kept) = argument_before(module, index, point.address, "rb_obj_classname")
        && kept.offsets.len() <= OFFSETS_MAX
    {
        read_message(&mut code, &kept);
    }
    let site = Site {
        address: point.address,
        offset: point.offset?,
        kind: SiteKind::Event,
        jumps_if: None,
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

/// Whether it is a version of which it is known where things lie.
fn has_known_layout(module: &Module) -> bool {
    let version = data::symbol(module, "ruby_api_version");
    let bytes = version.and_then(|at| module.read(at, 8).ok()).unwrap_or_default();
    bytes == [3, 0, 0, 0, 1, 0, 0, 0]
}

/// The longest code that there may be.
#[cfg(test)]
pub(super) fn longest() -> Vec<Op> {
    let mut code = Code::default();
    for chunk in [NAME, FILE, LINE] {
        code.chunk(chunk).register(register::RSP).load(8, 8).string(NAME_MAX);
    }
    read_message(&mut code, &Kept { register: register::RSP, offsets: vec![8; OFFSETS_MAX] });
    code.finish()
}

/// Reads the message of the exception, if it has one. What is no pointer cannot be followed, and ends it.
fn read_message(code: &mut Code, exception: &Kept) {
    let mut none = Vec::new();
    code.chunk(ENCODING).register(exception.register);
    for offset in &exception.offsets {
        code.follow(*offset);
    }
    none.push(code.save(0).follow(0).and(KIND).jump_unless(OBJECT));
    none.push(code.recall(0).follow(8).save(1).follow(0).and(KIND | SINGLETON).jump_unless(CLASS));
    // Which of its variables it is.
    code.recall(1).follow(CLASS_MORE).follow(0).save(1);
    code.follow(TABLE_BOUND).save(2).recall(1).follow(TABLE_ENTRIES).save(1);
    let mut found = Vec::new();
    for number in 0..ENTRIES_MAX {
        // The one behind it must be there as well.
        none.push(code.recall(2).jump_if_below(number + 2));
        code.recall(1).add(if number == 0 { 0 } else { ENTRY }).save(1);
        found.push(code.follow(ENTRY_KEY).jump_if(MESSAGE_ID));
    }
    none.push(code.jump());
    for jump in found {
        code.land(jump);
    }
    none.push(code.recall(1).follow(ENTRY + ENTRY_KEY).jump_unless(BACKTRACE_ID));
    code.recall(1).follow(ENTRY_VALUE).load(0, 4).shift_left(3).save(1);
    // Its variables lie within it if they are few.
    code.recall(0).load(0, 4).shift_right(EMBEDDED_BIT).and(1);
    let embedded = code.jump_if(1);
    code.recall(0).load(16, 4).shift_left(3).save(2);
    code.recall(0).follow(24).add_slot(1).save(0);
    let values = code.jump();
    code.land(embedded);
    code.recall(0).add(16).add_slot(1).save(0);
    code.land(values);
    none.push(code.recall(0).follow(0).save(0).and(7).jump_unless(0));
    none.push(code.recall(0).follow(0).save(1).and(KIND).jump_unless(STRING));
    code.recall(1).shift_right(ENCODING_BIT).and(127).put(1);
    code.chunk(TEXT).recall(1).shift_right(SEPARATE_BIT).and(1);
    let separate = code.jump_if(1);
    code.recall(1).shift_right(LENGTH_BIT).and(31).save(1);
    code.recall(0).add(16).counted(1, MESSAGE_MAX);
    let read = code.jump();
    code.land(separate);
    code.recall(0).follow(16).save(1).recall(0).follow(24).counted(1, MESSAGE_MAX);
    code.land(read);
    for jump in none {
        code.land(jump);
    }
}

/// The message, if it is text.
fn message(chunks: Chunks<'_>) -> Option<String> {
    let [encoding] = *chunks.whole(ENCODING)?.bytes else { return None };
    (encoding <= ENCODING_ASCII).then(|| chunks.text(TEXT)).flatten()
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
    let mut raised = Raised::new(name, message(chunks));
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
