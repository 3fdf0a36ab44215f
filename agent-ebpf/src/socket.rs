//! What a socket is: its id, its ends, its place in the TCP stream, its close.

use core::ptr;

use agent_common::{Selected, Socket, counter, family, kind};
use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_get_socket_cookie, bpf_sk_storage_get, bpf_skc_to_tcp_sock,
    bpf_skc_to_unix_sock,
};
use aya_ebpf::macros::btf_map;

use crate::offsets::{load, offset};
use crate::operation::Way;
use crate::{emit, process};

/// What is kept with a socket until the kernel frees it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct State {
    /// The kernel's cookie: unique while the host is up.
    pub id: u64,
    /// Operations so far, lost ones included.
    op: u32,
    /// Whether its `Socket` record was written.
    told: u32,
}

impl State {
    /// Numbers an operation.
    #[inline(always)]
    pub fn next_op(&mut self) -> u32 {
        let op = self.op;
        self.op = op.wrapping_add(1);
        op
    }
}

#[btf_map(name = "SOCKETS")]
static SOCKETS: SkStorage<State> = SkStorage::new();

const _: () = assert!(BPF_F_NO_PREALLOC == 1);

const SOCK_STREAM: u16 = 1;
const TCP_ESTABLISHED: i32 = 1;
const TCP_FIN_WAIT1: i32 = 4;
const TCP_CLOSE: i32 = 7;
const TCP_LAST_ACK: i32 = 9;
const TCP_LISTEN: i32 = 10;

/// Whether this is a TCP or Unix stream socket.
#[inline(always)]
pub fn is_stream(sk: *const u8) -> bool {
    let family = family_of(sk);
    if family != family::INET && family != family::INET6 && family != family::UNIX {
        return false;
    }
    // SAFETY: typed socket pointer; the verifier checks the offset.
    unsafe { load::<u16>(sk, offset!(sk_type)) == SOCK_STREAM }
}

#[inline(always)]
fn family_of(sk: *const u8) -> u16 {
    // SAFETY: typed socket pointer; the verifier checks the offset.
    unsafe { load::<u16>(sk, offset!(skc_family)) }
}

/// The socket's state, made and told at first sight.
#[inline(always)]
pub fn state(sk: *const u8, tgid: u32, selected: *mut Selected) -> Option<&'static mut State> {
    let Some(state) = storage(sk, u64::from(BPF_SK_STORAGE_GET_F_CREATE)) else {
        emit::count(counter::NO_STORAGE);
        emit::lost(selected);
        return None;
    };
    if state.told == 0 {
        // SAFETY: typed socket pointer.
        state.id = unsafe { bpf_get_socket_cookie(sk.cast_mut().cast()) };
        if tell(sk, kind::SOCKET, state.id, tgid) {
            state.told = 1;
        }
    }
    Some(state)
}

#[inline(always)]
fn storage(sk: *const u8, flags: u64) -> Option<&'static mut State> {
    let map = (&raw const SOCKETS).cast_mut().cast();
    // SAFETY: `sk` is a typed socket pointer; a null value means zeroes.
    let state = unsafe { bpf_sk_storage_get(map, sk.cast_mut().cast(), ptr::null_mut(), flags) };
    let state = state.cast::<State>();
    if state.is_null() {
        return None;
    }
    // SAFETY: storage lives at least as long as the socket, which lives while the program runs.
    Some(unsafe { &mut *state })
}

/// Sequence number behind the last byte moved, and when the last segment passed
/// (`CLOCK_MONOTONIC`, nanoseconds). `None` for sockets that are not plain TCP.
#[inline(always)]
pub fn tcp_position(sk: *const u8, way: Way) -> Option<(u32, u64)> {
    // SAFETY: typed socket pointer.
    let tcp = unsafe { bpf_skc_to_tcp_sock(sk.cast_mut().cast()) } as *const u8;
    if tcp.is_null() {
        return None;
    }
    let seq = match way {
        // SAFETY: typed pointer; the verifier checks the offset.
        Way::Outbound => unsafe { load::<u32>(tcp, offset!(tcp_write_seq)) },
        // SAFETY: as above.
        Way::Inbound => unsafe { load::<u32>(tcp, offset!(tcp_copied_seq)) },
    };
    // SAFETY: as above.
    let segment_ns = unsafe { load::<u64>(tcp, offset!(tcp_clock_cache)) };
    Some((seq, segment_ns))
}

