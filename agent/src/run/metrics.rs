//! Self-telemetry: the agent's own counts in Prometheus's text format, for whoever asks.
//!
//! A thread takes the connections, so that a slow one cannot hold up the agent; the counts are read
//! only when somebody asks, so that nobody pays for them otherwise.

use std::fmt::Write as _;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::time::{Duration, Instant};

use super::summary::Summary;

/// How long a client may take, in each direction, and how long nobody is listened to after the system could not
/// take one, which it will not at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest request that is read.
const REQUEST_MAX: usize = 4096;

/// The agent's end of the endpoint.
pub(super) struct Metrics {
    asked: Receiver<SyncSender<String>>,
    wake: PipeReader,
}

impl Metrics {
    /// Listens on `address`.
    pub(super) fn listen(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let (wake, poke) = io::pipe()?;
        let (ask, asked) = mpsc::channel();
        tracing::info!(address = %listener.local_addr()?, "metrics");
        std::thread::Builder::new()
            .name("remora-metrics".to_owned())
            .spawn(move || serve(&listener, &ask, poke))?;
        Ok(Self { asked, wake })
    }

    /// Readable when somebody asks.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Answers all who have asked.
    pub(super) fn answer(&mut self, summary: impl Fn() -> Summary) {
        while let Ok(reply) = self.asked.try_recv() {
            let mut byte = [0];
            // One byte was written for each who asks; a failed read leaves one wake-up too many.
            let _ = self.wake.read(&mut byte);
            // A client that has gone meanwhile needs no answer.
            let _ = reply.send(render(&summary()));
        }
    }
}

fn serve(listener: &TcpListener, ask: &Sender<SyncSender<String>>, mut poke: PipeWriter) {
    for stream in listener.incoming() {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "metrics request not taken");
                std::thread::park_timeout(PATIENCE);
                continue;
            }
        };
        if let Err(error) = answer(stream, ask, &mut poke) {
            tracing::debug!(%error, "metrics request failed");
        }
    }
}

fn answer(
    mut stream: TcpStream,
    ask: &Sender<SyncSender<String>>,
    poke: &mut PipeWriter,
) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let until = Instant::now() + PATIENCE;
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < REQUEST_MAX {
        // All of it: who sends a byte now and then would keep others out.
        let left = until.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let read = stream.read(&mut buffer)?;
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if read == 0 {
            break;
        }
        request.extend_from_slice(buffer.get(..read).unwrap_or_default());
    }
    if !request.starts_with(b"GET /metrics ") && !request.starts_with(b"GET / ") {
        return stream.write_all(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
    }
    let (reply, text) = mpsc::sync_channel(1);
    ask.send(reply).map_err(io::Error::other)?;
    poke.write_all(b"?")?;
    let text = text.recv_timeout(PATIENCE).map_err(io::Error::other)?;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(text.as_bytes())
}

fn render(summary: &Summary) -> String {
    let mut text = String::new();
    for (name, value) in summary.metrics() {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# TYPE {name} {kind}\n{name} {value}");
    }
    let _ = writeln!(text, "# TYPE remora_lost_total counter");
    for (reason, lost) in summary.losses() {
        let _ = writeln!(text, "remora_lost_total{{reason=\"{reason}\"}} {lost}");
    }
    type Count = fn(&crate::export::Account) -> u64;
    let counts: [(&str, &str, Count); 4] = [
        ("remora_exported_spans_total", "counter", |account| account.sent),
        ("remora_export_lost_spans_total", "counter", |account| account.lost_in_all()),
        ("remora_export_retries_total", "counter", |account| account.retries),
        ("remora_export_queued_spans", "gauge", |account| account.queued),
    ];
    for (name, kind, count) in counts {
        let _ = writeln!(text, "# TYPE {name} {kind}");
        for (destination, account) in &summary.accounts {
            let label = destination.replace(['\\', '"', '\n'], "_");
            let _ = writeln!(text, "{name}{{destination=\"{label}\"}} {}", count(account));
        }
    }
    text
}
