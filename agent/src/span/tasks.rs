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

use super::exchange::ExchangeKey;
use super::model::{Confidence, Method, Resource};
use crate::event::ids::{TaskId, Tgid};

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
    /// The last thread that has read a request on a non-blocking socket.
    pub(super) looper: Option<TaskId>,
    /// Such a thread has made a call while it served nothing: so it does what belongs to no request, or to one
    /// that was answered before.
    pub(super) wanders: bool,
    /// Server exchanges open now.
    pub(super) open_servers: u32,
    /// Exchanges open now.
    pub(super) open: u32,
}

impl Process {
    pub(super) fn new(resource: Arc<Resource>, multiplexes_tasks: bool) -> Self {
        Self {
            resource,
            multiplexes_tasks,
            interleaves: false,
            hands_off: false,
            keeps: false,
            looper: None,
            wanders: false,
            open_servers: 0,
            open: 0,
        }
    }
}

/// The current server exchange of every task that has one.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    current: HashMap<TaskId, ExchangeKey, foldhash::fast::RandomState>,
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

    /// The task is a new one that has the id of another.
    pub(super) fn forget(&mut self, task: TaskId) {
        self.current.remove(&task);
        self.touched.remove(&task);
    }

    /// The process is a new one, or gone.
    pub(super) fn forget_process(&mut self, tgid: Tgid) {
        self.current.retain(|task, _| task.tgid != tgid);
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
///   by the parent's own answer.
/// * A thread on a non-blocking socket says something only while the process has a single request
///   open, and then not for certain; nothing if it was seen to call anyone while it had none.
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

/// Whether a thread is one that serves several requests at once, each to where it waits: the last socket
/// that it has used tells which, unless something else (a timer) has woken it since.
pub(super) fn is_event_loop(task: TaskId, process: &Process) -> bool {
    task.kind == task_kind::THREAD && !process.multiplexes_tasks && !process.hands_off
}

/// Processes by id.
pub(super) type Processes = HashMap<Tgid, Process, foldhash::fast::RandomState>;
