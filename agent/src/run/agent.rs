//! The agent's loop: waits, drains, takes in what comes, hands on what is over, until it is asked to end
//! or nothing is left.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::RunError;
use super::inbox::Inbox;
use super::launch::Launched;
use super::metrics::Metrics;
use super::signals::{Signal, Signals};
use super::summary::Summary;
use crate::event::ids::Tgid;
use crate::export::Exporters;
use crate::pipeline::Step;
use crate::platform::clock::{self, MonoNs, WallOffset};
use crate::probe::{Capture, Until};
use crate::span::tracker::QUIET_NS;

/// How long the reader rests between two drains while there is traffic. Wake-ups cost the traced
/// program more than the probes do, and a span has a second to leave.
const REST: Duration = Duration::from_millis(80);

/// Empty drains before the reader sleeps until the kernel half wakes it.
const IDLE_DRAINS: u32 = 3;

/// Records taken from the ring before spans are handed on.
const DRAIN_MAX: usize = 1 << 16;

/// Records taken in before those exchanges become spans that are over for [`SETTLE_NS`]: few enough for
/// what they say to be still in the processor's caches.
const SLICE: usize = 256;

/// How long an exchange waits after its end for records of earlier moments. The ring keeps the order
/// in which records were begun, so only a program that was held up between reading the clock and
/// writing comes late. One that comes later still is taken in, but links nothing.
const SETTLE_NS: u64 = 20_000_000;

/// How often it is asked whether Unix sockets are still there on which an answer is waited for; less and
/// less often, up to this many times as long, while nothing else happens.
const QUIET: Duration = Duration::from_nanos(QUIET_NS);
const QUIETER: u32 = 8;

/// How often the clocks are compared, while awake.
const CLOCK_NS: u64 = 10_000_000_000;

/// How long the end of a command may take to be told twice: by its record, and by the system with its status.
const COMMAND_ENDS: Duration = Duration::from_secs(1);

/// How long the exporters may take at the end.
const FLUSH: Duration = Duration::from_secs(5);

pub(super) struct Agent {
    pub(super) signals: Signals,
    pub(super) metrics: Option<Metrics>,
    pub(super) command: Option<Launched>,
    pub(super) capture: Capture,
    pub(super) inbox: Inbox,
    pub(super) exporters: Exporters,
    /// When the clocks were compared.
    pub(super) measured: MonoNs,
    /// Records for which there was no room, at the last look for ends that were among them.
    pub(super) lost: u64,
    /// Processes that seem to be gone, though no record has said so.
    pub(super) suspects: Vec<Tgid>,
    /// How many of them were.
    pub(super) unseen: u32,
}

impl Agent {
    pub(super) fn work(&mut self) -> Result<(), RunError> {
        let mut idle = 0;
        loop {
            self.capture.rouse()?;
            let began = clock::now();
            // First: it may be why this was woken.
            self.keep_functions(began)?;
            let gone = self.gone_sockets();
            let drained = self.drain()?;
            self.close_unseen(if drained < DRAIN_MAX { &gone } else { &[] })?;
            let until = if self.inbox.held.is_empty() { began } else { self.inbox.latest };
            self.collect(until.before(SETTLE_NS));
            self.hand_on();
            self.keep_time(began);
            if self.is_over() {
                return self.await_command();
            }
            idle = if drained == 0 { idle + 1 } else { 0 };
            let full = drained >= DRAIN_MAX;
            let asleep = idle > IDLE_DRAINS && !self.inbox.is_pending();
            let (until, rest) = match (full, asleep) {
                (true, _) => (Until::Woken, Some(Duration::ZERO)),
                (false, false) => (Until::Woken, Some(self.inbox.rest(REST))),
                (false, true) if self.suspects_ends()? => (Until::Woken, Some(REST)),
                (false, true) => {
                    self.inbox.recorded.recording.flush();
                    self.capture.sleep_until_event()?;
                    // What came before the kernel half knew does not wake.
                    let late = self.drain()?;
                    let functions = self.inbox.functions.as_ref();
                    let watch = functions.map(|functions| functions.until_next_look(clock::now()));
                    let quiet = QUIET * (idle - IDLE_DRAINS).min(QUIETER);
                    let sockets = self.inbox.recorded.pipeline.is_watching().then_some(quiet);
                    let watch = watch.into_iter().chain(sockets).min();
                    if late > 0 { (Until::Woken, Some(REST)) } else { (Until::Record, watch) }
                }
            };
            let woken = {
                let metrics = self.metrics.as_ref().map(Metrics::fd);
                let others = [Some(self.signals.as_fd()), metrics, self.inbox.fd()];
                self.capture.wait(until, others, rest)?
            };
            if woken && self.is_asked_to_end() {
                return Ok(());
            }
            self.report();
        }
    }

    /// Takes what is in the ring; returns how many records that were.
    fn drain(&mut self) -> Result<usize, RunError> {
        let mut drained = 0;
        loop {
            let slice = self.drain_slice()?;
            drained += slice;
            while self.release_slice()? == SLICE {
                self.collect(self.inbox.latest.before(SETTLE_NS));
            }
            if slice < SLICE || drained >= DRAIN_MAX {
                return Ok(drained);
            }
            self.collect(self.inbox.latest.before(SETTLE_NS));
            // There may be a tenth of a second's work in the ring.
            if let Some(functions) = &mut self.inbox.functions {
                functions.keep_to_budget(clock::now())?;
            }
        }
    }

