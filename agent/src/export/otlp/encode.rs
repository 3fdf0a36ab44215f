//! Spans as `ExportTraceServiceRequest` in protobuf: the hot end of the hot path, so written by
//! hand. Field numbers: opentelemetry-proto 1.11, `trace/v1/trace.proto`, `common/v1/common.proto`.

use super::wire::Writer;
use crate::export::group::{self, Group, SCOPE_NAME, SCOPE_VERSION};
use crate::span::attributes::Attributes;
use crate::span::model::{Link, Span, SpanEvent, StatusCode};

/// Encodes requests, with a buffer that is used again.
#[derive(Default)]
pub struct Encoder {
    writer: Writer,
}

impl Encoder {
    /// The request's bytes; valid until the next call.
    pub fn encode<'a>(&mut self, spans: impl IntoIterator<Item = &'a Span>) -> &[u8] {
        self.writer.clear();
        for group in group::by_resource(spans).iter().rev() {
            self.writer.message(1, |writer| resource_spans(writer, group));
        }
        self.writer.bytes()
    }
}

// Everything below writes backwards: the last field of a message first. Attributes are encoded already.

fn resource_spans(writer: &mut Writer, group: &Group<'_>) {
    writer.message(2, |writer| {
        for span in group.spans.iter().rev() {
            writer.message(2, |writer| encode_span(writer, span));
        }
        writer.message(1, |writer| {
            writer.text(2, SCOPE_VERSION);
            writer.text(1, SCOPE_NAME);
        });
    });
    writer.message(1, |writer| attributes(writer, 1, &group.resource.attributes));
}

fn encode_span(writer: &mut Writer, span: &Span) {
    writer.fixed32(16, span.otlp_flags());
    if span.status != StatusCode::Unset || !span.status_message.is_empty() {
        writer.message(15, |writer| {
            writer.varint(3, span.status as u64);
            writer.text(2, &span.status_message);
        });
    }
    for link in span.links.iter().rev() {
        writer.message(13, |writer| encode_link(writer, link));
    }
    for event in span.events.iter().rev() {
        writer.message(11, |writer| encode_event(writer, event));
    }
    writer.raw(span.attributes.encoded());
    writer.fixed64(8, span.end.0);
    writer.fixed64(7, span.start.0);
    writer.varint(6, span.kind as u64);
    writer.text(5, &span.name);
    if let Some(parent) = &span.parent {
        writer.bytes_field(4, &parent.span_id.0);
    }
    writer.text(3, &span.trace_state);
    writer.bytes_field(2, &span.span_id.0);
    writer.bytes_field(1, &span.trace_id.0);
}

fn encode_event(writer: &mut Writer, event: &SpanEvent) {
    attributes(writer, 3, &event.attributes);
    writer.text(2, &event.name);
    writer.fixed64(1, event.time.0);
}

fn encode_link(writer: &mut Writer, link: &Link) {
    attributes(writer, 4, &link.attributes);
    writer.text(3, &link.trace_state);
    writer.bytes_field(2, &link.span_id.0);
    writer.bytes_field(1, &link.trace_id.0);
}

/// Attributes of other messages than spans: the same pairs under another field.
fn attributes(writer: &mut Writer, field: u8, attributes: &Attributes) {
    let all = attributes.encoded();
    writer.raw(all);
    let mut at = 0;
    for pair in attributes.encoded_each() {
        writer.patch(at, field << 3 | 2);
        at += 1 + pair.len();
    }
}

#[cfg(test)]
mod tests;
