//! Copies the frames of an interpreter: a list of them, each with its code's names and the start of its
//! table of lines. Where things lie, user space says. The program goes on, so that what they point at has
//! to be read here and now.

use core::ptr;

use agent_common::function::{
    FRAME_TEXT_MAX, IMAGE_MAX, INTERPRETED_MAX, InterpretedFrame, frame_flags, image_flags, layout,
    string_bits,
};
use aya_ebpf::helpers::generated::bpf_probe_read_user;

use crate::image::{self, Making};
use crate::interpret::CODE;
use crate::opaque::opaque;

/// Most bytes of one frame.
const FRAME_MAX: u64 = (size_of::<InterpretedFrame>()
    + FRAME_TEXT_MAX[0] as usize
    + FRAME_TEXT_MAX[1] as usize
    + FRAME_TEXT_MAX[2] as usize) as u64;

/// Copies the frames from `first` on, writes the record and gives the place back.
///
/// Global, which means that the verifier checks it once and by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn write_frames(index: u32, first: u64, constants: u32, count: u32) -> u32 {
    let Some(making) = image::making(index) else { return 0 };
    let mut number = 0;
    while number < layout::COUNT {
        // Two in each op; there is an even number of them.
        let op = constants.wrapping_add(number as u32 / 2);
        let Some(constant) = CODE.get(op) else { return 0 };
        making.layout[number] = u32::from(constant.b);
        making.layout[number + 1] = constant.imm as u32;
        number += 2;
    }
    making.frame = first;
    making.image.copied = 0;
    making.image.flags = image_flags::INTERPRETED;
    making.image.written = making.layout[layout::WRITTEN];
    let mut frames = 0;
    while frames < INTERPRETED_MAX {
        if copy_frame(index) == 0 {
            break;
        }
        frames += 1;
    }
    let Some(making) = image::making(index) else { return 0 };
    if frames == INTERPRETED_MAX {
        making.image.flags |= image_flags::CUT;
    }
    u32::from(image::finish(making, count))
}

/// Copies the next frame. 0 if that was the last one.
///
/// Global, as [`write_frames`] is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn copy_frame(index: u32) -> u32 {
    match image::making(index) {
        Some(making) => u32::from(step(making)),
        None => 0,
    }
}

#[inline(always)]
fn step(making: &mut Making) -> bool {
    // SAFETY: parts of the map's value. Volatile, so that every frame begins with values that the verifier
    // knows nothing about.
    let (frame, at) = unsafe {
        (
            ptr::read_volatile(&raw const making.frame),
            ptr::read_volatile(&raw const making.image.copied),
        )
    };
    if frame == 0 {
        return false;
    }
    let begin = opaque(u64::from(at)) & (IMAGE_MAX as u64 * 2 - 1);
    if begin > IMAGE_MAX as u64 - FRAME_MAX {
        making.image.flags |= image_flags::CUT;
        return false;
    }
    let (Some(code), Some(previous), Some(instruction)) = (
        number(frame, making.layout[layout::FRAME_CODE], 8),
        number(frame, making.layout[layout::FRAME_PREVIOUS], 8),
        number(frame, making.layout[layout::FRAME_INSTRUCTION], 8),
    ) else {
        making.image.flags |= image_flags::FAULT;
        return false;
    };
    // Objects lie at multiples of eight; CPython 3.14 keeps bits of its own below that.
    let code = code & !7;
    let owner = match making.layout[layout::FRAME_OWNER] {
        layout::NOWHERE => None,
        offset => number(frame, offset, 1),
    };
    let Some(first_line) = number(code, making.layout[layout::CODE_LINE], 4) else {
        making.image.flags |= image_flags::FAULT;
        return false;
    };
    let start = code.wrapping_add(u64::from(making.layout[layout::CODE_START]));
    let in_code = match making.layout[layout::INSTRUCTION_UNIT] {
        0 => instruction.wrapping_sub(start),
        unit => (instruction & 0xffff_ffff).wrapping_mul(u64::from(unit)),
    };
    let mut head = InterpretedFrame {
        first_line: first_line as u32,
        at: in_code as i32,
        owner: match owner {
            Some(owner) => owner as u8,
            None => 0,
        },
        ..InterpretedFrame::default()
    };
    let mut at = begin + size_of::<InterpretedFrame>() as u64;
    match text(making, code, layout::CODE_NAME, (at, FRAME_TEXT_MAX[0])) {
        Some(Text { bytes, length, state }) => {
            head.name = bytes as u16;
            head.lengths[0] = length;
            head.states[0] = state;
            at += bytes;
        }
        None => head.flags |= frame_flags::NO_NAME,
    }
    match text(making, code, layout::CODE_FILE, (at, FRAME_TEXT_MAX[1])) {
        Some(Text { bytes, length, state }) => {
            head.file = bytes as u16;
            head.lengths[1] = length;
            head.states[1] = state;
            at += bytes;
        }
        None => head.flags |= frame_flags::NO_FILE,
    }
    match table(making, code, (at, in_code)) {
        Some(Table { bytes, length }) => {
            head.table = bytes as u16;
            if bytes < length {
                head.flags |= frame_flags::TABLE_CUT;
            }
            at += bytes;
        }
        None => head.flags |= frame_flags::NO_TABLE,
    }
    // SAFETY: at most IMAGE_MAX less FRAME_MAX.
    let to = unsafe { making.stack.as_mut_ptr().add(begin as usize) };
    // SAFETY: as above; alignment is not assumed.
    unsafe { ptr::write_unaligned(to.cast::<InterpretedFrame>(), head) };
    making.image.copied = (at as u32 + 7) & !7;
    making.frame = previous;
    true
}

