//! What holds for every conversation, however it is cut, and for any bytes.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

/// One request and its response. Its number is in its target and its status.
#[derive(Clone, Debug)]
struct Exchange {
    method: &'static str,
    body: Option<Body>,
    interim: bool,
    response: Body,
    /// Sent before the response to the one before.
    pipelined: bool,
}

#[derive(Clone, Debug)]
struct Body {
    content: Vec<u8>,
    /// Sizes of the chunks; `None` is a length.
    chunks: Option<Vec<Index>>,
    trailer: bool,
    /// Bytes of headers that mean nothing.
    padding: usize,
}

/// Bytes that move in one direction before the other has its turn.
type Turn = (Direction, Vec<u8>);

fn content() -> impl Strategy<Value = Vec<u8>> {
    let tempting: &[&[u8]] = &[
        b"GET /no HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 599 No\r\nContent-Length: 0\r\n\r\n",
        b"\r\n0\r\n\r\n",
        b"0\r\n\r\n",
        b"\r\n\r\n",
        b"5\r\n",
        b"\n",
    ];
    let piece = prop_oneof![select(tempting).prop_map(<[u8]>::to_vec), vec(any::<u8>(), 0..40)];
    vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn body() -> impl Strategy<Value = Body> {
    let chunks = proptest::option::of(vec(any::<Index>(), 0..4));
    (content(), chunks, any::<bool>(), 0usize..200)
        .prop_map(|(content, chunks, trailer, padding)| Body { content, chunks, trailer, padding })
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let method = select(&["GET", "POST", "HEAD", "DELETE"][..]);
    let parts = (method, proptest::option::of(body()), any::<bool>(), body(), any::<bool>());
    parts.prop_map(|(method, body, interim, response, pipelined)| Exchange {
        method,
        body,
        interim,
        response,
        pipelined,
    })
}

fn status(number: usize) -> u16 {
    // Never one that has no body of its own.
    400 + number as u16
}

impl Body {
    /// Headers, blank line and content. A response to HEAD has the headers only.
    fn write(&self, out: &mut Vec<u8>, bodiless: bool) {
        out.extend(b"X: ");
        out.extend(std::iter::repeat_n(b'x', self.padding));
        let Some(chunks) = &self.chunks else {
            out.extend(format!("\r\nContent-Length: {}\r\n\r\n", self.content.len()).as_bytes());
            out.extend(self.content.iter().filter(|_| !bodiless));
            return;
        };
        out.extend(b"\r\nTransfer-Encoding: chunked\r\n\r\n");
        if bodiless {
            return;
        }
        let mut rest = self.content.as_slice();
        for chunk in chunks {
            let (content, behind) = rest.split_at(chunk.index(rest.len() + 1));
            rest = behind;
            chunk_of(content, ";x=y", out);
        }
        chunk_of(rest, "", out);
        out.extend(b"0\r\n");
        if self.trailer {
            out.extend(b"T: 0\r\n");
        }
        out.extend(b"\r\n");
    }
}

fn chunk_of(content: &[u8], extension: &str, out: &mut Vec<u8>) {
    if !content.is_empty() {
        out.extend(format!("{:x}{extension}\r\n", content.len()).as_bytes());
        out.extend(content);
        out.extend(b"\r\n");
    }
}

/// The bytes of a conversation, in turns.
fn turns(exchanges: &[Exchange]) -> Vec<Turn> {
    let mut turns: Vec<Turn> = Vec::new();
    let mut requests = Vec::new();
    let mut responses = Vec::new();
    for (number, exchange) in exchanges.iter().enumerate() {
        if !exchange.pipelined && number > 0 {
            turns.push((Direction::Inbound, std::mem::take(&mut requests)));
            turns.push((Direction::Outbound, std::mem::take(&mut responses)));
        }
        requests.extend(format!("{} /{number} HTTP/1.1\r\n", exchange.method).as_bytes());
        match &exchange.body {
            Some(body) => body.write(&mut requests, false),
            None => requests.extend(b"\r\n"),
        }
        if exchange.interim {
            responses.extend(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
        }
        responses.extend(format!("HTTP/1.1 {} No\r\n", status(number)).as_bytes());
        exchange.response.write(&mut responses, exchange.method == "HEAD");
    }
    turns.push((Direction::Inbound, requests));
    turns.push((Direction::Outbound, responses));
    turns
}

/// What is to be told of a conversation that is seen whole, exchange by exchange.
fn expected(exchanges: &[Exchange]) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for (number, exchange) in exchanges.iter().enumerate() {
        let sent = exchange.body.as_ref().map_or(0, |body| body.content.len());
        let got = if exchange.method == "HEAD" { 0 } else { exchange.response.content.len() };
        let mut told = vec![
            format!("{number} begins"),
            format!("{number} {} /{number}", exchange.method),
            format!("{number} sent {sent}"),
        ];
        told.extend(exchange.interim.then(|| format!("{number} interim 103")));
        told.push(format!("{number} {}", status(number)));
        told.push(format!("{number} over {got}"));
        all.push(told);
    }
    all
}

/// Collects what is told, checks that it makes sense, and sorts it by exchange.
#[derive(Default)]
struct Listener {
    witness: Witness,
    told: Vec<Vec<String>>,
    unknown: u64,
}

impl Listener {
    fn hear(&mut self, event: &Event<'_>) {
        self.witness.see(event);
        if let Event::Unknown { bytes, .. } = event {
            self.unknown += bytes;
        }
        let Some(said) = say(event) else { return };
        // Where a request begins depends on the cut.
        let said = said.split('@').next().expect("the first part").to_owned();
        let number = said.split(' ').next().and_then(|number| number.parse::<usize>().ok());
        let Some(number) = number else { return };
        self.told.resize_with(self.told.len().max(number + 1), Vec::new);
        self.told[number].push(said);
    }
}

/// Cuts bytes at the given places.
fn pieces<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    let pairs = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
    pairs.filter(|piece| !piece.is_empty()).collect()
}

