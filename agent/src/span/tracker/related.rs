//! Which exchange another one belongs to, by their sockets: the two ends of one connection, and the
//! connection that nginx has a request from. Looks at no bytes.

use super::Tracker;
use crate::event::Behalf;
use crate::event::ids::Address;
use crate::protocol::Direction;
use crate::span::exchange::{Exchange, ExchangeKey, SocketKey};
use crate::span::model::{Confidence, Kind, Method};

/// How many of a connection's last requests are looked at, of which one may not be answered yet.
/// What was taken for a request and was none may lie between.
const LAST: usize = 4;

impl Tracker {
    /// The exchange that nginx has a request for which came by a certain connection; `None` is no reason to
    /// ask its thread.
    ///
    /// nginx serves the requests of a connection one by one, and reads the next one when it is done with
    /// all that the one before has caused. So it is the last that has begun, if all that was read is known
    /// and nothing else had been read with it. Of several that were, it is the first without an answer, or
    /// the one before that, if nginx does something in the background.
    pub(super) fn served(&self, behalf: &Behalf) -> Option<(ExchangeKey, Confidence)> {
        let socket = self.sockets.get(self.sockets.find(behalf.socket)?)?;
        if let Some(read_to) = behalf.read_to {
            let [known, _] = socket.expected;
            // A FIN may be counted.
            if read_to.wrapping_sub(known?) > 1 {
                return None;
            }
        }
        // A request may have begun among bytes that were not copied.
        let connection = socket.connection.as_ref();
        if connection.is_none_or(|connection| !connection.follows(Direction::Inbound)) {
            return None;
        }
        let server = |key: ExchangeKey| {
            let exchange = self.state.exchanges.get(key)?;
            (exchange.kind == Kind::Server && exchange.head_seen).then_some(exchange)
        };
        let last = socket.last_begun?;
        if server(last).is_some_and(|exchange| !exchange.is_pipelined) {
            return Some((last, Confidence::Exact));
        }
        if !behalf.is_current {
            return None;
        }
        // From the last one: before those that are open there may be thousands.
        let (mut first, mut others) = (None, 0);
        for (_, key) in socket.exchanges.iter().rev() {
            if server(*key).is_some_and(|exchange| exchange.end.is_none()) {
                (first, others) = (Some((*key, Confidence::Inferred)), 0);
            } else if others == LAST {
                break;
            } else {
                others += 1;
            }
        }
        first
    }

    /// Finds the exchange at the other end of the connection. On TCP the request's first byte has
    /// the same sequence number at both ends. Where one end has none, as a Unix stream, only one exchange
    /// may be without its counterpart at each end.
    pub(super) fn join(&mut self, key: ExchangeKey, kind: Kind, socket_key: SocketKey) {
        let Some(socket) = self.sockets.get(socket_key) else { return };
        let Some((peer_key, peer)) =
            socket.peer.and_then(|key| Some((key, self.sockets.get(key)?)))
        else {
            return;
        };
        let Some(mine) = self.state.exchanges.get(key) else { return };
        let is_numbered = !socket.is_unnumbered && !peer.is_unnumbered;
        let are_lone = socket.unjoined == 1 && peer.unjoined == 1;
        if if is_numbered { mine.request_seq.is_none() } else { !are_lone } {
            return;
        }
        let [last_read, _] = socket.last_moved;
        let is_counterpart = |other: &Exchange| {
            // Who has read the answer has asked before; an answer that was read before this request
            // began is another one's.
            let in_time = is_numbered
                || other.end.is_none_or(|(at, _)| match kind {
                    Kind::Client => other.start > last_read,
                    _ => mine.start <= at,
                });
            let is_same = !is_numbered || other.request_seq == mine.request_seq;
            other.kind != kind && !other.joined && is_same && in_time
        };
        let other = peer.unjoined_first().find(|other| {
            let other = self.state.exchanges.get(*other);
            other.is_some_and(is_counterpart)
        });
        let Some(other) = other else { return };
        let method = match socket.local {
            Address::Unix(_) => Method::UnixPeer,
            _ if is_numbered => Method::TcpSeq,
            _ => Method::TcpPeer,
        };
        let (client, server) = if kind == Kind::Client { (key, other) } else { (other, key) };
        self.state.link(server, client, method, Confidence::Exact);
        let Some([client, server]) = self.state.exchanges.get_disjoint_mut([client, server]) else {
            return;
        };
        client.joined = true;
        server.joined = true;
        // The request had been sent when it was read: the sender's clock was read later.
        client.start = client.start.min(server.start);
        for key in [socket_key, peer_key] {
            if let Some(socket) = self.sockets.get_mut(key) {
                socket.unjoined = socket.unjoined.saturating_sub(1);
            }
        }
    }

    /// After a loss where bytes are not numbered, counterparts of what is there may never come.
    pub(super) fn disjoin(&mut self, key: SocketKey) {
        let peer = self.sockets.get(key).and_then(|socket| socket.peer);
        for end in [Some(key), peer].into_iter().flatten() {
            let Some(socket) = self.sockets.get_mut(end) else { continue };
            socket.unjoined = 0;
            for (_, exchange) in &socket.exchanges {
                if let Some(exchange) = self.state.exchanges.get_mut(*exchange) {
                    exchange.joined = true;
                }
            }
        }
    }
}
