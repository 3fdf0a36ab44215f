//! One destination's bounded queue and its account.
//!
//! At any time `accepted = sent + queued + lost`, where `queued` includes what is being sent. A full
//! queue refuses the newest spans: what was accepted first is nearer to being delivered, and a
//! backend that comes back then shows whole traces from before, not fragments.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::request::{Form, Made, Part, Request};
use crate::span::model::Span;

/// Spans that were finished together, as they are; shared by all destinations that take them so.
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
    /// It is larger than a request may be, or than the backend takes.
    TooLarge,
}

impl Loss {
    /// Every reason, in the order of [`Account::lost`].
    pub const ALL: [Self; 7] = [
        Self::QueueFull,
        Self::Refused,
        Self::Rejected,
        Self::GaveUp,
        Self::Io,
        Self::Shutdown,
        Self::TooLarge,
    ];

    /// The name used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::GaveUp => "gave_up",
            Self::Io => "io_error",
            Self::Shutdown => "shutdown",
            Self::TooLarge => "too_large",
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

struct State<B> {
    parts: VecDeque<Part<B>>,
    /// How many spans wait.
    waiting: usize,
    /// About how much memory they take.
    bytes: usize,
    /// When the first of them came.
    since: Option<Instant>,
    /// What whoever waits on the runtime waits for, once there are some, and for how long.
    enough: Portion,
    linger: Duration,
    /// It has taken a request not long ago and will look by itself soon.
    naps: bool,
    /// Someone waits on a thread of its own.
    awaited: bool,
    /// There were none before what nobody was woken for yet.
    is_news: bool,
    account: Account,
    closing: bool,
    /// What is settled after the end has been counted already.
    abandoned: bool,
}

impl<B> State<B> {
    fn is_enough(&self) -> bool {
        self.waiting >= self.enough.spans || self.bytes >= self.enough.bytes
    }

    /// Whether the first of them has waited for others long enough.
    fn is_time(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= self.linger)
    }
}

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Most spans, with those under way.
    pub(super) spans: u64,
    /// Most memory that those take which are not yet under way, in bytes.
    pub(super) bytes: usize,
}

/// How much one request may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portion {
    /// Most spans.
    pub(super) spans: usize,
    /// Most memory that they may take, in bytes.
    pub(super) bytes: usize,
}

/// A destination's queue. One side offers, the other takes and settles.
pub(super) struct Queue<B> {
    room: Room,
    state: Mutex<State<B>>,
    /// For a taker on a thread of its own.
    filled: Condvar,
    /// For an offerer that can wait.
    settled: Condvar,
    /// For a taker on the runtime.
    notify: Notify,
    /// For all who wait on the runtime for something else.
    closed: Notify,
}

impl<B: Form> Queue<B> {
    pub(super) fn new(room: Room) -> Self {
        let state = State {
            parts: VecDeque::new(),
            waiting: 0,
            bytes: 0,
            since: None,
            enough: Portion { spans: 0, bytes: 0 },
            linger: Duration::ZERO,
            naps: false,
            awaited: false,
            is_news: false,
            account: Account::default(),
            closing: false,
            abandoned: false,
        };
        Self {
            room,
            state: Mutex::new(state),
            filled: Condvar::new(),
            settled: Condvar::new(),
            notify: Notify::new(),
            closed: Notify::new(),
        }
    }

    fn take_in(&self, batch: &B) {
        let mut part = Part::whole(batch);
        let mut state = self.lock();
        let spans = part.len() as u64;
        let free = self.room.spans.saturating_sub(state.account.queued);
        let room = self.room.bytes.saturating_sub(state.bytes);
        let (fits, bytes) = part.fit(free.min(spans) as usize, room);
        state.account.accepted += spans;
        lose(&mut state.account, Loss::QueueFull, spans - fits as u64);
        if fits == 0 {
            return;
        }
        state.account.queued += fits as u64;
        state.waiting += fits;
        state.bytes += bytes;
        state.is_news |= state.since.is_none();
        state.since.get_or_insert_with(Instant::now);
        state.parts.push_back(part.split_front(fits));
    }

    /// Takes in a batch, and wakes whoever waits for it.
    #[cfg(test)]
    pub(super) fn offer(&self, batch: &B) {
        self.take_in(batch);
        self.wake();
    }

