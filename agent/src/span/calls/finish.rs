//! The last step of a call: one that is over becomes a span.

use super::{Belongs, Calls, Ended};
use crate::platform::clock::MonoNs;
use crate::span::exchange::{ExchangeKey, Trace};
use crate::span::finish;
use crate::span::model::{Confidence, Kind, Method, Parent, Span, StatusCode};
use crate::span::sampler::Sampler;
use crate::span::state::{PROOF_NS, State};

impl Calls {
    /// Hands out every call that was over before `horizon`, when its place is known or cannot be
    /// waited for any longer.
    pub(in crate::span) fn collect(
        &mut self,
        horizon: MonoNs,
        state: &mut State,
        sampler: Sampler,
        spans: &mut Vec<Span>,
    ) {
        while let Some(call) = self.ended.pop_front_if(|call| call.at <= horizon) {
            if is_open(&call.frame.belongs, state) {
                self.unproved.push_back(call);
            } else {
                self.hand_out(call, state, sampler, spans);
            }
        }
        let late = horizon.before(PROOF_NS);
        while let Some(call) = self
            .unproved
            .pop_front_if(|call| call.at <= late || !is_open(&call.frame.belongs, state))
        {
            self.hand_out(call, state, sampler, spans);
        }
    }

    fn hand_out(
        &mut self,
        call: Ended,
        state: &mut State,
        sampler: Sampler,
        spans: &mut Vec<Span>,
    ) {
        let (trace, parent) = match &call.frame.belongs {
            Belongs::Own(trace) => (Some(trace.clone()), None),
            Belongs::Request { key, method, confidence } => {
                within(*key, *method, *confidence, state, sampler)
            }
        };
        release(&call.frame.belongs, state);
        match trace.filter(|trace| trace.kept) {
            Some(trace) => {
                self.tallies.spans += 1;
                spans.push(span(call, &trace, parent));
            }
            None => self.tallies.unsampled += 1,
        }
    }
}

/// Whether the answer that proves or refutes the place of a call is still to come.
fn is_open(belongs: &Belongs, state: &State) -> bool {
    let Belongs::Request { key, method, confidence: Confidence::Inferred } = belongs else {
        return false;
    };
    state.exchanges.get(*key).is_some_and(|exchange| {
        method.is_proved_by_answer(exchange.nonblocking)
            && !exchange.told_calls
            && exchange.answered_by_its_reader.is_none()
            && exchange.end.is_none()
    })
}

/// The trace of a request, and the request as a parent. A request that turned out not to be one, or
/// was answered by somebody else than its reader, is nobody's parent: a trace of its own is made for
/// what had seemed to be within it.
fn within(
    key: ExchangeKey,
    method: Method,
    confidence: Confidence,
    state: &mut State,
    sampler: Sampler,
) -> (Option<Trace>, Option<Parent>) {
    let Some(exchange) = state.exchanges.get_mut(key) else { return (None, None) };
    let answered = exchange.answered_by_its_reader;
    let refuted = method.is_by_task() && answered == Some(false) && !exchange.told_calls;
    if refuted || exchange.mistaken {
        let wall = exchange.wall;
        let trace = exchange.happened().calls_trace.get_or_insert_with(|| {
            let id = state.ids.trace();
            let kept = sampler.keeps(id, None);
            Trace { id, flags: super::SAMPLED, state: None, wall, kept }
        });
        return (Some(trace.clone()), None);
    }
    exchange.told_calls = true;
    let proved = method.is_proved_by_answer(exchange.nonblocking) && answered == Some(true);
    let confidence = if proved { Confidence::Exact } else { confidence };
    let parent = Parent { span_id: exchange.span_id, method, confidence, remote: false };
    let State { exchanges, ids, .. } = state;
    (finish::trace(exchanges, ids, sampler, key), Some(parent))
}

/// A call no longer needs the request that it belongs to.
pub(super) fn release(belongs: &Belongs, state: &mut State) {
    if let Belongs::Request { key, .. } = belongs
        && let Some(exchange) = state.exchanges.get_mut(*key)
    {
        exchange.children = exchange.children.saturating_sub(1);
        if exchange.children == 0 && exchange.done {
            state.forget(*key);
        }
    }
}

fn span(call: Ended, trace: &Trace, request: Option<Parent>) -> Span {
    let Ended { frame, resource, task, at, inferred, failed } = call;
    let parent = match frame.above {
        Some(span_id) => Some(Parent {
            span_id,
            method: Method::Stack,
            confidence: if frame.close { Confidence::Inferred } else { Confidence::Exact },
            remote: false,
        }),
        None => request,
    };
    let mut attributes = frame.function.standing.clone();
    attributes.append(&frame.attributes);
    if task.kind == agent_common::task_kind::THREAD {
        attributes.int("thread.id", task.id as i64);
    } else {
        attributes.int("remora.task.id", task.id as i64);
    }
    if let Some(reason) = inferred {
        attributes.bool("remora.end.inferred", true);
        attributes.text("remora.end.reason", reason);
    }
    if let Some(failed) = &failed {
        attributes.text("error.type", &failed.kind);
    }
    if let Some(parent) = parent {
        parent.describe(&mut attributes);
    }
    if frame.suppressed > 0 {
        attributes.int("remora.suppressed", i64::from(frame.suppressed));
    }
    if frame.lost > 0 {
        attributes.int("remora.lost", i64::from(frame.lost));
    }
    Span {
        resource,
        trace_id: trace.id,
        span_id: frame.span_id,
        parent,
        trace_state: trace.state.as_deref().unwrap_or_default().to_owned(),
        trace_flags: trace.flags,
        kind: Kind::Internal,
        name: frame.function.facts.name.clone().into(),
        start: trace.wall.wall(frame.start),
        end: trace.wall.wall(at.max(frame.start)),
        attributes,
        events: frame.events.finish(),
        links: Vec::new(),
        status: if failed.is_some() { StatusCode::Error } else { StatusCode::Unset },
        status_message: failed.and_then(|failed| failed.message).unwrap_or_default(),
    }
}
