//! What is open: exchanges, the tasks that serve them, and the links between them. Knows no sockets
//! and no bytes.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use slotmap::SlotMap;

use super::attributes::Attributes;
use super::calls::{Belongs, Calls};
use super::exchange::{Exchange, ExchangeKey, Origin, SocketKey};
use super::finish;
use super::http::{self, About, Ends, HeaderCapture};
use super::identity::IdSource;
use super::model::{Confidence, Kind, Method, Resource, Span};
use super::propagation;
use super::standing::{Sayings, Standing};
use super::tasks::{self, Process, Processes, Tasks};
use super::tracker::Tallies;
use crate::event::Behalf;
use crate::event::exit::ExitStatus;
use crate::event::ids::{TaskId, Tgid};
use crate::platform::clock::{MonoNs, WallOffset};
use crate::protocol::{self, End};

/// How far above an exchange a link is waited for.
const PROOF_DEPTH: usize = 16;

/// How long a call waits after its end for the answer that proves whose it is.
pub(super) const PROOF_NS: u64 = 500_000_000;

/// Room for the attributes of an ordinary request, encoded.
const ATTRIBUTE_BYTES: usize = 640;

/// Of how many requests that memory is kept for those to come: more than end in one slice of records. After a
/// burst, of which many end together, the others go back.
const SPARES: usize = 1 << 8;

/// All that a parser's messages may touch while its socket's connection is taken out.
pub(super) struct State {
    pub(super) exchanges: SlotMap<ExchangeKey, Exchange>,
    pub(super) tasks: Tasks,
    pub(super) processes: Processes,
    pub(super) ids: IdSource,
    pub(super) wall: WallOffset,
    /// Exchanges that are over, and when they ended: in the order in which that was seen.
    ended: VecDeque<(MonoNs, ExchangeKey)>,
    /// Exchanges that wait for a proof of their place, and when they ended, in the order of `ended`.
    /// What has its proof before its time stays here, but is done.
    unproved: VecDeque<(MonoNs, ExchangeKey)>,
    /// Exchanges whose proof has come.
    proved: VecDeque<ExchangeKey>,
    pub(super) tallies: Tallies,
    sayings: Sayings,
    /// What requests have had their attributes in. The last is nearest to the processor.
    spares: Vec<Attributes>,
    /// Records that were lost on the way here.
    pub(super) lost: u64,
    /// The latest moment that is known of.
    pub(super) now: MonoNs,
}

/// The operation whose bytes are being parsed.
pub(super) struct Operation {
    pub(super) at: MonoNs,
    pub(super) task: TaskId,
    /// Whether the task waits for another one that has done it.
    pub(super) waits: bool,
    /// For which request, where that is told.
    pub(super) behalf: Option<Behalf>,
    pub(super) tcp_seq: Option<u32>,
    pub(super) nonblocking: bool,
    /// How long before `at` the socket's last segment had come.
    pub(super) segment_age_ns: Option<u32>,
}

