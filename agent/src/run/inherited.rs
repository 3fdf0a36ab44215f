//! What this process was started with and changes for itself: its mask of signals, and that it ignores
//! SIGPIPE. A program that it starts is to have both as they were.
#![expect(
    unsafe_code,
    reason = "masks and dispositions of signals are syscalls without a safe wrapper in std, whose own \
              start changes them before `main` does"
)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bit `n` for signal `n + 1`, as in the kernel's own sets.
static BLOCKED: AtomicU64 = AtomicU64::new(0);
static IGNORES_SIGPIPE: AtomicBool = AtomicBool::new(false);

/// The highest signal there is (signal(7)).
const SIGNAL_MAX: i32 = 64;

/// Called by the loader before Rust's runtime is there, which has SIGPIPE ignored.
///
// SAFETY: what is in this section are pointers to functions of the C ABI; ours takes none of the arguments
// and needs nothing of the runtime.
#[used]
#[unsafe(link_section = ".init_array")]
static REMEMBER: extern "C" fn() = remember;

extern "C" fn remember() {
    // SAFETY: a sigset_t is plain bits.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is changed, and `set` has room for the mask.
    if unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut set) } == 0 {
        // SAFETY: the call has filled `set`, and the numbers are signals.
        let is_blocked = |signal: &i32| unsafe { libc::sigismember(&raw const set, *signal) } == 1;
        let blocked = (1..=SIGNAL_MAX).filter(is_blocked);
        BLOCKED.store(blocked.fold(0, |bits, signal| bits | 1 << (signal - 1)), Ordering::Relaxed);
    }
    // SAFETY: a sigaction is plain data.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is changed, and `action` has room for what there is.
    if unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut action) } == 0 {
        IGNORES_SIGPIPE.store(action.sa_sigaction == libc::SIG_IGN, Ordering::Relaxed);
    }
}

/// Has a command start with what this process was started with.
pub(super) fn pass_on(command: &mut Command) {
    // SAFETY: the closure makes system calls alone, which are async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(restore) };
}

fn restore() -> io::Result<()> {
    // SAFETY: a sigset_t is plain bits; sigemptyset initialises it below.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid sigset_t.
    unsafe { libc::sigemptyset(&raw mut set) };
    let blocked = BLOCKED.load(Ordering::Relaxed);
    for signal in (1..=SIGNAL_MAX).filter(|signal| blocked >> (signal - 1) & 1 == 1) {
        // SAFETY: `set` is initialised. The C library refuses the two that are its own, which nobody blocks.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    // SAFETY: `set` is initialised; the old mask is not asked for.
    let error =
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    if IGNORES_SIGPIPE.load(Ordering::Relaxed) {
        // SAFETY: no handler is installed, only that there is none.
        if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
