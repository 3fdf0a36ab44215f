//! remora's kernel half: sees socket operations and process changes of selected processes, copies
//! what user space needs to know, and decides nothing that a user sees.
//!
//! Every program leaves at once for a process that was not selected.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod arch;
#[expect(dead_code, reason = "what only the other object uses")]
mod atomic;
mod cgroup;
mod descriptor;
mod emit;
mod exit;
mod image;
mod living;
mod nethttp;
mod nginx;
mod offsets;
mod opaque;
mod operation;
mod payload;
mod places;
mod process;
#[expect(dead_code, reason = "what only the other object uses")]
mod registers;
mod selections;
mod sock;
mod socket;
mod syscall;
mod task;
mod user;

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{btf_tracepoint, fexit};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext};

use emit::Slot;
use offsets::offset;
use operation::{Moved, Way};
use process::Ids;
use sock::{Found, Sock, Typed};

/// Hook: `tp_btf/sock_send_length` (6.3). Reads the socket and the sending syscall's buffer,
/// writes one `Io` record. A miss costs one load, rarely one hash lookup.
#[btf_tracepoint(function = "sock_send_length")]
pub fn sock_send_length(ctx: BtfTracePointContext) -> i32 {
    if !operation::is_to_wait(ctx.arg(1))
        && let Some(me) = process::may_be_selected()
    {
        sent(ctx.as_ptr(), me);
    }
    0
}

/// The rest of [`sock_send_length`], a function of its own: what every process of the host pays for is a
/// few instructions in a row, and no registers to be saved.
#[inline(never)]
fn sent(ctx: *mut c_void, me: Ids) {
    let ctx = BtfTracePointContext::new(ctx);
    send(ctx.arg(0), ctx.arg(1), Slot::OUTBOUND, me);
}

/// Hook: `tp_btf/sock_recv_length` (6.3). Reads the socket and the receiving syscall's buffer,
/// writes one `Io` record. A miss costs one load, rarely one hash lookup.
#[btf_tracepoint(function = "sock_recv_length")]
pub fn sock_recv_length(ctx: BtfTracePointContext) -> i32 {
    if !operation::is_to_wait(ctx.arg(1))
        && let Some(me) = process::may_be_selected()
    {
        received(ctx.as_ptr(), me);
    }
    0
}

/// The rest of [`sock_recv_length`], as [`sent`].
#[inline(never)]
fn received(ctx: *mut c_void, me: Ids) {
    let ctx = BtfTracePointContext::new(ctx);
    receive(ctx.arg(0), ctx.arg(1), ctx.arg(2), Slot::INBOUND, me);
}

/// Hook: `fexit/tcp_sendmsg` (trampolines, and 5.16 for the helpers used). As
/// [`sock_send_length`], but only TCP pays.
#[fexit(function = "tcp_sendmsg")]
pub fn tcp_sendmsg(ctx: FExitContext) -> i32 {
    on_send(ctx.arg(0), ctx.arg(3), Slot::OUTBOUND);
    0
}

/// Hook: `fexit/tcp_recvmsg` (5.19: five arguments). As [`sock_recv_length`], but only TCP pays.
#[fexit(function = "tcp_recvmsg")]
pub fn tcp_recvmsg(ctx: FExitContext) -> i32 {
    on_receive(ctx.arg(0), ctx.arg(5), ctx.arg(3), Slot::INBOUND);
    0
}

/// Hook: `fexit/tcp_sendpage` (until 6.4, for sendfile and splice). As [`tcp_sendmsg`].
#[fexit(function = "tcp_sendpage")]
pub fn tcp_sendpage(ctx: FExitContext) -> i32 {
    on_send(ctx.arg(0), ctx.arg(5), Slot::PAGE_OUTBOUND);
    0
}

/// Hook: `fexit/unix_stream_sendmsg`. As [`tcp_sendmsg`], for Unix stream sockets.
#[fexit(function = "unix_stream_sendmsg")]
pub fn unix_stream_sendmsg(ctx: FExitContext) -> i32 {
    on_send(sk_of(ctx.arg(0)), ctx.arg(3), Slot::UNIX_OUTBOUND);
    0
}

/// Hook: `fexit/unix_stream_recvmsg`. As [`tcp_recvmsg`], for Unix stream sockets.
#[fexit(function = "unix_stream_recvmsg")]
pub fn unix_stream_recvmsg(ctx: FExitContext) -> i32 {
    on_receive(sk_of(ctx.arg(0)), ctx.arg(4), ctx.arg(3), Slot::UNIX_INBOUND);
    0
}

