//! The last step: an exchange that is over becomes a span.

use std::mem;
use std::sync::Arc;

use slotmap::SlotMap;

use super::exchange::{Exchange, ExchangeKey, Origin, Trace};
use super::http;
use super::identity::IdSource;
use super::model::{Confidence, Kind, Method, Parent, Span};
use super::sampler::Sampler;
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
    let parent = parent(exchanges, key);
    // What the other end read had been written, and the other end's clock was read earlier.
    let read_by = exchanges.get(key).and_then(|exchange| match exchange.origin {
        Origin::Local { key, method: Method::TcpSeq | Method::UnixPeer, .. } => {
            exchanges.get(key).and_then(|client| client.end).map(|(at, _)| at)
        }
        _ => None,
    });
    let exchange = exchanges.get_mut(key)?;
    let (mut end, how) = exchange.end?;
    if let Some(read_by) = read_by {
        end = end.min(read_by.max(exchange.start));
    }
    let mut attributes = mem::take(&mut exchange.attributes);
    let (status, error_type) = http::outcome(exchange.kind, exchange.status, how);
    if let Some(error_type) = error_type {
        attributes.text("error.type", &error_type);
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
    if how == Some(End::Unseen) {
        attributes.bool("remora.end.inferred", true);
        let reason = if exchange.stopped { "agent_stopped" } else { "not_seen" };
        attributes.text("remora.end.reason", reason);
    }
    if let Some(parent) = parent {
        parent.describe(&mut attributes);
    }
    let lost = u64::from(exchange.gaps) + lost.saturating_sub(exchange.lost_before);
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
        events: Vec::new(),
        links: Vec::new(),
        status,
        status_message: String::new(),
    })
}

fn parent(exchanges: &SlotMap<ExchangeKey, Exchange>, key: ExchangeKey) -> Option<Parent> {
    let exchange = exchanges.get(key)?;
    match exchange.origin {
        Origin::Unknown => None,
        Origin::Local { key: parent, method, confidence } => {
            let parent = exchanges.get(parent)?;
            let remote = parent.tgid != exchange.tgid || parent.kind == Kind::Client;
            Some(Parent { span_id: parent.span_id, method, confidence, remote })
        }
        Origin::Header => {
            let context = exchange.remote.as_deref()?;
            let (method, confidence) = (Method::Header, Confidence::Exact);
            let remote = exchange.kind == Kind::Server;
            Some(Parent { span_id: context.span_id, method, confidence, remote })
        }
    }
}

/// The trace of an exchange: that of its root, decided when it is first asked for.
fn trace(
    exchanges: &mut SlotMap<ExchangeKey, Exchange>,
    ids: &mut IdSource,
    sampler: Sampler,
    key: ExchangeKey,
) -> Option<Trace> {
    let mut top = key;
    for _ in 0..DEPTH_MAX {
        let exchange = exchanges.get(top)?;
        match exchange.origin {
            Origin::Local { key: parent, .. }
                if exchange.trace.is_none() && exchanges.contains_key(parent) =>
            {
                top = parent;
            }
            _ => break,
        }
    }
    let exchange = exchanges.get(top)?;
    let trace = exchange.trace.clone().unwrap_or_else(|| root(exchange, ids, sampler));
    let mut next = Some(key);
    while let Some(exchange) = next.and_then(|key| exchanges.get_mut(key)) {
        if exchange.trace.is_some() {
            break;
        }
        exchange.trace = Some(trace.clone());
        next = match exchange.origin {
            Origin::Local { key: parent, .. } if next != Some(top) => Some(parent),
            _ => None,
        };
    }
    Some(trace)
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
