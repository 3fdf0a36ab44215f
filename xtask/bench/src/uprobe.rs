//! The least that a function probe costs: a program that returns at once, attached as the agent attaches
//! its own. Two instructions need no object.
#![expect(unsafe_code, reason = "system calls")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};

const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
/// `BPF_PROG_TYPE_KPROBE`
const KPROBE: u32 = 2;
/// `BPF_TRACE_UPROBE_MULTI`
const UPROBE_MULTI: u32 = 48;

/// `r0 = 0; exit`
const EMPTY: [u64; 2] = [0xb7, 0x95];

fn bpf<T>(cmd: libc::c_int, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the callers lay out `attr` as the kernel has it for `cmd`.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, cmd, &raw mut *attr, size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Loads the empty program.
pub(crate) fn load_empty() -> Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log: [u32; 4],
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; 16],
        prog_ifindex: u32,
        expected_attach_type: u32,
    }
    let mut attr = Attr {
        prog_type: KPROBE,
        insn_cnt: EMPTY.len() as u32,
        insns: EMPTY.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log: [0; 4],
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"empty\0\0\0\0\0\0\0\0\0\0\0",
        prog_ifindex: 0,
        expected_attach_type: UPROBE_MULTI,
    };
    bpf(PROG_LOAD, &mut attr)
        .context("cannot load an empty program (root and Linux 6.6 are needed)")
}

/// Attaches it to places of a file in one process.
pub(crate) fn attach(program: &OwnedFd, file: &Path, pid: u32, offsets: &[u64]) -> Result<OwnedFd> {
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
    let path = CString::new(file.as_os_str().as_bytes()).context("a path holds no zero")?;
    let mut attr = Attr {
        prog_fd: program.as_raw_fd() as u32,
        target_fd: 0,
        attach_type: UPROBE_MULTI,
        flags: 0,
        path: path.as_ptr() as u64,
        offsets: offsets.as_ptr() as u64,
        ref_ctr_offsets: 0,
        cookies: 0,
        cnt: offsets.len() as u32,
        multi_flags: 0,
        pid,
        pad: 0,
    };
    bpf(LINK_CREATE, &mut attr).context("cannot attach an empty program")
}
