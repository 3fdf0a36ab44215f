//! Uprobes: the calls of bpf(2) and perf_event_open(2) that make them. Every structure here is laid out as
//! `include/uapi/linux/bpf.h` and `perf_event.h` have it.
#![expect(unsafe_code, reason = "bpf(2) and perf_event_open(2) take pointers")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::probe::bpf::program::TRACE_UPROBE_MULTI;
use crate::probe::bpf::{call_fd, number};

const LINK_CREATE: libc::c_int = 28;

/// `BPF_PERF_EVENT`
const PERF_EVENT: u32 = 41;

/// What one uprobe_multi link attaches: places in one file, all slices equally long.
pub(super) struct Multi<'a> {
    pub(super) path: &'a CStr,
    /// A process, or 0 for all.
    pub(super) pid: u32,
    pub(super) offsets: &'a [u64],
    pub(super) cookies: &'a [u64],
    /// Where the semaphores of static tracepoints lie in the file, 0 for none; may be empty.
    pub(super) semaphores: &'a [u64],
}

/// Attaches `program` at many places.
pub(super) fn link_multi(program: BorrowedFd<'_>, multi: &Multi<'_>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        prog_fd: u32,
        target_fd: u32,
        attach_type: u32,
        flags: u32,
        path: u64,
        offsets: u64,
        ref_ctr_offsets: u64,
        cookies: u64,
        cnt: u32,
        multi_flags: u32,
        pid: u32,
        pad: u32,
    }
    let count = multi.offsets.len().min(multi.cookies.len());
    let semaphores = multi.semaphores;
    let mut attr = Attr {
        prog_fd: number(program),
        target_fd: 0,
        attach_type: TRACE_UPROBE_MULTI,
        flags: 0,
        path: multi.path.as_ptr() as u64,
        offsets: multi.offsets.as_ptr() as u64,
        ref_ctr_offsets: if semaphores.len() < count { 0 } else { semaphores.as_ptr() as u64 },
        cookies: multi.cookies.as_ptr() as u64,
        cnt: count as u32,
        multi_flags: 0,
        pid: multi.pid,
        pad: 0,
    };
    // SAFETY: the slices hold `count` entries or more, the path ends with a zero; all outlive the call.
    unsafe { call_fd(LINK_CREATE, &mut attr) }
}

/// A probe of its own for one place in a file, of a process or of all.
pub(super) fn open_uprobe(
    kind: u32,
    path: &CStr,
    offset: u64,
    semaphore: u64,
    tgid: Option<u32>,
) -> io::Result<OwnedFd> {
    /// `struct perf_event_attr`, its first published size.
    #[repr(C)]
    struct Attr {
        kind: u32,
        size: u32,
        config: u64,
        sample_period: u64,
        sample_type: u64,
        read_format: u64,
        flags: u64,
        wakeup_events: u32,
        bp_type: u32,
        path: u64,
        offset: u64,
        rest: [u64; 6],
    }
    /// `PERF_FLAG_FD_CLOEXEC`
    const CLOSE_ON_EXEC: libc::c_ulong = 8;
    let attr = Attr {
        kind,
        size: size_of::<Attr>() as u32,
        // The upper half holds the semaphore's place.
        config: semaphore << 32,
        sample_period: 1,
        sample_type: 0,
        read_format: 0,
        flags: 0,
        wakeup_events: 1,
        bp_type: 0,
        path: path.as_ptr() as u64,
        offset,
        rest: [0; 6],
    };
    let (pid, cpu) = match tgid {
        Some(tgid) => (tgid as libc::pid_t, -1),
        // The program runs on every CPU all the same.
        None => (-1, 0),
    };
    // SAFETY: the structure says its size; the path outlives the call.
    let fd = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attr, pid, cpu, -1, CLOSE_ON_EXEC)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Attaches `program` to a probe of [`open_uprobe`].
pub(super) fn link_perf(
    program: BorrowedFd<'_>,
    probe: BorrowedFd<'_>,
    cookie: u64,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        prog_fd: u32,
        target_fd: u32,
        attach_type: u32,
        flags: u32,
        cookie: u64,
    }
    let (prog_fd, target_fd) = (number(program), number(probe));
    let mut attr = Attr { prog_fd, target_fd, attach_type: PERF_EVENT, flags: 0, cookie };
    // SAFETY: a structure of integers.
    unsafe { call_fd(LINK_CREATE, &mut attr) }
}