/// A string.
struct Text {
    /// Bytes that were copied.
    bytes: u64,
    length: u32,
    state: u32,
}

/// A table of lines.
struct Table {
    /// Bytes that were copied.
    bytes: u64,
    length: u64,
}

/// Copies at most as many bytes of a string of some code's as there may be.
#[inline(always)]
fn text(making: &mut Making, code: u64, which: usize, (at, most): (u64, u16)) -> Option<Text> {
    let string = number(code, making.layout[which], 8)?;
    let length = number(string, making.layout[layout::STRING_LENGTH], 8)?;
    let length = if length > u64::from(u32::MAX) { u64::from(u32::MAX) } else { length };
    let state = number(string, making.layout[layout::STRING_STATE], 4)?;
    let state = (state >> (making.layout[layout::STRING_SHIFT] & 31)) as u32 & string_bits::ALL;
    let (which, width) = match state & string_bits::ASCII {
        0 => (layout::STRING_WIDE, state & string_bits::KIND),
        _ => (layout::STRING_TEXT, 1),
    };
    let from = string.wrapping_add(u64::from(making.layout[which]));
    let bytes = append(making, at, from, (length * u64::from(width), most))?;
    let length = length as u32;
    Some(Text { bytes, length, state })
}

/// Copies as much of a table of lines as is likely to be needed up to an instruction.
#[inline(always)]
fn table(making: &mut Making, code: u64, (at, in_code): (u64, u64)) -> Option<Table> {
    let table = number(code, making.layout[layout::CODE_TABLE], 8)?;
    let length = number(table, making.layout[layout::BYTES_LENGTH], 8)?;
    let from = table.wrapping_add(u64::from(making.layout[layout::BYTES]));
    // An entry is of two bytes of code at least, and of three of its own in most cases.
    let needed = if in_code > u64::from(FRAME_TEXT_MAX[2]) { length } else { in_code * 2 + 32 };
    let wanted = if needed < length { needed } else { length };
    Some(Table { bytes: append(making, at, from, (wanted, FRAME_TEXT_MAX[2]))?, length })
}

/// Appends at most `most` of the bytes that there are; how many.
#[inline(always)]
fn append(making: &mut Making, at: u64, from: u64, (there, most): (u64, u16)) -> Option<u64> {
    let at = opaque(at) & (IMAGE_MAX as u64 * 2 - 1);
    if at > IMAGE_MAX as u64 {
        return None;
    }
    let bytes = if there > u64::from(most) { u64::from(most) } else { there };
    let bytes = opaque(bytes) & 1023;
    if bytes == 0 {
        return Some(0);
    }
    // SAFETY: at most IMAGE_MAX, and there is a page behind that.
    let to = unsafe { making.stack.as_mut_ptr().add(at as usize) };
    // SAFETY: as above; the helper checks the user address and fails instead of faulting.
    let failed = unsafe { bpf_probe_read_user(to.cast(), bytes as u32, from as *const _) };
    if failed == 0 { Some(bytes) } else { None }
}

/// A little-endian number of `bytes` bytes, at most 8, a constant.
#[inline(always)]
fn number(base: u64, offset: u32, bytes: u32) -> Option<u64> {
    let mut number = 0u64;
    let from = base.wrapping_add(u64::from(offset));
    let to = (&raw mut number).cast();
    // SAFETY: `number` has eight bytes; the helper checks the user address.
    if unsafe { bpf_probe_read_user(to, bytes, from as *const _) } == 0 {
        Some(number)
    } else {
        None
    }
}
