//! `scale`: what a request costs, and what the agent needs, as connections and traced processes
//! become many.
//!
//! The operations are the exerciser's (see `socket`), so that only the number differs. A
//! connection here is a socket that the agent follows: both ends of a pair are two. Sizes alternate
//! within a round; what is reported is the median over rounds.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::Settings;
use crate::agent::Agent;
use crate::exerciser::{Exerciser, Kind};
use crate::floor::{Floor, Variant};
use crate::report::{Report, Target, Unit};
use crate::sink::Sink;
use crate::statistics::{greatest, median, ratio};

const BENCH: &str = "scale";
/// Largest size over smallest.
const FLAT: f64 = 1.1;
/// Exchanges of one command, few, so that many processes take turns as they would.
const TURN: u64 = 20;
/// Spans of an exchange: both ends are in one process.
const SPANS: u64 = 2;

/// When nothing arrives for so long, nothing more will: a slow agent is a result, not a failure.
const SILENCE: Duration = Duration::from_secs(10);

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    Connections,
    Processes,
}

impl Axis {
    fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Processes => "processes",
        }
    }

    fn sizes(self, quick: bool) -> &'static [usize] {
        match (self, quick) {
            (Self::Connections, false) => &[10, 100, 1_000, 10_000],
            (Self::Connections, true) => &[10, 1_000],
            (Self::Processes, false) => &[1, 10, 100, 1_000],
            (Self::Processes, true) => &[1, 50],
        }
    }

    /// Most memory at the largest size.
    fn memory_mb(self) -> f64 {
        match self {
            Self::Connections => 120.0,
            Self::Processes => 80.0,
        }
    }
}

/// What one round says about one size.
struct Sample {
    size: usize,
    /// CPU time of an operation: untraced (before and after the others), with the floor, traced.
    untraced_ns: f64,
    floor_ns: f64,
    traced_ns: f64,
    /// Core-seconds of the agent for 10,000 requests.
    core_seconds: f64,
    memory_mb: f64,
    /// Spans that did not arrive, or losses that were counted.
    missing: u64,
}

pub(crate) fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    for axis in [Axis::Connections, Axis::Processes] {
        println!("scale: {}", axis.name());
        let samples = measure(settings, axis)?;
        tell(axis, &samples, report);
        let json = samples.iter().map(Sample::json).collect::<Value>();
        report.raw(&format!("{BENCH} {}", axis.name()), json);
    }
    Ok(())
}

fn measure(settings: &Settings, axis: Axis) -> Result<Vec<Sample>> {
    let object = settings.floors.as_deref().context("the floors were not built")?;
    let sink = Sink::start()?;
    let mut groups = Vec::new();
    for &size in axis.sizes(settings.quick) {
        let (processes, connections) = match axis {
            // The agent follows both ends.
            Axis::Connections => (1, size / 2),
            Axis::Processes => (size, 1),
        };
        let start = |_| Exerciser::start(settings.bytes, connections);
        let subjects = (0..processes).map(start).collect::<Result<Vec<_>>>()?;
        let mut floor = Floor::load(object, Variant::Event, 0)?;
        let pids: Vec<u32> = subjects.iter().map(Exerciser::pid).collect();
        floor.select(&pids)?;
        groups.push(Group {
            size,
            pairs: processes * connections,
            subjects,
            pids,
            floor,
            turns: settings.turns(),
        });
    }
    let rounds = settings.rounds(9);
    let mut samples = Vec::new();
    for round in 0..rounds {
        for group in &mut groups {
            samples.push(group.round(settings, &sink)?);
        }
        println!("  round {} of {rounds}", round + 1);
    }
    Ok(samples)
}

impl Settings {
    /// Turns of a phase, all subjects together.
    fn turns(&self) -> usize {
        if self.quick { 200 } else { 2_000 }
    }
}

/// Subjects of one size.
struct Group {
    size: usize,
    /// Connections of all subjects, both ends as one.
    pairs: usize,
    subjects: Vec<Exerciser>,
    pids: Vec<u32>,
    floor: Floor,
    turns: usize,
}

