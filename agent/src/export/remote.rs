//! A destination over the network: cuts what is queued into requests, keeps a few of them under way
//! and tries again. Which bytes are sent and what an answer means is the protocol's to know.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use tokio::task::LocalSet;

use super::Limits;
use super::body::Pieces;
use super::queue::{Loss, Portion, Queue};
use super::request::{Form, Request};
use super::retry::{Backoff, Verdict};

/// Requests under way at one time, so that a slow backend holds up nobody else's spans.
const UNDER_WAY: usize = 4;

/// How often a request that is too large for the backend is halved: down to an eighth.
const HALVINGS: u32 = 3;

/// What a backend can take is never thought to be less than this, in bytes.
const REQUEST_BYTES_MIN: usize = 64 << 10;

/// Least time between two lines of the log about one destination.
const QUIET: Duration = Duration::from_secs(10);

/// What is sent, and how long it was before it was compressed.
pub(super) struct Body {
    pub(super) pieces: Pieces,
    pub(super) plain_bytes: usize,
}

/// A protocol over the network that takes spans of one form.
pub(super) trait Protocol<B>: Send {
    /// Longest body before compression that every backend takes.
    fn plain_bytes_max(&self) -> usize;
    fn body(&mut self, request: &Request<B>) -> Body;
    /// Sends a body once. The future holds nothing of the protocol.
    fn attempt(&self, body: Pieces) -> Pin<Box<dyn Future<Output = Verdict>>>;
}

/// What became of a request.
enum Outcome {
    /// Its spans are settled.
    Settled,
    /// The backend says that it is too large.
    TooLarge,
}

/// A destination over the network.
pub(super) struct Remote<B> {
    name: String,
    queue: Arc<Queue<B>>,
    protocol: RefCell<Box<dyn Protocol<B>>>,
    limits: Limits,
    /// Memory of one request's spans, in bytes: less once the backend has found one too large.
    request_bytes: Cell<usize>,
    /// Whether the last attempt found nobody: no further requests are begun then.
    away: Cell<bool>,
    back: Notify,
    /// What is wrong, as last logged, and when that was: a change is logged once, and not often.
    trouble: Cell<Option<&'static str>>,
    said: Cell<Option<Instant>>,
}

/// Begins what one destination does.
pub(super) type Work = Box<dyn FnOnce(&LocalSet) + Send>;

