//! From raw records to finished spans, the same way for a live capture and for a replay.
//!
//! Everything that a span depends on comes in as a [`Step`]; nothing here reads a clock, a file or
//! `/proc`. Written down, the steps are a recording.

pub mod recording;

use std::sync::Arc;

use crate::event::ids::{SocketId, Tgid};
use crate::event::{self, DecodeError, Event, Position};
use crate::function::facts::FunctionFacts;
use crate::platform::clock::{MonoNs, WallOffset};
use crate::span::calls::CallTallies;
use crate::span::model::{Resource, Span};
use crate::span::tracker::{Settings, Tallies, Tracker};
use crate::stack::Taken;

/// One thing that happens to the pipeline.
#[derive(Clone, Debug, PartialEq)]
pub enum Step<'a> {
    /// How monotonic time maps to wall time from here on.
    Clock(WallOffset),
    /// A process is announced.
    Process {
        /// Its id.
        tgid: Tgid,
        /// What it is called.
        resource: Arc<Resource>,
        /// Whether its threads say nothing about its requests.
        multiplexes_tasks: bool,
    },
    /// A function is probed.
    Function(Arc<FunctionFacts>),
    /// The stack of the record to come that has the same time, thread and probe.
    Stack(Arc<Taken>),
    /// A record of the kernel half.
    Record(&'a [u8]),
    /// Spans that ended before this moment are to be handed out.
    Collect(MonoNs),
    /// Nothing more will come.
    Finish(MonoNs),
}

/// What was counted between the ring and the tracker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Intake {
    /// Records taken in.
    pub events: u64,
    /// Records that could not be read.
    pub malformed: u64,
    /// Records missing in the per-CPU order.
    pub missing: u64,
}

/// Decoder and tracker.
pub struct Pipeline {
    tracker: Tracker,
    /// Number of the next record, by writer: the program, then the CPU.
    next: Vec<Vec<Option<u32>>>,
    intake: Intake,
}

impl Pipeline {
    /// A pipeline whose identities follow from `seed`.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let tracker = Tracker::new(settings, seed);
        Self { tracker, next: Vec::new(), intake: Intake::default() }
    }

    /// Takes a step; what it finishes is added to `spans`.
    pub fn step(&mut self, step: &Step<'_>, spans: &mut Vec<Span>) {
        match step {
            Step::Clock(wall) => self.tracker.clock(*wall),
            Step::Process { tgid, resource, multiplexes_tasks } => {
                self.tracker.process(*tgid, Arc::clone(resource), *multiplexes_tasks);
            }
            Step::Function(facts) => self.tracker.function(facts),
            Step::Stack(taken) => self.tracker.taken(taken),
            Step::Record(record) => {
                self.record(&event::decode(record));
            }
            Step::Collect(horizon) => self.tracker.collect(*horizon, spans),
            Step::Finish(at) => self.tracker.finish(*at, spans),
        }
    }

    /// Takes back spans that nobody needs any more, with the memory of what they say.
    pub fn reuse(&mut self, spans: &mut Vec<Span>) {
        self.tracker.reuse(spans);
    }

    /// Takes in a record that was decoded already.
    pub fn record(&mut self, decoded: &Result<(Position, Event<'_>), DecodeError>) {
        self.intake.events += 1;
        match decoded {
            Ok((position, event)) => {
                // A probe that can be preempted keeps no order on its CPU; its losses come with the hits.
                if !matches!(event, Event::Hit(_)) {
                    self.follow(*position);
                }
                self.tracker.event(event);
            }
            Err(error) => {
                self.intake.malformed += 1;
                tracing::debug!(%error, "malformed record");
            }
        }
    }

    /// Counts the records that are missing before this one.
    fn follow(&mut self, position: Position) {
        let (program, cpu) = position.writer();
        if self.next.len() <= program {
            self.next.resize_with(program + 1, Vec::new);
        }
        let Some(cpus) = self.next.get_mut(program) else { return };
        if cpus.len() <= cpu {
            cpus.resize(cpu + 1, None);
        }
        let Some(next) = cpus.get_mut(cpu) else { return };
        if let Some(expected) = next.replace(position.seq.wrapping_add(1)) {
            let missing = position.seq.wrapping_sub(expected);
            // A step back would be a program that was interrupted by another on the same CPU.
            if missing > 0 && missing < 1 << 31 {
                self.intake.missing += u64::from(missing);
                self.tracker.lost(missing.into());
            }
        }
    }

    /// Whether spans wait to be handed out.
    pub fn is_pending(&self) -> bool {
        self.tracker.pending()
    }

    /// Whether something waits to be looked at by [`Step::Collect`].
    pub fn is_watching(&self) -> bool {
        self.tracker.is_watching()
    }

    /// Sockets of which it is not told when they are closed, and that may be: asked for once.
    pub fn take_quiet(&mut self) -> Vec<SocketId> {
        self.tracker.take_quiet()
    }

    /// Whether a process was announced.
    pub fn knows(&self, tgid: Tgid) -> bool {
        self.tracker.knows(tgid)
    }

    /// What was counted on the way in.
    pub fn intake(&self) -> Intake {
        self.intake
    }

    /// What the tracker counted.
    pub fn tallies(&self) -> Tallies {
        self.tracker.tallies()
    }

    /// What was counted of functions' calls.
    pub fn call_tallies(&self) -> CallTallies {
        self.tracker.call_tallies()
    }

    /// Sockets and exchanges that are remembered.
    pub fn sizes(&self) -> (usize, usize) {
        self.tracker.sizes()
    }
}

#[cfg(test)]
mod tests;
