//! Spans of every shape, for tests.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::span::attributes::{Attributes, Value};
use crate::span::model::{
    Confidence, Kind, Link, Method, Parent, Resource, Span, SpanEvent, SpanId, StatusCode, TraceId,
    UnixNs,
};

/// A value, owned.
#[derive(Clone, Debug)]
enum Owned {
    Text(String),
    Int(i64),
    Double(f64),
    Bool(bool),
    Bytes(Vec<u8>),
    Texts(Vec<String>),
}

/// Spans of up to four processes, in any order.
pub(super) fn spans() -> impl Strategy<Value = Vec<Span>> {
    (vec(resource(), 1..4), vec((any::<prop::sample::Index>(), span()), 0..8)).prop_map(
        |(resources, spans)| {
            let of = |(index, mut span): (prop::sample::Index, Span)| {
                span.resource = Arc::clone(index.get(&resources));
                span
            };
            spans.into_iter().map(of).collect()
        },
    )
}

fn resource() -> impl Strategy<Value = Arc<Resource>> {
    (attributes(), text()).prop_map(|(mut attributes, service_name)| {
        attributes.push("service.name", Value::Text(&service_name));
        Arc::new(Resource { attributes, service_name })
    })
}

fn span() -> impl Strategy<Value = Span> {
    let ids = (nonzero(), nonzero(), option::of(parent()), text(), any::<u8>());
    let times = (any::<u64>(), prop_oneof![Just(0), 0..5000u64, any::<u64>()]);
    let kind =
        select(&[Kind::Internal, Kind::Server, Kind::Client, Kind::Producer, Kind::Consumer][..]);
    let lists = (attributes(), vec(event(), 0..3), vec(link(), 0..3));
    let status = select(&[StatusCode::Unset, StatusCode::Ok, StatusCode::Error][..]);
    let parts = (ids, times, kind, text(), lists, status, text());
    parts.prop_map(|(ids, (start, length), kind, name, lists, status, message)| {
        let (trace, span, parent, trace_state, trace_flags) = ids;
        let (attributes, events, links) = lists;
        Span {
            resource: Arc::new(Resource {
                attributes: Attributes::default(),
                service_name: String::new(),
            }),
            trace_id: TraceId(trace),
            span_id: SpanId(span),
            parent,
            trace_state,
            trace_flags,
            kind,
            name: name.into(),
            start: UnixNs(start),
            end: UnixNs(start.saturating_add(length)),
            attributes,
            events,
            links,
            status,
            status_message: message,
        }
    })
}

fn parent() -> impl Strategy<Value = Parent> {
    let near = [Method::Thread, Method::NginxRequest];
    let far = [Method::TcpSeq, Method::TcpPeer, Method::UnixPeer, Method::Header];
    let method = select([&near[..], &far].concat());
    let confidence = select(&[Confidence::Exact, Confidence::Inferred][..]);
    (nonzero(), method, confidence, any::<bool>()).prop_map(
        |(span_id, method, confidence, remote)| Parent {
            span_id: SpanId(span_id),
            method,
            confidence,
            remote,
        },
    )
}

fn event() -> impl Strategy<Value = SpanEvent> {
    (text(), any::<u64>(), attributes()).prop_map(|(name, time, attributes)| SpanEvent {
        name,
        time: UnixNs(time),
        attributes,
    })
}

fn link() -> impl Strategy<Value = Link> {
    (nonzero(), nonzero(), text(), attributes()).prop_map(
        |(trace_id, span_id, trace_state, attributes)| Link {
            trace_id: TraceId(trace_id),
            span_id: SpanId(span_id),
            trace_state,
            attributes,
        },
    )
}

/// Attributes with keys of their own, and some that mean something to an exporter.
fn attributes() -> impl Strategy<Value = Attributes> {
    let key = prop_oneof![
        4 => text(),
        1 => select(&[
            "error",
            "error.type",
            "otel.status_code",
            "peer.service",
            "network.peer.address",
            "network.peer.port",
        ][..])
        .prop_map(str::to_owned),
    ];
    vec((key, value()), 0..5).prop_map(|pairs| {
        let mut attributes = Attributes::default();
        for (key, value) in &pairs {
            if attributes.get(key).is_some() {
                continue;
            }
            match value {
                Owned::Text(text) => attributes.push(key, Value::Text(text)),
                Owned::Int(number) => attributes.push(key, Value::Int(*number)),
                Owned::Double(number) => attributes.push(key, Value::Double(*number)),
                Owned::Bool(truth) => attributes.push(key, Value::Bool(*truth)),
                Owned::Bytes(bytes) => attributes.push(key, Value::Bytes(bytes)),
                Owned::Texts(texts) => attributes.push(key, Value::texts(texts)),
            }
        }
        attributes
    })
}

fn value() -> impl Strategy<Value = Owned> {
    prop_oneof![
        text().prop_map(Owned::Text),
        prop_oneof![any::<i64>(), 0..70_000i64].prop_map(Owned::Int),
        any::<f64>().prop_map(Owned::Double),
        any::<bool>().prop_map(Owned::Bool),
        vec(any::<u8>(), 0..10).prop_map(Owned::Bytes),
        vec(text(), 0..3).prop_map(Owned::Texts),
    ]
}

/// Empty, ordinary, and everything that must be escaped.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z.]{1,12}", "\\PC{0,8}", any::<String>()]
}

fn nonzero<const N: usize>() -> impl Strategy<Value = [u8; N]> {
    any::<[u8; N]>().prop_map(|mut id| {
        if id == [0; N] {
            id[0] = 1;
        }
        id
    })
}