    fn drain_slice(&mut self) -> Result<usize, RunError> {
        let Self { capture, inbox, .. } = self;
        let mut failed = None;
        let (ring, selection) = capture.split();
        let drained = ring.drain(SLICE, |record| {
            failed = inbox.arrive(record, selection).err().or(failed.take());
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        inbox.probe_fresh(selection)?;
        Ok(drained)
    }

    /// Takes in what has waited and need not any more; how many records that were.
    fn release_slice(&mut self) -> Result<usize, RunError> {
        let Self { capture, inbox, .. } = self;
        let released = inbox.release(SLICE, capture.selection())?;
        inbox.probe_fresh(capture.selection())?;
        Ok(released)
    }

    /// Makes spans of the exchanges that ended before `horizon`.
    fn collect(&mut self, horizon: MonoNs) {
        let recorded = &mut self.inbox.recorded;
        if recorded.pipeline.is_pending() || recorded.pipeline.is_watching() {
            recorded.step(&Step::Collect(horizon));
            recorded.hand_on(&self.exporters);
        }
    }

    fn hand_on(&mut self) {
        self.inbox.recorded.hand_on(&self.exporters);
        self.exporters.wake();
    }

    /// Probes what has come, takes away what costs too much.
    fn keep_functions(&mut self, now: MonoNs) -> Result<(), RunError> {
        let Inbox { functions, stacks, recorded, .. } = &mut self.inbox;
        if let Some(stacks) = stacks {
            stacks.look_again(now);
        }
        if let Some(functions) = functions {
            functions.keep_to_budget(now)?;
            functions.go_up(now)?;
            functions.look_again(now, &mut |step| recorded.step(step));
        }
        Ok(())
    }

    /// Wall time is adjusted now and then, and monotonic time stands still in a suspend.
    fn keep_time(&mut self, at: MonoNs) {
        if at.since(self.measured) > CLOCK_NS {
            self.measured = at;
            self.inbox.recorded.step(&Step::Clock(WallOffset::measure()));
        }
    }

    /// Whether there is nothing left that could be traced.
    fn is_over(&self) -> bool {
        let over = self.inbox.targets.is_empty() && !self.inbox.targets.may_grow();
        if over {
            tracing::info!("every traced process has exited");
        }
        over
    }

    /// Waits a moment for what the system says of a command whose end was told by a record.
    fn await_command(&mut self) -> Result<(), RunError> {
        let end = Instant::now() + COMMAND_ENDS;
        while self.command.as_ref().is_some_and(Launched::is_running) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.capture.rouse()?;
            self.capture.wait(Until::Woken, [Some(self.signals.as_fd())], Some(left))?;
            if self.is_asked_to_end() {
                break;
            }
        }
        Ok(())
    }

    fn is_asked_to_end(&mut self) -> bool {
        let mut asked = false;
        while let Some(signal) = self.signals.next() {
            match (signal, &mut self.command) {
                (Signal::Child, Some(command)) => match command.ended() {
                    Ok(Some(status)) if status.success() => tracing::info!("the command has ended"),
                    Ok(Some(status)) => tracing::warn!(%status, "the command has failed"),
                    Ok(None) => {}
                    Err(error) => tracing::warn!(%error, "cannot wait for the command"),
                },
                (Signal::Child, None) => {}
                (Signal::Lease, _) => {
                    if let Some(functions) = &mut self.inbox.functions {
                        functions.give_up_leases();
                    }
                }
                // As a launcher, remora goes on until the command has ended.
                (Signal::Asked(number), Some(command)) if command.is_running() => {
                    command.signal(number);
                }
                // The terminal has told the command as well.
                (Signal::Interrupt, Some(command)) if command.is_running() && !command.told => {
                    command.told = true;
                }
                _ => asked = true,
            }
        }
        asked
    }

    /// Detaches, takes in what is left, sends it and says what became of everything.
    pub(super) fn end(mut self) -> Summary {
        let now = clock::now();
        if let Err(error) = self.drain() {
            tracing::warn!(%error, "cannot drain the last events");
        }
        if let Err(error) = self.inbox.finish(self.capture.selection()) {
            tracing::warn!(%error, "cannot take in the last events");
        }
        self.inbox.recorded.step(&Step::Finish(now));
        self.inbox.recorded.recording.flush();
        let by_process = self.inbox.targets.losses(self.capture.selection());
        let mut summary = self.summary(Vec::new());
        // The target is free before anything is sent.
        drop(self.inbox.functions);
        drop(self.capture);
        self.exporters.put(&mut self.inbox.recorded.spans);
        self.exporters.wake();
        summary.accounts = self.exporters.finish(FLUSH);
        for (tgid, name, lost) in by_process {
            tracing::warn!(pid = tgid.0, name, lost, "events of this process were lost");
        }
        summary
    }
}
