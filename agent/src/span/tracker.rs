//! From events to spans: takes in what happens, keeps what is open, and hands out what is over.
//!
//! Pure and replayable: it reads no clock and does no I/O. Times come with the events, identities
//! from a seeded source. The same events give the same spans.

use std::collections::VecDeque;
use std::sync::Arc;

use super::calls::{CallTallies, Calls};
use super::exchange::{ExchangeKey, SocketKey};
use super::finish;
use super::http::HeaderCapture;
use super::model::{Resource, Span};
use super::sampler::Sampler;
use super::sockets::Sockets;
use super::state::State;
use crate::event::ids::{Address, TaskId, Tgid};
use crate::event::{Event, Socket};
use crate::function::facts::FunctionFacts;
use crate::platform::clock::{MonoNs, WallOffset};
use crate::protocol::{Direction, End};
use crate::stack::Taken;
use ending::Closing;
use watching::Watched;

pub use watching::QUIET_NS;

/// Most exchanges open or waiting at one time; more are not begun, and counted. Tests come to the
/// bound sooner.
const EXCHANGES_MAX: usize = if cfg!(any(test, feature = "fuzzing")) { 512 } else { 1 << 18 };

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
    watched: Watched,
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
            watched: Watched::default(),
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
                self.state.tick(*at);
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
            Event::Exec { tgid, at, .. } => {
                self.state.tick(*at);
                self.calls.exit(*tgid, *at, None, &mut self.state);
            }
            // Whoever looks at processes has announced what is to be said of it.
            Event::Cgroup { .. } | Event::Listen(_) => {}
        }
    }

    /// Hands out every span that ended before `horizon`: by then all events up to its end, from
    /// every CPU, have been taken in. One that was seen to end after one that ended later waits for it.
    pub fn collect(&mut self, horizon: MonoNs, spans: &mut Vec<Span>) {
        self.state.tick(horizon);
        self.leave(horizon);
        self.look(horizon);
        if self.state.exchanges.len() >= EXCHANGES_MAX {
            let busy = self.sockets.oldest(|socket| !socket.exchanges.is_empty());
            self.make_room(busy, horizon);
        }
        self.calls.collect(horizon, &mut self.state, self.settings.sampler, spans);
        while let Some(key) = self.state.next_due(horizon) {
            self.hand_out(key, spans);
        }
    }

    /// Takes back spans that nobody needs any more, with the memory of what they say.
    pub fn reuse(&mut self, spans: &mut Vec<Span>) {
        self.state.reuse(spans);
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
                self.over(key, exchange, at, Some(End::Unseen));
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
            if let Address::Unix(_) = socket.local {
                // Nothing else is told of their close.
                self.sockets.unlink(gone);
                self.close(gone, socket.at, Closing::Found);
            } else {
                self.forget(gone, socket.at);
            }
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
            Some(at) if !socket.is_to_be_read() => self.close(key, at, Closing::Told),
            _ => self.close(key, at, Closing::OutOfSight),
        }
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

mod ending;
mod messages;
mod operations;
mod related;
#[cfg(test)]
mod tests;
mod watching;
