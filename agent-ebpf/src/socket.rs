//! What a socket is: its ends, its role, its place in the TCP stream, its close.

use core::ptr;

use agent_common::{Socket, counter, family, kind, socket_flags};
use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_jiffies64};

use crate::emit::{self, Slot};
use crate::offsets::offset;
use crate::opaque::opaque;
use crate::operation::{Moved, Way};
use crate::sock::{Found, Sock, State};
use crate::{process, syscall};

const SOCK_STREAM: u16 = 1;
const TCP_ESTABLISHED: i32 = 1;
const TCP_SYN_SENT: i32 = 2;
const TCP_SYN_RECV: i32 = 3;
const TCP_FIN_WAIT1: i32 = 4;
const TCP_CLOSE: i32 = 7;
const TCP_LAST_ACK: i32 = 9;
const TCP_LISTEN: i32 = 10;
/// `RCV_SHUTDOWN`: nothing more will come.
const RCV_SHUTDOWN: u8 = 1;
/// `1 << SOCK_DONE` of `enum sock_flags`: a FIN has come. (After a reset, or a shutdown(2) of the process's
/// own, nothing more comes either.)
const SOCK_DONE: u64 = 1 << 1;
/// `SHUTDOWN_MASK`: nor go. The kernel sets both when it begins to close a socket for its process,
/// or has lost its peer.
const SHUTDOWN_MASK: u8 = 3;

/// Whether this is a TCP or Unix stream socket.
#[inline(always)]
pub fn is_stream(sock: impl Sock) -> bool {
    let family = sock.load::<u16>(offset!(skc_family));
    if family != family::INET && family != family::INET6 && family != family::UNIX {
        return false;
    }
    sock.load::<u16>(offset!(sk_type)) == SOCK_STREAM
}

/// Whether a read that returned nothing has found the end, instead of having asked for nothing.
#[inline(always)]
pub fn is_at_end(sock: impl Sock) -> bool {
    sock.load::<u8>(offset!(sk_shutdown)) & RCV_SHUTDOWN != 0
}

/// Whether nothing moves any more in either direction.
#[inline(always)]
pub fn is_over(sock: impl Sock) -> bool {
    sock.load::<u8>(offset!(sk_shutdown)) & SHUTDOWN_MASK == SHUTDOWN_MASK
}

/// The socket's state, made and told at first sight, after this operation.
#[inline(always)]
pub fn state<S: Sock>(sock: S, moved: &Moved) -> Option<&'static mut State> {
    let Some((state, before)) = sock.state() else {
        emit::count(counter::NO_STORAGE);
        process::lost(moved.me.tgid());
        return None;
    };
    if before != 0 {
        replace(sock, before, moved.slot);
    }
    if state.told != moved.me.tgid() {
        introduce(sock, state, moved);
    }
    Some(state)
}

/// Tells that the socket `before` this one has gone. Not a part of [`introduce`]: with two records in one frame
/// it and its caller have more than the 512 bytes of stack that there are for both.
#[inline(never)]
fn replace<S: Sock>(sock: S, before: u64, slot: Slot) {
    tell(sock, slot, kind::CLOSE, 0, before, ([0; 2], [0; 2]));
}

/// Tells what a socket is. Not on the way of every operation: what these run should lie close together.
#[inline(never)]
fn introduce<S: Sock>(sock: S, state: &mut State, moved: &Moved) {
    let is_unix = sock.load::<u16>(offset!(skc_family)) == family::UNIX;
    if state.told != 0 && !is_unix {
        state.told = moved.me.tgid();
        return;
    }
    // Of a Unix socket nothing tells that it is closed. It was taken to be when the process ended that had
    // used it, but another one may have it.
    let mut flags = role(sock);
    let mut from = [0; 2];
    if is_unix {
        from[0] = state.op();
    }
    if let Some(tcp) = sock.as_tcp() {
        if is_older(tcp, moved.bytes) {
            flags |= socket_flags::OLDER;
        }
        if tcp.load::<u64>(offset!(tcp_ulp_ops)) == 0 {
            let bytes = if moved.bytes > 0 { moved.bytes as u32 } else { 0 };
            let (read, written) = match moved.way {
                Way::Inbound => (bytes, 0),
                Way::Outbound => (0, bytes),
            };
            from[0] = read_position(tcp).wrapping_sub(read);
            from[1] = tcp.load::<u32>(offset!(tcp_write_seq)).wrapping_sub(written);
            flags |= socket_flags::FROM;
        }
    }
    state.accepted = u16::from(flags & socket_flags::ACCEPTED != 0);
    let words = [moved.me.tgid(), netns(sock)];
    if tell(sock, moved.slot, kind::SOCKET, flags, state.id, (words, from)) {
        state.told = moved.me.tgid();
    } else {
        process::lost(moved.me.tgid());
    }
}

