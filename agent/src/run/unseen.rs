//! Ends that no record tells: of processes whose record was lost, which would be traced for ever without it,
//! and of Unix sockets, of which there is none.

use std::mem;

use super::RunError;
use super::agent::Agent;
use crate::event;
use crate::event::ids::{SocketId, Tgid};
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
        let gone = self.inbox.targets.gone(self.capture.selection());
        let (ended, suspects) = gone.into_iter().partition(|tgid| before.contains(tgid));
        self.suspects = suspects;
        let ended: Vec<Tgid> = ended;
        for tgid in &ended {
            self.end_unseen(*tgid)?;
        }
        Ok(!ended.is_empty() || !self.suspects.is_empty())
    }

    /// Unix sockets with an unfinished exchange that no process has any more. Called before the ring is read:
    /// then all that was done with them is read before they are closed.
    pub(super) fn gone_sockets(&mut self) -> Vec<SocketId> {
        let quiet = self.inbox.recorded.pipeline.take_quiet();
        self.capture.gone(quiet)
    }

    /// Does as if records of these sockets' close had come.
    pub(super) fn close_unseen(&mut self, sockets: &[SocketId]) -> Result<(), RunError> {
        for id in sockets {
            let record = event::close(*id, clock::now(), self.unseen);
            self.unseen = self.unseen.wrapping_add(1);
            self.inbox.arrive(&record, self.capture.selection())?;
        }
        Ok(())
    }

    /// Does as if the record of a process's end had come.
    fn end_unseen(&mut self, tgid: Tgid) -> Result<(), RunError> {
        let record = event::exit(tgid, clock::now(), self.unseen);
        self.unseen += 1;
        tracing::debug!(pid = tgid.0, "a process has ended unseen");
        let (_, selection) = self.capture.split();
        Ok(self.inbox.arrive(&record, selection)?)
    }
}
