//! `overhead`: real servers under load with and without the agent, beside a floor: programs on the
//! same hooks that emit as much and know no protocol.
//!
//! Phases of one round follow each other closely, so that what the machine does otherwise hits all
//! alike; every ratio is taken inside a round, and the median over rounds is reported. The agent
//! exports a span for every request to a backend in this process, and every request is accounted
//! for.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::Settings;
use crate::agent::{Agent, Done};
use crate::floor::{Floor, Variant};
use crate::load::{Client, Pace};
use crate::measured::{self, Measured};
use crate::report::Report;
use crate::servers::{KINDS, Kind, Scratch, Server, Workshop};
use crate::sink::{Counts, Sink};
use crate::statistics::{median, order};
use crate::{sys, verdicts};

/// What is attached meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Untraced,
    /// Untraced once more: the two differ by what the machine does otherwise.
    Control,
    /// A 256-byte event for every operation.
    Floor,
    Traced,
    /// Floors for explanation, with `--floors`.
    Other(Variant),
}

impl Phase {
    /// Whether nothing is attached.
    pub(crate) fn is_untraced(self) -> bool {
        matches!(self, Self::Untraced | Self::Control)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Untraced => "untraced",
            Self::Control => "untraced, again",
            Self::Floor | Self::Other(Variant::Event) => "floor: event per operation",
            Self::Traced => "remora",
            Self::Other(Variant::Empty) => "floor: empty programs",
            Self::Other(Variant::Miss) => "floor: another process's traffic",
            Self::Other(Variant::Exchange) => "floor: one event per request",
            Self::Other(Variant::Syscalls) => "floor: empty programs on every syscall",
        }
    }
}

/// What one phase brought.
pub(crate) struct Sample {
    pub(crate) round: usize,
    pub(crate) phase: Phase,
    /// Whether it was an open loop at half of the untraced rate.
    pub(crate) half_load: bool,
    /// Answers a second.
    pub(crate) rate: f64,
    /// Server CPU of a request.
    pub(crate) server_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Of one core, in the measured time.
    pub(crate) generator_share: f64,
    pub(crate) traced: Option<Traced>,
}

/// What the agent did in a phase.
pub(crate) struct Traced {
    /// Core-seconds of 10,000 spans.
    pub(crate) core_seconds: f64,
    /// Wake-ups a second.
    pub(crate) wake_ups: f64,
    /// Most memory.
    pub(crate) memory_mb: f64,
    /// Requests in the whole phase.
    pub(crate) sent: u64,
    pub(crate) done: Done,
    pub(crate) sink: Counts,
}

/// Everything about one server.
pub(crate) struct Results {
    pub(crate) kind: &'static Kind,
    pub(crate) samples: Vec<Sample>,
    /// The agent's wake-ups a second and memory while nothing happens, once.
    pub(crate) idle: Option<(f64, f64)>,
}

pub(crate) fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    if let Some(name) = settings.only.iter().find(|name| KINDS.iter().all(|k| k.key != **name)) {
        anyhow::bail!("no server is called {name:?}");
    }
    let mut raw = serde_json::Map::new();
    for kind in &KINDS {
        if !settings.only.is_empty() && !settings.only.iter().any(|only| only == kind.key) {
            continue;
        }
        println!("overhead: {}", kind.name);
        let scratch = Scratch::new(kind.key)?;
        let workshop = Workshop {
            programs: &settings.programs,
            cache: &settings.cache,
            scratch: scratch.path(),
        };
        let server = match kind.start(&workshop) {
            Ok(server) => server,
            Err(error) => {
                println!("skipped: {} {error:#}", kind.name);
                continue;
            }
        };
        let results = Bench::new(settings, kind, &server)?.run()?;
        verdicts::judge(&results, report);
        raw.insert(kind.key.to_owned(), results.json());
    }
    report.raw("overhead", Value::Object(raw));
    Ok(())
}

struct Bench<'a> {
    settings: &'a Settings,
    kind: &'static Kind,
    pids: Vec<u32>,
    client: Client,
    sink: Sink,
    floors: Vec<(Phase, Floor)>,
    samples: Vec<Sample>,
}

