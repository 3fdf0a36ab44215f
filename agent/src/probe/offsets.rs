//! The kernel half's table of field offsets, filled from BTF.

use crate::platform::btf::{Btf, BtfError};

/// Struct and member, in the order of `agent_ebpf::offsets::Offsets`.
const FIELDS: [(&str, &str); 55] = [
    ("sock", "__sk_common.skc_family"),
    ("sock", "__sk_common.skc_num"),
    ("sock", "__sk_common.skc_dport"),
    ("sock", "__sk_common.skc_rcv_saddr"),
    ("sock", "__sk_common.skc_daddr"),
    ("sock", "__sk_common.skc_v6_rcv_saddr"),
    ("sock", "__sk_common.skc_v6_daddr"),
    ("sock", "__sk_common.skc_net.net"),
    ("net", "ns.inum"),
    ("sock", "sk_type"),
    ("sock", "sk_protocol"),
    ("sock", "sk_shutdown"),
    ("sock", "sk_max_ack_backlog"),
    ("sock", "sk_socket"),
    ("socket", "file"),
    ("socket", "sk"),
    ("tcp_sock", "write_seq"),
    ("tcp_sock", "copied_seq"),
    ("tcp_sock", "rcv_nxt"),
    ("tcp_sock", "snd_una"),
    ("tcp_sock", "bytes_acked"),
    ("tcp_sock", "bytes_received"),
    ("tcp_sock", "inet_conn.icsk_ulp_ops"),
    ("tcp_sock", "tcp_clock_cache"),
    ("unix_sock", "peer"),
    ("unix_sock", "addr"),
    ("task_struct", "pid"),
    ("task_struct", "tgid"),
    ("task_struct", "group_leader"),
    ("task_struct", "start_boottime"),
    ("task_struct", "signal"),
    ("signal_struct", "live"),
    ("task_struct", "flags"),
    ("task_struct", "io_uring"),
    ("task_struct", "files"),
    ("files_struct", "fdt"),
    ("fdtable", "max_fds"),
    ("fdtable", "fd"),
    ("file", "private_data"),
    ("file", "f_inode"),
    ("file", "f_flags"),
    ("inode", "i_mode"),
    ("inode", "i_ino"),
    ("linux_binprm", "filename"),
    ("task_struct", "thread.fsbase"),
    ("k_sigaction", "sa.sa_handler"),
    ("sock", "__sk_common.skc_cookie"),
    ("file", "f_ep"),
    ("epitem", "fllink"),
    ("epitem", "ffd.fd"),
    ("epitem", "event"),
    ("epoll_event", "data"),
    ("task_struct", "exit_code"),
    ("signal_struct", "flags"),
    ("signal_struct", "group_exit_code"),
];

/// What a kernel may be built without, or an architecture lacks: the kernel half sees 0 and does without.
const OPTIONAL: [(&str, &str); 7] = [
    ("task_struct", "io_uring"),
    ("task_struct", "thread.fsbase"),
    ("file", "f_ep"),
    ("epitem", "fllink"),
    ("epitem", "ffd.fd"),
    ("epitem", "event"),
    ("epoll_event", "data"),
];

/// Resolves every field.
pub(super) fn resolve(btf: &Btf) -> Result<Vec<u32>, BtfError> {
    let resolve = |field: &(&'static str, &'static str)| match btf.offset(field.0, field.1) {
        Err(_) if OPTIONAL.contains(field) => Ok(0),
        result => result,
    };
    FIELDS.iter().map(resolve).collect()
}
