//! CPython: what nobody has caught. `PyErr_Display(type, value, traceback)`, which `sys.excepthook` comes
//! to, if the exception has left the outermost frame; `threading.excepthook`, if it is that of the frame
//! that a thread begins with; and `sys.unraisablehook`. The latter two are found by the tables of methods
//! that name them, since they are not exported.
//!
//! A program may call all of these with an exception that it has caught. That is told by where the
//! exception has been: its traceback begins with the outermost frame that it has reached.
//!
//! What catches in Python, its handlers do not tell: they are entered by `finally` as well.

use agent_common::function::{Op, register};

use super::catch::Which;
use super::chunks::Chunks;
use super::code::Code;
use super::frames::{self, Reached};
use super::python::Layout;
use super::{Decode, NAME_MAX, PATH_MAX, Seen, Surroundings};
use crate::inspect::address::VirtAddr;
use crate::inspect::code::{Binary, Program, Whereabouts};
use crate::inspect::demangle::{Language, Variant};
use crate::inspect::elf::{Module, Section};
use crate::inspect::symbols::{Function, Index, Origin};

const OF_PROGRAM: &str = "PyErr_Display";
const OF_THREAD: &str = "threading.excepthook";
const UNRAISABLE: &str = "sys.unraisablehook";

/// What is found by a table of methods, with the name that it has there.
const METHODS: [(&str, &str); 2] = [(OF_THREAD, "_excepthook"), (UNRAISABLE, "unraisablehook")];

/// Most bytes of a section that are searched.
const SEARCHED_MAX: u64 = 64 << 20;

/// Most sections that are, and most places in each where a name is, and most methods.
const SECTIONS_MAX: usize = 4;
const PLACES_MAX: usize = 16;

/// The exception, its arguments, and the first of those.
const EXCEPTION: u16 = 0;
const ARGUMENTS: u16 = 1;
const ARGUMENT: u16 = 2;
/// Of the outermost frame that the exception has reached: the frame that has called it, its state, the
/// name of its function and of its file.
const CALLER: u16 = 3;
const STATE: u16 = 4;
const FUNCTION: u16 = 5;
const FILE: u16 = 6;
/// Nothing: what may fail for itself.
const STEP: u16 = 7;

/// The first frame of a thread, which catches what nobody else has.
const FIRST: [&str; 2] = ["_bootstrap_inner", "Thread._bootstrap_inner"];
const FIRST_FILE: &str = "threading.py";

/// In a traceback: the frame.
const TRACEBACK_FRAME: i32 = 24;

pub(super) fn is_hook(name: &str) -> bool {
    [OF_PROGRAM, OF_THREAD, UNRAISABLE].contains(&name)
}

/// Those that have no symbol, in a module of CPython's.
pub(super) fn methods(module: &Module, index: &Index) -> Vec<Function> {
    let sections = || module.sections().iter().filter(|section| section.size < SEARCHED_MAX);
    let mut names = Vec::new();
    let constant = sections().filter(|section| section.name == ".rodata");
    for section in constant.take(SECTIONS_MAX) {
        let bytes = module.section_bytes(section).unwrap_or_default();
        for (method, name) in METHODS {
            let name = [name.as_bytes(), b"\0"].concat();
            // Of strings with one end there may be one.
            let places = memchr::memmem::find_iter(&bytes, &name).take(PLACES_MAX);
            names.extend(places.map(|at| (section.address.0 + at as u64, method)));
        }
    }
    let data =
        sections().filter(|section| matches!(section.name.as_str(), ".data" | ".data.rel.ro"));
    let data = data.take(SECTIONS_MAX);
    let found = data.flat_map(|section| methods_in(section, &names, module, index));
    found.take(PLACES_MAX).collect()
}

