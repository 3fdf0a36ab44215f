//! One destination's bounded queue and its account.
//!
//! At any time `accepted = sent + queued + lost`, where `queued` includes what is being sent. A full
//! queue refuses the newest spans: what was accepted first is nearer to being delivered, and a
//! backend that comes back then shows whole traces from before, not fragments.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::span::model::Span;

/// Spans that were finished together; shared by all destinations.
pub type Batch = Arc<[Span]>;

/// Why a span did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The queue was full.
    QueueFull,
    /// The backend refused the whole request for good.
    Refused,
    /// The backend took the request but rejected some of its spans.
    Rejected,
    /// The backend did not take it within the time for retries.
    GaveUp,
    /// The disk or the pipe did not take it.
    Io,
    /// The agent ended before it could be sent.
    Shutdown,
}

impl Loss {
    /// Every reason, in the order of [`Account::lost`].
    pub const ALL: [Self; 6] =
        [Self::QueueFull, Self::Refused, Self::Rejected, Self::GaveUp, Self::Io, Self::Shutdown];

    /// The name used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::GaveUp => "gave_up",
            Self::Io => "io_error",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What became of a destination's spans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Offered to the destination.
    pub accepted: u64,
    /// Delivered.
    pub sent: u64,
    /// Waiting or under way.
    pub queued: u64,
    /// Lost, by reason: see [`Loss::ALL`].
    pub lost: [u64; Loss::ALL.len()],
    /// Attempts that failed and were or will be repeated.
    pub retries: u64,
}

impl Account {
    /// Sum of all losses.
    pub fn lost_in_all(&self) -> u64 {
        self.lost.iter().sum()
    }
}

struct State {
    batches: VecDeque<Batch>,
    account: Account,
    closing: bool,
}

/// A destination's queue. One side offers, the other takes and settles.
pub(super) struct Queue {
    spans_max: u64,
    state: Mutex<State>,
    /// For a taker on a thread of its own.
    filled: Condvar,
    /// For an offerer that can wait.
    settled: Condvar,
    /// For a taker on the runtime.
    notify: Notify,
}

impl Queue {
    pub(super) fn new(spans_max: u64) -> Self {
        let state = State { batches: VecDeque::new(), account: Account::default(), closing: false };
        Self {
            spans_max,
            state: Mutex::new(state),
            filled: Condvar::new(),
            settled: Condvar::new(),
            notify: Notify::new(),
        }
    }

    /// Takes a batch in, or counts it as lost. Never waits.
    pub(super) fn offer(&self, batch: &Batch) {
        let mut state = self.lock();
        let spans = batch.len() as u64;
        state.account.accepted += spans;
        if state.account.queued + spans > self.spans_max {
            lose(&mut state.account, Loss::QueueFull, spans);
            return;
        }
        state.account.queued += spans;
        state.batches.push_back(Arc::clone(batch));
        drop(state);
        self.filled.notify_one();
        self.notify.notify_one();
    }

    /// Waits until fewer than `spans` are queued, or nothing was settled for `patience`.
    pub(super) fn wait_below(&self, spans: u64, patience: Duration) {
        let mut state = self.lock();
        while state.account.queued >= spans.max(1) {
            let waited = self.settled.wait_timeout(state, patience);
            let (next, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = next;
            if timeout.timed_out() {
                return;
            }
        }
    }

    /// No more will be offered.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.filled.notify_one();
        self.notify.notify_one();
    }

    /// Waits for the next offer or the end.
    pub(super) async fn notified(&self) {
        self.notify.notified().await;
    }

    pub(super) fn is_closing(&self) -> bool {
        self.lock().closing
    }

    /// Waits for batches, on the runtime. Empty: closed and drained.
    pub(super) async fn take(&self, linger: Duration, spans_max: usize) -> Vec<Batch> {
        loop {
            let (empty, closing) = {
                let state = self.lock();
                (state.batches.is_empty(), state.closing)
            };
            if !empty {
                if !closing {
                    // Batches that come soon share a request.
                    tokio::time::sleep(linger).await;
                }
                return self.pop(spans_max);
            }
            if closing {
                return Vec::new();
            }
            self.notify.notified().await;
        }
    }

    /// Waits for batches, on a thread, no longer than `timeout`. `None`: closed and drained.
    pub(super) fn take_blocking(&self, timeout: Option<Duration>) -> Option<Vec<Batch>> {
        let mut state = self.lock();
        if state.batches.is_empty() && !state.closing {
            state = match timeout {
                None => self.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(timeout) => {
                    let waited = self.filled.wait_timeout(state, timeout);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        if state.batches.is_empty() && state.closing {
            return None;
        }
        Some(state.batches.drain(..).collect())
    }

    /// Says what became of spans that were taken.
    pub(super) fn settle(&self, sent: u64, lost: u64, loss: Loss) {
        let mut state = self.lock();
        let account = &mut state.account;
        // What was abandoned has been counted.
        let sent = sent.min(account.queued);
        let lost = lost.min(account.queued - sent);
        account.queued -= sent + lost;
        account.sent += sent;
        lose(account, loss, lost);
        self.settled.notify_all();
    }

    pub(super) fn retried(&self) {
        self.lock().account.retries += 1;
    }

    /// Everything that is still queued is lost.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.batches.clear();
        let queued = std::mem::take(&mut state.account.queued);
        lose(&mut state.account, Loss::Shutdown, queued);
    }

    pub(super) fn account(&self) -> Account {
        self.lock().account.clone()
    }

    fn pop(&self, spans_max: usize) -> Vec<Batch> {
        let mut state = self.lock();
        let mut batches: Vec<Batch> = Vec::new();
        let mut spans = 0;
        while let Some(batch) = state.batches.front() {
            spans += batch.len();
            if spans > spans_max && !batches.is_empty() {
                break;
            }
            batches.extend(state.batches.pop_front());
        }
        batches
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lose(account: &mut Account, loss: Loss, spans: u64) {
    for (reason, count) in Loss::ALL.iter().zip(&mut account.lost) {
        if *reason == loss {
            *count += spans;
        }
    }
}

#[cfg(test)]
mod tests;
