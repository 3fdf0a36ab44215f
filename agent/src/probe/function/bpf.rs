//! The calls of bpf(2) and perf_event_open(2) that aya has no name for. Every structure here is laid out
//! as `include/uapi/linux/bpf.h` and `perf_event.h` have it.
#![expect(unsafe_code, reason = "bpf(2) and perf_event_open(2) take pointers")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const BTF_LOAD: libc::c_int = 18;
const MAP_FREEZE: libc::c_int = 22;
const MAP_LOOKUP_BATCH: libc::c_int = 24;
const MAP_UPDATE_BATCH: libc::c_int = 26;
const LINK_CREATE: libc::c_int = 28;

/// `BPF_PROG_TYPE_KPROBE`, which uprobes are, too.
const PROG_TYPE_KPROBE: u32 = 2;
/// `BPF_TRACE_UPROBE_MULTI`
const TRACE_UPROBE_MULTI: u32 = 48;
/// `BPF_PERF_EVENT`
const PERF_EVENT: u32 = 41;

/// How a program for uprobes will be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attach {
    /// Many at once (Linux 6.6).
    Multi,
    /// One by one.
    Perf,
}

/// Calls bpf(2); what it returned.
///
/// # Safety
/// `attr` is laid out as the kernel has it for `cmd`, and what it points at is valid for the call.
unsafe fn bpf<T>(cmd: libc::c_int, attr: &mut T) -> io::Result<RawFd> {
    // SAFETY: the caller's promise; the size is the structure's own.
    let result = unsafe { libc::syscall(libc::SYS_bpf, cmd, &raw mut *attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

/// As [`bpf`], for calls that return a new descriptor.
///
/// # Safety
/// As for [`bpf`].
unsafe fn bpf_fd<T>(cmd: libc::c_int, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(cmd, attr) }?;
    // SAFETY: the call has made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// The bytes of a slice of plain integers without padding.
pub(super) trait Plain: Copy {}

impl Plain for u8 {}
impl Plain for u32 {}
impl Plain for u64 {}
impl Plain for agent_common::Selected {}
impl Plain for agent_common::function::Site {}
impl Plain for agent_common::function::Op {}
impl Plain for agent_common::function::Function {}
impl Plain for agent_common::function::Counts {}

/// Loads types; `types` is what `.BTF` sections hold.
pub(super) fn load_btf(types: &[u8]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        btf: u64,
        log: u64,
        size: u32,
        log_size: u32,
        log_level: u32,
        log_true_size: u32,
    }
    let size = types.len() as u32;
    let mut attr = Attr {
        btf: types.as_ptr() as u64,
        log: 0,
        size,
        log_size: 0,
        log_level: 0,
        log_true_size: 0,
    };
    // SAFETY: `types` outlives the call.
    unsafe { bpf_fd(BTF_LOAD, &mut attr) }
}

/// Records that say what lies where in a program.
#[derive(Default)]
pub(super) struct Records<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) size: usize,
    pub(super) count: usize,
}

/// A program to load.
pub(super) struct Load<'a> {
    pub(super) name: &'a str,
    pub(super) attach: Attach,
    /// Eight bytes each.
    pub(super) instructions: &'a [u8],
    pub(super) license: &'a CStr,
    /// What it was compiled from; a program of no object has none.
    pub(super) types: Option<BorrowedFd<'a>>,
    pub(super) functions: Records<'a>,
    pub(super) lines: Records<'a>,
}

