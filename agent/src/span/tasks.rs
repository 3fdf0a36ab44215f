//! Which server exchange each task is serving, and whether a process's tasks mean anything.
//!
//! A thread proves a parent only where one thread serves one request from its first byte read to
//! its last byte written. Processes that do otherwise give themselves away: one thread has several
//! requests open at once, or a response is written by another thread than the one that read the
//! request. From then on the thread rule stays silent for them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use agent_common::task_kind;

use super::exchange::{ExchangeKey, SocketKey};
use super::model::{Confidence, Method, Resource};
use crate::event::ids::{TaskId, Tgid};
use crate::platform::clock::MonoNs;

/// What is known of a process that is traced.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) resource: Arc<Resource>,
    /// The runtime schedules its own tasks over threads (Go, for one): threads prove nothing.
    pub(super) multiplexes_tasks: bool,
    /// One thread was seen serving several requests at once.
    pub(super) interleaves: bool,
    /// A response was written by another thread than the one that had read the request.
    pub(super) hands_off: bool,
    /// A response was written by the very thread that had read the request.
    pub(super) keeps: bool,
    /// Threads that have read a request on a non-blocking socket.
    readers: Threads,
    /// Threads that have made a call while they served nothing.
    callers: Threads,
    /// A thread is both: so it does what belongs to no request, or to one that was answered before.
    wanders: bool,
    /// Since when it is watched, or when it was last seen to serve or to call anybody.
    pub(super) moved: MonoNs,
    /// Nothing of it had been seen for [`CALM_NS`] when the last request was read.
    calm: bool,
    /// How often a thread has waited for an answer while another request waited for the thread.
    let_wait: u32,
    /// Server exchanges open now.
    pub(super) open_servers: u32,
    /// Exchanges open now.
    pub(super) open: u32,
}

impl Process {
    pub(super) fn new(resource: Arc<Resource>, multiplexes_tasks: bool, since: MonoNs) -> Self {
        Self {
            resource,
            multiplexes_tasks,
            interleaves: false,
            hands_off: false,
            keeps: false,
            readers: Threads::default(),
            callers: Threads::default(),
            wanders: false,
            moved: since,
            calm: false,
            let_wait: 0,
            open_servers: 0,
            open: 0,
        }
    }

    /// A thread has read a request on a non-blocking socket.
    pub(super) fn reads(&mut self, task: TaskId, at: MonoNs) {
        self.calm = self.open == 1 && at.since(self.moved) >= CALM_NS;
        self.readers.add(task);
        self.wanders |= self.callers.may_have(task);
    }

    /// A request had been there when the thread that reads it began to wait for an answer that it needed for the one
    /// before, on another connection. An event loop would have read it.
    pub(super) fn lets_wait(&mut self) {
        self.let_wait = self.let_wait.saturating_add(1);
    }

    /// A thread has made a call while it served nothing.
    pub(super) fn wanders(&mut self, task: TaskId) {
        self.callers.add(task);
        self.wanders |= self.readers.may_have(task);
    }
}

/// How long nothing is seen of a process before it is taken to do nothing by itself: what comes more often than
/// that has been seen.
pub(super) const CALM_NS: u64 = 1_000_000_000;

/// How often a thread must have let requests wait: an event loop may seem to if it was held up itself.
const LET_WAIT_MIN: u32 = 8;

/// Most threads that are remembered.
const THREADS_MAX: usize = 64;

/// Some threads of a process. Of more than [`THREADS_MAX`] it is any.
#[derive(Debug, Default)]
struct Threads {
    some: Vec<TaskId>,
}

impl Threads {
    fn add(&mut self, task: TaskId) {
        if self.some.len() < THREADS_MAX && !self.some.contains(&task) {
            self.some.push(task);
        }
    }

    fn may_have(&self, task: TaskId) -> bool {
        self.some.len() == THREADS_MAX || self.some.contains(&task)
    }
}

/// Most tasks of which it is remembered that they have waited.
const WAITED_MAX: usize = 1 << 12;

/// The current server exchange of every task that has one.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    current: HashMap<TaskId, ExchangeKey, foldhash::fast::RandomState>,
    /// On whose connection's behalf a task was last seen to get an answer, and since when it had waited for that.
    waited: HashMap<TaskId, (SocketKey, MonoNs), foldhash::fast::RandomState>,
    /// The exchange on whose socket each task was last seen to read or write.
    touched: HashMap<TaskId, ExchangeKey, foldhash::fast::RandomState>,
}

