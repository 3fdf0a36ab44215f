//! Spans as `ExportTraceServiceRequest` in OTLP's JSON: ids in hexadecimal, enums as numbers, field
//! names in lowerCamelCase, 64-bit integers as decimal strings.

use crate::export::group::{self, Group, SCOPE_NAME, SCOPE_VERSION};
use crate::export::json::Json;
use crate::span::attributes::{Attributes, Value};
use crate::span::model::{Span, StatusCode};

/// Appends one request, without a line end.
pub fn encode<'a>(spans: impl IntoIterator<Item = &'a Span>, out: &mut Vec<u8>) {
    let mut json = Json::new(out);
    json.object(|json| {
        json.key("resourceSpans").array(group::by_resource(spans).iter(), |json, group| {
            json.object(|json| resource_spans(json, group));
        });
    });
}

fn resource_spans(json: &mut Json<'_>, group: &Group<'_>) {
    json.key("resource").object(|json| {
        json.key("attributes").array(group.resource.attributes.iter(), key_value);
    });
    let scope = [group];
    json.key("scopeSpans").array(scope.iter(), |json, group| {
        json.object(|json| {
            json.key("scope").object(|json| {
                json.key("name").text(SCOPE_NAME);
                json.key("version").text(SCOPE_VERSION);
            });
            json.key("spans").array(group.spans.iter(), |json, span| {
                json.object(|json| encode_span(json, span));
            });
        });
    });
}

fn encode_span(json: &mut Json<'_>, span: &Span) {
    json.key("traceId").hex(&span.trace_id.0);
    json.key("spanId").hex(&span.span_id.0);
    if !span.trace_state.is_empty() {
        json.key("traceState").text(&span.trace_state);
    }
    if let Some(parent) = &span.parent {
        json.key("parentSpanId").hex(&parent.span_id.0);
    }
    json.key("flags").number(span.otlp_flags());
    json.key("name").text(&span.name);
    json.key("kind").number(span.kind as u8);
    json.key("startTimeUnixNano").display(span.start.0);
    json.key("endTimeUnixNano").display(span.end.0);
    attributes(json, &span.attributes);
    if !span.events.is_empty() {
        json.key("events").array(span.events.iter(), |json, event| {
            json.object(|json| {
                json.key("timeUnixNano").display(event.time.0);
                json.key("name").text(&event.name);
                attributes(json, &event.attributes);
            });
        });
    }
    if !span.links.is_empty() {
        json.key("links").array(span.links.iter(), |json, link| {
            json.object(|json| {
                json.key("traceId").hex(&link.trace_id.0);
                json.key("spanId").hex(&link.span_id.0);
                if !link.trace_state.is_empty() {
                    json.key("traceState").text(&link.trace_state);
                }
                attributes(json, &link.attributes);
            });
        });
    }
    json.key("status").object(|json| {
        if span.status != StatusCode::Unset {
            json.key("code").number(span.status as u8);
        }
        if !span.status_message.is_empty() {
            json.key("message").text(&span.status_message);
        }
    });
}

fn attributes(json: &mut Json<'_>, attributes: &Attributes) {
    json.key("attributes").array(attributes.iter(), key_value);
}

fn key_value(json: &mut Json<'_>, (key, value): (&str, Value<'_>)) {
    json.object(|json| {
        json.key("key").text(key);
        json.key("value").object(|json| any_value(json, value));
    });
}

fn any_value(json: &mut Json<'_>, value: Value<'_>) {
    match value {
        Value::Text(text) => json.key("stringValue").text(text),
        Value::Bool(truth) => json.key("boolValue").number(truth),
        Value::Int(number) => json.key("intValue").display(number),
        Value::Double(number) => json.key("doubleValue").double(number),
        Value::Bytes(bytes) => json.key("bytesValue").base64(bytes),
        Value::Texts(texts) => json.key("arrayValue").object(|json| {
            json.key("values").array(texts.iter(), |json, text: &str| {
                json.object(|json| json.key("stringValue").text(text));
            });
        }),
    }
}