/// Who began the connection, as far as the kernel remembers.
#[inline(always)]
fn role(sock: impl Sock) -> u8 {
    if sock.load::<u16>(offset!(skc_family)) != family::UNIX {
        // A socket that was accepted is a copy of the one that listened, backlog included; a fresh
        // one has none.
        return if sock.load::<u32>(offset!(sk_max_ack_backlog)) != 0 {
            socket_flags::ACCEPTED
        } else {
            socket_flags::CONNECTED
        };
    }
    // An accepted Unix socket takes over the listener's name; the other end rarely has one. Two
    // named ends, or none (socketpair), tell nothing.
    let Some(unix) = sock.as_unix() else { return 0 };
    let peer = unix.load::<u64>(offset!(unix_peer));
    if peer == 0 {
        return 0;
    }
    let named = unix.load::<u64>(offset!(unix_addr)) != 0;
    let peer_named = Found::new(peer as *const u8, 0).load::<u64>(offset!(unix_addr)) != 0;
    match (named, peer_named) {
        (true, false) => socket_flags::ACCEPTED,
        (false, true) => socket_flags::CONNECTED,
        _ => 0,
    }
}

/// Where in the TCP stream the process has read to; `None` for sockets that are not plain TCP.
#[inline(always)]
pub fn read_to(sock: Found) -> Option<u32> {
    let tcp = sock.as_tcp()?;
    let is_layered = tcp.load::<u64>(offset!(tcp_ulp_ops)) != 0;
    if is_layered { None } else { Some(tcp.load(offset!(tcp_copied_seq))) }
}

/// Whether bytes had moved, either way, before the `moved` ones.
#[inline(always)]
fn is_older(tcp: impl Sock, moved: i32) -> bool {
    let Totals { read, written } = totals(tcp);
    let moved = if moved > 0 { moved as u64 } else { 0 };
    let before = read.wrapping_add(written).wrapping_sub(moved);
    // SYN and FIN are counted with the bytes in some states, and bytes may arrive between these
    // reads, which lowers the sum.
    before as i64 > SLACK
}

/// Bytes that have moved over a socket.
struct Totals {
    read: u64,
    written: u64,
}

#[inline(always)]
fn totals(tcp: impl Sock) -> Totals {
    let word = |offset| u64::from(tcp.load::<u32>(offset));
    let unread = word(offset!(tcp_rcv_nxt)).wrapping_sub(word(offset!(tcp_copied_seq))) as u32;
    let unacked = word(offset!(tcp_write_seq)).wrapping_sub(word(offset!(tcp_snd_una))) as u32;
    Totals {
        read: tcp.load::<u64>(offset!(tcp_bytes_received)).wrapping_sub(u64::from(unread)),
        written: tcp.load::<u64>(offset!(tcp_bytes_acked)).wrapping_add(u64::from(unacked)),
    }
}

/// What SYN and FIN of both directions can add up to.
const SLACK: i64 = 4;

/// Where an operation ended in the TCP stream.
pub struct Position {
    /// Sequence number behind the last byte moved; `None` where what the process moves is not what
    /// TCP moves (kernel TLS).
    pub seq: Option<u32>,
    /// How long, at least, before a read the last data had come, nanoseconds; `u32::MAX` if that is not known.
    pub segment_age_ns: u32,
}

/// The socket's position; `None` for sockets that are not plain TCP.
#[inline(always)]
pub fn tcp_position(sock: impl Sock, way: Way) -> Option<Position> {
    let tcp = sock.as_tcp()?;
    let seq = match way {
        Way::Outbound => tcp.load::<u32>(offset!(tcp_write_seq)),
        Way::Inbound => read_position(tcp),
    };
    let layered = tcp.load::<u64>(offset!(tcp_ulp_ops)) != 0;
    let segment_age_ns = if way == Way::Inbound { age_of_last(tcp) } else { u32::MAX };
    Some(Position { seq: if layered { None } else { Some(seq) }, segment_age_ns })
}

