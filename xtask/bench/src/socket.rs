//! `socket`: what one operation on a loopback TCP connection costs more, traced and not traced,
//! beside the least that a program on the same hooks costs; and what other system calls notice.
//!
//! Phases alternate. In a round, a phase's figure is its fastest batch, the CPU time of one
//! operation; what is reported is the median over rounds of the difference to the same round's
//! phases with nothing attached. The floor's event always has 256 bytes; the agent's has 64 and the payload, so
//! that both are of one size with `--bytes 192`.

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::Settings;
use crate::agent::Agent;
use crate::exerciser::{Exerciser, Kind};
use crate::floor::{Floor, Variant};
use crate::report::{Report, Target, Unit};
use crate::sink::Sink;
use crate::statistics::{greatest, least, median, order, ratio};

const BENCH: &str = "socket";
/// Over the floor.
const TARGET: f64 = 1.3;

/// What is attached meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Nothing,
    /// Once more, to see by how much two equal phases differ.
    NothingAgain,
    Empty,
    Miss,
    Event,
    Exchange,
    Syscalls,
    /// The agent, which traces this process.
    Traced,
    /// The agent, which traces another process.
    Untraced,
}

impl Phase {
    const ALL: [Self; 9] = [
        Self::Nothing,
        Self::Empty,
        Self::Untraced,
        Self::Event,
        Self::Traced,
        Self::Exchange,
        Self::Miss,
        Self::Syscalls,
        Self::NothingAgain,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing attached",
            Self::NothingAgain => "nothing attached, again",
            Self::Empty => "floor: empty programs",
            Self::Miss => "floor: another process's traffic",
            Self::Event => "floor: 256-byte event, 192 of payload",
            Self::Exchange => "floor: one event per request",
            Self::Syscalls => "empty programs on every syscall",
            Self::Traced => "remora, traced",
            Self::Untraced => "remora, another process is traced",
        }
    }
}

const KINDS: [Kind; 5] = [Kind::Tcp, Kind::Unix, Kind::Getppid, Kind::Pipe, Kind::File];

/// A phase's batches, by kind: CPU time and wall time of an operation.
type Batches = Vec<(f64, f64)>;

struct Bench<'a> {
    settings: &'a Settings,
    subject: Exerciser,
    /// Traced instead of the subject.
    other: Exerciser,
    sink: Sink,
    empty: Floor,
    miss: Floor,
    event: Floor,
    exchange: Floor,
    syscalls: Floor,
}

pub(crate) fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    println!("socket: one operation on a socket");
    let bytes = settings.bytes;
    let subject = Exerciser::start(bytes, 1)?;
    let other = Exerciser::start(bytes, 1)?;
    let object = settings.floors.as_deref().context("the floors were not built")?;
    let load = |variant| Floor::load(object, variant, subject.pid());
    let mut bench = Bench {
        settings,
        sink: Sink::start()?,
        empty: load(Variant::Empty)?,
        miss: load(Variant::Miss)?,
        event: load(Variant::Event)?,
        exchange: load(Variant::Exchange)?,
        syscalls: load(Variant::Syscalls)?,
        subject,
        other,
    };
    bench.event.select(&[bench.subject.pid()])?;
    let rounds = settings.rounds(9);
    let mut results = Results::default();
    for round in 0..rounds {
        println!("  round {} of {rounds}", round + 1);
        for at in order(Phase::ALL.len(), round) {
            let phase = Phase::ALL.get(at).copied().unwrap_or(Phase::Nothing);
            let batches = bench.phase(phase).with_context(|| format!("phase {phase:?}"))?;
            results.phases.push((round, phase, batches));
        }
    }
    results.report(report, bytes);
    report.raw(BENCH, results.json());
    Ok(())
}

impl Bench<'_> {
    fn phase(&mut self, phase: Phase) -> Result<Vec<Batches>> {
        let quick = self.settings.quick;
        let subject = &mut self.subject;
        let floor = match phase {
            Phase::Nothing | Phase::NothingAgain => return measure(subject, quick),
            Phase::Traced | Phase::Untraced => return self.beside_agent(phase),
            Phase::Empty => &mut self.empty,
            Phase::Miss => &mut self.miss,
            Phase::Event => &mut self.event,
            Phase::Exchange => &mut self.exchange,
            Phase::Syscalls => &mut self.syscalls,
        };
        let attached = floor.attach()?;
        let batches = measure(subject, quick);
        let drained = attached.detach()?;
        let tells = matches!(phase, Phase::Event | Phase::Exchange);
        anyhow::ensure!((drained.events > 0) == tells, "the floor told {} events", drained.events);
        batches
    }

    fn beside_agent(&mut self, phase: Phase) -> Result<Vec<Batches>> {
        let pid = if phase == Phase::Traced { self.subject.pid() } else { self.other.pid() };
        let remora = self.settings.agent.as_deref().context("there is no agent")?;
        let mut args = vec!["--otlp".to_owned(), self.sink.url()];
        args.extend(self.settings.agent_args.iter().cloned());
        let agent = Agent::start(remora, &[pid], &args)?;
        let batches = measure(&mut self.subject, self.settings.quick);
        let done = agent.stop()?;
        // Without this, a broken capture would look cheap.
        let traced = phase == Phase::Traced;
        anyhow::ensure!((done.spans > 0) == traced, "the agent said {:?}", done.line);
        batches
    }
}