/// The functions of the methods of these names in a section of a module.
fn methods_in(
    section: &Section,
    names: &[(u64, &str)],
    module: &Module,
    index: &Index,
) -> Vec<Function> {
    let bytes = module.section_bytes(section).unwrap_or_default();
    let words = bytes.as_chunks::<8>().0;
    // In a program that lies at one place they are there already.
    let word = |number: usize| {
        let slot = VirtAddr(section.address.0 + 8 * number as u64);
        let written = words.get(number).map(|word| u64::from_le_bytes(*word));
        index.relocated(slot).map(|target| target.0).or(written)
    };
    // A `PyMethodDef`: name, function, how it is called.
    let method = |number: usize| {
        let name = word(number)?;
        let (_, name) = names.iter().find(|(address, _)| *address == name)?;
        let address = VirtAddr(word(number + 1)?);
        let (start, end) = match Binary::new(module, index).whereabouts(address) {
            Whereabouts::Unnamed(range) => (range.start, range.end),
            Whereabouts::Start => {
                index.holding(address).map(|(_, range)| (range.start, range.end))?
            }
            _ => return None,
        };
        Some(function(name, start, end.0.saturating_sub(start.0)))
    };
    (0..words.len()).filter_map(method).take(PLACES_MAX).collect()
}

fn function(name: &str, address: VirtAddr, size: u64) -> Function {
    Function {
        address,
        size,
        linkage: name.to_owned(),
        name: name.to_owned(),
        aliases: Vec::new(),
        language: Language::C,
        variant: Variant::Plain,
        origin: Origin::Dynamic,
    }
}

/// The first argument, the second, and so on.
const ARGUMENTS_OF_CALL: [u8; 3] = [register::RDI, register::RSI, register::RDX];

/// Where a hook finds an object: an argument, or so far behind what one points at.
#[derive(Clone, Copy)]
struct From {
    argument: usize,
    offset: Option<i32>,
}

impl From {
    fn load(self, code: &mut Code) {
        code.register(ARGUMENTS_OF_CALL[self.argument]);
        if let Some(offset) = self.offset {
            code.follow(offset);
        }
    }
}

pub(super) fn code(function: &Function, seen: Surroundings<'_>) -> Option<(Vec<Op>, Decode)> {
    let layout = Layout::of(seen.index);
    let (head, message) = (layout.head, layout.message?);
    let reached = frames::reached(seen.module, seen.index)?;
    let argument = |argument| From { argument, offset: None };
    // The type, the exception, its traceback.
    let item = |number| From { argument: 1, offset: Some(message.item + 8 * number) };
    let mut code = Code::default();
    let decode = match function.name.as_str() {
        OF_PROGRAM => {
            tell(&mut code, (head, message.item), argument(1));
            tell_reached(&mut code, &reached, argument(2));
            Decode::PythonUncaught
        }
        OF_THREAD => {
            tell(&mut code, (head, message.item), item(1));
            tell_reached(&mut code, &reached, item(2));
            tell_names(&mut code, &reached, (head, message.text));
            Decode::PythonUncaught
        }
        UNRAISABLE => {
            tell(&mut code, (head, message.item), item(1));
            Decode::PythonUnraisable
        }
        _ => return None,
    };
    Some((code.finish(), decode))
}

/// Tells the exception, and what it was made of.
fn tell(code: &mut Code, (head, item): (i32, i32), from: From) {
    code.chunk(EXCEPTION);
    from.load(code);
    code.put(8).save(0);
    code.chunk(ARGUMENTS).recall(0).follow(head + 8).put(8).save(1);
    code.chunk(ARGUMENT).recall(1).follow(head);
    let none = code.jump_if(0);
    code.recall(1).follow(item).put(8);
    code.land(none);
}

