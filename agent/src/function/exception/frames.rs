//! Where an interpreter keeps its frames, for the kernel half to copy them where it raises.
//!
//! CPython 3.8 to 3.14, with the global lock: `Include/internal/pycore_frame.h`, `cpython/frameobject.h`,
//! `cpython/code.h`, `cpython/pystate.h`, `cpython/unicodeobject.h` of each. From 3.13 on it says itself
//! where things lie (`_Py_DebugOffsets`, first in `_PyRuntime`), and is believed. Of other versions there
//! are no stacks.

use agent_common::function::{Op, layout, op, register};

use super::data;
use crate::inspect::elf::Module;
use crate::inspect::symbols::Index;
use crate::stack::python::Lines;

/// Where things lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    /// From the state of a thread to the innermost frame: each a pointer that lies so far behind what the
    /// one before it points at.
    path: [Option<u32>; 2],
    constants: [u32; layout::COUNT],
}

/// `PyUnicodeObject.length` and `.state`, the characters behind a `PyASCIIObject`, `PyBytesObject`.
const fn strings(text: u32) -> [u32; 5] {
    [16, 32, text, 16, 32]
}

/// Bits of a string's state below those that say how it is written.
const SHIFT: u32 = 2;

/// How frames and strings are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Written {
    /// Bytes that an instruction's number counts; 0: it is a pointer.
    unit: u32,
    lines: Lines,
    /// Characters behind a `PyASCIIObject` and behind a `PyCompactUnicodeObject`.
    text: [u32; 2],
}

const fn layout(path: [Option<u32>; 2], places: [u32; 9], written: Written) -> Layout {
    let [a, b, c, d, e, f, g, h, i] = places;
    let Written { unit, lines, text: [text, wide] } = written;
    let [j, k, l, m, n] = strings(text);
    let constants = [a, b, c, d, e, f, g, h, i, j, k, l, m, n, unit, lines as u32, SHIFT, wide];
    Layout { path, constants }
}

const WRITTEN_3_8: Written = Written { unit: 1, lines: Lines::Steps, text: [48, 72] };
const WRITTEN_3_10: Written = Written { unit: 2, lines: Lines::Ranges, ..WRITTEN_3_8 };
const WRITTEN_3_11: Written = Written { unit: 0, lines: Lines::Places, ..WRITTEN_3_8 };
const WRITTEN_3_12: Written = Written { text: [40, 56], ..WRITTEN_3_11 };

/// `tstate.frame`; `f_code`, `f_back`, `f_lasti`, nothing; `co_firstlineno`, `co_filename`, `co_name`,
/// `co_lnotab`, nothing. 3.8 and 3.9.
const V3_8: Layout =
    layout([Some(24), None], [32, 24, 104, layout::NOWHERE, 40, 104, 112, 120, 0], WRITTEN_3_8);
/// As above, with `co_linetable`.
const V3_10: Layout =
    layout([Some(24), None], [32, 24, 96, layout::NOWHERE, 40, 104, 112, 120, 0], WRITTEN_3_10);

/// `tstate.cframe`, `cframe.current_frame`; `f_code`, `previous`, `prev_instr`, `owner`; `co_firstlineno`,
/// `co_filename`, `co_qualname`, `co_linetable`, `co_code_adaptive`.
const V3_11: Layout =
    layout([Some(56), Some(8)], [32, 48, 56, 69, 72, 112, 128, 136, 184], WRITTEN_3_11);
const V3_12: Layout =
    layout([Some(56), Some(0)], [0, 8, 56, 70, 68, 112, 128, 136, 192], WRITTEN_3_12);

/// Where those are that a version says itself: words of `_Py_DebugOffsets`.
struct Told {
    /// `thread_state.current_frame`
    frame: usize,
    /// As in [`V3_11`].
    places: [usize; 9],
    written: Written,
}

const TOLD_3_13: Told =
    Told { frame: 23, places: [30, 29, 31, 33, 39, 35, 37, 38, 43], written: WRITTEN_3_12 };
const TOLD_3_14: Told =
    Told { frame: 26, places: [33, 32, 34, 36, 44, 40, 42, 43, 48], written: WRITTEN_3_12 };

const COOKIE: u64 = u64::from_le_bytes(*b"xdebugpy");

/// Offsets are within structures.
const OFFSET_MAX: u64 = layout::NOWHERE as u64;

/// What the hook reads of the frames, if it is known where they are.
pub(super) fn code(module: &Module, index: &Index) -> Option<Vec<Op>> {
    let layout = of(module, index)?;
    let place = |code, a, b, imm: u32| Op { code, a, b, imm: imm.cast_signed() };
    let mut ops = vec![place(op::REGISTER, register::RDI, 0, 0)];
    ops.extend(layout.path.iter().flatten().map(|offset| place(op::LOAD, 0, 8, *offset)));
    ops.push(place(op::FRAMES, 0, 0, 0));
    for [even, odd] in layout.constants.as_chunks::<2>().0 {
        ops.push(place(op::CONSTANT_OF_FRAMES, 0, u16::try_from(*even).ok()?, *odd));
    }
    Some(ops)
}

