//! From events to spans: feeds each connection's parser, keeps the exchanges that are open, links
//! them and hands out those that are over.
//!
//! Pure and replayable: it reads no clock and does no I/O. Times come with the events, identities
//! from a seeded source. The same events give the same spans.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use slotmap::SlotMap;

use super::exchange::{Exchange, ExchangeKey, Origin, SocketKey};
use super::finish;
use super::http::{self, Ends, HeaderCapture, Standing};
use super::identity::IdSource;
use super::model::{Confidence, Kind, Method, Resource, Span};
use super::propagation;
use super::sampler::Sampler;
use super::sockets::Sockets;
use super::tasks::{self, Process, Processes, Tasks};
use crate::event::ids::{Address, TaskId, Tgid};
use crate::event::{Event, Io, Outcome, Socket};
use crate::platform::clock::{MonoNs, WallOffset};
use crate::protocol::{self, Direction, End, ExchangeNo, http1};

/// Most exchanges open or waiting at one time; more are not begun, and counted.
const EXCHANGES_MAX: usize = 1 << 18;

/// How long a process may take to learn that its connection is gone.
const LEARNS_NS: u64 = 3_000_000_000;

/// Room for the attributes of an ordinary request, encoded.
const ATTRIBUTE_BYTES: usize = 640;

/// What the tracker could not or would not make a span of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallies {
    /// Spans handed out.
    pub spans: u64,
    /// Spans left out by the sampler.
    pub unsampled: u64,
    /// Exchanges of which the request's head could not be seen whole enough to be told.
    pub headless: u64,
    /// Streams that ended, or turned out to be no HTTP, before what looked like a request had a
    /// whole first line. Nothing was lost.
    pub unfinished: u64,
    /// Responses to requests that were missed: exchanges that cannot be told.
    pub untold: u64,
    /// Bytes of traffic that no parser knows.
    pub unknown_bytes: u64,
    /// Events that belong to no socket that was told.
    pub unknown_socket: u64,
    /// Events of processes that were not announced.
    pub unknown_process: u64,
    /// Gaps found in byte streams.
    pub gaps: u64,
    /// Exchanges not begun because too many were open.
    pub too_many_exchanges: u64,
    /// Sockets left out because there were too many.
    pub too_many_sockets: u64,
    /// Links that the thread rule and a trace header told differently; the header was believed.
    pub disputed: u64,
}

/// What the tracker is told once.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Headers to record.
    pub headers: HeaderCapture,
    /// Which traces are kept.
    pub sampler: Sampler,
}

/// Turns events into spans.
pub struct Tracker {
    settings: Settings,
    sockets: Sockets,
    /// Sockets that are closed, and since when.
    closed: VecDeque<(MonoNs, SocketKey)>,
    /// Sockets whose connection is over but which their process may still read from.
    held: VecDeque<(MonoNs, SocketKey)>,
    state: State,
}

/// All that a parser's messages may touch while its socket's connection is taken out.
struct State {
    exchanges: SlotMap<ExchangeKey, Exchange>,
    tasks: Tasks,
    processes: Processes,
    ids: IdSource,
    wall: WallOffset,
    /// Exchanges that are over, and when they ended: in the order in which that was seen.
    ended: VecDeque<(MonoNs, ExchangeKey)>,
    tallies: Tallies,
    /// Records that were lost on the way here.
    lost: u64,
}

/// The operation whose bytes are being parsed.
struct Operation {
    at: MonoNs,
    task: TaskId,
    tcp_seq: Option<u32>,
    nonblocking: bool,
    /// How long before `at` the socket's last segment had come.
    segment_age_ns: Option<u32>,
}

