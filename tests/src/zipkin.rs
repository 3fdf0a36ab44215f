//! What Zipkin v2 keeps of a span, by the OpenTelemetry specification's mapping ("OpenTelemetry to
//! Zipkin transformation") and what the server does to it: an oracle that shares no code with the
//! agent's encoder.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use crate::spans::{Event, Span};

const KINDS: [&str; 6] = ["", "", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"];

/// The spans of a trace as the server answers. What only Zipkin has stands among the attributes.
pub fn spans(answer: &Value) -> Vec<Span> {
    let list = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(one).collect()
}

fn one(span: &Value) -> Span {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let nanos = |value: &Value| value.as_u64().unwrap_or(0) * 1000;
    let mut attributes = BTreeMap::new();
    for (key, value) in span["tags"].as_object().into_iter().flatten() {
        attributes.insert(key.clone(), value.clone());
    }
    for (key, value) in span["remoteEndpoint"].as_object().into_iter().flatten() {
        attributes.insert(format!("remoteEndpoint.{key}"), value.clone());
    }
    let scope = ["otel.scope.name", "otel.scope.version"];
    let scope = scope.map(|key| text(&attributes.remove(key).unwrap_or_default())).join(" ");
    let status = match attributes.remove("otel.status_code").as_ref().and_then(Value::as_str) {
        Some("OK") => 1,
        Some("ERROR") => 2,
        _ => 0,
    };
    let events = span["annotations"].as_array().map(Vec::as_slice).unwrap_or_default();
    let start = nanos(&span["timestamp"]);
    let kind = KINDS.iter().position(|kind| *kind == text(&span["kind"]));
    Span {
        service: text(&span["localEndpoint"]["serviceName"]),
        resource: BTreeMap::new(),
        trace: text(&span["traceId"]),
        id: text(&span["id"]),
        parent: span["parentId"].as_str().map(str::to_owned),
        kind: kind.expect("one of Zipkin's kinds") as u64,
        name: text(&span["name"]),
        start,
        end: start + nanos(&span["duration"]),
        status,
        message: text(&attributes.remove("error").unwrap_or_default()),
        flags: 0,
        trace_state: String::new(),
        scope,
        attributes,
        events: events
            .iter()
            .map(|event| annotation(&text(&event["value"]), nanos(&event["timestamp"])))
            .collect(),
        links: Vec::new(),
    }
}

/// An annotation is a name, or `"name": {…}` with attributes.
fn annotation(value: &str, time: u64) -> Event {
    let whole: Result<BTreeMap<String, BTreeMap<String, Value>>, _> =
        serde_json::from_str(&format!("{{{value}}}"));
    let parts = whole.ok().and_then(|mut parts| parts.pop_first());
    let (name, attributes) = parts.unwrap_or_else(|| (value.to_owned(), BTreeMap::new()));
    Event { name, time, attributes }
}

/// What is to come back of a span.
pub fn kept(span: &Span) -> Span {
    let mut attributes: BTreeMap<_, _> = texts(&span.resource).collect();
    attributes.remove("service.name");
    attributes.extend(texts(&span.attributes));
    for (key, value) in remote_endpoint(span) {
        attributes.insert(format!("remoteEndpoint.{key}"), value);
    }
    // An `error` tag is Zipkin's way to say that the span failed; an attribute of that name is not.
    attributes.remove("error");
    let message = match (span.status, span.message.as_str()) {
        (2, "") => span.text("error.type").to_owned(),
        (2, message) => message.to_owned(),
        _ => String::new(),
    };
    let start = span.start / 1000 * 1000;
    let mut events: Vec<Event> = span
        .events
        .iter()
        .map(|event| Event {
            name: event.name.clone(),
            time: event.time / 1000 * 1000,
            attributes: texts(&event.attributes).collect(),
        })
        .collect();
    events.sort_by_key(|event| event.time);
    Span {
        service: span.service.to_lowercase(),
        resource: BTreeMap::new(),
        trace: span.trace.clone(),
        id: span.id.clone(),
        parent: span.parent.clone(),
        kind: if span.kind == 1 { 0 } else { span.kind },
        name: span.name.to_lowercase(),
        start,
        end: start + (span.end - span.start).div_ceil(1000).max(1) * 1000,
        status: span.status,
        message,
        flags: 0,
        trace_state: String::new(),
        scope: span.scope.clone(),
        attributes,
        events,
        links: Vec::new(),
    }
}

/// The specification's ranking, with one difference: an address is not taken for a service's name.
fn remote_endpoint(span: &Span) -> Vec<(&'static str, Value)> {
    let ip = |key: &str| span.text(key).parse::<IpAddr>().ok();
    let is_caller = matches!(span.kind, 3 | 5);
    let server = ip("server.address").filter(|_| is_caller);
    let host = if is_caller && server.is_none() { span.text("server.address") } else { "" };
    let names = [span.text("service.peer.name"), span.text("peer.service"), host];
    let name = names.into_iter().find(|name| !name.is_empty());
    let (address, port) = match (ip("network.peer.address"), server) {
        (Some(peer), _) => (Some(peer), span.int("network.peer.port")),
        (None, Some(server)) => (Some(server), span.int("server.port")),
        (None, None) => (None, span.int("server.port").filter(|_| !host.is_empty())),
    };
    let kind = if address.is_some_and(|address| address.is_ipv6()) { "ipv6" } else { "ipv4" };
    let fields = [
        ("serviceName", name.map(|name| Value::from(name.to_lowercase()))),
        (kind, address.map(|address| Value::from(address.to_string()))),
        ("port", port.map(Value::from)),
    ];
    fields.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// Tags are text ("AnyValue representation for non-OTLP protocols").
fn texts(list: &BTreeMap<String, Value>) -> impl Iterator<Item = (String, Value)> {
    list.iter().map(|(key, value)| {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) if number.is_f64() => {
                format!("{:?}", number.as_f64().unwrap_or(f64::NAN))
            }
            Value::Object(typed) => {
                let inner = typed.values().next().and_then(Value::as_str);
                inner.unwrap_or_default().to_owned()
            }
            other => other.to_string(),
        };
        (key.clone(), Value::from(text))
    })
}
