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
    let scene = Scene { settings, remora, scratch: scratch.path(), watched };
    let rounds = settings.rounds(7);
    let [mut hot, mut broad, mut rare] = [(); 3].map(|()| Taken::default());
    for round in 0..rounds {
        println!("  round {} of {rounds}", round + 1);
        hot_function(&scene, &mut hot)?;
        busy_server(&scene, &mut broad)?;
        rare_function(&scene, &mut rare)?;
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

/// Who is measured, where, for how long.
struct Scene<'a> {
    settings: &'a Settings,
    remora: &'a Path,
    scratch: &'a Path,
    watched: Duration,
}

impl Scene<'_> {
    fn agent(&self, pids: &[u32], functions: &str) -> Result<Agent> {
        let file = self.scratch.join("spans").to_string_lossy().into_owned();
        let args = ["--stats", "--functions", functions, "--file", &file].map(str::to_owned);
        Agent::start(self.remora, pids, &args)
    }

    /// Work that goes on, until it is told to end, from before probes are there to the end of the time
    /// that is watched: what it gives, and the agent.
    fn beside<T: Send>(
        &self,
        (pids, functions): (&[u32], &str),
        work: impl FnOnce(&AtomicBool) -> Result<T> + Send,
    ) -> Result<(T, Agent)> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let work = scope.spawn(|| work(&over));
            let agent = self.agent(pids, functions);
            if let Ok(agent) = &agent {
                sys::rest(self.watched.saturating_sub(agent.ready_at().elapsed()));
            }
            over.store(true, Ordering::Relaxed);
            let given = work.join().unwrap_or_else(|_| bail!("the thread that works has panicked"));
            Ok((given?, agent?))
        })
    }
}

/// One function, called without a pause from before it is probed.
fn hot_function(scene: &Scene<'_>, taken: &mut Taken) -> Result<()> {
    let program = compiled(scene.settings, &CPP)?;
    let mut callee = Callee::of(&mut std::process::Command::new(program))?;
    let pid = callee.pid();
    let (batches, agent) = scene.beside((&[pid], CPP.pattern), |over| {
        let mut batches = Vec::new();
        while !over.load(Ordering::Relaxed) {
            batches.push(callee.batch(BATCH)?);
        }
        Ok(batches)
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
fn rare_function(scene: &Scene<'_>, taken: &mut Taken) -> Result<()> {
    /// Calls in a row, and how often.
    const ROW: u64 = 10;
    const EVERY: Duration = Duration::from_millis(10);
    let program = compiled(scene.settings, &CPP)?;
    let mut callee = Callee::of(&mut std::process::Command::new(program))?;
    let rows = |callee: &mut Callee| {
        let (begun, mut each) = (Instant::now(), Vec::new());
        while begun.elapsed() < scene.watched {
            each.push(callee.batch(ROW)? * ROW as f64);
            sys::rest(EVERY);
        }
        anyhow::Ok(each)
    };
    let plain = rows(&mut callee)?;
    let agent = scene.agent(&[callee.pid()], CPP.pattern)?;
    let probed = rows(&mut callee)?;
    let plain_ns = median(plain);
    taken.measured_ms.push(probed.iter().map(|ns| ns - plain_ns).sum::<f64>() / 1e6);
    taken.add(agent)
}

/// Every function that a server has, while it is asked as fast as it answers.
fn busy_server(scene: &Scene<'_>, taken: &mut Taken) -> Result<()> {
    let Scene { settings, scratch, .. } = *scene;
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
    let ((), agent) = scene.beside((&server.pids(), "*"), |over| {
        while !over.load(Ordering::Relaxed) {
            client.run(plan, &mut |_| Ok(()))?;
        }
        Ok(())
    })?;
    taken.add(agent)
}
