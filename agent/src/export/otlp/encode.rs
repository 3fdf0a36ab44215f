//! Spans as `ExportTraceServiceRequest` in protobuf: the hot end of the hot path, so written by
//! hand. Each span is encoded once, with those that ended when it did, while what it says is in the
//! processor's caches; a request is put together of that. Field numbers: opentelemetry-proto 1.11,
//! `trace/v1/trace.proto`, `common/v1/common.proto`.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::wire::{Fields, field_len, text_len};
use crate::export::body::{Assembly, Pieces};
use crate::export::group::{self, SCOPE_NAME, SCOPE_VERSION};
use crate::export::request::{Form, Made};
use crate::span::attributes::Attributes;
use crate::span::model::{Link, Resource, Span, SpanEvent, StatusCode};

/// Spans that were finished together: `ScopeSpans.spans`, those of one process behind each other.
#[derive(Debug)]
pub struct Encoded {
    bytes: Bytes,
    /// Where each span ends.
    ends: Vec<usize>,
    /// Whose they are, and where the last one of each process ends.
    runs: Vec<(Arc<Resource>, usize)>,
}

impl Encoded {
    /// Encodes spans.
    pub fn new(spans: &[Span]) -> Self {
        let groups = group::by_resource(spans);
        let in_order = || groups.iter().flat_map(|group| &group.spans);
        let lens: Vec<usize> = in_order().map(|span| span_len(span)).collect();
        let mut bytes = Vec::with_capacity(lens.iter().map(|len| field_len(*len)).sum());
        let mut ends = lens;
        for (span, end) in in_order().zip(&mut ends) {
            bytes.message_head(2, *end);
            encode_span(&mut bytes, span);
            *end = bytes.len();
        }
        debug_assert_eq!(bytes.capacity(), bytes.len(), "a length was reckoned wrong");
        let mut last = 0;
        let runs = groups.iter().map(|group| {
            last += group.spans.len();
            (Arc::clone(group.resource), last)
        });
        Self { runs: runs.collect(), bytes: bytes.into(), ends }
    }

    /// How many there are.
    pub fn spans(&self) -> usize {
        self.ends.len()
    }

    /// Where some of them lie.
    fn place(&self, spans: &Range<usize>) -> Range<usize> {
        let end = |spans: usize| match spans.checked_sub(1) {
            Some(last) => self.ends.get(last).copied().unwrap_or(self.bytes.len()),
            None => 0,
        };
        end(spans.start)..end(spans.end)
    }

    /// Some of them, by process.
    fn by_resource(&self, spans: &Range<usize>) -> impl Iterator<Item = (&Arc<Resource>, Bytes)> {
        let mut begin = 0;
        self.runs.iter().filter_map(move |(resource, end)| {
            let run = begin.max(spans.start)..(*end).min(spans.end);
            begin = *end;
            (!run.is_empty()).then(|| (resource, self.bytes.slice(self.place(&run))))
        })
    }
}

/// What a span takes besides its bytes, with all of a batch that it is alone in.
const BESIDES: usize = 256;

impl Form for Arc<Encoded> {
    fn of(made: &Made) -> Option<&Self> {
        made.encoded.as_ref()
    }

    fn len(&self) -> usize {
        self.spans()
    }

    fn footprint(&self, spans: Range<usize>) -> usize {
        self.place(&spans).len() + spans.len() * BESIDES
    }
}

/// The message of a request with some spans of each of these batches.
pub fn message<'a>(parts: impl IntoIterator<Item = (&'a Encoded, Range<usize>)>) -> Pieces {
    let mut groups: Vec<(&Arc<Resource>, Vec<Bytes>)> = Vec::new();
    let mut places: HashMap<*const Resource, usize> = HashMap::new();
    for (batch, spans) in parts {
        for (resource, bytes) in batch.by_resource(&spans) {
            let place = *places.entry(Arc::as_ptr(resource)).or_insert_with(|| {
                groups.push((resource, Vec::new()));
                groups.len() - 1
            });
            if let Some((_, pieces)) = groups.get_mut(place) {
                pieces.push(bytes);
            }
        }
    }
    let mut message = Assembly::default();
    for (resource, spans) in groups {
        let spans_bytes: usize = spans.iter().map(Bytes::len).sum();
        message.write(|out| resource_spans(out, resource, spans_bytes));
        spans.into_iter().for_each(|piece| message.push(piece));
    }
    message.finish()
}

/// A process's `ResourceSpans`, but for its spans, which are this many bytes behind it.
fn resource_spans(out: &mut Vec<u8>, resource: &Resource, spans_bytes: usize) {
    let (mut about, mut scope) = (Vec::new(), Vec::new());
    attributes(&mut about, 1, &resource.attributes);
    scope.text(1, SCOPE_NAME);
    scope.text(2, SCOPE_VERSION);
    let scope_spans_bytes = field_len(scope.len()) + spans_bytes;
    out.message_head(1, field_len(about.len()) + field_len(scope_spans_bytes));
    out.bytes_field(1, &about);
    out.message_head(2, scope_spans_bytes);
    out.bytes_field(1, &scope);
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
