//! `peers`: what other tracers cost, beside the agent, on the same servers in the same run.
//!
//! A round has, for every server, a phase untraced, one with the agent, one with each peer, and one
//! untraced again; every ratio is taken inside a round. A peer that is attached gets the very process
//! that the agent gets; one that lives inside a server has an instance of its own, which rests while
//! others are measured. The only target is that the agent costs less throughput than each of them.
//!
//! A peer that cannot be installed or started is reported with the reason, and the rest goes on.

mod attached;
mod inside;
mod table;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::Settings;
use crate::agent::Agent;
use crate::load::{Client, Pace};
use crate::measured::{self, Measured};
use crate::process::memory_mb;
use crate::report::Report;
use crate::servers::{KINDS, Kind, Scratch, Server, Workshop};
use crate::sink::Sink;
use crate::statistics::{median, order};

use attached::{Attached, Tool};

/// How long nothing more may come of an SDK before what is missing counts as dropped: its batches
/// leave every five seconds unless they are full.
const SILENCE: Duration = Duration::from_secs(6);

/// Another tracer.
struct Peer {
    /// What `--only` calls it.
    key: &'static str,
    /// What a table calls it.
    name: &'static str,
    /// The server, by its key.
    server: &'static str,
    way: Way,
}

/// Where a peer lives.
enum Way {
    /// In a process of its own, attached to the server's.
    Attached(&'static Tool),
    /// In the server.
    Inside(inside::Build),
}

/// Every peer.
const PEERS: [Peer; 7] = [
    Peer {
        key: "tcpdump",
        name: "tcpdump (packets, kept nowhere)",
        server: "nginx",
        way: Way::Attached(&attached::TCPDUMP),
    },
    Peer {
        key: "bpftrace",
        name: "bpftrace (a line a request)",
        server: "nginx",
        way: Way::Attached(&attached::BPFTRACE),
    },
    Peer {
        key: "strace",
        name: "strace (a line a system call)",
        server: "nginx",
        way: Way::Attached(&attached::STRACE),
    },
    Peer {
        key: "otel-go",
        name: "OpenTelemetry's SDK",
        server: "go",
        way: Way::Inside(inside::go),
    },
    Peer {
        key: "otel-node",
        name: "OpenTelemetry's SDK",
        server: "node",
        way: Way::Inside(inside::node),
    },
    Peer {
        key: "otel-java",
        name: "OpenTelemetry's Java agent",
        server: "java",
        way: Way::Inside(inside::java),
    },
    Peer {
        key: "otel-python",
        name: "OpenTelemetry's SDK",
        server: "python",
        way: Way::Inside(inside::python),
    },
];

impl Peer {
    fn is_wanted(&self, only: &[String]) -> bool {
        only.is_empty() || only.iter().any(|only| only == self.key || only == self.server)
    }
}

/// What is at work in a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing; the second one of a round tells the machine's own noise.
    Untraced,
    UntracedAgain,
    Remora,
    /// The peer at this place of its server's list.
    Peer(usize),
}

impl Phase {
    fn is_untraced(self) -> bool {
        matches!(self, Self::Untraced | Self::UntracedAgain)
    }
}

/// What one phase brought.
struct Sample {
    round: usize,
    phase: Phase,
    half_load: bool,
    /// Answers a second.
    rate: f64,
    /// Server CPU of a request.
    server_us: f64,
    p50_us: f64,
    p99_us: f64,
    tracer: Option<Tracer>,
}

/// What a tracer did in a phase.
struct Tracer {
    /// Core-seconds of its own process for 10,000 requests; none if it lives inside the server.
    core_seconds: Option<f64>,
    /// The most memory of its own process, or what the server has taken more than the plain one.
    memory_mb: f64,
    /// Spans, or what it has instead, for each request.
    spans: f64,
}

/// Everything about one server.
struct Results {
    kind: &'static Kind,
    names: Vec<&'static str>,
    samples: Vec<Sample>,
    /// Why a peer is missing.
    failed: Vec<Option<String>>,
}

