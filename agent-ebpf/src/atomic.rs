//! Words that tasks change at the same time. This target's `AtomicU64` can only load and store, but the
//! instruction set can do more.

use core::arch::asm;

/// Adds one to a word that others may add to; what it was.
#[inline(always)]
pub fn fetch_add_one(value: *mut u64) -> u64 {
    let mut word = 1u64;
    // SAFETY: an aligned word of a map value, alive while the program runs.
    unsafe {
        asm!("{word} = atomic_fetch_add((u64 *)({value} + 0), {word})", value = in(reg) value, word = inout(reg) word)
    };
    word
}

/// Puts `new` into a word that others may change; what it was.
#[inline(always)]
pub fn swap(value: *mut u64, new: u64) -> u64 {
    let mut word = new;
    // SAFETY: an aligned word of a map value, alive while the program runs.
    unsafe {
        asm!("{word} = xchg_64({value} + 0, {word})", value = in(reg) value, word = inout(reg) word)
    };
    word
}

/// Puts `new` into a word that others may change, if that is `old`; what it was.
#[allow(dead_code, reason = "of one of the two objects")]
#[inline(always)]
pub fn exchange_if(value: *mut u64, old: u64, new: u64) -> u64 {
    let mut word = old;
    // SAFETY: an aligned word of a map value, alive while the program runs.
    unsafe {
        asm!("r0 = cmpxchg_64({value} + 0, r0, {new})", value = in(reg) value, new = in(reg) new, inout("r0") word)
    };
    word
}
