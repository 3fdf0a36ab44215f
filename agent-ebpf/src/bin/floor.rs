//! Floors: the least that programs on the hooks of the agent can do, for benchmarks to compare
//! with. A second object that is never shipped. It shares the wire types with the agent and no
//! code, so that a change of the agent does not move its floor.
//!
//! Nothing here follows a protocol, numbers records or looks at a socket's family. The reader
//! drains the ring now and then; no record wakes it.
#![no_std]
#![no_main]

use core::ptr;

use agent_common::{Header, Io, io_flags, kind};
use aya_ebpf::bindings::{BPF_RB_NO_WAKEUP, BPF_SK_STORAGE_GET_F_CREATE};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_ktime_get_ns, bpf_probe_read_user,
    bpf_sk_storage_get, bpf_task_pt_regs,
};
use aya_ebpf::macros::{btf_map, btf_tracepoint, map, raw_tracepoint};
use aya_ebpf::maps::{Array, HashMap, RingBuf};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};

/// Payload of an event, whatever the operation's length: the event has 256 bytes.
const PAYLOAD: usize = 192;
/// How much of a request waits for its answer.
const KEPT: usize = 128;

#[repr(C)]
struct Event<const N: usize> {
    io: Io,
    payload: [u8; N],
}

/// A request that waits for its answer.
#[repr(C)]
struct Kept {
    len: u64,
    payload: [u8; KEPT],
}

/// The processes whose operations are told, by tgid.
#[map(name = "TARGETS")]
static TARGETS: HashMap<u32, u32> = HashMap::with_max_entries(16384, 0);

#[map(name = "RING")]
static RING: RingBuf = RingBuf::with_byte_size(16 << 20, 0);

/// One word: records that found the ring full.
#[map(name = "LOST")]
static LOST: Array<u64> = Array::with_max_entries(1, 0);

#[btf_map(name = "REQUESTS")]
static REQUESTS: SkStorage<Kept> = SkStorage::new();

/// The one process that the `exchange` programs tell of. Overridden at load time.
#[unsafe(no_mangle)]
static TARGET: u32 = 0;

/// Hook: `tp_btf/sock_send_length`. Nothing.
#[btf_tracepoint(function = "sock_send_length")]
pub fn empty_send(_: BtfTracePointContext) -> i32 {
    0
}

/// Hook: `tp_btf/sock_recv_length`. Nothing.
#[btf_tracepoint(function = "sock_recv_length")]
pub fn empty_recv(_: BtfTracePointContext) -> i32 {
    0
}

/// Hook: `raw_tp/sys_enter`. Nothing.
#[raw_tracepoint]
pub fn empty_sys_enter(_: RawTracePointContext) -> i32 {
    0
}

/// Hook: `raw_tp/sys_exit`. Nothing.
#[raw_tracepoint]
pub fn empty_sys_exit(_: RawTracePointContext) -> i32 {
    0
}

/// Hook: `tp_btf/sock_send_length`. An event for every send of the targets; a miss costs one hash
/// lookup.
#[btf_tracepoint(function = "sock_send_length")]
pub fn event_send(ctx: BtfTracePointContext) -> i32 {
    event(ctx.arg(0), ctx.arg(1), io_flags::OUTBOUND);
    0
}

/// Hook: `tp_btf/sock_recv_length`. As [`event_send`].
#[btf_tracepoint(function = "sock_recv_length")]
pub fn event_recv(ctx: BtfTracePointContext) -> i32 {
    event(ctx.arg(0), ctx.arg(1), 0);
    0
}

/// Hook: `tp_btf/sock_recv_length`. Keeps the first bytes of what was read with the socket.
#[btf_tracepoint(function = "sock_recv_length")]
pub fn exchange_recv(ctx: BtfTracePointContext) -> i32 {
    let bytes: i32 = ctx.arg(1);
    if bytes <= 0 || ids() >> 32 != target() {
        return 0;
    }
    let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    let Some(kept) = kept(ctx.arg(0), create) else { return 0 };
    let (_, base) = buffer();
    kept.len = bytes as u64;
    let to = kept.payload.as_mut_ptr().cast();
    // SAFETY: the buffer has that many bytes; the helper fails instead of faulting.
    unsafe { bpf_probe_read_user(to, KEPT as u32, base as *const _) };
    0
}

/// Hook: `tp_btf/sock_send_length`. The first send after a read tells what was read.
#[btf_tracepoint(function = "sock_send_length")]
pub fn exchange_send(ctx: BtfTracePointContext) -> i32 {
    let bytes: i32 = ctx.arg(1);
    let ids = ids();
    if bytes <= 0 || ids >> 32 != target() {
        return 0;
    }
    let sk: *const u8 = ctx.arg(0);
    let Some(kept) = kept(sk, 0) else { return 0 };
    if kept.len == 0 {
        return 0;
    }
    let Some(mut entry) = RING.reserve::<Event<KEPT>>(0) else {
        lost();
        return 0;
    };
    let event = entry.as_mut_ptr();
    let io = describe(sk, ids, kept.len as i32, io_flags::OUTBOUND, 0, KEPT);
    // SAFETY: reserved memory of this type.
    unsafe { (&raw mut (*event).io).write(io) };
    // SAFETY: as above; the two do not overlap.
    unsafe { (&raw mut (*event).payload).write(kept.payload) };
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    kept.len = 0;
    0
}

