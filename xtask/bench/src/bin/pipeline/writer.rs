//! Records as the kernel half writes them, onto a tape. The layouts are `agent_common`'s, written field by
//! field.

use std::sync::Arc;

use agent_common::{Header, Io, Socket, family, io_flags, kind, socket_flags, task_kind};
use remora::event::ids::Tgid;
use remora::pipeline::Step;
use remora::platform::clock::{MonoNs, WallOffset};
use remora::span::attributes::Attributes;
use remora::span::model::Resource;

use super::tape::Tape;

/// Records between two looks at what is over, and how long something must be over: as `remora run`.
const SLICE_RECORDS: usize = 256;
const SETTLE_NS: u64 = 20_000_000;
const SEED: u64 = 42;
/// When the traffic begins; before that is nothing.
const BEGIN_NS: u64 = 1_000_000_000;
/// A day of 2026.
const WALL_NS: i64 = 1_770_000_000_000_000_000;

/// Programs of the kernel half, as numbered in `Header::cpu`.
const OUTBOUND_SLOT: u16 = 0;
const INBOUND_SLOT: u16 = 1;
const STATE_SLOT: u16 = 2;

/// Which way bytes go.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    Inbound,
    Outbound,
}

/// Who does an operation, and how the record says it.
#[derive(Clone, Copy)]
pub(crate) struct Task {
    tgid: u32,
    kind: u8,
    id: u64,
    flags: u8,
    seq: u32,
}

impl Task {
    /// The only thread of a process.
    pub(crate) fn thread(tgid: u32) -> Self {
        Self { tgid, kind: task_kind::THREAD, id: 0, flags: 0, seq: 0 }
    }

    /// A goroutine.
    pub(crate) fn goroutine(tgid: u32, id: u64) -> Self {
        Self { kind: task_kind::GOROUTINE, id, ..Self::thread(tgid) }
    }
}

/// What a connection is made between: ports of this host.
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    /// The process that has it.
    pub(crate) tgid: u32,
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    /// One of [`socket_flags`]: who has begun.
    pub(crate) role: u8,
}

/// A socket's place in its streams.
#[derive(Clone, Copy)]
struct Connection {
    ends: Ends,
    op: u32,
    inbound: u32,
    outbound: u32,
}

/// Writes them in order.
pub(crate) struct Writer {
    tape: Tape,
    now_ns: u64,
    connections: Vec<Connection>,
    /// Records so far, by slot.
    sequences: [u32; 3],
    record: Vec<u8>,
    /// Records since spans were last taken out.
    in_slice: usize,
}

impl Writer {
    /// Nothing has happened yet.
    pub(crate) fn new() -> Self {
        let mut tape = Tape::new(SEED);
        tape.add(Step::Clock(WallOffset { ns: WALL_NS }));
        let (connections, record) = (Vec::new(), Vec::new());
        Self { tape, now_ns: BEGIN_NS, connections, sequences: [0; 3], record, in_slice: 0 }
    }

    /// Everything has ended, and makes so many spans.
    pub(crate) fn finish(mut self, spans: u64) -> Tape {
        self.tape.end_slice(Step::Finish(MonoNs(self.now_ns)));
        self.tape.expect(spans);
        self.tape
    }

    /// Time passes.
    pub(crate) fn wait(&mut self, ns: u64) {
        self.now_ns += ns;
    }

    /// Announces a process.
    pub(crate) fn process(&mut self, tgid: u32, name: &str, multiplexes_tasks: bool) {
        let mut attributes = Attributes::default();
        attributes.text("service.name", name);
        attributes.text("host.name", "bench");
        attributes.int("process.pid", i64::from(tgid));
        attributes.text("process.executable.path", &format!("/usr/sbin/{name}"));
        let resource = Arc::new(Resource { attributes, service_name: name.to_owned() });
        self.tape.add(Step::Process { tgid: Tgid(tgid), resource, multiplexes_tasks });
    }

    /// A connection that is used for the first time; its number.
    pub(crate) fn connect(&mut self, ends: Ends) -> usize {
        let number = self.connections.len();
        self.connections.push(Connection { ends, op: 0, inbound: 0, outbound: 0 });
        let header = self.header(kind::SOCKET, ends.role, INBOUND_SLOT);
        // 127.0.0.1, IPv4-mapped.
        let loopback = [0, u64::from(u32::from_ne_bytes([127, 0, 0, 1])) << 32 | 0xffff_0000];
        self.socket(&Socket {
            header,
            socket: id(number),
            tgid: ends.tgid,
            netns: 1,
            local: loopback,
            remote: loopback,
            local_port: ends.local_port,
            remote_port: ends.remote_port,
            family: family::INET,
            pad: 0,
            from: [0; 2],
        });
        number
    }

    /// The thread of nginx's that does something for the request that came last by a connection.
    pub(crate) fn for_request_of(&self, connection: usize) -> Option<Task> {
        use agent_common::nginx_flags::{CURRENT, SEQ};
        let place = self.connections.get(connection)?;
        let kind = task_kind::NGINX_REQUEST;
        let (tgid, seq) = (place.ends.tgid, place.inbound);
        Some(Task { tgid, kind, id: id(connection), flags: CURRENT | SEQ, seq })
    }