impl<B: Form + 'static> Remote<B> {
    pub(super) fn new(
        name: String,
        queue: Arc<Queue<B>>,
        protocol: Box<dyn Protocol<B>>,
        limits: Limits,
    ) -> Self {
        let request_bytes = Cell::new(protocol.plain_bytes_max());
        Self {
            name,
            queue,
            protocol: RefCell::new(protocol),
            limits,
            request_bytes,
            away: Cell::new(false),
            back: Notify::new(),
            trouble: Cell::new(None),
            said: Cell::new(None),
        }
    }

    /// Its work, which is over when the queue is closed and drained and no request is under way.
    pub(super) fn work(self) -> Work {
        Box::new(move |tasks| {
            tasks.spawn_local(self.run());
        })
    }

    async fn run(self) {
        let remote = Rc::new(self);
        let slots = Arc::new(Semaphore::new(UNDER_WAY));
        // It is never closed.
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            remote.wait_while_away().await;
            let bytes = remote.request_bytes.get();
            let portion = Portion { spans: remote.limits.request_spans, bytes };
            let taken = remote.queue.take(remote.limits.linger, portion).await;
            let Some(request) = taken else { break };
            let remote = Rc::clone(&remote);
            tokio::task::spawn_local(async move {
                remote.deliver(request).await;
                drop(slot);
            });
        }
    }

    async fn wait_while_away(&self) {
        while self.away.get() && !self.queue.is_closing() {
            tokio::select! {
                () = self.back.notified() => {}
                () = self.queue.closed() => {}
            }
        }
    }

    /// Sends a request, in parts if it is too large, and settles each of its spans.
    async fn deliver(&self, request: Request<B>) {
        let mut waiting = vec![(request, HALVINGS)];
        while let Some((request, halvings)) = waiting.pop() {
            let (body, max) = {
                let mut protocol = self.protocol.borrow_mut();
                (protocol.body(&request), protocol.plain_bytes_max())
            };
            // Memory is a guess at what the encoding takes; a wrong guess is no word of the backend's.
            let is_too_large = body.plain_bytes > max;
            if !is_too_large {
                match self.attempts(request.len() as u64, body.pieces).await {
                    Outcome::Settled => continue,
                    Outcome::TooLarge => {
                        let half = request.footprint() / 2;
                        let bytes = half.max(REQUEST_BYTES_MIN).min(self.request_bytes.get());
                        self.request_bytes.set(bytes);
                    }
                }
            }
            let halvings = if is_too_large { Some(halvings) } else { halvings.checked_sub(1) };
            let spans = request.len() as u64;
            match halvings.zip(request.halves()) {
                Some((halvings, (first, second))) => {
                    waiting.extend([(second, halvings), (first, halvings)]);
                }
                None => {
                    self.queue.settle(0, spans, Loss::TooLarge);
                    self.warn("too large: spans are dropped", "");
                }
            }
        }
    }

    /// Sends a body until it is taken, refused or given up.
    async fn attempts(&self, spans: u64, body: Pieces) -> Outcome {
        let begun = Instant::now();
        let mut backoff = Backoff::new(spans ^ body.len() as u64);
        loop {
            let attempt = self.protocol.borrow().attempt(body.clone());
            let verdict = attempt.await;
            if !matches!(verdict, Verdict::Later { .. }) {
                self.away.set(false);
                self.back.notify_waiters();
            }
            match verdict {
                Verdict::Taken { rejected, message } => {
                    let rejected = rejected.min(spans);
                    self.queue.settle(spans - rejected, rejected, Loss::Rejected);
                    if rejected > 0 {
                        self.warn("some spans are rejected", &message);
                    } else if !message.is_empty() {
                        self.warn("taken with a warning", &message);
                    } else if self.is_news(None) {
                        tracing::info!(destination = %self.name, "takes spans again");
                    }
                    return Outcome::Settled;
                }
                Verdict::Refused { reason } => {
                    self.queue.settle(0, spans, Loss::Refused);
                    self.warn("refused: spans are dropped", &reason);
                    return Outcome::Settled;
                }
                Verdict::TooLarge { reason } => {
                    self.warn("too large for it: sending less at a time", &reason);
                    return Outcome::TooLarge;
                }
                Verdict::Later { after, reason } => {
                    self.away.set(true);
                    self.warn("not reachable: trying again", &reason);
                    // At the end there is one attempt for what is left.
                    let left = self.limits.give_up.saturating_sub(begun.elapsed());
                    if self.queue.is_closing() || left.is_zero() {
                        let closing = self.queue.is_closing();
                        let loss = if closing { Loss::Shutdown } else { Loss::GaveUp };
                        self.queue.settle(0, spans, loss);
                        return Outcome::Settled;
                    }
                    self.queue.retried();
                    // Whatever the server asks for, there is a last attempt in time.
                    let wait = backoff.wait(after).min(left);
                    self.rest(wait, after.is_some()).await;
                }
            }
        }
    }

    /// Waits for the next attempt, but not beyond the end, nor, unless the server has `asked` for
    /// the time, until after it has taken another request.
    async fn rest(&self, wait: Duration, asked: bool) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.queue.closed() => {}
            () = self.back.notified(), if !asked => {}
        }
    }

    fn warn(&self, what: &'static str, reason: &str) {
        if self.is_news(Some(what)) {
            tracing::warn!(destination = %self.name, reason, "{what}");
        }
    }

    /// Whether to log what the trouble is; a backend that wavers is not worth a line each time.
    fn is_news(&self, trouble: Option<&'static str>) -> bool {
        let is_recent = self.said.get().is_some_and(|said| said.elapsed() < QUIET);
        if self.trouble.get() == trouble || is_recent {
            return false;
        }
        self.trouble.set(trouble);
        self.said.set(Some(Instant::now()));
        true
    }
}

#[cfg(test)]
mod tests;
