//! What the requests of one connection say alike, kept encoded: nearly every request of a kept-alive
//! connection says of it what the one before has said, and many connections say the same but for the
//! other end's address. So a connection has its own only that; the rest is shared.

use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::attributes::Attributes;
use super::http::{Ends, TEXT_MAX, cut, split_host};
use super::model::Kind;
use super::redact;

/// How many different things are remembered for connections to come. Where, tells their hash, so that no peer
/// can make it more.
const SAYINGS: usize = 1 << 10;
/// How many are remembered at one place, since what takes turns there would be made anew each time.
const WAYS: usize = 4;

/// What a head says of its connection, as it says it.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Words<'a> {
    pub(super) kind: Kind,
    pub(super) minor_version: u8,
    /// Of the target's absolute form.
    pub(super) scheme: Option<&'a str>,
    /// Of the target; clean already.
    pub(super) authority: Option<&'a str>,
    /// The header's value; `None` also if the target says it.
    pub(super) host: Option<&'a [u8]>,
    pub(super) agent: Option<&'a [u8]>,
}

impl Words<'_> {
    fn keep(&self) -> Kept {
        Kept {
            kind: self.kind,
            minor_version: self.minor_version,
            scheme: self.scheme.map(str::to_owned),
            authority: self.authority.map(str::to_owned),
            host: self.host.map(<[u8]>::to_vec),
            agent: self.agent.map(<[u8]>::to_vec),
        }
    }

    /// Whether they may be kept: not what is long, nor a host that names a user.
    fn may_be_kept(&self) -> bool {
        let longest = |text: Option<&[u8]>| text.unwrap_or_default().len() <= TEXT_MAX;
        let texts = [self.scheme.map(str::as_bytes), self.authority.map(str::as_bytes)];
        let is_clean = text(self.host).is_none_or(|host| redact::authority(host) == host);
        is_clean && texts.into_iter().chain([self.host, self.agent]).all(longest)
    }
}

/// [`Words`] that are kept to know them again, without a look at what they mean.
#[derive(Debug)]
struct Kept {
    kind: Kind,
    minor_version: u8,
    scheme: Option<String>,
    authority: Option<String>,
    host: Option<Vec<u8>>,
    agent: Option<Vec<u8>>,
}

impl Kept {
    fn is(&self, words: &Words<'_>) -> bool {
        self.kind == words.kind
            && self.minor_version == words.minor_version
            && self.agent.as_deref() == words.agent
            && self.host.as_deref() == words.host
            && self.authority.as_deref() == words.authority
            && self.scheme.as_deref() == words.scheme
    }
}

/// What is said of connections, but for the other end's address.
#[derive(Debug)]
struct Saying {
    words: Option<Kept>,
    scheme: String,
    host: Option<String>,
    /// The server's end, which stands in for what the host leaves out.
    server: Option<SocketAddr>,
    /// Who is asked: what comes before the other end's address.
    asked: Attributes,
    /// How, and by whom: what comes behind it.
    asking: Attributes,
}

impl Saying {
    fn new(words: &Words<'_>, server: Option<SocketAddr>) -> Self {
        let scheme = cut(words.scheme.unwrap_or("http"), TEXT_MAX);
        let host = words.authority.or_else(|| text(words.host).map(redact::authority));
        let host = host.map(|host| cut(host, TEXT_MAX));
        let mut asked = Attributes::default();
        asked.text("url.scheme", scheme);
        let (address, port) = split_host(host.unwrap_or_default());
        match (address.is_empty(), server) {
            (false, _) => asked.text("server.address", cut(address, TEXT_MAX)),
            (true, Some(server)) => asked.ip(&["server.address"], server.ip()),
            (true, None) => {}
        }
        if let Some(port) = port.or(server.map(|server| server.port())) {
            asked.int("server.port", i64::from(port));
        }
        let mut asking = Attributes::default();
        let version = if words.minor_version == 0 { "1.0" } else { "1.1" };
        asking.text("network.protocol.version", version);
        if let Some(agent) = text(words.agent) {
            asking.text("user_agent.original", cut(agent, TEXT_MAX));
        }
        Self {
            words: words.may_be_kept().then(|| words.keep()),
            scheme: scheme.to_owned(),
            host: host.map(str::to_owned),
            server,
            asked,
            asking,
        }
    }

    fn is(&self, words: &Words<'_>) -> bool {
        self.words.as_ref().is_some_and(|kept| kept.is(words))
    }
}

/// A header's value, if it is text.
fn text(value: Option<&[u8]>) -> Option<&str> {
    std::str::from_utf8(value?).ok().filter(|value| !value.is_empty())
}

/// What connections have said of late.
#[derive(Debug, Default)]
pub struct Sayings {
    slots: Vec<Option<Arc<Saying>>>,
    hasher: foldhash::fast::RandomState,
    /// From where the last connection was whose peer was told, and how that was said without the port: behind
    /// a proxy all come from there.
    from: Option<(Kind, IpAddr)>,
    said: Attributes,
}