/// What an object of a frame says, of 3.8 on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reached {
    /// The object of the frame that has called it; 0 if there is none.
    pub(super) caller: i32,
    /// The frame itself, if it lies elsewhere.
    pub(super) inner: Option<i32>,
    /// A byte of that.
    pub(super) state: i32,
    /// What the byte is when an exception has left it.
    pub(super) left: i32,
    /// In the frame its code, and in that its file and its function.
    pub(super) code: [i32; 3],
}

/// `PyFrameObject.f_back`; `.f_executing`, `.f_state` or from 3.11 on what `.f_frame` says of its owner:
/// the object itself has the frame when that has ended.
pub(super) fn reached(module: &Module, index: &Index) -> Option<Reached> {
    const EXECUTING_3_8: i32 = 116;
    const STATE_3_10: i32 = 108;
    const RAISED_3_10: i32 = 3;
    const OWNED_BY_OBJECT: i32 = 2;
    let Layout { constants, .. } = of(module, index)?;
    let place = |number: usize| constants[number] as i32;
    let code = [layout::FRAME_CODE, layout::CODE_FILE, layout::CODE_NAME].map(place);
    let (state, left) = match place(layout::INSTRUCTION_UNIT) {
        0 => {
            let state = place(layout::FRAME_OWNER);
            let (inner, left) = (Some(24), OWNED_BY_OBJECT);
            return Some(Reached { caller: 16, inner, state, left, code });
        }
        1 => (EXECUTING_3_8, 0),
        _ => (STATE_3_10, RAISED_3_10),
    };
    Some(Reached { caller: place(layout::FRAME_PREVIOUS), inner: None, state, left, code })
}

fn of(module: &Module, index: &Index) -> Option<Layout> {
    let Some(version) = word(module, "Py_Version", 0) else { return before_3_11(index) };
    let told = |by| told(|number| word(module, "_PyRuntime", number), version, by);
    match version >> 16 {
        0x030b => Some(V3_11),
        0x030c => Some(V3_12),
        0x030d => told(&TOLD_3_13),
        0x030e => told(&TOLD_3_14),
        _ => None,
    }
}

/// Those versions do not say which they are, but by what came with them.
fn before_3_11(index: &Index) -> Option<Layout> {
    let is_there = |name| !index.functions(|function| function == name).is_empty();
    match (is_there("PyModule_AddObjectRef"), is_there("PyCode_NewWithPosOnlyArgs")) {
        (true, _) => Some(V3_10),
        (false, true) => Some(V3_8),
        (false, false) => None,
    }
}

/// What the interpreter says of itself.
fn told(word: impl Fn(usize) -> Option<u64>, version: u64, by: &Told) -> Option<Layout> {
    let [cookie, of_version, without_lock] = [word(0)?, word(1)?, word(2)?];
    if cookie != COOKIE || of_version != version || without_lock != 0 {
        return None;
    }
    let offset = |number| {
        let offset = word(number).filter(|offset| *offset < OFFSET_MAX)?;
        u32::try_from(offset).ok()
    };
    let mut places = [0; 9];
    for (place, number) in places.iter_mut().zip(by.places) {
        *place = offset(number)?;
    }
    Some(layout([Some(offset(by.frame)?), None], places, by.written))
}

fn word(module: &Module, symbol: &str, number: usize) -> Option<u64> {
    let mut address = data::symbol(module, symbol)?;
    address.0 = address.0.checked_add(8 * number as u64)?;
    Some(u64::from_le_bytes(module.read(address, 8).ok()?.try_into().ok()?))
}

/// The longest code that there may be.
#[cfg(test)]
pub(super) fn longest() -> usize {
    // The register, the path, and the frames with their constants.
    1 + V3_12.path.len() + 1 + layout::COUNT / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interpreter_is_believed_of_itself() {
        for (by, version) in [(TOLD_3_13, 0x030d_00f0), (TOLD_3_14, 0x030e_03f0)] {
            let mut words = vec![0; 49];
            (words[0], words[1], words[by.frame]) = (COOKIE, version, 72);
            for (place, number) in by.places.into_iter().enumerate() {
                words[number] = place as u64 * 8;
            }
            let read = |words: &[u64]| told(|number| words.get(number).copied(), version, &by);
            let expected = layout([Some(72), None], [0, 8, 16, 24, 32, 40, 48, 56, 64], by.written);
            assert_eq!(read(&words), Some(expected));
            let last = by.places[3];
            for (number, wrong) in [(0, 1), (1, version + 0x100), (2, 1), (last, 1 << 40)] {
                let mut words = words.clone();
                words[number] = wrong;
                assert_eq!(read(&words), None);
            }
            assert_eq!(read(&words[..40]), None);
        }
    }
}
