//! What `--max-overhead` keeps to, as it is by default: beside a function that does nothing but be called,
//! and with every function of a busy server probed at once.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::BENCH;
use super::language::{CPP, compiled};
use crate::Settings;
use crate::agent::Agent;
use crate::callee::Callee;
use crate::load::{Client, Pace, Plan};
use crate::report::{Report, Target, Unit};
use crate::servers::{self, Scratch, Workshop};
use crate::statistics::{median, spread};
use crate::sys;

/// Of one CPU, what the agent allows itself by default.
const BUDGET_PERCENT: f64 = 2.0;
/// Over how long, from when probes are there.
const WATCHED: Duration = Duration::from_secs(5);
/// Calls of a batch: long beside the clock, short beside what is watched.
const BATCH: u64 = 100_000;
/// Enough to keep the server busy, on the second CPU.
const CONNECTIONS: usize = 64;

/// What probes took of one CPU's time.
#[derive(Default)]
struct Taken {
    /// As its CPU time and the number of its calls say, where these are known.
    measured_ms: Vec<f64>,
    /// As the agent accounts for it.
    accounted_ms: Vec<f64>,
    /// Functions that were probed, and detached.
    functions: (u64, u64),
    /// Calls that became spans, and that were left out because the budget was used up.
    calls: Vec<(u64, u64)>,
}

pub(super) fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    println!("functions: budgets");
    let Some(remora) = settings.agent.as_deref() else { bail!("there is no agent to measure") };
    let watched = if settings.quick { WATCHED / 5 } else { WATCHED };
    let scratch = Scratch::new("budget")?;
    let rounds = settings.rounds(7);
    let [mut hot, mut broad, mut rare] = [(); 3].map(|()| Taken::default());
    for round in 0..rounds {
        println!("  round {} of {rounds}", round + 1);
        hot_function(settings, remora, scratch.path(), watched, &mut hot)?;
        busy_server(settings, remora, scratch.path(), watched, &mut broad)?;
        rare_function(settings, remora, scratch.path(), watched, &mut rare)?;
    }
    let percent = |ms: &[f64]| {
        let share = ms.iter().map(|ms| ms / watched.as_millis() as f64 * 100.0);
        share.collect::<Vec<f64>>()
    };
    let seconds = watched.as_secs();
    let target = Target::Most(BUDGET_PERCENT);
    let shares = percent(&hot.measured_ms);
    let what =
        format!("a hot function: its probes' share of {seconds} s, by the CPU time of calls");
    report.judge(BENCH, what, median(shares.clone()), Unit::Percent, target, spread(&shares));
    let shares = percent(&hot.accounted_ms);
    let what = "… and as the agent accounts for it";
    report.tell(BENCH, what, median(shares.clone()), Unit::Percent, spread(&shares));
    let shares = percent(&broad.accounted_ms);
    let (all, gone) = broad.functions;
    let what = format!("every function of a busy nginx: their probes' share of {seconds} s");
    let note =
        format!("as the agent accounts for it; {gone} of {all} detached; {}", spread(&shares));
    report.judge(BENCH, what, median(shares), Unit::Percent, target, note);
    let calls =
        |of: fn(&(u64, u64)) -> u64| median(broad.calls.iter().map(|calls| of(calls) as f64));
    let what = "… calls that became no spans, but cost all the same";
    let note = format!("{:.0} became spans, before and after", calls(|calls| calls.0));
    report.tell(BENCH, what, calls(|calls| calls.1), Unit::Count, note);
    let shares = percent(&rare.measured_ms);
    let what = format!("a function called now and then: its probes' share of {seconds} s");
    let note = format!("by the CPU time of its calls; {}", spread(&shares));
    report.judge(BENCH, what, median(shares), Unit::Percent, target, note);
    let shares = percent(&rare.accounted_ms);
    let what = "… and as the agent accounts for it";
    report.tell(BENCH, what, median(shares.clone()), Unit::Percent, spread(&shares));
    let [hot, broad, rare] = [hot, broad, rare].map(|taken| {
        json!({
            "measured_ms": taken.measured_ms,
            "accounted_ms": taken.accounted_ms,
            "functions": taken.functions.0,
            "detached": taken.functions.1,
            "calls": taken.calls,
        })
    });
    report.raw("budgets of functions", json!({ "hot": hot, "broad": broad, "rare": rare }));
    Ok(())
}

impl Taken {
    /// Ends the agent and adds what it says.
    fn add(&mut self, agent: Agent) -> Result<()> {
        let done = agent.stop()?;
        let count = |name: &str| {
            let mut words = done.line.split(' ');
            let word = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            let count = word.and_then(|word| word.parse::<u64>().ok());
            count.with_context(|| format!("no {name} in {:?}", done.line))
        };
        let accounted_ns = count("remora_function_probes_cpu_ns_total")?;
        // Nothing would be within any budget.
        ensure!(accounted_ns > 0, "no probe was hit: {}", done.line);
        self.accounted_ms.push(accounted_ns as f64 / 1e6);
        let gone = count("remora_functions_detached_total")?;
        self.functions = (count("remora_functions_probed")? + gone, gone);
        let left_out = count("remora_calls_suppressed_total")?;
        self.calls.push((count("remora_call_spans_total")?, left_out));
        Ok(())
    }
}

