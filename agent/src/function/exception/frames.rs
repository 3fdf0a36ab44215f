//! Where an interpreter keeps its frames, for the kernel half to copy them where it raises.
//!
//! CPython 3.11 to 3.13, with the global lock: `Include/internal/pycore_frame.h`, `cpython/code.h`,
//! `cpython/pystate.h`, `cpython/unicodeobject.h` of each. 3.13 says itself where things lie
//! (`_Py_DebugOffsets`, first in `_PyRuntime`), and is believed. Of other versions there are no stacks.

use agent_common::function::{Op, layout, op, register};

use super::data;
use crate::inspect::elf::Module;

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

const fn layout(path: [Option<u32>; 2], places: [u32; 9], text: u32) -> Layout {
    let [a, b, c, d, e, f, g, h, i] = places;
    let [j, k, l, m, n] = strings(text);
    Layout { path, constants: [a, b, c, d, e, f, g, h, i, j, k, l, m, n] }
}

/// `tstate.cframe`, `cframe.current_frame`; `f_code`, `previous`, `prev_instr`, `owner`; `co_firstlineno`,
/// `co_filename`, `co_qualname`, `co_linetable`, `co_code_adaptive`.
const V3_11: Layout = layout([Some(56), Some(8)], [32, 48, 56, 69, 72, 112, 128, 136, 184], 48);
const V3_12: Layout = layout([Some(56), Some(0)], [0, 8, 56, 70, 68, 112, 128, 136, 192], 40);

/// Where those are in `_Py_DebugOffsets` of 3.13, words: `thread_state.current_frame`; then as above.
const TOLD_FRAME: usize = 23;
const TOLD: [usize; 9] = [30, 29, 31, 33, 39, 35, 37, 38, 43];
const TOLD_WORDS: usize = 44;
const COOKIE: u64 = u64::from_le_bytes(*b"xdebugpy");
/// Characters of 3.13's strings.
const TEXT_3_13: u32 = 40;

/// Offsets are within structures.
const OFFSET_MAX: u64 = 1 << 16;

/// What the hook reads of the frames, if it is known where they are.
pub(super) fn code(module: &Module) -> Option<Vec<Op>> {
    let layout = of(module)?;
    let place = |code, a, b, imm: u32| Op { code, a, b, imm: imm.cast_signed() };
    let mut ops = vec![place(op::REGISTER, register::RDI, 0, 0)];
    ops.extend(layout.path.iter().flatten().map(|offset| place(op::LOAD, 0, 8, *offset)));
    ops.push(place(op::FRAMES, 0, 0, 0));
    ops.extend(layout.constants.map(|constant| place(op::CONSTANT_OF_FRAMES, 0, 0, constant)));
    Some(ops)
}

fn of(module: &Module) -> Option<Layout> {
    let version = word(module, "Py_Version", 0)?;
    match version >> 16 {
        0x030b => Some(V3_11),
        0x030c => Some(V3_12),
        0x030d => told(|number| word(module, "_PyRuntime", number), version),
        _ => None,
    }
}

/// What the interpreter says of itself.
fn told(word: impl Fn(usize) -> Option<u64>, version: u64) -> Option<Layout> {
    let [cookie, of_version, without_lock] = [word(0)?, word(1)?, word(2)?];
    if cookie != COOKIE || of_version != version || without_lock != 0 {
        return None;
    }
    let offset = |number| {
        let offset = word(number).filter(|offset| *offset < OFFSET_MAX && number < TOLD_WORDS)?;
        u32::try_from(offset).ok()
    };
    let mut places = [0; 9];
    for (place, number) in places.iter_mut().zip(TOLD) {
        *place = offset(number)?;
    }
    Some(layout([Some(offset(TOLD_FRAME)?), None], places, TEXT_3_13))
}

fn word(module: &Module, symbol: &str, number: usize) -> Option<u64> {
    let mut address = data::symbol(module, symbol)?;
    address.0 = address.0.checked_add(8 * number as u64)?;
    Some(u64::from_le_bytes(module.read(address, 8).ok()?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interpreter_is_believed_of_itself() {
        let mut words = vec![0; TOLD_WORDS];
        (words[0], words[1], words[TOLD_FRAME]) = (COOKIE, 0x030d_00f0, 72);
        for (place, number) in TOLD.into_iter().enumerate() {
            words[number] = place as u64 * 8;
        }
        let read = |words: &[u64]| told(|number| words.get(number).copied(), 0x030d_00f0);
        let expected = layout([Some(72), None], [0, 8, 16, 24, 32, 40, 48, 56, 64], TEXT_3_13);
        assert_eq!(read(&words), Some(expected));
        for (number, wrong) in [(0, 1), (1, 0x030d_01f0), (2, 1), (TOLD[3], 1 << 40)] {
            let mut words = words.clone();
            words[number] = wrong;
            assert_eq!(read(&words), None);
        }
        assert_eq!(read(&words[..40]), None);
    }
}
