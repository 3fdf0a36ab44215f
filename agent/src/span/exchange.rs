//! One request and its response, as one process sees it: a span in the making.

use std::collections::VecDeque;
use std::sync::Arc;

use slotmap::new_key_type;

use super::attributes::Attributes;
use super::events::Events;
use super::model::{Confidence, Kind, Method, Name, Resource, SpanId, TraceId};
use super::propagation::RemoteContext;
use crate::event::exit::ExitStatus;
use crate::event::ids::{TaskId, Tgid};
use crate::platform::clock::{MonoNs, WallOffset};
use crate::protocol::{End, ExchangeNo};

new_key_type! {
    /// An exchange that is not yet forgotten.
    pub(super) struct ExchangeKey;
    /// A socket that is not yet forgotten.
    pub(super) struct SocketKey;
}

/// Who an exchange's parent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// No rule has named one (yet).
    Unknown,
    /// Another exchange on this host.
    Local { key: ExchangeKey, method: Method, confidence: Confidence },
    /// What the request's own trace header says.
    Header,
    /// A call of a function that belongs to no request. Its trace is the exchange's from the start.
    Call { span_id: SpanId },
}

/// What every span of a trace shares, once the trace's root is known.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    pub(super) id: TraceId,
    pub(super) flags: u8,
    /// W3C `tracestate`; `None` if empty.
    pub(super) state: Option<Arc<str>>,
    /// One mapping of time for all spans of a trace, so that their order survives a clock step.
    pub(super) wall: WallOffset,
    /// Whether its spans are handed out.
    pub(super) kept: bool,
}

/// What happened within a request, as probed functions tell it.
#[derive(Debug, Default)]
pub(super) struct Happened {
    /// The trace of the calls that had seemed to be within it.
    pub(super) calls_trace: Option<Trace>,
    /// What happened outside of any call.
    pub(super) events: Events,
    /// The type of an exception that has left every call within it.
    pub(super) raised: Option<String>,
    /// That has left its handler, whatever the answer says.
    pub(super) unhandled: bool,
}

/// A span in the making.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) span_id: SpanId,
    pub(super) kind: Kind,
    pub(super) resource: Arc<Resource>,
    pub(super) tgid: Tgid,
    pub(super) socket: SocketKey,
    pub(super) number: ExchangeNo,
    /// Whether it began while another one was open on its connection, or in the same operation as the end
    /// of what was there before.
    pub(super) is_pipelined: bool,
    /// The task that read (server) or wrote (client) the request's first byte.
    pub(super) task: TaskId,
    /// Whether the socket was in non-blocking mode then.
    pub(super) nonblocking: bool,
    /// The task's current server exchange when a client request began.
    pub(super) within: Option<(ExchangeKey, Method, Confidence)>,
    /// The innermost open call of a function when a client request began: it lies within that call,
    /// and the call within what `within` says or in a trace of its own.
    pub(super) caller: Option<Box<(SpanId, Option<Trace>)>>,
    /// Spans of calls within it have been handed out as its children.
    pub(super) told_calls: bool,
    /// What functions have told of it. Of most exchanges none has: what is open is looked at again when
    /// it is in no cache any more, and must be small.
    pub(super) happened: Option<Box<Happened>>,
    /// Whether the task that read the request (server) has written the response's head: then it has
    /// served nothing else meanwhile. `None`: there is no answer yet.
    pub(super) answered_by_its_reader: Option<bool>,
    /// Exchanges that wait for that to be known.
    pub(super) awaited_by: VecDeque<ExchangeKey>,
    /// TCP sequence number of the request's first byte.
    pub(super) request_seq: Option<u32>,
    pub(super) origin: Origin,
    /// The exchange at the other end of the connection is known.
    pub(super) joined: bool,
    pub(super) remote: Option<Box<RemoteContext>>,
    pub(super) trace: Option<Trace>,
    /// Exchanges that name this one as their parent and are not yet finished.
    pub(super) children: u32,

    pub(super) start: MonoNs,
    pub(super) wall: WallOffset,
    pub(super) end: Option<(MonoNs, Option<End>)>,
    pub(super) head_seen: bool,
    /// Bytes were not copied while the head was not whole.
    pub(super) head_cut: bool,
    /// It never was one.
    pub(super) mistaken: bool,
    pub(super) responded: bool,
    pub(super) name: Name,
    pub(super) attributes: Attributes,
    pub(super) status: Option<u16>,
    pub(super) request_bytes: Option<u64>,
    /// The stream ended before the request did.
    pub(super) request_cut: bool,
    pub(super) response_bytes: Option<u64>,
    /// Gaps in what was seen of the connection while this exchange was open.
    pub(super) gaps: u32,
    /// Records that had been lost when it began.
    pub(super) lost_before: u64,
    /// How long the request had been in the socket's queue, at least.
    pub(super) queue_ns: Option<u32>,
    /// Its process ended before it did, and not well.
    pub(super) exit: Option<ExitStatus>,
    /// The agent ended before it did.
    pub(super) stopped: bool,
    /// The span has been handed out; kept only for its children.
    pub(super) done: bool,
}

impl Exchange {
    /// Where it is kept what happened within it.
    pub(super) fn happened(&mut self) -> &mut Happened {
        self.happened.get_or_insert_default()
    }
}
