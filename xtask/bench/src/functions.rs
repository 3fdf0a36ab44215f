//! `functions`: what a call of a probed function costs more, beside empty programs at the same places;
//! how long thousands of probes take to come and go; and what a process notices that runs the same file
//! and is not traced.
//!
//! Phases alternate. In a round, a phase's figure is its fastest batch, the CPU time of one call; what is
//! reported is the median over rounds of the difference to the same round's phase with nothing attached.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use agent_common::function::{Op, op, register};
use anyhow::{Context, Result, ensure};
use remora::function::FunctionNo;
use remora::function::site::{CostClass, Site, SiteKind};
use remora::inspect::address::{FileOffset, VirtAddr};
use remora::probe::function::selftest::SelfTest;
use remora::probe::function::{FunctionProbes, Limits, Point, TaskSource};
use remora::probe::{Capture, Options};
use serde_json::{Value, json};

use crate::Settings;
use crate::callee::{self, Callee, MANY, Places};
use crate::report::{Report, Target, Unit};
use crate::statistics::{greatest, least, median, order, ratio, spread};
use crate::uprobe;

const BENCH: &str = "functions";
/// Over an empty program on the same instruction.
const ENTRY_TARGET: f64 = 1.25;
/// Over empty programs on entry and return.
const SPAN_TARGET: f64 = 1.45;
const ATTACH_MS: f64 = 100.0;
const DETACH_MS: f64 = 300.0;

/// What is attached meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Nothing,
    /// Once more, to see by how much two equal phases differ.
    NothingAgain,
    EmptyEntry,
    Entry,
    EmptySpan,
    /// Entry and return, nothing read.
    Span,
    /// Entry with four arguments, return with its value.
    SpanOfValues,
    /// As above, in another process of the same file.
    Other,
}

impl Phase {
    const ALL: [Self; 8] = [
        Self::Nothing,
        Self::EmptyEntry,
        Self::Entry,
        Self::Other,
        Self::EmptySpan,
        Self::Span,
        Self::SpanOfValues,
        Self::NothingAgain,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing attached",
            Self::NothingAgain => "nothing attached, again",
            Self::EmptyEntry => "floor: an empty program on the entry",
            Self::Entry => "remora, entry told",
            Self::EmptySpan => "floor: empty programs on entry and return",
            Self::Span => "remora, entry and return told",
            Self::SpanOfValues => {
                "remora, entry and return told with four arguments and the result"
            }
            Self::Other => "remora, another process of the same file is traced",
        }
    }

    fn is_nothing(self) -> bool {
        matches!(self, Self::Nothing | Self::NothingAgain)
    }
}

const FILE: &str = "/proc/self/exe";

/// An argument as a chunk.
fn value(chunk: i32, register: u8) -> [Op; 3] {
    let op = |code, a, b, imm| Op { code, a, b, imm };
    [op(op::CHUNK, 0, 0, chunk), op(op::REGISTER, register, 0, 0), op(op::PUT, 0, 8, 0)]
}

fn point(offset: u64, kind: SiteKind, ops: Vec<Op>, function: u32) -> Point {
    let cost = if kind == SiteKind::Entry { CostClass::Emulated } else { CostClass::Stepped };
    let site = Site { address: VirtAddr(0), offset: FileOffset(offset), kind, sp_adjust: 0, cost };
    let function = FunctionNo(function);
    Point { site, ops, function, semaphore: None, task: TaskSource::Thread }
}

fn points(phase: Phase, places: Places) -> Vec<Point> {
    let reads = matches!(phase, Phase::SpanOfValues | Phase::Other);
    let mut arguments = Vec::new();
    let mut result = Vec::new();
    if reads {
        for (chunk, register) in
            (0..).zip([register::RDI, register::RSI, register::RDX, register::RCX])
        {
            arguments.extend(value(chunk, register));
        }
        result.extend(value(0, register::RAX));
    }
    let mut points = vec![point(places.entry, SiteKind::Entry, arguments, 0)];
    if phase != Phase::Entry {
        points.push(point(places.end, SiteKind::Return, result, 0));
    }
    points
}

/// Records of a batch fit into the ring.
const RING_BYTES: u32 = 1 << 24;
const BATCH: u64 = 10_000;