/// Loads a program; if it is refused, the error and what the verifier said.
pub(super) fn load(load: &Load<'_>) -> Result<OwnedFd, (io::Error, String)> {
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
    let mut name = [0; 16];
    for (to, from) in name.iter_mut().take(15).zip(load.name.bytes()) {
        *to = from;
    }
    let mut attr = Attr {
        prog_type: PROG_TYPE_KPROBE,
        insn_cnt: (load.instructions.len() / 8) as u32,
        insns: load.instructions.as_ptr() as u64,
        license: load.license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: name,
        prog_ifindex: 0,
        expected_attach_type: match load.attach {
            Attach::Multi => TRACE_UPROBE_MULTI,
            Attach::Perf => 0,
        },
        prog_btf_fd: load.types.map_or(0, number),
        func_info_rec_size: load.functions.size as u32,
        func_info: load.functions.bytes.as_ptr() as u64,
        func_info_cnt: load.functions.count as u32,
        line_info_rec_size: load.lines.size as u32,
        line_info: load.lines.bytes.as_ptr() as u64,
        line_info_cnt: load.lines.count as u32,
        attach_btf_id: 0,
        attach_prog_fd: 0,
        pad: 0,
    };
    // SAFETY: all that is pointed at outlives the call.
    if let Ok(program) = unsafe { bpf_fd(PROG_LOAD, &mut attr) } {
        return Ok(program);
    }
    // Once more, to hear why.
    let mut log = vec![0u8; 1 << 20];
    attr.log_level = 1;
    attr.log_size = log.len() as u32;
    attr.log_buf = log.as_mut_ptr() as u64;
    // SAFETY: as above, and `log` is as long as we say.
    unsafe { bpf_fd(PROG_LOAD, &mut attr) }.map_err(|error| {
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
        (error, String::from_utf8_lossy(log.get(..end).unwrap_or_default()).into_owned())
    })
}

/// Writes one value of a map.
pub(super) fn update<K: Plain, V: Plain>(
    map: BorrowedFd<'_>,
    key: &K,
    value: &[V],
) -> io::Result<()> {
    element(MAP_UPDATE_ELEM, map, key, value.as_ptr() as u64)
}

/// Reads one value of a map into `value`, which is as long as the map's values are (for a map with a
/// value for each CPU: as all of them).
pub(super) fn lookup<K: Plain, V: Plain>(
    map: BorrowedFd<'_>,
    key: &K,
    value: &mut [V],
) -> io::Result<()> {
    element(MAP_LOOKUP_ELEM, map, key, value.as_mut_ptr() as u64)
}

fn element<K: Plain>(cmd: libc::c_int, map: BorrowedFd<'_>, key: &K, value: u64) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        map_fd: u32,
        pad: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let key = (&raw const *key) as u64;
    let mut attr = Attr { map_fd: number(map), pad: 0, key, value, flags: 0 };
    // SAFETY: the callers here pass values of the map's size, which outlive the call.
    unsafe { bpf(cmd, &mut attr) }.map(drop)
}

/// What the calls that take many values at once are given.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Writes values of an array from index `first` on.
pub(super) fn update_array<V: Plain>(
    map: BorrowedFd<'_>,
    first: u32,
    values: &[V],
) -> io::Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    let keys: Vec<u32> = (first..).take(values.len()).collect();
    let mut attr = Batch {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: values.len() as u32,
        map_fd: number(map),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: as many keys and values as we say, both outlive the call.
    unsafe { bpf(MAP_UPDATE_BATCH, &mut attr) }.map(drop)
}

/// Reads the values of an array from index `first` on, of which each takes `size` of `values` (for an
/// array with a value for each CPU: as many as there are of these). Needs Linux 5.13 for the latter.
pub(super) fn lookup_array<V: Plain>(
    map: BorrowedFd<'_>,
    first: u32,
    values: &mut [V],
    size: usize,
) -> io::Result<()> {
    let count = values.len() / size.max(1);
    let mut keys = vec![0u32; count];
    // The one before is where the last call has ended.
    let (before, mut last) = (first.wrapping_sub(1), 0u32);
    let mut attr = Batch {
        in_batch: if first == 0 { 0 } else { (&raw const before) as u64 },
        out_batch: (&raw mut last) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: count as u32,
        map_fd: number(map),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: there is room for as many keys and values as we say; both outlive the call.
    match unsafe { bpf(MAP_LOOKUP_BATCH, &mut attr) } {
        // It says so at the array's end, where all there is has been read.
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ if attr.count as usize == count => Ok(()),
        _ => Err(io::Error::other("the array is shorter")),
    }
}

/// Makes a map read-only for user space, so that the verifier takes its values for constants.
pub(super) fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a structure of one descriptor.
    unsafe { bpf(MAP_FREEZE, &mut number(map)) }.map(drop)
}

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
    unsafe { bpf_fd(LINK_CREATE, &mut attr) }
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
    unsafe { bpf_fd(LINK_CREATE, &mut attr) }
}