impl Sayings {
    fn find(&mut self, words: &Words<'_>, server: Option<SocketAddr>) -> Arc<Saying> {
        if self.slots.is_empty() {
            self.slots.resize(SAYINGS, None);
        }
        let place = self.hasher.hash_one((words, server)) as usize % (SAYINGS / WAYS);
        let slots = self.slots.get_mut(place * WAYS..).unwrap_or_default();
        let slots = slots.get_mut(..WAYS).unwrap_or_default();
        let is_it = |known: &&Arc<Saying>| known.is(words) && known.server == server;
        if let Some(known) = slots.iter().flatten().find(is_it) {
            return Arc::clone(known);
        }
        let saying = Arc::new(Saying::new(words, server));
        slots.rotate_right(1);
        if let Some(oldest) = slots.first_mut() {
            *oldest = Some(Arc::clone(&saying));
        }
        saying
    }

    /// Says where the other end of a connection is.
    fn tell_peer(&mut self, attributes: &mut Attributes, kind: Kind, peer: Option<SocketAddr>) {
        attributes.clear();
        // Room for an address of IPv4, and no more for each of many connections than they need.
        attributes.reserve(PEER_BYTES);
        let Some(peer) = peer else { return attributes.text("network.transport", "unix") };
        let from = Some((kind, peer.ip()));
        if self.from != from {
            self.from = from;
            let keys: &[&str] = match kind {
                Kind::Server => &["client.address", "network.peer.address"],
                _ => &["network.peer.address"],
            };
            self.said.clear();
            self.said.ip(keys, peer.ip());
        }
        attributes.append(&self.said);
        attributes.int("network.peer.port", i64::from(peer.port()));
    }
}

/// What a connection's last request has said of it.
#[derive(Debug, Default)]
pub struct Standing {
    saying: Option<Arc<Saying>>,
    /// Whether the connection is a server's or a client's: what is told of the other end.
    kind: Option<Kind>,
    /// Where the other end is.
    peer: Attributes,
}

impl Standing {
    /// Forgets what it knew, for another connection; keeps the memory.
    pub(super) fn begin_anew(&mut self) {
        (self.saying, self.kind) = (None, None);
    }

    /// Takes in what a request says of its connection, whose ends stay what they are.
    pub(super) fn learn(
        &mut self,
        words: &Words<'_>,
        ends: &dyn Fn() -> Ends,
        sayings: &mut Sayings,
    ) {
        if self.saying.as_ref().is_some_and(|saying| saying.is(words)) {
            return;
        }
        let ends = ends();
        let server = if words.kind == Kind::Client { ends.peer } else { ends.local };
        if self.kind.replace(words.kind) != Some(words.kind) {
            sayings.tell_peer(&mut self.peer, words.kind, ends.peer);
        }
        self.saying = Some(sayings.find(words, server));
    }

    /// The scheme of what was asked for.
    pub(super) fn scheme(&self) -> &str {
        self.saying.as_ref().map_or("http", |saying| &saying.scheme)
    }

    /// Who was asked, with the port if it was said.
    pub(super) fn host(&self) -> Option<&str> {
        self.saying.as_ref()?.host.as_deref()
    }

    /// Adds it to a request's attributes.
    pub(super) fn tell(&self, attributes: &mut Attributes) {
        let Some(saying) = &self.saying else { return };
        attributes.append(&saying.asked);
        attributes.append(&self.peer);
        attributes.append(&saying.asking);
    }
}

/// Room for the address of a peer by IPv4, encoded.
const PEER_BYTES: usize = 112;

#[cfg(test)]
mod tests {
    use super::super::attributes::Value;
    use super::*;

    #[test]
    fn the_last_sayings_are_known_however_many_there_were() {
        let mut sayings = Sayings::default();
        let mut find = |number: usize| {
            let agent = number.to_string();
            let agent = Some(agent.as_bytes());
            let (scheme, authority, host) = (None, None, Some(&b"host"[..]));
            let kind = Kind::Server;
            let words = Words { kind, minor_version: 1, scheme, authority, host, agent };
            sayings.find(&words, None)
        };
        let all: Vec<_> = (0..4 * SAYINGS).map(&mut find).collect();
        for (number, last) in all.iter().enumerate().skip(all.len() - WAYS) {
            assert!(Arc::ptr_eq(last, &find(number)), "{number} is made anew");
        }
        assert_eq!(sayings.slots.len(), SAYINGS);
    }

    #[test]
    fn every_peer_is_told_as_itself_whoever_was_told_before() {
        let peers = ["10.0.0.1:80", "10.0.0.1:81", "10.0.0.2:80", "[fd00::1]:80"];
        let peers: Vec<Option<SocketAddr>> =
            peers.iter().map(|peer| peer.parse().ok()).chain([None]).collect();
        let mut sayings = Sayings::default();
        let mut told = Attributes::default();
        for kind in [Kind::Server, Kind::Client, Kind::Server] {
            for peer in peers.iter().flat_map(|peer| [peer, peer]) {
                sayings.tell_peer(&mut told, kind, *peer);
                let mut alone = Attributes::default();
                Sayings::default().tell_peer(&mut alone, kind, *peer);
                assert_eq!(told, alone);
                let address = peer.map(|peer| peer.ip().to_string());
                let said = told.get("network.peer.address");
                assert_eq!(said, address.as_deref().map(Value::Text));
            }
        }
    }
}