impl Tracker {
    /// A tracker whose identities follow from `seed`.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let state = State {
            exchanges: SlotMap::with_key(),
            tasks: Tasks::default(),
            processes: Processes::default(),
            ids: IdSource::new(seed),
            wall: WallOffset::default(),
            ended: VecDeque::new(),
            tallies: Tallies::default(),
            lost: 0,
        };
        let (closed, held) = (VecDeque::new(), VecDeque::new());
        Self { settings, sockets: Sockets::default(), closed, held, state }
    }

    /// Announces a process; its events before this are not understood.
    pub fn process(&mut self, tgid: Tgid, resource: Arc<Resource>, multiplexes_tasks: bool) {
        self.state.processes.insert(tgid, Process::new(resource, multiplexes_tasks));
    }

    /// Whether a process was announced.
    pub fn knows(&self, tgid: Tgid) -> bool {
        self.state.processes.contains_key(&tgid)
    }

    /// How monotonic time maps to wall time from here on.
    pub fn clock(&mut self, wall: WallOffset) {
        self.state.wall = wall;
    }

    /// Records were lost on the way here: whatever is open may have missed something.
    pub fn lost(&mut self, records: u64) {
        self.state.lost += records;
    }

    /// What was counted.
    pub fn tallies(&self) -> Tallies {
        self.state.tallies
    }

    /// Sockets and exchanges that are remembered.
    pub fn sizes(&self) -> (usize, usize) {
        (self.sockets.len(), self.state.exchanges.len())
    }

    /// Whether spans wait to be handed out.
    pub fn pending(&self) -> bool {
        !self.state.ended.is_empty() || !self.closed.is_empty() || !self.held.is_empty()
    }

    /// Takes in an event.
    pub fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Io(io) => self.io(io),
            Event::Socket(socket) => self.socket(socket),
            Event::Shutdown(id, at) => {
                if let Some(key) = self.sockets.find(*id) {
                    self.end(key, Direction::Outbound, *at);
                }
            }
            Event::Closed { id, at, held } => {
                if let Some(key) = self.sockets.find(*id) {
                    let queue = if *held { &mut self.held } else { &mut self.closed };
                    queue.push_back((*at, key));
                }
            }
            Event::Exit { tgid, at, .. } => {
                for key in self.sockets.unix_of(*tgid) {
                    self.close(key, *at);
                }
                self.state.processes.remove(tgid);
            }
            Event::Listen(_) | Event::Fork { .. } | Event::Exec { .. } => {}
        }
    }

    /// Hands out every span that ended before `horizon`: by then all events up to its end, from
    /// every CPU, have been taken in. One that was seen to end after one that ended later waits for it.
    pub fn collect(&mut self, horizon: MonoNs, spans: &mut Vec<Span>) {
        // A peer's reset is handled within the very operation that provoked it, and so told before.
        while let Some((at, key)) = due(&mut self.closed, horizon) {
            self.close(key, at);
        }
        while let Some((at, key)) = due(&mut self.held, horizon.before(LEARNS_NS)) {
            self.close(key, at);
        }
        while let Some((at, key)) = self.state.ended.front().copied()
            && at <= horizon
        {
            self.state.ended.pop_front();
            self.hand_out(key, spans);
        }
    }

    /// Ends everything that is open and hands it out.
    pub fn finish(&mut self, at: MonoNs, spans: &mut Vec<Span>) {
        for (at, key) in mem::take(&mut self.closed).into_iter().chain(mem::take(&mut self.held)) {
            self.close(key, at);
        }
        for key in self.sockets.keys() {
            let Some(socket) = self.sockets.get(key) else { continue };
            let open: Vec<_> = socket.exchanges.iter().map(|(_, key)| *key).collect();
            for exchange in open {
                if let Some(exchange) = self.state.exchanges.get_mut(exchange) {
                    exchange.stopped = exchange.end.is_none();
                }
                self.state.over(exchange, at, Some(End::Unseen));
            }
        }
        self.collect(MonoNs(u64::MAX), spans);
    }

    fn socket(&mut self, socket: &Socket) {
        if let Some(old) = self.sockets.find(socket.id) {
            self.close(old, socket.at);
        }
        if self.sockets.add(socket).is_none() {
            self.state.tallies.too_many_sockets += 1;
        }
    }

    fn io(&mut self, io: &Io<'_>) {
        if !self.state.processes.contains_key(&io.tgid) {
            self.state.tallies.unknown_process += 1;
            return;
        }
        let Some(key) = self.sockets.find(io.socket) else {
            // That a connection is over, as the process learns last, is known already.
            let moved = matches!(io.outcome, Outcome::Moved(_));
            self.state.tallies.unknown_socket += u64::from(moved);
            return;
        };
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let skipped = socket.next_op.is_some_and(|next| next != io.op);
        socket.next_op = Some(io.op.wrapping_add(1));
        socket.tgid = io.tgid;
        if io.over && !mem::replace(&mut socket.over, true) {
            self.held.push_back((io.at, key));
        }
        if matches!(socket.local, Address::Unix(_)) && skipped {
            // Without sequence numbers a lost operation may have been in either direction.
            self.gap(key, Direction::Inbound, None, io.at);
            self.gap(key, Direction::Outbound, None, io.at);
        }
        match io.outcome {
            Outcome::Moved(segment) => {
                let operation = self.position(key, io, segment.len);
                if let Some(socket) = self.sockets.get_mut(key) {
                    *socket.last_moved_mut(io.direction) = io.at;
                }
                self.feed(key, &operation, |connection, sink| {
                    connection.feed(io.direction, segment, sink);
                });
                if segment.len > (segment.prefix.len() + segment.suffix.len()) as u64 {
                    self.cut(key, io.direction);
                }
            }
            Outcome::End => self.end(key, io.direction, io.at),
            Outcome::Failed(_) => self.close_streams(key, io.at),
        }
    }

    /// Bytes of an operation were not copied: the rest of a request's head may have been among them.
    fn cut(&mut self, key: SocketKey, direction: Direction) {
        let kind = if direction == Direction::Inbound { Kind::Server } else { Kind::Client };
        let Some(socket) = self.sockets.get(key) else { return };
        for (_, exchange) in &socket.exchanges {
            if let Some(exchange) = self.state.exchanges.get_mut(*exchange) {
                exchange.head_cut |= exchange.kind == kind && !exchange.head_seen;
            }
        }
    }

    /// Notices missing bytes and says where the operation's first byte stands.
    fn position(&mut self, key: SocketKey, io: &Io<'_>, len: u64) -> Operation {
        let mut tcp_seq = io.tcp_seq;
        let mut missing = 0;
        if let (Some(seq), Some(socket)) = (io.tcp_seq, self.sockets.get_mut(key)) {
            let expected = socket.expected_mut(io.direction);
            let first = match *expected {
                // The FIN takes a sequence number and is counted with the last bytes read.
                Some(next) if io.direction == Direction::Inbound && seq == next.wrapping_add(1) => {
                    next
                }
                Some(next) => {
                    missing = seq.wrapping_sub(next);
                    seq
                }
                None => seq,
            };
            *expected = Some(first.wrapping_add(len as u32));
            tcp_seq = Some(first);
        }
        // A step back is two threads on one socket, not a loss.
        if missing != 0 && missing < 1 << 31 {
            self.gap(key, io.direction, Some(u64::from(missing)), io.at);
        }
        let segment_age_ns = io.tcp_seq.map(|_| io.segment_age_ns).filter(|age| *age < u32::MAX);
        let nonblocking = io.nonblocking;
        Operation { at: io.at, task: io.task, tcp_seq, nonblocking, segment_age_ns }
    }

    fn gap(&mut self, key: SocketKey, direction: Direction, bytes: Option<u64>, at: MonoNs) {
        self.state.tallies.gaps += 1;
        if let Some(socket) = self.sockets.get(key) {
            for (_, exchange) in &socket.exchanges {
                if let Some(exchange) = self.state.exchanges.get_mut(*exchange) {
                    exchange.gaps += u32::from(exchange.end.is_none());
                }
            }
        }
        self.boundary(key, at, |connection, sink| connection.gap(direction, bytes, sink));
    }

    fn end(&mut self, key: SocketKey, direction: Direction, at: MonoNs) {
        self.boundary(key, at, |connection, sink| connection.end(direction, sink));
    }

    fn close_streams(&mut self, key: SocketKey, at: MonoNs) {
        self.boundary(key, at, |connection, sink| connection.close(sink));
    }

    fn close(&mut self, key: SocketKey, at: MonoNs) {
        self.close_streams(key, at);
        let Some(socket) = self.sockets.get_mut(key) else { return };
        socket.closed = true;
        if socket.exchanges.is_empty() {
            self.sockets.remove(key);
        }
    }

    /// Feeds the parser something that no task did.
    fn boundary(
        &mut self,
        key: SocketKey,
        at: MonoNs,
        step: impl FnOnce(&mut http1::Connection, &mut dyn FnMut(protocol::Event<'_>)),
    ) {
        let tgid = self.sockets.get(key).map(|socket| socket.tgid).unwrap_or_default();
        let task = TaskId { tgid, kind: agent_common::task_kind::THREAD, id: 0 };
        let (tcp_seq, segment_age_ns) = (None, None);
        let operation = Operation { at, task, tcp_seq, nonblocking: false, segment_age_ns };
        self.feed(key, &operation, step);
    }

    /// Runs one step of a connection's parser and takes in what it tells.
    fn feed(
        &mut self,
        key: SocketKey,
        operation: &Operation,
        step: impl FnOnce(&mut http1::Connection, &mut dyn FnMut(protocol::Event<'_>)),
    ) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let mut connection = mem::take(&mut socket.connection);
        let mut sink = |event: protocol::Event<'_>| self.message(key, operation, event);
        step(&mut connection, &mut sink);
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.connection = connection;
        }
    }

    fn message(&mut self, key: SocketKey, operation: &Operation, event: protocol::Event<'_>) {
        use protocol::Event as Message;
        let (at, socket_key) = (operation.at, key);
        match event {
            Message::RequestStart { exchange, direction, offset } => {
                self.request_start(key, operation, exchange, direction, offset);
            }
            Message::RequestHead { exchange, head } => {
                let Some(socket) = self.sockets.get_mut(key) else { return };
                let Some(key) = socket.exchange(exchange) else { return };
                let ends = Ends { local: socket.local.ip(), peer: socket.remote.ip() };
                let about = (&ends, &mut socket.standing);
                self.state.request_head(key, about, &head, &self.settings.headers);
            }
            Message::RequestEnd { exchange, body_bytes, .. } => {
                let Some((key, _)) = self.open(key, exchange) else { return };
                if let Some(exchange) = self.state.exchanges.get_mut(key) {
                    exchange.request_bytes = body_bytes;
                }
            }
            Message::Interim { .. } => {}
            Message::ResponseStart { exchange } => {
                let Some((key, _)) = self.open(key, exchange) else { return };
                self.state.response_start(key, operation);
            }
            Message::ResponseHead { exchange, head } => {
                let Some((key, _)) = self.open(key, exchange) else { return };
                if let Some(exchange) = self.state.exchanges.get_mut(key) {
                    exchange.status = Some(head.status);
                    let headers = &self.settings.headers;
                    http::response(&mut exchange.attributes, &head, headers);
                }
            }
            Message::ResponseEnd { exchange, body_bytes, end } => {
                let Some((key, _)) = self.open(key, exchange) else { return };
                let last = self.sockets.get(socket_key).map(|socket| socket.last_moved);
                let mut at = at;
                if let Some(exchange) = self.state.exchanges.get_mut(key) {
                    exchange.response_bytes = body_bytes;
                    // What ended the message came after its last byte.
                    if end != End::Complete && exchange.responded {
                        let [inbound, outbound] = last.unwrap_or_default();
                        let last = if exchange.kind == Kind::Server { outbound } else { inbound };
                        at = last.max(exchange.start);
                    }
                }
                self.state.over(key, at, Some(end));
            }
            Message::Abandoned { exchange } => {
                let Some((key, _)) = self.open(key, exchange) else { return };
                self.state.over(key, at, None);
            }
            Message::Mistaken { exchange } => {
                let Some((key, _)) = self.open(key, exchange) else { return };
                if let Some(exchange) = self.state.exchanges.get_mut(key) {
                    exchange.head_seen = false;
                }
                self.state.over(key, at, None);
            }
            Message::Untold => self.state.tallies.untold += 1,
            Message::Unknown { bytes, .. } => self.state.tallies.unknown_bytes += bytes,
        }
    }

    fn open(
        &self,
        key: SocketKey,
        number: ExchangeNo,
    ) -> Option<(ExchangeKey, (Address, Address))> {
        let socket = self.sockets.get(key)?;
        Some((socket.exchange(number)?, (socket.local, socket.remote)))
    }

    fn request_start(
        &mut self,
        socket_key: SocketKey,
        operation: &Operation,
        number: ExchangeNo,
        direction: Direction,
        offset: u64,
    ) {
        if self.state.exchanges.len() >= EXCHANGES_MAX {
            self.state.tallies.too_many_exchanges += 1;
            return;
        }
        let Some(process) = self.state.processes.get(&operation.task.tgid) else { return };
        let resource = Arc::clone(&process.resource);
        let kind = if direction == Direction::Inbound { Kind::Server } else { Kind::Client };
        let request_seq = operation.tcp_seq.map(|seq| seq.wrapping_add(offset as u32));
        let span_id = self.state.ids.span();
        let key = self.state.exchanges.insert(Exchange {
            span_id,
            kind,
            resource,
            tgid: operation.task.tgid,
            socket: socket_key,
            number,
            task: operation.task,
            nonblocking: operation.nonblocking,
            within: None,
            request_seq,
            origin: Origin::Unknown,
            joined: false,
            remote: None,
            trace: None,
            children: 0,
            start: operation.at,
            wall: self.state.wall,
            end: None,
            head_seen: false,
            head_cut: false,
            responded: false,
            name: "HTTP".into(),
            attributes: super::attributes::Attributes::with_capacity(ATTRIBUTE_BYTES),
            status: None,
            request_bytes: None,
            response_bytes: None,
            gaps: 0,
            lost_before: self.state.lost,
            queue_ns: operation.segment_age_ns.filter(|_| kind == Kind::Server),
            stopped: false,
            done: false,
        });
        match kind {
            Kind::Server => self.state.serve(key, operation, socket_key),
            _ => self.state.begin_call(key, operation),
        }
        let Some(socket) = self.sockets.get_mut(socket_key) else { return };
        socket.exchanges.push_back((number, key));
        let peer = socket.peer;
        self.join(key, kind, peer);
    }

    /// Finds the exchange at the other end of the connection. The request's first byte has the same
    /// sequence number at both ends; a Unix stream has one request under way at a time, or, if
    /// pipelined, keeps their order.
    fn join(&mut self, key: ExchangeKey, kind: Kind, peer: Option<SocketKey>) {
        let Some(peer) = peer.and_then(|peer| self.sockets.get(peer)) else { return };
        let Some(mine) = self.state.exchanges.get(key) else { return };
        // The server may have answered before what the client did is told. Then it began after the
        // client had read the previous answer.
        let [last_read, _] =
            self.sockets.get(mine.socket).map_or_else(Default::default, |socket| socket.last_moved);
        let is_answered_already = |other: &Exchange| {
            kind == Kind::Client && other.start > last_read && other.lost_before == self.state.lost
        };
        let other = peer.exchanges.iter().map(|(_, other)| *other).find(|other| {
            self.state.exchanges.get(*other).is_some_and(|other| {
                other.kind != mine.kind
                    && !other.joined
                    && match (mine.request_seq, other.request_seq) {
                        (Some(mine), Some(other)) => mine == other,
                        (None, None) => other.end.is_none() || is_answered_already(other),
                        _ => false,
                    }
            })
        });
        let Some(other) = other else { return };
        let method = if mine.request_seq.is_some() { Method::TcpSeq } else { Method::UnixPeer };
        let (client, server) = if kind == Kind::Client { (key, other) } else { (other, key) };
        self.state.link(server, client, method, Confidence::Exact);
        let Some([client, server]) = self.state.exchanges.get_disjoint_mut([client, server]) else {
            return;
        };
        client.joined = true;
        server.joined = true;
        // The request had been sent when it was read: the sender's clock was read later.
        client.start = client.start.min(server.start);
    }

    fn hand_out(&mut self, key: ExchangeKey, spans: &mut Vec<Span>) {
        let Some(exchange) = self.state.exchanges.get(key) else { return };
        let (socket_key, number) = (exchange.socket, exchange.number);
        let lost = exchange.head_cut || exchange.gaps > 0 || self.state.lost > exchange.lost_before;
        if exchange.head_seen {
            let State { exchanges, ids, lost, .. } = &mut self.state;
            match finish::span(exchanges, ids, self.settings.sampler, *lost, key) {
                Some(span) => {
                    spans.push(span);
                    self.state.tallies.spans += 1;
                }
                None => self.state.tallies.unsampled += 1,
            }
        } else if lost {
            self.state.tallies.headless += 1;
        } else {
            self.state.tallies.unfinished += 1;
        }
        self.state.forget(key);
        let Some(socket) = self.sockets.get_mut(socket_key) else { return };
        socket.remove_exchange(number);
        if socket.closed && socket.exchanges.is_empty() {
            self.sockets.remove(socket_key);
        }
    }
}

/// Takes the first entry if its time has come.
fn due<T>(queue: &mut VecDeque<(MonoNs, T)>, horizon: MonoNs) -> Option<(MonoNs, T)> {
    let is_due = queue.front().is_some_and(|(at, _)| *at <= horizon);
    if is_due { queue.pop_front() } else { None }
}

impl State {
    /// A request's first byte was read: it becomes current for the task.
    fn serve(&mut self, key: ExchangeKey, operation: &Operation, socket: SocketKey) {
        let task = operation.task;
        let before = self.tasks.current(task).and_then(|key| self.exchanges.get(key));
        let pipelined =
            before.is_some_and(|before| before.socket == socket && before.end.is_none());
        let interleaved = before.is_some_and(|before| {
            before.socket != socket && before.end.is_none() && before.gaps == 0
        });
        if let Some(process) = self.processes.get_mut(&task.tgid) {
            process.open_servers += 1;
            process.interleaves |= interleaved;
        }
        if !pipelined {
            self.tasks.enter(task, key);
        }
    }

    /// A request's first byte was written: whatever the task serves may be its parent.
    fn begin_call(&mut self, key: ExchangeKey, operation: &Operation) {
        let Some(current) = self.tasks.current(operation.task) else { return };
        let Some(server) = self.exchanges.get(current) else { return };
        let Some(process) = self.processes.get(&operation.task.tgid) else { return };
        let Some((method, confidence)) = tasks::within(operation.task, process, server.nonblocking)
        else {
            return;
        };
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.within = Some((current, method, confidence));
        }
    }

    /// A request's head tells what it asks for and who sent it.
    fn request_head(
        &mut self,
        key: ExchangeKey,
        about: (&Ends, &mut Standing),
        head: &protocol::RequestHead<'_>,
        capture: &HeaderCapture,
    ) {
        let remote = propagation::read(head.headers);
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        exchange.head_seen = true;
        exchange.name =
            http::request(&mut exchange.attributes, exchange.kind, head, about, capture);
        exchange.remote = remote.map(Box::new);
        if exchange.kind != Kind::Client {
            if exchange.remote.is_some() && exchange.origin == Origin::Unknown {
                exchange.origin = Origin::Header;
            }
            return;
        }
        // A header that the process only passed on says nothing new about its own call.
        let carries = |context: &propagation::RemoteContext| (context.trace_id, context.span_id);
        let said = exchange.remote.as_deref().map(carries);
        let within = exchange.within;
        let served = within
            .and_then(|(server, ..)| self.exchanges.get(server))
            .and_then(|server| server.remote.as_deref().map(carries));
        match (said, within) {
            (Some(context), Some(_)) if served == Some(context) => {}
            (Some(context), _) => {
                let trace = served.map(|(trace, _)| trace);
                if within.is_some() && trace != Some(context.0) {
                    self.tallies.disputed += 1;
                }
                if let Some(exchange) = self.exchanges.get_mut(key) {
                    exchange.origin = Origin::Header;
                }
                return;
            }
            (None, _) => {}
        }
        if let Some((server, method, confidence)) = within {
            self.link(key, server, method, confidence);
        }
    }

    /// The final response's first byte.
    fn response_start(&mut self, key: ExchangeKey, operation: &Operation) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        exchange.responded = true;
        let handed_off = exchange.kind == Kind::Server
            && exchange.gaps == 0
            && exchange.task != operation.task
            && operation.task.id != 0;
        if handed_off && let Some(process) = self.processes.get_mut(&exchange.tgid) {
            process.hands_off = true;
        }
    }

    /// Nothing more will come of an exchange. `None`: it was abandoned without a response.
    fn over(&mut self, key: ExchangeKey, at: MonoNs, end: Option<End>) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        if exchange.end.is_some() {
            return;
        }
        let at = at.max(exchange.start);
        exchange.end = Some((at, end));
        self.ended.push_back((at, key));
        if exchange.kind == Kind::Server {
            self.tasks.leave(exchange.task, key);
            if let Some(process) = self.processes.get_mut(&exchange.tgid) {
                process.open_servers = process.open_servers.saturating_sub(1);
            }
        }
    }

    /// Makes `parent` the parent of `child`.
    fn link(
        &mut self,
        child: ExchangeKey,
        parent: ExchangeKey,
        method: Method,
        confidence: Confidence,
    ) {
        let Some(exchange) = self.exchanges.get_mut(child) else { return };
        if let Origin::Local { .. } = exchange.origin {
            return;
        }
        exchange.origin = Origin::Local { key: parent, method, confidence };
        if let Some(parent) = self.exchanges.get_mut(parent) {
            parent.children += 1;
        }
    }

    /// The exchange was handed out; keeps it only while children need its identity.
    fn forget(&mut self, key: ExchangeKey) {
        let mut next = Some(key);
        while let Some(key) = next.take() {
            let Some(exchange) = self.exchanges.get_mut(key) else { return };
            exchange.done = true;
            if exchange.children > 0 {
                return;
            }
            let origin = exchange.origin;
            self.exchanges.remove(key);
            if let Origin::Local { key: parent, .. } = origin
                && let Some(parent_exchange) = self.exchanges.get_mut(parent)
            {
                parent_exchange.children = parent_exchange.children.saturating_sub(1);
                if parent_exchange.done && parent_exchange.children == 0 {
                    next = Some(parent);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
