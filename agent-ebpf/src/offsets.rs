//! Where fields lie in this kernel's structs. User space resolves them from
//! `/sys/kernel/btf/vmlinux` and writes them into read-only data before loading, so that the
//! verifier sees constants. Nothing is baked in at compile time.

use core::ptr;

/// Byte offsets of kernel struct fields, filled in by user space.
///
/// The layout is mirrored by `remora::probe::offsets`.
#[repr(C)]
pub struct Offsets {
    /// `sock.__sk_common.skc_family`
    pub skc_family: u32,
    /// `sock.__sk_common.skc_num`
    pub skc_num: u32,
    /// `sock.__sk_common.skc_dport`
    pub skc_dport: u32,
    /// `sock.__sk_common.skc_rcv_saddr`
    pub skc_rcv_saddr: u32,
    /// `sock.__sk_common.skc_daddr`
    pub skc_daddr: u32,
    /// `sock.__sk_common.skc_v6_rcv_saddr`
    pub skc_v6_rcv_saddr: u32,
    /// `sock.__sk_common.skc_v6_daddr`
    pub skc_v6_daddr: u32,
    /// `sock.__sk_common.skc_net.net`
    pub skc_net: u32,
    /// `net.ns.inum`
    pub net_inum: u32,
    /// `sock.sk_type`
    pub sk_type: u32,
    /// `sock.sk_protocol`
    pub sk_protocol: u32,
    /// `sock.sk_shutdown`
    pub sk_shutdown: u32,
    /// `sock.sk_max_ack_backlog`
    pub sk_max_ack_backlog: u32,
    /// `sock.sk_socket`
    pub sk_socket: u32,
    /// `socket.file`
    pub socket_file: u32,
    /// `socket.sk`
    pub socket_sk: u32,
    /// `tcp_sock.write_seq`
    pub tcp_write_seq: u32,
    /// `tcp_sock.copied_seq`
    pub tcp_copied_seq: u32,
    /// `tcp_sock.rcv_nxt`
    pub tcp_rcv_nxt: u32,
    /// `tcp_sock.snd_una`
    pub tcp_snd_una: u32,
    /// `tcp_sock.bytes_acked`
    pub tcp_bytes_acked: u32,
    /// `tcp_sock.bytes_received`
    pub tcp_bytes_received: u32,
    /// `tcp_sock.inet_conn.icsk_ulp_ops`
    pub tcp_ulp_ops: u32,
    /// `tcp_sock.inet_conn.icsk_ack.lrcvtime`
    pub tcp_last_received: u32,
    /// `unix_sock.peer`
    pub unix_peer: u32,
    /// `unix_sock.addr`
    pub unix_addr: u32,
    /// `task_struct.pid`
    pub task_pid: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.group_leader`
    pub task_group_leader: u32,
    /// `task_struct.start_boottime`
    pub task_start_boottime: u32,
    /// `task_struct.signal`
    pub task_signal: u32,
    /// `signal_struct.live`
    pub signal_live: u32,
    /// `task_struct.flags`
    pub task_flags: u32,
    /// `task_struct.io_uring`; 0 if this kernel has none
    pub task_io_uring: u32,
    /// `task_struct.files`
    pub task_files: u32,
    /// `files_struct.fdt`
    pub files_fdt: u32,
    /// `fdtable.max_fds`
    pub fdt_max_fds: u32,
    /// `fdtable.fd`
    pub fdt_fd: u32,
    /// `file.private_data`
    pub file_private_data: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `file.f_flags`
    pub file_flags: u32,
    /// `inode.i_mode`
    pub inode_mode: u32,
    /// `inode.i_ino`
    pub inode_number: u32,
    /// `linux_binprm.filename`
    pub binprm_filename: u32,
    /// `task_struct.thread.fsbase` of x86-64; 0 elsewhere
    pub task_tls_base: u32,
    /// `k_sigaction.sa.sa_handler`
    pub sigaction_handler: u32,
    /// `sock.__sk_common.skc_cookie`
    pub skc_cookie: u32,
    /// `file.f_ep`; 0 before Linux 5.11
    pub file_epoll: u32,
    /// `epitem.fllink`
    pub epitem_link: u32,
    /// `epitem.ffd.fd`
    pub epitem_fd: u32,
    /// `epitem.event`
    pub epitem_event: u32,
    /// `epoll_event.data`
    pub epoll_event_data: u32,
    /// `task_struct.exit_code`
    pub task_exit_code: u32,
    /// `signal_struct.flags`
    pub signal_flags: u32,
    /// `signal_struct.group_exit_code`
    pub signal_exit_code: u32,
    /// `task_struct.cgroups`; 0 if this kernel has none
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`
    pub set_default: u32,
    /// `css_set.subsys`
    pub set_states: u32,
    /// `cgroup_subsys_state.cgroup`
    pub state_group: u32,
    /// `cgroup_subsys_state.parent`
    pub state_parent: u32,
    /// `cgroup.self`
    pub group_state: u32,
    /// `cgroup.kn`
    pub group_node: u32,
    /// `kernfs_node.name`
    pub node_name: u32,
    /// `inet_sock.inet_sport`
    pub inet_sport: u32,
    /// `sock.__sk_common.skc_flags`
    pub skc_flags: u32,
    /// No offset: nanoseconds of a tick (`jiffies`).
    pub tick_ns: u32,
}

