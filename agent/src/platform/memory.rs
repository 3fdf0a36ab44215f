//! Giving memory back to the system.
#![expect(unsafe_code, reason = "malloc_trim is not in std")]

/// Returns what was freed to the system. Worth its while after the start, which reads all of the
/// kernel's types and keeps a few numbers of them.
pub fn give_back() {
    // Other libraries' allocators do so by themselves.
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer and may be called at any time (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0)
    };
}
