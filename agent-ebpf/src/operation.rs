//! One socket operation of a selected process: filter, identify, copy, emit.

use agent_common::{Io, counter, goroutine_flags, io_flags, kind as record, select, task_kind};
use aya_ebpf::helpers::generated::bpf_get_current_task_btf;

use crate::emit::Slot;
use crate::nethttp::Caller;
use crate::opaque::opaque;
use crate::process::Ids;
use crate::sock::Sock;
use crate::syscall::{Buffer, Syscall};
use crate::{emit, nethttp, nginx, payload, process, socket, task};

/// Which way bytes move.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Into the process.
    Inbound,
    /// Out of the process.
    Outbound,
}

/// What an operation did.
#[derive(Clone, Copy)]
pub struct Moved {
    /// Bytes, or a negative errno.
    pub bytes: i32,
    /// `MSG_*` of a receiving operation, 0 of a sending one.
    pub flags: i32,
    /// Which way.
    pub way: Way,
    /// The program that saw it.
    pub slot: Slot,
    /// Who has done it.
    pub me: Ids,
}

/// `MSG_OOB`, `MSG_PEEK` and `MSG_ERRQUEUE`: nothing moved along the stream.
const NOT_STREAM: i32 = 0x1 | 0x2 | 0x2000;
/// `MSG_TRUNC`: on TCP the bytes were thrown away, the buffer holds something else.
const MSG_TRUNC: i32 = 0x20;
/// `MSG_DONTWAIT`: the kernel sets it when the descriptor is in non-blocking mode.
pub const MSG_DONTWAIT: i32 = 0x40;

/// Errors that say nothing about the connection: `EINTR`, `EAGAIN`, `ENOMEM`, `EFAULT`, `EINVAL`,
/// and what the kernel restarts a syscall with (`ERESTARTSYS` to `ERESTART_RESTARTBLOCK`).
const fn is_passing(errno: i32) -> bool {
    matches!(errno, 4 | 11 | 12 | 14 | 22 | 512..=516)
}

/// Whether an operation found nothing to do: half of those of whoever reads until that happens. The
/// first thing to ask, before who does it.
#[inline(always)]
pub fn is_to_wait(bytes: i32) -> bool {
    bytes == -EAGAIN
}

const EAGAIN: i32 = 11;

/// Whether a stream may have changed: a first look that needs no memory.
#[inline(always)]
pub fn says_something(bytes: i32, flags: i32, way: Way) -> bool {
    if bytes <= 0 && (is_passing(-bytes) || (bytes == 0 && way == Way::Outbound)) {
        return false;
    }
    flags & NOT_STREAM == 0
}

/// Called after a socket operation. `syscall` says where its bytes are; it is asked only about
/// operations that are told, and is given the running task, typed.
#[inline(always)]
pub fn on_io<S: Sock>(sock: S, moved: Moved, syscall: impl FnOnce(*const u8) -> Syscall) {
    let Moved { bytes, flags: message_flags, way, slot, me } = moved;
    if !says_something(bytes, message_flags, way) {
        return;
    }
    let tgid = me.tgid();
    let Some(scratch) = emit::scratch(slot) else { return };
    // A copy: what is written below may lie anywhere in the scratch, as far as the compiler knows.
    let Some(&selected) = process::known(scratch, tgid) else { return };
    if !socket::is_stream(sock) || !sock.has_file() {
        return;
    }
    // SAFETY: takes no arguments; returns the running task.
    let running = unsafe { bpf_get_current_task_btf() } as *const u8;
    let syscall = syscall(running);
    let Syscall { fd, buffer, asks_nothing, .. } = syscall;
    if bytes == 0 && (asks_nothing || !socket::is_at_end(sock)) {
        return;
    }
    let Some(state) = socket::state(sock, &moved) else { return };

    let mut flags = if way == Way::Outbound { io_flags::OUTBOUND } else { 0 };
    if message_flags & MSG_DONTWAIT != 0 {
        flags |= io_flags::NONBLOCKING;
    }
    if socket::is_over(sock) {
        flags |= io_flags::OVER;
    }
    let mut tcp_seq = 0;
    let mut segment_age_ns = u32::MAX;
    if let Some(position) = socket::tcp_position(sock, way) {
        segment_age_ns = position.segment_age_ns;
        if let Some(seq) = position.seq {
            tcp_seq = seq;
            flags |= io_flags::TCP_SEQ;
        }
    }
    let mut copied = 0;
    let mut len = bytes as u32;
    if bytes < 0 {
        flags |= io_flags::ERROR | io_flags::NO_PAYLOAD;
        len = bytes.unsigned_abs();
    } else if bytes == 0 {
        flags |= io_flags::END | io_flags::NO_PAYLOAD;
    } else {
        let buffer = if message_flags & MSG_TRUNC != 0 { Buffer::Unknown } else { buffer };
        let result = payload::copy(slot, scratch, buffer, len, selected.payload_limit);
        copied = result.bytes;
        if result.suffix {
            flags |= io_flags::SUFFIX;
        }
        if !result.readable {
            flags |= io_flags::NO_PAYLOAD;
            emit::count(match buffer {
                Buffer::IoUring => counter::IO_URING,
                Buffer::Compat => counter::COMPAT,
                _ => counter::UNREADABLE,
            });
        }
    }
    let g = task::g_in(&syscall, running, &selected);
    let (mut kind, mut task) = task::current(g, &selected);
    let (mut task_flags, mut task_seq) = (0, 0);
    let is_nginx = selected.bits & select::NGINX != 0;
    let is_goroutine = kind == task_kind::GOROUTINE;
    // Every method that anybody uses begins with a capital letter, and so does every answer.
    if (is_nginx || is_goroutine) && copied > 0 && scratch.first_byte().is_ascii_uppercase() {
        let asks = way == Way::Outbound && state.accepted == 0;
        if is_goroutine && (asks || state.asks != 0) {
            let caller = nethttp::caller(g, &selected, fd);
            state.asks = u16::from(asks && matches!(caller, Caller::Unknown));
            if let Caller::Other(goid) = caller {
                (task, task_flags) = (goid, goroutine_flags::CALLER);
            } else if !asks {
                emit::count(counter::GO_UNPROVED);
            }
        } else if is_nginx && asks {
            if let Some(behalf) = nginx::behalf(sock, state, (tgid, fd), slot, scratch) {
                (kind, task, task_flags, task_seq) = behalf;
            }
        }
    }
    let header = emit::header(slot, record::IO, flags);
    scratch.io = Io {
        header,
        socket: state.id,
        tgid,
        tid: me.tid(),
        task,
        len,
        op: state.next_op(),
        tcp_seq,
        segment_age_ns,
        copied: copied as u16,
        task_kind: kind,
        task_flags,
        task_seq,
    };
    // Linux 6.1 forgets what it knew of it on the way to here, and the compiler does not.
    let copied = opaque(u64::from(copied)) & (emit::PAYLOAD_MAX as u64 * 2 - 1);
    let bytes = size_of::<Io>() as u64 + copied;
    let record = (&raw mut scratch.io).cast::<u8>();
    // SAFETY: `io` and the payload behind it are one map value, longer than `bytes`.
    if !unsafe { emit::write(record, bytes, header.cpu_seq, false) } {
        process::lost(tgid);
    }
}