/// Hook: `fexit/unix_stream_sendpage` (until 6.4). As [`tcp_sendpage`], for Unix stream sockets.
#[fexit(function = "unix_stream_sendpage")]
pub fn unix_stream_sendpage(ctx: FExitContext) -> i32 {
    on_send(sk_of(ctx.arg(0)), ctx.arg(5), Slot::UNIX_PAGE_OUTBOUND);
    0
}

/// Hook: `tp_btf/sys_exit` (5.5). Walks from the descriptor to the socket and reads the syscall's
/// buffer, writes one `Io` record. Runs at the end of every syscall of the host; a syscall that
/// moves no bytes costs a few comparisons, another process's read or write one hash lookup.
#[btf_tracepoint(function = "sys_exit")]
pub fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    exit::on_sys_exit(ctx.arg(0), ctx.arg(1));
    0
}

/// Hook: `tp_btf/inet_sock_set_state` (5.5, and 5.12 for the helpers used). Tells that a captured
/// TCP socket closed, or that a process listens. Writes a `Socket` record. A miss costs one load a
/// connection.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the tracepoint's typed argument.
    socket::on_state(unsafe { Typed::new(ctx.arg(0)) }, ctx.arg(2));
    0
}

/// Hook: `tp_btf/tcp_destroy_sock` (5.5, and 5.12 for what it does). Gives back the place of a captured socket's
/// state. A miss costs one load a connection.
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub fn tcp_destroy_sock(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the tracepoint's typed argument.
    socket::on_destroy(unsafe { Typed::new(ctx.arg(0)) });
    0
}

/// Hook: `tp_btf/inet_sock_set_state` (5.5). As [`inet_sock_set_state`], for the sockets that
/// [`sys_exit`] has found.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state_found(ctx: BtfTracePointContext) -> i32 {
    socket::on_state(Found::new(ctx.arg(0), 0), ctx.arg(2));
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
/// `Process` record with how it ended; of other threads only if the process's functions are probed.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    process::on_exit(ctx.arg(0));
    0
}

/// Hook: `tp_btf/signal_deliver` (5.5). Writes a `Process` record for a signal that ends a selected
/// process with an error. Attached if exceptions are asked for; a miss costs a few comparisons, and one
/// lookup for a signal of that kind.
#[btf_tracepoint(function = "signal_deliver")]
pub fn signal_deliver(ctx: BtfTracePointContext) -> i32 {
    process::on_signal(ctx.arg(0), ctx.arg(2), process::Stack::Unseen);
    0
}

/// Hook: `tp_btf/signal_deliver` (5.5), `bpf_task_pt_regs` (5.15). As [`signal_deliver`], with an `Image`
/// of the thread's stack before the record.
#[btf_tracepoint(function = "signal_deliver")]
pub fn signal_deliver_stack(ctx: BtfTracePointContext) -> i32 {
    process::on_signal(ctx.arg(0), ctx.arg(2), process::Stack::Told);
    0
}

#[inline(always)]
fn on_send(sk: *const u8, bytes: i32, slot: Slot) {
    if !operation::is_to_wait(bytes)
        && let Some(me) = process::may_be_selected()
    {
        send(sk, bytes, slot, me);
    }
}

#[inline(always)]
fn on_receive(sk: *const u8, bytes: i32, flags: i32, slot: Slot) {
    if !operation::is_to_wait(bytes)
        && let Some(me) = process::may_be_selected()
    {
        receive(sk, bytes, flags, slot, me);
    }
}

#[inline(always)]
fn send(sk: *const u8, bytes: i32, slot: Slot, me: Ids) {
    let moved = Moved { bytes, flags: 0, way: Way::Outbound, slot, me };
    // SAFETY: `sk` comes from the program's typed context.
    let sock = unsafe { Typed::new(sk) };
    operation::on_io(sock, moved, |task| syscall::current(task, Way::Outbound));
}

#[inline(always)]
fn receive(sk: *const u8, bytes: i32, flags: i32, slot: Slot, me: Ids) {
    let moved = Moved { bytes, flags, way: Way::Inbound, slot, me };
    // SAFETY: `sk` comes from the program's typed context.
    let sock = unsafe { Typed::new(sk) };
    operation::on_io(sock, moved, |task| syscall::current(task, Way::Inbound));
}

/// The `struct sock` of a `struct socket`.
#[inline(always)]
fn sk_of(socket: *const u8) -> *const u8 {
    // SAFETY: `socket` comes from the program's typed context.
    unsafe { Typed::new(socket) }.load(offset!(socket_sk))
}

/// GPL for the helpers, Apache or MIT for the reader.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