/// `inet_sock_set_state(sk, old, new)`. Runs in any context: the current task means something only
/// for a listen.
#[inline(always)]
pub fn on_state(sk: *const u8, _old: i32, new: i32) {
    if new == TCP_LISTEN {
        // SAFETY: takes no arguments.
        let tgid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
        if process::listens(tgid, port_of(sk)) {
            tell(sk, kind::LISTEN, 0, tgid);
        }
        return;
    }
    if new == TCP_ESTABLISHED || (new != TCP_FIN_WAIT1 && new != TCP_LAST_ACK && new != TCP_CLOSE) {
        return;
    }
    let Some(state) = storage(sk, 0) else { return };
    if state.told != 0 {
        let kind = if new == TCP_CLOSE { kind::CLOSE } else { kind::SHUTDOWN };
        tell(sk, kind, state.id, 0);
    }
}

#[inline(always)]
fn port_of(sk: *const u8) -> u16 {
    // SAFETY: typed socket pointer; the verifier checks the offset.
    unsafe { load::<u16>(sk, offset!(skc_num)) }
}

/// Writes a `Socket` record. False if it was lost.
#[inline(always)]
fn tell(sk: *const u8, kind: u8, id: u64, tgid: u32) -> bool {
    let Some(notice) = emit::notice() else { return false };
    let socket = &mut notice.socket;
    let header = emit::header(kind, 0);
    socket.header = header;
    socket.socket = id;
    socket.tgid = tgid;
    socket.family = family_of(sk);
    socket.local_port = 0;
    socket.remote_port = 0;
    socket.pad = 0;
    // SAFETY: typed socket pointer; the verifier checks the offset.
    let net = unsafe { load::<*const u8>(sk, offset!(skc_net)) };
    // SAFETY: typed pointer loaded from the socket.
    socket.netns = unsafe { load::<u32>(net, offset!(net_inum)) };
    match socket.family {
        family::INET => {
            // SAFETY: typed socket pointer; the verifier checks the offset.
            let local = unsafe { load::<u32>(sk, offset!(skc_rcv_saddr)) };
            // SAFETY: as above.
            let remote = unsafe { load::<u32>(sk, offset!(skc_daddr)) };
            socket.local = mapped_v4(local);
            socket.remote = mapped_v4(remote);
        }
        family::INET6 => {
            // SAFETY: as above.
            socket.local = unsafe { load_v6(sk, offset!(skc_v6_rcv_saddr)) };
            // SAFETY: as above.
            socket.remote = unsafe { load_v6(sk, offset!(skc_v6_daddr)) };
        }
        _ => {
            // SAFETY: typed socket pointer.
            let unix = unsafe { bpf_skc_to_unix_sock(sk.cast_mut().cast()) } as *const u8;
            let mut peer = 0;
            if !unix.is_null() {
                // SAFETY: typed pointer; the verifier checks the offset.
                peer = unsafe { load::<u64>(unix, offset!(unix_peer)) };
            }
            socket.local = [sk as u64, 0];
            socket.remote = [peer, 0];
        }
    }
    if socket.family != family::UNIX {
        socket.local_port = port_of(sk);
        // SAFETY: typed socket pointer; the verifier checks the offset.
        socket.remote_port = u16::from_be(unsafe { load::<u16>(sk, offset!(skc_dport)) });
    }
    let record = (&raw mut *socket).cast::<u8>();
    let now = kind == kind::LISTEN;
    // SAFETY: the record is a whole `Socket` in a map value.
    unsafe { emit::write(record, size_of::<Socket>() as u64, header.cpu_seq, now) }
}

/// # Safety
/// As for [`load`].
#[inline(always)]
unsafe fn load_v6(sk: *const u8, offset: usize) -> [u64; 2] {
    // SAFETY: the caller's promise. Four loads: `in6_addr` is aligned to four only.
    let word = |index: usize| unsafe { load::<u32>(sk, offset + 4 * index) };
    let pair = |low: u32, high: u32| u64::from(low) | (u64::from(high) << 32);
    [pair(word(0), word(1)), pair(word(2), word(3))]
}

/// An IPv4 address (network order in memory) as an IPv4-mapped IPv6 address.
#[inline(always)]
fn mapped_v4(address: u32) -> [u64; 2] {
    [0, u64::from(address) << 32 | 0xffff_0000]
}
