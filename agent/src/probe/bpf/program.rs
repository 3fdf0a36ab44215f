//! bpf(2): programs and their types.
#![expect(unsafe_code, reason = "bpf(2) takes pointers")]

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{call, call_fd, number, short_name};

const PROG_LOAD: libc::c_int = 5;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const BTF_LOAD: libc::c_int = 18;
const LINK_CREATE: libc::c_int = 28;
const ITER_CREATE: libc::c_int = 33;

/// `BPF_PROG_TYPE_KPROBE`, which uprobes are, too.
const PROG_TYPE_KPROBE: u32 = 2;
/// `BPF_PROG_TYPE_TRACING`
const PROG_TYPE_TRACING: u32 = 26;
/// `BPF_TRACE_RAW_TP`
const TRACE_RAW_TP: u32 = 23;
/// `BPF_TRACE_FEXIT`
const TRACE_FEXIT: u32 = 25;
/// `BPF_TRACE_ITER`
const TRACE_ITER: u32 = 28;
/// `BPF_TRACE_UPROBE_MULTI`
pub(in crate::probe) const TRACE_UPROBE_MULTI: u32 = 48;

/// What a program will be attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::probe) enum Kind {
    /// A tracepoint, by the type of its function among the kernel's.
    Tracepoint(u32),
    /// The end of a kernel function, by its number among the kernel's types.
    FunctionExit(u32),
    /// A walk over something that the kernel has, by the number of its function among the kernel's types.
    Iterator(u32),
    /// Uprobes, many at once (Linux 6.6).
    UprobeMulti,
    /// Uprobes, one by one.
    Uprobe,
}

impl Kind {
    /// Type of program, type of attachment and type of the kernel's.
    fn numbers(self) -> (u32, u32, u32) {
        match self {
            Self::Tracepoint(id) => (PROG_TYPE_TRACING, TRACE_RAW_TP, id),
            Self::FunctionExit(id) => (PROG_TYPE_TRACING, TRACE_FEXIT, id),
            Self::Iterator(id) => (PROG_TYPE_TRACING, TRACE_ITER, id),
            Self::UprobeMulti => (PROG_TYPE_KPROBE, TRACE_UPROBE_MULTI, 0),
            Self::Uprobe => (PROG_TYPE_KPROBE, 0, 0),
        }
    }
}

/// Loads types; `types` is what `.BTF` sections hold.
pub(in crate::probe) fn load_types(types: &[u8]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        btf: u64,
        log: u64,
        size: u32,
        log_size: u32,
        log_level: u32,
        pad: u32,
    }
    let size = types.len() as u32;
    let btf = types.as_ptr() as u64;
    let mut attr = Attr { btf, log: 0, size, log_size: 0, log_level: 0, pad: 0 };
    // SAFETY: `types` outlives the call.
    unsafe { call_fd(BTF_LOAD, &mut attr) }
}

/// Records that say what lies where in a program.
#[derive(Default)]
pub(in crate::probe) struct Records<'a> {
    pub(in crate::probe) bytes: &'a [u8],
    pub(in crate::probe) size: usize,
    pub(in crate::probe) count: usize,
}

/// A program to load.
pub(in crate::probe) struct Load<'a> {
    pub(in crate::probe) name: &'a str,
    pub(in crate::probe) kind: Kind,
    /// Eight bytes each.
    pub(in crate::probe) instructions: &'a [u8],
    pub(in crate::probe) license: &'a CStr,
    /// What it was compiled from; a program of no object has none.
    pub(in crate::probe) types: Option<BorrowedFd<'a>>,
    pub(in crate::probe) functions: Records<'a>,
    pub(in crate::probe) lines: Records<'a>,
}

/// Why a program was refused.
#[derive(Debug)]
pub struct Refused {
    pub(in crate::probe) error: io::Error,
    /// What the verifier said; empty if it was not asked.
    pub(in crate::probe) log: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        if self.log.is_empty() { Ok(()) } else { write!(f, ". Verifier output: {}", self.log) }
    }
}

impl std::error::Error for Refused {}

/// Room for what the verifier says: kernels before 6.4 keep the beginning and fail where it ends.
const LOG_BYTES: [usize; 2] = [1 << 20, 16 << 20];

