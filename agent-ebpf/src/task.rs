//! Which unit of work of its runtime a thread runs, read from its memory.

use agent_common::{Selected, task_kind};

use crate::offsets::{load, offset};
use crate::syscall::Syscall;
use crate::user;

/// The kind of the task that runs, if the goroutine at `g` does, and its id; a thread is its own task and
/// has no other id.
#[inline(always)]
pub fn current(g: u64, selected: &Selected) -> (u8, u64) {
    match if g == 0 { 0 } else { word(g.wrapping_add(u64::from(selected.goid_offset))) } {
        0 => (task_kind::THREAD, 0),
        id => (task_kind::GOROUTINE, id),
    }
}

/// Where the goroutine lies that the running thread, a typed pointer, runs; 0 if it runs none, or where
/// it cannot be read.
#[inline(always)]
pub fn g(running: *const u8, selected: &Selected) -> u64 {
    let at = offset!(task_tls_base);
    if selected.goid_offset == 0 || at == 0 {
        return 0;
    }
    // SAFETY: a typed task pointer; the verifier checks the offset.
    let base = unsafe { load::<u64>(running, at) };
    word(base.wrapping_add_signed(i64::from(selected.g_tls_offset)))
}

/// As [`g`], in the middle of a system call: Go's own function for that has it in a register, which
/// spares a read of memory.
#[inline(always)]
pub fn g_in(syscall: &Syscall, running: *const u8, selected: &Selected) -> u64 {
    if selected.goid_offset != 0 && syscall.at == selected.go_syscall && syscall.at != 0 {
        return syscall.go_register;
    }
    g(running, selected)
}

/// Eight bytes of the process's memory; 0 if they cannot be read.
#[inline(always)]
fn word(address: u64) -> u64 {
    user::read(address).unwrap_or(0)
}
