//! One socket operation of a selected process: filter, identify, copy, emit.

use agent_common::{Io, counter, io_flags, kind, task_kind};
use aya_ebpf::helpers::generated::bpf_get_current_pid_tgid;

use crate::syscall::{Buffer, Syscall};
use crate::{emit, payload, process, socket, syscall};

/// Which way bytes move.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Into the process.
    Inbound,
    /// Out of the process.
    Outbound,
}

const EAGAIN: i32 = 11;
/// `MSG_OOB`, `MSG_PEEK` and `MSG_ERRQUEUE`: nothing moved along the stream.
const NOT_STREAM: i32 = 0x1 | 0x2 | 0x2000;
/// `MSG_TRUNC`: on TCP the bytes were thrown away, the buffer holds something else.
const MSG_TRUNC: i32 = 0x20;
/// `MSG_DONTWAIT`: the kernel sets it when the descriptor is in non-blocking mode.
const MSG_DONTWAIT: i32 = 0x40;

/// Called after a socket operation that returned `ret`.
#[inline(always)]
pub fn on_io(sk: *const u8, ret: i32, message_flags: i32, way: Way) {
    if ret == -EAGAIN || (way == Way::Outbound && ret == 0) || message_flags & NOT_STREAM != 0 {
        return;
    }
    // SAFETY: takes no arguments.
    let pid_tgid = unsafe { bpf_get_current_pid_tgid() };
    let tgid = (pid_tgid >> 32) as u32;
    let Some(selected) = process::selected(tgid) else { return };
    if !socket::is_stream(sk) {
        return;
    }
    let Some(state) = socket::state(sk, tgid, selected) else { return };

    let mut flags = if way == Way::Outbound { io_flags::OUTBOUND } else { 0 };
    if message_flags & MSG_DONTWAIT != 0 {
        flags |= io_flags::NONBLOCKING;
    }
    let (tcp_seq, segment_ns) = match socket::tcp_position(sk, way) {
        Some(position) => {
            flags |= io_flags::TCP_SEQ;
            position
        }
        None => (0, 0),
    };
    let Some(scratch) = emit::scratch() else { return };
    let mut copied = 0;
    let mut number = 0;
    let mut len = ret as u32;
    if ret < 0 {
        flags |= io_flags::ERROR | io_flags::NO_PAYLOAD;
        len = ret.unsigned_abs();
    } else if ret == 0 {
        flags |= io_flags::END | io_flags::NO_PAYLOAD;
    } else {
        let Syscall { number: syscall_number, buffer } = syscall::current(way);
        number = syscall_number;
        let buffer = if message_flags & MSG_TRUNC != 0 { Buffer::Unknown } else { buffer };
        let limit = process::payload_limit(selected);
        let result = payload::copy(scratch, buffer, len, limit);
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
    let header = emit::header(kind::IO, flags);
    let age = header.ts_ns.saturating_sub(segment_ns);
    let segment_age_ns = if age > u64::from(u32::MAX) { u32::MAX } else { age as u32 };
    scratch.io = Io {
        header,
        socket: state.id,
        tgid,
        tid: pid_tgid as u32,
        task: 0,
        len,
        op: state.next_op(),
        tcp_seq,
        segment_age_ns,
        copied: copied as u16,
        task_kind: task_kind::THREAD,
        pad: 0,
        syscall: number,
    };
    let copied = u64::from(copied) & (emit::PAYLOAD_MAX as u64 * 2 - 1);
    let bytes = size_of::<Io>() as u64 + copied;
    let record = (&raw mut scratch.io).cast::<u8>();
    // SAFETY: `io` and the payload behind it are one map value, longer than `bytes`.
    if !unsafe { emit::write(record, bytes, header.cpu_seq, false) } {
        emit::lost(selected);
    }
}
