//! CPython 3.8 to 3.14: `_PyErr_SetObject(tstate, type, value)`, which every raise passes once, whether
//! of a `raise` statement or of C code. What goes on through other frames, or is raised again by a bare
//! `raise`, does not. Exceptions that C code raises and drops, or replaces, are seen as well.
//!
//! From 3.13 on it is not exported, so that it has no name where an interpreter is stripped. Then it is what
//! both `PyErr_SetNone` and `PyErr_SetObject` end with, the former with no value.
//!
//! The type's name is `tp_name`: without its module for classes of Python code. The message is the first
//! of the exception's arguments if that is a string. Layouts are those of
//! `Include/cpython/`: `object.h`, `unicodeobject.h`, `tupleobject.h`, `pyerrors.h`.

use agent_common::function::{Op, register, string_bits};

use super::chunks::Chunks;
use super::code::{Code, Jump};
use super::{Decode, MESSAGE_MAX, NAME_MAX, Raised, Seen, Surroundings};
use crate::inspect::code::{Binary, Program, Whereabouts, tail_calls};
use crate::inspect::demangle::{Language, Variant};
use crate::inspect::elf::Module;
use crate::inspect::symbols::{Function, Index, Origin};
use crate::stack::python::characters;

const HOOK: &str = "_PyErr_SetObject";

/// How the language ends loops, generators and coroutines.
const CONTROL_FLOW: [&str; 3] = ["StopIteration", "GeneratorExit", "StopAsyncIteration"];

const NAME: u16 = 0;
const TEXT: u16 = 1;
/// Nothing: what may fail for itself.
const STEP: u16 = 2;
/// The value that is raised, and `tp_flags` of its type.
const VALUE: u16 = 3;
const FLAGS: u16 = 4;
/// How the text is written.
const WRITTEN: u16 = 5;

/// Of `tp_flags`, from the head of a type on.
const TYPE_FLAGS: i32 = 152;

/// Bits of `tp_flags`: the type is `tuple` or derived from it, `str`, or `BaseException`.
const IS_TUPLE: i32 = 26;
const IS_STRING: i32 = 28;
const IS_EXCEPTION: i32 = 30;

pub(super) fn is_hook(name: &str) -> bool {
    name == HOOK
}

/// Where things lie in objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Bytes of an object's head; the pointer to its type is the last of it.
    pub(super) head: i32,
    /// What messages need; `None`: only the type is read.
    pub(super) message: Option<MessageLayout>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MessageLayout {
    /// A tuple's first item.
    pub(super) item: i32,
    /// A string's characters, if all are ASCII's; else they lie further on.
    pub(super) text: i32,
    pub(super) wide: i32,
}

/// Bits of a string's state below [`string_bits`].
const STATE_SHIFT: i32 = 2;

impl Layout {
    /// By what came with the versions: 3.12 `PyErr_SetRaisedException`; 3.14
    /// `PyUnstable_Object_IsUniqueReferencedTemporary`; builds without the global lock, which have larger
    /// heads, `_Py_MergeZeroLocalRefcount`.
    pub(super) fn of(index: &Index) -> Self {
        let (mut is_3_12, mut is_3_14, mut without_lock) = (false, false, false);
        index.functions(|name| {
            match name {
                "PyErr_SetRaisedException" => is_3_12 = true,
                "PyUnstable_Object_IsUniqueReferencedTemporary" => is_3_14 = true,
                "_Py_MergeZeroLocalRefcount" => without_lock = true,
                _ => {}
            }
            false
        });
        let message = MessageLayout {
            item: if is_3_14 { 32 } else { 24 },
            text: if is_3_12 { 40 } else { 48 },
            wide: if is_3_12 { 56 } else { 72 },
        };
        match without_lock {
            true => Self { head: 32, message: None },
            false => Self { head: 16, message: Some(message) },
        }
    }
}

pub(super) fn code(function: &Function, seen: Surroundings<'_>) -> Option<(Vec<Op>, Decode)> {
    if function.variant == Variant::Plain && has_part(seen.index) {
        return None;
    }
    Some((read(Layout::of(seen.index)), Decode::Python))
}