impl<'a> Bench<'a> {
    fn new(settings: &'a Settings, kind: &'static Kind, server: &Server) -> Result<Self> {
        let object = settings.floors.as_deref().context("the floors were not built")?;
        let pids = server.pids();
        let worker = server.worker().context("the server has no process")?;
        let mut floors = Vec::new();
        let mut add = |phase, variant| {
            let mut floor = Floor::load(object, variant, worker)?;
            if variant == Variant::Event {
                floor.select(&pids)?;
            }
            floors.push((phase, floor));
            Ok::<(), anyhow::Error>(())
        };
        add(Phase::Floor, Variant::Event)?;
        if settings.all_floors {
            for variant in [Variant::Empty, Variant::Miss, Variant::Syscalls] {
                add(Phase::Other(variant), variant)?;
            }
            // It knows one process only.
            if kind.spans == 1 {
                add(Phase::Other(Variant::Exchange), Variant::Exchange)?;
            }
        }
        let sink = Sink::start()?;
        // A chain has parents to look at; elsewhere that would only cost.
        sink.look_at_parents(kind.spans > 1);
        let client = Client::probe(server.port)?;
        Ok(Self { settings, kind, pids, client, sink, floors, samples: Vec::new() })
    }

    fn run(mut self) -> Result<Results> {
        let rounds = self.settings.rounds(7);
        let mut all = vec![Phase::Untraced, Phase::Traced];
        all.extend(self.floors.iter().map(|(phase, _)| *phase));
        all.push(Phase::Control);
        measured::warm_up(self.settings, &self.client)?;
        for round in 0..rounds {
            for at in order(all.len(), round) {
                let phase = all.get(at).copied().unwrap_or(Phase::Untraced);
                self.phase(round, phase, Pace::Closed)?;
            }
            println!("  saturation, round {} of {rounds}: {}", round + 1, self.told(round, false));
        }
        let untraced = self.samples.iter().filter(|sample| sample.phase.is_untraced());
        let half = median(untraced.map(|sample| sample.rate)) / 2.0;
        let judged = [Phase::Untraced, Phase::Traced, Phase::Floor, Phase::Control];
        for round in 0..rounds {
            for at in order(judged.len(), round) {
                let phase = judged.get(at).copied().unwrap_or(Phase::Untraced);
                self.phase(round, phase, Pace::Open(half))?;
            }
            println!("  half load, round {} of {rounds}: {}", round + 1, self.told(round, true));
        }
        let idle = if self.kind.key == "nginx" { Some(self.idle()?) } else { None };
        Ok(Results { kind: self.kind, samples: self.samples, idle })
    }

    fn phase(&mut self, round: usize, phase: Phase, pace: Pace) -> Result<()> {
        let sample = match phase {
            Phase::Untraced | Phase::Control => {
                self.load(pace, None).map(|load| Sample::of(&load, phase, pace, None))
            }
            Phase::Traced => self.traced(pace),
            Phase::Floor | Phase::Other(_) => self.floor(phase, pace),
        };
        let mut sample = sample.with_context(|| format!("{}, {}", self.kind.name, phase.name()))?;
        sample.round = round;
        self.samples.push(sample);
        Ok(())
    }

    fn floor(&mut self, phase: Phase, pace: Pace) -> Result<Sample> {
        let place = self.floors.iter().position(|(of, _)| *of == phase);
        let (_, mut floor) = self.floors.swap_remove(place.context("was loaded before")?);
        let attached = floor.attach()?;
        let loaded = self.load(pace, None);
        let drained = attached.detach()?;
        self.floors.push((phase, floor));
        let tells = matches!(phase, Phase::Floor | Phase::Other(Variant::Exchange));
        anyhow::ensure!((drained.events > 0) == tells, "the floor told {} events", drained.events);
        Ok(Sample::of(&loaded?, phase, pace, None))
    }

