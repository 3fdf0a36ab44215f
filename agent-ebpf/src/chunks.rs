//! A hit in the making, and the chunks behind it: opened, grown, cut and closed. Knows nothing of ops.

use core::ptr;

use agent_common::function::{CHUNKS_MAX, Chunk, Hit, SLOTS, chunk_status};

use crate::opaque::opaque;
use crate::registers;

/// A hit in the making.
#[repr(C)]
pub struct Scratch {
    /// 1 while a task uses it.
    pub busy: u64,
    pub machine: Machine,
    pub hit: Hit,
    /// Twice the maximum, so that the verifier accepts `offset + length`.
    pub chunks: [u8; CHUNKS_MAX * 2],
}

#[repr(C)]
pub struct Machine {
    pub registers: [u64; registers::COUNT],
    pub slots: [u64; SLOTS],
    pub accumulator: u64,
    pub sp: u64,
    /// Index of the next op in the map of code.
    pub next: u32,
    /// Ops left.
    pub left: u32,
    /// Bytes of chunks so far.
    pub at: u32,
    /// Where the open chunk's header lies, plus one; 0 if none is open.
    pub open: u32,
    pub failures: u32,
    /// Whether a read has failed, and ops are left out until the next chunk.
    pub skipping: u32,
    pub dropped: u32,
    /// Whether an image of the stack is to be told.
    pub image: u32,
    /// Where the layout of an interpreter's frames lies among the code, if an image of them is.
    pub layout: u32,
    /// The innermost of them; 0: none.
    pub frames: u64,
    pub cut: u32,
}

/// Opens a chunk. False if there is no room for it.
#[inline(always)]
pub fn open(scratch: &mut Scratch, number: u16) -> bool {
    close(scratch);
    scratch.machine.skipping = 0;
    let Some(at) = position(scratch) else { return false };
    if at + size_of::<Chunk>() > CHUNKS_MAX {
        scratch.machine.cut = 1;
        return false;
    }
    // SAFETY: `at` is at most CHUNKS_MAX, half of the buffer.
    let header = unsafe { scratch.chunks.as_mut_ptr().add(at) }.cast::<Chunk>();
    // SAFETY: as above.
    unsafe { ptr::write_unaligned(header, Chunk { number, status: 0, bytes: 0 }) };
    scratch.machine.open = at as u32 + 1;
    scratch.machine.at = (at + size_of::<Chunk>()) as u32;
    true
}

/// Ends the open chunk: pads it and writes down its length.
#[inline(always)]
pub fn close(scratch: &mut Scratch) {
    let Some(header) = header(scratch) else { return };
    let Some(at) = position(scratch) else { return };
    // SAFETY: `at` is at most CHUNKS_MAX, half of the buffer; no byte of another process's may follow.
    let end = unsafe { scratch.chunks.as_mut_ptr().add(at) };
    // SAFETY: as above.
    unsafe { ptr::write_unaligned(end.cast::<u64>(), 0) };
    let begin = scratch.machine.open - 1 + size_of::<Chunk>() as u32;
    // SAFETY: the header lies within the buffer, see `header`.
    unsafe { (*header).bytes = (at as u32).wrapping_sub(begin) };
    scratch.machine.at = (at as u32 + 7) & !7;
    scratch.machine.open = 0;
}

/// The open chunk's header.
#[inline(always)]
fn header(scratch: &mut Scratch) -> Option<*mut Chunk> {
    let open = scratch.machine.open;
    if open == 0 {
        return None;
    }
    let at = opaque(u64::from(open - 1)) as usize & (CHUNKS_MAX * 2 - 1);
    if at > CHUNKS_MAX {
        return None;
    }
    // SAFETY: at most CHUNKS_MAX, half of the buffer.
    Some(unsafe { scratch.chunks.as_mut_ptr().add(at) }.cast())
}

/// How many bytes of chunks there are, at most CHUNKS_MAX.
#[inline(always)]
fn position(scratch: &mut Scratch) -> Option<usize> {
    // SAFETY: a part of the scratch. Volatile, and opaque, so that compiler and verifier agree on
    // knowing nothing but what is checked here.
    let at = unsafe { ptr::read_volatile(&raw const scratch.machine.at) };
    let at = opaque(u64::from(at)) as usize & (CHUNKS_MAX * 2 - 1);
    if at > CHUNKS_MAX { None } else { Some(at) }
}

/// Where bytes are appended, and how many have room. `None` if no chunk is open.
#[inline(always)]
pub fn room(scratch: &mut Scratch) -> Option<(*mut u8, u64)> {
    if scratch.machine.open == 0 {
        return None;
    }
    let at = position(scratch)?;
    // SAFETY: at most CHUNKS_MAX, half of the buffer.
    let to = unsafe { scratch.chunks.as_mut_ptr().add(at) };
    Some((to, (CHUNKS_MAX - at) as u64))
}

#[inline(always)]
pub fn grow(scratch: &mut Scratch, bytes: u64) {
    scratch.machine.at = scratch.machine.at.wrapping_add(bytes as u32);
}

/// Sets bits of the open chunk's status.
#[inline(always)]
pub fn mark(scratch: &mut Scratch, status: u16) {
    if let Some(header) = header(scratch) {
        // SAFETY: the header lies within the buffer, see `header`.
        unsafe { (*header).status |= status };
    }
}

/// The chunk ends here, because there is no room for more.
#[inline(always)]
pub fn cut(scratch: &mut Scratch) {
    scratch.machine.cut = 1;
    mark(scratch, chunk_status::CUT);
}