/// Loads a program.
pub(in crate::probe) fn load(load: &Load<'_>) -> Result<OwnedFd, Refused> {
    #[repr(C)]
    struct Attr {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; 16],
        prog_ifindex: u32,
        expected_attach_type: u32,
        prog_btf_fd: u32,
        func_info_rec_size: u32,
        func_info: u64,
        func_info_cnt: u32,
        line_info_rec_size: u32,
        line_info: u64,
        line_info_cnt: u32,
        attach_btf_id: u32,
        attach_prog_fd: u32,
        pad: u32,
    }
    let (prog_type, expected_attach_type, attach_btf_id) = load.kind.numbers();
    let mut attr = Attr {
        prog_type,
        insn_cnt: (load.instructions.len() / 8) as u32,
        insns: load.instructions.as_ptr() as u64,
        license: load.license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: short_name(load.name),
        prog_ifindex: 0,
        expected_attach_type,
        prog_btf_fd: load.types.map_or(0, number),
        func_info_rec_size: load.functions.size as u32,
        func_info: load.functions.bytes.as_ptr() as u64,
        func_info_cnt: load.functions.count as u32,
        line_info_rec_size: load.lines.size as u32,
        line_info: load.lines.bytes.as_ptr() as u64,
        line_info_cnt: load.lines.count as u32,
        attach_btf_id,
        attach_prog_fd: 0,
        pad: 0,
    };
    // SAFETY: all that is pointed at outlives the call.
    let error = match unsafe { call_fd(PROG_LOAD, &mut attr) } {
        Ok(program) => return Ok(program),
        Err(error) => error,
    };
    // Once more, to hear why.
    let mut said = String::new();
    for bytes in LOG_BYTES {
        let mut log = vec![0u8; bytes];
        attr.log_level = 1;
        attr.log_size = log.len() as u32;
        attr.log_buf = log.as_mut_ptr() as u64;
        // SAFETY: as above, and `log` is as long as we say.
        let again = unsafe { call_fd(PROG_LOAD, &mut attr) };
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
        said = String::from_utf8_lossy(log.get(..end).unwrap_or_default()).trim().to_owned();
        match again {
            // Memory was short, say, and is not any more.
            Ok(program) => return Ok(program),
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {}
            Err(_) => break,
        }
    }
    Err(Refused { error, log: said })
}

/// Attaches a program that was loaded for a [`Kind::Tracepoint`] or [`Kind::FunctionExit`], until the
/// descriptor is closed.
pub(in crate::probe) fn attach(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        name: u64,
        prog_fd: u32,
        pad: u32,
    }
    // Without a name: what it is attached to is part of the program.
    let mut attr = Attr { name: 0, prog_fd: number(program), pad: 0 };
    // SAFETY: a structure of integers.
    unsafe { call_fd(RAW_TRACEPOINT_OPEN, &mut attr) }
}

/// Ties a program that was loaded for a [`Kind::Iterator`] to the map whose elements it is to be run for.
pub(in crate::probe) fn iterate(
    program: BorrowedFd<'_>,
    map: BorrowedFd<'_>,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        prog_fd: u32,
        target_fd: u32,
        attach_type: u32,
        flags: u32,
        iter_info: u64,
        iter_info_len: u32,
        pad: u32,
    }
    let map = number(map);
    let mut attr = Attr {
        prog_fd: number(program),
        target_fd: 0,
        attach_type: TRACE_ITER,
        flags: 0,
        iter_info: (&raw const map) as u64,
        iter_info_len: size_of::<u32>() as u32,
        pad: 0,
    };
    // SAFETY: `map` is as long as we say, and outlives the call.
    unsafe { call_fd(LINK_CREATE, &mut attr) }
}

/// A file from which what [`iterate`] has tied can be read once.
pub(in crate::probe) fn iteration(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        link_fd: u32,
        flags: u32,
    }
    let mut attr = Attr { link_fd: number(link), flags: 0 };
    // SAFETY: a structure of integers.
    unsafe { call_fd(ITER_CREATE, &mut attr) }
}

/// What the kernel has made of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The program.
    pub program: String,
    /// Instructions that the verifier went through, over all ways; it refuses a program at a
    /// million. `None` before Linux 5.16, which does not tell.
    pub steps: Option<u32>,
    /// Size of the program as the kernel keeps it, in its own instruction set.
    pub bytes: Option<u32>,
}

impl Verified {
    /// Asks of a program of this process.
    pub(in crate::probe) fn of(program: &str, fd: BorrowedFd<'_>) -> Self {
        let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
        let facts = std::fs::read_to_string(path).unwrap_or_default();
        let steps = facts.lines().find_map(|line| line.strip_prefix("verified_insns:"));
        let steps = steps.and_then(|steps| steps.trim().parse().ok());
        Self { program: program.to_owned(), steps, bytes: translated_bytes(fd).ok() }
    }
}

fn translated_bytes(program: BorrowedFd<'_>) -> io::Result<u32> {
    #[repr(C)]
    struct Attr {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    /// The beginning of `struct bpf_prog_info`.
    #[repr(C)]
    #[derive(Default)]
    struct Facts {
        kind: u32,
        id: u32,
        tag: [u8; 8],
        jited_prog_len: u32,
        xlated_prog_len: u32,
    }
    let mut facts = Facts::default();
    let info_len = size_of::<Facts>() as u32;
    let info = (&raw mut facts) as u64;
    let mut attr = Attr { bpf_fd: number(program), info_len, info };
    // SAFETY: the kernel writes as much as we say, into a structure of integers that outlives the call.
    unsafe { call(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(facts.xlated_prog_len)
}