struct Bench<'a> {
    settings: &'a Settings,
    places: Places,
    subject: Callee,
    other: Callee,
    empty: OwnedFd,
    capture: Capture,
    probes: FunctionProbes,
}

#[derive(Default)]
struct Results {
    /// Round, phase and its batches.
    phases: Vec<(usize, Phase, Vec<f64>)>,
    attach_ms: Vec<f64>,
    detach_ms: Vec<f64>,
}

pub(crate) fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    println!("functions: one call of a probed function");
    let options = Options {
        source: None,
        ring_bytes: RING_BYTES,
        processes_max: 64,
        payload_limit: 64,
        rules: false,
    };
    let mut capture = Capture::start(&options).context("cannot load the capture programs")?;
    let begun = Instant::now();
    let probes = load(&capture)?;
    let load_ms = begun.elapsed().as_secs_f64() * 1000.0;
    let subject = Callee::start()?;
    let other = Callee::start()?;
    for pid in [subject.pid(), other.pid()] {
        capture.selection().select_functions(pid)?;
    }
    let (places, empty) = (callee::places()?, uprobe::load_empty()?);
    let mut bench = Bench { settings, places, subject, other, empty, capture, probes };
    let rounds = settings.rounds(9);
    let mut results = Results::default();
    for round in 0..rounds {
        println!("  round {} of {rounds}", round + 1);
        for at in order(Phase::ALL.len(), round) {
            let phase = Phase::ALL.get(at).copied().unwrap_or(Phase::Nothing);
            let batches = bench.phase(phase).with_context(|| format!("phase {phase:?}"))?;
            results.phases.push((round, phase, batches));
        }
        bench.come_and_go(&mut results)?;
    }
    let what = "loading the program and its maps";
    report.tell(BENCH, what, load_ms, Unit::Ms, "once, only if functions are asked for");
    results.report(report);
    report.raw(BENCH, results.json());
    Ok(())
}

fn load(capture: &Capture) -> Result<FunctionProbes> {
    FunctionProbes::load(capture, Limits::default(), &SelfTest::ASSUMED)
        .context("cannot load the program of function probes")
}

impl Bench<'_> {
    fn phase(&mut self, phase: Phase) -> Result<Vec<f64>> {
        let (subject, Places { entry, end, .. }) = (self.subject.pid(), self.places);
        let file = Path::new(FILE);
        match phase {
            Phase::Nothing | Phase::NothingAgain => self.measure(0),
            Phase::EmptyEntry => {
                let _attached = uprobe::attach(&self.empty, file, subject, &[entry])?;
                self.measure(0)
            }
            Phase::EmptySpan => {
                let _attached = uprobe::attach(&self.empty, file, subject, &[entry, end])?;
                self.measure(0)
            }
            Phase::Entry | Phase::Span | Phase::SpanOfValues | Phase::Other => {
                let pid = if phase == Phase::Other { self.other.pid() } else { subject };
                let points = points(phase, self.places);
                let hits = if phase == Phase::Other { 0 } else { points.len() as u64 };
                let attached = self.probes.attach(file, Some(pid), &points)?;
                ensure!(attached.refused.is_empty(), "refused: {:?}", attached.refused);
                let batches = self.measure(hits);
                // Gone before the next phase begins, which a thread of the agent's would not be.
                self.probes = load(&self.capture)?;
                batches
            }
        }
    }

    /// A phase's batches, of which each call has so many hits.
    fn measure(&mut self, hits: u64) -> Result<Vec<f64>> {
        let (count, batches) = if self.settings.quick { (BATCH / 10, 3) } else { (BATCH, 10) };
        self.subject.batch(count)?;
        let mut each = Vec::new();
        self.drain();
        for _ in 0..batches {
            each.push(self.subject.batch(count)?);
            let told = self.drain();
            // A loss would be cheap.
            ensure!(told == hits * count, "{told} hits were told, not {}", hits * count);
        }
        Ok(each)
    }

    fn drain(&mut self) -> u64 {
        self.capture.split().0.drain(usize::MAX, |_| ()) as u64
    }

    /// Attaches to thousands of functions, entry and return, and detaches.
    fn come_and_go(&mut self, results: &mut Results) -> Result<()> {
        let places = (0..MANY).map(|number| self.places.many + 3 * number);
        let points: Vec<Point> = places
            .zip(0..)
            .flat_map(|(at, number)| {
                let entry = point(at, SiteKind::Entry, Vec::new(), number);
                [entry, point(at + 2, SiteKind::Return, Vec::new(), number)]
            })
            .collect();
        let mut probes = load(&self.capture)?;
        let begun = Instant::now();
        let attached = probes.attach(Path::new(FILE), Some(self.subject.pid()), &points)?;
        results.attach_ms.push(begun.elapsed().as_secs_f64() * 1000.0);
        ensure!(attached.refused.is_empty(), "refused: {:?}", attached.refused);
        let begun = Instant::now();
        drop(probes);
        results.detach_ms.push(begun.elapsed().as_secs_f64() * 1000.0);
        Ok(())
    }
}

