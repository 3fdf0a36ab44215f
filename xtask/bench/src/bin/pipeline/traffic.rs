//! What the pipeline is fed: records as the kernel half writes them, made up or from a recording.
//! The layouts are `agent_common`'s, written field by field.

use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::sync::Arc;

use agent_common::{Header, Io, Socket, family, io_flags, kind, socket_flags};
use anyhow::{Context, Result};
use remora::event::ids::Tgid;
use remora::pipeline::Step;
use remora::pipeline::recording::Player;
use remora::platform::clock::{MonoNs, WallOffset};
use remora::span::attributes::Attributes;
use remora::span::model::Resource;

/// Kept-alive connections, as many as the load generator of the other benchmarks uses.
const CONNECTIONS: usize = 64;
/// As many as a server may have.
const MANY_CONNECTIONS: usize = 10_000;
/// Records between two looks at what is over, and how long something must be over: as `remora run`.
const SLICE_RECORDS: usize = 256;
const SETTLE_NS: u64 = 20_000_000;
/// Between two requests: a busy nginx.
const REQUEST_NS: u64 = 8_000;
const TGID: u32 = 4711;
const SEED: u64 = 42;
/// When the traffic begins; before that is nothing.
const BEGIN_NS: u64 = 1_000_000_000;
/// A day of 2026.
const WALL_NS: i64 = 1_770_000_000_000_000_000;

/// Programs of the kernel half, as numbered in `Header::cpu`.
const OUTBOUND_SLOT: u16 = 0;
const INBOUND_SLOT: u16 = 1;

/// Traffic that is made up.
#[derive(Clone, Copy)]
pub(crate) enum Recording {
    /// As nginx answers with a small file: one read, a head by `writev`, a body by `sendfile`.
    Nginx,
    /// As most others answer: one read, head and body in one write.
    OneWrite,
    /// As `OneWrite`, all over one connection: everything about it is in one drain.
    OneConnection,
    /// As `OneWrite`, over very many connections.
    ManyConnections,
}

impl Recording {
    /// Every kind.
    pub(crate) const ALL: [Self; 4] =
        [Self::Nginx, Self::OneWrite, Self::OneConnection, Self::ManyConnections];

    /// What the results call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::OneWrite => "one write",
            Self::OneConnection => "one connection",
            Self::ManyConnections => "10,000 connections",
        }
    }

    fn connections(self) -> usize {
        match self {
            Self::Nginx | Self::OneWrite => CONNECTIONS,
            Self::OneConnection => 1,
            Self::ManyConnections => MANY_CONNECTIONS,
        }
    }

    /// Makes `requests` of them.
    pub(crate) fn make(self, requests: usize) -> Tape {
        let mut writer = Writer::new(self);
        for number in 0..requests {
            writer.request(number);
        }
        writer.finish(requests as u64)
    }
}

/// Steps of a pipeline, records in one piece of memory as they are in the ring.
pub(crate) struct Tape {
    seed: u64,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Entries between two steps that take spans out, and the second of these steps.
    slices: Vec<(Range<usize>, Step<'static>)>,
    expected: Option<u64>,
}

enum Entry {
    Record(Range<usize>),
    Other(Step<'static>),
}

/// What is taken in before spans are taken out.
pub(crate) struct Slice<'a> {
    tape: &'a Tape,
    entries: &'a [Entry],
    end: &'a Step<'static>,
}

impl Slice<'_> {
    /// Its steps but the last.
    pub(crate) fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        self.entries.iter().map(|entry| match entry {
            Entry::Record(range) => Step::Record(self.tape.record(range)),
            Entry::Other(step) => step.clone(),
        })
    }

    /// Its records.
    pub(crate) fn records(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Record(range) => Some(self.tape.record(range)),
            Entry::Other(_) => None,
        })
    }

    /// The step that takes the spans out.
    pub(crate) fn end(&self) -> Step<'static> {
        self.end.clone()
    }
}

impl Tape {
    /// A recording of `remora record`.
    pub(crate) fn read(path: &str) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
        let mut player = Player::new(BufReader::new(file))?;
        let mut tape = Self::new(player.seed());
        while let Some(step) = player.next_step()? {
            match step {
                Step::Record(record) => tape.push(record),
                Step::Collect(at) => tape.end_slice(Step::Collect(at)),
                Step::Finish(at) => tape.end_slice(Step::Finish(at)),
                Step::Clock(wall) => tape.entries.push(Entry::Other(Step::Clock(wall))),
                Step::Function(facts) => tape.entries.push(Entry::Other(Step::Function(facts))),
                Step::Stack(taken) => tape.entries.push(Entry::Other(Step::Stack(taken))),
                Step::Process { tgid, resource, multiplexes_tasks } => {
                    let step = Step::Process { tgid, resource, multiplexes_tasks };
                    tape.entries.push(Entry::Other(step));
                }
            }
        }
        tape.end_slice(Step::Finish(MonoNs(u64::MAX)));
        Ok(tape)
    }

    fn new(seed: u64) -> Self {
        let (bytes, entries, slices) = (Vec::new(), Vec::new(), Vec::new());
        Self { seed, bytes, entries, slices, expected: None }
    }

    /// The seed of the identities.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Slices in order.
    pub(crate) fn slices(&self) -> impl Iterator<Item = Slice<'_>> {
        self.slices.iter().map(|(range, end)| {
            let entries = self.entries.get(range.clone()).unwrap_or_default();
            Slice { tape: self, entries, end }
        })
    }

    /// How many spans there must be, if that is known.
    pub(crate) fn expected(&self) -> Option<u64> {
        self.expected
    }

    /// How many records there are.
    pub(crate) fn count(&self) -> usize {
        self.slices().map(|slice| slice.records().count()).sum()
    }

    /// How many bytes they have.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn record(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    fn push(&mut self, record: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(record);
        self.entries.push(Entry::Record(start..self.bytes.len()));
        // The ring aligns records to eight bytes.
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }

    fn end_slice(&mut self, end: Step<'static>) {
        let begin = self.slices.last().map_or(0, |(range, _)| range.end);
        self.slices.push((begin..self.entries.len(), end));
    }
}

