//! What was measured in phases that alternate. In a round, a phase's figure is its fastest batch; what is
//! reported is the median over rounds of the difference to the same round's phases with nothing attached.

use serde_json::{Value, json};

use crate::statistics::{greatest, least, ratio};

/// CPU time of a call in nanoseconds, by phase.
pub(super) struct Samples<P> {
    /// Round, phase and its batches.
    phases: Vec<(usize, P, Vec<f64>)>,
    /// The two phases with nothing attached.
    nothing: [P; 2],
}

impl<P: Copy + PartialEq> Samples<P> {
    pub(super) fn new(nothing: [P; 2]) -> Self {
        Self { phases: Vec::new(), nothing }
    }

    pub(super) fn push(&mut self, round: usize, phase: P, batches: Vec<f64>) {
        self.phases.push((round, phase, batches));
    }

    /// The fastest batch in each round of a phase.
    fn fastest(&self, phase: P) -> Vec<f64> {
        let phases = self.phases.iter().filter(|(_, of, _)| *of == phase);
        phases.map(|(.., batches)| least(batches.iter().copied())).collect()
    }

    /// A call with nothing attached, round by round: the mean of the two such phases.
    pub(super) fn nothing(&self) -> Vec<f64> {
        let [one, two] = self.nothing.map(|phase| self.fastest(phase));
        one.iter().zip(two).map(|(one, two)| (one + two) / 2.0).collect()
    }

    /// What a phase adds to a call, round by round.
    pub(super) fn added(&self, phase: P) -> Vec<f64> {
        let pairs = self.fastest(phase).into_iter().zip(self.nothing());
        pairs.map(|(with, without)| with - without).collect()
    }

    /// The most that two phases of a round differ with nothing attached: less cannot be measured.
    pub(super) fn noise(&self) -> f64 {
        let [one, two] = self.nothing.map(|phase| self.fastest(phase));
        greatest(one.iter().zip(two).map(|(one, two)| (one - two).abs()))
    }

    /// What a phase adds over what its floor adds, round by round.
    pub(super) fn over(&self, phase: P, floor: P) -> Vec<f64> {
        let (added, floors) = (self.added(phase), self.added(floor));
        added.iter().zip(floors).map(|(added, floor)| ratio(*added, floor, 0.0)).collect()
    }

    /// Everything.
    pub(super) fn json(&self, name: impl Fn(P) -> &'static str) -> Value {
        let phases = self.phases.iter().map(|(round, phase, batches)| {
            json!({ "round": round, "phase": name(*phase), "cpu_ns": batches })
        });
        phases.collect()
    }
}
