//! The sockets that were told, what they are the two ends of, and what is open on each.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use slotmap::SlotMap;

use super::exchange::{ExchangeKey, SocketKey};
use super::standing::Standing;
use crate::event::ids::{Address, SocketId, Tgid};
use crate::event::{Role, Socket};
use crate::platform::clock::MonoNs;
use crate::protocol::http1::{Connection, Limits};
use crate::protocol::{Direction, ExchangeNo};

/// Most sockets kept; for more, old ones are forgotten and counted. Tests come to the bound sooner.
const SOCKETS_MAX: usize = if cfg!(any(test, feature = "fuzzing")) { 64 } else { 1 << 18 };

/// Of how many sockets the memory is kept for those to come, and what waited on each of them at most.
const SPARES: usize = 1 << 10;
const SPARE_EXCHANGES: usize = 8;

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
    /// Where its streams begin, if its other end may have to be found by that.
    start: Option<Start>,
    /// What is understood of it; elsewhere while it is being fed. Apart, since it is moved for that.
    pub(super) connection: Option<Box<Connection>>,
    /// It is looked at whether it is still there.
    pub(super) watched: bool,
    /// It had been used before it was told.
    pub(super) is_older: bool,
    /// What its requests say alike.
    pub(super) standing: Standing,
    /// Its bytes have no sequence numbers of TCP's that are known: a Unix stream, MPTCP, kernel TLS.
    pub(super) is_unnumbered: bool,
    /// Sequence number of the next byte, by direction.
    pub(super) expected: [Option<u32>; 2],
    /// When bytes last moved, by direction.
    pub(super) last_moved: [MonoNs; 2],
    /// Number of the next operation.
    pub(super) next_op: u32,
    /// When it was last used.
    pub(super) touched: MonoNs,
    /// Exchanges not yet handed out, oldest first.
    pub(super) exchanges: VecDeque<(ExchangeNo, ExchangeKey)>,
    /// The exchange that was the last to begin, unless that could not be kept.
    pub(super) last_begun: Option<ExchangeKey>,
    /// How many of them are not over.
    pub(super) open: u32,
    /// How many of them have no counterpart at the other end.
    pub(super) unjoined: usize,
    /// When the kernel closed it.
    pub(super) closed_at: Option<MonoNs>,
    /// Its connection is over, but its process may still read what had come: it is forgotten soon,
    /// whether or not anything more is told.
    pub(super) over: bool,
    /// It is gone, and kept only for what is yet to be handed out.
    pub(super) closed: bool,
}

impl SocketState {
    /// Whether it is the one that a record tells of.
    pub(super) fn is(&self, socket: &Socket) -> bool {
        let ends = (self.local, self.remote, self.netns);
        ends == (socket.local, socket.remote, socket.netns) && !self.closed
    }

    /// Whether responses are still to be read: they can be when the connection itself is gone.
    pub(super) fn is_to_be_read(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.is_to_be_read())
    }

    pub(super) fn exchange(&self, number: ExchangeNo) -> Option<ExchangeKey> {
        match self.exchanges.back()? {
            // As nearly always.
            (last, key) if *last == number => Some(*key),
            _ => self.exchanges.get(self.index(number)?).map(|(_, key)| *key),
        }
    }

    /// Forgets an exchange.
    pub(super) fn remove_exchange(&mut self, number: ExchangeNo) {
        // They are handed out in the order they end, which is mostly the order they began.
        if let Some(index) = self.index(number) {
            self.exchanges.remove(index);
        }
    }

    /// Where an exchange is. Their numbers follow each other, but for exchanges that were not begun
    /// or are handed out already.
    fn index(&self, number: ExchangeNo) -> Option<usize> {
        let (first, _) = self.exchanges.front()?;
        let offset = number.wrapping_sub(*first);
        let is_there =
            |index: &usize| self.exchanges.get(*index).is_some_and(|(no, _)| *no == number);
        Some(offset as usize).filter(is_there).or_else(|| {
            self.exchanges.binary_search_by_key(&offset, |(no, _)| no.wrapping_sub(*first)).ok()
        })
    }

    /// Its exchanges, those first that have no counterpart at the other end: mostly the last.
    pub(super) fn unjoined_first(&self) -> impl Iterator<Item = ExchangeKey> {
        let joined = self.exchanges.len().saturating_sub(self.unjoined);
        let (older, newer) = (self.exchanges.range(..joined), self.exchanges.range(joined..));
        newer.chain(older.rev()).filter(|_| self.unjoined > 0).map(|(_, key)| *key)
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

/// An end's address as the other end would name it, in few numbers, since it is hashed for every connection
/// thrice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct EndKey {
    local: u128,
    remote: u128,
    ports: u32,
    netns: u32,
    is_unix: bool,
}