/// Overridden at load time.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets {
    skc_family: 0,
    skc_num: 0,
    skc_dport: 0,
    skc_rcv_saddr: 0,
    skc_daddr: 0,
    skc_v6_rcv_saddr: 0,
    skc_v6_daddr: 0,
    skc_net: 0,
    net_inum: 0,
    sk_type: 0,
    sk_protocol: 0,
    sk_shutdown: 0,
    sk_max_ack_backlog: 0,
    sk_socket: 0,
    socket_file: 0,
    socket_sk: 0,
    tcp_write_seq: 0,
    tcp_copied_seq: 0,
    tcp_rcv_nxt: 0,
    tcp_snd_una: 0,
    tcp_bytes_acked: 0,
    tcp_bytes_received: 0,
    tcp_ulp_ops: 0,
    tcp_last_received: 0,
    unix_peer: 0,
    unix_addr: 0,
    task_pid: 0,
    task_tgid: 0,
    task_group_leader: 0,
    task_start_boottime: 0,
    task_signal: 0,
    signal_live: 0,
    task_flags: 0,
    task_io_uring: 0,
    task_files: 0,
    files_fdt: 0,
    fdt_max_fds: 0,
    fdt_fd: 0,
    file_private_data: 0,
    file_inode: 0,
    file_flags: 0,
    inode_mode: 0,
    inode_number: 0,
    binprm_filename: 0,
    task_tls_base: 0,
    sigaction_handler: 0,
    skc_cookie: 0,
    file_epoll: 0,
    epitem_link: 0,
    epitem_fd: 0,
    epitem_event: 0,
    epoll_event_data: 0,
    task_exit_code: 0,
    signal_flags: 0,
    signal_exit_code: 0,
    task_cgroups: 0,
    set_default: 0,
    set_states: 0,
    state_group: 0,
    state_parent: 0,
    group_state: 0,
    group_node: 0,
    node_name: 0,
    inet_sport: 0,
    skc_flags: 0,
    tick_ns: 0,
};

/// Reads one offset. Volatile, because the compiler must not fold the zero it sees here; the
/// verifier knows the real value since the map behind it is frozen.
macro_rules! offset {
    ($field:ident) => {
        $crate::offsets::read(&raw const $crate::offsets::OFFSETS.$field)
    };
}
pub(crate) use offset;

/// Reads the offset behind `field`, one of [`OFFSETS`].
#[inline(always)]
pub fn read(field: *const u32) -> usize {
    // SAFETY: `field` is a field of a static that lives as long as the program.
    unsafe { ptr::read_volatile(field) as usize }
}

/// Loads the field of type `T` at `offset` from a kernel pointer that the verifier tracks by its
/// BTF type.
///
/// # Safety
/// `base` comes from the program's typed context or was loaded from such a pointer; the verifier
/// rejects the program if `offset` is not that of a field of this size.
#[inline(always)]
pub unsafe fn load<T: Copy>(base: *const u8, offset: usize) -> T {
    // SAFETY: the verifier checks the access against the type behind `base`; a fault at run time
    // (an object that is gone) reads zeroes.
    unsafe { ptr::read_volatile(base.add(offset).cast::<T>()) }
}
