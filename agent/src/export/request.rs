//! Parts of batches that go out together, and how much memory spans take.

use std::ops::Range;
use std::sync::Arc;

use super::otlp::encode::Encoded;
use super::queue::Batch;
use crate::span::model::Span;

/// Spans that were finished together, in each form that some destination takes.
pub(super) struct Made {
    pub(super) whole: Option<Batch>,
    pub(super) encoded: Option<Arc<Encoded>>,
}

/// A form of spans that were finished together. What they hold is shared by all clones.
pub(super) trait Form: Clone + Send + Sync {
    /// Those that were made.
    fn of(made: &Made) -> Option<&Self>;
    /// How many there are.
    fn len(&self) -> usize;
    /// About how much memory some of them take, in bytes, and no less than they take in OTLP's protobuf.
    fn footprint(&self, spans: Range<usize>) -> usize;
}

impl Form for Batch {
    fn of(made: &Made) -> Option<&Self> {
        made.whole.as_ref()
    }

    fn len(&self) -> usize {
        <[Span]>::len(self)
    }

    fn footprint(&self, spans: Range<usize>) -> usize {
        self.get(spans).unwrap_or_default().iter().map(footprint).sum()
    }
}

/// Some spans of a batch.
#[derive(Clone, Debug)]
pub(super) struct Part<B> {
    batch: B,
    range: Range<usize>,
}

impl<B: Form> Part<B> {
    /// A whole batch.
    pub(super) fn whole(batch: &B) -> Self {
        Self { batch: B::clone(batch), range: 0..batch.len() }
    }

    pub(super) fn len(&self) -> usize {
        self.range.len()
    }

    pub(super) fn batch(&self) -> (&B, Range<usize>) {
        (&self.batch, self.range.clone())
    }

    fn footprint(&self) -> usize {
        self.batch.footprint(self.range.clone())
    }

    /// How many spans from the front are at most `free` in number and `bytes` in memory; their memory.
    pub(super) fn fit(&self, free: usize, bytes: usize) -> (usize, usize) {
        let Range { start, end } = self.range;
        let most = start..end.min(start.saturating_add(free));
        let whole = self.batch.footprint(most.clone());
        // As nearly always.
        if whole <= bytes {
            return (most.len(), whole);
        }
        let (mut count, mut sum) = (0, 0);
        for span in most {
            let more = self.batch.footprint(span..span + 1);
            if sum + more > bytes {
                break;
            }
            count += 1;
            sum += more;
        }
        (count, sum)
    }

    /// Takes up to `spans` from the front.
    pub(super) fn split_front(&mut self, spans: usize) -> Self {
        let middle = self.range.start + spans.min(self.len());
        let front = Self { batch: B::clone(&self.batch), range: self.range.start..middle };
        self.range.start = middle;
        front
    }
}

impl Part<Batch> {
    pub(super) fn spans(&self) -> &[Span] {
        self.batch.get(self.range.clone()).unwrap_or_default()
    }

    /// Itself as a batch: without a copy if it is a whole one.
    pub(super) fn into_batch(self) -> Batch {
        if self.range.len() == self.batch.len() { self.batch } else { self.spans().into() }
    }
}

/// What is sent at one time.
#[derive(Clone, Debug)]
pub(super) struct Request<B> {
    parts: Vec<Part<B>>,
    spans: usize,
}

impl<B> Default for Request<B> {
    fn default() -> Self {
        Self { parts: Vec::new(), spans: 0 }
    }
}

impl<B: Form> Request<B> {
    pub(super) fn push(&mut self, part: Part<B>) {
        self.spans += part.len();
        self.parts.push(part);
    }

    /// How many spans it has.
    pub(super) fn len(&self) -> usize {
        self.spans
    }

    pub(super) fn parts(&self) -> &[Part<B>] {
        &self.parts
    }

    /// About how much memory its spans take.
    pub(super) fn footprint(&self) -> usize {
        self.parts.iter().map(Part::footprint).sum()
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

impl Request<Batch> {
    pub(super) fn spans(&self) -> impl Iterator<Item = &Span> {
        self.parts.iter().flat_map(Part::spans)
    }
}

/// About how much memory a span takes, in bytes, and no less than it takes in OTLP's protobuf.
fn footprint(span: &Span) -> usize {
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
