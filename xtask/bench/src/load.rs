//! A load generator for HTTP/1.1: one thread on a CPU of its own, kept-alive connections, one request
//! at a time on each. Closed loop: as fast as answers come. Open loop: at a fixed rate, whatever
//! the server does; latency counts from the moment a request was due.
//!
//! Every answer must have the very length of the first one; anything else ends the measurement.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::sys::{self, Poll};

/// Bytes of a body.
const BODY: usize = 200;
const REQUEST: &[u8] = b"GET /bench HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: remora-bench/1\r\n\
    Accept: */*\r\nAccept-Encoding: identity\r\n\r\n";
/// Nearer than this, the next request is waited for without sleeping.
const SPIN: Duration = Duration::from_micros(60);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// When requests are sent.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// When the answer to the previous one has come.
    Closed,
    /// This many a second.
    Open(f64),
}

/// What to do to a server.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// Where the generator runs.
    pub(crate) cpu: usize,
    pub(crate) connections: usize,
    pub(crate) pace: Pace,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// Which end of the measured time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    Begin,
    End,
}

/// What a server did.
#[derive(Clone, Default)]
pub(crate) struct Outcome {
    /// Requests in all, all answered.
    pub(crate) sent: u64,
    /// Answers in the measured time.
    pub(crate) answered: u64,
    /// The measured time.
    pub(crate) seconds: f64,
    /// From due time to answer, in the measured time; open loop only.
    pub(crate) latencies_us: Vec<f64>,
    /// CPU time of the generator in the measured time.
    pub(crate) generator_cpu_ns: u64,
}

/// Knows a server and what its answers are like.
pub(crate) struct Client {
    address: SocketAddr,
    /// Bytes of an answer, head included.
    answer: usize,
}

impl Client {
    /// Asks once.
    pub(crate) fn probe(port: u16) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(REQUEST)?;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let read = stream.read(&mut buffer)?;
            ensure!(read > 0, "the server closed the connection");
            answer.extend(buffer.iter().take(read));
            if let Some(head) = answer.windows(4).position(|end| end == b"\r\n\r\n") {
                let text = String::from_utf8_lossy(answer.get(..head).unwrap_or_default());
                let text = text.to_ascii_lowercase();
                ensure!(text.starts_with("http/1.1 200"), "the server said {text:?}");
                ensure!(text.contains("content-length: 200"), "not 200 bytes: {text:?}");
                ensure!(!text.contains("connection: close"), "connections are not kept");
                if answer.len() == head + 4 + BODY {
                    return Ok(Self { address, answer: answer.len() });
                }
                ensure!(answer.len() < head + 4 + BODY, "the answer is too long");
            }
        }
    }

    /// Carries out a plan. `at_edge` is called when the measured time begins and when it ends.
    pub(crate) fn run(
        &self,
        plan: Plan,
        at_edge: &mut (dyn FnMut(Edge) -> Result<()> + Send),
    ) -> Result<Outcome> {
        std::thread::scope(|scope| {
            let work = scope.spawn(|| {
                sys::pin(plan.cpu).context("the load needs a CPU of its own")?;
                Work::new(self, plan)?.run(at_edge)
            });
            work.join().unwrap_or_else(|_| bail!("the load generator has panicked"))
        })
    }
}

struct Connection {
    stream: TcpStream,
    /// Bytes of the answer so far.
    filled: usize,
    /// When the request was due.
    due: Instant,
}

struct Work {
    plan: Plan,
    answer: usize,
    poll: Poll,
    connections: Vec<Connection>,
    /// Connections without a request, longest idle first.
    free: VecDeque<usize>,
    outcome: Outcome,
    measuring: bool,
}

impl Work {
    fn new(client: &Client, plan: Plan) -> Result<Self> {
        let poll = Poll::new(plan.connections)?;
        let mut connections = Vec::new();
        for key in 0..plan.connections {
            let stream = TcpStream::connect(client.address).context("cannot connect")?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            poll.add(&stream, key)?;
            connections.push(Connection { stream, filled: 0, due: Instant::now() });
        }
        let free = (0..plan.connections).collect();
        let (answer, outcome) = (client.answer, Outcome::default());
        Ok(Self { plan, answer, poll, connections, free, outcome, measuring: false })
    }

    fn run(mut self, at_edge: &mut (dyn FnMut(Edge) -> Result<()> + Send)) -> Result<Outcome> {
        let start = Instant::now();
        let begin = start + self.plan.warm_up;
        self.until(start, begin)?;
        at_edge(Edge::Begin)?;
        let (begin, cpu) = (Instant::now(), sys::thread_cpu_ns());
        self.measuring = true;
        self.until(begin, begin + self.plan.measured)?;
        self.measuring = false;
        self.outcome.seconds = begin.elapsed().as_secs_f64();
        self.outcome.generator_cpu_ns = sys::thread_cpu_ns() - cpu;
        at_edge(Edge::End)?;
        let deadline = Instant::now() + PATIENCE;
        while self.free.len() < self.connections.len() {
            ensure!(Instant::now() < deadline, "answers are missing");
            self.receive(Duration::from_millis(10))?;
        }
        Ok(self.outcome)
    }

