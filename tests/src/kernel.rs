//! What the kernel holds for a process's eBPF.
#![expect(unsafe_code, reason = "asks bpf(2) what still exists")]

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Ids of the programs that a process holds, from the `prog_id` lines of its descriptors.
pub fn programs_of(pid: u32) -> BTreeSet<u32> {
    ids_of(pid, "prog_id:")
}

fn ids_of(pid: u32, field: &str) -> BTreeSet<u32> {
    let mut ids = BTreeSet::new();
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return ids };
    for descriptor in descriptors.flatten() {
        let text = std::fs::read_to_string(descriptor.path()).unwrap_or_default();
        let id = text.lines().find_map(|line| line.strip_prefix(field));
        ids.extend(id.and_then(|id| id.trim().parse::<u32>().ok()));
    }
    ids
}

/// Whether a program is still in the kernel.
pub fn has_program(id: u32) -> bool {
    // BPF_PROG_GET_FD_BY_ID (linux/bpf.h); `union bpf_attr` begins with the id here.
    const GET_FD_BY_ID: libc::c_int = 13;
    opened(GET_FD_BY_ID, id).is_some()
}

/// The keys of a process's map of this name, for a map whose keys are 32 bits.
///
/// # Panics
/// If the process holds no such map.
pub fn keys_of_map(pid: u32, name: &str) -> BTreeSet<u32> {
    // BPF_MAP_GET_NEXT_KEY, BPF_MAP_GET_FD_BY_ID and BPF_OBJ_GET_INFO_BY_FD (linux/bpf.h).
    const GET_NEXT_KEY: libc::c_int = 4;
    const GET_FD_BY_ID: libc::c_int = 14;
    const GET_INFO: libc::c_int = 15;
    // `struct bpf_map_info`: six words, then the name of 16 bytes.
    const NAME: usize = 24;
    let is_named = |map: &OwnedFd| {
        let mut info = [0_u8; 128];
        let mut attribute = [0_u32; 32];
        attribute[0] = map.as_raw_fd() as u32;
        attribute[1] = size_of_val(&info) as u32;
        put_pointer(&mut attribute, info.as_mut_ptr().cast());
        let told = bpf(GET_INFO, &mut attribute) == 0;
        told && info[NAME..].starts_with(name.as_bytes()) && info[NAME + name.len()] == 0
    };
    let mut maps = ids_of(pid, "map_id:").into_iter().filter_map(|id| opened(GET_FD_BY_ID, id));
    let map = maps.find(is_named).unwrap_or_else(|| panic!("process {pid} has no map {name}"));
    let mut keys = BTreeSet::new();
    let (mut key, mut next) = (0_u32, 0_u32);
    loop {
        // `map_fd`, then at 8 the last key (none: the first one is given), at 16 where the next goes.
        let mut attribute = [0_u32; 32];
        attribute[0] = map.as_raw_fd() as u32;
        if !keys.is_empty() {
            put_pointer(&mut attribute, (&raw mut key).cast());
        }
        let address = (&raw mut next).addr() as u64;
        [attribute[4], attribute[5]] = [address as u32, (address >> 32) as u32];
        // A key that has gone meanwhile makes it start anew; what is known already ends it.
        if bpf(GET_NEXT_KEY, &mut attribute) != 0 || !keys.insert(next) {
            return keys;
        }
        key = next;
    }
}

/// Puts a pointer where both commands have their first one.
fn put_pointer(attribute: &mut [u32; 32], pointer: *mut libc::c_void) {
    let address = pointer.addr() as u64;
    [attribute[2], attribute[3]] = [address as u32, (address >> 32) as u32];
}

/// A descriptor of what has this id, if it still exists.
fn opened(command: libc::c_int, id: u32) -> Option<OwnedFd> {
    let mut attribute = [0_u32; 32];
    attribute[0] = id;
    let fd = bpf(command, &mut attribute);
    // SAFETY: the descriptor was just made and is used by no one else.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf(command: libc::c_int, attribute: &mut [u32; 32]) -> RawFd {
    // SAFETY: the attribute is as long as we say and zeroed beyond what the command takes; pointers
    // in it are to locals of the caller that are as large as it says.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, attribute.as_mut_ptr(), size_of_val(attribute))
    };
    result as RawFd
}