/// A connection's place in its streams.
#[derive(Clone, Copy, Default)]
struct Connection {
    op: u32,
    inbound: u32,
    outbound: u32,
}

struct Writer {
    recording: Recording,
    tape: Tape,
    now_ns: u64,
    connections: Vec<Connection>,
    /// Records so far, by slot.
    sequences: [u32; 2],
    record: Vec<u8>,
    /// Records since spans were last taken out.
    in_slice: usize,
}

impl Writer {
    fn new(recording: Recording) -> Self {
        let mut tape = Tape::new(SEED);
        let mut attributes = Attributes::default();
        attributes.text("service.name", "nginx");
        attributes.text("host.name", "bench");
        attributes.int("process.pid", i64::from(TGID));
        attributes.text("process.executable.path", "/usr/sbin/nginx");
        let resource = Arc::new(Resource { attributes, service_name: "nginx".to_owned() });
        tape.entries.push(Entry::Other(Step::Clock(WallOffset { ns: WALL_NS })));
        let step = Step::Process { tgid: Tgid(TGID), resource, multiplexes_tasks: true };
        tape.entries.push(Entry::Other(step));
        let connections = vec![Connection::default(); recording.connections()];
        let (sequences, record) = ([0; 2], Vec::new());
        let (now_ns, in_slice) = (BEGIN_NS, 0);
        let mut writer = Self { recording, tape, now_ns, connections, sequences, record, in_slice };
        for connection in 0..recording.connections() {
            writer.socket(connection);
        }
        writer
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

    fn finish(mut self, requests: u64) -> Tape {
        self.tape.end_slice(Step::Finish(MonoNs(self.now_ns)));
        self.tape.expected = Some(requests);
        self.tape
    }

    fn request(&mut self, number: usize) {
        let connection = number % self.connections.len();
        // 100 to 200 bytes; another client on each connection, another resource each time.
        let agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36".get(connection % 50..);
        let head = format!(
            "GET /items/{number}/prices?currency=EUR&page={} HTTP/1.1\r\nHost: shop.example.com\r\n\
             User-Agent: {}\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n\r\n",
            number % 7,
            agent.unwrap_or_default()
        );
        let answer = "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 02 Feb 2026 10:00:00 GMT\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: 200\r\n\
             Last-Modified: Sun, 01 Feb 2026 10:00:00 GMT\r\nConnection: keep-alive\r\n\
             ETag: \"697f23e0-c8\"\r\nAccept-Ranges: bytes\r\n\r\n";
        self.now_ns += REQUEST_NS;
        self.operation(connection, Way::Inbound, head.as_bytes(), head.len());
        self.now_ns += 4_000;
        match self.recording {
            Recording::Nginx => {
                self.operation(connection, Way::Outbound, answer.as_bytes(), answer.len());
                self.now_ns += 1_500;
                // `sendfile`: the bytes are in no memory of the process.
                self.operation(connection, Way::Outbound, &[], 200);
            }
            Recording::OneWrite | Recording::OneConnection | Recording::ManyConnections => {
                let mut whole = answer.as_bytes().to_vec();
                whole.resize(answer.len() + 200, b'x');
                self.operation(connection, Way::Outbound, &whole, whole.len());
            }
        }
    }

    fn operation(&mut self, connection: usize, way: Way, payload: &[u8], len: usize) {
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
            socket: connection as u64 + 1,
            tgid: TGID,
            tid: TGID,
            task: 0,
            len: len as u32,
            op: place.op,
            tcp_seq: *behind,
            segment_age_ns: 3_000,
            copied: payload.len() as u16,
            task_kind: 0,
            task_flags: 0,
            task_seq: 0,
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

    fn socket(&mut self, connection: usize) {
        let header = self.header(kind::SOCKET, socket_flags::ACCEPTED, INBOUND_SLOT);
        // 127.0.0.1, IPv4-mapped.
        let loopback = [0, u64::from(u32::from_ne_bytes([127, 0, 0, 1])) << 32 | 0xffff_0000];
        let socket = Socket {
            header,
            socket: connection as u64 + 1,
            tgid: TGID,
            netns: 1,
            local: loopback,
            remote: loopback,
            local_port: 80,
            remote_port: 20_000 + connection as u16,
            family: family::INET,
            pad: 0,
        };
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
}

#[derive(Clone, Copy)]
enum Way {
    Inbound,
    Outbound,
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