/// By the kernel's ticks: what it knows of more precisely is that of the read itself, which looks at the clock
/// (`tcp_rcv_space_adjust`).
#[inline(always)]
fn age_of_last(tcp: impl Sock) -> u32 {
    // SAFETY: takes no arguments.
    let now = unsafe { bpf_jiffies64() } as u32;
    let ticks = now.wrapping_sub(tcp.load::<u32>(offset!(tcp_last_received)));
    if ticks > u32::MAX / 2 {
        return u32::MAX;
    }
    // Of the first tick nearly nothing may have passed.
    let ns = u64::from(ticks.saturating_sub(1)) * offset!(tick_ns) as u64;
    if ns < u64::from(u32::MAX) { ns as u32 } else { u32::MAX - 1 }
}

/// Where the next byte to be read stands. The peer's FIN, which the kernel counts with the last bytes that it
/// hands out, is none.
#[inline(always)]
fn read_position(tcp: impl Sock) -> u32 {
    let seq = tcp.load::<u32>(offset!(tcp_copied_seq));
    // It is the last that came.
    let has_fin = tcp.load::<u64>(offset!(skc_flags)) & SOCK_DONE != 0
        && tcp.load::<u32>(offset!(tcp_rcv_nxt)) == seq;
    seq.wrapping_sub(u32::from(has_fin))
}

/// `inet_sock_set_state(sk, old, new)`. Runs in any context: the current task means something only
/// for a listen.
#[inline(always)]
pub fn on_state(sock: impl Sock, new: i32) {
    if new == TCP_LISTEN {
        // SAFETY: takes no arguments.
        let tgid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
        if process::listens(tgid, sock.load::<u16>(offset!(skc_num))) {
            tell(sock, Slot::STATE, kind::LISTEN, 0, 0, ([tgid, netns(sock)], [0; 2]));
        }
        return;
    }
    if new == TCP_SYN_SENT || new == TCP_SYN_RECV {
        sock.begins(new == TCP_SYN_RECV);
        return;
    }
    if new == TCP_ESTABLISHED || (new != TCP_FIN_WAIT1 && new != TCP_LAST_ACK && new != TCP_CLOSE) {
        return;
    }
    let Some(state) = sock.known() else { return };
    // A connection that was reset still has its descriptor, by which the process will learn of it.
    let has_descriptor = sock.load::<u64>(offset!(sk_socket)) != 0;
    if state.told != 0 {
        let kind = if new == TCP_CLOSE { kind::CLOSE } else { kind::SHUTDOWN };
        let held = new == TCP_CLOSE && has_descriptor && !is_over(sock);
        let last = last(sock, new);
        let flags = last.flags | if held { socket_flags::HELD } else { 0 };
        let words = [last.read_to, last.written_to];
        tell(sock, Slot::STATE, kind, flags, state.id, (words, [0; 2]));
    }
    if new == TCP_CLOSE && !has_descriptor {
        sock.forget();
    }
}

/// `tcp_destroy_sock(sk)`: nobody will use it any more, and its state has not gone yet if the process still had
/// it when the connection was over.
#[inline(always)]
pub fn on_destroy(sock: impl Sock) {
    sock.forget();
}

/// How far a process had come with a socket that it closes: what was not seen of it, is seen by that.
struct Last {
    /// Which of the following is told, and whether anything had moved.
    flags: u8,
    read_to: u32,
    written_to: u32,
}

