//! A fixed conversation with any server: each request once, on one kept-alive connection as long as
//! the server keeps it, and what a client can know of each exchange.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use crate::DEADLINE;
use crate::answer::Answer;

/// A request's body.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// None.
    Empty,
    /// So many bytes with a length.
    Sized(usize),
    /// Chunks of these sizes.
    Chunked(&'static [usize]),
}

impl Body {
    fn bytes(self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Sized(bytes) => bytes,
            Self::Chunked(sizes) => sizes.iter().sum(),
        }
    }
}

/// How a step's bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// In one write.
    Whole,
    /// So many bytes a write.
    Pieces(usize),
    /// So many times the same request in one write.
    Pipelined(usize),
}

/// One step of the conversation.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// What it is called; also the request's query.
    pub name: &'static str,
    /// The method.
    pub method: &'static str,
    /// The path.
    pub path: &'static str,
    /// Whether it asks for what has changed since the first step.
    pub revalidates: bool,
    /// The body.
    pub body: Body,
    /// How it is written.
    pub writes: Writes,
    /// What a server that does as it is asked answers.
    pub status: u16,
}

const fn get(name: &'static str, path: &'static str, status: u16) -> Step {
    Step {
        name,
        method: "GET",
        path,
        revalidates: false,
        body: Body::Empty,
        writes: Writes::Whole,
        status,
    }
}

/// The conversation.
pub const STEPS: [Step; 15] = [
    get("hello", "/hello", 200),
    get("missing", "/missing", 404),
    Step { method: "HEAD", ..get("head", "/hello", 200) },
    Step { method: "POST", body: Body::Sized(4), ..get("echo", "/echo", 200) },
    Step { method: "POST", body: Body::Chunked(&[1, 300, 2]), ..get("chunked", "/echo", 200) },
    Step {
        method: "POST",
        body: Body::Chunked(&[1, 3000, 70_000, 2]),
        ..get("chunks", "/echo", 200)
    },
    get("stream", "/stream", 200),
    get("flood", "/flood", 200),
    get("moved", "/moved", 302),
    Step { revalidates: true, ..get("same", "/hello", 304) },
    get("none", "/none", 204),
    get("big", "/big", 200),
    Step { method: "POST", body: Body::Sized(300_000), ..get("upload", "/echo", 200) },
    Step { writes: Writes::Pieces(7), ..get("pieces", "/hello", 200) },
    Step { writes: Writes::Pipelined(3), ..get("pipelined", "/hello", 200) },
];

/// What a client knows of one exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The step's name.
    pub step: &'static str,
    /// Method, path, query and status: what a span has to say.
    pub line: String,
    /// Bytes of content, sent and received.
    pub bodies: [u64; 2],
    /// The answer: its status, its head without digits (times, ports), its content.
    pub answer: (u16, String, u64),
}

/// A client.
pub struct Talker {
    port: u16,
    stream: Option<TcpStream>,
    seen: Vec<u8>,
    /// The field that asks whether `/hello` has changed.
    condition: String,
}

impl Talker {
    /// One that will connect to a port of this host.
    pub fn new(port: u16) -> Self {
        Self { port, stream: None, seen: Vec::new(), condition: String::new() }
    }

    /// Takes every step that the server has.
    pub fn talk(&mut self, lacks: &[&str]) -> Vec<Told> {
        let steps = STEPS.iter().filter(|step| !lacks.contains(&step.name));
        steps.flat_map(|step| self.step(step)).collect()
    }

    /// Takes one step.
    ///
    /// # Panics
    /// If the server does not answer.
    pub fn step(&mut self, step: &Step) -> Vec<Told> {
        let target = format!("{}?{}", step.path, step.name);
        let condition = if step.revalidates { self.condition.as_str() } else { "" };
        let request = request(step, &target, condition);
        let (count, piece) = match step.writes {
            Writes::Whole => (1, request.len()),
            Writes::Pieces(bytes) => (1, bytes),
            Writes::Pipelined(count) => (count, request.len() * count),
        };
        for part in request.repeat(count).chunks(piece) {
            self.stream().write_all(part).expect("the server reads");
        }
        let mut told: Vec<Told> = Vec::new();
        while told.len() < count {
            let answer = self.answer(step.method == "HEAD");
            if step.name == "hello" {
                self.condition = revalidation(&answer);
            }
            let status = answer.status;
            let line = format!("{} {target} {status}", step.method);
            let bodies = [step.body.bytes() as u64, answer.content_bytes];
            let answer = (status, mask(&answer.head), answer.digest());
            told.push(Told { step: step.name, line, bodies, answer });
            // What a server that closes has left unanswered is asked again.
            if self.stream.is_none() && told.len() < count {
                let rest = request.repeat(count - told.len());
                self.stream().write_all(&rest).expect("the server reads");
            }
        }
        told
    }

    fn stream(&mut self) -> &mut TcpStream {
        let port = self.port;
        self.stream.get_or_insert_with(|| {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
            stream.set_read_timeout(Some(DEADLINE)).expect("not zero");
            stream.set_nodelay(true).expect("a TCP socket");
            stream
        })
    }

    fn answer(&mut self, to_head: bool) -> Answer {
        let mut answer = Answer::new(to_head);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let seen = std::mem::take(&mut self.seen);
            let used = answer.feed(&seen);
            self.seen = seen[used..].to_vec();
            if answer.is_over() {
                break;
            }
            let read = self.stream().read(&mut buffer).expect("the server answers");
            if read == 0 {
                assert!(answer.end(), "the server closed in {answer:?}");
                self.stream = None;
                break;
            }
            self.seen.extend_from_slice(&buffer[..read]);
        }
        if answer.closes {
            // The server closes first, so that its port has no connection left in the way.
            if let Some(stream) = &mut self.stream {
                while stream.read(&mut buffer).expect("the server closes") > 0 {}
            }
            self.stream = None;
            self.seen.clear();
        }
        answer
    }
}

fn revalidation(answer: &Answer) -> String {
    let fields = [("etag", "If-None-Match"), ("last-modified", "If-Modified-Since")];
    let told = |(told, asks): &(&str, &str)| Some(format!("{asks}: {}\r\n", answer.field(told)?));
    fields.iter().find_map(told).unwrap_or_default()
}

fn request(step: &Step, target: &str, fields: &str) -> Vec<u8> {
    let method = step.method;
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}");
    match step.body {
        Body::Empty => request.push_str("\r\n"),
        Body::Sized(bytes) => {
            request.push_str(&format!("Content-Length: {bytes}\r\n\r\n{}", "x".repeat(bytes)));
        }
        Body::Chunked(sizes) => {
            request.push_str("Transfer-Encoding: chunked\r\n\r\n");
            for size in sizes {
                request.push_str(&format!("{size:x}\r\n{}\r\n", "y".repeat(*size)));
            }
            request.push_str("0\r\n\r\n");
        }
    }
    request.into_bytes()
}

/// Text without what differs from run to run: every run of digits is one `#`, days and months too.
pub fn mask(text: &str) -> String {
    let mut masked = String::new();
    for line in text.lines() {
        let is_date = line.get(..5).is_some_and(|name| name.eq_ignore_ascii_case("date:"));
        for character in if is_date { "date" } else { line }.chars() {
            match character {
                '0'..='9' if masked.ends_with('#') => {}
                '0'..='9' => masked.push('#'),
                other => masked.push(other),
            }
        }
        masked.push('\n');
    }
    masked
}
