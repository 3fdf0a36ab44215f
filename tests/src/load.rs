//! Many requests at once, of many kinds, from a seed: what is asked, how its bytes are split over
//! writes, what is pipelined, where a client gives up. Every request has a token in its path, and
//! its client knows what became of it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::DEADLINE;
use crate::answer::Answer;

/// Numbers that follow from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// Whether something happens that does so `percent` times in a hundred.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// What a request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Six bytes.
    Small,
    /// Twenty kilobytes.
    Middle,
    /// More than a socket's buffer takes at once.
    Big,
    /// Twenty kilobytes in chunks.
    Chunks,
    /// A file that is not there.
    Missing,
    /// A head only.
    Head,
    /// A file that has not changed.
    Same,
    /// A part of a file.
    Range,
    /// Several parts of a file.
    Ranges,
    /// A part behind the end of a file.
    NoRange,
    /// A body with a length.
    Post,
    /// A body in chunks.
    PostChunks,
    /// A body that is sent once the server wants it.
    PostExpect,
    /// A head of six kilobytes.
    Cookie,
    /// No `Host`, which HTTP/1.1 demands.
    NoHost,
    /// A length that is none.
    BadLength,
    /// Another version of HTTP.
    Alien,
}

impl Kind {
    /// Every kind that a server of files understands.
    pub const FILES: [Self; 12] = [
        Self::Small,
        Self::Middle,
        Self::Big,
        Self::Missing,
        Self::Head,
        Self::Same,
        Self::Range,
        Self::Ranges,
        Self::NoRange,
        Self::Post,
        Self::PostChunks,
        Self::Cookie,
    ];

    /// Kinds after which a server closes.
    pub fn closes(self) -> bool {
        matches!(self, Self::NoHost | Self::BadLength | Self::Alien)
    }

    fn method(self) -> &'static str {
        match self {
            Self::Head => "HEAD",
            Self::Post | Self::PostChunks | Self::PostExpect => "POST",
            _ => "GET",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Middle | Self::Range | Self::Ranges | Self::NoRange => "files/middle",
            Self::Big => "files/big",
            Self::Chunks => "chunks/middle",
            Self::Missing => "files/missing",
            Self::Post | Self::PostChunks | Self::PostExpect => "post",
            _ => "files/small",
        }
    }
}

/// A request as it will be sent.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its number, which is in its path.
    pub token: usize,
    /// What it asks.
    pub kind: Kind,
    /// All its bytes.
    pub bytes: Vec<u8>,
    /// How many of them are its head.
    pub head_bytes: usize,
    /// Bytes of content.
    pub content_bytes: usize,
}

impl Request {
    fn new(token: usize, kind: Kind, random: &mut Random) -> Self {
        let version = if kind == Kind::Alien { "2.0" } else { "1.1" };
        let mut head = format!("{} /{token}/{} HTTP/{version}\r\n", kind.method(), kind.file());
        if kind != Kind::NoHost {
            head.push_str("Host: localhost\r\n");
        }
        let mut body = Vec::new();
        let content_bytes = if kind.method() == "POST" { random.below(9000) } else { 0 };
        match kind {
            Kind::Same => head.push_str("If-None-Match: *\r\n"),
            Kind::Range => head.push_str("Range: bytes=100-4999\r\n"),
            Kind::Ranges => head.push_str("Range: bytes=0-99,1000-1999\r\n"),
            Kind::NoRange => head.push_str("Range: bytes=99999999-\r\n"),
            Kind::BadLength => head.push_str("Content-Length: x1\r\n"),
            Kind::Cookie => head.push_str(&format!("Cookie: c={}\r\n", "c".repeat(6000))),
            Kind::Post | Kind::PostExpect => {
                head.push_str(&format!("Content-Length: {content_bytes}\r\n"));
                body.resize(content_bytes, b'p');
            }
            Kind::PostChunks => {
                head.push_str("Transfer-Encoding: chunked\r\n");
                let mut left = content_bytes;
                while left > 0 {
                    let size = 1 + random.below(left.min(3000));
                    body.extend_from_slice(format!("{size:x}\r\n").as_bytes());
                    body.resize(body.len() + size, b'q');
                    body.extend_from_slice(b"\r\n");
                    left -= size;
                }
                body.extend_from_slice(b"0\r\n\r\n");
            }
            _ => {}
        }
        if kind == Kind::PostExpect {
            head.push_str("Expect: 100-continue\r\n");
        }
        head.push_str("\r\n");
        let head_bytes = head.len();
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&body);
        Self { token, kind, bytes, head_bytes, content_bytes }
    }
}

/// Where a client gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivesUp {
    /// Nowhere.
    Never,
    /// After so many bytes of its last request.
    Sending(usize),
    /// After so many bytes of what it reads behind its last request.
    Reading(usize),
}