/// An operation as the kernel half copies it.
fn segment(bytes: &[u8], limit: usize) -> Segment<'_> {
    let (prefix, rest) = bytes.split_at(limit.min(bytes.len()));
    let suffix = if rest.len() >= 8 { &rest[rest.len() - 8..] } else { &[] };
    Segment { prefix, len: bytes.len() as u64, suffix }
}

proptest! {
    #[test]
    fn every_split_gives_the_same_answer(
        exchanges in vec(exchange(), 1..6),
        cuts in vec(any::<Index>(), 0..30),
        bytewise: bool,
    ) {
        let mut connection = Connection::default();
        let mut listener = Listener::default();
        for (direction, bytes) in turns(&exchanges) {
            let pieces: Vec<&[u8]> =
                if bytewise { bytes.chunks(1).collect() } else { pieces(&bytes, &cuts) };
            for piece in pieces {
                let mut sink = |event: Event<'_>| listener.hear(&event);
                connection.feed(direction, segment(piece, usize::MAX), &mut sink);
            }
        }
        prop_assert_eq!(&listener.told, &expected(&exchanges));
        prop_assert_eq!(listener.unknown, 0);
        connection.close(&mut |event| panic!("{event:?}"));
    }

    /// A message an operation, its head copied: lengths tell the rest, and single chunks do.
    #[test]
    fn bodies_need_not_be_copied(exchanges in vec(exchange(), 1..6), limit in 300usize..400) {
        let mut connection = Connection::default();
        let mut listener = Listener::default();
        let exchanges: Vec<_> = exchanges
            .into_iter()
            .map(|mut exchange| {
                exchange.pipelined = false;
                exchange.interim = false;
                for body in [exchange.body.as_mut(), Some(&mut exchange.response)] {
                    let Some(body) = body else { continue };
                    body.trailer = false;
                    body.chunks.iter_mut().for_each(Vec::clear);
                    body.content.extend(std::iter::repeat_n(b'.', 500));
                }
                exchange
            })
            .collect();
        for (direction, bytes) in turns(&exchanges) {
            let mut sink = |event: Event<'_>| listener.hear(&event);
            connection.feed(direction, segment(&bytes, limit), &mut sink);
        }
        prop_assert_eq!(&listener.told, &expected(&exchanges));
        prop_assert_eq!(listener.unknown, 0);
    }

    /// Whatever is cut or missed: a response is never told of another request than its own, and
    /// sizes and ends that are told for certain are right.
    #[test]
    fn what_is_not_seen_makes_nobody_lie(
        exchanges in vec(exchange(), 1..8),
        cuts in vec(any::<Index>(), 0..20),
        limits in vec(prop_oneof![Just(4096usize), 0usize..300], 1..8),
        missed in vec(prop_oneof![4 => Just(None), 1 => any::<bool>().prop_map(Some)], 1..40),
        pipelines: bool,
    ) {
        let mut exchanges = exchanges;
        for exchange in &mut exchanges {
            // Content at the start of an operation can look like a message; only framing tells.
            for body in [exchange.body.as_mut(), Some(&mut exchange.response)] {
                for byte in body.into_iter().flat_map(|body| &mut body.content) {
                    *byte |= 0x80;
                }
            }
            exchange.pipelined &= pipelines;
        }
        let truth = expected(&exchanges);
        let mut connection = Connection::default();
        let mut listener = Listener::default();
        let mut numbers = Vec::new();
        let mut what = missed.iter().cycle();
        let mut limit = limits.iter().cycle();
        // A connection that pipelines shows it before anything is missed.
        let whole = if pipelines { 2 } else { 0 };
        exchanges.iter_mut().skip(1).take(1).for_each(|second| second.pipelined |= pipelines);
        for (turn, (direction, bytes)) in turns(&exchanges).into_iter().enumerate() {
            for piece in pieces(&bytes, &cuts) {
                let mut sink = |event: Event<'_>| {
                    if let Event::RequestHead { exchange, head } = &event {
                        numbers.push((*exchange, head.target.to_owned()));
                    }
                    listener.hear(&event);
                };
                let limit = *limit.next().expect("it never ends");
                match what.next().expect("it never ends").filter(|_| turn >= whole) {
                    _ if turn < whole => {
                        connection.feed(direction, segment(piece, usize::MAX), &mut sink);
                    }
                    None => connection.feed(direction, segment(piece, limit), &mut sink),
                    Some(true) => connection.gap(direction, Some(piece.len() as u64), &mut sink),
                    Some(false) => connection.gap(direction, None, &mut sink),
                }
            }
        }
        connection.close(&mut |event| listener.hear(&event));
        listener.witness.at_the_end();
        for (exchange, target) in numbers {
            let number: usize = target.trim_start_matches('/').parse().expect("one of ours");
            let truth = truth.get(number).expect("one of ours");
            let prefix = |line: &str| format!("{number}{}", &line[line.find(' ').expect("a space")..]);
            for said in &listener.told[exchange as usize] {
                let said = prefix(said);
                let is_true = said.contains('?')
                    || said.ends_with("adrift")
                    || truth.contains(&said)
                    || truth.contains(&said.replace(" unseen", ""))
                    || truth.contains(&said.replace(" cut", ""));
                // Its connection ends before the conversation does only where an end was missed.
                prop_assert!(is_true, "{said} of {truth:?} in {:?}", listener.told);
            }
        }
    }

    #[test]
    fn hostile_bytes_take_bounded_memory_and_break_nothing(
        steps in vec(step(), 0..60),
        older in proptest::option::of(proptest::option::of(any::<bool>())),
    ) {
        let limits = Limits { head_bytes: 256, outstanding: 4 };
        let way = |inbound| if inbound { Direction::Inbound } else { Direction::Outbound };
        let mut connection = match older {
            None => Connection::new(limits),
            Some(requests) => Connection::older(limits, requests.map(way)),
        };
        let mut witness = Witness::default();
        for (inbound, step) in &steps {
            let mut sink = |event: Event<'_>| witness.see(&event);
            match step {
                Step::Feed(bytes, limit) => {
                    connection.feed(way(*inbound), segment(bytes, *limit), &mut sink);
                }
                Step::Gap(bytes) => connection.gap(way(*inbound), *bytes, &mut sink),
                Step::End => connection.end(way(*inbound), &mut sink),
                Step::Close => connection.close(&mut sink),
            }
            prop_assert!(connection.held_bytes() <= 2 * 2 * 257 + 2 * 4 * 16);
        }
        connection.close(&mut |event| witness.see(&event));
        witness.at_the_end();
    }
}

