//! What the compiler and the verifier are to know alike about a value: nothing.

use core::arch::asm;

/// The same value, about which the compiler knows nothing: it would leave out checks that the
/// verifier, which knows less, insists on.
#[inline(always)]
pub fn opaque(value: u64) -> u64 {
    let mut value = value;
    // SAFETY: a move to itself. (No instruction at all would leave the object's line table with two
    // entries for one instruction, which the kernel refuses.)
    unsafe { asm!("{0} = {0}", inout(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}
