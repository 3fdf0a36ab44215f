//! A made-up program: a log of which functions were entered and left.
#![allow(warnings)]
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

const LOG_MAX: usize = 65536;
static LOG: [AtomicU32; LOG_MAX] = [const { AtomicU32::new(0) }; LOG_MAX];
static ENTRIES: AtomicUsize = AtomicUsize::new(0);
static LEFT: AtomicUsize = AtomicUsize::new(0);
static DEPTH: AtomicUsize = AtomicUsize::new(0);
static COUNTS: [AtomicUsize; 64] = [const { AtomicUsize::new(0) }; 64];

#[inline(always)]
fn log(entry: u32) {
    let at = ENTRIES.load(Relaxed);
    LOG[at % LOG_MAX].store(entry, Relaxed);
    ENTRIES.store(at + 1, Relaxed);
}
#[inline(always)]
fn entered(number: u32) {
    log(4 * number);
    DEPTH.store(DEPTH.load(Relaxed) + 1, Relaxed);
}
#[inline(always)]
fn left(number: u32) {
    log(4 * number + 1);
    DEPTH.store(DEPTH.load(Relaxed).wrapping_sub(1), Relaxed);
}
#[inline(always)]
fn leaves(number: u32) {
    log(4 * number + 2);
    DEPTH.store(DEPTH.load(Relaxed).wrapping_sub(1), Relaxed);
}
#[inline(always)]
fn next(number: usize) -> usize {
    COUNTS[number].load(Relaxed)
}
#[inline(always)]
fn count(number: usize) -> usize {
    let n = COUNTS[number].load(Relaxed);
    COUNTS[number].store(n + 1, Relaxed);
    n
}
fn begin() {
    LEFT.store(40, Relaxed);
    DEPTH.store(0, Relaxed);
}
#[inline(always)]
fn may_call() -> bool {
    let left = LEFT.load(Relaxed);
    if left == 0 || DEPTH.load(Relaxed) >= 10 {
        return false;
    }
    LEFT.store(left - 1, Relaxed);
    true
}
unsafe extern "C" {
    safe fn gettid() -> i32;
}
fn end() {
    let mut text = format!("T {}\n", gettid());
    for entry in &LOG[..ENTRIES.load(Relaxed)] {
        let entry = entry.load(Relaxed);
        text += &format!("{} {}\n", ['+', '-', '~', '?'][(entry & 3) as usize], entry >> 2);
    }
    std::fs::write(std::env::args().last().unwrap(), text).unwrap();
}
