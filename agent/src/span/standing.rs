//! What the requests of one connection say alike, kept encoded: nearly every request of a kept-alive
//! connection says of it what the one before has said, and many connections say the same but for the
//! other end's address. So a connection has its own only that; the rest is shared.

use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::Arc;

use super::attributes::Attributes;
use super::http::{Ends, TEXT_MAX, cut, split_host};
use super::model::Kind;

/// How many different things are remembered for connections to come. Which is which tells their hash:
/// one takes the place of another that has the same, so that no peer can make it more.
const SAYINGS: usize = 1 << 10;

/// What a head says of its connection; texts are cut and clean already.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Words<'a> {
    pub(super) kind: Kind,
    pub(super) minor_version: u8,
    pub(super) scheme: &'a str,
    pub(super) host: &'a str,
    pub(super) agent: Option<&'a str>,
}

/// What is said of connections, but for the other end's address.
#[derive(Debug)]
struct Saying {
    kind: Kind,
    minor_version: u8,
    scheme: String,
    host: String,
    agent: Option<String>,
    /// The server's end, which stands in for what the host leaves out.
    server: Option<SocketAddr>,
    /// Who is asked: what comes before the other end's address.
    asked: Attributes,
    /// How, and by whom: what comes behind it.
    asking: Attributes,
}

impl Saying {
    fn new(words: &Words<'_>, server: Option<SocketAddr>) -> Self {
        let mut asked = Attributes::default();
        asked.text("url.scheme", words.scheme);
        let (address, port) = split_host(words.host);
        match (address.is_empty(), server) {
            (false, _) => asked.text("server.address", cut(address, TEXT_MAX)),
            (true, Some(server)) => asked.ip("server.address", server.ip()),
            (true, None) => {}
        }
        if let Some(port) = port.or(server.map(|server| server.port())) {
            asked.int("server.port", i64::from(port));
        }
        let mut asking = Attributes::default();
        let version = if words.minor_version == 0 { "1.0" } else { "1.1" };
        asking.text("network.protocol.version", version);
        if let Some(agent) = words.agent {
            asking.text("user_agent.original", agent);
        }
        Self {
            kind: words.kind,
            minor_version: words.minor_version,
            scheme: words.scheme.to_owned(),
            host: words.host.to_owned(),
            agent: words.agent.map(str::to_owned),
            server,
            asked,
            asking,
        }
    }

    fn is(&self, words: &Words<'_>) -> bool {
        self.kind == words.kind
            && self.minor_version == words.minor_version
            && self.agent.as_deref() == words.agent
            && self.host == words.host
            && self.scheme == words.scheme
    }
}

/// What connections have said of late.
#[derive(Debug, Default)]
pub struct Sayings {
    slots: Vec<Option<Arc<Saying>>>,
    hasher: foldhash::fast::RandomState,
}

impl Sayings {
    fn find(&mut self, words: &Words<'_>, server: Option<SocketAddr>) -> Arc<Saying> {
        if self.slots.is_empty() {
            self.slots.resize(SAYINGS, None);
        }
        let at = self.hasher.hash_one((words, server)) as usize % SAYINGS;
        let slot = self.slots.get_mut(at);
        match slot {
            Some(Some(known)) if known.is(words) && known.server == server => Arc::clone(known),
            slot => {
                let saying = Arc::new(Saying::new(words, server));
                if let Some(slot) = slot {
                    *slot = Some(Arc::clone(&saying));
                }
                saying
            }
        }
    }
}

/// What a connection's last request has said of it.
#[derive(Debug, Default)]
pub struct Standing {
    saying: Option<Arc<Saying>>,
    /// Where the other end is.
    peer: Attributes,
}

impl Standing {
    /// Adds what a request that says this tells of its connection, whose ends stay what they are.
    pub(super) fn tell(
        &mut self,
        words: &Words<'_>,
        ends: &dyn Fn() -> Ends,
        sayings: &mut Sayings,
        attributes: &mut Attributes,
    ) {
        let same = self.saying.as_ref().filter(|saying| saying.is(words));
        let saying = match same {
            Some(saying) => saying,
            None => {
                let ends = ends();
                let server = if words.kind == Kind::Client { ends.peer } else { ends.local };
                if self.saying.as_ref().is_none_or(|saying| saying.kind != words.kind) {
                    self.peer = peer(words.kind, ends.peer);
                }
                self.saying.insert(sayings.find(words, server))
            }
        };
        attributes.append(&saying.asked);
        attributes.append(&self.peer);
        attributes.append(&saying.asking);
    }
}

fn peer(kind: Kind, peer: Option<SocketAddr>) -> Attributes {
    // Room for an address of IPv4, and no more for each of many connections than they need.
    let mut attributes = Attributes::with_capacity(PEER_BYTES);
    match peer {
        Some(peer) => {
            if kind == Kind::Server {
                attributes.ip("client.address", peer.ip());
            }
            attributes.ip("network.peer.address", peer.ip());
            attributes.int("network.peer.port", i64::from(peer.port()));
        }
        None => attributes.text("network.transport", "unix"),
    }
    attributes
}

/// Room for the address of a peer by IPv4, encoded.
const PEER_BYTES: usize = 112;
