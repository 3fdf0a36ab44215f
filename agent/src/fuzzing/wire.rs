//! Records as the kernel half writes them, from the structs that both halves share.

use agent_common::function::Hit;
use agent_common::{Header, Io, Process, Socket};

/// An operation and its payload.
pub fn io(io: &Io, payload: &[u8]) -> Vec<u8> {
    let mut record = header(&io.header);
    record.extend(io.socket.to_ne_bytes());
    record.extend(io.tgid.to_ne_bytes());
    record.extend(io.tid.to_ne_bytes());
    record.extend(io.task.to_ne_bytes());
    for word in [io.len, io.op, io.tcp_seq, io.segment_age_ns] {
        record.extend(word.to_ne_bytes());
    }
    record.extend(io.copied.to_ne_bytes());
    record.extend([io.task_kind, io.task_flags]);
    record.extend(io.task_seq.to_ne_bytes());
    assert_eq!(record.len(), size_of::<Io>());
    record.extend(payload);
    record
}

/// A socket, its shutdown or its close.
pub fn socket(socket: &Socket) -> Vec<u8> {
    let mut record = header(&socket.header);
    record.extend(socket.socket.to_ne_bytes());
    record.extend(socket.tgid.to_ne_bytes());
    record.extend(socket.netns.to_ne_bytes());
    for word in [socket.local, socket.remote].as_flattened() {
        record.extend(word.to_ne_bytes());
    }
    for half in [socket.local_port, socket.remote_port, socket.family, socket.pad] {
        record.extend(half.to_ne_bytes());
    }
    for word in socket.from {
        record.extend(word.to_ne_bytes());
    }
    assert_eq!(record.len(), size_of::<Socket>());
    record
}

/// A fork, exec or exit.
pub fn process(process: &Process) -> Vec<u8> {
    let mut record = header(&process.header);
    for word in [process.tgid, process.tid, process.parent_tgid, process.parent_tid] {
        record.extend(word.to_ne_bytes());
    }
    record.extend(process.start_ns.to_ne_bytes());
    record.extend(process.path);
    assert_eq!(record.len(), size_of::<Process>());
    record
}

fn header(header: &Header) -> Vec<u8> {
    let mut record = vec![header.kind, header.flags];
    record.extend(header.cpu.to_ne_bytes());
    record.extend(header.cpu_seq.to_ne_bytes());
    record.extend(header.ts_ns.to_ne_bytes());
    record
}

/// A hit of a function probe, with what it read.
pub fn hit(hit: &Hit, chunks: &[u8]) -> Vec<u8> {
    let mut record = header(&hit.header);
    record.extend(hit.tgid.to_ne_bytes());
    record.extend(hit.tid.to_ne_bytes());
    record.extend(hit.task.to_ne_bytes());
    record.extend(hit.sp.to_ne_bytes());
    record.extend(hit.site.to_ne_bytes());
    record.extend(hit.suppressed.to_ne_bytes());
    record.extend(hit.copied.to_ne_bytes());
    record.extend([hit.task_kind, hit.stack]);
    record.extend(hit.lost.to_ne_bytes());
    assert_eq!(record.len(), size_of::<Hit>());
    record.extend(chunks);
    record
}