#[derive(Clone, Debug)]
enum Step {
    Feed(Vec<u8>, usize),
    Gap(Option<u64>),
    End,
    Close,
}

fn step() -> impl Strategy<Value = (bool, Step)> {
    let fragments: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\n",
        b"HEAD /x HTTP/1.0\r\n",
        b"CONNECT h:1 HTTP/1.1\r\n\r\n",
        b"POST /y HTTP/1.1\r\nContent-Length: 10\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 304 No\r\n\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 18446744073709551615\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"Expect: 100-continue\r\n",
        b"ffffffffffffffff\r\n",
        b"\r\n\r\n",
        b"0\r\n\r\n",
        b"5\r\nhello\r\n",
        b"x",
        b"\n",
    ];
    let fragment = prop_oneof![select(fragments).prop_map(<[u8]>::to_vec), vec(any::<u8>(), 0..50)];
    let bytes = vec(fragment, 0..12).prop_map(|fragments| fragments.concat());
    let feed = (bytes, prop_oneof![Just(usize::MAX), 0usize..64]);
    let step = prop_oneof![
        20 => feed.prop_map(|(bytes, limit)| Step::Feed(bytes, limit)),
        3 => prop_oneof![Just(None), (0u64..20).prop_map(Some), Just(Some(u64::MAX))].prop_map(Step::Gap),
        1 => Just(Step::End),
        1 => Just(Step::Close),
    ];
    (any::<bool>(), step)
}