fn end_key(local: Address, remote: Address, netns: u32) -> EndKey {
    let numbers = |address: Address| match address {
        Address::Tcp(address) => match address.ip() {
            IpAddr::V4(ip) => (u128::from(ip.to_ipv6_mapped()), address.port()),
            IpAddr::V6(ip) => (u128::from(ip), address.port()),
        },
        Address::Unix(address) => (u128::from(address), 0),
    };
    let is_unix = matches!(local, Address::Unix(_));
    // Loopback means nothing outside its namespace.
    let netns = if local.is_local_to_namespace() { netns } else { 0 };
    let ((local, local_port), (remote, remote_port)) = (numbers(local), numbers(remote));
    let ports = u32::from(local_port) << 16 | u32::from(remote_port);
    EndKey { local, remote, ports, netns, is_unix }
}

/// Where both streams of a connection begin, by which one end knows the other where their addresses are translated
/// on the way (NAT, as for the services of a cluster and the ports of containers): both numbers are random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Start {
    read: u32,
    written: u32,
    is_accepted: bool,
}

impl Start {
    /// Nothing translates what stays in a namespace's loopback from its first address to its last.
    fn of(socket: &Socket) -> Option<Self> {
        let is_inside =
            socket.local.is_local_to_namespace() && socket.remote.is_local_to_namespace();
        let [Some(read), Some(written)] = socket.from else { return None };
        let is_accepted = match (socket.local, socket.role?) {
            (Address::Tcp(_), role) => role == Role::Accepted,
            (Address::Unix(_), _) => return None,
        };
        (!is_inside).then_some(Self { read, written, is_accepted })
    }

    /// That of the other end.
    fn other(self) -> Self {
        Self { read: self.written, written: self.read, is_accepted: !self.is_accepted }
    }
}

/// What a socket has had memory for. The last that was freed is nearest to the processor.
#[derive(Debug, Default)]
struct Spare {
    connection: Box<Connection>,
    standing: Standing,
    exchanges: VecDeque<(ExchangeNo, ExchangeKey)>,
}