    /// Bytes move, of which `payload` can be read.
    pub(crate) fn operation(
        &mut self,
        connection: usize,
        way: Way,
        task: Task,
        payload: &[u8],
        len: usize,
    ) {
        let (slot, mut flags) = match way {
            Way::Inbound => (INBOUND_SLOT, io_flags::NONBLOCKING),
            Way::Outbound => (OUTBOUND_SLOT, io_flags::OUTBOUND),
        };
        flags |= io_flags::TCP_SEQ;
        if payload.is_empty() {
            flags |= io_flags::NO_PAYLOAD;
        }
        let header = self.header(kind::IO, flags, slot);
        let Some(place) = self.connections.get_mut(connection) else { return };
        let behind = match way {
            Way::Inbound => &mut place.inbound,
            Way::Outbound => &mut place.outbound,
        };
        *behind = behind.wrapping_add(len as u32);
        let io = Io {
            header,
            socket: id(connection),
            tgid: task.tgid,
            tid: task.tgid,
            task: task.id,
            len: len as u32,
            op: place.op,
            tcp_seq: *behind,
            segment_age_ns: 3_000,
            copied: payload.len() as u16,
            task_kind: task.kind,
            task_flags: task.flags,
            task_seq: task.seq,
        };
        place.op += 1;
        self.record.clear();
        put_header(&mut self.record, &io.header);
        put(&mut self.record, &io.socket.to_ne_bytes());
        put(&mut self.record, &io.tgid.to_ne_bytes());
        put(&mut self.record, &io.tid.to_ne_bytes());
        put(&mut self.record, &io.task.to_ne_bytes());
        put(&mut self.record, &io.len.to_ne_bytes());
        put(&mut self.record, &io.op.to_ne_bytes());
        put(&mut self.record, &io.tcp_seq.to_ne_bytes());
        put(&mut self.record, &io.segment_age_ns.to_ne_bytes());
        put(&mut self.record, &io.copied.to_ne_bytes());
        put(&mut self.record, &[io.task_kind, io.task_flags]);
        put(&mut self.record, &io.task_seq.to_ne_bytes());
        put(&mut self.record, payload);
        self.push();
    }

    /// Its process closes a connection.
    pub(crate) fn shut_down(&mut self, connection: usize) {
        let flags = socket_flags::READ_TO | socket_flags::WRITTEN_TO;
        self.end(connection, kind::SHUTDOWN, flags);
    }

    /// The kernel is done with a connection.
    pub(crate) fn close(&mut self, connection: usize) {
        self.end(connection, kind::CLOSE, 0);
    }

    fn end(&mut self, connection: usize, kind: u8, flags: u8) {
        let header = self.header(kind, flags, STATE_SLOT);
        let Some(place) = self.connections.get(connection) else { return };
        // How far it had come stands where it needs no process and no namespace.
        let (tgid, netns) = if flags == 0 { (0, 0) } else { (place.inbound, place.outbound) };
        self.socket(&Socket { header, socket: id(connection), tgid, netns, ..Socket::default() });
    }

    fn socket(&mut self, socket: &Socket) {
        self.record.clear();
        put_header(&mut self.record, &socket.header);
        put(&mut self.record, &socket.socket.to_ne_bytes());
        put(&mut self.record, &socket.tgid.to_ne_bytes());
        put(&mut self.record, &socket.netns.to_ne_bytes());
        for word in socket.local.iter().chain(&socket.remote) {
            put(&mut self.record, &word.to_ne_bytes());
        }
        put(&mut self.record, &socket.local_port.to_ne_bytes());
        put(&mut self.record, &socket.remote_port.to_ne_bytes());
        put(&mut self.record, &socket.family.to_ne_bytes());
        put(&mut self.record, &socket.pad.to_ne_bytes());
        self.push();
    }

    fn header(&mut self, kind: u8, flags: u8, slot: u16) -> Header {
        let mut cpu_seq = 0;
        if let Some(next) = self.sequences.get_mut(usize::from(slot)) {
            cpu_seq = *next;
            *next += 1;
        }
        let cpu = slot << agent_common::SLOT_SHIFT;
        Header { kind, flags, cpu, cpu_seq, ts_ns: self.now_ns }
    }

    /// Puts the record on the tape.
    fn push(&mut self) {
        self.tape.push(&self.record);
        self.in_slice += 1;
        if self.in_slice == SLICE_RECORDS {
            self.in_slice = 0;
            let horizon = MonoNs(self.now_ns.saturating_sub(SETTLE_NS));
            self.tape.end_slice(Step::Collect(horizon));
        }
    }
}

/// What the kernel half calls a connection's socket.
fn id(connection: usize) -> u64 {
    connection as u64 + 1
}

fn put(record: &mut Vec<u8>, bytes: &[u8]) {
    record.extend_from_slice(bytes);
}

fn put_header(record: &mut Vec<u8>, header: &Header) {
    put(record, &[header.kind, header.flags]);
    put(record, &header.cpu.to_ne_bytes());
    put(record, &header.cpu_seq.to_ne_bytes());
    put(record, &header.ts_ns.to_ne_bytes());
}
