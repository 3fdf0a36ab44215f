//! How connections end: what was received may still be read then, and what had been done before may
//! come to light only by how far its process had come.

use std::mem;

use super::Tracker;
use crate::event::Last;
use crate::event::ids::Address;
use crate::platform::clock::MonoNs;
use crate::protocol::Direction;
use crate::span::exchange::SocketKey;
use crate::span::state;

/// How long after a connection is over, or after its last read since, what is open on it waits for
/// what had been received and may still be read.
const READ_LATE_NS: u64 = 500_000_000;

/// How long a process may take to learn that its connection is over: until then it may read what
/// begins something new.
const LEARNS_NS: u64 = 3_000_000_000;

/// How a connection came to its end.
#[derive(Clone, Copy)]
pub(super) enum Closing {
    /// The kernel says so.
    Told,
    /// Its process is gone; it may have closed it before.
    Vanished,
    /// It was found closed.
    Found,
    /// It may go on, but cannot be followed any more.
    OutOfSight,
}

impl Tracker {
    pub(super) fn end(&mut self, key: SocketKey, direction: Direction, at: MonoNs) {
        self.boundary(key, at, |connection, sink| connection.end(direction, sink));
    }

    /// The kernel has closed a connection. `held`: its process still has the socket, and may still
    /// read from it. (More may also be told of what happened before, because a peer's reset is
    /// handled within the very operation that provoked it.)
    pub(super) fn closed(&mut self, key: SocketKey, at: MonoNs, held: bool) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if let Address::Unix(_) = socket.local {
            return self.close(key, at, Closing::Found);
        }
        socket.closed_at = Some(at);
        if held {
            if !mem::replace(&mut socket.over, true) {
                self.over.push_back((at, key));
            }
        } else if socket.is_to_be_read() {
            // A half-closed connection is closed as soon as its peer has closed it, too.
            self.over.push_back((at, key));
        } else {
            self.close(key, at, Closing::Told);
        }
    }

    /// Closes connections that were over by `horizon` and of which nothing more is waited for.
    pub(super) fn leave(&mut self, horizon: MonoNs) {
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
        if socket.open > 0 {
            // A response may be there, and be read some time.
            let unread = socket.is_to_be_read();
            self.end_streams(key, at, if unread { Closing::OutOfSight } else { Closing::Told });
        }
    }

    pub(super) fn close(&mut self, key: SocketKey, at: MonoNs, how: Closing) {
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
            Closing::Found => connection.found_closed(sink),
            Closing::OutOfSight => connection.lose_sight(sink),
        });
    }

    /// The process has closed a socket, with which it had come this far: operations that were not seen may
    /// have been its last ones, or those of another process that has it, too, and is not traced.
    pub(super) fn last(&mut self, key: SocketKey, last: Last, at: MonoNs) {
        let ends = [
            (Direction::Inbound, last.read_to, last.has_read),
            (Direction::Outbound, last.written_to, last.has_written),
        ];
        for (direction, position, has_moved) in ends {
            let Some(socket) = self.sockets.get_mut(key) else { return };
            let is_unseen = *socket.last_moved_mut(direction) == MonoNs::default();
            let expected = position.and_then(|at| socket.expected_mut(direction).replace(at));
            let missing = match position.zip(expected).map(|(to, from)| to.wrapping_sub(from)) {
                Some(missing @ 1..) if missing < 1 << 31 => Some(u64::from(missing)),
                // Nothing says where it began.
                None if is_unseen && has_moved && !socket.is_older => None,
                _ => continue,
            };
            // Once is enough.
            socket.is_older |= missing.is_none();
            self.missed(key);
            self.gap(key, direction, missing, at);
        }
    }
}
