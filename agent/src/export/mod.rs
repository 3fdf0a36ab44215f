//! Getting finished spans out: encoders, senders, files and the terminal.
//!
//! Each destination has its own bounded queue, its own retries and its own account, so that a dead
//! one hurts no other. Nothing here knows where spans come from.

#[cfg(test)]
mod arbitrary;
mod body;
pub(crate) mod client;
pub mod console;
mod file;
mod group;
mod json;
pub mod otlp;
mod queue;
mod remote;
mod request;
mod retry;
mod worker;
pub mod zipkin;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reqwest::Url;

use crate::span::model::Span;
pub use body::Pieces;
use otlp::config::{ConfigError, Protocol};
use otlp::encode::Encoded;
pub use queue::{Account, Batch, Loss};
use queue::{Outlet, Queue, Room};
use request::{Form, Made};

/// Why exporting cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A destination's settings are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be written.
    #[error("cannot write spans to {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No thread or no runtime could be had.
    #[error("cannot start the export thread")]
    Thread(#[source] io::Error),
}

/// Where spans go.
pub enum Destination {
    /// A backend that speaks OTLP.
    Otlp(otlp::config::Config),
    /// A backend that speaks Zipkin v2.
    Zipkin(Url),
    /// A file of OTLP JSON lines.
    File(PathBuf),
    /// OTLP JSON lines on standard output.
    JsonStdout,
    /// Trees of traces for a person.
    Console(console::Options),
}

impl Destination {
    /// How logs call it.
    fn name(&self) -> String {
        match self {
            Self::Otlp(config) => format!("otlp {}", without_secrets(&config.url)),
            Self::Zipkin(url) => format!("zipkin {}", without_secrets(url)),
            Self::File(path) => format!("file {}", path.display()),
            Self::JsonStdout => "stdout".to_owned(),
            Self::Console(_) => "console".to_owned(),
        }
    }

    /// Whether it takes spans as OTLP's protobuf, and not as they are.
    fn takes_encoded(&self) -> bool {
        matches!(self, Self::Otlp(config) if config.protocol != Protocol::HttpJson)
    }
}

/// A URL as logs and metrics may show it: without what may be a password or a key.
fn without_secrets(url: &Url) -> Url {
    let mut url = url.clone();
    // Only a URL without a host cannot have these, and then there is nothing to take away.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url
}

/// Bounds of a destination.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most spans that wait or are under way.
    pub queue_spans: u64,
    /// Most memory that waiting spans take, in bytes. A usual span takes 1 to 2 KiB,
    /// and half as much where OTLP's protobuf is sent.
    pub queue_bytes: usize,
    /// Most spans of one request. How many bytes it may have is the protocol's to know.
    pub request_spans: usize,
    /// How long the first span of a request waits for others.
    pub linger: Duration,
    /// How long one request is tried.
    pub give_up: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_spans: 100_000,
            queue_bytes: 128 << 20,
            request_spans: 2048,
            linger: Duration::from_millis(150),
            give_up: Duration::from_secs(300),
        }
    }
}

/// How long a source that can wait does so for a destination that takes nothing.
const STUCK: Duration = Duration::from_secs(5);

/// Which forms of spans there are destinations for.
#[derive(Default)]
struct Takes {
    whole: bool,
    encoded: bool,
}

struct Running {
    name: String,
    queue: Arc<dyn Outlet>,
}

/// What every destination that is started is given.
struct Start<'a> {
    limits: Limits,
    running: &'a mut Vec<Running>,
}

impl Start<'_> {
    /// A destination's queue, which holds `more` spans than others do.
    fn queue<B: Form + 'static>(&mut self, name: &str, more: u64) -> Arc<Queue<B>> {
        let room = Room { spans: self.limits.queue_spans + more, bytes: self.limits.queue_bytes };
        let queue = Arc::new(Queue::new(room));
        self.running.push(Running { name: name.to_owned(), queue: Arc::<Queue<B>>::clone(&queue) });
        queue
    }

    /// The work of one that is reached over the network.
    fn remote<B: Form + 'static>(
        &mut self,
        name: String,
        protocol: Box<dyn remote::Protocol<B>>,
    ) -> remote::Work {
        let queue = self.queue(&name, 0);
        remote::Remote::new(name, queue, protocol, self.limits).work()
    }
}

