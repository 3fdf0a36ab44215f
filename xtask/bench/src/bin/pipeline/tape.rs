//! What the pipeline is fed, in memory: steps, cut where spans are taken out. Made up (`traffic`) or
//! read from a recording.

use std::fs::File;
use std::io::BufReader;
use std::ops::Range;

use anyhow::{Context, Result};
use remora::pipeline::Step;
use remora::pipeline::recording::Player;
use remora::platform::clock::MonoNs;

/// Steps of a pipeline, records in one piece of memory as they are in the ring.
pub(crate) struct Tape {
    seed: u64,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Entries between two steps that take spans out, and the second of these steps.
    slices: Vec<(Range<usize>, Step<'static>)>,
    expected: Option<u64>,
}

enum Entry {
    Record(Range<usize>),
    Other(Step<'static>),
}

/// What is taken in before spans are taken out.
pub(crate) struct Slice<'a> {
    tape: &'a Tape,
    entries: &'a [Entry],
    end: &'a Step<'static>,
}

impl Slice<'_> {
    /// Its steps but the last.
    pub(crate) fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        self.entries.iter().map(|entry| match entry {
            Entry::Record(range) => Step::Record(self.tape.record(range)),
            Entry::Other(step) => step.clone(),
        })
    }

    /// Its records.
    pub(crate) fn records(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Record(range) => Some(self.tape.record(range)),
            Entry::Other(_) => None,
        })
    }

    /// The step that takes the spans out.
    pub(crate) fn end(&self) -> Step<'static> {
        self.end.clone()
    }
}

impl Tape {
    /// A recording of `remora record`.
    pub(crate) fn read(path: &str) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
        let mut player = Player::new(BufReader::new(file))?;
        let mut tape = Self::new(player.seed());
        while let Some(step) = player.next_step()? {
            match step {
                Step::Record(record) => tape.push(record),
                Step::Collect(at) => tape.end_slice(Step::Collect(at)),
                Step::Finish(at) => tape.end_slice(Step::Finish(at)),
                Step::Clock(wall) => tape.add(Step::Clock(wall)),
                Step::Function(facts) => tape.add(Step::Function(facts)),
                Step::Stack(taken) => tape.add(Step::Stack(taken)),
                Step::Process { tgid, resource, multiplexes_tasks } => {
                    tape.add(Step::Process { tgid, resource, multiplexes_tasks });
                }
            }
        }
        tape.end_slice(Step::Finish(MonoNs(u64::MAX)));
        Ok(tape)
    }

    /// An empty one.
    pub(crate) fn new(seed: u64) -> Self {
        let (bytes, entries, slices) = (Vec::new(), Vec::new(), Vec::new());
        Self { seed, bytes, entries, slices, expected: None }
    }

    /// The seed of the identities.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Slices in order.
    pub(crate) fn slices(&self) -> impl Iterator<Item = Slice<'_>> {
        self.slices.iter().map(|(range, end)| {
            let entries = self.entries.get(range.clone()).unwrap_or_default();
            Slice { tape: self, entries, end }
        })
    }

    /// How many spans there must be, if that is known.
    pub(crate) fn expected(&self) -> Option<u64> {
        self.expected
    }

    /// How many records there are.
    pub(crate) fn count(&self) -> usize {
        self.slices().map(|slice| slice.records().count()).sum()
    }

    /// How many bytes they have.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a step that is no record.
    pub(crate) fn add(&mut self, step: Step<'static>) {
        self.entries.push(Entry::Other(step));
    }

    /// How many spans there must be.
    pub(crate) fn expect(&mut self, spans: u64) {
        self.expected = Some(spans);
    }

    fn record(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    /// Adds a record.
    pub(crate) fn push(&mut self, record: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(record);
        self.entries.push(Entry::Record(start..self.bytes.len()));
        // The ring aligns records to eight bytes.
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }

    /// Spans are taken out by `end`.
    pub(crate) fn end_slice(&mut self, end: Step<'static>) {
        let begin = self.slices.last().map_or(0, |(range, _)| range.end);
        self.slices.push((begin..self.entries.len(), end));
    }
}