impl Group {
    fn round(&mut self, settings: &Settings, sink: &Sink) -> Result<Sample> {
        let Self { size, pairs, subjects, pids, floor, turns } = self;
        warm_up(subjects, *pairs)?;
        let before_ns = exercise(subjects, *turns)?;
        let attached = floor.attach()?;
        warm_up(subjects, *pairs)?;
        let floor_ns = exercise(subjects, *turns)?;
        attached.detach()?;
        sink.reset();
        let remora = settings.agent.as_deref().context("there is no agent")?;
        let mut args = vec!["--otlp".to_owned(), sink.url()];
        args.extend(settings.agent_args.iter().cloned());
        let agent = Agent::start(remora, pids, &args)?;
        // What the agent does only once is not counted, and what it has not yet done would be missed.
        let mut expected = warm_up(subjects, *pairs)? * SPANS;
        sink.wait_for(expected, SILENCE);
        let before = agent.usage()?;
        let traced_ns = exercise(subjects, *turns)?;
        let measured = *turns as u64 * TURN * SPANS;
        expected += measured;
        let arrived = sink.wait_for(expected, SILENCE);
        let spent = agent.usage()?.since(before);
        let memory_mb = agent.memory_mb()?.1;
        let done = agent.stop()?;
        let missing = expected.abs_diff(arrived).max(done.lost);
        let untraced_ns = (before_ns + exercise(subjects, *turns)?) / 2.0;
        let core_seconds = spent.cpu_ns as f64 / 1e9 / measured as f64 * 1e4;
        let size = *size;
        Ok(Sample { size, untraced_ns, floor_ns, traced_ns, core_seconds, memory_mb, missing })
    }
}

/// Every connection of every subject once; how many exchanges that are.
fn warm_up(subjects: &mut [Exerciser], pairs: usize) -> Result<u64> {
    let each = (pairs / subjects.len().max(1)) as u64;
    for subject in subjects.iter_mut() {
        subject.batch(Kind::Tcp, each)?;
    }
    Ok(each * subjects.len() as u64)
}

/// The CPU time of an operation, over so many turns.
fn exercise(subjects: &mut [Exerciser], turns: usize) -> Result<f64> {
    let mut samples = Vec::new();
    let count = subjects.len();
    for turn in 0..turns {
        let subject = subjects.get_mut(turn % count).context("there is a subject")?;
        samples.push(subject.batch(Kind::Tcp, TURN)?.cpu_ns());
    }
    Ok(median(samples))
}

fn tell(axis: Axis, samples: &[Sample], report: &mut Report) {
    let mut sizes: Vec<usize> = samples.iter().map(|sample| sample.size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let of = |size: usize, figure: fn(&Sample) -> f64| {
        median(samples.iter().filter(|sample| sample.size == size).map(figure))
    };
    let added: fn(&Sample) -> f64 = |sample| sample.traced_ns - sample.untraced_ns;
    let cpu: fn(&Sample) -> f64 = |sample| sample.core_seconds;
    let name = axis.name();
    for &size in &sizes {
        let note = format!(
            "untraced {:.0} ns, the floor adds {:.0}; the agent {:.4} core-s for 10,000 spans",
            of(size, |sample| sample.untraced_ns),
            of(size, |sample| sample.floor_ns - sample.untraced_ns),
            of(size, cpu),
        );
        let what = format!("{size} {name}: added to an operation");
        report.tell(BENCH, what, of(size, added), Unit::Ns, note);
    }
    let (Some(&least), Some(&most)) = (sizes.first(), sizes.last()) else { return };
    let floor = ratio(
        of(most, |sample| sample.floor_ns - sample.untraced_ns),
        of(least, |sample| sample.floor_ns - sample.untraced_ns),
        0.0,
    );
    for (figure, what, note) in [
        (added, "added to an operation", format!("the floor's grows {}", Unit::Times.write(floor))),
        (cpu, "the agent's CPU for a span", String::new()),
    ] {
        let times = ratio(of(most, figure), of(least, figure), 0.0);
        let what = format!("{most} {name} over {least}: {what}");
        report.judge(BENCH, what, times, Unit::Times, Target::Most(FLAT), note);
    }
    let missing: u64 = samples.iter().map(|sample| sample.missing).sum();
    let what = format!("{least} to {most} {name}: spans lost or uncounted");
    report.judge(BENCH, what, missing as f64, Unit::Count, Target::Most(0.0), "of all rounds");
    let memory = samples.iter().filter(|sample| sample.size == most);
    let memory = greatest(memory.map(|sample| sample.memory_mb));
    let what = format!("{most} {name}: the agent's memory at its most");
    report.judge(BENCH, what, memory, Unit::Mb, Target::Most(axis.memory_mb()), "resident");
}

impl Sample {
    fn json(&self) -> Value {
        json!({
            "size": self.size,
            "untraced_ns": self.untraced_ns,
            "floor_ns": self.floor_ns,
            "traced_ns": self.traced_ns,
            "core_seconds_per_10k_spans": self.core_seconds,
            "memory_mb": self.memory_mb,
            "missing": self.missing,
        })
    }
}
