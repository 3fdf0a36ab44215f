//! How a queue becomes requests, and what becomes of each span, without a network.

use std::sync::{Mutex, mpsc};

use super::super::queue::{Account, Batch, Outlet as _, Room};
use super::*;
use crate::span::attributes::Attributes;
use crate::span::model::{Kind, Resource, Span, SpanId, StatusCode, TraceId, UnixNs};

/// What a span takes once it is encoded.
const ENCODED: usize = 1000;

type Answer = fn(usize) -> Verdict;

/// Spans are as many bytes as each takes; how many came is written down.
struct Fake {
    max: usize,
    answer: Answer,
    sent: Arc<Mutex<Vec<usize>>>,
}

impl Protocol<Batch> for Fake {
    fn plain_bytes_max(&self) -> usize {
        self.max
    }

    fn body(&mut self, request: &Request<Batch>) -> Body {
        let plain_bytes = request.spans().count() * ENCODED;
        Body { pieces: vec![0; plain_bytes].into(), plain_bytes }
    }

    fn attempt(&self, body: Pieces) -> Pin<Box<dyn Future<Output = Verdict>>> {
        let spans = body.len() / ENCODED;
        self.sent.lock().expect("no panic while locked").push(spans);
        Box::pin(std::future::ready((self.answer)(spans)))
    }
}

fn batch(spans: usize) -> Batch {
    let resource = Resource { attributes: Attributes::default(), service_name: "a".to_owned() };
    let span = Span {
        resource: Arc::new(resource),
        trace_id: TraceId([1; 16]),
        span_id: SpanId([1; 8]),
        parent: None,
        trace_state: String::new(),
        trace_flags: 0,
        kind: Kind::Server,
        name: "GET".into(),
        start: UnixNs(1),
        end: UnixNs(2),
        attributes: Attributes::default(),
        events: Vec::new(),
        links: Vec::new(),
        status: StatusCode::Unset,
        status_message: String::new(),
    };
    vec![span; spans].into()
}

/// Offers batches, closes the queue and works it off; what was sent, and the account. Where nothing
/// is tried twice, the queue is closed only when it is worked off: closing has its own rule.
fn run(max: usize, limits: Limits, batches: &[usize], answer: Answer) -> (Vec<usize>, Account) {
    let room = Room { spans: limits.queue_spans, bytes: limits.queue_bytes };
    let queue = Arc::new(Queue::new(room));
    for spans in batches {
        queue.offer(&batch(*spans));
    }
    if limits.give_up > Duration::ZERO {
        queue.close();
    }
    let sent = Arc::new(Mutex::new(Vec::new()));
    let fake = Fake { max, answer, sent: Arc::clone(&sent) };
    let remote = Remote::new("fake".to_owned(), Arc::clone(&queue), Box::new(fake), limits);
    let (alive, _ended) = mpsc::channel();
    let thread =
        super::super::worker::remote(vec![remote.work()], alive).expect("a thread can be had");
    if limits.give_up == Duration::ZERO {
        queue.wait_for_half(Duration::from_secs(30));
        queue.close();
    }
    thread.join().expect("it does not panic");
    let account = queue.account();
    assert_eq!(account.accepted, account.sent + account.lost_in_all(), "{account:?}");
    let sent = std::mem::take(&mut *sent.lock().expect("no panic while locked"));
    (sent, account)
}

fn lost(account: &Account, reason: Loss) -> u64 {
    let at = Loss::ALL.iter().position(|loss| *loss == reason);
    at.map_or(0, |at| account.lost[at])
}

fn take(_: usize) -> Verdict {
    Verdict::Taken { rejected: 0, message: String::new() }
}

#[test]
fn requests_are_cut_by_spans_inside_batches_and_across_them() {
    let limits = Limits { request_spans: 40, ..Limits::default() };
    let (sent, account) = run(1 << 20, limits, &[100, 5, 15], take);
    assert_eq!(sent, [40, 40, 40]);
    assert_eq!(account.sent, 120);
}

#[test]
fn no_request_is_longer_than_any_backend_takes() {
    // In memory these spans are smaller than they are encoded: the guess is wrong on purpose.
    let (sent, account) = run(10 * ENCODED, Limits::default(), &[100], take);
    assert!(sent.iter().all(|spans| *spans <= 10), "{sent:?}");
    assert_eq!(account.sent, 100);
}

#[test]
fn a_span_that_no_request_can_hold_is_counted_and_not_sent() {
    let (sent, account) = run(ENCODED - 1, Limits::default(), &[3], take);
    assert_eq!((sent.len(), lost(&account, Loss::TooLarge)), (0, 3));
}

#[test]
fn a_backend_that_takes_less_gets_less() {
    let answer = |spans| {
        let reason = String::new();
        if spans > 20 { Verdict::TooLarge { reason } } else { take(spans) }
    };
    let (sent, account) = run(1 << 20, Limits::default(), &[100], answer);
    assert_eq!(account.sent, 100);
    assert_eq!(sent, [100, 50, 25, 12, 13, 25, 12, 13, 50, 25, 12, 13, 25, 12, 13]);
    let (sent, account) =
        run(1 << 20, Limits::default(), &[100], |_| Verdict::TooLarge { reason: String::new() });
    assert_eq!((sent.len(), lost(&account, Loss::TooLarge)), (15, 100), "halved three times");
}

#[test]
fn rejected_spans_are_no_more_than_there_were() {
    let (_, account) = run(1 << 20, Limits::default(), &[5], |_| Verdict::Taken {
        rejected: u64::MAX,
        message: String::new(),
    });
    assert_eq!((account.sent, lost(&account, Loss::Rejected)), (0, 5));
}

#[test]
fn at_the_end_there_is_one_attempt() {
    let later = |_| Verdict::Later { after: None, reason: String::new() };
    let limits = Limits { request_spans: 10, ..Limits::default() };
    let (sent, account) = run(1 << 20, limits, &[50], later);
    assert_eq!((sent.len(), lost(&account, Loss::Shutdown)), (5, 50));
}

#[test]
fn what_is_not_taken_in_time_is_given_up() {
    let later = |_| Verdict::Later { after: None, reason: String::new() };
    let limits = Limits { give_up: Duration::ZERO, queue_spans: 50, ..Limits::default() };
    let (sent, account) = run(1 << 20, limits, &[50], later);
    assert_eq!((sent.len(), lost(&account, Loss::GaveUp)), (1, 50));
}

#[test]
fn a_full_queue_takes_what_fits() {
    let limits = Limits { queue_spans: 30, ..Limits::default() };
    let (_, account) = run(1 << 20, limits, &[20, 20, 20], take);
    assert_eq!((account.sent, lost(&account, Loss::QueueFull)), (30, 30));
    let one = batch(1).footprint(0..1);
    let limits = Limits { queue_bytes: 7 * one, ..Limits::default() };
    let (_, account) = run(1 << 20, limits, &[5, 5], take);
    assert_eq!((account.sent, lost(&account, Loss::QueueFull)), (7, 3));
}

#[test]
fn the_last_word_is_the_last() {
    let queue = Queue::new(Room { spans: 10, bytes: 1 << 20 });
    queue.offer(&batch(3));
    let account = queue.abandon();
    // An answer that comes too late.
    queue.settle(3, 0, Loss::Io);
    assert_eq!(queue.account(), account);
    assert_eq!((account.queued, lost(&account, Loss::Shutdown)), (0, 3));
}
