//! The last step: an exchange that is over becomes a span.

use std::mem;
use std::sync::Arc;

use slotmap::SlotMap;

use super::attributes::Attributes;
use super::exchange::{Exchange, ExchangeKey, Origin, Trace};
use super::http;
use super::identity::IdSource;
use super::model::{Confidence, Kind, Method, Parent, Span, StatusCode};
use super::sampler::Sampler;
use crate::event::exit::{ExitStatus, signal_name};
use crate::protocol::End;

/// Deepest chain of parents followed; a longer one is cut into traces.
const DEPTH_MAX: usize = 1 << 12;

/// Makes the span of an exchange that is over; `None` if its trace is not kept.
pub(super) fn span(
    exchanges: &mut SlotMap<ExchangeKey, Exchange>,
    ids: &mut IdSource,
    sampler: Sampler,
    lost: u64,
    key: ExchangeKey,
) -> Option<Span> {
    let trace = trace(exchanges, ids, sampler, key)?;
    if !trace.kept {
        return None;
    }
    let parent = parent(exchanges, key, lost);
    // What the other end read had been written, and the other end's clock was read earlier.
    let read_by = exchanges.get(key).and_then(|exchange| match exchange.origin {
        Origin::Local {
            key, method: Method::TcpSeq | Method::TcpPeer | Method::UnixPeer, ..
        } => {
            let end = exchanges.get(key).and_then(|client| client.end);
            // Only who has read to the end has read all that was written.
            end.filter(|(_, how)| matches!(how, Some(End::Complete | End::CloseDelimited)))
                .map(|(at, _)| at)
        }
        _ => None,
    });
    let exchange = exchanges.get_mut(key)?;
    let (mut end, mut how) = exchange.end?;
    // A lost record is told where it is missed: by its number, by the bytes, or by both.
    let lost = u64::from(exchange.gaps).max(lost.saturating_sub(exchange.lost_before));
    if lost > 0 {
        // What seems to be cut off may only have been missed.
        if matches!(how, None | Some(End::Aborted)) {
            how = Some(End::Unseen);
            exchange.response_bytes = None;
        }
        if exchange.request_cut {
            exchange.request_bytes = None;
        }
        // Where there are positions, they have told that nothing is missing.
        if how == Some(End::CloseDelimited) && exchange.request_seq.is_none() {
            exchange.response_bytes = None;
        }
    }
    if let Some(read_by) = read_by {
        end = end.min(read_by.max(exchange.start));
    }
    let mut attributes = mem::take(&mut exchange.attributes);
    let (mut status, error_type) = http::outcome(exchange.kind, exchange.status, how);
    // An exception that has left every call that was seen may have been caught above; unless it has left
    // the handler for certain, that the request failed is for its answer to say.
    let happened = exchange.happened.take().map(|happened| *happened).unwrap_or_default();
    let raised = happened.raised.filter(|_| exchange.kind == Kind::Server);
    match (raised, error_type) {
        (Some(raised), error) if error.is_some() || happened.unhandled => {
            status = StatusCode::Error;
            attributes.text("error.type", &raised);
        }
        (_, Some(error_type)) => attributes.text("error.type", &error_type),
        (_, None) => {}
    }
    if let Some(bytes) = exchange.request_bytes {
        attributes.int("http.request.body.size", bytes as i64);
    }
    if let Some(bytes) = exchange.response_bytes {
        attributes.int("http.response.body.size", bytes as i64);
    }
    if exchange.task.kind == agent_common::task_kind::THREAD && exchange.task.id != 0 {
        attributes.int("thread.id", exchange.task.id as i64);
    }
    if let Some(ns) = exchange.queue_ns {
        attributes.int("remora.queue_ns", i64::from(ns));
    }
    if let Some(status) = exchange.exit {
        describe_exit(status, &mut attributes);
    }
    if how == Some(End::Unseen) {
        attributes.bool("remora.end.inferred", true);
        let reason = if exchange.stopped { "agent_stopped" } else { "not_seen" };
        attributes.text("remora.end.reason", reason);
    }
    if let Some(parent) = parent {
        parent.describe(&mut attributes);
    }
    if lost > 0 {
        attributes.int("remora.lost", lost as i64);
    }
    Some(Span {
        resource: Arc::clone(&exchange.resource),
        trace_id: trace.id,
        span_id: exchange.span_id,
        parent,
        trace_state: trace.state.as_deref().unwrap_or_default().to_owned(),
        trace_flags: trace.flags,
        kind: exchange.kind,
        name: mem::take(&mut exchange.name),
        start: trace.wall.wall(exchange.start),
        end: trace.wall.wall(end.max(exchange.start)),
        attributes,
        events: happened.events.finish(),
        links: Vec::new(),
        status,
        status_message: String::new(),
    })
}

/// How the process ended that a span was open in.
pub(super) fn describe_exit(status: ExitStatus, attributes: &mut Attributes) {
    if let Some(code) = status.code() {
        attributes.int("process.exit.code", i64::from(code));
    }
    if let Some(number) = status.signal() {
        match signal_name(number) {
            Some(name) => attributes.text("remora.process.exit.signal", name),
            None => attributes.text("remora.process.exit.signal", &number.to_string()),
        }
    }
}

