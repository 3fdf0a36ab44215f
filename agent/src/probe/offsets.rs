//! The kernel half's table of field offsets, filled from BTF.

use crate::platform::btf::{Btf, BtfError};

/// Struct, member and whether it must be there (else the kernel half sees 0 and does without), in the order of
/// `agent_ebpf::offsets::Offsets`.
const FIELDS: [(&str, &str, bool); 22] = [
    ("sock", "__sk_common.skc_family", true),
    ("sock", "__sk_common.skc_num", true),
    ("sock", "__sk_common.skc_dport", true),
    ("sock", "__sk_common.skc_rcv_saddr", true),
    ("sock", "__sk_common.skc_daddr", true),
    ("sock", "__sk_common.skc_v6_rcv_saddr", true),
    ("sock", "__sk_common.skc_v6_daddr", true),
    ("sock", "__sk_common.skc_net.net", true),
    ("net", "ns.inum", true),
    ("sock", "sk_type", true),
    ("tcp_sock", "write_seq", true),
    ("tcp_sock", "copied_seq", true),
    ("tcp_sock", "tcp_clock_cache", true),
    ("unix_sock", "peer", true),
    ("task_struct", "pid", true),
    ("task_struct", "tgid", true),
    ("task_struct", "group_leader", true),
    ("task_struct", "start_boottime", true),
    ("task_struct", "signal", true),
    ("signal_struct", "live", true),
    ("task_struct", "io_uring", false),
    ("linux_binprm", "filename", true),
];

/// Resolves every field.
pub(super) fn resolve(btf: &Btf) -> Result<Vec<u32>, BtfError> {
    let resolve = |&(name, member, needed): &(&'static str, &'static str, bool)| match btf
        .offset(name, member)
    {
        Err(_) if !needed => Ok(0),
        result => result,
    };
    FIELDS.iter().map(resolve).collect()
}