/// All sockets.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    states: SlotMap<SocketKey, SocketState>,
    spares: Vec<Spare>,
    by_id: HashMap<SocketId, SocketKey, foldhash::fast::RandomState>,
    by_end: HashMap<EndKey, SocketKey, foldhash::fast::RandomState>,
    by_start: HashMap<Start, SocketKey, foldhash::fast::RandomState>,
    /// Unix sockets by their own address.
    by_address: HashMap<u64, SocketKey, foldhash::fast::RandomState>,
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

    /// What must be gone if this socket is there: its two ends, or the address of this one, were
    /// those of another. (The kernel tells of no Unix socket's close, and a record of one may be
    /// lost.)
    pub(super) fn superseded(&self, socket: &Socket) -> Vec<SocketKey> {
        let mut gone: Vec<SocketKey> = Vec::new();
        if socket.local == Address::Unix(0) {
            return gone;
        }
        let same = self.by_end.get(&end_key(socket.local, socket.remote, socket.netns));
        // Two networks may use the same addresses.
        let is_other_network = |key: &&SocketKey| {
            let netns = self.states.get(**key).map(|state| state.netns);
            netns != Some(socket.netns) && !matches!(socket.local, Address::Unix(_))
        };
        gone.extend(same.filter(|key| !is_other_network(key)));
        if let Address::Unix(address @ 1..) = socket.local
            && let Some(old) = self.by_address.get(&address)
        {
            gone.push(*old);
            // An end keeps the memory of the other, so it went first.
            gone.extend(self.states.get(*old).and_then(|old| old.peer));
        }
        gone.dedup();
        gone
    }

    /// Whether old ones must be forgotten before another is added.
    pub(super) fn is_full(&self) -> bool {
        self.states.len() >= SOCKETS_MAX
    }

    /// A sixteenth of those that are asked for, to be forgotten: idle ones first, longest unused
    /// first.
    pub(super) fn oldest(&self, of: impl Fn(&SocketState) -> bool) -> Vec<SocketKey> {
        let rank = |state: &SocketState| (!state.exchanges.is_empty(), state.touched);
        let states = self.states.iter().filter(|(_, state)| of(state));
        let mut all: Vec<_> = states.map(|(key, state)| (rank(state), key)).collect();
        let some = all.len() / 16;
        if some < all.len() {
            all.select_nth_unstable(some);
        }
        all.into_iter().take(some.max(1)).map(|(_, key)| key).collect()
    }

    /// Adds a socket and finds its other end.
    pub(super) fn add(&mut self, socket: &Socket) {
        let Socket { id, tgid, netns, local, remote, role, is_older, from, op, .. } = *socket;
        let other_end = end_key(remote, local, netns);
        let start = Start::of(socket);
        let by_end = self.by_end.get(&other_end).filter(|_| is_known(local, remote));
        let by_start = || self.by_start.get(&start?.other());
        let peer = by_end.or_else(by_start).copied();
        let Spare { mut connection, mut standing, exchanges } =
            self.spares.pop().unwrap_or_default();
        connection.begin_anew(new_connection(role, is_older));
        standing.begin_anew();
        let key = self.states.insert(SocketState {
            id,
            tgid,
            netns,
            local,
            remote,
            peer,
            start,
            connection: Some(connection),
            is_older,
            watched: false,
            standing,
            is_unnumbered: matches!(local, Address::Unix(_)),
            expected: from,
            last_moved: [MonoNs::default(); 2],
            next_op: op,
            touched: socket.at,
            exchanges,
            last_begun: None,
            open: 0,
            unjoined: 0,
            closed_at: None,
            over: false,
            closed: false,
        });
        if let Some(other) = peer.and_then(|peer| self.states.get_mut(peer)) {
            other.peer = Some(key);
        }
        self.by_id.insert(id, key);
        self.by_end.insert(end_key(local, remote, netns), key);
        if let Some(start) = start {
            self.by_start.insert(start, key);
        }
        if let Address::Unix(address @ 1..) = local {
            self.by_address.insert(address, key);
        }
    }

    /// No event and no other end finds the socket any more.
    pub(super) fn unlink(&mut self, key: SocketKey) {
        let Some(state) = self.states.get(key) else { return };
        fn remove<K: std::hash::Hash + Eq>(
            map: &mut HashMap<K, SocketKey, foldhash::fast::RandomState>,
            at: K,
            key: SocketKey,
        ) {
            if let Entry::Occupied(entry) = map.entry(at)
                && *entry.get() == key
            {
                entry.remove();
            }
        }
        remove(&mut self.by_id, state.id, key);
        remove(&mut self.by_end, end_key(state.local, state.remote, state.netns), key);
        if let Some(start) = state.start {
            remove(&mut self.by_start, start, key);
        }
        if let Address::Unix(address) = state.local {
            remove(&mut self.by_address, address, key);
        }
        if let Some(peer) = state.peer
            && let Some(other) = self.states.get_mut(peer)
            && other.peer == Some(key)
        {
            other.peer = None;
        }
    }

    /// Forgets a socket.
    pub(super) fn remove(&mut self, key: SocketKey) {
        self.unlink(key);
        let Some(SocketState { connection: Some(connection), standing, mut exchanges, .. }) =
            self.states.remove(key)
        else {
            return;
        };
        let is_small = exchanges.capacity() <= SPARE_EXCHANGES && connection.is_small();
        if is_small && self.spares.len() < SPARES {
            exchanges.clear();
            self.spares.push(Spare { connection, standing, exchanges });
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
fn new_connection(role: Option<Role>, is_older: bool) -> Connection {
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
