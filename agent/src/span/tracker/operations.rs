//! An operation on a socket: where its bytes stand, what is missing before them, and what it says of the
//! connection. Looks at no bytes.

use std::mem;

use super::Tracker;
use super::ending::Closing;
use crate::event::{Io, Outcome};
use crate::platform::clock::MonoNs;
use crate::protocol::Direction;
use crate::span::exchange::SocketKey;
use crate::span::model::Kind;
use crate::span::state::Operation;

impl Tracker {
    pub(super) fn io(&mut self, io: &Io<'_>) {
        self.state.tick(io.at);
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

    /// Bytes of an operation were not copied: the rest of a request's head may have been among them. It can
    /// only be the last request's: before those that are open there may be thousands.
    fn cut(&mut self, key: SocketKey, direction: Direction) {
        let kind = if direction == Direction::Inbound { Kind::Server } else { Kind::Client };
        let last = self.sockets.get(key).and_then(|socket| socket.last_begun);
        if let Some(exchange) = last.and_then(|key| self.state.exchanges.get_mut(key)) {
            exchange.head_cut |= exchange.kind == kind && !exchange.head_seen;
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
        if io.tcp_seq.is_some_and(|seq| self.stands_still(key, io, seq)) {
            self.unnumber(key);
        }
        let Some(socket) = self.sockets.get_mut(key) else { return operation };
        let Some(seq) = io.tcp_seq.filter(|_| !socket.is_unnumbered) else {
            socket.is_unnumbered = true;
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
        let is_end = matches!(io.outcome, Outcome::End);
        // An urgent byte takes a sequence number, but is not read with what is around it.
        let urgent = io.direction == Direction::Inbound && skipped == 0 && ahead == Some(1);
        // A FIN may be counted with the end. A step back is two threads on one socket, not a loss.
        let missing = ahead.unwrap_or(0).saturating_sub(u32::from(is_end || urgent));
        let first = if is_end && ahead > Some(0) { seq.wrapping_sub(1) } else { seq };
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

    /// Whether an operation ends where the one before it had ended, though it has moved bytes: not by TCP then, but
    /// by a program of the kernel's that puts them into the other socket's queue (`sk_msg`). (Or two threads have
    /// read at one time.)
    fn stands_still(&self, key: SocketKey, io: &Io<'_>, seq: u32) -> bool {
        let Outcome::Moved(segment) = io.outcome else { return false };
        let Some(socket) = self.sockets.get(key) else { return false };
        let [inbound, outbound] = socket.expected;
        let expected = if io.direction == Direction::Inbound { inbound } else { outbound };
        !socket.is_unnumbered && expected == Some(seq.wrapping_add(segment.len as u32))
    }

    /// The positions of a connection's bytes turn out to say nothing.
    fn unnumber(&mut self, key: SocketKey) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        socket.is_unnumbered = true;
        socket.expected = [None; 2];
        // Counterparts may have been looked for by them.
        let lone = socket.unjoined_first().next();
        let kind = lone.and_then(|lone| self.state.exchanges.get(lone)).map(|lone| lone.kind);
        if let Some((lone, kind)) = lone.zip(kind) {
            self.join(lone, kind, key);
        }
    }

    /// Something was missed on a socket: what is open there may have missed it.
    pub(super) fn missed(&mut self, key: SocketKey) {
        self.state.tallies.gaps += 1;
        let Some(socket) = self.sockets.get(key) else { return };
        for (_, exchange) in &socket.exchanges {
            if let Some(exchange) = self.state.exchanges.get_mut(*exchange) {
                exchange.gaps += u32::from(exchange.end.is_none());
            }
        }
        let peer = socket.peer.and_then(|peer| self.sockets.get(peer));
        if !socket.is_unnumbered && peer.is_some_and(|peer| peer.is_unnumbered) {
            self.disjoin(key);
        }
    }

    pub(super) fn gap(
        &mut self,
        key: SocketKey,
        direction: Direction,
        bytes: Option<u64>,
        at: MonoNs,
    ) {
        self.boundary(key, at, |connection, sink| connection.gap(direction, bytes, sink));
    }
}

/// Errors after which a connection brings nothing more: `EPIPE`, `ECONNABORTED`, `ECONNRESET`,
/// `ENOTCONN`, `ESHUTDOWN`, `ETIMEDOUT`, `ECONNREFUSED`.
fn is_final(errno: u32) -> bool {
    matches!(errno, 32 | 103 | 104 | 107 | 108 | 110 | 111)
}
