//! Parts of batches that go out together, and how much memory spans take.

use std::ops::Range;

use super::queue::Batch;
use crate::span::model::Span;

/// Some spans of a batch.
#[derive(Clone, Debug)]
pub(super) struct Part {
    batch: Batch,
    range: Range<usize>,
}

impl Part {
    /// A whole batch.
    pub(super) fn whole(batch: &Batch) -> Self {
        Self { batch: Batch::clone(batch), range: 0..batch.len() }
    }

    pub(super) fn spans(&self) -> &[Span] {
        self.batch.get(self.range.clone()).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.range.len()
    }

    /// Takes up to `spans` from the front.
    pub(super) fn split_front(&mut self, spans: usize) -> Self {
        let middle = self.range.start + spans.min(self.len());
        let front = Self { batch: Batch::clone(&self.batch), range: self.range.start..middle };
        self.range.start = middle;
        front
    }

    /// Itself as a batch: without a copy if it is a whole one.
    pub(super) fn into_batch(self) -> Batch {
        if self.range.len() == self.batch.len() { self.batch } else { self.spans().into() }
    }
}

/// What is sent at one time.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    parts: Vec<Part>,
    spans: usize,
}

impl Request {
    pub(super) fn push(&mut self, part: Part) {
        self.spans += part.len();
        self.parts.push(part);
    }

    /// How many spans it has.
    pub(super) fn len(&self) -> usize {
        self.spans
    }

    pub(super) fn spans(&self) -> impl Iterator<Item = &Span> {
        self.parts.iter().flat_map(Part::spans)
    }

    /// About how much memory its spans take.
    pub(super) fn footprint(&self) -> usize {
        self.spans().map(footprint).sum()
    }

    /// Two of half as many spans each, in order; `None` if it has fewer than two.
    pub(super) fn halves(self) -> Option<(Self, Self)> {
        if self.spans < 2 {
            return None;
        }
        let (mut first, mut second) = (Self::default(), Self::default());
        let mut missing = self.spans / 2;
        for mut part in self.parts {
            let front = part.split_front(missing);
            missing -= front.len();
            for (half, part) in [(&mut first, front), (&mut second, part)] {
                if part.len() > 0 {
                    half.push(part);
                }
            }
        }
        Some((first, second))
    }
}

/// About how much memory a span takes, in bytes, and no less than it takes in OTLP's protobuf.
pub(super) fn footprint(span: &Span) -> usize {
    let events = span.events.iter();
    let events = events
        .map(|event| size_of_val(event) + event.name.capacity() + event.attributes.footprint());
    let links = span.links.iter();
    let links = links
        .map(|link| size_of_val(link) + link.trace_state.capacity() + link.attributes.footprint());
    size_of::<Span>()
        + span.name.len()
        + span.trace_state.capacity()
        + span.status_message.capacity()
        + span.attributes.footprint()
        + events.sum::<usize>()
        + links.sum::<usize>()
}
