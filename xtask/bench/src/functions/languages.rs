//! Whole spans of functions as compilers make them, with arguments and results of their languages' own
//! kinds, found, placed and read as the agent does it; over empty programs at the same places, and
//! beside bpftrace.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use remora::event::{self, Event};
use remora::function::FunctionNo;
use remora::function::pattern::{Called, Patterns};
use remora::function::plan::{self, Place, Planned};
use remora::function::value::Reader;
use remora::inspect::debug_file::Lookup;
use remora::inspect::runtime;
use remora::probe::Capture;
use remora::probe::function::empty::EmptyProgram;
use remora::probe::function::{FunctionProbes, Point};
use serde_json::{Map, Value, json};

use super::bpftrace::{self, Bpftrace, Ends};
use super::language::{LANGUAGES, Language, compile, compiled};
use super::samples::Samples;
use super::{BENCH, capture, load};
use crate::Settings;
use crate::callee::Callee;
use crate::report::{Report, Target, Unit};
use crate::servers::Scratch;
use crate::statistics::{median, order, spread};

/// Over empty programs on entry and return.
const SPAN_TARGET: f64 = 1.2;
/// Over what bpftrace adds.
const PEER_TARGET: f64 = 1.0;

/// Calls of a batch; its records fit into the ring.
const BATCH: u64 = 10_000;
const BATCHES: usize = 5;

/// What is attached meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Nothing,
    /// Once more, to see by how much two equal phases differ.
    NothingAgain,
    Empty,
    Span,
    Bpftrace(Ends),
}

impl Phase {
    const ALL: [Self; 6] = [
        Self::Nothing,
        Self::Empty,
        Self::Span,
        Self::Bpftrace(Ends::Replaced),
        Self::Bpftrace(Ends::Probed),
        Self::NothingAgain,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing attached",
            Self::NothingAgain => "nothing attached, again",
            Self::Empty => "floor: empty programs at the same places",
            Self::Span => "remora, a span with its arguments and result",
            Self::Bpftrace(Ends::Replaced) => "bpftrace, a record of the same by a uretprobe",
            Self::Bpftrace(Ends::Probed) => "bpftrace, a record of the same by uprobes at returns",
        }
    }
}

impl Language {
    fn takes(&self, phase: Phase) -> bool {
        self.takes_uretprobes || phase != Phase::Bpftrace(Ends::Replaced)
    }
}

/// A program in one of the languages.
struct Subject {
    language: &'static Language,
    /// Without symbols and debug information: see [`bpftrace::script`].
    file: PathBuf,
    callee: Callee,
    function: Planned,
    points: Vec<Point>,
    samples: Samples<Phase>,
    replaced: Peer,
    probed: Peer,
}

/// How bpftrace did.
#[derive(Default)]
struct Peer {
    calls: u64,
    lost: u64,
    /// Its last record.
    last: String,
    /// Why it cannot be measured.
    failed: Option<String>,
}

pub(super) fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    println!("functions: spans in Go, C++ and Rust");
    let scratch = Scratch::new("languages")?;
    let mut capture = capture()?;
    let mut subjects = Vec::new();
    for language in &LANGUAGES {
        match Subject::start(settings, language) {
            Ok(subject) => {
                capture.selection().select_functions(subject.callee.pid())?;
                subjects.push(subject);
            }
            Err(error) => {
                let what =
                    format!("{}: a span, over empty programs at the same places", language.name);
                let target = Target::Most(SPAN_TARGET);
                report.judge(BENCH, what, f64::NAN, Unit::Times, target, format!("{error:#}"));
            }
        }
    }
    let probes = load(&capture)?;
    let mut bench =
        Bench { quick: settings.quick, empty: EmptyProgram::load()?, capture, probes, scratch };
    let rounds = settings.rounds(9);
    for round in 0..rounds {
        println!("  round {} of {rounds}", round + 1);
        for subject in &mut subjects {
            for at in order(Phase::ALL.len(), round) {
                let phase = Phase::ALL.get(at).copied().unwrap_or(Phase::Nothing);
                if !subject.language.takes(phase) {
                    continue;
                }
                let batches = bench.phase(subject, phase);
                let what = || format!("{} in phase {phase:?}", subject.language.name);
                let batches = batches.with_context(what)?;
                subject.samples.push(round, phase, batches);
            }
        }
    }
    let mut raw = Map::new();
    for subject in &subjects {
        subject.report(report);
        raw.insert(subject.language.name.to_owned(), subject.json());
    }
    report.raw("functions of languages", Value::Object(raw));
    Ok(())
}

