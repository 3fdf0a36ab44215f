//! Trees of traces for a person at a terminal: collects the spans of a trace for a moment, then
//! draws them once. Keeps no more than a moment's worth.

mod callers;
mod render;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::queue::Batch;
use crate::span::model::{Span, SpanId, TraceId};

/// A whole trace is drawn when nothing was added to it for this long.
const QUIET: Duration = Duration::from_millis(150);

/// A trace is drawn after this long even if a parent is still under way: spans must not wait.
const PATIENCE: Duration = Duration::from_millis(700);

/// Most spans that wait; then the oldest trace is drawn at once.
pub(super) const SPANS_MAX: usize = 20_000;

/// How to draw.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether to use colours.
    pub color: bool,
    /// Columns to fill; `None` asks the terminal each time.
    pub width: Option<usize>,
}

/// Columns used when output is not a terminal.
const PLAIN_WIDTH: usize = 110;

struct Waiting {
    spans: Vec<Member>,
    first: Instant,
    last: Instant,
}

/// A span of a batch; the batch is shared with the other destinations.
struct Member {
    batch: Batch,
    index: usize,
}

impl Member {
    fn span(&self) -> Option<&Span> {
        self.batch.get(self.index)
    }
}

/// Draws traces on a writer.
pub struct Console {
    out: Box<dyn Write + Send>,
    options: Options,
    waiting: HashMap<TraceId, Waiting>,
    spans: usize,
    drawn: Drawn,
}

/// What has become of spans.
#[derive(Debug, Default)]
pub struct Drawn {
    /// They are on the writer.
    pub written: u64,
    /// They are not,
    pub lost: u64,
    /// since this has happened.
    pub error: Option<io::Error>,
}

impl Console {
    /// A console that writes to `out`.
    pub fn new(out: Box<dyn Write + Send>, options: Options) -> Self {
        Self { out, options, waiting: HashMap::new(), spans: 0, drawn: Drawn::default() }
    }

    /// Takes in spans. Draws only what does not fit any more.
    pub fn accept(&mut self, batch: &Batch, at: Instant) {
        for (index, span) in batch.iter().enumerate() {
            let member = Member { batch: Arc::clone(batch), index };
            let waiting = match self.waiting.entry(span.trace_id) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    entry.insert(Waiting { spans: Vec::new(), first: at, last: at })
                }
            };
            waiting.spans.push(member);
            waiting.last = at;
            self.spans += 1;
        }
        while self.spans > SPANS_MAX {
            let oldest = self.waiting.iter().min_by_key(|(_, waiting)| waiting.first);
            let Some(trace) = oldest.map(|(trace, _)| *trace) else { break };
            self.draw(&[trace]);
        }
    }

    /// Draws every trace that has waited long enough.
    pub fn tick(&mut self, at: Instant) {
        let due = |waiting: &Waiting| waiting.due() <= at;
        let traces: Vec<_> = self.waiting.iter().filter(|(_, w)| due(w)).map(|(t, _)| *t).collect();
        self.draw(&traces);
    }

    /// When [`tick`](Self::tick) has something to do; `None` if nothing waits.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.waiting.values().map(Waiting::due).min()
    }

    /// Draws the rest.
    pub fn finish(&mut self) {
        let traces: Vec<_> = self.waiting.keys().copied().collect();
        self.draw(&traces);
    }

    /// What has become of spans since this was asked last. Those that wait are not among them.
    pub fn drawn(&mut self) -> Drawn {
        std::mem::take(&mut self.drawn)
    }

    fn draw(&mut self, traces: &[TraceId]) {
        if traces.is_empty() {
            return;
        }
        let width = self.options.width.unwrap_or_else(terminal_width);
        let mut groups: Vec<Waiting> =
            traces.iter().filter_map(|trace| self.waiting.remove(trace)).collect();
        groups.sort_by_key(|waiting| waiting.members().map(|span| span.start).min());
        let mut text = String::new();
        let mut count = 0;
        for waiting in &groups {
            count += waiting.spans.len();
            let spans: Vec<&Span> = waiting.members().collect();
            render::trace(&spans, width, self.options.color, &mut text);
        }
        self.spans -= count;
        match self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()) {
            Ok(()) => self.drawn.written += count as u64,
            Err(error) => {
                self.drawn.lost += count as u64;
                self.drawn.error = Some(error);
            }
        }
    }
}

impl Waiting {
    fn members(&self) -> impl Iterator<Item = &Span> {
        self.spans.iter().filter_map(Member::span)
    }

    fn due(&self) -> Instant {
        let patience = self.first + PATIENCE;
        if self.is_whole() { patience.min(self.last + QUIET) } else { patience }
    }

    /// Whether every parent that is on this host has come.
    fn is_whole(&self) -> bool {
        let has = |id: SpanId| self.members().any(|span| span.span_id == id);
        // A parent told by a header may be anywhere.
        let elsewhere = |span: &Span| span.parent.is_none_or(|parent| parent.is_told());
        match self.members().last() {
            // Children end before their parents: the last to come is the one to ask.
            Some(last) if self.spans.len() > 64 => elsewhere(last),
            _ => self.members().all(|span| {
                elsewhere(span) || span.parent.is_some_and(|parent| has(parent.span_id))
            }),
        }
    }
}

fn terminal_width() -> usize {
    terminal_size::terminal_size().map_or(PLAIN_WIDTH, |(width, _)| usize::from(width.0))
}

#[cfg(test)]
mod tests;