/// Tells nothing unless the process closes this socket now, which has no operation under way by then, as it
/// may have when it is only shut down. (Of a [`Found`] one no position is told: its operations are seen by
/// their syscalls' ends, which nothing hides.)
#[inline(always)]
fn last<S: Sock>(sock: S, new: i32) -> Last {
    let mut last = Last { flags: 0, read_to: 0, written_to: 0 };
    if !is_over(sock) || syscall::is_shutdown() {
        return last;
    }
    let Some(tcp) = sock.as_tcp() else { return last };
    let Totals { read, written } = totals(tcp);
    if read as i64 > SLACK {
        last.flags |= socket_flags::READ;
    }
    if written as i64 > SLACK {
        last.flags |= socket_flags::WRITTEN;
    }
    if !S::IS_TYPED || tcp.load::<u64>(offset!(tcp_ulp_ops)) != 0 {
        return last;
    }
    let mut read_to = tcp.load::<u32>(offset!(tcp_copied_seq));
    let behind = tcp.load::<u32>(offset!(tcp_rcv_nxt)).wrapping_sub(1);
    // The peer's FIN is no byte that was read. (Nor is it there if there are bytes that were not.)
    if new != TCP_FIN_WAIT1 && behind.wrapping_sub(read_to) as i32 == -1 {
        read_to = behind;
    }
    last.flags |= socket_flags::READ_TO;
    last.read_to = read_to;
    // Its own FIN is not counted yet in these states.
    if new == TCP_FIN_WAIT1 || new == TCP_LAST_ACK {
        last.flags |= socket_flags::WRITTEN_TO;
        last.written_to = tcp.load::<u32>(offset!(tcp_write_seq));
    }
    last
}

/// The inode of a socket's network namespace.
#[inline(always)]
fn netns(sock: impl Sock) -> u32 {
    // By address: where the verifier follows a typed pointer to another one, it looks through the names
    // of all the kernel's types, a millisecond for each way that leads here.
    let address = Found::new(sock.address() as *const u8, 0);
    address.follow(offset!(skc_net)).load::<u32>(offset!(net_inum))
}

/// Writes a `Socket` record; `words` are its `tgid` and `netns`, and its `from`. False if it was lost.
#[inline(always)]
fn tell(
    sock: impl Sock,
    slot: Slot,
    kind: u8,
    flags: u8,
    id: u64,
    words: ([u32; 2], [u32; 2]),
) -> bool {
    let ([tgid, netns], from) = words;
    let header = emit::header(slot, kind, flags);
    let family = sock.load::<u16>(offset!(skc_family));
    // Filled in where it lies: what is put together first takes its room on the stack twice. Linux 6.1 tells a
    // zero that is stored as such from what a register has, and goes on by each way then.
    let zero = opaque(0);
    let mut record = Socket {
        header,
        socket: id,
        tgid,
        netns,
        local: [zero; 2],
        remote: [zero; 2],
        local_port: 0,
        remote_port: 0,
        family,
        pad: 0,
        from,
    };
    match family {
        family::INET => {
            record.local = mapped_v4(sock.load::<u32>(offset!(skc_rcv_saddr)));
            record.remote = mapped_v4(sock.load::<u32>(offset!(skc_daddr)));
        }
        family::INET6 => {
            record.local = load_v6(sock, offset!(skc_v6_rcv_saddr));
            record.remote = load_v6(sock, offset!(skc_v6_daddr));
        }
        _ => {
            let unix = sock.as_unix();
            record.local[0] = sock.address();
            record.remote[0] = unix.map_or(0, |unix| unix.load::<u64>(offset!(unix_peer)));
        }
    }
    if family != family::UNIX {
        let mut port = sock.load::<u16>(offset!(skc_num));
        if port == 0 {
            // A connection that was reset has given its port back, but remembers which it was.
            let address = Found::new(sock.address() as *const u8, 0);
            port = u16::from_be(address.load::<u16>(offset!(inet_sport)));
        }
        record.local_port = port;
        record.remote_port = u16::from_be(sock.load::<u16>(offset!(skc_dport)));
    }
    let now = kind == kind::LISTEN;
    let at = ptr::from_mut(&mut record).cast::<u8>();
    // SAFETY: `at` is the whole record, on the stack.
    unsafe { emit::write(at, size_of::<Socket>() as u64, header.cpu_seq, now) }
}

#[inline(always)]
fn load_v6(sock: impl Sock, offset: usize) -> [u64; 2] {
    // Four loads: `in6_addr` is aligned to four only.
    let word = |index: usize| sock.load::<u32>(offset + 4 * index);
    let pair = |low: u32, high: u32| u64::from(low) | (u64::from(high) << 32);
    [pair(word(0), word(1)), pair(word(2), word(3))]
}

/// An IPv4 address (network order in memory) as an IPv4-mapped IPv6 address.
#[inline(always)]
fn mapped_v4(address: u32) -> [u64; 2] {
    [opaque(0), u64::from(address) << 32 | 0xffff_0000]
}