    /// Waits until no more will be offered.
    pub(super) async fn closed(&self) {
        let closed = self.closed.notified();
        // Registered when it is made (`Notify::notify_waiters`), so a close from here on is seen.
        if !self.is_closing() {
            closed.await;
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.lock().closing
    }

    /// Waits for spans, on the runtime, for `linger` from the first on if there are few, at most
    /// twice as long where nobody wakes it. `None`: closed and drained.
    pub(super) async fn take(&self, linger: Duration, portion: Portion) -> Option<Request<B>> {
        // What will be enough has most often been put by then.
        let nap = Instant::now() + 2 * linger;
        loop {
            let rest = {
                let mut state = self.lock();
                (state.enough, state.linger) = (portion, linger);
                let left = nap.saturating_duration_since(Instant::now());
                state.naps = !left.is_zero() && state.since.is_none();
                match state.since {
                    None if state.closing => return None,
                    None if left.is_zero() => None,
                    None => Some(left),
                    Some(_) if state.is_enough() || state.is_time() || state.closing => {
                        Some(Duration::ZERO)
                    }
                    Some(since) => Some(linger.saturating_sub(since.elapsed())),
                }
            };
            match rest {
                None => self.notify.notified().await,
                Some(Duration::ZERO) => return Some(self.pop(portion)),
                // Spans that come soon share a request.
                Some(rest) => {
                    let _ = tokio::time::timeout(rest, self.notify.notified()).await;
                }
            }
        }
    }

    /// Says what became of spans that were taken.
    pub(super) fn settle(&self, sent: u64, lost: u64, loss: Loss) {
        let mut state = self.lock();
        if state.abandoned {
            return;
        }
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

    /// Takes a portion from the front, at least one span.
    fn pop(&self, portion: Portion) -> Request<B> {
        let mut state = self.lock();
        let mut request = Request::default();
        let mut bytes = 0;
        while let Some(mut part) = state.parts.pop_front() {
            let free = portion.spans.saturating_sub(request.len());
            let (mut fits, mut taken) = part.fit(free, portion.bytes.saturating_sub(bytes));
            if fits == 0 && request.len() == 0 {
                (fits, taken) = part.fit(1, usize::MAX);
            }
            bytes += taken;
            if fits > 0 {
                request.push(part.split_front(fits));
            }
            if part.len() > 0 {
                state.parts.push_front(part);
                break;
            }
        }
        state.waiting -= request.len();
        state.bytes = state.bytes.saturating_sub(bytes);
        if state.parts.is_empty() {
            state.since = None;
        }
        request
    }

    fn lock(&self) -> MutexGuard<'_, State<B>> {
        // Nothing that holds the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The side of a queue that spans come from, whichever form of them is taken from it.
pub(super) trait Outlet: Send + Sync {
    /// Takes in as much of what was made as there is room for, and counts the rest as lost. Never waits, and
    /// wakes nobody: more may follow at once.
    fn put(&self, made: &Made);
    /// Wakes whoever waits for what was put.
    fn wake(&self);
    /// Waits until half of the queue is free, or nothing was settled for `patience`.
    fn wait_for_half(&self, patience: Duration);
    /// No more will be offered.
    fn close(&self);
    fn account(&self) -> Account;
    /// Everything that is still queued or under way is lost; the last word about all of it.
    fn abandon(&self) -> Account;
}

impl<B: Form> Outlet for Queue<B> {
    fn put(&self, made: &Made) {
        if let Some(batch) = B::of(made) {
            self.take_in(batch);
        }
    }

    fn wake(&self) {
        let mut state = self.lock();
        if state.parts.is_empty() {
            return;
        }
        // Waking is dear, and who waits for a few more, or naps, knows when to look by itself. While there
        // is traffic it is woken for each request once, by whoever has brought the last of its spans.
        let is_news = mem::take(&mut state.is_news) && !state.naps;
        let (awaited, notified) = (state.awaited, is_news || state.is_enough() || state.is_time());
        drop(state);
        if awaited {
            self.filled.notify_one();
        }
        if notified {
            self.notify.notify_one();
        }
    }

    fn wait_for_half(&self, patience: Duration) {
        let mut state = self.lock();
        let half = (self.room.spans / 2).max(1);
        while state.account.queued >= half || state.bytes > self.room.bytes / 2 {
            let waited = self.settled.wait_timeout(state, patience);
            let (next, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = next;
            if timeout.timed_out() {
                return;
            }
        }
    }

    fn close(&self) {
        self.lock().closing = true;
        self.filled.notify_one();
        self.notify.notify_one();
        self.closed.notify_waiters();
    }

    fn account(&self) -> Account {
        self.lock().account.clone()
    }

    fn abandon(&self) -> Account {
        let mut state = self.lock();
        state.parts.clear();
        (state.waiting, state.bytes, state.since) = (0, 0, None);
        state.abandoned = true;
        let queued = mem::take(&mut state.account.queued);
        lose(&mut state.account, Loss::Shutdown, queued);
        state.account.clone()
    }
}

impl Queue<Batch> {
    /// Waits for batches, on a thread, no longer than `timeout`. `None`: closed and drained.
    pub(super) fn take_blocking(&self, timeout: Option<Duration>) -> Option<Vec<Batch>> {
        let mut state = self.lock();
        if state.parts.is_empty() && !state.closing {
            state.awaited = true;
            state = match timeout {
                None => self.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(timeout) => {
                    let waited = self.filled.wait_timeout(state, timeout);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.awaited = false;
        }
        if state.parts.is_empty() && state.closing {
            return None;
        }
        (state.waiting, state.bytes, state.since) = (0, 0, None);
        let parts = mem::take(&mut state.parts);
        drop(state);
        Some(parts.into_iter().map(Part::into_batch).collect())
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
