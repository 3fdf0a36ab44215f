//! A backend that takes OTLP over HTTP/1.1 and does as little with it as possible: counts spans.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::protobuf::{self, Parent};
use crate::sys;

/// What arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) spans: u64,
    pub(crate) bytes: u64,
    pub(crate) requests: u64,
    /// Spans without a parent, while parents are looked at.
    pub(crate) roots: u64,
    /// Spans whose parent is proved, while parents are looked at.
    pub(crate) exact: u64,
    /// Spans whose parent was found in any other way, while parents are looked at.
    pub(crate) inferred: u64,
}

#[derive(Default)]
struct Shared {
    spans: AtomicU64,
    bytes: AtomicU64,
    requests: AtomicU64,
    roots: AtomicU64,
    exact: AtomicU64,
    inferred: AtomicU64,
    looks_at_parents: AtomicBool,
    /// When the first span since the last reset arrived.
    first: Mutex<Option<Instant>>,
    arrived: Condvar,
}

/// A backend on a port of its own, until the process ends.
pub(crate) struct Sink {
    port: u16,
    shared: Arc<Shared>,
}

impl Sink {
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared::default());
        let counts = Arc::clone(&shared);
        let accept = move || {
            for stream in listener.incoming().map_while(io::Result::ok) {
                let counts = Arc::clone(&counts);
                // A connection that breaks is the agent's end.
                std::thread::spawn(move || serve(stream, &counts));
            }
        };
        std::thread::Builder::new().name("sink".to_owned()).spawn(accept)?;
        Ok(Self { port, shared })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Whether every span's parent is looked at, which takes some time.
    pub(crate) fn look_at_parents(&self, whether: bool) {
        self.shared.looks_at_parents.store(whether, Ordering::Relaxed);
    }

    /// Begins again with nothing; what had arrived.
    pub(crate) fn reset(&self) -> Counts {
        *self.shared.first.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        Counts {
            spans: take(&self.shared.spans),
            bytes: take(&self.shared.bytes),
            requests: take(&self.shared.requests),
            roots: take(&self.shared.roots),
            exact: take(&self.shared.exact),
            inferred: take(&self.shared.inferred),
        }
    }

    /// Waits until so many spans have arrived since the last reset, or none for `silence`; how many
    /// have.
    pub(crate) fn wait_for(&self, spans: u64, silence: Duration) -> u64 {
        let arrived = || self.shared.spans.load(Ordering::Relaxed);
        let (mut before, mut since) = (arrived(), Instant::now());
        loop {
            let seen = arrived();
            if seen != before {
                (before, since) = (seen, Instant::now());
            }
            if seen >= spans || since.elapsed() > silence {
                return seen;
            }
            sys::rest(Duration::from_millis(10));
        }
    }

    /// Waits for the first span since the last reset; when it arrived.
    pub(crate) fn first_span(&self, patience: Duration) -> Option<Instant> {
        let first = self.shared.first.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = self.shared.arrived.wait_timeout_while(first, patience, |at| at.is_none());
        *wait.unwrap_or_else(PoisonError::into_inner).0
    }
}

fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\n\
        Content-Length: 0\r\n\r\n";
    stream.set_nodelay(true)?;
    let mut input = Input { stream, buffer: vec![0; 1 << 20], filled: 0 };
    loop {
        let head = input.until(b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(input.peek(head)).into_owned();
        match framing(&text).ok_or(io::ErrorKind::InvalidData)? {
            Framing::Length(length) => {
                input.fill(head + length)?;
                count(&text, input.peek(head + length).get(head..).unwrap_or_default(), shared);
                input.drop(head + length);
            }
            Framing::Chunked => {
                input.drop(head);
                count(&text, &input.chunks()?, shared);
            }
        }
        input.stream.write_all(ANSWER)?;
    }
}

/// What has been read and not been used yet.
struct Input<R> {
    stream: R,
    buffer: Vec<u8>,
    filled: usize,
}

impl<R: Read> Input<R> {
    /// Reads until `end` is there; how many bytes that makes, `end` included.
    fn until(&mut self, end: &[u8]) -> io::Result<usize> {
        loop {
            let seen = self.peek(self.filled);
            if let Some(at) = seen.windows(end.len()).position(|bytes| bytes == end) {
                return Ok(at + end.len());
            }
            self.read()?;
        }
    }

