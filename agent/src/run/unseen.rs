//! Processes whose end was told in a record that was lost: without it they would be traced for ever.

use std::mem;

use super::RunError;
use super::agent::Agent;
use crate::event;
use crate::event::ids::Tgid;
use crate::pipeline::Step;
use crate::platform::clock;

impl Agent {
    /// Looks for processes whose end was among what was lost; whether it has to look again. Called with
    /// an empty ring. One that the kernel half does not know any more may have been alive a moment ago,
    /// and what it did last be in the ring by now: so it must be unknown twice, with a drain between.
    pub(super) fn suspects_ends(&mut self) -> Result<bool, RunError> {
        if self.suspects.is_empty() {
            let lost = self.capture.lost()?;
            if mem::replace(&mut self.lost, lost) == lost {
                return Ok(false);
            }
        }
        let before = mem::take(&mut self.suspects);
        let gone = self.targets.gone(self.capture.selection());
        let (ended, suspects) = gone.into_iter().partition(|tgid| before.contains(tgid));
        self.suspects = suspects;
        let ended: Vec<Tgid> = ended;
        for tgid in &ended {
            self.end_unseen(*tgid)?;
        }
        Ok(!ended.is_empty() || !self.suspects.is_empty())
    }

    /// Does as if the record of a process's end had come.
    fn end_unseen(&mut self, tgid: Tgid) -> Result<(), RunError> {
        let record = event::exit(tgid, clock::now(), self.unseen);
        self.unseen += 1;
        tracing::debug!(pid = tgid.0, "a process has ended unseen");
        self.recording.write(&Step::Record(&record));
        let decoded = event::decode(&record);
        if let Ok((_, event)) = &decoded {
            if let Some(functions) = &mut self.functions {
                functions.forget(tgid);
            }
            if let Some(stacks) = &mut self.stacks {
                stacks.forget(tgid);
            }
            let (_, selection) = self.capture.split();
            self.targets.event(selection, event, &mut |_| ())?;
        }
        self.pipeline.record(&decoded);
        Ok(())
    }
}
