//! Signals as readable events: nothing runs in a signal handler.
#![expect(
    unsafe_code,
    reason = "signal masks and signalfd are syscalls without a safe wrapper in std"
)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// What the agent is asked to do from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// Ctrl-C at the terminal: its whole foreground process group got it.
    Interrupt,
    /// SIGINT or SIGTERM sent to the agent alone, by number.
    Asked(i32),
    /// A child has ended.
    Child,
    /// Somebody wants to write a file that is probed.
    Lease,
}

/// The signals that the agent listens to.
pub(super) struct Signals {
    file: File,
}

impl Signals {
    /// Blocks SIGINT, SIGTERM, SIGCHLD and SIGIO for this thread and those it starts, and makes them
    /// readable. A blocked signal is kept even where the parent had it ignored, as shells do for
    /// background jobs.
    pub(super) fn block() -> io::Result<Self> {
        // SAFETY: a sigset_t is plain bits; sigemptyset initialises it below.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is a valid sigset_t.
        unsafe { libc::sigemptyset(&raw mut set) };
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGCHLD, libc::SIGIO] {
            // SAFETY: `set` is initialised and the numbers are signals.
            unsafe { libc::sigaddset(&raw mut set, signal) };
        }
        // SAFETY: `set` is initialised; the old mask is not asked for.
        let error =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        // SAFETY: `set` is initialised; -1 asks for a new descriptor.
        let fd =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and is owned by no one else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { file: File::from(fd) })
    }

    /// The next signal, if there is one.
    pub(super) fn next(&mut self) -> Option<Signal> {
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        let mut bytes = [0_u8; SIZE];
        let read = self.file.read(&mut bytes).ok()?;
        if read < SIZE {
            return None;
        }
        // signalfd(2): `ssi_signo` is first, `ssi_code` third.
        let number = i32::from_ne_bytes(*bytes.first_chunk()?);
        let code = i32::from_ne_bytes(*bytes.get(8..)?.first_chunk()?);
        Some(match number {
            libc::SIGCHLD => Signal::Child,
            libc::SIGIO => Signal::Lease,
            // SI_KERNEL: the terminal driver sent it.
            libc::SIGINT if code == 0x80 => Signal::Interrupt,
            other => Signal::Asked(other),
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
