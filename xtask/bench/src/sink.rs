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

fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\n\
        Content-Length: 0\r\n\r\n";
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 1 << 20];
    let mut filled = 0;
    loop {
        let head = loop {
            let seen = buffer.get(..filled).unwrap_or_default();
            if let Some(at) = seen.windows(4).position(|end| end == b"\r\n\r\n") {
                break at + 4;
            }
            filled += read(&mut stream, &mut buffer, filled)?;
        };
        let text = String::from_utf8_lossy(buffer.get(..head).unwrap_or_default()).into_owned();
        let length = content_length(&text).ok_or(io::ErrorKind::InvalidData)?;
        if buffer.len() < head + length {
            buffer.resize(head + length, 0);
        }
        while filled < head + length {
            filled += read(&mut stream, &mut buffer, filled)?;
        }
        count(buffer.get(head..head + length).unwrap_or_default(), shared);
        stream.write_all(ANSWER)?;
        buffer.copy_within(head + length..filled, 0);
        filled -= head + length;
    }
}

fn read(stream: &mut TcpStream, buffer: &mut [u8], filled: usize) -> io::Result<usize> {
    match stream.read(buffer.get_mut(filled..).unwrap_or_default())? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => Ok(read),
    }
}

fn content_length(head: &str) -> Option<usize> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    value.trim().parse().ok()
}

fn count(body: &[u8], shared: &Shared) {
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
    fn the_length_of_a_body_is_found_in_any_case() {
        let head = "POST /v1/traces HTTP/1.1\r\nHost: x\r\ncontent-LENGTH: 17\r\n\r\n";
        assert_eq!(content_length(head), Some(17));
        assert_eq!(content_length("POST / HTTP/1.1\r\n\r\n"), None);
    }
}
