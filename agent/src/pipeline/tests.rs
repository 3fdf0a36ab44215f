//! Whole scenes without a kernel: raw records in, trees of spans out.

mod calls;
mod corners;
mod goroutines;
mod nginx;
mod order;
mod trees;

use std::collections::BTreeMap;

use agent_common as wire;
use agent_common::{family, goroutine_flags, io_flags, kind, nginx_flags, socket_flags, task_kind};

use super::*;
use crate::fuzzing::wire as records;
use crate::span::attributes::{Attributes, Value};
use crate::span::model::{Kind, SpanId};

/// A thread: its process and itself.
type Thread = (u32, u32);

/// A socket of the scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct End(usize);

struct Socket {
    id: u64,
    /// Sequence number behind the last byte, inbound and outbound; `None` for Unix.
    seq: Option<[u32; 2]>,
    op: u32,
    nonblocking: bool,
    told: wire::Socket,
    is_told: bool,
}

/// What a kernel would write, and what comes of it.
struct Scene {
    pipeline: Pipeline,
    spans: Vec<Span>,
    now: u64,
    sockets: Vec<Socket>,
    seqs: BTreeMap<u16, u32>,
    ids: u64,
    /// Records are kept for [`Scene::play`] instead of being played at once.
    held: Option<Vec<(u16, Vec<u8>)>>,
    /// All sockets are used on one CPU.
    one_cpu: bool,
    /// What is sent to others is for a request of nginx's that came by this socket, and whether it is what
    /// that is served with.
    serving: Option<(End, bool)>,
    /// How long what is read had been there.
    age_ns: u32,
    /// Which goroutine does everything, and whether it waits for another one that does.
    goroutine: Option<(u64, bool)>,
}

