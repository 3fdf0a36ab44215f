//! Spans as `ExportTraceServiceRequest` in protobuf: the hot end of the hot path, so written by
//! hand, straight to where it is sent from. Field numbers: opentelemetry-proto 1.11,
//! `trace/v1/trace.proto`, `common/v1/common.proto`.

use super::wire::{Fields, field_len, text_len};
use crate::export::group::{self, Group, SCOPE_NAME, SCOPE_VERSION};
use crate::span::attributes::Attributes;
use crate::span::model::{Link, Span, SpanEvent, StatusCode};

/// The request's bytes behind `before` others, which are zero.
pub fn encode<'a>(before: usize, spans: impl IntoIterator<Item = &'a Span>) -> Vec<u8> {
    let groups: Vec<_> = group::by_resource(spans).into_iter().map(Measured::new).collect();
    let bytes: usize = groups.iter().map(|group| field_len(group.bytes)).sum();
    let mut out = Vec::with_capacity(before + bytes);
    out.resize(before, 0);
    for group in &groups {
        group.write(&mut out);
    }
    debug_assert_eq!(out.len(), before + bytes, "a length was reckoned wrong");
    out
}

/// A process's spans, as `ResourceSpans`.
struct Measured<'a> {
    group: Group<'a>,
    /// `Resource`.
    resource: Vec<u8>,
    /// `ScopeSpans.scope`.
    scope: Vec<u8>,
    /// How long each span's message is.
    spans: Vec<usize>,
    /// All of `ScopeSpans`.
    scope_spans_bytes: usize,
    /// All of it.
    bytes: usize,
}

impl<'a> Measured<'a> {
    fn new(group: Group<'a>) -> Self {
        let (mut resource, mut scope) = (Vec::new(), Vec::new());
        attributes(&mut resource, 1, &group.resource.attributes);
        scope.text(1, SCOPE_NAME);
        scope.text(2, SCOPE_VERSION);
        let spans: Vec<usize> = group.spans.iter().map(|span| span_len(span)).collect();
        let spans_bytes: usize = spans.iter().map(|bytes| field_len(*bytes)).sum();
        let scope_spans_bytes = field_len(scope.len()) + spans_bytes;
        let bytes = field_len(resource.len()) + field_len(scope_spans_bytes);
        Self { group, resource, scope, spans, scope_spans_bytes, bytes }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.message_head(1, self.bytes);
        out.bytes_field(1, &self.resource);
        out.message_head(2, self.scope_spans_bytes);
        out.bytes_field(1, &self.scope);
        for (span, bytes) in self.group.spans.iter().zip(&self.spans) {
            out.message_head(2, *bytes);
            encode_span(out, span);
        }
    }
}

/// Sizes of the fields that are as long in every span, with their tags.
const IDS_BYTES: usize = 18 + 10;
const PARENT_BYTES: usize = 10;
const TIMES_BYTES: usize = 2 + 9 + 9;
const FLAGS_BYTES: usize = 2 + 4;

/// How many bytes [`encode_span`] writes.
fn span_len(span: &Span) -> usize {
    let parent = if span.parent.is_some() { PARENT_BYTES } else { 0 };
    let seldom = if is_plain(span) { 0 } else { encode_seldom(span).len() };
    IDS_BYTES
        + text_len(&span.trace_state)
        + parent
        + text_len(&span.name)
        + TIMES_BYTES
        + span.attributes.encoded().len()
        + seldom
        + FLAGS_BYTES
}

/// Fields of one length are put together first: a dozen small writes cost more than one of their sum.
fn encode_span(out: &mut Vec<u8>, span: &Span) {
    let mut ids = [0; IDS_BYTES];
    ids[0] = 1 << 3 | 2;
    ids[1] = 16;
    ids[2..18].copy_from_slice(&span.trace_id.0);
    ids[18] = 2 << 3 | 2;
    ids[19] = 8;
    ids[20..].copy_from_slice(&span.span_id.0);
    out.extend_from_slice(&ids);
    out.text(3, &span.trace_state);
    if let Some(parent) = &span.parent {
        out.bytes_field(4, &parent.span_id.0);
    }
    out.text(5, &span.name);
    let mut times = [0; TIMES_BYTES];
    times[0] = 6 << 3;
    times[1] = span.kind as u8;
    times[2] = 7 << 3 | 1;
    times[3..11].copy_from_slice(&span.start.0.to_le_bytes());
    times[11] = 8 << 3 | 1;
    times[12..].copy_from_slice(&span.end.0.to_le_bytes());
    out.extend_from_slice(&times);
    out.extend_from_slice(span.attributes.encoded());
    if !is_plain(span) {
        out.extend_from_slice(&encode_seldom(span));
    }
    out.fixed32(16, span.otlp_flags());
}

/// Whether a span has none of what [`encode_seldom`] writes.
fn is_plain(span: &Span) -> bool {
    span.events.is_empty()
        && span.links.is_empty()
        && span.status == StatusCode::Unset
        && span.status_message.is_empty()
}

/// Events, links, and what went wrong.
fn encode_seldom(span: &Span) -> Vec<u8> {
    let mut out = Vec::new();
    for event in &span.events {
        out.message(11, |out| encode_event(out, event));
    }
    for link in &span.links {
        out.message(13, |out| encode_link(out, link));
    }
    if span.status != StatusCode::Unset || !span.status_message.is_empty() {
        out.message(15, |out| {
            out.text(2, &span.status_message);
            out.varint(3, span.status as u64);
        });
    }
    out
}

fn encode_event(out: &mut Vec<u8>, event: &SpanEvent) {
    out.fixed64(1, event.time.0);
    out.text(2, &event.name);
    attributes(out, 3, &event.attributes);
}

fn encode_link(out: &mut Vec<u8>, link: &Link) {
    out.bytes_field(1, &link.trace_id.0);
    out.bytes_field(2, &link.span_id.0);
    out.text(3, &link.trace_state);
    attributes(out, 4, &link.attributes);
}

/// Attributes of other messages than spans: the same pairs under another field.
fn attributes(out: &mut Vec<u8>, field: u8, attributes: &Attributes) {
    for pair in attributes.encoded_each() {
        out.push(field << 3 | 2);
        out.extend_from_slice(pair);
    }
}

#[cfg(test)]
mod tests;
