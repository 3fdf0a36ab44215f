//! The threads behind destinations: one for all that are reached over the network, one for each
//! that can block in a write.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::console::Console;
use super::file::Lines;
use super::otlp;
use super::queue::{Batch, Loss, Queue};
use super::retry::{Backoff, Verdict};
use super::{ExportError, Limits, zipkin};
use crate::span::model::Span;

/// A protocol over the network.
pub(super) trait Protocol: Send {
    /// Longest message that servers take.
    fn message_bytes_max(&self) -> usize;
    fn encode(&mut self, spans: &[&Span]) -> Vec<u8>;
    /// Compresses and frames a message.
    fn pack(&self, message: Vec<u8>) -> Vec<u8>;
    fn attempt(&self, body: Vec<u8>) -> Pin<Box<dyn Future<Output = Verdict> + '_>>;
}

impl Protocol for otlp::send::Sender {
    fn message_bytes_max(&self) -> usize {
        otlp::send::MESSAGE_BYTES_MAX
    }

    fn encode(&mut self, spans: &[&Span]) -> Vec<u8> {
        self.encode(spans)
    }

    fn pack(&self, message: Vec<u8>) -> Vec<u8> {
        self.pack(message)
    }

    fn attempt(&self, body: Vec<u8>) -> Pin<Box<dyn Future<Output = Verdict> + '_>> {
        Box::pin(self.attempt(body))
    }
}

impl Protocol for zipkin::Sender {
    fn message_bytes_max(&self) -> usize {
        zipkin::POST_BYTES_MAX
    }

    fn encode(&mut self, spans: &[&Span]) -> Vec<u8> {
        zipkin::encode(spans)
    }

    fn pack(&self, message: Vec<u8>) -> Vec<u8> {
        message
    }

    fn attempt(&self, body: Vec<u8>) -> Pin<Box<dyn Future<Output = Verdict> + '_>> {
        Box::pin(self.attempt(body))
    }
}

/// A destination over the network.
pub(super) struct Remote {
    name: String,
    queue: Arc<Queue>,
    protocol: Box<dyn Protocol>,
    limits: Limits,
    /// Whether the last attempt failed: a state's change is logged once.
    failing: bool,
}

impl Remote {
    pub(super) fn new(
        name: String,
        queue: Arc<Queue>,
        protocol: Box<dyn Protocol>,
        limits: Limits,
    ) -> Self {
        Self { name, queue, protocol, limits, failing: false }
    }

    async fn run(mut self) {
        loop {
            let batches = self.queue.take(self.limits.linger, self.limits.request_spans).await;
            if batches.is_empty() {
                return;
            }
            let spans: Vec<&Span> = batches.iter().flat_map(|batch| batch.iter()).collect();
            let requests = requests(&mut *self.protocol, &spans, self.limits.request_spans);
            drop(spans);
            drop(batches);
            for Request { body, spans } in requests {
                self.deliver(body, spans).await;
            }
        }
    }

    async fn deliver(&mut self, body: Vec<u8>, spans: u64) {
        let begun = Instant::now();
        let mut backoff = Backoff::new(spans ^ body.len() as u64);
        loop {
            match self.protocol.attempt(body.clone()).await {
                Verdict::Taken { rejected, message } => {
                    let rejected = rejected.min(spans);
                    self.queue.settle(spans - rejected, rejected, Loss::Rejected);
                    self.recovered();
                    if rejected > 0 || !message.is_empty() {
                        let name = &self.name;
                        tracing::warn!(destination = %name, rejected, message, "partial success");
                    }
                    return;
                }
                Verdict::Refused { reason } => {
                    self.queue.settle(0, spans, Loss::Refused);
                    self.failed(&reason, "refused: spans are dropped");
                    return;
                }
                Verdict::Later { after, reason } => {
                    self.failed(&reason, "not reachable: trying again");
                    // At the end there is one attempt for what is left.
                    if self.queue.is_closing() {
                        self.queue.settle(0, spans, Loss::Shutdown);
                        return;
                    }
                    let wait = backoff.wait(after);
                    if begun.elapsed() + wait > self.limits.give_up {
                        self.queue.settle(0, spans, Loss::GaveUp);
                        return;
                    }
                    self.queue.retried();
                    self.rest(wait).await;
                }
            }
        }
    }

    /// Waits for the next attempt, but not beyond the end.
    async fn rest(&self, wait: Duration) {
        let end = Instant::now() + wait;
        while Instant::now() < end && !self.queue.is_closing() {
            let rest = end.saturating_duration_since(Instant::now());
            // A closing queue notifies; batches that arrive meanwhile do too, and are left there.
            let notified = self.queue.notified();
            let _ = tokio::time::timeout(rest, notified).await;
        }
    }

    fn failed(&mut self, reason: &str, what: &'static str) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(destination = %self.name, reason, "{what}");
        }
    }

    fn recovered(&mut self) {
        if std::mem::take(&mut self.failing) {
            tracing::info!(destination = %self.name, "reachable again");
        }
    }
}