impl Scene {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let mut scene = Self {
            pipeline: Pipeline::new(settings, 1),
            spans: Vec::new(),
            now: 1_000_000,
            sockets: Vec::new(),
            seqs: BTreeMap::new(),
            ids: 0,
            held: None,
            one_cpu: false,
            serving: None,
            goroutine: None,
            age_ns: u32::MAX,
        };
        scene.step(&Step::Clock(WallOffset { ns: 1_000_000_000 }));
        scene
    }

    fn step(&mut self, step: &Step<'_>) {
        self.pipeline.step(step, &mut self.spans);
    }

    fn process(&mut self, tgid: u32, name: &str) {
        self.announce(tgid, name, false);
    }

    fn announce(&mut self, tgid: u32, name: &str, multiplexes_tasks: bool) {
        let mut attributes = Attributes::default();
        attributes.text("service.name", name);
        let resource = Arc::new(Resource { attributes, service_name: name.to_owned() });
        self.step(&Step::Process { tgid: Tgid(tgid), resource, multiplexes_tasks });
    }

    /// Both ends of a connection from one process to another.
    fn tcp(&mut self, client: u32, server: u32) -> (End, End) {
        let port = 40_000 + self.sockets.len() as u16;
        let isn = 0x1000 * self.sockets.len() as u32;
        self.tcp_at(client, server, port, [isn, isn.wrapping_add(7)])
    }

    fn tcp_at(&mut self, client: u32, server: u32, port: u16, isn: [u32; 2]) -> (End, End) {
        let address = |host: u64| [0, host << 56 | 0x0a_00_00 << 32 | 0xffff_0000];
        let (there, here) = ((address(1), port), (address(2), 80));
        let [to_server, to_client] = isn;
        let seq = Some([to_client, to_server]);
        let c = self.socket(client, there, here, family::INET, socket_flags::CONNECTED, seq);
        let seq = Some([to_server, to_client]);
        let s = self.socket(server, here, there, family::INET, socket_flags::ACCEPTED, seq);
        (c, s)
    }

    /// The server's end of a connection from a process that is not traced.
    fn outside(&mut self, server: u32) -> End {
        self.tcp(0, server).1
    }

    fn unix(&mut self, client: u32, server: u32, addresses: [u64; 2]) -> (End, End) {
        let [there, here] = addresses.map(|address| ([address, 0], 0));
        let c = self.socket(client, there, here, family::UNIX, socket_flags::CONNECTED, None);
        let s = self.socket(server, here, there, family::UNIX, socket_flags::ACCEPTED, None);
        (c, s)
    }

    fn socket(
        &mut self,
        tgid: u32,
        (local, local_port): ([u64; 2], u16),
        (remote, remote_port): ([u64; 2], u16),
        family: u16,
        flags: u8,
        seq: Option<[u32; 2]>,
    ) -> End {
        self.ids += 1;
        let id = self.ids;
        let header = wire::Header { kind: kind::SOCKET, flags, ..Default::default() };
        let told = wire::Socket {
            header,
            socket: id,
            tgid,
            netns: 1,
            local,
            remote,
            local_port,
            remote_port,
            family,
            pad: 0,
            from: [0; 2],
        };
        let (op, nonblocking, is_told) = (0, false, false);
        self.sockets.push(Socket { id, seq, op, nonblocking, told, is_told });
        End(self.sockets.len() - 1)
    }

    fn nonblocking(&mut self, ends: &[End]) {
        for end in ends {
            self.sockets[end.0].nonblocking = true;
        }
    }

    fn older(&mut self, end: End) {
        self.sockets[end.0].told.header.flags |= socket_flags::OLDER;
    }

    fn write(&mut self, thread: Thread, end: End, bytes: &str) {
        self.moved(thread, end, io_flags::OUTBOUND, bytes.as_bytes());
    }

    fn read(&mut self, thread: Thread, end: End, bytes: &str) {
        self.moved(thread, end, 0, bytes.as_bytes());
    }

    /// A read that finds the end.
    fn end(&mut self, thread: Thread, end: End) {
        self.operation(thread, end, io_flags::END, 0, b"");
    }

    fn fails(&mut self, thread: Thread, end: End, outbound: bool, errno: u32) {
        let outbound = if outbound { io_flags::OUTBOUND } else { 0 };
        self.operation(thread, end, io_flags::ERROR | outbound, errno, b"");
    }

    fn moved(&mut self, thread: Thread, end: End, flags: u8, bytes: &[u8]) {
        let len = bytes.len() as u32;
        if let Some(seq) = &mut self.sockets[end.0].seq {
            let way = usize::from(flags & io_flags::OUTBOUND != 0);
            seq[way] = seq[way].wrapping_add(len);
        }
        self.operation(thread, end, flags, len, bytes);
    }

    fn operation(
        &mut self,
        (tgid, tid): Thread,
        end: End,
        mut flags: u8,
        len: u32,
        payload: &[u8],
    ) {
        self.tell(end, tgid);
        let socket = &mut self.sockets[end.0];
        let mut tcp_seq = 0;
        if let Some(seq) = socket.seq {
            flags |= io_flags::TCP_SEQ;
            tcp_seq = seq[usize::from(flags & io_flags::OUTBOUND != 0)];
        }
        if socket.nonblocking && flags & io_flags::OUTBOUND == 0 {
            flags |= io_flags::NONBLOCKING;
        }
        let op = socket.op;
        socket.op += 1;
        let id = socket.id;
        let header = self.header(kind::IO, flags, end.0 as u16);
        let copied = payload.len() as u16;
        let calls = flags & io_flags::OUTBOUND != 0
            && self.sockets[end.0].told.header.flags & socket_flags::CONNECTED != 0;
        let behalf = self.serving.filter(|_| calls).map(|(client, is_current)| {
            let client = &self.sockets[client.0];
            let current = if is_current { nginx_flags::CURRENT } else { 0 };
            let seq = client.seq.map_or((0, 0), |[read_to, _]| (nginx_flags::SEQ, read_to));
            (task_kind::NGINX_REQUEST, client.id, current | seq.0, seq.1)
        });
        let goroutine = self.goroutine.map(|(id, waits)| {
            (task_kind::GOROUTINE, id, u8::from(waits) * goroutine_flags::CALLER, 0)
        });
        let (task_kind, task, task_flags, task_seq) = behalf.or(goroutine).unwrap_or_default();
        let io = wire::Io {
            header,
            socket: id,
            tgid,
            tid,
            len,
            op,
            tcp_seq,
            copied,
            segment_age_ns: self.age_ns,
            task,
            task_kind,
            task_flags,
            task_seq,
        };
        self.record(header.cpu, records::io(&io, payload));
    }

    /// Tells a socket before its first operation.
    fn tell(&mut self, end: End, tgid: u32) {
        if std::mem::replace(&mut self.sockets[end.0].is_told, true) {
            return;
        }
        let told = self.sockets[end.0].told;
        let header = self.header(kind::SOCKET, told.header.flags, end.0 as u16);
        self.record(header.cpu, records::socket(&wire::Socket { header, tgid, ..told }));
    }

    fn shutdown(&mut self, end: End) {
        self.state(end, kind::SHUTDOWN, 0);
    }

    /// The process has closed its end.
    fn close(&mut self, end: End) {
        self.state(end, kind::CLOSE, 0);
    }

    /// The process closes its end, and the kernel half says how far it had come.
    fn closes(&mut self, end: End) {
        let mut told = self.sockets[end.0].told;
        let [read_to, written_to] = self.sockets[end.0].seq.expect("a TCP socket");
        let flags = socket_flags::READ_TO | socket_flags::WRITTEN_TO;
        let header = self.header(kind::SHUTDOWN, flags, end.0 as u16);
        (told.header, told.tgid, told.netns) = (header, read_to, written_to);
        self.record(header.cpu, records::socket(&told));
        self.close(end);
    }

    /// Bytes move, and no program runs that would tell.
    fn unseen(&mut self, end: End, outbound: bool, bytes: u32) {
        let seq = self.sockets[end.0].seq.as_mut().expect("a TCP socket");
        seq[usize::from(outbound)] = seq[usize::from(outbound)].wrapping_add(bytes);
    }

    /// The peer has reset the connection; the process has yet to learn of it.
    fn reset(&mut self, end: End) {
        self.state(end, kind::CLOSE, socket_flags::HELD);
    }

    fn state(&mut self, end: End, kind: u8, flags: u8) {
        let told = self.sockets[end.0].told;
        let header = self.header(kind, flags, end.0 as u16);
        self.record(header.cpu, records::socket(&wire::Socket { header, tgid: 0, ..told }));
    }

    fn fork(&mut self, (parent_tgid, parent_tid): Thread, (tgid, tid): Thread) {
        self.task(kind::FORK, [tgid, tid, parent_tgid, parent_tid]);
    }

    fn exit(&mut self, tgid: u32) {
        self.task(kind::EXIT, [tgid, tgid, 0, 0]);
    }

    fn task(&mut self, kind: u8, [tgid, tid, parent_tgid, parent_tid]: [u32; 4]) {
        let header = self.header(kind, 0, 4000);
        let path = [0; wire::PATH_BYTES];
        let process =
            wire::Process { header, tgid, tid, parent_tgid, parent_tid, start_ns: 0, path };
        self.record(header.cpu, records::process(&process));
    }

    /// The scene has one CPU for each socket, so that their records may come in any order.
    fn header(&mut self, kind: u8, flags: u8, cpu: u16) -> wire::Header {
        self.now += 1000;
        let cpu = if self.one_cpu { 0 } else { cpu };
        let seq = self.seqs.entry(cpu).or_default();
        let cpu_seq = *seq;
        *seq = seq.wrapping_add(1);
        wire::Header { kind, flags, cpu, cpu_seq, ts_ns: self.now }
    }

    fn record(&mut self, cpu: u16, record: Vec<u8>) {
        match &mut self.held {
            Some(held) => held.push((cpu, record)),
            None => self.step(&Step::Record(&record)),
        }
    }

    /// What `story` records is lost.
    fn lose(&mut self, story: impl FnOnce(&mut Self)) {
        let told: Vec<bool> = self.sockets.iter().map(|socket| socket.is_told).collect();
        let before = self.held.replace(Vec::new());
        story(self);
        self.held = before;
        // The kernel half tells a socket until it has been told.
        for (socket, told) in self.sockets.iter_mut().zip(told) {
            socket.is_told = told;
        }
    }

    /// Hands out what has ended, as the agent does now and then.
    fn collect(&mut self) {
        self.now += 1000;
        self.step(&Step::Collect(MonoNs(self.now)));
    }

    fn wait(&mut self, ns: u64) {
        self.now += ns;
        self.collect();
    }

    /// Nothing happens for as long as says that nothing happens by itself.
    fn calm(&mut self) {
        self.collect();
        self.wait(1_000_000_000);
    }

    /// Everything told: its trees.
    fn trees(&mut self) -> String {
        let at = MonoNs(self.now + 1000);
        self.step(&Step::Finish(at));
        let (_, exchanges) = self.pipeline.sizes();
        assert_eq!(exchanges, 0, "exchanges are left");
        crate::fuzzing::check_honest(&self.spans, true);
        draw(&self.spans)
    }

    // Whole requests.

    /// A request is written at one end and read at the other.
    fn ask(&mut self, client: Thread, c: End, server: Thread, s: End, path: &str) {
        let request = get(path);
        self.write(client, c, &request);
        self.read(server, s, &request);
    }

    fn answer(&mut self, server: Thread, s: End, client: Thread, c: End) {
        self.write(server, s, OK);
        self.read(client, c, OK);
    }

    /// A request from outside is read.
    fn asked(&mut self, server: Thread, s: End, path: &str) {
        self.read(server, s, &get(path));
    }

    fn answered(&mut self, server: Thread, s: End) {
        self.write(server, s, OK);
    }

    /// A call to a process that is not traced.
    fn call(&mut self, client: Thread, path: &str) {
        let (c, _) = self.tcp(client.0, 0);
        self.write(client, c, &get(path));
        self.read(client, c, OK);
        self.shutdown(c);
        self.close(c);
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

fn with_header(path: &str, header: &str) -> String {
    format!("GET {path} HTTP/1.1\r\n{header}\r\n\r\n")
}

/// Spans as trees, a line each, in the order of their start.
fn draw(spans: &[Span]) -> String {
    let mut sorted: Vec<&Span> = spans.iter().collect();
    sorted.sort_by_key(|span| (span.start, span.kind as u8));
    let is_here = |id: SpanId| spans.iter().any(|span| span.span_id == id);
    let mut text = String::new();
    for span in &sorted {
        if span.parent.is_none_or(|parent| !is_here(parent.span_id)) {
            branch(span, &sorted, 0, &mut text);
        }
    }
    text
}

fn branch(span: &Span, all: &[&Span], depth: usize, text: &mut String) {
    text.push_str(&format!("{}{}\n", "  ".repeat(depth), line(span)));
    for child in all.iter().filter(|child| child.parent.map(|p| p.span_id) == Some(span.span_id)) {
        branch(child, all, depth + 1, text);
    }
}

fn line(span: &Span) -> String {
    let text = |key| match span.attributes.get(key) {
        Some(Value::Text(text)) => text.to_owned(),
        Some(Value::Int(number)) => number.to_string(),
        _ => String::new(),
    };
    let path = match text("url.path") {
        path if path.is_empty() => text("url.full").splitn(4, '/').skip(3).collect(),
        path => path.trim_start_matches('/').to_owned(),
    };
    let arrow = if span.kind == Kind::Client { "→ " } else { "" };
    let status = text("http.response.status_code");
    let service = &span.resource.service_name;
    let mut line = match span.kind {
        Kind::Internal => format!("{service} {}()", span.name),
        _ => format!("{service} {arrow}/{path} {status}"),
    };
    if let Some(parent) = span.parent {
        line += &format!(" ({} {})", parent.method.as_str(), parent.confidence.as_str());
    }
    for (key, mark) in [("error.type", "!"), ("remora.lost", "lost "), ("remora.end.reason", "~")] {
        let said = text(key);
        if !said.is_empty() {
            line += &format!(" {mark}{said}");
        }
    }
    line
}