/// The function, if it is there without a name.
pub(super) fn unnamed(module: &Module, index: &Index) -> Option<Function> {
    let ends = ["PyErr_SetNone", "PyErr_SetObject"];
    let callers = index.functions(|name| name == HOOK || ends.contains(&name));
    let caller = |name: &str| callers.iter().find(|function| function.name == name);
    if caller(HOOK).is_some() {
        return None;
    }
    let calls = |name| tail_calls(module, index, caller(name)?).ok();
    let (of_none, of_object) = (calls(ends[0])?, calls(ends[1])?);
    let mut without_value = of_none.iter().filter(|call| call.third_is_zero);
    let (target, other) = (without_value.next()?.target, without_value.next());
    if other.is_some() || !of_object.iter().any(|call| call.target == target) {
        return None;
    }
    let Whereabouts::Unnamed(range) = Binary::new(module, index).whereabouts(target) else {
        return None;
    };
    Some(Function {
        address: target,
        size: range.end.0.saturating_sub(target.0),
        linkage: HOOK.to_owned(),
        name: HOOK.to_owned(),
        aliases: Vec::new(),
        language: Language::C,
        variant: Variant::Plain,
        origin: Origin::Dynamic,
    })
}

/// Whether the compiler has split the function, so that callers may go to the larger part directly. That
/// part takes the same arguments.
fn has_part(index: &Index) -> bool {
    index.functions(|name| name == HOOK).iter().any(|function| function.variant == Variant::Part)
}

/// The longest code that there may be.
#[cfg(test)]
pub(super) fn longest() -> Vec<Op> {
    let message = MessageLayout { item: 24, text: 48, wide: 72 };
    read(Layout { head: 16, message: Some(message) })
}

fn read(layout: Layout) -> Vec<Op> {
    let mut code = Code::default();
    let name = layout.head + 8;
    code.chunk(STEP).register(register::RSI).follow(name).save(3);
    for control_flow in CONTROL_FLOW {
        drop_if_named(&mut code, control_flow);
    }
    code.chunk(NAME).register(register::RSI).follow(name).string(NAME_MAX);
    code.chunk(VALUE).register(register::RDX).put(8);
    let class = layout.head - 8;
    code.chunk(FLAGS).register(register::RDX).follow(class).follow(layout.head + TYPE_FLAGS).put(8);
    if let Some(message) = layout.message {
        read_message(&mut code, layout.head, message);
    }
    code.finish()
}

/// Drops the hit if slot 3 points at just this string.
fn drop_if_named(code: &mut Code, name: &str) {
    let mut jumps = Vec::new();
    let mut rest = name.as_bytes();
    let zero = [0];
    let mut at = 0;
    let mut is_ended = false;
    while !is_ended {
        let (bytes, behind) = match rest {
            [a, b, c, d, behind @ ..] => (vec![*a, *b, *c, *d], behind),
            [a, b, behind @ ..] => (vec![*a, *b], behind),
            [a] => (vec![*a, 0], &[][..]),
            [] => (zero.to_vec(), &[][..]),
        };
        is_ended = bytes.last() == Some(&0);
        let number = bytes.iter().rev().fold(0, |number, byte| number << 8 | i32::from(*byte));
        code.recall(3).load(at, bytes.len() as u16);
        jumps.push(code.jump_unless(number));
        at += bytes.len() as i32;
        rest = behind;
    }
    code.drop_hit();
    for jump in jumps {
        code.land(jump);
    }
}