impl Subject {
    fn start(settings: &Settings, language: &'static Language) -> Result<Self> {
        let file = compiled(settings, language)?;
        let goroutines = runtime::go(&file).and_then(|go| go.goroutines);
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let place = Place {
            file: &file,
            called: Called { name: &name, other_names: &[], is_executable: true },
            lookup: Lookup::below(Path::new("/")),
            knows_goroutines: goroutines.is_some(),
        };
        let mut plan = plan::plan(&place, &Patterns::parse(&[language.pattern])?)?;
        let Some(function) = plan.functions.pop().filter(|_| plan.functions.is_empty()) else {
            bail!(
                "{} functions match {}; {:?}",
                plan.functions.len(),
                language.pattern,
                plan.refused
            );
        };
        let points = Point::all_of(&function, FunctionNo(0), goroutines).collect();
        let stripped = file.with_extension("stripped");
        compile(Command::new("strip").arg("-o").arg(&stripped).arg(&file))?;
        let callee = Callee::of(&mut Command::new(&stripped))?;
        let samples = Samples::new([Phase::Nothing, Phase::NothingAgain]);
        let (replaced, probed) = (Peer::default(), Peer::default());
        Ok(Self { language, file: stripped, callee, function, points, samples, replaced, probed })
    }

    fn report(&self, report: &mut Report) {
        let (name, samples) = (self.language.name, &self.samples);
        let note = format!("CPU time; two such phases differ by {:.1}", samples.noise());
        let what = format!("{name}: a call, nothing attached");
        report.tell(BENCH, what, median(samples.nothing()), Unit::Ns, note);
        let ends = [Ends::Replaced, Ends::Probed];
        let peers = ends.map(Phase::Bpftrace);
        let peers = peers.into_iter().filter(|phase| self.language.takes(*phase));
        for phase in [Phase::Empty, Phase::Span].into_iter().chain(peers.clone()) {
            let added = samples.added(phase);
            let note = match phase {
                Phase::Bpftrace(ends) => format!("{}; {}", spread(&added), self.peer(ends).note()),
                _ => spread(&added),
            };
            let what = format!("{name}: added by {}", phase.name());
            report.tell(BENCH, what, median(added), Unit::Ns, note);
        }
        for floor in std::iter::once(Phase::Empty).chain(peers) {
            let over = samples.over(Phase::Span, floor);
            let (target, what, note) = match floor {
                Phase::Bpftrace(ends) => {
                    let failed = self.peer(ends).failed.clone();
                    let note = failed.map(|failed| format!("not measurable: {failed}"));
                    (PEER_TARGET, ends.what(), note)
                }
                _ => (SPAN_TARGET, "empty programs at the same places", None),
            };
            let note = note.unwrap_or_else(|| spread(&over));
            let what = format!("{name}: a span with arguments and result, over {what}");
            report.judge(BENCH, what, median(over), Unit::Times, Target::Most(target), note);
        }
    }

    fn peer(&self, ends: Ends) -> &Peer {
        match ends {
            Ends::Replaced => &self.replaced,
            Ends::Probed => &self.probed,
        }
    }

    fn json(&self) -> Value {
        json!({
            "phases": self.samples.json(Phase::name),
            "bpftrace with a uretprobe": self.replaced.json(),
            "bpftrace with uprobes": self.probed.json(),
        })
    }
}

impl Peer {
    /// What it did.
    fn note(&self) -> String {
        let Self { calls, lost, failed, .. } = self;
        match failed {
            Some(failed) => failed.clone(),
            None => format!("its reader woken for each record; lost {lost} of {calls}"),
        }
    }

    fn json(&self) -> Value {
        let Self { calls, lost, last, failed } = self;
        json!({ "calls": calls, "lost": lost, "last": last, "failed": failed })
    }
}

struct Bench {
    quick: bool,
    empty: EmptyProgram,
    capture: Capture,
    probes: FunctionProbes,
    scratch: Scratch,
}