impl Tasks {
    pub(super) fn current(&self, task: TaskId) -> Option<ExchangeKey> {
        self.current.get(&task).copied()
    }

    pub(super) fn enter(&mut self, task: TaskId, exchange: ExchangeKey) {
        self.current.insert(task, exchange);
    }

    pub(super) fn touched(&self, task: TaskId) -> Option<ExchangeKey> {
        self.touched.get(&task).copied()
    }

    /// The task has used the socket of an exchange, or one that says nothing.
    pub(super) fn touch(&mut self, task: TaskId, exchange: Option<ExchangeKey>) {
        match exchange {
            Some(exchange) => self.touched.insert(task, exchange),
            None => self.touched.remove(&task),
        };
    }

    /// The task has got an answer that it had asked for at a time, to serve a request on a non-blocking socket.
    pub(super) fn has_waited(&mut self, task: TaskId, socket: SocketKey, since: MonoNs) {
        // Nobody tells of every thread's end.
        if self.waited.len() >= WAITED_MAX {
            self.waited.clear();
        }
        self.waited.insert(task, (socket, since));
    }

    /// What [`has_waited`](Self::has_waited) has told last, once.
    pub(super) fn take_waited(&mut self, task: TaskId) -> Option<(SocketKey, MonoNs)> {
        if self.waited.is_empty() { None } else { self.waited.remove(&task) }
    }

    /// The task is a new one that has the id of another.
    pub(super) fn forget(&mut self, task: TaskId) {
        self.current.remove(&task);
        self.waited.remove(&task);
        self.touched.remove(&task);
    }

    /// The process is a new one, or gone.
    pub(super) fn forget_process(&mut self, tgid: Tgid) {
        self.current.retain(|task, _| task.tgid != tgid);
        self.waited.retain(|task, _| task.tgid != tgid);
        self.touched.retain(|task, _| task.tgid != tgid);
    }

    /// The task's exchange is over, unless it serves another one by now.
    pub(super) fn leave(&mut self, task: TaskId, exchange: ExchangeKey) {
        if let Entry::Occupied(current) = self.current.entry(task)
            && *current.get() == exchange
        {
            current.remove();
        }
    }
}

/// What links a request that `task` makes to the server exchange that is current for it: the rule
/// table of the links within a process. `None` leaves the parent unknown.
///
/// * A goroutine waits in what it calls, whatever its sockets: as a thread on a blocking socket.
/// * A thread is exact where its server socket blocks: it cannot have served anything else between.
///   Until the process has shown that its threads answer what they read, that remains to be proved
///   by the parent's own answer; what it asks of others, always.
/// * A thread on a non-blocking socket says something only while the process has a single request
///   open, and then not for certain; nothing if one like it was seen to call anyone while it had none.
pub(super) fn within(
    task: TaskId,
    process: &Process,
    nonblocking: bool,
) -> Option<(Method, Confidence)> {
    if process.interleaves || process.hands_off {
        return None;
    }
    let method = match task.kind {
        task_kind::THREAD if !process.multiplexes_tasks => Method::Thread,
        task_kind::GOROUTINE => Method::Goroutine,
        _ => return None,
    };
    if method.is_proved_by_answer(nonblocking) {
        let confidence = if process.keeps { Confidence::Exact } else { Confidence::Inferred };
        return Some((method, confidence));
    }
    (process.open_servers == 1 && !process.wanders)
        .then_some((Method::Thread, Confidence::Inferred))
}

/// Whether a call by a thread that serves a request on a non-blocking socket may be for that: it does one thing at a
/// time, or what the process does by itself, or still for requests before, would have been seen in the time before.
pub(super) fn is_believed(process: &Process) -> bool {
    process.calm || process.let_wait >= LET_WAIT_MIN
}

/// Whether a thread is one that serves several requests at once, each to where it waits: the last socket
/// that it has used tells which, unless something else (a timer) has woken it since.
pub(super) fn is_event_loop(task: TaskId, process: &Process) -> bool {
    task.kind == task_kind::THREAD && !process.multiplexes_tasks && !process.hands_off
}

/// Processes by id.
pub(super) type Processes = HashMap<Tgid, Process, foldhash::fast::RandomState>;
