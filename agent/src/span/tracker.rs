//! From events to spans: feeds each connection's parser, keeps the exchanges that are open, links
//! them and hands out those that are over.
//!
//! Pure and replayable: it reads no clock and does no I/O. Times come with the events, identities
//! from a seeded source. The same events give the same spans.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use super::calls::{CallTallies, Calls};
use super::exchange::{Exchange, ExchangeKey, Origin, SocketKey};
use super::finish;
use super::http::{self, Ends, HeaderCapture};
use super::model::{Kind, Resource, Span};
use super::sampler::Sampler;
use super::sockets::{SocketState, Sockets};
use super::state::{self, Operation, State};
use crate::event::ids::{TaskId, Tgid};
use crate::event::{Event, Io, Last, Outcome, Socket};
use crate::function::facts::FunctionFacts;
use crate::platform::clock::{MonoNs, WallOffset};
use crate::protocol::{self, Direction, End, ExchangeNo, http1};
use crate::stack::Taken;

/// Most exchanges open or waiting at one time; more are not begun, and counted. Tests come to the
/// bound sooner.
const EXCHANGES_MAX: usize = if cfg!(any(test, feature = "fuzzing")) { 512 } else { 1 << 18 };

/// How long after a connection is over, or after its last read since, what is open on it waits for
/// what had been received and may still be read.
const READ_LATE_NS: u64 = 500_000_000;

/// How long a process may take to learn that its connection is over: until then it may read what
/// begins something new.
const LEARNS_NS: u64 = 3_000_000_000;

/// How many of a connection's last requests are looked at, of which one may not be answered yet.
/// What was taken for a request and was none may lie between.
const LAST: usize = 4;

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
    /// Sockets forgotten before they were closed because there were too many.
    pub too_many_sockets: u64,
    /// Calls of nginx's for requests that are not known, or not for certain: of a connection that is not
    /// understood, say.
    pub nginx_unplaced: u64,
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
    /// Sockets whose connection is over but which their process may still read from, and since when
    /// (or since when it has read nothing more).
    over: VecDeque<(MonoNs, SocketKey)>,
    /// The same after [`READ_LATE_NS`], when nothing waits any more.
    lingering: VecDeque<(MonoNs, SocketKey)>,
    state: State,
    calls: Calls,
}

