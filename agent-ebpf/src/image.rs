//! Copies a thread's registers and the near part of its stack, for user space to unwind: most code keeps
//! no frame pointers, so that the kernel cannot. Written before the record of what the thread met.
//!
//! Copies are dear beside hits, so there are only so many of them a second, and none while the ring is
//! half full; what is left out is counted, and the record that would have followed is told without. What
//! they cost a process is held against its budget by [`crate::budget`].

use core::ptr;

use agent_common::counter;
use agent_common::function::{IMAGE_MAX, Image, image_flags, layout, left_out};
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;

use crate::opaque::opaque;
use crate::{atomic, emit};

/// Images that a CPU can have in the making: one task can interrupt another in the middle of it.
const IMAGES_AT_ONCE: u32 = 2;
const PAGE_BYTES: u64 = 4096;
/// Reads of one image: the rest of a page, then whole ones.
const READS_MAX: u32 = (IMAGE_MAX as u64 / PAGE_BYTES) as u32 + 1;
/// Most bytes of images that a CPU takes in a window of this power of two nanoseconds (134 ms): 4 MiB a
/// second. The last one may go beyond.
const RATE_BYTES: u64 = 512 << 10;
const WINDOW_SHIFT: u64 = 27;

/// An image in the making.
#[repr(C)]
pub struct Making {
    /// 1 while a task uses it.
    busy: u64,
    /// The next frame of an interpreter's, and where things lie in those.
    pub frame: u64,
    pub layout: [u32; layout::COUNT],
    pub image: Image,
    /// A page more than the maximum, so that the verifier accepts `offset + length`.
    pub stack: [u8; IMAGE_MAX + PAGE_BYTES as usize],
}

#[map(name = "IMAGES")]
static IMAGES: PerCpuArray<Making> = PerCpuArray::with_max_entries(IMAGES_AT_ONCE, 0);

/// How much a CPU has taken.
#[repr(C)]
struct Taken {
    window: u64,
    bytes: u64,
}

#[map(name = "IMAGES_TAKEN")]
static TAKEN: PerCpuArray<Taken> = PerCpuArray::with_max_entries(1, 0);

/// A place for an image, if there is to be one more; else one of [`left_out`].
#[inline(always)]
pub fn claim(now_ns: u64) -> Result<u32, u8> {
    let claimed = if !is_within_rate(now_ns) {
        Err(left_out::RATE)
    } else if emit::is_half_full() {
        Err(left_out::ROOM)
    } else {
        free().ok_or(left_out::ROOM)
    };
    if claimed.is_err() {
        emit::count(counter::NO_IMAGE);
    }
    claimed
}

#[inline(always)]
fn is_within_rate(now_ns: u64) -> bool {
    let Some(taken) = TAKEN.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's value, alive while the program runs. An interruption may count one for none.
    let taken = unsafe { &mut *taken };
    let window = now_ns >> WINDOW_SHIFT;
    if taken.window != window {
        taken.window = window;
        taken.bytes = 0;
    }
    taken.bytes < RATE_BYTES
}

#[inline(always)]
fn free() -> Option<u32> {
    let mut index = 0;
    while index < IMAGES_AT_ONCE {
        let making = IMAGES.get_ptr_mut(index)?;
        // SAFETY: a word of the map's value, alive while the program runs.
        if atomic::swap(unsafe { &raw mut (*making).busy }, 1) == 0 {
            return Some(index);
        }
        index += 1;
    }
    None
}

/// The place that was claimed.
#[inline(always)]
pub fn making(index: u32) -> Option<&'static mut Making> {
    let making = IMAGES.get_ptr_mut(index)?;
    // SAFETY: this CPU's value, which the caller has claimed.
    Some(unsafe { &mut *making })
}

/// Its fixed part, all of which is to be written.
#[inline(always)]
pub fn head(index: u32) -> Option<&'static mut Image> {
    Some(&mut making(index)?.image)
}

/// Copies the stack, writes the record and gives the place back.
///
/// Global, which means that the verifier checks it once and by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn write_image(index: u32, from: u64, count: u32) -> u32 {
    let Some(making) = making(index) else { return 0 };
    making.image.copied = 0;
    making.image.flags = 0;
    let mut reads = 0;
    while reads < READS_MAX {
        if !copy_page(making, from) {
            break;
        }
        reads += 1;
    }
    u32::from(finish(making, count))
}

/// Writes the record and gives the place back.
#[inline(always)]
pub fn finish(making: &mut Making, count: u32) -> bool {
    let mut copied = opaque(u64::from(making.image.copied)) & (IMAGE_MAX as u64 * 2 - 1);
    if copied > IMAGE_MAX as u64 {
        copied = IMAGE_MAX as u64;
    }
    let bytes = size_of::<Image>() as u64 + copied;
    if let Some(taken) = TAKEN.get_ptr_mut(0) {
        // SAFETY: as in `is_within_rate`.
        unsafe { (*taken).bytes += bytes };
    }
    let record = (&raw mut making.image).cast::<u8>();
    // SAFETY: the image and the stack behind it are one map value, longer than `bytes`.
    let is_written = unsafe { emit::write(record, bytes, count, false) };
    // SAFETY: a word of the map's value. Volatile, since others read it.
    unsafe { ptr::write_volatile(&raw mut making.busy, 0) };
    is_written
}

/// Copies up to the end of a page. False if that was the last one.
#[inline(always)]
fn copy_page(making: &mut Making, stack: u64) -> bool {
    // SAFETY: a part of the map's value. Volatile, so that every page begins with a value that the
    // verifier knows nothing about.
    let at = unsafe { ptr::read_volatile(&raw const making.image.copied) };
    let at = opaque(u64::from(at)) & (IMAGE_MAX as u64 * 2 - 1);
    if at >= IMAGE_MAX as u64 {
        return false;
    }
    let from = stack.wrapping_add(at);
    let mut bytes = PAGE_BYTES - (from & (PAGE_BYTES - 1));
    if bytes > IMAGE_MAX as u64 - at {
        bytes = IMAGE_MAX as u64 - at;
    }
    let bytes = opaque(bytes) & (PAGE_BYTES * 2 - 1);
    if bytes > PAGE_BYTES {
        return false;
    }
    // SAFETY: `at` is at most IMAGE_MAX, and there is a page behind that.
    let to = unsafe { making.stack.as_mut_ptr().add(at as usize) };
    // SAFETY: as above; the helper checks the user address and fails instead of faulting.
    if unsafe { bpf_probe_read_user(to.cast(), bytes as u32, from as *const _) } != 0 {
        making.image.flags = image_flags::FAULT;
        return false;
    }
    making.image.copied = (at + bytes) as u32;
    true
}
