//! The kernel half's table of field offsets, filled from BTF.

use crate::platform::btf::{Btf, BtfError};
use crate::platform::clock;

/// A member of a struct.
struct Field {
    of: &'static str,
    name: &'static str,
    is_optional: bool,
}

const fn needed(of: &'static str, name: &'static str) -> Field {
    Field { of, name, is_optional: false }
}

/// What a kernel may be built without, or an architecture lacks: the kernel half sees 0 and does without.
const fn optional(of: &'static str, name: &'static str) -> Field {
    Field { of, name, is_optional: true }
}

/// In the order of `agent_ebpf::offsets::Offsets`.
const FIELDS: [Field; 65] = [
    needed("sock", "__sk_common.skc_family"),
    needed("sock", "__sk_common.skc_num"),
    needed("sock", "__sk_common.skc_dport"),
    needed("sock", "__sk_common.skc_rcv_saddr"),
    needed("sock", "__sk_common.skc_daddr"),
    needed("sock", "__sk_common.skc_v6_rcv_saddr"),
    needed("sock", "__sk_common.skc_v6_daddr"),
    needed("sock", "__sk_common.skc_net.net"),
    needed("net", "ns.inum"),
    needed("sock", "sk_type"),
    needed("sock", "sk_protocol"),
    needed("sock", "sk_shutdown"),
    needed("sock", "sk_max_ack_backlog"),
    needed("sock", "sk_socket"),
    needed("socket", "file"),
    needed("socket", "sk"),
    needed("tcp_sock", "write_seq"),
    needed("tcp_sock", "copied_seq"),
    needed("tcp_sock", "rcv_nxt"),
    needed("tcp_sock", "snd_una"),
    needed("tcp_sock", "bytes_acked"),
    needed("tcp_sock", "bytes_received"),
    needed("tcp_sock", "inet_conn.icsk_ulp_ops"),
    needed("tcp_sock", "inet_conn.icsk_ack.lrcvtime"),
    needed("unix_sock", "peer"),
    needed("unix_sock", "addr"),
    needed("task_struct", "pid"),
    needed("task_struct", "tgid"),
    needed("task_struct", "group_leader"),
    needed("task_struct", "start_boottime"),
    needed("task_struct", "signal"),
    needed("signal_struct", "live"),
    needed("task_struct", "flags"),
    optional("task_struct", "io_uring"),
    needed("task_struct", "files"),
    needed("files_struct", "fdt"),
    needed("fdtable", "max_fds"),
    needed("fdtable", "fd"),
    needed("file", "private_data"),
    needed("file", "f_inode"),
    needed("file", "f_flags"),
    needed("inode", "i_mode"),
    needed("inode", "i_ino"),
    needed("linux_binprm", "filename"),
    optional("task_struct", "thread.fsbase"),
    needed("k_sigaction", "sa.sa_handler"),
    needed("sock", "__sk_common.skc_cookie"),
    optional("file", "f_ep"),
    optional("epitem", "fllink"),
    optional("epitem", "ffd.fd"),
    optional("epitem", "event"),
    optional("epoll_event", "data"),
    needed("task_struct", "exit_code"),
    needed("signal_struct", "flags"),
    needed("signal_struct", "group_exit_code"),
    optional("task_struct", "cgroups"),
    optional("css_set", "dfl_cgrp"),
    optional("css_set", "subsys"),
    optional("cgroup_subsys_state", "cgroup"),
    optional("cgroup_subsys_state", "parent"),
    optional("cgroup", "self"),
    optional("cgroup", "kn"),
    optional("kernfs_node", "name"),
    needed("inet_sock", "inet_sport"),
    needed("sock", "__sk_common.skc_flags"),
];

/// Resolves every field, and adds what else the kernel half is to see as a constant.
pub(super) fn resolve(btf: &Btf) -> Result<Vec<u32>, BtfError> {
    let resolve = |field: &Field| match btf.offset(field.of, field.name) {
        Err(_) if field.is_optional => Ok(0),
        result => result,
    };
    FIELDS.iter().map(resolve).chain([Ok(clock::tick_ns())]).collect()
}