    fn agent(&self) -> Result<Agent> {
        let remora = self.settings.agent.as_deref().context("there is no agent")?;
        let mut args = vec!["--otlp".to_owned(), self.sink.url()];
        args.extend(self.settings.agent_args.iter().cloned());
        Agent::start(remora, &self.pids, &args)
    }

    fn traced(&mut self, pace: Pace) -> Result<Sample> {
        self.sink.reset();
        let agent = self.agent()?;
        let load = self.load(pace, Some(&agent))?;
        let memory_mb = agent.memory_mb()?.1;
        let done = agent.stop()?;
        let traced = Traced {
            core_seconds: load.tracer_core_seconds() / self.kind.spans as f64,
            wake_ups: load.tracer.sleeps as f64 / load.outcome.seconds,
            memory_mb,
            sent: load.outcome.sent,
            done,
            sink: self.sink.reset(),
        };
        Ok(Sample::of(&load, Phase::Traced, pace, Some(traced)))
    }

    fn load(&self, pace: Pace, agent: Option<&Agent>) -> Result<Measured> {
        let plan = measured::plan(self.settings, pace);
        Measured::of(&self.client, plan, &self.pids, agent.map(Agent::pid))
    }

    /// The agent, while nothing happens that it traces: wake-ups a second and memory.
    fn idle(&self) -> Result<(f64, f64)> {
        self.sink.reset();
        let agent = self.agent()?;
        self.load(Pace::Closed, None)?;
        let (settle, rest) = if self.settings.quick { (1.0, 1.0) } else { (3.0, 10.0) };
        sys::rest(Duration::from_secs_f64(settle));
        let before = agent.usage()?;
        sys::rest(Duration::from_secs_f64(rest));
        let sleeps = agent.usage()?.since(before).sleeps;
        let (memory_mb, _) = agent.memory_mb()?;
        agent.stop()?;
        Ok((sleeps as f64 / rest, memory_mb))
    }

    /// A round in short, for whoever watches.
    fn told(&self, round: usize, half_load: bool) -> String {
        let of = self.samples.iter().filter(|s| s.round == round && s.half_load == half_load);
        let told = of.map(|sample| {
            let name = sample.phase.name();
            if half_load {
                format!("{name} p50 {:.0} p99 {:.0} µs", sample.p50_us, sample.p99_us)
            } else {
                format!("{name} {:.0}/s {:.2} µs", sample.rate, sample.server_us)
            }
        });
        told.collect::<Vec<_>>().join(", ")
    }
}

impl Sample {
    fn of(load: &Measured, phase: Phase, pace: Pace, traced: Option<Traced>) -> Self {
        Self {
            round: 0,
            phase,
            half_load: matches!(pace, Pace::Open(_)),
            rate: load.rate(),
            server_us: load.server_us(),
            p50_us: load.latency_us(0.5),
            p99_us: load.latency_us(0.99),
            generator_share: load.generator_share(),
            traced,
        }
    }
}

impl Results {
    fn json(&self) -> Value {
        let samples = self.samples.iter().map(|sample| {
            let traced = sample.traced.as_ref().map(|traced| {
                json!({
                    "core_seconds_per_10k_spans": traced.core_seconds,
                    "wake_ups_per_second": traced.wake_ups,
                    "memory_mb": traced.memory_mb,
                    "sent": traced.sent,
                    "done": traced.done.line,
                    "sink_spans": traced.sink.spans,
                    "sink_bytes": traced.sink.bytes,
                    "sink_requests": traced.sink.requests,
                    "roots": traced.sink.roots,
                    "exact": traced.sink.exact,
                    "inferred": traced.sink.inferred,
                })
            });
            json!({
                "round": sample.round,
                "phase": sample.phase.name(),
                "half_load": sample.half_load,
                "rate": sample.rate,
                "server_us": sample.server_us,
                "p50_us": sample.p50_us,
                "p99_us": sample.p99_us,
                "generator_share": sample.generator_share,
                "agent": traced,
            })
        });
        json!({ "samples": samples.collect::<Vec<_>>(), "idle": self.idle })
    }
}
