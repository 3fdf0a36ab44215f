//! What Zipkin v2 keeps of a span, by the OpenTelemetry specification's mapping ("OpenTelemetry to
//! Zipkin transformation") and what the server does to it: an oracle that shares no code with the
//! agent's encoder.

use std::collections::BTreeMap;

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
            .map(|event| Event {
                name: text(&event["value"]),
                time: nanos(&event["timestamp"]),
                attributes: BTreeMap::new(),
            })
            .collect(),
        links: Vec::new(),
    }
}

/// What is to come back of a span.
pub fn kept(span: &Span) -> Span {
    let mut attributes = BTreeMap::new();
    for (key, value) in span.resource.iter().filter(|(key, _)| *key != "service.name") {
        attributes.insert(key.clone(), Value::from(tag(value)));
    }
    for (key, value) in &span.attributes {
        attributes.insert(key.clone(), Value::from(tag(value)));
    }
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
            name: annotation(event),
            time: event.time / 1000 * 1000,
            attributes: BTreeMap::new(),
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

fn remote_endpoint(span: &Span) -> Vec<(&'static str, Value)> {
    let has =
        |key: &str| span.attributes.get(key).filter(|value| **value != Value::from("")).cloned();
    let address = has("network.peer.address");
    let is_v6 = address.as_ref().and_then(Value::as_str).is_some_and(|text| text.contains(':'));
    let name = has("service.peer.name").or_else(|| has("peer.service"));
    let port = has("network.peer.port").filter(|_| name.is_some() || address.is_some());
    let name = name.map(|name| Value::from(name.as_str().unwrap_or_default().to_lowercase()));
    let fields =
        [("serviceName", name), (if is_v6 { "ipv6" } else { "ipv4" }, address), ("port", port)];
    fields.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

fn annotation(event: &Event) -> String {
    let pairs = event.attributes.iter().map(|(key, value)| format!(" {key}={}", tag(value)));
    format!("{}{}", event.name, pairs.collect::<String>())
}

/// Tags are text; a list is written as JSON.
fn tag(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
