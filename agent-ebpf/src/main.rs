//! remora's kernel half: sees socket operations and process changes of selected processes, copies
//! what user space needs to know, and decides nothing that a user sees.
//!
//! Every program leaves at once for a process that was not selected.
#![no_std]
#![no_main]

mod emit;
mod offsets;
mod operation;
mod payload;
mod process;
mod socket;
mod syscall;

use aya_ebpf::macros::{btf_tracepoint, fexit};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext};

use operation::Way;

/// Hook: `tp_btf/sock_send_length` (6.3). Reads the socket and the sending syscall's buffer,
/// writes one `Io` record. A miss costs one hash lookup.
#[btf_tracepoint(function = "sock_send_length")]
pub fn sock_send_length(ctx: BtfTracePointContext) -> i32 {
    operation::on_io(ctx.arg(0), ctx.arg(1), 0, Way::Outbound);
    0
}

/// Hook: `tp_btf/sock_recv_length` (6.3). Reads the socket and the receiving syscall's buffer,
/// writes one `Io` record. A miss costs one hash lookup.
#[btf_tracepoint(function = "sock_recv_length")]
pub fn sock_recv_length(ctx: BtfTracePointContext) -> i32 {
    operation::on_io(ctx.arg(0), ctx.arg(1), ctx.arg(2), Way::Inbound);
    0
}

/// Hook: `fexit/tcp_sendmsg` (5.5 with trampolines). As [`sock_send_length`].
#[fexit(function = "tcp_sendmsg")]
pub fn tcp_sendmsg(ctx: FExitContext) -> i32 {
    operation::on_io(ctx.arg(0), ctx.arg(3), 0, Way::Outbound);
    0
}

/// Hook: `fexit/tcp_recvmsg` (5.19: five arguments). As [`sock_recv_length`].
#[fexit(function = "tcp_recvmsg")]
pub fn tcp_recvmsg(ctx: FExitContext) -> i32 {
    operation::on_io(ctx.arg(0), ctx.arg(5), ctx.arg(3), Way::Inbound);
    0
}

/// Hook: `tp_btf/inet_sock_set_state` (5.5). Tells that a captured TCP socket closed, or that a
/// process listens. Writes a `Socket` record. A miss costs one storage lookup a connection.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    socket::on_state(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// Hook: `tp_btf/sched_process_fork` (5.5). Selects children of followed processes, writes a
/// `Process` record for selected parents.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    process::on_fork(ctx.arg(0), ctx.arg(1));
    0
}

/// Hook: `tp_btf/sched_process_exec` (5.5). Writes a `Process` record for selected processes and,
/// while rules wait for new programs, for every process.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn sched_process_exec(ctx: BtfTracePointContext) -> i32 {
    process::on_exec(ctx.arg(0), ctx.arg(2));
    0
}

/// Hook: `tp_btf/sched_process_exit` (5.5). Deselects a process whose last thread ends, writes a
/// `Process` record.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    process::on_exit(ctx.arg(0));
    0
}

/// GPL for the helpers, Apache or MIT for the reader.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