pub(crate) fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let known = |only: &String| PEERS.iter().any(|peer| peer.is_wanted(std::slice::from_ref(only)));
    // Of `all` some servers have no peer.
    if settings.which == "peers"
        && let Some(name) = settings.only.iter().find(|only| !known(only))
    {
        bail!("no peer is called {name:?}");
    }
    let mut all = Vec::new();
    let mut raw = serde_json::Map::new();
    for kind in &KINDS {
        let wanted = |peer: &&Peer| peer.server == kind.key && peer.is_wanted(&settings.only);
        let peers: Vec<&'static Peer> = PEERS.iter().filter(wanted).collect();
        if peers.is_empty() {
            continue;
        }
        println!("peers: {}", kind.name);
        match measure(settings, kind, &peers) {
            Ok(results) => {
                table::judge(&results, report);
                raw.insert(kind.key.to_owned(), results.json());
                all.push(results);
            }
            Err(error) => {
                for peer in peers {
                    report.absent(format!("{}: {}", kind.name, peer.name), format!("{error:#}"));
                }
            }
        }
    }
    report.append(table::markdown(&all));
    report.raw("peers", Value::Object(raw));
    Ok(())
}

fn measure(settings: &Settings, kind: &'static Kind, peers: &[&'static Peer]) -> Result<Results> {
    let scratch = Scratch::new(&format!("peers-{}", kind.key))?;
    let workshop =
        Workshop { programs: &settings.programs, cache: &settings.cache, scratch: scratch.path() };
    let subject = Subject::start(kind.start(&workshop)?)?;
    measured::warm_up(settings, &subject.client)?;
    let mut failed = Vec::new();
    let mut instances = Vec::new();
    for peer in peers {
        let instance = match peer.way {
            Way::Attached(tool) => Ok(Instance::Attached(tool)),
            Way::Inside(build) => inside(settings, build, &workshop),
        };
        failed.push(instance.as_ref().err().map(|error| format!("{error:#}")));
        instances.push(instance.ok());
    }
    let bench = Bench {
        settings,
        scratch: &scratch,
        subject,
        sink: Sink::start()?,
        instances,
        results: Results {
            kind,
            names: peers.iter().map(|peer| peer.name).collect(),
            samples: Vec::new(),
            failed,
        },
    };
    bench.run()
}

/// A server to which requests are sent.
struct Subject {
    pids: Vec<u32>,
    client: Client,
    server: Server,
}

impl Subject {
    fn start(server: Server) -> Result<Self> {
        let client = Client::probe(server.port)?;
        Ok(Self { pids: server.pids(), client, server })
    }

    fn memory_mb(&self) -> Result<f64> {
        self.pids.iter().map(|pid| Ok(memory_mb(*pid)?.1)).sum()
    }
}

/// A peer that is there.
enum Instance {
    Attached(&'static Tool),
    /// A server of its own, and the backend to which it exports.
    Inside(Subject, Sink),
}

fn inside(settings: &Settings, build: inside::Build, at: &Workshop<'_>) -> Result<Instance> {
    let sink = Sink::start()?;
    let subject = Subject::start(inside::start(build, at, &sink.url())?)?;
    measured::warm_up(settings, &subject.client)?;
    let arrived = sink.wait_for(u64::MAX, SILENCE);
    ensure!(arrived > 0, "no span arrives");
    Ok(Instance::Inside(subject, sink))
}

struct Bench<'a> {
    settings: &'a Settings,
    scratch: &'a Scratch,
    subject: Subject,
    /// The agent's backend.
    sink: Sink,
    /// As the names in the results; none where a peer is missing.
    instances: Vec<Option<Instance>>,
    results: Results,
}