impl Results {
    /// The fastest batch in each round of a phase.
    fn fastest(&self, phase: Phase) -> Vec<f64> {
        let phases = self.phases.iter().filter(|(_, of, _)| *of == phase);
        phases.map(|(.., batches)| least(batches.iter().copied())).collect()
    }

    /// A call with nothing attached, round by round: the mean of the two such phases.
    fn nothing(&self) -> Vec<f64> {
        let again = self.fastest(Phase::NothingAgain);
        self.fastest(Phase::Nothing).iter().zip(again).map(|(one, two)| (one + two) / 2.0).collect()
    }

    /// What a phase adds to a call, round by round.
    fn added(&self, phase: Phase) -> Vec<f64> {
        self.fastest(phase)
            .iter()
            .zip(self.nothing())
            .map(|(with, without)| with - without)
            .collect()
    }

    /// The most that two phases of a round differ with nothing attached: less cannot be measured.
    fn noise(&self) -> f64 {
        let again = self.fastest(Phase::NothingAgain);
        greatest(self.fastest(Phase::Nothing).iter().zip(again).map(|(one, two)| (one - two).abs()))
    }

    /// What a phase adds over what its floor adds, round by round.
    fn over(&self, phase: Phase, floor: Phase) -> Vec<f64> {
        let (added, floors) = (self.added(phase), self.added(floor));
        added.iter().zip(floors).map(|(added, floor)| ratio(*added, floor, 0.0)).collect()
    }

    fn report(&self, report: &mut Report) {
        let note = format!("CPU time; two such phases differ by {:.1}", self.noise());
        report.tell(BENCH, "a call, nothing attached", median(self.nothing()), Unit::Ns, note);
        for phase in Phase::ALL.into_iter().filter(|phase| !phase.is_nothing()) {
            let added = self.added(phase);
            let note = spread(&added);
            report.tell(BENCH, format!("added by {}", phase.name()), median(added), Unit::Ns, note);
        }
        for (phase, floor, target, what) in [
            (
                Phase::Entry,
                Phase::EmptyEntry,
                ENTRY_TARGET,
                "an entry told, over an empty program at the same place",
            ),
            (
                Phase::SpanOfValues,
                Phase::EmptySpan,
                SPAN_TARGET,
                "a span with four arguments and its result, over empty programs on entry and return",
            ),
        ] {
            let over = self.over(phase, floor);
            let note = spread(&over);
            report.judge(BENCH, what, median(over), Unit::Times, Target::Most(target), note);
        }
        let noise = self.noise().max(1.0);
        let what = "added to a process that runs the same file and is not traced";
        let note = "target: what two untraced phases differ by";
        let added = median(self.added(Phase::Other));
        report.judge(BENCH, what, added, Unit::Ns, Target::Most(noise), note);
        for (what, samples, target) in [
            ("attaching to 10,000 functions, entry and return", &self.attach_ms, ATTACH_MS),
            ("detaching from them", &self.detach_ms, DETACH_MS),
        ] {
            let value = median(samples.iter().copied());
            report.judge(BENCH, what, value, Unit::Ms, Target::Most(target), spread(samples));
        }
    }

    fn json(&self) -> Value {
        let phases = self.phases.iter().map(|(round, phase, batches)| {
            json!({ "round": round, "phase": phase.name(), "cpu_ns": batches })
        });
        json!({
            "phases": phases.collect::<Vec<_>>(),
            "attach_ms": self.attach_ms,
            "detach_ms": self.detach_ms,
        })
    }
}
