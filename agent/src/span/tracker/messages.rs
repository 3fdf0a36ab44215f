//! What a connection's parser tells, taken in: exchanges begin, are told more of, and are over.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{EXCHANGES_MAX, Tracker};
use crate::event::ids::{Address, TaskId};
use crate::platform::clock::MonoNs;
use crate::protocol::{self, Direction, End, ExchangeNo, http1};
use crate::span::attributes::Attributes;
use crate::span::exchange::{Exchange, ExchangeKey, Origin, SocketKey};
use crate::span::http::{self, Ends};
use crate::span::model::Kind;
use crate::span::sockets::SocketState;
use crate::span::state::Operation;

/// Room for the attributes of an ordinary request, encoded.
const ATTRIBUTE_BYTES: usize = 640;

impl Tracker {
    /// Feeds the parser something that no task did.
    pub(super) fn boundary(
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
    pub(super) fn feed(
        &mut self,
        key: SocketKey,
        operation: &Operation,
        step: impl FnOnce(&mut http1::Connection, &mut dyn FnMut(protocol::Event<'_>)),
    ) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Some(mut connection) = socket.connection.take() else { return };
        let mut sink = |event: protocol::Event<'_>| self.message(key, operation, event);
        step(&mut connection, &mut sink);
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.connection = Some(connection);
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
                self.over(socket_key, key, at, Some(end));
            }
            Message::Abandoned { exchange } => {
                let Some(key) = self.open(key, exchange) else { return };
                self.over(socket_key, key, at, None);
            }
            Message::Mistaken { exchange } => {
                let Some(key) = self.open(key, exchange) else { return };
                if let Some(exchange) = self.state.exchanges.get_mut(key) {
                    // Unless what names it as its parent has left already.
                    exchange.mistaken = exchange.trace.is_none();
                }
                self.over(socket_key, key, at, None);
            }
            Message::Untold => self.state.tallies.untold += 1,
            Message::Unknown { bytes, .. } => self.state.tallies.unknown_bytes += bytes,
        }
    }

    /// Nothing more will come of an exchange, of which its socket has one less open.
    pub(super) fn over(
        &mut self,
        socket: SocketKey,
        key: ExchangeKey,
        at: MonoNs,
        end: Option<End>,
    ) {
        if self.state.over(key, at, end)
            && let Some(socket) = self.sockets.get_mut(socket)
        {
            socket.open = socket.open.saturating_sub(1);
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
        // Before the first one there is what a proxy says of its client, or blank lines.
        let is_behind = offset > 0 && number > 0;
        let is_busy = |socket: &SocketState| socket.open > 0;
        let is_pipelined = is_behind || self.sockets.get(socket_key).is_some_and(is_busy);
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
            attributes: Attributes::with_capacity(ATTRIBUTE_BYTES),
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
        if let Some(process) = self.state.processes.get_mut(&operation.task.tgid) {
            process.moved = operation.at;
        }
        let Some(socket) = self.sockets.get_mut(socket_key) else { return };
        socket.exchanges.push_back((number, key));
        socket.last_begun = Some(key);
        socket.open += 1;
        socket.unjoined += 1;
        if let Address::Unix(_) = socket.local {
            self.watch(socket_key, operation.at);
        }
        self.join(key, kind, socket_key);
    }
}