fn parent(
    exchanges: &SlotMap<ExchangeKey, Exchange>,
    key: ExchangeKey,
    lost: u64,
) -> Option<Parent> {
    let exchange = exchanges.get(key)?;
    match exchange.origin {
        Origin::Unknown => None,
        Origin::Local { method, confidence, .. } => {
            let parent = exchanges.get(local_parent(exchanges, exchange)?)?;
            let id = |exchange: &Exchange| exchange.trace.as_ref().map(|trace| trace.id);
            if id(parent) != id(exchange) {
                // The trace was decided without it.
                return None;
            }
            let remote = parent.tgid != exchange.tgid || parent.kind == Kind::Client;
            let confidence = match method {
                // Among what was lost since may be the parent's answer, and then it was over.
                _ if method.is_by_task() && lost > parent.lost_before => Confidence::Inferred,
                // Or what was read since, where no position tells.
                Method::NginxRequest
                    if parent.request_seq.is_none() && lost > parent.lost_before =>
                {
                    Confidence::Inferred
                }
                _ if method.is_proved_by_answer(parent.nonblocking)
                    && parent.answered_by_its_reader == Some(true) =>
                {
                    Confidence::Exact
                }
                _ => confidence,
            };
            // It lies within the parent by way of a function's call.
            let caller = exchange.caller.as_deref().filter(|_| method.is_within_process());
            let span_id = caller.map_or(parent.span_id, |(call, _)| *call);
            Some(Parent { span_id, method, confidence, remote })
        }
        Origin::Call { span_id } => {
            let method = match exchange.task.kind {
                agent_common::task_kind::GOROUTINE => Method::Goroutine,
                _ => Method::Thread,
            };
            let confidence = Confidence::Exact;
            Some(Parent { span_id, method, confidence, remote: false })
        }
        Origin::Header => {
            let context = exchange.remote.as_deref()?;
            let (method, confidence) = (Method::Header, Confidence::Exact);
            let remote = exchange.kind == Kind::Server;
            Some(Parent { span_id: context.span_id, method, confidence, remote })
        }
    }
}

/// The parent on this host, if it is or will be handed out, and was not refuted.
fn local_parent(
    exchanges: &SlotMap<ExchangeKey, Exchange>,
    exchange: &Exchange,
) -> Option<ExchangeKey> {
    let Origin::Local { key, method, .. } = exchange.origin else { return None };
    let parent = exchanges.get(key)?;
    let refuted = method.is_by_task() && parent.answered_by_its_reader == Some(false);
    if refuted && exchange.trace.is_none() {
        // The request was handed over: its reader was free for something else.
        return None;
    }
    (parent.head_seen && !parent.mistaken).then_some(key)
}

/// Brings an exchange, with all above it, into a trace of which spans may have left already. False
/// if it has a trace of its own.
pub(super) fn adopt(
    exchanges: &mut SlotMap<ExchangeKey, Exchange>,
    key: ExchangeKey,
    trace: &Trace,
) -> bool {
    let top = top(exchanges, key);
    let Some(exchange) = exchanges.get(top) else { return false };
    let is_free = match (&exchange.trace, exchange.remote.as_deref()) {
        (Some(own), _) => own.id == trace.id,
        (None, _) if local_parent(exchanges, exchange).is_some() => false,
        (None, Some(context)) if exchange.origin == Origin::Header => context.trace_id == trace.id,
        (None, _) => true,
    };
    if is_free {
        settle(exchanges, key, top, trace);
    }
    is_free
}

/// The trace of an exchange: that of its root, decided when it is first asked for.
pub(super) fn trace(
    exchanges: &mut SlotMap<ExchangeKey, Exchange>,
    ids: &mut IdSource,
    sampler: Sampler,
    key: ExchangeKey,
) -> Option<Trace> {
    let top = top(exchanges, key);
    let exchange = exchanges.get(top)?;
    let trace = exchange.trace.clone().unwrap_or_else(|| root(exchange, ids, sampler));
    settle(exchanges, key, top, &trace);
    Some(trace)
}

/// The nearest exchange above this one, or itself, of which the trace is decided, else the root.
fn top(exchanges: &SlotMap<ExchangeKey, Exchange>, key: ExchangeKey) -> ExchangeKey {
    let mut top = key;
    for _ in 0..DEPTH_MAX {
        let undecided = exchanges.get(top).filter(|exchange| exchange.trace.is_none());
        match undecided.and_then(|exchange| local_parent(exchanges, exchange)) {
            Some(parent) => top = parent,
            None => break,
        }
    }
    top
}

/// Decides the trace of an exchange and of all up to `top`.
fn settle(
    exchanges: &mut SlotMap<ExchangeKey, Exchange>,
    key: ExchangeKey,
    top: ExchangeKey,
    trace: &Trace,
) {
    let mut next = Some(key);
    while let Some(key) = next {
        let Some(exchange) = exchanges.get(key).filter(|exchange| exchange.trace.is_none()) else {
            return;
        };
        next = local_parent(exchanges, exchange).filter(|_| key != top);
        if let Some(exchange) = exchanges.get_mut(key) {
            exchange.trace = Some(trace.clone());
        }
    }
}

/// W3C's "sampled" flag: set on every trace that remora begins, because it records it.
const SAMPLED: u8 = 1;

fn root(exchange: &Exchange, ids: &mut IdSource, sampler: Sampler) -> Trace {
    let wall = exchange.wall;
    match (exchange.origin, exchange.remote.as_deref()) {
        (Origin::Header, Some(context)) => Trace {
            id: context.trace_id,
            flags: context.flags,
            state: Some(context.trace_state.as_str().into())
                .filter(|state: &Arc<str>| !state.is_empty()),
            wall,
            kept: sampler.keeps(context.trace_id, Some(context.flags & SAMPLED != 0)),
        },
        _ => {
            let id = ids.trace();
            Trace { id, flags: SAMPLED, state: None, wall, kept: sampler.keeps(id, None) }
        }
    }
}