/// A request's body and how many spans are in it.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    body: Vec<u8>,
    spans: u64,
}

/// Cuts spans into requests that servers take: by number, and where they are large by size.
fn requests(protocol: &mut dyn Protocol, spans: &[&Span], most: usize) -> Vec<Request> {
    let mut requests = Vec::new();
    let mut waiting: Vec<&[&Span]> = spans.chunks(most.max(1)).rev().collect();
    while let Some(spans) = waiting.pop() {
        let message = protocol.encode(spans);
        if message.len() > protocol.message_bytes_max()
            && let Some((first, second)) = spans.split_at_checked(spans.len() / 2)
            && !first.is_empty()
        {
            waiting.extend([second, first]);
            continue;
        }
        requests.push(Request { body: protocol.pack(message), spans: spans.len() as u64 });
    }
    requests
}

/// Starts the thread of all network destinations.
pub(super) fn remote(
    remotes: Vec<Remote>,
    alive: mpsc::Sender<()>,
) -> Result<JoinHandle<()>, ExportError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(ExportError::Thread)?;
    spawn("remora-export", move || {
        let tasks = tokio::task::LocalSet::new();
        for remote in remotes {
            tasks.spawn_local(remote.run());
        }
        runtime.block_on(tasks);
        drop(alive);
    })
}

/// Starts the thread of a destination that takes JSON lines.
pub(super) fn lines(
    name: String,
    queue: Arc<Queue>,
    mut lines: Lines,
    alive: mpsc::Sender<()>,
) -> Result<JoinHandle<()>, ExportError> {
    spawn("remora-lines", move || {
        let mut failing = false;
        while let Some(batches) = queue.take_blocking(None) {
            // A line for each batch, so that a replay writes the very lines that its run wrote.
            for batch in batches.chunks(1) {
                settle(&name, &queue, batch, lines.write(batch), &mut failing);
            }
        }
        drop(alive);
    })
}

/// Starts the console's thread.
pub(super) fn console(
    name: String,
    queue: Arc<Queue>,
    mut console: Console,
    alive: mpsc::Sender<()>,
) -> Result<JoinHandle<()>, ExportError> {
    spawn("remora-console", move || {
        let mut failing = false;
        loop {
            let rest =
                console.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
            let Some(batches) = queue.take_blocking(rest) else { break };
            let mut result = Ok(());
            for batch in &batches {
                result = result.and(console.accept(batch, Instant::now()));
            }
            result = result.and(console.tick(Instant::now()));
            settle(&name, &queue, &batches, result, &mut failing);
        }
        if let Err(error) = console.finish()
            && !failing
        {
            tracing::warn!(destination = %name, %error, "cannot write the last traces");
        }
        drop(alive);
    })
}

fn settle(
    name: &str,
    queue: &Queue,
    batches: &[Batch],
    result: io::Result<()>,
    failing: &mut bool,
) {
    let spans = batches.iter().map(|batch| batch.len() as u64).sum();
    match result {
        Ok(()) => {
            queue.settle(spans, 0, Loss::Io);
            if std::mem::take(failing) {
                tracing::info!(destination = %name, "writable again");
            }
        }
        Err(error) => {
            queue.settle(0, spans, Loss::Io);
            if !std::mem::replace(failing, true) {
                tracing::warn!(destination = %name, %error, "cannot write: spans are dropped");
            }
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ExportError> {
    Builder::new().name(name.to_owned()).spawn(run).map_err(ExportError::Thread)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::export::arbitrary;

    /// Encodes a span as its id; takes `self.0` bytes.
    struct Ids(usize);

    impl Protocol for Ids {
        fn message_bytes_max(&self) -> usize {
            self.0
        }

        fn encode(&mut self, spans: &[&Span]) -> Vec<u8> {
            spans.iter().flat_map(|span| span.span_id.0).collect()
        }

        fn pack(&self, message: Vec<u8>) -> Vec<u8> {
            message
        }

        fn attempt(&self, _: Vec<u8>) -> Pin<Box<dyn Future<Output = Verdict> + '_>> {
            Box::pin(async { Verdict::Refused { reason: String::new() } })
        }
    }

    proptest! {
        #[test]
        fn requests_are_cut_by_number_and_by_size(
            spans in prop::collection::vec(arbitrary::spans(), 0..8),
            bytes in 0usize..100,
            most in 0usize..20,
        ) {
            let spans: Vec<&Span> = spans.iter().flatten().collect();
            let mut protocol = Ids(bytes);
            let requests = requests(&mut protocol, &spans, most);
            for Request { body, spans } in &requests {
                prop_assert!(*spans <= most.max(1) as u64);
                // A single span that is too large is the server's to refuse.
                prop_assert!(body.len() <= bytes || *spans == 1);
                prop_assert_eq!(body.len() as u64, spans * 8);
            }
            let all: Vec<u8> = requests.into_iter().flat_map(|request| request.body).collect();
            prop_assert_eq!(all, protocol.encode(&spans), "all, once, in order");
        }
    }
}