#[inline(always)]
fn event(sk: *const u8, bytes: i32, flags: u8) {
    if bytes <= 0 {
        return;
    }
    let ids = ids();
    if TARGETS.get_ptr(&((ids >> 32) as u32)).is_none() {
        return;
    }
    let Some(mut entry) = RING.reserve::<Event<PAYLOAD>>(0) else {
        lost();
        return;
    };
    let (number, base) = buffer();
    let event = entry.as_mut_ptr();
    let io = describe(sk, ids, bytes, flags, number, PAYLOAD);
    // SAFETY: reserved memory of this type.
    unsafe { (&raw mut (*event).io).write(io) };
    // SAFETY: as above.
    let to = unsafe { &raw mut (*event).payload };
    // SAFETY: the field has that many bytes; the helper fails instead of faulting, and fills it
    // with zeroes then.
    unsafe { bpf_probe_read_user(to.cast(), PAYLOAD as u32, base as *const _) };
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// The event's fixed part, from what one load each can tell.
#[inline(always)]
fn describe(sk: *const u8, ids: u64, bytes: i32, flags: u8, number: u32, copied: usize) -> Io {
    // SAFETY: takes no arguments.
    let ts_ns = unsafe { bpf_ktime_get_ns() };
    let header = Header { kind: kind::IO, flags, cpu: 0, cpu_seq: 0, ts_ns };
    // `struct sock_common` has begun with addresses, a hash and ports since Linux 3.8. A floor may
    // rely on that: the verifier lets it read nothing but the socket, whatever lies there.
    let addresses = load::<u64>(sk, 0);
    let ports = load::<u32>(sk, 12);
    Io {
        header,
        socket: sk as u64,
        tgid: (ids >> 32) as u32,
        tid: ids as u32,
        task: addresses,
        len: bytes as u32,
        op: ports,
        tcp_seq: 0,
        segment_age_ns: 0,
        copied: copied as u16,
        task_kind: 0,
        task_flags: 0,
        task_seq: number,
    }
}

#[inline(always)]
fn ids() -> u64 {
    // SAFETY: takes no arguments.
    unsafe { bpf_get_current_pid_tgid() }
}

#[inline(always)]
fn target() -> u64 {
    // SAFETY: a static that lives as long as the program; volatile, since the loader changes it.
    u64::from(unsafe { ptr::read_volatile(&raw const TARGET) })
}

/// What is kept with the socket.
#[inline(always)]
fn kept(sk: *const u8, flags: u64) -> Option<&'static mut Kept> {
    let map = (&raw const REQUESTS).cast_mut().cast();
    // SAFETY: `sk` is the tracepoint's typed argument; a null value means zeroes.
    let kept = unsafe { bpf_sk_storage_get(map, sk.cast_mut().cast(), ptr::null_mut(), flags) };
    // SAFETY: storage lives as long as the socket, which lives while the program runs.
    unsafe { kept.cast::<Kept>().as_mut() }
}

/// Counts a record that found the ring full. Two CPUs may count one loss as one: any loss at all
/// spoils a measurement.
#[inline(always)]
fn lost() {
    if let Some(count) = LOST.get_ptr_mut(0) {
        // SAFETY: a map value, alive while the program runs.
        unsafe { ptr::write_volatile(count, ptr::read_volatile(count) + 1) };
    }
}

/// The syscall's number and the address of its first buffer, 0 if it has none in this memory.
#[inline(always)]
fn buffer() -> (u32, u64) {
    // SAFETY: takes no arguments; returns the running task.
    let task = unsafe { bpf_get_current_task_btf() };
    // SAFETY: the running task's registers are saved while it is in the kernel.
    let regs = unsafe { bpf_task_pt_regs(task) } as *const u8;
    let number = load::<u64>(regs, registers::NUMBER) as u32;
    let second = load::<u64>(regs, registers::SECOND);
    let base = match number {
        registers::READ | registers::WRITE | registers::SENDTO | registers::RECVFROM => second,
        registers::READV | registers::WRITEV => word(second),
        registers::SENDMSG | registers::RECVMSG => word(word(second + MSG_IOV)),
        _ => 0,
    };
    (number, base)
}

/// Offset of `msg_iov` in `struct msghdr` (UAPI).
const MSG_IOV: u64 = 16;

/// A word of user memory, 0 if it cannot be read.
#[inline(always)]
fn word(at: u64) -> u64 {
    let mut value = 0u64;
    let to = (&raw mut value).cast();
    // SAFETY: `value` has eight bytes; the helper fails instead of faulting.
    unsafe { bpf_probe_read_user(to, 8, at as *const _) };
    value
}

/// Loads through a pointer that the verifier knows the type of.
#[inline(always)]
fn load<T: Copy>(base: *const u8, offset: usize) -> T {
    // SAFETY: the verifier checks the access against the type behind `base`.
    unsafe { ptr::read_volatile(base.add(offset).cast::<T>()) }
}

#[cfg(bpf_target_arch = "x86_64")]
mod registers {
    pub const NUMBER: usize = 15 * 8;
    pub const SECOND: usize = 13 * 8;
    pub const READ: u32 = 0;
    pub const WRITE: u32 = 1;
    pub const READV: u32 = 19;
    pub const WRITEV: u32 = 20;
    pub const SENDTO: u32 = 44;
    pub const RECVFROM: u32 = 45;
    pub const SENDMSG: u32 = 46;
    pub const RECVMSG: u32 = 47;
}

#[cfg(bpf_target_arch = "aarch64")]
mod registers {
    pub const NUMBER: usize = 35 * 8;
    pub const SECOND: usize = 8;
    pub const READ: u32 = 63;
    pub const WRITE: u32 = 64;
    pub const READV: u32 = 65;
    pub const WRITEV: u32 = 66;
    pub const SENDTO: u32 = 206;
    pub const RECVFROM: u32 = 207;
    pub const SENDMSG: u32 = 211;
    pub const RECVMSG: u32 = 212;
}

/// GPL for the helpers, Apache or MIT for the reader.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
