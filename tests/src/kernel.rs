//! What the kernel holds for a process's eBPF.
#![expect(unsafe_code, reason = "asks bpf(2) whether a program or link still exists")]

use std::collections::BTreeSet;

/// Ids of the programs that a process holds, from the `prog_id` lines of its descriptors.
pub fn programs_of(pid: u32) -> BTreeSet<u32> {
    let mut ids = BTreeSet::new();
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return ids };
    for descriptor in descriptors.flatten() {
        let text = std::fs::read_to_string(descriptor.path()).unwrap_or_default();
        let id = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
        ids.extend(id.and_then(|id| id.trim().parse::<u32>().ok()));
    }
    ids
}

/// Whether a program is still in the kernel.
pub fn has_program(id: u32) -> bool {
    // BPF_PROG_GET_FD_BY_ID (linux/bpf.h); `union bpf_attr` begins with the id here.
    const GET_FD_BY_ID: libc::c_int = 13;
    let mut attribute = [0_u32; 32];
    attribute[0] = id;
    // SAFETY: the attribute is zeroed beyond the id and as long as we say.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, GET_FD_BY_ID, attribute.as_mut_ptr(), size_of_val(&attribute))
    };
    if fd < 0 {
        return false;
    }
    // SAFETY: the descriptor was just made and is used by no one else.
    unsafe { libc::close(fd as libc::c_int) };
    true
}