/// All destinations, at work.
pub struct Exporters {
    running: Vec<Running>,
    takes: Takes,
    threads: Vec<JoinHandle<()>>,
    /// Closed when every worker has ended.
    ended: mpsc::Receiver<()>,
}

impl Exporters {
    /// Starts every destination.
    pub fn start(destinations: Vec<Destination>, limits: Limits) -> Result<Self, ExportError> {
        let mut running = Vec::new();
        let mut start = Start { limits, running: &mut running };
        let mut remote = Vec::new();
        let mut threads = Vec::new();
        let (alive, ended) = mpsc::channel();
        let mut takes = Takes::default();
        for destination in destinations {
            let name = destination.name();
            let is_encoded = destination.takes_encoded();
            takes.encoded |= is_encoded;
            takes.whole |= !is_encoded;
            match destination {
                Destination::Otlp(config) => {
                    let sender = Box::new(otlp::send::Sender::new(config)?);
                    remote.push(match is_encoded {
                        true => start.remote::<Arc<Encoded>>(name, sender),
                        false => start.remote::<Batch>(name, sender),
                    });
                }
                Destination::Zipkin(url) => {
                    remote.push(start.remote::<Batch>(name, Box::new(zipkin::Sender::new(url)?)));
                }
                Destination::File(path) => {
                    let lines = file::Lines::file(&path)
                        .map_err(|source| ExportError::File { path, source })?;
                    let queue = start.queue(&name, 0);
                    threads.push(worker::lines(name, queue, lines, alive.clone())?);
                }
                Destination::JsonStdout => {
                    let queue = start.queue(&name, 0);
                    threads.push(worker::lines(name, queue, file::Lines::stdout(), alive.clone())?);
                }
                Destination::Console(options) => {
                    let console = console::Console::new(Box::new(io::stdout()), options);
                    // What waits to be drawn is under way.
                    let queue = start.queue(&name, 2 * console::SPANS_MAX as u64);
                    threads.push(worker::console(name, queue, console, alive.clone())?);
                }
            }
        }
        if !remote.is_empty() {
            threads.push(worker::remote(remote, alive)?);
        }
        Ok(Self { running, takes, threads, ended })
    }

    /// Gives spans to every destination. Never waits.
    pub fn offer(&self, mut spans: Vec<Span>) {
        self.put(&mut spans);
        self.wake();
    }

    /// As [`offer`](Self::offer), but nobody is told before [`wake`](Self::wake). Spans are put aside as
    /// they are made, while they are in the processor's caches, and in small parts, whose memory is
    /// free again as soon as these have arrived. Those that are left are needed by nobody any more.
    pub fn put(&self, spans: &mut Vec<Span>) {
        if spans.is_empty() {
            return;
        }
        let encoded = self.takes.encoded.then(|| Arc::new(Encoded::new(spans)));
        let whole = self.takes.whole.then(|| spans.drain(..).collect());
        let made = Made { whole, encoded };
        for destination in &self.running {
            destination.queue.put(&made);
        }
    }

    /// Tells every destination of what was put.
    pub fn wake(&self) {
        for destination in &self.running {
            destination.queue.wake();
        }
    }

    /// Waits until every destination has room for half of its queue, or is stuck: for a source that
    /// can wait, as a replay can.
    pub fn wait_for_room(&self) {
        for destination in &self.running {
            destination.queue.wait_for_half(STUCK);
        }
    }

    /// What became of the spans, by destination.
    pub fn accounts(&self) -> Vec<(String, Account)> {
        let account = |running: &Running| (running.name.clone(), running.queue.account());
        self.running.iter().map(account).collect()
    }

    /// Sends what is queued, for at most `patience`; the rest is counted as lost.
    pub fn finish(self, patience: Duration) -> Vec<(String, Account)> {
        for destination in &self.running {
            destination.queue.close();
        }
        let deadline = Instant::now() + patience;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            match self.ended.recv_timeout(rest) {
                Ok(()) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    for thread in self.threads {
                        if thread.join().is_err() {
                            tracing::error!("an export thread has panicked");
                        }
                    }
                    break;
                }
                // A thread that hangs in a write is left to the end of the process.
                Err(mpsc::RecvTimeoutError::Timeout) => break,
            }
        }
        let account = |running: &Running| (running.name.clone(), running.queue.abandon());
        self.running.iter().map(account).collect()
    }
}
