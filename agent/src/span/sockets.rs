//! The sockets that were told, what they are the two ends of, and what is open on each.

use std::collections::{HashMap, VecDeque};

use slotmap::SlotMap;

use super::exchange::{ExchangeKey, SocketKey};
use super::http::Standing;
use crate::event::ids::{Address, SocketId, Tgid};
use crate::event::{Role, Socket};
use crate::platform::clock::MonoNs;
use crate::protocol::http1::{Connection, Limits};
use crate::protocol::{Direction, ExchangeNo};

/// Most sockets kept; more are left out and counted.
const SOCKETS_MAX: usize = 1 << 18;

/// One end of a stream.
#[derive(Debug)]
pub(super) struct SocketState {
    pub(super) id: SocketId,
    pub(super) tgid: Tgid,
    pub(super) netns: u32,
    pub(super) local: Address,
    pub(super) remote: Address,
    /// The other end, if it is on this host and told.
    pub(super) peer: Option<SocketKey>,
    pub(super) connection: Connection,
    /// What its requests say alike.
    pub(super) standing: Standing,
    /// Sequence number of the next byte, by direction.
    pub(super) expected: [Option<u32>; 2],
    /// When bytes last moved, by direction.
    pub(super) last_moved: [MonoNs; 2],
    /// Number of the next operation.
    pub(super) next_op: Option<u32>,
    /// Exchanges not yet handed out, oldest first.
    pub(super) exchanges: VecDeque<(ExchangeNo, ExchangeKey)>,
    pub(super) closed: bool,
    /// Its connection is over: it is forgotten soon, whether or not its close is told.
    pub(super) over: bool,
}

impl SocketState {
    pub(super) fn exchange(&self, number: ExchangeNo) -> Option<ExchangeKey> {
        let is_it = |(no, _): &&(ExchangeNo, ExchangeKey)| *no == number;
        // Numbers follow each other, but for exchanges that were not begun.
        let (first, _) = self.exchanges.front()?;
        let guess = self.exchanges.get(number.wrapping_sub(*first) as usize).filter(is_it);
        guess.or_else(|| self.exchanges.iter().find(is_it)).map(|(_, key)| *key)
    }

    /// Forgets an exchange.
    pub(super) fn remove_exchange(&mut self, number: ExchangeNo) {
        // They are handed out in the order they end, which is mostly the order they began.
        if self.exchanges.front().is_some_and(|(no, _)| *no == number) {
            self.exchanges.pop_front();
        } else {
            self.exchanges.retain(|(no, _)| *no != number);
        }
    }

    /// Where it is kept when the direction's bytes last moved.
    pub(super) fn last_moved_mut(&mut self, direction: Direction) -> &mut MonoNs {
        let [inbound, outbound] = &mut self.last_moved;
        match direction {
            Direction::Inbound => inbound,
            Direction::Outbound => outbound,
        }
    }

    /// Where the direction's next expected sequence number is kept.
    pub(super) fn expected_mut(&mut self, direction: Direction) -> &mut Option<u32> {
        let [inbound, outbound] = &mut self.expected;
        match direction {
            Direction::Inbound => inbound,
            Direction::Outbound => outbound,
        }
    }
}

/// An end's address as the other end would name it. Loopback means nothing outside its namespace.
type EndKey = (Address, Address, u32);

fn end_key(local: Address, remote: Address, netns: u32) -> EndKey {
    let netns = if local.is_local_to_namespace() { netns } else { 0 };
    (local, remote, netns)
}

/// All sockets.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    states: SlotMap<SocketKey, SocketState>,
    by_id: HashMap<SocketId, SocketKey, foldhash::fast::RandomState>,
    by_end: HashMap<EndKey, SocketKey, foldhash::fast::RandomState>,
}

impl Sockets {
    pub(super) fn find(&self, id: SocketId) -> Option<SocketKey> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn get(&self, key: SocketKey) -> Option<&SocketState> {
        self.states.get(key)
    }

    pub(super) fn get_mut(&mut self, key: SocketKey) -> Option<&mut SocketState> {
        self.states.get_mut(key)
    }

    pub(super) fn len(&self) -> usize {
        self.states.len()
    }

    /// Adds a socket and finds its other end. `None` if there are too many.
    pub(super) fn add(&mut self, socket: &Socket) -> Option<SocketKey> {
        if self.states.len() >= SOCKETS_MAX {
            return None;
        }
        let Socket { id, tgid, netns, local, remote, role, is_older, .. } = *socket;
        let other_end = end_key(remote, local, netns);
        let peer = self.by_end.get(&other_end).copied().filter(|_| is_known(local, remote));
        let key = self.states.insert(SocketState {
            id,
            tgid,
            netns,
            local,
            remote,
            peer,
            connection: connection(role, is_older),
            standing: Standing::default(),
            expected: [None; 2],
            last_moved: [MonoNs::default(); 2],
            next_op: None,
            exchanges: VecDeque::new(),
            closed: false,
            over: false,
        });
        if let Some(other) = peer.and_then(|peer| self.states.get_mut(peer)) {
            other.peer = Some(key);
        }
        self.by_id.insert(id, key);
        self.by_end.insert(end_key(local, remote, netns), key);
        Some(key)
    }

    /// Forgets a socket.
    pub(super) fn remove(&mut self, key: SocketKey) {
        let Some(state) = self.states.remove(key) else { return };
        self.by_id.remove(&state.id);
        let end = end_key(state.local, state.remote, state.netns);
        if self.by_end.get(&end) == Some(&key) {
            self.by_end.remove(&end);
        }
    }

    /// Unix sockets of a process: no event tells when they close.
    pub(super) fn unix_of(&self, tgid: Tgid) -> Vec<SocketKey> {
        let mine =
            |state: &SocketState| state.tgid == tgid && matches!(state.local, Address::Unix(_));
        self.states.iter().filter(|(_, state)| mine(state)).map(|(key, _)| key).collect()
    }

    pub(super) fn keys(&self) -> Vec<SocketKey> {
        self.states.keys().collect()
    }
}

/// Of a connection that was there before, only the accepting end is sure to be the server: what
/// looks like a request in the other direction is the content of a response.
fn connection(role: Option<Role>, is_older: bool) -> Connection {
    let limits = Limits::default();
    match (is_older, role) {
        (false, _) => Connection::new(limits),
        (true, Some(Role::Accepted)) => Connection::older(limits, Some(Direction::Inbound)),
        (true, _) => Connection::older(limits, None),
    }
}

fn is_known(local: Address, remote: Address) -> bool {
    !matches!((local, remote), (Address::Unix(0), _) | (_, Address::Unix(0)))
}