/// Batches of every kind.
fn measure(subject: &mut Exerciser, quick: bool) -> Result<Vec<Batches>> {
    // Short ones, so that some are spared by whatever else the machine does.
    let batches = if quick { 5 } else { 40 };
    let mut all = Vec::new();
    for kind in KINDS {
        let count = match kind {
            Kind::Tcp => 400,
            Kind::Unix => 600,
            Kind::Getppid => 10_000,
            Kind::Pipe | Kind::File => 2_000,
        };
        // The first one finds cold caches.
        subject.batch(kind, count)?;
        let mut each = Vec::new();
        for _ in 0..batches {
            let batch = subject.batch(kind, count)?;
            each.push((batch.cpu_ns(), batch.wall_ns()));
        }
        all.push(each);
    }
    Ok(all)
}

#[derive(Default)]
struct Results {
    phases: Vec<(usize, Phase, Vec<Batches>)>,
}

impl Results {
    /// The fastest batch of a kind in each round of a phase.
    fn fastest(&self, phase: Phase, kind: Kind) -> Vec<f64> {
        let place = KINDS.iter().position(|known| *known == kind).unwrap_or(0);
        let phases = self.phases.iter().filter(|(_, of, _)| *of == phase);
        let batches = phases.filter_map(|(_, _, kinds)| kinds.get(place));
        batches.map(|batches| least(batches.iter().map(|(cpu, _)| *cpu))).collect()
    }

    /// An operation with nothing attached, round by round: the mean of the two such phases.
    fn nothing(&self, kind: Kind) -> Vec<f64> {
        let first = self.fastest(Phase::Nothing, kind);
        let again = self.fastest(Phase::NothingAgain, kind);
        first.iter().zip(again).map(|(first, again)| (first + again) / 2.0).collect()
    }

    /// What a phase adds to an operation, round by round.
    fn added(&self, phase: Phase, kind: Kind) -> Vec<f64> {
        let phase = self.fastest(phase, kind);
        phase.iter().zip(self.nothing(kind)).map(|(with, without)| with - without).collect()
    }

    /// The most that the two phases of a round differ with nothing attached: less cannot be measured.
    fn noise(&self, kind: Kind) -> f64 {
        let first = self.fastest(Phase::Nothing, kind);
        let again = self.fastest(Phase::NothingAgain, kind);
        greatest(first.iter().zip(again).map(|(first, again)| (first - again).abs()))
    }

    /// As [`Results::added`], between the fastest batches of all rounds.
    fn added_at_best(&self, phase: Phase, kind: Kind) -> f64 {
        let nothing = [Phase::Nothing, Phase::NothingAgain].map(|phase| self.fastest(phase, kind));
        least(self.fastest(phase, kind)) - least(nothing.concat())
    }

    fn report(&self, report: &mut Report, bytes: usize) {
        let what = format!("TCP send or receive of {bytes} bytes, nothing attached");
        let note = format!("CPU time; two such phases differ by {:.0}", self.noise(Kind::Tcp));
        report.tell(BENCH, what, median(self.nothing(Kind::Tcp)), Unit::Ns, note);
        let nothing = [Phase::Nothing, Phase::NothingAgain];
        for phase in Phase::ALL.into_iter().filter(|phase| !nothing.contains(phase)) {
            let added = self.added(phase, Kind::Tcp);
            let unix = median(self.added(phase, Kind::Unix));
            let note = format!(
                "best over best {:.0}, rounds {:.0} to {:.0}; Unix socket {unix:+.0}",
                self.added_at_best(phase, Kind::Tcp),
                least(added.iter().copied()),
                greatest(added.iter().copied()),
            );
            report.tell(BENCH, format!("added by {}", phase.name()), median(added), Unit::Ns, note);
        }
        for (phase, floor, what) in [
            (Phase::Traced, Phase::Event, "traced, over the floor's 256-byte event"),
            (Phase::Untraced, Phase::Empty, "another process is traced, over empty programs"),
        ] {
            let times = ratio(
                median(self.added(phase, Kind::Tcp)),
                median(self.added(floor, Kind::Tcp)),
                0.0,
            );
            let at_best = ratio(
                self.added_at_best(phase, Kind::Tcp),
                self.added_at_best(floor, Kind::Tcp),
                0.0,
            );
            let note = format!("best over best {at_best:.2}");
            report.judge(BENCH, what, times, Unit::Times, Target::Most(TARGET), note);
        }
        for kind in [Kind::Getppid, Kind::Pipe, Kind::File] {
            let noise = self.noise(kind).max(1.0);
            let note = format!(
                "target: what two untraced phases differ by; empty programs on every syscall add {:.0}",
                median(self.added(Phase::Syscalls, kind))
            );
            let what = format!("added to {} of a traced process", kind.name());
            let added = median(self.added(Phase::Traced, kind));
            report.judge(BENCH, what, added, Unit::Ns, Target::Most(noise), note);
        }
    }

    fn json(&self) -> Value {
        let phases = self.phases.iter().map(|(round, phase, kinds)| {
            let mut object = Map::new();
            object.insert("round".to_owned(), json!(round));
            object.insert("phase".to_owned(), json!(phase.name()));
            for (kind, batches) in KINDS.iter().zip(kinds) {
                object.insert(format!("{}_cpu_and_wall_ns", kind.name()), json!(batches));
            }
            Value::Object(object)
        });
        phases.collect()
    }
}