fn read_message(code: &mut Code, head: i32, layout: MessageLayout) {
    let class = head - 8;
    let args = head + 8;
    code.chunk(TEXT).register(register::RDX).save(0);
    // The value may be what the exception is yet to be made of: a string, or a tuple of arguments.
    let string = jump_if_kind(code, class, IS_STRING);
    let tuple = jump_if_kind(code, class, IS_TUPLE);
    let other = jump_unless_kind(code, class, IS_EXCEPTION);
    code.recall(0).follow(args).save(0);
    code.land(tuple);
    code.recall(0).follow(head);
    let none = code.jump_if(0);
    code.recall(0).follow(layout.item).save(0);
    let odd = jump_unless_kind(code, class, IS_STRING);
    code.land(string);
    // One that is not compact has its characters elsewhere.
    let state = |code: &mut Code, bits: u32| {
        code.recall(0).load(head + 16, 4).shift_right(STATE_SHIFT).and(bits.cast_signed());
    };
    state(code, string_bits::COMPACT);
    let elsewhere = code.jump_if(0);
    code.recall(0).follow(head).save(1);
    state(code, string_bits::ASCII);
    let wide = code.jump_if(0);
    code.recall(0).add(layout.text).counted(1, MESSAGE_MAX);
    let read = code.jump();
    code.land(wide);
    // Characters of two bytes or of four.
    for (bytes, shift) in [(2, 1), (4, 2)] {
        state(code, bytes);
        let others = code.jump_if(0);
        code.recall(1).shift_left(shift).save(1);
        code.land(others);
    }
    code.recall(0).add(layout.wide).counted(1, MESSAGE_MAX);
    code.land(read);
    code.chunk(WRITTEN);
    state(code, string_bits::ALL);
    code.put(1);
    for jump in [other, none, odd, elsewhere] {
        code.land(jump);
    }
}

/// Leaves in the accumulator whether the type of the object in slot 0 has this bit.
fn kind(code: &mut Code, class: i32, bit: i32) {
    let flags = class + 8 + TYPE_FLAGS;
    code.recall(0).follow(class).follow(flags).shift_right(bit).and(1);
}

fn jump_if_kind(code: &mut Code, class: i32, bit: i32) -> Jump {
    kind(code, class, bit);
    code.jump_if(1)
}

fn jump_unless_kind(code: &mut Code, class: i32, bit: i32) -> Jump {
    kind(code, class, bit);
    code.jump_unless(1)
}

pub(super) fn decode(chunks: Chunks<'_>) -> Option<Seen> {
    let name = chunks.name(NAME)?;
    if CONTROL_FLOW.contains(&name) {
        return Some(Seen::ControlFlow);
    }
    let value = chunks.number(VALUE).filter(|value| *value != 0);
    let is_exception = chunks.number(FLAGS).is_some_and(|flags| flags >> IS_EXCEPTION & 1 != 0);
    let (object, made_of) = if is_exception { (value, None) } else { (None, value) };
    Some(Seen::Raised(Raised { object, made_of, ..Raised::new(name, text(chunks)) }))
}

/// The message; what was cut within a character ends before it.
fn text(chunks: Chunks<'_>) -> Option<String> {
    let [written] = *chunks.whole(WRITTEN)?.bytes else { return None };
    let text = chunks.whole(TEXT)?.bytes;
    characters(text, written.into()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::chunks::written;
    use super::*;

    #[test]
    fn names_and_texts() {
        let bits = |kind| [kind | string_bits::COMPACT as u8];
        for (text, bits, expected) in [
            (b"boom".as_slice(), bits(1 | string_bits::ASCII as u8), Some("boom")),
            (b"gr\xf6\xdfer", bits(1), Some("größer")),
            (&[0x3a, 4, 0x3e, 4], bits(2), Some("ко")),
            (b"gr\xf6\xdfer", bits(1 | string_bits::ASCII as u8), None),
            (b"boom", [1], None),
        ] {
            let chunks =
                [(NAME, 0, b"ValueError".as_slice()), (TEXT, 0, text), (WRITTEN, 0, &bits)];
            let raised = Raised::new("ValueError", expected.map(str::to_owned));
            assert_eq!(decode(Chunks(&written(&chunks))), Some(Seen::Raised(raised)));
        }
        let seen = decode(Chunks(&written(&[(NAME, 0, b"KeyError"), (TEXT, 1, b"bo")])));
        assert_eq!(seen, Some(Seen::Raised(Raised::new("KeyError", None))));
        let seen = decode(Chunks(&written(&[(NAME, 0, b"StopIteration"), (TEXT, 0, b"")])));
        assert_eq!(seen, Some(Seen::ControlFlow));
        assert_eq!(decode(Chunks(&written(&[(NAME, 0, b"a\0b")]))), None);
    }
}
