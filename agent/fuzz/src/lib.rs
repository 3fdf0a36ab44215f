//! Runs a target on one input. No input, which is short, may make it take more memory than a bound.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Most bytes that one input may take at any time.
const BYTES_MAX: usize = 256 << 20;

/// What is allocated, and what was before the input.
static BYTES: AtomicUsize = AtomicUsize::new(0);
static BEFORE: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Runs a target.
pub fn run(name: &str, bytes: &[u8]) {
    BEFORE.store(BYTES.load(Relaxed), Relaxed);
    remora::fuzzing::run(name, bytes);
}

struct Counted;

#[global_allocator]
static MEMORY: Counted = Counted;

// SAFETY: the system's allocator does the work, and is asked for what is asked for here.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        taken(size);
        BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(old, layout) }
    }
}

fn taken(bytes: usize) {
    let now = BYTES.fetch_add(bytes, Relaxed).saturating_add(bytes);
    if now.saturating_sub(BEFORE.load(Relaxed)) > BYTES_MAX {
        // Nothing that allocates; whoever watches takes the input down.
        let _ = std::io::stderr().write_all(b"an input takes too much memory\n");
        std::process::abort();
    }
}
