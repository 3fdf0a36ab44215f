//! The agent at work: attaches, drains, decides on processes, hands spans to the exporters, and
//! leaves without a trace.

mod exceptions;
mod functions;
mod launch;
mod metrics;
mod notify;
mod planner;
mod recorder;
mod signals;
mod stacks;
mod summary;
mod targets;
mod tracepoints;

use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

pub use functions::{FunctionsError, Wishes};
pub(crate) use functions::{Mapped, mapped};
pub use launch::become_program;
pub(crate) use planner::{concern, look};
pub use summary::Summary;
pub use targets::TargetError;
pub use tracepoints::{TracepointError, TracepointGlobs};

use crate::discover::rules::Rules;
use crate::event::ids::Tgid;
use crate::event::{self, Event, image};
use crate::export::{Account, Destination, ExportError, Exporters, Limits};
use crate::pipeline::{Pipeline, Step};
use crate::platform::clock::{self, MonoNs, WallOffset};
use crate::platform::memory;
use crate::probe::{self, Capture, CaptureError, Selection, Until};
use crate::span::model::Span;
use crate::span::tracker::Settings;
use functions::Functions;
use launch::Launched;
use metrics::Metrics;
use recorder::Recording;
use signals::{Signal, Signals};
use stacks::Stacks;
use targets::Targets;

/// How long the reader rests between two drains while there is traffic. Wake-ups cost the traced
/// program more than the probes do, and a span has a second to leave.
const REST: Duration = Duration::from_millis(80);

/// Empty drains before the reader sleeps until the kernel half wakes it.
const IDLE_DRAINS: u32 = 3;

/// How long the reader sleeps at most while functions are probed.
const WATCH: Duration = Duration::from_secs(1);

/// Records taken from the ring before spans are handed on.
const DRAIN_MAX: usize = 1 << 16;

/// Records taken in before those exchanges become spans that are over for [`SETTLE_NS`]: few enough for
/// what they say to be still in the processor's caches.
const SLICE: usize = 256;

/// How long an exchange waits after its end for records of earlier moments. The ring keeps the order
/// in which records were begun, so only a program that was held up between reading the clock and
/// writing comes late. One that comes later still is taken in, but links nothing.
const SETTLE_NS: u64 = 20_000_000;

/// How often the clocks are compared, while awake.
const CLOCK_NS: u64 = 10_000_000_000;

/// How long the exporters may take at the end.
const FLUSH: Duration = Duration::from_secs(5);

/// What to trace, how, and where to.
pub struct Plan {
    /// Which processes.
    pub rules: Rules,
    /// Whether children of the processes named by id are traced.
    pub follow: bool,
    /// A program to start and trace with its descendants.
    pub command: Option<Vec<OsString>>,
    /// The kernel half's settings.
    pub capture: probe::Options,
    /// The tracker's settings.
    pub tracker: Settings,
    /// Which functions are probed.
    pub functions: Wishes,
    /// Where spans go.
    pub destinations: Vec<Destination>,
    /// Bounds of each destination.
    pub limits: Limits,
    /// Where raw events are written.
    pub record: Option<PathBuf>,
    /// Where the agent's own counts are served.
    pub metrics: Option<SocketAddr>,
}

