//! The names of the control groups of a task: what container it is in, which cannot be asked any more
//! when its process is gone.

use core::ptr;

use agent_common::{Header, PATH_BYTES, Process, kind};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;

use crate::emit::{self, Slot};
use crate::offsets::offset;
use crate::sock::{Found, Sock};

/// How many groups are looked at from the task's own on.
const LEVELS: usize = 4;

/// A container's id has 64 digits: a name without as many is none's.
const ID_BYTES: i64 = 64;

/// Writes a `Process` record for each of a task's groups that may be named for a container, the innermost
/// first: of version 2, and of the first controller, which has a tree of its own in version 1.
#[inline(always)]
pub fn tell(task: *const u8, tgid: u32) {
    if offset!(task_cgroups) == 0 {
        return;
    }
    let set = Found::new(task, 0).follow(offset!(task_cgroups));
    let group = set.follow(offset!(set_default));
    tell_names(group.address(), tgid);
    let state = set.follow(offset!(set_states));
    let other = state.follow(offset!(state_group));
    if other.address() != group.address() {
        tell_names(other.address(), tgid);
    }
}

/// A function of its own, so that it is verified once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_names(group: u64, tgid: u32) -> u32 {
    let mut group = Found::new(group as *const u8, 0);
    let mut level = 0;
    while level < LEVELS && group.address() != 0 {
        let name = group.follow(offset!(group_node)).follow(offset!(node_name));
        tell_name(name.address() as *const u8, tgid);
        let above = group.follow(offset!(group_state) + offset!(state_parent));
        if above.address() == 0 {
            break;
        }
        group = above.follow(offset!(state_group));
        level += 1;
    }
    0
}

#[inline(always)]
fn tell_name(name: *const u8, tgid: u32) {
    let header = Header { kind: kind::CGROUP, flags: 0, cpu: 0, cpu_seq: 0, ts_ns: 0 };
    let path = [0; PATH_BYTES];
    let mut process =
        Process { header, tgid, tid: 0, parent_tgid: 0, parent_tid: 0, start_ns: 0, path };
    let to = (&raw mut process.path).cast();
    // SAFETY: the kernel's string; the helper copies at most PATH_BYTES and fails instead of faulting.
    let bytes = unsafe { bpf_probe_read_kernel_str(to, PATH_BYTES as u32, name.cast()) };
    // With its zero.
    if bytes <= ID_BYTES {
        return;
    }
    let header = emit::header(Slot::EXEC, kind::CGROUP, 0);
    // SAFETY: a local variable. Volatile, or it would be made twice.
    unsafe { ptr::write_volatile(&raw mut process.header, header) };
    let record = (&raw mut process).cast::<u8>();
    // SAFETY: `record` is a whole `Process`, on the stack. What follows wakes the reader.
    unsafe { emit::write(record, size_of::<Process>() as u64, header.cpu_seq, false) };
}
