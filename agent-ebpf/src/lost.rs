//! Hits that found no room, by thread, until the thread's next hit that is told says so.

use core::ptr;

use agent_common::Selected;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;

use crate::emit;

/// By `bpf_get_current_pid_tgid`. The oldest go when it is full: the process's own count stays.
#[map(name = "FUNCTION_LOST")]
static LOST: LruHashMap<u64, u64> = LruHashMap::with_max_entries(4096, 0);

/// What this thread has lost and not told. Asks only if its process has lost anything at all.
#[inline(always)]
pub fn of(thread: u64, selected: *mut Selected) -> u32 {
    // SAFETY: a value of the map of selected processes, alive while the program runs.
    if unsafe { ptr::read_volatile(&raw const (*selected).lost) } == 0 {
        return 0;
    }
    // SAFETY: a map value, alive while the program runs.
    LOST.get_ptr(thread).map_or(0, |lost| unsafe { ptr::read_volatile(lost) } as u32)
}

/// One more.
#[inline(always)]
pub fn add(thread: u64, selected: *mut Selected) {
    emit::lost(selected);
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