/// One connection: requests in batches, each batch in one go.
#[derive(Clone, Debug)]
pub struct Visit {
    batches: Vec<Vec<Request>>,
    /// Bytes of each write; 0 is all.
    piece: usize,
    gives_up: GivesUp,
}

/// What a client knows of a request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The request's token.
    pub token: usize,
    /// What it asked.
    pub kind: Kind,
    /// Its method.
    pub method: &'static str,
    /// Bytes of its content.
    pub content_bytes: usize,
    /// The whole answer; `None` if the client gave up or the server closed before.
    pub answer: Option<Answer>,
    /// Whether the server has had all of it, as far as the client knows.
    pub sent: bool,
    /// Whether it was sent behind another one that was not answered yet.
    pub pipelined: bool,
    /// Whether it may be missed where not every byte is copied: on a connection that pipelines, or
    /// where request lines come in pieces.
    pub is_hard: bool,
}

/// Makes visits with `count` requests in all.
pub fn plan(seed: u64, count: usize, kinds: &[Kind]) -> Vec<Visit> {
    let mut random = Random::new(seed);
    let (open, closing): (Vec<Kind>, Vec<Kind>) = kinds.iter().partition(|kind| !kind.closes());
    let mut visits = Vec::new();
    let mut token = 0;
    while token < count {
        let mut batches = Vec::new();
        for _ in 0..1 + random.below(8) {
            let size = if random.percent(20) { 2 + random.below(3) } else { 1 };
            let mut batch = Vec::new();
            while batch.len() < size && token < count {
                // Small ones dominate, as they do in life.
                let kind = if random.percent(40) { Kind::Small } else { random.choose(&open) };
                // A client that waits for a 100 sends nothing behind it.
                if kind == Kind::PostExpect && size > 1 {
                    continue;
                }
                batch.push(Request::new(token, kind, &mut random));
                token += 1;
            }
            batches.push(batch);
        }
        batches.retain(|batch| !batch.is_empty());
        let mut gives_up = GivesUp::Never;
        if !closing.is_empty() && random.percent(10) && token < count {
            batches.push(vec![Request::new(token, random.choose(&closing), &mut random)]);
            token += 1;
        } else if let Some(last) = batches.last().and_then(|batch| batch.last())
            && last.kind != Kind::PostExpect
        {
            gives_up = match random.below(10) {
                0 => GivesUp::Sending(1 + random.below(last.bytes.len())),
                1 => GivesUp::Reading(random.below(2 << 10)),
                2 => GivesUp::Reading(random.below(200 << 10)),
                _ => GivesUp::Never,
            };
        }
        let piece = if random.percent(30) { 1 + random.below(200) } else { 0 };
        visits.push(Visit { batches, piece, gives_up });
    }
    visits
}

/// Has `clients` at a time make the visits; what they know, by token.
///
/// # Panics
/// If a server does not answer what it has to.
pub fn run(port: u16, visits: &[Visit], clients: usize) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..clients {
            let client = || {
                while let Some(visit) = visits.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let known = visit.make(port);
                    outcomes.lock().expect("no client panics with it").extend(known);
                }
            };
            let thread = std::thread::Builder::new().stack_size(256 << 10);
            thread.spawn_scoped(scope, client).expect("the host has threads");
        }
    });
    let mut outcomes = outcomes.into_inner().expect("no client panics with it");
    outcomes.sort_by_key(|outcome| outcome.token);
    outcomes
}

/// A load that goes on: each client asks on one connection as long as the server keeps it.
pub struct Going {
    /// Set once requests that begin are to be told apart from those before.
    pub marked: AtomicBool,
    next: AtomicUsize,
    ends: AtomicBool,
}

impl Going {
    /// None has begun.
    pub fn new() -> Self {
        let (marked, ends) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { marked, next: AtomicUsize::new(0), ends }
    }

    /// How many requests have begun.
    pub fn begun(&self) -> usize {
        self.next.load(Ordering::Relaxed)
    }

    /// No further request is to begin.
    pub fn end(&self) {
        self.ends.store(true, Ordering::Relaxed);
    }

    /// One client: what it knows of its requests, and which of them began after the mark.
    pub fn client(&self, port: u16, seed: u64, kinds: &[Kind]) -> Vec<(Outcome, bool)> {
        let mut random = Random::new(seed);
        let mut client = Client::connect(port);
        let mut known = Vec::new();
        while !self.ends.load(Ordering::Relaxed) {
            let is_marked = self.marked.load(Ordering::SeqCst);
            let token = self.next.fetch_add(1, Ordering::Relaxed);
            let request = Request::new(token, random.choose(kinds), &mut random);
            // On a connection that was there before, an agent needs a whole request line to find the
            // first one.
            let piece = if random.percent(20) { 64 + random.below(200) } else { 0 };
            let mut outcomes = Vec::new();
            if !client.batch(&[request], piece, GivesUp::Never, &mut outcomes) {
                client = Client::connect(port);
            }
            known.extend(outcomes.into_iter().map(|outcome| (outcome, is_marked)));
        }
        known
    }
}