/// Why the agent could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The kernel half.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Functions.
    #[error(transparent)]
    Functions(#[from] FunctionsError),
    /// A destination.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A process.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Signals could not be set up.
    #[error("cannot listen to signals")]
    Signals(#[source] io::Error),
    /// No thread to read the tables of modules.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// The command could not be started.
    #[error("cannot start the command")]
    Launch(#[source] io::Error),
    /// The metrics cannot be served.
    #[error("cannot serve metrics on {address}")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The recording could not be created.
    #[error("cannot write the recording {path}")]
    Record {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Runs until it is asked to end, or until nothing is left to trace.
pub fn run(plan: Plan) -> Result<Summary, RunError> {
    // Before any thread starts, so that all have the signals blocked.
    let signals = Signals::block().map_err(RunError::Signals)?;
    let metrics = match plan.metrics {
        Some(address) => {
            let metrics = Metrics::listen(address);
            Some(metrics.map_err(|source| RunError::Metrics { address, source })?)
        }
        None => None,
    };
    let mut command = match &plan.command {
        Some(command) => Some(Launched::hold(command).map_err(RunError::Launch)?),
        None => None,
    };
    let seed = seed();
    let mut recording = Recording::create(plan.record, seed)?;
    let mut capture = Capture::start(&plan.capture)?;
    let mut pipeline = Pipeline::new(plan.tracker, seed);
    let mut spans = Vec::new();
    let mut targets = Targets::new(plan.rules, plan.follow, plan.capture.payload_limit);
    if plan.functions.exceptions
        && let Err(error) = capture.watch_signals()
    {
        tracing::warn!(%error, "signals that end a process are not told");
    }
    let mut functions = Functions::start(plan.functions, &capture)?;
    let stacks = functions.as_ref().map(|_| Stacks::start()).transpose();
    let mut stacks = stacks.map_err(RunError::Thread)?;
    let mut fresh = Vec::new();
    {
        let mut announce = |step: &Step<'_>| {
            note(step, &mut fresh);
            recording.write(step);
            pipeline.step(step, &mut spans);
        };
        announce(&Step::Clock(WallOffset::measure()));
        targets.start(capture.selection(), &mut announce)?;
    }
    {
        let mut announce = |step: &Step<'_>| {
            recording.write(step);
            pipeline.step(step, &mut spans);
        };
        if let Some(stacks) = &mut stacks {
            fresh.iter().for_each(|tgid| stacks.look(*tgid));
        }
        probe(&mut functions, &mut fresh, &targets, capture.selection(), &mut announce)?;
        if let Some(functions) = &mut functions {
            functions.wait(&mut announce);
        }
        if let Some(command) = &command {
            let tgid = Tgid(command.id());
            targets.add(capture.selection(), tgid, &mut announce)?;
            if let (Some(functions), Some(program)) = (&mut functions, command.program()) {
                functions.command(&program, tgid, capture.selection(), &mut announce)?;
            }
        }
    }
    let exporters = Exporters::start(plan.destinations, plan.limits)?;
    memory::give_back();
    let source = capture.source().as_str();
    let probed = functions.as_ref().map(what_is_probed).unwrap_or_default();
    for pattern in functions.iter().flat_map(Functions::unmatched) {
        tracing::warn!(%pattern, "no function that can be probed matches (`remora functions` lists them)");
    }
    eprintln!("remora: ready processes={} capture={source}{probed}", targets.len());
    notify::tell("READY=1");
    if let Some(command) = &mut command {
        command.go().map_err(RunError::Launch)?;
    }
    let mut agent = Agent {
        signals,
        metrics,
        command,
        recording,
        capture,
        pipeline,
        targets,
        functions,
        stacks,
        fresh,
        exporters,
        spans,
        latest: MonoNs::default(),
        measured: clock::now(),
        lost: 0,
        suspects: Vec::new(),
        unseen: 0,
    };
    let result = agent.work();
    notify::tell("STOPPING=1");
    result.map(|()| agent.end())
}

/// A seed that no other run has: the identities of all spans follow from it.
fn seed() -> u64 {
    // The standard library's keys are from the system's random source, once a process.
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(clock::wall_now().0);
    hasher.write_u32(std::process::id());
    hasher.finish()
}

/// What the line that says that all is ready tells of probes.
fn what_is_probed(functions: &Functions) -> String {
    let mut text = format!(" functions={}", functions.len());
    if let Some(hooks) = functions.hooks() {
        text += &format!(" exceptions={hooks}");
    }
    if functions.tracepoints() > 0 {
        text += &format!(" tracepoints={}", functions.tracepoints());
    }
    text
}

/// Remembers that a process has begun to be traced.
fn note(step: &Step<'_>, fresh: &mut Vec<Tgid>) {
    if let Step::Process { tgid, .. } = step {
        fresh.push(*tgid);
    }
}

/// Probes the functions of processes that have begun to be traced.
fn probe(
    functions: &mut Option<Functions>,
    fresh: &mut Vec<Tgid>,
    targets: &Targets,
    selection: &mut Selection,
    announce: &mut dyn FnMut(&Step<'_>),
) -> Result<(), FunctionsError> {
    for tgid in fresh.drain(..) {
        if let (Some(functions), Some((follow, goroutines))) =
            (functions.as_mut(), targets.about(tgid))
        {
            functions.process(tgid, follow, goroutines, selection, announce)?;
        }
    }
    if let Some(functions) = functions {
        functions.go_on(announce);
    }
    Ok(())
}

struct Agent {
    signals: Signals,
    metrics: Option<Metrics>,
    command: Option<Launched>,
    recording: Recording,
    capture: Capture,
    pipeline: Pipeline,
    targets: Targets,
    functions: Option<Functions>,
    /// If anything is probed.
    stacks: Option<Stacks>,
    /// Processes that have begun to be traced and were not looked at for functions.
    fresh: Vec<Tgid>,
    exporters: Exporters,
    spans: Vec<Span>,
    /// The latest moment of any record so far.
    latest: MonoNs,
    /// When the clocks were compared.
    measured: MonoNs,
    /// Records for which there was no room, at the last look for ends that were among them.
    lost: u64,
    /// Processes that seem to be gone, though no record has said so.
    suspects: Vec<Tgid>,
    /// How many of them were.
    unseen: u32,
}

impl Agent {
    fn work(&mut self) -> Result<(), RunError> {
        let mut idle = 0;
        loop {
            self.capture.rouse()?;
            let began = clock::now();
            // First: it may be why this was woken.
            self.keep_functions(began)?;
            let drained = self.drain()?;
            self.collect(began.before(SETTLE_NS));
            self.hand_on();
            self.keep_time(began);
            if self.is_over() {
                return Ok(());
            }
            idle = if drained == 0 { idle + 1 } else { 0 };
            let full = drained >= DRAIN_MAX;
            let asleep = idle > IDLE_DRAINS && !self.pipeline.is_pending();
            let (until, rest) = match (full, asleep) {
                (true, _) => (Until::Woken, Some(Duration::ZERO)),
                (false, false) => (Until::Woken, Some(REST)),
                (false, true) if self.suspects_ends()? => (Until::Woken, Some(REST)),
                (false, true) => {
                    self.recording.flush();
                    self.capture.sleep_until_event()?;
                    // What came before the kernel half knew does not wake.
                    let late = self.drain()?;
                    // What is not told wakes nobody, but costs.
                    let watch = self.functions.as_ref().map(|_| WATCH);
                    if late > 0 { (Until::Woken, Some(REST)) } else { (Until::Record, watch) }
                }
            };
            let woken = {
                let others = [Some(self.signals.as_fd()), self.metrics.as_ref().map(Metrics::fd)];
                self.capture.wait(until, others, rest)?
            };
            if woken && self.is_asked_to_end() {
                return Ok(());
            }
            self.report();
        }
    }

    /// Takes in what is in the ring; returns how many records that were.
    fn drain(&mut self) -> Result<usize, RunError> {
        let mut drained = 0;
        loop {
            let slice = self.drain_slice()?;
            drained += slice;
            if slice < SLICE || drained >= DRAIN_MAX {
                return Ok(drained);
            }
            self.collect(self.latest.before(SETTLE_NS));
            // There may be a tenth of a second's work in the ring.
            if let Some(functions) = &mut self.functions {
                functions.keep_to_budget(clock::now())?;
            }
        }
    }

    fn drain_slice(&mut self) -> Result<usize, RunError> {
        let Self { capture, pipeline, targets, functions, fresh, recording, spans, .. } = self;
        let (latest, stacks) = (&mut self.latest, &mut self.stacks);
        let mut failed = None;
        let (ring, selection) = capture.split();
        let drained = ring.drain(SLICE, |record| {
            *latest = event::time(record).map_or(*latest, |at| at.max(*latest));
            if image::is_image(record) {
                let taken = stacks.as_mut().and_then(|stacks| stacks.taken(record));
                if let Some(taken) = taken {
                    let step = Step::Stack(taken);
                    recording.write(&step);
                    pipeline.step(&step, spans);
                }
                return;
            }
            let mut decoded = event::decode(record);
            let completed = match (&decoded, functions.as_ref()) {
                (Ok((_, Event::Hit(hit))), Some(functions)) => functions.complete(record, hit),
                _ => None,
            };
            if let Some(completed) = &completed {
                decoded = event::decode(completed);
            }
            recording.write(&Step::Record(completed.as_deref().unwrap_or(record)));
            if let Ok((_, event)) = &decoded {
                let mut announce = |step: &Step<'_>| {
                    note(step, fresh);
                    recording.write(step);
                    pipeline.step(step, spans);
                };
                if let (Event::Exit { tgid, .. }, Some(functions)) = (event, functions.as_mut()) {
                    functions.forget(*tgid);
                }
                if let (Event::Exit { tgid, .. } | Event::Exec { tgid, .. }, Some(stacks)) =
                    (event, stacks.as_mut())
                {
                    stacks.forget(*tgid);
                }
                failed = targets.event(selection, event, &mut announce).err().or(failed.take());
            }
            pipeline.record(decoded);
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        let mut announce = |step: &Step<'_>| {
            recording.write(step);
            pipeline.step(step, spans);
        };
        if let Some(stacks) = stacks {
            fresh.iter().for_each(|tgid| stacks.look(*tgid));
        }
        probe(functions, fresh, targets, selection, &mut announce)?;
        Ok(drained)
    }

    /// Makes spans of the exchanges that ended before `horizon`.
    fn collect(&mut self, horizon: MonoNs) {
        if self.pipeline.is_pending() {
            let step = Step::Collect(horizon);
            self.recording.write(&step);
            self.pipeline.step(&step, &mut self.spans);
            self.exporters.put(&mut self.spans);
        }
    }

    fn hand_on(&mut self) {
        self.exporters.offer(&mut self.spans);
    }

    /// Looks for processes whose end was among what was lost; whether it has to look again. Called with
    /// an empty ring. One that the kernel half does not know any more may have been alive a moment ago,
    /// and what it did last be in the ring by now: so it must be unknown twice, with a drain between.
    fn suspects_ends(&mut self) -> Result<bool, RunError> {
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
        self.pipeline.record(decoded);
        Ok(())
    }

    /// Probes what has come, takes away what costs too much.
    fn keep_functions(&mut self, now: MonoNs) -> Result<(), RunError> {
        if let Some(stacks) = &mut self.stacks {
            stacks.look_again(now);
        }
        let Self { functions: Some(functions), recording, pipeline, spans, .. } = self else {
            return Ok(());
        };
        functions.keep_to_budget(now)?;
        functions.look_again(now, &mut |step: &Step<'_>| {
            recording.write(step);
            pipeline.step(step, spans);
        });
        Ok(())
    }

    /// Wall time is adjusted now and then, and monotonic time stands still in a suspend.
    fn keep_time(&mut self, at: MonoNs) {
        if at.since(self.measured) > CLOCK_NS {
            self.measured = at;
            let step = Step::Clock(WallOffset::measure());
            self.recording.write(&step);
            self.pipeline.step(&step, &mut self.spans);
        }
    }

    /// Whether there is nothing left that could be traced.
    fn is_over(&self) -> bool {
        let over = self.targets.is_empty() && !self.targets.may_grow();
        if over {
            tracing::info!("every traced process has exited");
        }
        over
    }

    /// Tells its counts to whoever asks.
    fn report(&mut self) {
        if let Some(mut metrics) = self.metrics.take() {
            metrics.answer(|| self.summary(self.exporters.accounts()));
            self.metrics = Some(metrics);
        }
    }

    fn summary(&self, accounts: Vec<(String, Account)>) -> Summary {
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

    fn is_asked_to_end(&mut self) -> bool {
        let mut asked = false;
        while let Some(signal) = self.signals.next() {
            match (signal, &mut self.command) {
                (Signal::Child, Some(command)) => match command.ended() {
                    Ok(Some(status)) => tracing::info!(%status, "the command has ended"),
                    Ok(None) => {}
                    Err(error) => tracing::warn!(%error, "cannot wait for the command"),
                },
                (Signal::Child, None) => {}
                (Signal::Lease, _) => {
                    if let Some(functions) = &mut self.functions {
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
    fn end(mut self) -> Summary {
        let now = clock::now();
        if let Err(error) = self.drain() {
            tracing::warn!(%error, "cannot drain the last events");
        }
        let step = Step::Finish(now);
        self.recording.write(&step);
        self.pipeline.step(&step, &mut self.spans);
        self.recording.flush();
        let by_process = self.targets.losses(self.capture.selection());
        let mut summary = self.summary(Vec::new());
        // The target is free before anything is sent.
        drop(self.functions);
        drop(self.capture);
        self.exporters.offer(&mut self.spans);
        summary.accounts = self.exporters.finish(FLUSH);
        for (tgid, name, lost) in by_process {
            tracing::warn!(pid = tgid.0, name, lost, "events of this process were lost");
        }
        summary
    }
}