impl Bench {
    fn phase(&mut self, subject: &mut Subject, phase: Phase) -> Result<Vec<f64>> {
        let (file, pid) = (&subject.file, subject.callee.pid());
        match phase {
            Phase::Nothing | Phase::NothingAgain => {
                self.measure(&mut subject.callee, &mut |_, _| Ok(()))
            }
            Phase::Empty => {
                let offsets: Vec<u64> =
                    subject.points.iter().map(|point| point.site.offset.0).collect();
                let _attached = self.empty.attach(file, pid, &offsets)?;
                self.measure(&mut subject.callee, &mut |_, _| Ok(()))
            }
            Phase::Span => {
                let attached = self.probes.attach(file, Some(pid), &subject.points)?;
                ensure!(attached.refused.is_empty(), "refused: {:?}", attached.refused);
                let (entry, end) = (&subject.function.entry.reader, &subject.function.end.reader);
                let (Some(entry), Some(end)) = (entry, end) else {
                    bail!("nothing describes its arguments and result");
                };
                let language = subject.language;
                let batches = self.measure(&mut subject.callee, &mut |capture, calls| {
                    check(capture, calls, [entry, end], language)
                });
                // Gone before the next phase begins, which a thread of the agent's would not be.
                self.probes = load(&self.capture)?;
                batches
            }
            Phase::Bpftrace(ends) => self.bpftrace(subject, ends),
        }
    }

    /// A peer that cannot be measured is said to be such; the rest goes on.
    fn bpftrace(&mut self, subject: &mut Subject, ends: Ends) -> Result<Vec<f64>> {
        let Subject { file, callee, function, language, replaced, probed, .. } = subject;
        let peer = if ends == Ends::Replaced { replaced } else { probed };
        if peer.failed.is_some() {
            return Ok(Vec::new());
        }
        let script = bpftrace::script(file, function, &language.reads, ends);
        let mut running = match Bpftrace::start(self.scratch.path(), &script, callee) {
            Ok(running) => running,
            Err(error) => {
                peer.failed = Some(format!("{error:#}"));
                return Ok(Vec::new());
            }
        };
        let mut told = running.told();
        let batches = self.measure(callee, &mut |_, calls| {
            peer.calls += calls;
            peer.lost += running.lost_of(told, calls)?;
            told = running.told();
            Ok(())
        });
        peer.last.clone_from(&running.last);
        batches
    }

    /// A phase's batches; `after` is given each one's number of calls.
    fn measure(
        &mut self,
        callee: &mut Callee,
        after: &mut dyn FnMut(&mut Capture, u64) -> Result<()>,
    ) -> Result<Vec<f64>> {
        let (count, batches) = if self.quick { (BATCH / 10, 2) } else { (BATCH, BATCHES) };
        let mut each = Vec::new();
        // The first one finds caches cold.
        for number in 0..=batches {
            let ns = callee.batch(count)?;
            after(&mut self.capture, count)?;
            if number > 0 {
                each.push(ns);
            }
        }
        Ok(each)
    }
}

/// Checks that a batch of calls was told whole, and that its last one says what it should.
fn check(
    capture: &mut Capture,
    calls: u64,
    [entry, end]: [&Reader; 2],
    language: &Language,
) -> Result<()> {
    let mut told = 0;
    // The last two.
    let mut chunks = [Vec::new(), Vec::new()];
    let mut wrong = 0;
    capture.split().0.drain(usize::MAX, |record| match event::decode(record) {
        Ok((_, Event::Hit(hit))) => {
            told += 1;
            chunks.swap(0, 1);
            chunks[1].clear();
            chunks[1].extend_from_slice(hit.chunks);
        }
        _ => wrong += 1,
    });
    // A loss would be cheap.
    ensure!(told == 2 * calls && wrong == 0, "{told} hits of {calls} calls, {wrong} other records");
    let [first, last] = &chunks;
    let mut values = entry.read(first);
    values.extend(end.read(last));
    // Programs count their calls within a batch.
    let pieces = (calls - 1) & 1023;
    let price = (pieces * 3 + language.besides).to_string();
    for (name, text) in language.shown {
        let text = text.replace('N', &pieces.to_string()).replace('P', &price);
        let found = values.iter().find(|(known, _)| known.rsplit('.').next() == Some(name));
        let found = found.map(|(_, value)| value.to_string());
        ensure!(found.as_deref() == Some(&text), "{name} is told as {found:?}, not {text}");
    }
    Ok(())
}
