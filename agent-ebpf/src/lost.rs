//! Hits that found no room, by thread, until the thread's next hit that is told says so.

use core::ptr;

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, LruHashMap};

use crate::{budget, emit};

/// By `bpf_get_current_pid_tgid`. The oldest go when it is full: the process's own count stays.
#[map(name = "FUNCTION_LOST")]
static LOST: LruHashMap<u64, u64> = LruHashMap::with_max_entries(4096, 0);

/// 1 once anything was lost. One word.
#[map(name = "FUNCTION_LOSSES")]
static LOSSES: Array<u64> = Array::with_max_entries(1, 0);

/// What this thread has lost and not told.
#[inline(always)]
pub fn of(thread: u64) -> u32 {
    let Some(losses) = LOSSES.get_ptr(0) else { return 0 };
    // SAFETY: a map value, alive while the program runs. Volatile, since others write it.
    if unsafe { ptr::read_volatile(losses) } == 0 {
        return 0;
    }
    // SAFETY: as above.
    LOST.get_ptr(thread).map_or(0, |lost| unsafe { ptr::read_volatile(lost) } as u32)
}

/// One more, of a process.
#[inline(always)]
pub fn add(thread: u64, tgid: u32) {
    if let Some(losses) = LOSSES.get_ptr_mut(0) {
        // SAFETY: a map value. Nobody writes anything else.
        unsafe { ptr::write_volatile(losses, 1) };
    }
    if let Some(selected) = budget::selected(tgid) {
        emit::lost(selected);
    }
    match LOST.get_ptr_mut(thread) {
        Some(lost) => emit::add_one(lost),
        // If there is no room, the process's count has it.
        None => drop(LOST.insert(thread, 1, 0)),
    }
}

/// They were told.
#[inline(always)]
pub fn forget(thread: u64) {
    // Gone already is as good.
    let _ = LOST.remove(thread);
}