impl Bench<'_> {
    fn run(mut self) -> Result<Results> {
        let rounds = self.settings.rounds(5);
        self.rounds(rounds, Pace::Closed)?;
        let untraced = self.results.samples.iter().filter(|sample| sample.phase.is_untraced());
        let half = median(untraced.map(|sample| sample.rate)) / 2.0;
        self.rounds(rounds, Pace::Open(half))?;
        Ok(self.results)
    }

    fn rounds(&mut self, rounds: usize, pace: Pace) -> Result<()> {
        let mut phases = vec![Phase::Untraced, Phase::Remora];
        phases.extend((0..self.instances.len()).map(Phase::Peer));
        phases.push(Phase::UntracedAgain);
        for round in 0..rounds {
            for at in order(phases.len(), round) {
                let phase = phases.get(at).copied().unwrap_or(Phase::Untraced);
                self.phase(round, phase, pace)?;
            }
            println!("  round {} of {rounds}: {}", round + 1, self.results.told(round, pace));
        }
        Ok(())
    }

    fn phase(&mut self, round: usize, phase: Phase, pace: Pace) -> Result<()> {
        let done = match phase {
            Phase::Untraced | Phase::UntracedAgain => {
                self.load(&self.subject, pace, None).map(|load| (load, None))
            }
            Phase::Remora => self.remora(pace).map(|(load, tracer)| (load, Some(tracer))),
            Phase::Peer(place) => {
                let Some(instance) = self.instances.get(place).and_then(Option::as_ref) else {
                    return Ok(());
                };
                match self.peer(instance, pace) {
                    Ok((load, tracer)) => Ok((load, Some(tracer))),
                    // Its failure is not the others'.
                    Err(error) => {
                        self.instances[place] = None;
                        self.results.failed[place] = Some(format!("{error:#}"));
                        return Ok(());
                    }
                }
            }
        };
        let (load, tracer) = done.context(self.results.name(phase))?;
        self.results.samples.push(Sample {
            round,
            phase,
            half_load: matches!(pace, Pace::Open(_)),
            rate: load.rate(),
            server_us: load.server_us(),
            p50_us: load.latency_us(0.5),
            p99_us: load.latency_us(0.99),
            tracer,
        });
        Ok(())
    }

    fn load(&self, subject: &Subject, pace: Pace, tracer: Option<u32>) -> Result<Measured> {
        Measured::of(&subject.client, measured::plan(self.settings, pace), &subject.pids, tracer)
    }

    fn remora(&self, pace: Pace) -> Result<(Measured, Tracer)> {
        self.sink.reset();
        let remora = self.settings.agent.as_deref().context("there is no agent")?;
        let mut words = vec!["--otlp".to_owned(), self.sink.url()];
        words.extend(self.settings.agent_args.iter().cloned());
        let agent = Agent::start(remora, &self.subject.pids, &words)?;
        let load = self.load(&self.subject, pace, Some(agent.pid()))?;
        let memory_mb = agent.memory_mb()?.1;
        agent.stop()?;
        let spans = self.sink.reset().spans as f64 / load.outcome.sent as f64;
        let core_seconds = Some(load.tracer_core_seconds());
        Ok((load, Tracer { core_seconds, memory_mb, spans }))
    }

    fn peer(&self, instance: &Instance, pace: Pace) -> Result<(Measured, Tracer)> {
        match instance {
            Instance::Attached(tool) => {
                let (subject, scratch) = (&self.subject, self.scratch.path());
                let pid = subject.server.worker().context("the server has no process")?;
                let attached = Attached::start(tool, scratch, pid, subject.server.port)?;
                let load = self.load(subject, pace, Some(attached.pid()))?;
                let memory_mb = attached.memory_mb()?;
                let spans = attached.stop(load.outcome.sent)?;
                let core_seconds = Some(load.tracer_core_seconds());
                Ok((load, Tracer { core_seconds, memory_mb, spans }))
            }
            Instance::Inside(subject, sink) => {
                sink.reset();
                let load = self.load(subject, pace, None)?;
                let memory_mb = subject.memory_mb()? - self.subject.memory_mb()?;
                // What it still holds must not be sent while others are measured.
                sink.wait_for(load.outcome.sent, SILENCE);
                let spans = sink.reset().spans as f64 / load.outcome.sent as f64;
                Ok((load, Tracer { core_seconds: None, memory_mb, spans }))
            }
        }
    }
}

impl Results {
    fn name(&self, phase: Phase) -> &'static str {
        match phase {
            Phase::Untraced => "untraced",
            Phase::UntracedAgain => "untraced, again",
            Phase::Remora => "remora",
            Phase::Peer(place) => self.names.get(place).copied().unwrap_or_default(),
        }
    }

    /// A round in short, for whoever watches.
    fn told(&self, round: usize, pace: Pace) -> String {
        let half_load = matches!(pace, Pace::Open(_));
        let of = self.samples.iter().filter(|s| s.round == round && s.half_load == half_load);
        let told = of.map(|sample| {
            let name = self.name(sample.phase);
            if half_load {
                format!("{name} p50 {:.0} p99 {:.0} µs", sample.p50_us, sample.p99_us)
            } else {
                format!("{name} {:.0}/s {:.2} µs", sample.rate, sample.server_us)
            }
        });
        told.collect::<Vec<_>>().join(", ")
    }

    fn json(&self) -> Value {
        let samples = self.samples.iter().map(|sample| {
            let tracer = sample.tracer.as_ref().map(|tracer| {
                json!({
                    "core_seconds_per_10k_requests": tracer.core_seconds,
                    "memory_mb": tracer.memory_mb,
                    "spans_per_request": tracer.spans,
                })
            });
            json!({
                "round": sample.round,
                "phase": self.name(sample.phase),
                "half_load": sample.half_load,
                "rate": sample.rate,
                "server_us": sample.server_us,
                "p50_us": sample.p50_us,
                "p99_us": sample.p99_us,
                "tracer": tracer,
            })
        });
        json!({ "samples": samples.collect::<Vec<_>>(), "failed": self.failed })
    }
}