fn arguments(scratch: &Path, functions: &str) -> Vec<String> {
    let file = scratch.join("spans").to_string_lossy().into_owned();
    ["--stats", "--functions", functions, "--file", &file].map(str::to_owned).to_vec()
}

/// One function, called without a pause from before it is probed.
fn hot_function(
    settings: &Settings,
    remora: &Path,
    scratch: &Path,
    watched: Duration,
    taken: &mut Taken,
) -> Result<()> {
    let mut callee = Callee::of(&mut std::process::Command::new(compiled(settings, &CPP)?))?;
    let (pid, over) = (callee.pid(), AtomicBool::new(false));
    let calls = || {
        let mut batches = Vec::new();
        while !over.load(Ordering::Relaxed) {
            batches.push(callee.batch(BATCH)?);
        }
        anyhow::Ok(batches)
    };
    let (batches, agent) = std::thread::scope(|scope| {
        let calls = scope.spawn(calls);
        let agent = Agent::start(remora, &[pid], &arguments(scratch, CPP.pattern));
        if let Ok(agent) = &agent {
            sys::rest(watched.saturating_sub(agent.ready_at().elapsed()));
        }
        over.store(true, Ordering::Relaxed);
        let batches = calls.join().unwrap_or_else(|_| bail!("the thread that calls has panicked"));
        anyhow::Ok((batches?, agent?))
    })?;
    // Most batches have no hit, each of which costs as much as hundreds of calls: a batch that takes
    // twice as long as most has some, and the others differ by noise, of which there is much in seconds.
    let plain_ns = median(batches.iter().copied());
    let hit = batches.iter().filter(|ns| **ns > 2.0 * plain_ns);
    let taken_ns: f64 = hit.map(|ns| (ns - plain_ns) * BATCH as f64).sum();
    taken.measured_ms.push(taken_ns / 1e6);
    taken.add(agent)
}

/// One function that is called some times in a row and then rests, so that its probes' code is in no cache
/// when the next ones come. As many as the budget lets be, if each costs what it was measured to cost.
fn rare_function(
    settings: &Settings,
    remora: &Path,
    scratch: &Path,
    watched: Duration,
    taken: &mut Taken,
) -> Result<()> {
    /// Calls in a row, and how often.
    const ROW: u64 = 10;
    const EVERY: Duration = Duration::from_millis(10);
    let mut callee = Callee::of(&mut std::process::Command::new(compiled(settings, &CPP)?))?;
    let rows = |callee: &mut Callee| {
        let (begun, mut each) = (Instant::now(), Vec::new());
        while begun.elapsed() < watched {
            each.push(callee.batch(ROW)? * ROW as f64);
            sys::rest(EVERY);
        }
        anyhow::Ok(each)
    };
    let plain = rows(&mut callee)?;
    let agent = Agent::start(remora, &[callee.pid()], &arguments(scratch, CPP.pattern))?;
    let probed = rows(&mut callee)?;
    let plain_ns = median(plain);
    taken.measured_ms.push(probed.iter().map(|ns| ns - plain_ns).sum::<f64>() / 1e6);
    taken.add(agent)
}

/// Every function that a server has, while it is asked as fast as it answers.
fn busy_server(
    settings: &Settings,
    remora: &Path,
    scratch: &Path,
    watched: Duration,
    taken: &mut Taken,
) -> Result<()> {
    let workshop = Workshop { programs: &settings.programs, cache: &settings.cache, scratch };
    let server = servers::nginx_static(&workshop)?;
    let client = Client::probe(server.port)?;
    let plan = Plan {
        cpu: 1,
        connections: CONNECTIONS,
        pace: Pace::Closed,
        warm_up: Duration::ZERO,
        measured: Duration::from_millis(500),
    };
    let over = AtomicBool::new(false);
    let load = || {
        while !over.load(Ordering::Relaxed) {
            client.run(plan, &mut |_| Ok(()))?;
        }
        anyhow::Ok(())
    };
    let agent = std::thread::scope(|scope| {
        let load = scope.spawn(load);
        let agent = Agent::start(remora, &server.pids(), &arguments(scratch, "*"));
        if let Ok(agent) = &agent {
            sys::rest(watched.saturating_sub(agent.ready_at().elapsed()));
        }
        over.store(true, Ordering::Relaxed);
        let load = load.join().unwrap_or_else(|_| bail!("the thread with the load has panicked"));
        load.and(agent)
    })?;
    taken.add(agent)
}
