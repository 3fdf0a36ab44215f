//! The agent from its beginning to its end: what it is to do, why it cannot, how it begins. What it does then
//! is `agent`'s.

mod agent;
mod exceptions;
mod functions;
mod held;
mod inbox;
mod inherited;
mod launch;
mod metrics;
mod notify;
mod planner;
mod recorder;
mod report;
mod signals;
mod stacks;
mod summary;
mod targets;
mod tracepoints;
mod unseen;

use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

pub use functions::{FunctionsError, Wishes};
pub(crate) use functions::{Mapped, mapped};
pub use launch::become_program;
pub(crate) use planner::{concern, look};
pub use summary::Summary;
pub use targets::TargetError;
pub use tracepoints::{TracepointError, TracepointGlobs};

use crate::discover::rules::Rules;
use crate::event::ids::Tgid;
use crate::export::{Destination, ExportError, Exporters, Limits};
use crate::pipeline::{Pipeline, Step};
use crate::platform::clock::{self, MonoNs};
use crate::platform::memory;
use crate::probe::{self, Capture, CaptureError, Until};
use crate::span::tracker::Settings;
use agent::Agent;
use functions::Functions;
use held::Held;
use inbox::Inbox;
use launch::Launched;
use metrics::Metrics;
use recorder::{Recorded, Recording};
use signals::Signals;
use stacks::Stacks;
use targets::Targets;

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
    #[error("cannot start {program}")]
    Launch {
        /// Its name.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
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
        Some(words) => Some(Launched::hold(words).map_err(|error| not_launched(words, error))?),
        None => None,
    };
    let seed = seed();
    let recording = Recording::create(plan.record, seed)?;
    let mut capture = Capture::start(&plan.capture)?;
    let pipeline = Pipeline::new(plan.tracker, seed);
    let targets = Targets::new(plan.rules, plan.follow, plan.capture.payload_limit);
    if plan.functions.exceptions
        && let Err(error) = capture.watch_signals()
    {
        tracing::warn!(%error, "signals that end a process are not told");
    }
    let functions = Functions::start(plan.functions, &capture)?;
    let stacks = functions.as_ref().map(|_| Stacks::start()).transpose();
    let mut inbox = Inbox {
        recorded: Recorded { recording, pipeline, spans: Vec::new() },
        targets,
        functions,
        stacks: stacks.map_err(RunError::Thread)?,
        fresh: Vec::new(),
        latest: MonoNs::default(),
        held: Held::default(),
    };
    inbox.start(capture.selection())?;
    if let Some(command) = &command {
        inbox.hold(command, capture.selection())?;
    }
    if let Some(functions) = &mut inbox.functions {
        go_up(functions, &capture)?;
    }
    let exporters = Exporters::start(plan.destinations, plan.limits)?;
    memory::give_back();
    let source = capture.source().as_str();
    let probed = inbox.functions.as_ref().map(what_is_probed).unwrap_or_default();
    for pattern in inbox.functions.iter().flat_map(Functions::unmatched_tracepoints) {
        tracing::warn!(%pattern, "no static tracepoint matches (`remora functions --usdt` lists them)");
    }
    for pattern in inbox.functions.iter().flat_map(Functions::unmatched) {
        tracing::warn!(%pattern, "no function that can be probed matches (`remora functions` lists them)");
    }
    // From here on nothing that they do is missed.
    inbox.recorded.step(&Step::Collect(clock::now()));
    eprintln!("remora: ready processes={} capture={source}{probed}", inbox.targets.len());
    notify::tell("READY=1");
    if let Some(command) = &mut command {
        let words = plan.command.as_deref().unwrap_or_default();
        command.go().map_err(|error| not_launched(words, error))?;
    }
    let mut agent = Agent {
        signals,
        metrics,
        command,
        capture,
        inbox,
        exporters,
        measured: clock::now(),
        lost: 0,
        suspects: Vec::new(),
        unseen: 0,
    };
    let result = agent.work();
    notify::tell("STOPPING=1");
    // Whatever it ends for: what was seen until then is told.
    let summary = agent.end();
    result.map(|()| summary)
}

/// Probes what is wide as well, unless its targets mind, which most do not.
fn go_up(functions: &mut Functions, capture: &Capture) -> Result<(), RunError> {
    while functions.goes_up() {
        capture.rouse()?;
        capture.wait(Until::Woken, [None], functions.until_next_step())?;
        let now = clock::now();
        functions.keep_to_budget(now)?;
        functions.go_up(now)?;
    }
    Ok(())
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

fn not_launched(command: &[OsString], source: io::Error) -> RunError {
    let program = command.first().map(|name| name.to_string_lossy().into_owned());
    RunError::Launch { program: program.unwrap_or_default(), source }
}
