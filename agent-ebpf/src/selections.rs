//! How often the selection of processes has changed: what a program knows of a process holds as long as
//! that stays. See [`changes`](agent_common::changes).

use core::ptr;

use agent_common::changes;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;

#[map(name = "CHANGES")]
static CHANGES: Array<u64> = Array::with_max_entries(changes::COUNT, 0);

/// How often it has changed in these ways. To be asked before the selection is looked at: what is taken
/// away between the two is asked for again the next time.
#[inline(always)]
pub fn changes<const N: usize>(ways: [u32; N]) -> Option<u64> {
    let mut sum = 0u64;
    for way in ways {
        let count = CHANGES.get_ptr(way)?;
        // SAFETY: a map value, alive while the program runs. Volatile, since others write it.
        sum = sum.wrapping_add(unsafe { ptr::read_volatile(count) });
    }
    Some(sum)
}

/// Where they are counted that the kernel half makes.
#[inline(always)]
pub fn counter(way: u32) -> Option<*mut u64> {
    CHANGES.get_ptr_mut(way)
}