    fn until(&mut self, start: Instant, end: Instant) -> Result<()> {
        match self.plan.pace {
            Pace::Closed => self.closed(end),
            Pace::Open(rate) => self.open(start, end, rate),
        }
    }

    fn closed(&mut self, end: Instant) -> Result<()> {
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            while let Some(key) = self.free.pop_front() {
                self.send(key, now)?;
            }
            self.receive(Duration::from_millis(100))?;
        }
    }

    fn open(&mut self, start: Instant, end: Instant, rate: f64) -> Result<()> {
        // Requests that are due and have no connection.
        let mut waiting = VecDeque::new();
        let mut number = 0u64;
        let mut next = start;
        loop {
            let now = Instant::now();
            if now >= end {
                break;
            }
            while next <= now {
                waiting.push_back(next);
                number += 1;
                next = start + Duration::from_secs_f64(number as f64 / rate);
            }
            self.send_due(&mut waiting)?;
            let rest = next.saturating_duration_since(Instant::now());
            self.receive(rest.saturating_sub(SPIN))?;
            self.send_due(&mut waiting)?;
        }
        if self.measuring {
            // What was due and could not even be sent has waited at least so long.
            let waited = waiting.iter().map(|due| end.saturating_duration_since(*due));
            self.outcome.latencies_us.extend(waited.map(|time| time.as_secs_f64() * 1e6));
        }
        Ok(())
    }

    fn send_due(&mut self, waiting: &mut VecDeque<Instant>) -> Result<()> {
        while let (Some(due), Some(key)) = (waiting.front().copied(), self.free.front().copied()) {
            waiting.pop_front();
            self.free.pop_front();
            self.send(key, due)?;
        }
        Ok(())
    }

    fn send(&mut self, key: usize, due: Instant) -> Result<()> {
        let connection = self.connections.get_mut(key).context("no such connection")?;
        connection.due = due;
        // Less than any socket buffer, on a connection where nothing is under way.
        connection.stream.write_all(REQUEST).context("cannot send a request")?;
        self.outcome.sent += 1;
        Ok(())
    }

    fn receive(&mut self, timeout: Duration) -> Result<()> {
        let mut buffer = [0; 4096];
        for key in self.poll.wait(timeout)? {
            let connection = self.connections.get_mut(key).context("no such connection")?;
            let read = connection.stream.read(&mut buffer).context("cannot read an answer")?;
            ensure!(read > 0, "the server closed a connection");
            if connection.filled == 0 {
                let seen = buffer.get(..read).unwrap_or_default();
                ensure!(
                    seen.starts_with(b"HTTP/1.1 200"),
                    "the server said {:?}",
                    String::from_utf8_lossy(seen)
                );
            }
            connection.filled += read;
            if connection.filled < self.answer {
                continue;
            }
            ensure!(connection.filled == self.answer, "an answer is too long");
            connection.filled = 0;
            self.free.push_back(key);
            if self.measuring {
                self.outcome.answered += 1;
                if let Pace::Open(_) = self.plan.pace {
                    let latency = connection.due.elapsed().as_secs_f64() * 1e6;
                    self.outcome.latencies_us.push(latency);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server for one connection after the other, that answers every request it can read whole.
    fn server(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let mut request = vec![0; REQUEST.len()];
                    while stream.read_exact(&mut request).is_ok() {
                        stream.write_all(answer).expect("the client reads");
                    }
                });
            }
        });
        port
    }

    fn plan(pace: Pace) -> Plan {
        let (warm_up, measured) = (Duration::from_millis(20), Duration::from_millis(100));
        Plan { cpu: 0, connections: 4, pace, warm_up, measured }
    }

    fn good() -> &'static [u8] {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n";
        format!("{head}{}", "x".repeat(BODY)).leak().as_bytes()
    }

    #[test]
    fn every_request_is_answered_and_counted() {
        let client = Client::probe(server(good())).expect("answers");
        for pace in [Pace::Closed, Pace::Open(500.0)] {
            let mut edges = 0;
            let mut at_edge = |_| {
                edges += 1;
                Ok(())
            };
            let outcome = client.run(plan(pace), &mut at_edge).expect("works");
            assert_eq!(edges, 2);
            assert!(outcome.answered > 0 && outcome.sent >= outcome.answered);
            let open = matches!(pace, Pace::Open(_));
            assert_eq!(open, !outcome.latencies_us.is_empty());
        }
    }

    #[test]
    fn wrong_answers_are_refused() {
        for answer in [
            "HTTP/1.1 404 Not Found\r\nContent-Length: 200\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 200\r\n\r\n",
        ] {
            assert!(Client::probe(server(answer.as_bytes())).is_err(), "{answer}");
        }
    }
}