/// Tells who has called the outermost frame of a traceback, and whether an exception has left that. The
/// frame's own code is in slot 1 then.
fn tell_reached(code: &mut Code, reached: &Reached, traceback: From) {
    let Reached { caller, inner, state, left, .. } = *reached;
    code.chunk(CALLER);
    traceback.load(code);
    code.follow(TRACEBACK_FRAME).save(0).follow(caller).put(8);
    code.chunk(STATE).recall(0);
    if let Some(inner) = inner {
        code.follow(inner);
    }
    code.save(1).load(state, 1);
    let other = code.jump_unless(left);
    code.recall(0).put(1);
    code.land(other);
}

fn tell_names(code: &mut Code, reached: &Reached, (head, text): (i32, i32)) {
    let [code_of_frame, file, function] = reached.code;
    // Bits of the interpreter's own.
    code.chunk(STEP).recall(1).follow(code_of_frame).and(-8).save(1);
    for (chunk, name, most) in [(FUNCTION, function, NAME_MAX), (FILE, file, PATH_MAX)] {
        code.chunk(chunk).recall(1).follow(name).save(2).follow(head).save(3);
        code.recall(2).add(text).counted(3, most);
    }
}

/// The exception that a hook tells.
fn which(chunks: Chunks<'_>) -> Which {
    let object = |number| chunks.number(number).filter(|object| *object != 0);
    match object(EXCEPTION) {
        Some(exception) => Which::Made { exception, of: [ARGUMENTS, ARGUMENT].map(object) },
        None => Which::Unknown,
    }
}

pub(super) fn decode(chunks: Chunks<'_>) -> Seen {
    let has_left = chunks.whole(STATE).is_some_and(|state| state.bytes.len() == 1);
    let is_outermost = chunks.number(CALLER) == Some(0);
    let (function, file) = (chunks.name(FUNCTION), chunks.name(FILE));
    let is_of_thread = function.is_some_and(|name| FIRST.contains(&name))
        && file.is_some_and(|file| file.rsplit('/').next() == Some(FIRST_FILE));
    if is_of_thread || (is_outermost && has_left) {
        Seen::Uncaught(which(chunks))
    } else {
        Seen::Nothing
    }
}

pub(super) fn decode_unraisable(chunks: Chunks<'_>) -> Seen {
    Seen::Uncaught(which(chunks))
}

#[cfg(test)]
mod tests {
    use super::super::chunks::written;
    use super::*;

    #[test]
    fn an_exception_must_have_left_the_outermost_frame() {
        let (object, arguments, argument) =
            (7u64.to_le_bytes(), 8u64.to_le_bytes(), 9u64.to_le_bytes());
        let chunks = |caller: u64, state: &[u8], function: &str, file: &str| {
            written(&[
                (EXCEPTION, 0, &object),
                (ARGUMENTS, 0, &arguments),
                (ARGUMENT, 0, &argument),
                (CALLER, 0, &caller.to_le_bytes()),
                (STATE, 0, state),
                (FUNCTION, 0, function.as_bytes()),
                (FILE, 0, file.as_bytes()),
            ])
        };
        let uncaught = Seen::Uncaught(Which::Made { exception: 7, of: [Some(8), Some(9)] });
        let path = "/usr/lib/python3.14/threading.py";
        for (chunks, expected) in [
            (chunks(0, &[1], "", ""), &uncaught),
            (chunks(0x10, &[1], "", ""), &Seen::Nothing),
            (chunks(0, &[], "", ""), &Seen::Nothing),
            (chunks(0x10, &[], "Thread._bootstrap_inner", path), &uncaught),
            (chunks(0x10, &[], "Thread.run", path), &Seen::Nothing),
            (chunks(0x10, &[], "_bootstrap_inner", "/app/mythreading.py"), &Seen::Nothing),
        ] {
            assert_eq!(decode(Chunks(&chunks)), *expected);
        }
        let without = written(&[(EXCEPTION, 0, &object), (ARGUMENTS, 1, b""), (ARGUMENT, 0, b"")]);
        let which = Which::Made { exception: 7, of: [None, None] };
        assert_eq!(decode_unraisable(Chunks(&without)), Seen::Uncaught(which));
    }
}