    /// Reads until so many bytes are there.
    fn fill(&mut self, length: usize) -> io::Result<()> {
        while self.filled < length {
            self.read()?;
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<()> {
        if self.filled == self.buffer.len() {
            self.buffer.resize(2 * self.filled, 0);
        }
        match self.stream.read(self.buffer.get_mut(self.filled..).unwrap_or_default())? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.filled += read;
                Ok(())
            }
        }
    }

    fn peek(&self, length: usize) -> &[u8] {
        self.buffer.get(..length).unwrap_or_default()
    }

    fn drop(&mut self, length: usize) {
        self.buffer.copy_within(length..self.filled, 0);
        self.filled -= length;
    }

    /// The pieces of a chunked body (RFC 9112, 7.1) put together. Nobody sends trailers here.
    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n")?;
            let size = String::from_utf8_lossy(self.peek(line - 2)).into_owned();
            let size = size.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
            self.drop(line);
            self.fill(size + 2)?;
            body.extend_from_slice(self.peek(size));
            self.drop(size + 2);
            if size == 0 {
                return Ok(body);
            }
        }
    }
}

/// How the end of a body is known.
#[derive(Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
}

fn framing(head: &str) -> Option<Framing> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut length = None;
    for (name, value) in fields {
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return value.trim().eq_ignore_ascii_case("chunked").then_some(Framing::Chunked);
        }
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok().map(Framing::Length);
        }
    }
    length
}

fn count(head: &str, body: &[u8], shared: &Shared) {
    // Metrics and logs have the same shape and are no spans.
    if !head.starts_with("POST /v1/traces ") {
        return;
    }
    let mut seen = Counts::default();
    if shared.looks_at_parents.load(Ordering::Relaxed) {
        for span in protobuf::spans(body) {
            seen.spans += 1;
            match protobuf::parent(span) {
                Parent::None => seen.roots += 1,
                Parent::Exact => seen.exact += 1,
                Parent::Other => seen.inferred += 1,
            }
        }
    } else {
        seen.spans = protobuf::spans(body).count() as u64;
    }
    let add = |to: &AtomicU64, count| to.fetch_add(count, Ordering::Relaxed);
    add(&shared.spans, seen.spans);
    add(&shared.bytes, body.len() as u64);
    add(&shared.requests, 1);
    add(&shared.roots, seen.roots);
    add(&shared.exact, seen.exact);
    add(&shared.inferred, seen.inferred);
    if seen.spans > 0 {
        let mut first = shared.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            *first = Some(Instant::now());
            shared.arrived.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_body_is_found_in_any_case() {
        for (fields, found) in [
            ("Host: x\r\ncontent-LENGTH: 17\r\n", Some(Framing::Length(17))),
            ("Transfer-encoding: Chunked\r\n", Some(Framing::Chunked)),
            ("Transfer-Encoding: gzip\r\nContent-Length: 1\r\n", None),
            ("Host: x\r\n", None),
        ] {
            let head = format!("POST /v1/traces HTTP/1.1\r\n{fields}\r\n");
            assert_eq!(framing(&head), found, "{fields}");
        }
    }

    #[test]
    fn chunks_are_put_together_however_they_arrive() {
        /// A byte at a time.
        struct Slowly<'a>(&'a [u8]);
        impl Read for Slowly<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let most = buffer.len().min(1);
                self.0.read(buffer.get_mut(..most).unwrap_or_default())
            }
        }
        let sent = b"5\r\nhello\r\nA;x=y\r\n, traces\r\n\r\n0\r\n\r\nPOST";
        let mut input = Input { stream: Slowly(sent), buffer: vec![0; 8], filled: 0 };
        assert_eq!(input.chunks().expect("whole"), b"hello, traces\r\n");
        assert_eq!(input.until(b"POST").expect("what follows"), 4);
        let mut input = Input { stream: Slowly(b"z\r\n"), buffer: vec![0; 8], filled: 0 };
        assert!(input.chunks().is_err());
    }

    #[test]
    fn only_traces_are_counted() {
        let shared = Shared::default();
        // One span without anything in it.
        let body = [0x0a, 4, 0x12, 2, 0x12, 0];
        for (path, spans) in [("/v1/metrics", 0), ("/v1/traces", 1)] {
            count(&format!("POST {path} HTTP/1.1\r\n"), &body, &shared);
            assert_eq!(shared.spans.load(Ordering::Relaxed), spans, "{path}");
        }
    }
}