impl Tracker {
    /// A tracker whose identities follow from `seed`.
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            sockets: Sockets::default(),
            over: VecDeque::new(),
            lingering: VecDeque::new(),
            state: State::new(seed),
            calls: Calls::default(),
        }
    }

    /// Announces a process; its events before this are not understood.
    pub fn process(&mut self, tgid: Tgid, resource: Arc<Resource>, multiplexes_tasks: bool) {
        self.state.process(tgid, resource, multiplexes_tasks);
    }

    /// Announces a probed function; hits of its probes before this are not understood.
    pub fn function(&mut self, facts: &Arc<FunctionFacts>) {
        self.calls.function(facts);
    }

    /// Announces the stack of a record to come.
    pub fn taken(&mut self, taken: &Arc<Taken>) {
        self.calls.taken(taken);
    }

    /// What was counted of calls.
    pub fn call_tallies(&self) -> CallTallies {
        self.calls.tallies()
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
        self.state.is_pending()
            || self.calls.is_pending()
            || !self.over.is_empty()
            || !self.lingering.is_empty()
    }

    /// Takes in an event.
    pub fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Io(io) => self.io(io),
            Event::Socket(socket) => self.socket(socket),
            Event::Shutdown { id, at, last } => {
                if let Some(key) = self.sockets.find(*id) {
                    self.last(key, *last, *at);
                    self.end(key, Direction::Outbound, *at);
                }
            }
            Event::Closed { id, at, held, last } => {
                if let Some(key) = self.sockets.find(*id) {
                    self.last(key, *last, *at);
                    self.closed(key, *at, *held);
                }
            }
            Event::Hit(hit) => {
                if self.state.processes.contains_key(&hit.tgid) {
                    self.calls.hit(hit, &mut self.state, self.settings.sampler);
                } else {
                    self.state.tallies.unknown_process += 1;
                }
            }
            Event::Fork { tgid, tid, at, .. } => {
                let kind = agent_common::task_kind::THREAD;
                let task = TaskId { tgid: *tgid, kind, id: u64::from(tid.0) };
                self.calls.thread(task, *at, None, &mut self.state);
                self.state.tasks.forget(task);
            }
            Event::Signal { task, tid, at, number, .. } => {
                self.calls.signal((*task, *tid), *at, *number, &mut self.state);
            }
            Event::ThreadExit { tgid, tid, at, status } => {
                let kind = agent_common::task_kind::THREAD;
                let task = TaskId { tgid: *tgid, kind, id: u64::from(tid.0) };
                self.calls.thread(task, *at, *status, &mut self.state);
            }
            Event::Exit { tgid, at, status, .. } => {
                self.calls.exit(*tgid, *at, *status, &mut self.state);
                if let Some(status) = status {
                    self.state.exits(*tgid, *status);
                }
                for key in self.sockets.unix_of(*tgid) {
                    self.close(key, *at, Closing::Vanished);
                }
                self.state.exit(*tgid);
            }
            Event::Exec { tgid, at, .. } => self.calls.exit(*tgid, *at, None, &mut self.state),
            // Whoever looks at processes has announced what is to be said of it.
            Event::Cgroup { .. } | Event::Listen(_) => {}
        }
    }

    /// Hands out every span that ended before `horizon`: by then all events up to its end, from
    /// every CPU, have been taken in. One that was seen to end after one that ended later waits for it.
    pub fn collect(&mut self, horizon: MonoNs, spans: &mut Vec<Span>) {
        self.leave(horizon);
        if self.state.exchanges.len() >= EXCHANGES_MAX {
            let busy = self.sockets.oldest(|socket| !socket.exchanges.is_empty());
            self.make_room(busy, horizon);
        }
        self.calls.collect(horizon, &mut self.state, self.settings.sampler, spans);
        while let Some(key) = self.state.next_due(horizon) {
            self.hand_out(key, spans);
        }
    }

    /// Ends everything that is open and hands it out.
    pub fn finish(&mut self, at: MonoNs, spans: &mut Vec<Span>) {
        self.calls.stop(at, &mut self.state);
        self.leave(MonoNs::MAX);
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
        self.collect(MonoNs::MAX, spans);
    }

    fn socket(&mut self, socket: &Socket) {
        if let Some(known) = self.sockets.find(socket.id) {
            let same = self.sockets.get(known).is_some_and(|known| known.is(socket));
            if same {
                // Two operations at one time have both told it.
                return;
            }
            self.forget(known, socket.at);
        }
        for gone in self.sockets.superseded(socket) {
            self.forget(gone, socket.at);
        }
        if self.sockets.is_full() {
            let oldest = self.sockets.oldest(|_| true);
            self.make_room(oldest, socket.at);
        }
        self.sockets.add(socket);
    }

    fn make_room(&mut self, sockets: Vec<SocketKey>, at: MonoNs) {
        for key in sockets {
            self.state.tallies.too_many_sockets += 1;
            self.forget(key, at);
        }
    }

    /// Nothing more will be seen of a socket.
    fn forget(&mut self, key: SocketKey, at: MonoNs) {
        self.sockets.unlink(key);
        let Some(socket) = self.sockets.get(key) else { return };
        match socket.closed_at {
            Some(at) if !socket.connection.is_to_be_read() => self.close(key, at, Closing::Told),
            _ => self.close(key, at, Closing::OutOfSight),
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
        // A step back is two operations at one time, not a loss.
        let ahead = io.op.wrapping_sub(socket.next_op);
        let skipped = if ahead < 1 << 31 { ahead } else { 0 };
        socket.next_op = io.op.wrapping_add(1);
        socket.tgid = io.tgid;
        socket.touched = io.at;
        if io.over && !mem::replace(&mut socket.over, true) {
            self.over.push_back((io.at, key));
        }
        let operation = self.position(key, io, skipped);
        match io.outcome {
            Outcome::Moved(segment) => {
                if let Some(socket) = self.sockets.get_mut(key) {
                    *socket.last_moved_mut(io.direction) = io.at;
                }
                self.feed(key, &operation, |connection, sink| {
                    connection.feed(io.direction, segment, sink);
                });
                if self.calls.is_in_use() {
                    self.touch(key, io);
                }
                if segment.len > (segment.prefix.len() + segment.suffix.len()) as u64 {
                    self.cut(key, io.direction);
                }
            }
            Outcome::End => self.end(key, io.direction, io.at),
            Outcome::Failed(errno) if !is_final(errno) => {}
            // What was received before may still be read.
            Outcome::Failed(_) if io.direction == Direction::Outbound => {
                self.boundary(key, io.at, |connection, sink| {
                    connection.break_off(Direction::Outbound, sink);
                });
            }
            Outcome::Failed(_) => self.close(key, io.at, Closing::Told),
        }
    }

    /// Remembers whose socket a task has used: its calls are made for that, if it is an event loop.
    fn touch(&mut self, key: SocketKey, io: &Io<'_>) {
        let Some(socket) = self.sockets.get(key) else { return };
        let exchange = match io.direction {
            Direction::Inbound => socket.exchanges.back(),
            Direction::Outbound => socket.exchanges.front(),
        };
        self.state.tasks.touch(io.task, exchange.map(|(_, key)| *key));
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

    /// Notices missing bytes and says where the operation's first byte stands. `skipped`: how many
    /// operations before it on this socket were missed.
    fn position(&mut self, key: SocketKey, io: &Io<'_>, skipped: u32) -> Operation {
        let (at, nonblocking, task) = (io.at, io.nonblocking, io.task);
        let segment_age_ns = io.tcp_seq.map(|_| io.segment_age_ns).filter(|age| *age < u32::MAX);
        let (tcp_seq, behalf, waits) = (None, io.behalf, io.waits);
        let mut operation =
            Operation { at, task, waits, behalf, tcp_seq, nonblocking, segment_age_ns };
        let Some(socket) = self.sockets.get_mut(key) else { return operation };
        let Some(seq) = io.tcp_seq else {
            if skipped > 0 {
                // Nothing tells in which direction.
                self.missed(key);
                self.gap(key, Direction::Inbound, None, at);
                self.gap(key, Direction::Outbound, None, at);
                self.disjoin(key);
            }
            return operation;
        };
        let expected = *socket.expected_mut(io.direction);
        let ahead = expected.map(|next| seq.wrapping_sub(next)).filter(|ahead| *ahead < 1 << 31);
        // The FIN takes a sequence number and is counted with the last bytes read, or with the end.
        let fin = match io.outcome {
            Outcome::End => true,
            _ => io.direction == Direction::Inbound && skipped == 0 && ahead == Some(1),
        };
        // A step back is two threads on one socket, not a loss.
        let missing = ahead.unwrap_or(0).saturating_sub(u32::from(fin));
        let first = if fin && ahead > Some(0) { seq.wrapping_sub(1) } else { seq };
        let moved = if let Outcome::Moved(segment) = io.outcome { segment.len as u32 } else { 0 };
        *socket.expected_mut(io.direction) = Some(first.wrapping_add(moved));
        operation.tcp_seq = Some(first);
        let opposite = io.direction.opposite();
        if missing > 0 || skipped > 0 {
            self.missed(key);
        }
        if missing > 0 {
            self.gap(key, io.direction, Some(u64::from(missing)), at);
        } else if skipped > 0 && expected.is_none() {
            self.gap(key, io.direction, None, at);
        }
        // A single one was in the other direction, unless bytes are missing in this one (more than the
        // one that a FIN counts as). Of several, some may have been: the answer to the request
        // before, say, and the request after it.
        let inbound = io.direction == Direction::Inbound;
        if skipped > u32::from(missing > u32::from(inbound)) {
            if let Some(socket) = self.sockets.get_mut(key) {
                *socket.expected_mut(opposite) = None;
            }
            self.gap(key, opposite, None, at);
        }
        operation
    }

    /// The process has closed a socket, with which it had come this far: operations that were not seen may
    /// have been its last ones.
    fn last(&mut self, key: SocketKey, last: Last, at: MonoNs) {
        let ends = [(Direction::Inbound, last.read_to), (Direction::Outbound, last.written_to)];
        for (direction, position) in ends {
            let (Some(position), Some(socket)) = (position, self.sockets.get_mut(key)) else {
                continue;
            };
            // Of a direction in which nothing was seen, nothing says where it began.
            let Some(expected) = socket.expected_mut(direction).replace(position) else { continue };
            let missing = position.wrapping_sub(expected);
            if missing > 0 && missing < 1 << 31 {
                self.missed(key);
                self.gap(key, direction, Some(missing.into()), at);
            }
        }
    }

    /// Something was missed on a socket: what is open there may have missed it.
    fn missed(&mut self, key: SocketKey) {
        self.state.tallies.gaps += 1;
        let Some(socket) = self.sockets.get(key) else { return };
        for (_, exchange) in &socket.exchanges {
            if let Some(exchange) = self.state.exchanges.get_mut(*exchange) {
                exchange.gaps += u32::from(exchange.end.is_none());
            }
        }
    }

    fn gap(&mut self, key: SocketKey, direction: Direction, bytes: Option<u64>, at: MonoNs) {
        self.boundary(key, at, |connection, sink| connection.gap(direction, bytes, sink));
    }

    fn end(&mut self, key: SocketKey, direction: Direction, at: MonoNs) {
        self.boundary(key, at, |connection, sink| connection.end(direction, sink));
    }

    /// The kernel has closed a connection. `held`: its process still has the socket, and may still
    /// read from it. (More may also be told of what happened before, because a peer's reset is
    /// handled within the very operation that provoked it.)
    fn closed(&mut self, key: SocketKey, at: MonoNs, held: bool) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        socket.closed_at = Some(at);
        if held {
            if !mem::replace(&mut socket.over, true) {
                self.over.push_back((at, key));
            }
        } else if socket.connection.is_to_be_read() {
            // A half-closed connection is closed as soon as its peer has closed it, too.
            self.over.push_back((at, key));
        } else {
            self.close(key, at, Closing::Told);
        }
    }

    /// Closes connections that were over by `horizon` and of which nothing more is waited for.
    fn leave(&mut self, horizon: MonoNs) {
        while let Some((at, key)) = state::due(&mut self.over, horizon.before(READ_LATE_NS)) {
            let Some(socket) = self.sockets.get(key) else { continue };
            let [read_at, _] = socket.last_moved;
            if read_at > at {
                self.over.push_back((read_at, key));
            } else if socket.over {
                self.despair(key, at);
                self.lingering.push_back((at, key));
            } else {
                self.close(key, at, Closing::Told);
            }
        }
        while let Some((at, key)) = state::due(&mut self.lingering, horizon.before(LEARNS_NS)) {
            self.close(key, at, Closing::Told);
        }
    }

    /// What is open on a connection that is over waits no longer.
    fn despair(&mut self, key: SocketKey, at: MonoNs) {
        let Some(socket) = self.sockets.get(key) else { return };
        let is_open = |key: ExchangeKey| {
            self.state.exchanges.get(key).is_some_and(|exchange| exchange.end.is_none())
        };
        if socket.exchanges.iter().any(|(_, key)| is_open(*key)) {
            // A response may be there, and be read some time.
            let unread = socket.connection.is_to_be_read();
            self.end_streams(key, at, if unread { Closing::OutOfSight } else { Closing::Told });
        }
    }

    fn close(&mut self, key: SocketKey, at: MonoNs, how: Closing) {
        self.end_streams(key, at, how);
        let Some(socket) = self.sockets.get_mut(key) else { return };
        socket.closed = true;
        if socket.exchanges.is_empty() {
            self.sockets.remove(key);
        }
    }

    fn end_streams(&mut self, key: SocketKey, at: MonoNs, how: Closing) {
        self.boundary(key, at, |connection, sink| match how {
            Closing::Told => connection.close(sink),
            Closing::Vanished => connection.vanish(sink),
            Closing::OutOfSight => connection.lose_sight(sink),
        });
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
        let (behalf, tcp_seq, segment_age_ns, nonblocking) = (None, None, None, false);
        let waits = false;
        let operation = Operation { at, task, waits, behalf, tcp_seq, nonblocking, segment_age_ns };
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
                let SocketState { local, remote, standing, .. } = socket;
                let ends = || Ends { local: local.ip(), peer: remote.ip() };
                let about: (&dyn Fn() -> Ends, _) = (&ends, standing);
                self.state.head_read(key, operation.task);
                self.state.request_head(key, about, &head, &self.settings.headers);
            }
            Message::RequestEnd { exchange, body_bytes, end } => {
                let Some(key) = self.open(key, exchange) else { return };
                if let Some(exchange) = self.state.exchanges.get_mut(key) {
                    exchange.request_bytes = body_bytes;
                    exchange.request_cut = end == End::Aborted;
                }
            }
            Message::Interim { exchange, .. } => {
                let Some(key) = self.open(key, exchange) else { return };
                self.state.begin_call_late(key, operation, &mut self.calls);
            }
            Message::ResponseStart { exchange } => {
                let Some(key) = self.open(key, exchange) else { return };
                self.state.begin_call_late(key, operation, &mut self.calls);
                self.state.response_start(key, operation);
            }
            Message::ResponseHead { exchange, head } => {
                let Some(key) = self.open(key, exchange) else { return };
                if let Some(exchange) = self.state.exchanges.get_mut(key) {
                    exchange.status = Some(head.status);
                    let headers = &self.settings.headers;
                    http::response(&mut exchange.attributes, &head, headers);
                }
            }
            Message::ResponseAdrift { exchange } => {
                let Some(key) = self.open(key, exchange) else { return };
                self.state.adrift(key);
            }
            Message::ResponseEnd { exchange, body_bytes, end } => {
                let Some(key) = self.open(key, exchange) else { return };
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
                let Some(key) = self.open(key, exchange) else { return };
                self.state.over(key, at, None);
            }
            Message::Mistaken { exchange } => {
                let Some(key) = self.open(key, exchange) else { return };
                if let Some(exchange) = self.state.exchanges.get_mut(key) {
                    // Unless what names it as its parent has left already.
                    exchange.mistaken = exchange.trace.is_none();
                }
                self.state.over(key, at, None);
            }
            Message::Untold => self.state.tallies.untold += 1,
            Message::Unknown { bytes, .. } => self.state.tallies.unknown_bytes += bytes,
        }
    }

    fn open(&self, key: SocketKey, number: ExchangeNo) -> Option<ExchangeKey> {
        self.sockets.get(key)?.exchange(number)
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
            if let Some(socket) = self.sockets.get_mut(socket_key) {
                socket.last_begun = None;
            }
            return;
        }
        let is_open = |(_, key): &(ExchangeNo, ExchangeKey)| {
            self.state.exchanges.get(*key).is_some_and(|exchange| exchange.end.is_none())
        };
        // Answers come in the order of their requests, so one of the last is open if any is; the others,
        // thousands on a busy connection, wait to be handed out.
        let last = |socket: &SocketState| socket.exchanges.iter().rev().take(LAST).any(is_open);
        let is_pipelined = offset > 0 || self.sockets.get(socket_key).is_some_and(last);
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
            is_pipelined,
            task: operation.task,
            nonblocking: operation.nonblocking,
            within: None,
            caller: None,
            told_calls: false,
            happened: None,
            answered_by_its_reader: None,
            awaited_by: VecDeque::new(),
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
            mistaken: false,
            responded: false,
            name: "HTTP".into(),
            attributes: super::attributes::Attributes::with_capacity(ATTRIBUTE_BYTES),
            status: None,
            request_bytes: None,
            request_cut: false,
            response_bytes: None,
            gaps: 0,
            lost_before: self.state.lost,
            queue_ns: operation.segment_age_ns.filter(|_| kind == Kind::Server),
            exit: None,
            stopped: false,
            done: false,
        });
        if let Some(process) = self.state.processes.get_mut(&operation.task.tgid) {
            process.open += 1;
        }
        match kind {
            Kind::Server => self.state.serve(key, operation, socket_key),
            _ => match operation.behalf {
                Some(behalf) => {
                    let server = self.served(&behalf);
                    self.state.begin_call_for(key, operation, server, &mut self.calls);
                }
                None => self.state.begin_call(key, operation, &mut self.calls),
            },
        }
        let Some(socket) = self.sockets.get_mut(socket_key) else { return };
        socket.exchanges.push_back((number, key));
        socket.last_begun = Some(key);
        socket.unjoined += 1;
        self.join(key, kind, socket_key);
    }

    fn hand_out(&mut self, key: ExchangeKey, spans: &mut Vec<Span>) {
        let Some(exchange) = self.state.exchanges.get(key) else { return };
        let (socket_key, number, joined) = (exchange.socket, exchange.number, exchange.joined);
        let lost = exchange.head_cut || exchange.gaps > 0 || self.state.lost > exchange.lost_before;
        if exchange.mistaken {
            // Its bytes are counted as unknown.
            self.state.tallies.unfinished += 1;
        } else if exchange.head_seen {
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
        socket.unjoined = socket.unjoined.saturating_sub(usize::from(!joined));
        if socket.closed && socket.exchanges.is_empty() {
            self.sockets.remove(socket_key);
        }
    }
}

/// How a connection came to its end.
#[derive(Clone, Copy)]
enum Closing {
    /// The kernel says so.
    Told,
    /// Its process is gone; it may have closed it before.
    Vanished,
    /// It may go on, but cannot be followed any more.
    OutOfSight,
}

/// Errors after which a connection brings nothing more: `EPIPE`, `ECONNABORTED`, `ECONNRESET`,
/// `ENOTCONN`, `ESHUTDOWN`, `ETIMEDOUT`, `ECONNREFUSED`.
fn is_final(errno: u32) -> bool {
    matches!(errno, 32 | 103 | 104 | 107 | 108 | 110 | 111)
}

mod related;
#[cfg(test)]
mod tests;
