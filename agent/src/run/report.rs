//! What the agent says of itself while it runs and at its end.

use super::agent::Agent;
use super::functions::Functions;
use super::summary::Summary;
use crate::export::Account;
use crate::probe;

impl Agent {
    /// Tells its counts to whoever asks.
    pub(super) fn report(&mut self) {
        if let Some(mut metrics) = self.metrics.take() {
            metrics.answer(|| self.summary(self.exporters.accounts()));
            self.metrics = Some(metrics);
        }
    }

    pub(super) fn summary(&self, accounts: Vec<(String, Account)>) -> Summary {
        let counters = self.capture.counters().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the kernel half's counters");
            probe::Counters::default()
        });
        let mut calls = self.pipeline.call_tallies();
        let mut probes_ns = 0;
        match self.functions.as_ref().map(Functions::counters) {
            Some(Ok(counters)) => {
                // Hits tell of those before them; after the last one only the kernel half knows.
                calls.suppressed = counters.suppressed;
                probes_ns = counters.cost_ns;
            }
            Some(Err(error)) => tracing::warn!(%error, "cannot read the functions' counters"),
            None => {}
        }
        Summary {
            intake: self.pipeline.intake(),
            tallies: self.pipeline.tallies(),
            calls,
            probes_ns,
            functions: self.functions.as_ref().map_or(0, Functions::len),
            hooks: self.functions.as_ref().and_then(Functions::hooks).unwrap_or(0),
            detached: self.functions.as_ref().map_or(0, Functions::detached),
            numbers: self.functions.as_ref().map(Functions::in_use).unwrap_or_default(),
            counters,
            unrecorded: self.recording.failures(),
            processes: self.targets.seen(),
            alive: (self.targets.len(), self.capture.selected()),
            sizes: self.pipeline.sizes(),
            accounts,
        }
    }
}
