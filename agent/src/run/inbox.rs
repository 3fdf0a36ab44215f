//! What becomes of records: each is taken in when all before it are. A stack may wait for what is read for it;
//! what comes later waits behind it, so that the ring goes on to be drained.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::functions::{Functions, FunctionsError};
use super::held::{Held, Next};
use super::launch::Launched;
use super::recorder::Recorded;
use super::stacks::{Begun, Stacks};
use super::targets::Targets;
use super::{RunError, note};
use crate::event::ids::Tgid;
use crate::event::{self, DecodeError, Event, Position, image};
use crate::pipeline::Step;
use crate::platform::clock::{MonoNs, WallOffset};
use crate::probe::{CaptureError, Selection};

/// Whoever is told of records.
pub(super) struct Inbox {
    pub(super) recorded: Recorded,
    pub(super) targets: Targets,
    pub(super) functions: Option<Functions>,
    /// If anything is probed.
    pub(super) stacks: Option<Stacks>,
    /// Processes that have begun to be traced and were not looked at for functions.
    pub(super) fresh: Vec<Tgid>,
    /// The latest moment of any record that was taken in.
    pub(super) latest: MonoNs,
    pub(super) held: Held,
}

impl Inbox {
    /// Selects the processes that are there and wanted, and probes them.
    pub(super) fn start(&mut self, selection: &mut Selection) -> Result<(), RunError> {
        let Self { recorded, targets, fresh, .. } = self;
        recorded.step(&Step::Clock(WallOffset::measure()));
        targets.start(selection, &mut |step| {
            note(step, fresh);
            recorded.step(step);
        })?;
        self.probe_fresh(selection)?;
        if let Some(functions) = &mut self.functions {
            functions.wait(&mut |step| self.recorded.step(step));
        }
        Ok(())
    }

    /// Selects a process that is held, and probes the program that it is about to become.
    pub(super) fn hold(
        &mut self,
        command: &Launched,
        selection: &mut Selection,
    ) -> Result<(), RunError> {
        let tgid = Tgid(command.id());
        let mut announce = |step: &Step<'_>| self.recorded.step(step);
        self.targets.add(selection, tgid, &mut announce)?;
        if let (Some(functions), Some(program)) = (&mut self.functions, command.program()) {
            functions.command(&program, &command.args(), tgid, selection, &mut announce)?;
        }
        Ok(())
    }

    /// Takes a record that has come, or keeps it until those before it are taken in.
    pub(super) fn arrive(
        &mut self,
        record: &[u8],
        selection: &mut Selection,
    ) -> Result<(), CaptureError> {
        if image::is_image(record) {
            match self.stacks.as_mut().and_then(|stacks| stacks.begin(record)) {
                None => return Ok(()),
                Some(Begun::Whole(taken)) if self.held.is_empty() => {
                    self.recorded.step(&Step::Stack(taken));
                    return Ok(());
                }
                Some(begun) => self.held.push_stack(begun),
            }
        } else {
            let decoded = event::decode(record);
            // While the process is there.
            let completed = match (&decoded, &self.functions) {
                (Ok((_, Event::Hit(hit))), Some(functions)) => functions.complete(record, hit),
                _ => None,
            };
            if let (Ok((_, Event::Exit { tgid, .. } | Event::Exec { tgid, .. })), Some(stacks)) =
                (&decoded, &mut self.stacks)
            {
                stacks.forget(*tgid);
            }
            match (completed, self.held.is_empty()) {
                (None, true) => return self.take_in(record, &decoded, selection),
                (Some(completed), true) => {
                    return self.take_in(&completed, &event::decode(&completed), selection);
                }
                (completed, false) => {
                    self.held.push_record(completed.as_deref().unwrap_or(record));
                }
            }
        }
        if self.held.is_full() {
            self.release(usize::MAX, selection)?;
        }
        Ok(())
    }

    /// Takes in what need not wait any more, at most `most` records; returns how many.
    pub(super) fn release(
        &mut self,
        most: usize,
        selection: &mut Selection,
    ) -> Result<usize, CaptureError> {
        if self.held.is_empty() {
            return Ok(0);
        }
        let (now, mut released, mut failed) = (Instant::now(), 0, Ok(()));
        if let Some(stacks) = &mut self.stacks {
            stacks.take_answers();
        }
        while released < most
            && let Some(stacks) = &mut self.stacks
            && let Some(next) = self.held.next(stacks, now)
        {
            released += 1;
            match next {
                Next::Stack(taken) => self.recorded.step(&Step::Stack(taken)),
                Next::Record(record) => {
                    let taken = self.take_in(&record, &event::decode(&record), selection);
                    failed = failed.and(taken);
                }
            }
        }
        failed.map(|()| released)
    }

    fn take_in(
        &mut self,
        record: &[u8],
        decoded: &Result<(Position, Event<'_>), DecodeError>,
        selection: &mut Selection,
    ) -> Result<(), CaptureError> {
        self.latest = event::time(record).map_or(self.latest, |at| at.max(self.latest));
        let Self { recorded, targets, functions, fresh, .. } = self;
        let mut result = Ok(());
        if let Ok((_, event)) = decoded {
            if let (Event::Exit { tgid, .. }, Some(functions)) = (event, functions) {
                functions.forget(*tgid);
            }
            result = targets.event(selection, event, &mut |step| {
                note(step, fresh);
                recorded.step(step);
            });
        }
        recorded.record(record, decoded);
        result
    }

    /// Looks at processes that have begun to be traced, and probes them.
    pub(super) fn probe_fresh(&mut self, selection: &mut Selection) -> Result<(), FunctionsError> {
        let Self { recorded, targets, functions, stacks, fresh, .. } = self;
        if let Some(stacks) = stacks {
            fresh.iter().for_each(|tgid| stacks.look(*tgid));
        }
        let mut announce = |step: &Step<'_>| recorded.step(step);
        for tgid in fresh.drain(..) {
            if let (Some(functions), Some((follow, goroutines))) =
                (functions.as_mut(), targets.about(tgid))
            {
                functions.process(tgid, follow, goroutines, selection, &mut announce)?;
            }
        }
        if let Some(functions) = functions {
            functions.go_on(&mut announce);
        }
        Ok(())
    }

    /// Whether spans are to come of what has arrived.
    pub(super) fn is_pending(&self) -> bool {
        self.recorded.pipeline.is_pending() || !self.held.is_empty()
    }

    /// How long the agent may rest, at most this.
    pub(super) fn rest(&self, most: Duration) -> Duration {
        let held = self.held.until().map(|until| until.saturating_duration_since(Instant::now()));
        let step = self.functions.as_ref().and_then(Functions::until_next_step);
        held.into_iter().chain(step).fold(most, Duration::min)
    }

    /// Readable when something has been read that is waited for.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        let stacks = self.stacks.as_ref().filter(|_| !self.held.is_empty());
        stacks.map(Stacks::fd)
    }

    /// Takes in all that waits, as soon as it may.
    pub(super) fn finish(&mut self, selection: &mut Selection) -> Result<(), CaptureError> {
        while let (Some(until), Some(stacks)) = (self.held.until(), &mut self.stacks) {
            stacks.wait(until);
            self.release(usize::MAX, selection)?;
        }
        Ok(())
    }
}
