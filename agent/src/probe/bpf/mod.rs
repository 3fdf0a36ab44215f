//! bpf(2): maps, by raw descriptors. Every structure here is laid out as `include/uapi/linux/bpf.h` has
//! it; kernels take a shorter one than theirs. What a map is for, others know.
#![expect(unsafe_code, reason = "bpf(2) takes pointers")]

pub(super) mod program;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const MAP_GET_NEXT_KEY: libc::c_int = 4;
const MAP_FREEZE: libc::c_int = 22;
const MAP_LOOKUP_BATCH: libc::c_int = 24;
const MAP_UPDATE_BATCH: libc::c_int = 26;

/// Calls bpf(2); what it returned.
///
/// # Safety
/// `attr` is laid out as the kernel has it for `cmd`, and what it points at is valid for the call.
pub(super) unsafe fn call<T>(cmd: libc::c_int, attr: &mut T) -> io::Result<RawFd> {
    // SAFETY: the caller's promise; the size is the structure's own.
    let result = unsafe { libc::syscall(libc::SYS_bpf, cmd, &raw mut *attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

/// As [`call`], for calls that return a new descriptor.
///
/// # Safety
/// As for [`call`].
pub(super) unsafe fn call_fd<T>(cmd: libc::c_int, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { call(cmd, attr) }?;
    // SAFETY: the call has made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor as the kernel's structures hold it.
pub(super) fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// A name as the kernel's structures hold it: cut, with a zero at its end.
pub(super) fn short_name(name: &str) -> [u8; 16] {
    let mut short = [0; 16];
    for (to, from) in short.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    short
}

/// Plain integers without padding, for which any bits are valid.
pub(super) trait Plain: Copy {}

impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}
impl Plain for agent_common::Selected {}
impl Plain for agent_common::function::Site {}
impl Plain for agent_common::function::Op {}
impl Plain for agent_common::function::Function {}
impl Plain for agent_common::function::Counts {}

/// A map to be made.
pub(super) struct NewMap<'a> {
    pub(super) name: &'a str,
    /// `BPF_MAP_TYPE_*`
    pub(super) kind: u32,
    pub(super) key_bytes: u32,
    pub(super) value_bytes: u32,
    pub(super) entries: u32,
    /// `BPF_F_*`
    pub(super) flags: u32,
    /// Types of the key and of the value among those of a descriptor; socket storage needs them.
    pub(super) types: Option<(BorrowedFd<'a>, u32, u32)>,
}

/// Makes a map.
pub(super) fn create(map: &NewMap<'_>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        map_flags: u32,
        inner_map_fd: u32,
        numa_node: u32,
        map_name: [u8; 16],
        map_ifindex: u32,
        btf_fd: u32,
        btf_key_type_id: u32,
        btf_value_type_id: u32,
        pad: u32,
    }
    let (btf_fd, btf_key_type_id, btf_value_type_id) =
        map.types.map_or((0, 0, 0), |(types, key, value)| (number(types), key, value));
    // The kernel takes letters, digits, `_` and `.`, which is what names of symbols and sections are.
    let mut attr = Attr {
        map_type: map.kind,
        key_size: map.key_bytes,
        value_size: map.value_bytes,
        max_entries: map.entries,
        map_flags: map.flags,
        inner_map_fd: 0,
        numa_node: 0,
        map_name: short_name(map.name),
        map_ifindex: 0,
        btf_fd,
        btf_key_type_id,
        btf_value_type_id,
        pad: 0,
    };
    // SAFETY: a structure of integers.
    unsafe { call_fd(MAP_CREATE, &mut attr) }
}

/// Writes one value of a map.
pub(super) fn update<K: Plain, V: Plain>(
    map: BorrowedFd<'_>,
    key: &K,
    value: &[V],
) -> io::Result<()> {
    update_if(map, key, value, 0)
}

/// As [`update`], with `BPF_ANY` and the like in `flags`.
pub(super) fn update_if<K: Plain, V: Plain>(
    map: BorrowedFd<'_>,
    key: &K,
    value: &[V],
    flags: u64,
) -> io::Result<()> {
    element(MAP_UPDATE_ELEM, map, (&raw const *key) as u64, value.as_ptr() as u64, flags)
}

/// Reads one value of a map into `value`, which is as long as the map's values are (for a map with a
/// value for each CPU: as all of them).
pub(super) fn lookup<K: Plain, V: Plain>(
    map: BorrowedFd<'_>,
    key: &K,
    value: &mut [V],
) -> io::Result<()> {
    element(MAP_LOOKUP_ELEM, map, (&raw const *key) as u64, value.as_mut_ptr() as u64, 0)
}

/// Takes one value out of a map.
pub(super) fn delete<K: Plain>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    element(MAP_DELETE_ELEM, map, (&raw const *key) as u64, 0, 0)
}

/// The key behind `key`, or the first one.
pub(super) fn next_key<K: Plain + Default>(
    map: BorrowedFd<'_>,
    key: Option<&K>,
) -> io::Result<Option<K>> {
    let mut next = K::default();
    let key = key.map_or(0, |key| (&raw const *key) as u64);
    match element(MAP_GET_NEXT_KEY, map, key, (&raw mut next) as u64, 0) {
        Ok(()) => Ok(Some(next)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn element(
    cmd: libc::c_int,
    map: BorrowedFd<'_>,
    key: u64,
    value: u64,
    flags: u64,
) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        map_fd: u32,
        pad: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let mut attr = Attr { map_fd: number(map), pad: 0, key, value, flags };
    // SAFETY: the callers here pass keys and values of the map's sizes, which outlive the call.
    unsafe { call(cmd, &mut attr) }.map(drop)
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

/// Writes values of an array, each at the index with the same place in `keys`.
pub(super) fn update_array<V: Plain>(
    map: BorrowedFd<'_>,
    keys: &[u32],
    values: &[V],
) -> io::Result<()> {
    let count = keys.len().min(values.len());
    if count == 0 {
        return Ok(());
    }
    let mut attr = Batch {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: count as u32,
        map_fd: number(map),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: as many keys and values as we say, both outlive the call.
    unsafe { call(MAP_UPDATE_BATCH, &mut attr) }.map(drop)
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
    match unsafe { call(MAP_LOOKUP_BATCH, &mut attr) } {
        // It says so at the array's end, where all there is has been read.
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ if attr.count as usize == count => Ok(()),
        _ => Err(io::Error::other("the array is shorter")),
    }
}

/// Makes a map read-only for user space, so that the verifier takes its values for constants.
pub(super) fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a structure of one descriptor.
    unsafe { call(MAP_FREEZE, &mut number(map)) }.map(drop)
}
