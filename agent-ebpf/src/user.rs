//! Reads of the current process's memory. Each costs about as much as a record, whatever its length.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_user;

/// What may lie in a process's memory: any bytes are a value of it.
///
/// # Safety
/// It is made of integers without padding.
pub unsafe trait Plain: Copy {}

// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: an integer.
unsafe impl Plain for u64 {}

/// The value at an address; `None` if it cannot be read.
#[inline(always)]
pub fn read<T: Plain>(from: u64) -> Option<T> {
    // Not filled first: what does that goes byte by byte.
    let mut value = MaybeUninit::<T>::uninit();
    let bytes = size_of::<T>() as u32;
    // SAFETY: `value` has that many bytes; the helper checks the user address and fails instead of faulting.
    let result = unsafe { bpf_probe_read_user(value.as_mut_ptr().cast(), bytes, from as *const _) };
    if result != 0 {
        return None;
    }
    // SAFETY: the helper has written all of it, and any bytes are a value.
    Some(unsafe { value.assume_init() })
}
