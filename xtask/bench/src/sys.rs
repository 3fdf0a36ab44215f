//! The system calls that std has no name for.
#![expect(unsafe_code, reason = "system calls")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Keeps the calling thread on one CPU.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: a set of CPUs is plain bits.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `cpu` is checked against the set's size by the macro's function.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` is as large as said.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) }).map(drop)
}

/// A command whose process stays on one CPU, and ends when the benchmark does.
pub(crate) fn pinned(command: &mut Command, cpu: usize) -> &mut Command {
    // SAFETY: between fork and exec only a system call is made, no memory is allocated.
    tied(unsafe { command.pre_exec(move || pin(cpu)) })
}

/// A command whose process ends when the benchmark does.
pub(crate) fn tied(command: &mut Command) -> &mut Command {
    let tie = || {
        // SAFETY: takes numbers only.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }).map(drop)
    };
    // SAFETY: between fork and exec only a system call is made, no memory is allocated.
    unsafe { command.pre_exec(tie) }
}

/// CPU time of the calling thread.
pub(crate) fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec, and every Linux has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The cheapest call that is never answered without the kernel.
pub(crate) fn getppid() {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::getppid() };
}

/// Asks a child to end, as Ctrl-C does.
pub(crate) fn interrupt(child: &Child) -> io::Result<()> {
    signal(child.id(), libc::SIGINT)
}

/// Asks a child to end, as service managers do.
pub(crate) fn terminate(child: &Child) -> io::Result<()> {
    signal(child.id(), libc::SIGTERM)
}

/// Has a process end by itself when it is interrupted, and ends it if it does not.
pub(crate) fn end(child: &mut Child, patience: Duration) {
    // Ended already is as good.
    let _ = interrupt(child);
    let deadline = Instant::now() + patience;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        rest(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Ends what a child has left behind.
pub(crate) fn kill(pid: u32) -> io::Result<()> {
    signal(pid, libc::SIGKILL)
}

fn signal(pid: u32, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::kill(pid as libc::pid_t, signal) }).map(drop)
}

/// Allows as many open descriptors as the system does.
pub(crate) fn raise_descriptors() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_cur)
}

/// Does nothing for a while.
pub(crate) fn rest(time: Duration) {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}

/// A set of descriptors to wait for.
pub(crate) struct Poll {
    epoll: OwnedFd,
    ready: Vec<libc::epoll_event>,
}

impl Poll {
    pub(crate) fn new(most: usize) -> io::Result<Self> {
        // SAFETY: takes a number only.
        let epoll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: just made, and nobody else's.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let event = libc::epoll_event { events: 0, u64: 0 };
        Ok(Self { epoll, ready: vec![event; most.max(1)] })
    }

    /// Tells of `fd` whenever it can be read.
    pub(crate) fn add(&self, fd: &impl AsRawFd, key: usize) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: key as u64 };
        let (epoll, fd) = (self.epoll.as_raw_fd(), fd.as_raw_fd());
        // SAFETY: both descriptors are open, `event` is valid.
        check(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) }).map(drop)
    }

    /// Waits no longer than `timeout`; the keys of what can be read.
    pub(crate) fn wait(&mut self, timeout: Duration) -> io::Result<impl Iterator<Item = usize>> {
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let (fd, most) = (self.epoll.as_raw_fd(), self.ready.len() as libc::c_int);
        let signals = std::ptr::null();
        let ready = self.ready.as_mut_ptr();
        // SAFETY: `ready` has room for `most` events.
        let count = unsafe { libc::epoll_pwait2(fd, ready, most, &raw const timeout, signals) };
        let count = match check(count) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            result => result?,
        };
        Ok(self.ready.iter().take(count as usize).map(|event| event.u64 as usize))
    }
}
