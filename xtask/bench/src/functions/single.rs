//! One function of which every instruction is known: what its probes cost, how long thousands of them
//! take to come and go, and what a process notices that runs the same file and is not traced.

use std::path::Path;
use std::time::Instant;

use agent_common::function::{Op, op, register};
use anyhow::{Context, Result, ensure};
use remora::function::FunctionNo;
use remora::function::site::{CostClass, Site, SiteKind};
use remora::inspect::address::{FileOffset, VirtAddr};
use remora::probe::Capture;
use remora::probe::function::empty::EmptyProgram;
use remora::probe::function::{FunctionProbes, Point, TaskSource};
use serde_json::{Value, json};

use super::samples::Samples;
use super::{BENCH, capture, load};
use crate::Settings;
use crate::callee::{self, Callee, MANY, Places};
use crate::report::{Report, Target, Unit};
use crate::statistics::{median, order, spread};

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
    let (address, offset) = (VirtAddr(0), FileOffset(offset));
    let site = Site { address, offset, kind, jumps_if: None, sp_adjust: 0, cost };
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

/// Its records fit into the ring.
const BATCH: u64 = 10_000;

struct Bench<'a> {
    settings: &'a Settings,
    places: Places,
    subject: Callee,
    other: Callee,
    empty: EmptyProgram,
    capture: Capture,
    probes: FunctionProbes,
}

struct Results {
    phases: Samples<Phase>,
    attach_ms: Vec<f64>,
    detach_ms: Vec<f64>,
}

pub(crate) fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    println!("functions: one call of a probed function");
    let mut capture = capture()?;
    let begun = Instant::now();
    let probes = load(&capture)?;
    let load_ms = begun.elapsed().as_secs_f64() * 1000.0;
    let subject = Callee::start()?;
    let other = Callee::start()?;
    for pid in [subject.pid(), other.pid()] {
        capture.selection().select_functions(pid)?;
    }
    let (places, empty) = (callee::places()?, EmptyProgram::load()?);
    let mut bench = Bench { settings, places, subject, other, empty, capture, probes };
    let rounds = settings.rounds(9);
    let nothing = [Phase::Nothing, Phase::NothingAgain];
    let mut results =
        Results { phases: Samples::new(nothing), attach_ms: Vec::new(), detach_ms: Vec::new() };
    for round in 0..rounds {
        println!("  round {} of {rounds}", round + 1);
        for at in order(Phase::ALL.len(), round) {
            let phase = Phase::ALL.get(at).copied().unwrap_or(Phase::Nothing);
            let batches = bench.phase(phase).with_context(|| format!("phase {phase:?}"))?;
            results.phases.push(round, phase, batches);
        }
        bench.come_and_go(&mut results)?;
    }
    let what = "loading the program and its maps";
    report.tell(BENCH, what, load_ms, Unit::Ms, "once, only if functions are asked for");
    results.report(report);
    report.raw(BENCH, results.json());
    Ok(())
}

impl Bench<'_> {
    fn phase(&mut self, phase: Phase) -> Result<Vec<f64>> {
        let (subject, Places { entry, end, .. }) = (self.subject.pid(), self.places);
        let file = Path::new(FILE);
        match phase {
            Phase::Nothing | Phase::NothingAgain => self.measure(0),
            Phase::EmptyEntry => {
                let _attached = self.empty.attach(file, subject, &[entry])?;
                self.measure(0)
            }
            Phase::EmptySpan => {
                let _attached = self.empty.attach(file, subject, &[entry, end])?;
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
    fn report(&self, report: &mut Report) {
        let note = format!("CPU time; two such phases differ by {:.1}", self.phases.noise());
        report.tell(
            BENCH,
            "a call, nothing attached",
            median(self.phases.nothing()),
            Unit::Ns,
            note,
        );
        for phase in Phase::ALL.into_iter().filter(|phase| !phase.is_nothing()) {
            let added = self.phases.added(phase);
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
            let over = self.phases.over(phase, floor);
            let note = spread(&over);
            report.judge(BENCH, what, median(over), Unit::Times, Target::Most(target), note);
        }
        let noise = self.phases.noise().max(1.0);
        let what = "added to a process that runs the same file and is not traced";
        let note = "target: what two untraced phases differ by";
        let added = median(self.phases.added(Phase::Other));
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
        json!({
            "phases": self.phases.json(Phase::name),
            "attach_ms": self.attach_ms,
            "detach_ms": self.detach_ms,
        })
    }
}