impl State {
    /// Nothing is open; identities follow from `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            exchanges: SlotMap::with_key(),
            tasks: Tasks::default(),
            processes: Processes::default(),
            ids: IdSource::new(seed),
            wall: WallOffset::default(),
            ended: VecDeque::new(),
            unproved: VecDeque::new(),
            proved: VecDeque::new(),
            tallies: Tallies::default(),
            sayings: Sayings::default(),
            spares: Vec::new(),
            lost: 0,
            now: MonoNs::default(),
        }
    }

    /// Room for a request's attributes.
    pub(super) fn room(&mut self) -> Attributes {
        self.spares.pop().unwrap_or_else(|| Attributes::with_capacity(ATTRIBUTE_BYTES))
    }

    /// Spans that nobody needs any more: requests to come have their attributes where theirs were.
    pub(super) fn reuse(&mut self, spans: &mut Vec<Span>) {
        for mut attributes in spans.drain(..).map(|span| span.attributes) {
            let is_usual = (ATTRIBUTE_BYTES..2 * ATTRIBUTE_BYTES).contains(&attributes.footprint());
            if is_usual && self.spares.len() < SPARES {
                attributes.clear();
                self.spares.push(attributes);
            }
        }
    }

    /// A process is there, new or with a new program.
    pub(super) fn process(&mut self, tgid: Tgid, resource: Arc<Resource>, multiplexes: bool) {
        self.tasks.forget_process(tgid);
        // What another program has left open is still to end.
        let open = self.processes.get(&tgid).map_or(0, |process| process.open);
        let mut process = Process::new(resource, multiplexes, self.now);
        process.open = open;
        self.processes.insert(tgid, process);
    }

    /// Time goes on. What was announced before any was known is watched since then.
    pub(super) fn tick(&mut self, at: MonoNs) {
        if self.now == MonoNs::default() {
            for process in self.processes.values_mut() {
                process.moved = at;
            }
        }
        self.now = self.now.max(at);
    }

    /// A process is gone.
    pub(super) fn exit(&mut self, tgid: Tgid) {
        self.tasks.forget_process(tgid);
        self.processes.remove(&tgid);
    }

    /// A request's first byte was read: it becomes current for the task.
    pub(super) fn serve(&mut self, key: ExchangeKey, operation: &Operation, socket: SocketKey) {
        let task = operation.task;
        let before = self.tasks.current(task).and_then(|key| self.exchanges.get(key));
        let pipelined =
            before.is_some_and(|before| before.socket == socket && before.end.is_none());
        let interleaved = before.is_some_and(|before| {
            before.socket != socket && before.end.is_none() && before.gaps == 0
        });
        let has_ended = before.is_none_or(|before| before.end.is_some());
        // Since when the request has been there, at least.
        let came = operation.segment_age_ns.map(|age| operation.at.before(u64::from(age)));
        let waited = self.tasks.take_waited(task).zip(came);
        let let_wait = waited
            .is_some_and(|((other, since), came)| has_ended && other != socket && came < since);
        if let Some(process) = self.processes.get_mut(&task.tgid) {
            if let_wait {
                process.lets_wait();
            }
            process.open_servers += 1;
            process.interleaves |= interleaved;
            if operation.nonblocking {
                process.reads(task, operation.at);
            }
        }
        if !pipelined {
            self.tasks.enter(task, key);
        }
    }

    /// A request's first byte was written: whatever the task serves may be its parent.
    pub(super) fn begin_call(
        &mut self,
        key: ExchangeKey,
        operation: &Operation,
        calls: &mut Calls,
    ) {
        if let Some(place) = calls.place(operation.task, self)
            && let Some(call) = place.call
            && let Some(exchange) = self.exchanges.get_mut(key)
        {
            calls.need(operation.task);
            match place.belongs {
                Belongs::Request { key: server, method, confidence } => {
                    let confidence = self.before_its_answer(server, method, confidence);
                    let Some(exchange) = self.exchanges.get_mut(key) else { return };
                    exchange.within = Some((server, method, confidence));
                    exchange.caller = Some(Box::new((call, None)));
                }
                Belongs::Own(trace) => exchange.caller = Some(Box::new((call, Some(trace)))),
            }
            return;
        }
        let Some(current) = self.tasks.current(operation.task) else {
            if let Some(process) = self.processes.get_mut(&operation.task.tgid) {
                process.wanders(operation.task);
            }
            return;
        };
        let Some(server) = self.exchanges.get(current) else { return };
        // What is not asked for yet is not served.
        if !server.head_seen {
            return;
        }
        let Some(process) = self.processes.get(&operation.task.tgid) else { return };
        let Some((method, confidence)) = tasks::within(operation.task, process, server.nonblocking)
        else {
            return;
        };
        if method == Method::Thread && server.nonblocking && !tasks::is_believed(process) {
            return;
        }
        let confidence = self.before_its_answer(current, method, confidence);
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.within = Some((current, method, confidence));
        }
    }

    /// How sure it is that a call is for the request that its task serves, before that is answered. What other
    /// requests of the process have shown of its threads proves nothing of this one: it may be handed over, and
    /// its thread do something else till it is answered.
    fn before_its_answer(
        &self,
        server: ExchangeKey,
        method: Method,
        confidence: Confidence,
    ) -> Confidence {
        let server = self.exchanges.get(server);
        match server.is_some_and(|server| method.is_proved_by_answer(server.nonblocking)) {
            true => Confidence::Inferred,
            false => confidence,
        }
    }

    /// As [`begin_call`](Self::begin_call), where it is told what the task serves: `server`, or something
    /// that is not known.
    pub(super) fn begin_call_for(
        &mut self,
        key: ExchangeKey,
        operation: &Operation,
        server: Option<(ExchangeKey, Confidence)>,
        calls: &mut Calls,
    ) {
        let Some((server, confidence)) = server else {
            self.tallies.nginx_unplaced += 1;
            return;
        };
        let place = calls.place(operation.task, self);
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        exchange.within = Some((server, Method::NginxRequest, confidence));
        // A function that nginx runs at the moment, if it runs it for the same request.
        if let Some(place) = place
            && let (Some(call), Belongs::Request { key, .. }) = (place.call, place.belongs)
            && key == server
        {
            exchange.caller = Some(Box::new((call, None)));
            calls.need(operation.task);
        }
    }

    /// A request's head has been read to its end: whoever has done that serves it. (Go's server lets
    /// another goroutine wait for the next request's first byte.)
    pub(super) fn head_read(&mut self, key: ExchangeKey, task: TaskId) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        let before = exchange.task;
        if exchange.kind != Kind::Server || before == task || task.id == 0 {
            return;
        }
        exchange.task = task;
        if self.tasks.current(before) == Some(key) {
            self.tasks.leave(before, key);
            self.tasks.enter(task, key);
        }
    }

    /// A request's head tells what it asks for and who sent it.
    pub(super) fn request_head(
        &mut self,
        key: ExchangeKey,
        (ends, standing): (&dyn Fn() -> Ends, &mut Standing),
        head: &protocol::RequestHead<'_>,
        capture: &HeaderCapture,
    ) {
        let remote = propagation::read(head.headers);
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        exchange.head_seen = true;
        let about = About { ends, standing, sayings: &mut self.sayings };
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
        self.place(key);
    }

    /// As [`begin_call`](Self::begin_call), by an operation on the answer, for a call of which it was not
    /// known before who had made it. Who waits for an answer has done nothing else since it has asked.
    pub(super) fn begin_call_late(
        &mut self,
        key: ExchangeKey,
        operation: &Operation,
        calls: &mut Calls,
    ) {
        if !operation.waits {
            return;
        }
        let Some(exchange) = self.exchanges.get(key) else { return };
        let is_known = exchange.origin != Origin::Unknown
            || exchange.within.is_some()
            || exchange.caller.is_some();
        if exchange.kind == Kind::Client && !is_known {
            self.begin_call(key, operation, calls);
            self.place(key);
        }
    }

    /// Gives a call the place that was found for it.
    fn place(&mut self, key: ExchangeKey) {
        let Some(exchange) = self.exchanges.get(key) else { return };
        if let Some((server, method, confidence)) = exchange.within {
            self.link(key, server, method, confidence);
        } else if let Some(exchange) = self.exchanges.get_mut(key)
            && exchange.trace.is_none()
            && let Some((span_id, Some(trace))) = exchange.caller.as_deref()
        {
            exchange.origin = Origin::Call { span_id: *span_id };
            exchange.trace = Some(trace.clone());
        }
    }

    /// The final response's first byte.
    pub(super) fn response_start(&mut self, key: ExchangeKey, operation: &Operation) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        exchange.responded = true;
        if exchange.kind != Kind::Server || operation.task.id == 0 {
            return;
        }
        if exchange.task.kind != operation.task.kind {
            // It was found out meanwhile what its tasks are.
            return;
        }
        let kept = exchange.task == operation.task;
        exchange.answered_by_its_reader = Some(kept);
        if !exchange.awaited_by.is_empty() {
            self.proved.extend(mem::take(&mut exchange.awaited_by));
        }
        if exchange.gaps == 0
            && let Some(process) = self.processes.get_mut(&exchange.tgid)
        {
            process.keeps |= kept;
            process.hands_off |= !kept;
        }
    }

    /// The exchange whose answer may yet prove or refute the place of this one: a request above it.
    fn proof(&self, exchange: &Exchange) -> Option<ExchangeKey> {
        let mut exchange = exchange;
        for _ in 0..PROOF_DEPTH {
            let Origin::Local { key, method, confidence } = exchange.origin else { return None };
            let parent = self.exchanges.get(key).filter(|_| exchange.trace.is_none())?;
            let open = method.is_proved_by_answer(parent.nonblocking)
                && parent.answered_by_its_reader.is_none()
                && parent.end.is_none();
            if confidence == Confidence::Inferred && open {
                return Some(key);
            }
            exchange = parent;
        }
        None
    }

    /// Whether exchanges wait to be handed out.
    pub(super) fn is_pending(&self) -> bool {
        !self.ended.is_empty() || !self.unproved.is_empty() || !self.proved.is_empty()
    }

    /// The next exchange that ended before `horizon` and waits for nothing more. Looks only at those
    /// whose time or whose proof has come, however many wait.
    pub(super) fn next_due(&mut self, horizon: MonoNs) -> Option<ExchangeKey> {
        while let Some((at, key)) = due(&mut self.ended, horizon) {
            if !self.waits(key) {
                return Some(key);
            }
            self.unproved.push_back((at, key));
        }
        while let Some(key) = self.proved.pop_front() {
            if self.is_here(key) && !self.waits(key) {
                return Some(key);
            }
        }
        while let Some((_, key)) = due(&mut self.unproved, horizon.before(PROOF_NS)) {
            if self.is_here(key) {
                return Some(key);
            }
        }
        None
    }

    /// Whether an exchange is yet to be handed out.
    fn is_here(&self, key: ExchangeKey) -> bool {
        self.exchanges.get(key).is_some_and(|exchange| !exchange.done)
    }

    /// Whether an exchange waits for a proof of its place; if so, it is told when that comes.
    fn waits(&mut self, key: ExchangeKey) -> bool {
        let Some(proof) = self.exchanges.get(key).and_then(|exchange| self.proof(exchange)) else {
            return false;
        };
        let Some(exchange) = self.exchanges.get_mut(proof) else { return false };
        let mut waiting = mem::take(&mut exchange.awaited_by);
        // Those whose time was over before the proof came.
        while waiting.pop_front_if(|first| !self.is_here(*first)).is_some() {}
        waiting.push_back(key);
        if let Some(exchange) = self.exchanges.get_mut(proof) {
            exchange.awaited_by = waiting;
        }
        true
    }

    /// Where the response ends will not be seen. Its task may be doing something else by now.
    pub(super) fn adrift(&mut self, key: ExchangeKey) {
        if let Some(exchange) = self.exchanges.get(key).filter(|e| e.kind == Kind::Server) {
            self.tasks.leave(exchange.task, key);
        }
    }

    /// Nothing more will come of an exchange. `None`: it was abandoned without a response. False: that is
    /// known already.
    pub(super) fn over(&mut self, key: ExchangeKey, at: MonoNs, end: Option<End>) -> bool {
        let Some(exchange) = self.exchanges.get_mut(key) else { return false };
        if exchange.end.is_some() {
            return false;
        }
        let at = at.max(exchange.start);
        exchange.end = Some((at, end));
        if !exchange.awaited_by.is_empty() {
            self.proved.extend(mem::take(&mut exchange.awaited_by));
        }
        self.ended.push_back((at, key));
        let (task, start) = (exchange.task, exchange.start);
        if exchange.kind == Kind::Client
            && matches!(end, Some(End::Complete))
            && let Some(served) = self.tasks.current(task)
            && let Some(served) = self.exchanges.get(served)
            && served.nonblocking
            && served.start <= start
        {
            self.tasks.has_waited(task, served.socket, start);
        }
        let Some(exchange) = self.exchanges.get(key) else { return false };
        let process = self.processes.get_mut(&exchange.tgid);
        let is_server = exchange.kind == Kind::Server;
        if let Some(process) = process {
            process.open = process.open.saturating_sub(1);
            process.moved = process.moved.max(at);
            process.open_servers -= u32::from(is_server && process.open_servers > 0);
        }
        if is_server {
            self.tasks.leave(exchange.task, key);
        }
        true
    }

    /// A process ends: what is open in it says how, unless all is well.
    pub(super) fn exits(&mut self, tgid: Tgid, status: ExitStatus) {
        let has_any = self.processes.get(&tgid).is_some_and(|process| process.open > 0);
        if status.is_success() || !has_any {
            return;
        }
        for exchange in self.exchanges.values_mut() {
            if exchange.tgid == tgid && exchange.end.is_none() {
                exchange.exit = Some(status);
            }
        }
    }

    /// Makes `parent` the parent of `child`.
    pub(super) fn link(
        &mut self,
        child: ExchangeKey,
        parent: ExchangeKey,
        method: Method,
        confidence: Confidence,
    ) {
        let Some(exchange) = self.exchanges.get(child) else { return };
        if let Origin::Local { .. } = exchange.origin {
            return;
        }
        if exchange.children > 0 && self.is_above(child, parent) {
            return;
        }
        // Spans of the child's trace may have left already.
        if let Some(trace) = exchange.trace.clone()
            && !finish::adopt(&mut self.exchanges, parent, &trace)
        {
            return;
        }
        let Some(exchange) = self.exchanges.get_mut(child) else { return };
        exchange.origin = Origin::Local { key: parent, method, confidence };
        if let Some(parent) = self.exchanges.get_mut(parent) {
            parent.children += 1;
        }
    }

    /// Whether `upper` is the other one or above it: nothing can be below itself. (Only bytes that
    /// no kernel has written say so.)
    fn is_above(&self, upper: ExchangeKey, other: ExchangeKey) -> bool {
        let mut next = Some(other);
        while let Some(key) = next.take() {
            if key == upper {
                return true;
            }
            if let Some(Exchange { origin: Origin::Local { key, .. }, .. }) =
                self.exchanges.get(key)
            {
                next = Some(*key);
            }
        }
        false
    }

    /// The exchange was handed out; keeps it only while children need its identity.
    pub(super) fn forget(&mut self, key: ExchangeKey) {
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

/// Takes the first entry if its time has come.
pub(super) fn due<T>(queue: &mut VecDeque<(MonoNs, T)>, horizon: MonoNs) -> Option<(MonoNs, T)> {
    let is_due = queue.front().is_some_and(|(at, _)| *at <= horizon);
    if is_due { queue.pop_front() } else { None }
}