impl Default for Going {
    fn default() -> Self {
        Self::new()
    }
}

impl Visit {
    /// Its requests.
    pub fn requests(&self) -> impl Iterator<Item = &Request> {
        self.batches.iter().flatten()
    }

    fn make(&self, port: u16) -> Vec<Outcome> {
        let mut client = Client::connect(port);
        let mut outcomes = Vec::new();
        for (number, batch) in self.batches.iter().enumerate() {
            let is_last = number + 1 == self.batches.len();
            let gives_up = if is_last { self.gives_up } else { GivesUp::Never };
            let open = client.batch(batch, self.piece, gives_up, &mut outcomes);
            if !open {
                // Nothing more was sent.
                break;
            }
        }
        let is_hard = self.piece > 0 || outcomes.iter().any(|outcome| outcome.pipelined);
        outcomes.iter_mut().for_each(|outcome| outcome.is_hard = is_hard);
        outcomes
    }
}

struct Client {
    stream: TcpStream,
    seen: Vec<u8>,
}

impl Client {
    fn connect(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("not zero");
        stream.set_write_timeout(Some(DEADLINE)).expect("not zero");
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream, seen: Vec::new() }
    }

    /// Sends a batch and reads its answers; whether the connection goes on.
    fn batch(
        &mut self,
        batch: &[Request],
        piece: usize,
        gives_up: GivesUp,
        outcomes: &mut Vec<Outcome>,
    ) -> bool {
        let mut bytes: Vec<u8> = Vec::new();
        for request in batch {
            bytes.extend_from_slice(&request.bytes);
        }
        let last = batch.last().map_or(0, |request| request.bytes.len());
        if let GivesUp::Sending(sent) = gives_up {
            bytes.truncate(bytes.len() - last + sent);
        }
        let waits = batch.iter().find(|request| request.kind == Kind::PostExpect);
        let (first, rest) = bytes.split_at(waits.map_or(bytes.len(), |request| request.head_bytes));
        let mut sent = self.send(first, piece);
        let mut reads = match gives_up {
            GivesUp::Reading(bytes) => bytes,
            GivesUp::Never => usize::MAX,
            GivesUp::Sending(_) => 0,
        };
        let mut open = gives_up == GivesUp::Never;
        if waits.is_some() {
            // An interim answer, or a final one that is not thought of.
            let mut any = usize::MAX;
            self.read(&mut any);
            assert!(self.seen.starts_with(b"HTTP/1.1 100 "), "no 100 (Continue)");
            sent &= self.send(rest, piece);
        }
        for (number, request) in batch.iter().enumerate() {
            let to_head = request.kind.method() == "HEAD";
            let answer = if open || reads > 0 { self.answer(to_head, &mut reads) } else { None };
            open &= answer.as_ref().is_some_and(|answer| !answer.closes);
            outcomes.push(Outcome {
                token: request.token,
                kind: request.kind,
                method: request.kind.method(),
                content_bytes: request.content_bytes,
                answer,
                sent: sent && !matches!(gives_up, GivesUp::Sending(sent) if sent < last),
                pipelined: number > 0,
                is_hard: false,
            });
        }
        open
    }

    /// Whether everything was sent: a server may close first.
    fn send(&mut self, bytes: &[u8], piece: usize) -> bool {
        let piece = if piece == 0 { bytes.len().max(1) } else { piece };
        bytes.chunks(piece).all(|part| match self.stream.write_all(part) {
            Ok(()) => true,
            Err(error) => match error.kind() {
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => false,
                _ => panic!("cannot send: {error}"),
            },
        })
    }

    /// Reads at most `most` bytes and takes them off it; whether any came.
    fn read(&mut self, most: &mut usize) -> bool {
        let mut buffer = [0; 16 << 10];
        let room = buffer.len().min(*most);
        let read = match self.stream.read(&mut buffer[..room]) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("no answer: {error}"),
        };
        self.seen.extend_from_slice(&buffer[..read]);
        *most -= read;
        read > 0
    }

    /// Reads an answer; `None` if it does not come whole within `most` bytes.
    fn answer(&mut self, to_head: bool, most: &mut usize) -> Option<Answer> {
        let mut answer = Answer::new(to_head);
        loop {
            let used = answer.feed(&self.seen);
            self.seen.drain(..used);
            if answer.is_over() {
                return Some(answer);
            }
            if *most == 0 {
                return None;
            }
            if !self.read(most) {
                return answer.end().then_some(answer);
            }
        }
    }
}
