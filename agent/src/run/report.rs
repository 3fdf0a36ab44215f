//! What the agent says of itself while it runs and at its end.

use super::agent::Agent;
use super::functions::Functions;
use super::inbox::Inbox;
use super::stacks::Stacks;
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
        let Inbox { recorded, targets, functions, stacks, held, .. } = &self.inbox;
        let functions = functions.as_ref();
        let counters = self.capture.counters().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the kernel half's counters");
            probe::Counters::default()
        });
        let mut calls = recorded.pipeline.call_tallies();
        let mut probes_ns = 0;
        match functions.map(Functions::counters) {
            Some(Ok(counters)) => {
                // Hits tell of those before them; after the last one only the kernel half knows.
                calls.suppressed = counters.suppressed;
                probes_ns = counters.cost_ns;
            }
            Some(Err(error)) => tracing::warn!(%error, "cannot read the functions' counters"),
            None => {}
        }
        Summary {
            intake: recorded.pipeline.intake(),
            tallies: recorded.pipeline.tallies(),
            calls,
            probes_ns,
            functions: functions.map_or(0, Functions::len),
            hooks: functions.and_then(Functions::hooks).unwrap_or(0),
            detached: functions.map_or(0, Functions::detached),
            numbers: functions.map(Functions::in_use).unwrap_or_default(),
            stacks_unread: stacks.as_ref().map_or(0, Stacks::unread),
            stacks_hurried: held.hurried(),
            held: held.len(),
            counters,
            unrecorded: recorded.recording.failures(),
            processes: targets.seen(),
            alive: (targets.len(), self.capture.selected()),
            sizes: recorded.pipeline.sizes(),
            accounts,
        }
    }
}
