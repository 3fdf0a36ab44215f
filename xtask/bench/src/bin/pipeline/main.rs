//! Measures the way from raw records to encoded spans, without a kernel and without a network: what
//! `cargo xtask bench pipeline` builds as the agent is built, runs and judges.
//!
//! Prints one JSON array. Judges nothing. The heap is counted in a round of its own, which is not
//! timed.
#![expect(unsafe_code, reason = "counts allocations, and reads this thread's CPU time")]

mod tape;
mod traffic;
mod writer;

use std::alloc::{GlobalAlloc, Layout, System};
use std::hash::{DefaultHasher, Hasher};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use remora::export::otlp::encode::{Encoded, message};
use remora::export::otlp::json;
use remora::pipeline::Pipeline;
use remora::span::model::Span;
use remora::span::tracker::Settings;
use serde_json::{Value, json};
use tape::Tape;
use traffic::Recording;

/// Spans of one request to a backend, as the exporters send them by default.
const REQUEST_SPANS: usize = 2048;

/// Spans that leave together: what a busy nginx does in 80 ms.
const DRAIN_SPANS: usize = 10_000;

/// The standard allocator, which counts while it is asked to.
struct Counting;

static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ALLOCATED_BYTES: AtomicU64 = AtomicU64::new(0);

impl Counting {
    fn count(bytes: usize) {
        if COUNTING.load(Ordering::Relaxed) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
            ALLOCATED_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }
}

// SAFETY: every call goes on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        Self::count(bytes);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, bytes) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

/// This thread's CPU time.
fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec, and every Linux has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// CPU time of one round, by stage.
#[derive(Default)]
struct Round {
    /// Decoding records and tracking exchanges.
    track_ns: u64,
    /// Making spans of the exchanges that are over.
    collect_ns: u64,
    /// OTLP's protobuf.
    encode_ns: u64,
    /// Freeing the spans.
    drop_ns: u64,
    /// Into requests, until those have arrived.
    hand_over_ns: u64,
    /// OTLP's JSON, for comparison.
    json_ns: u64,
    spans: u64,
    bytes: u64,
    /// Of every byte of OTLP's protobuf, in timed rounds.
    digest: u64,
}

impl Round {
    fn json(&self, floor_ns: u64) -> Value {
        json!({
            "track_ns": self.track_ns,
            "collect_ns": self.collect_ns,
            "encode_ns": self.encode_ns,
            "drop_ns": self.drop_ns,
            "hand_over_ns": self.hand_over_ns,
            "json_ns": self.json_ns,
            "floor_ns": floor_ns,
        })
    }
}

/// Tells what each stage took.
struct Stopwatch(u64);

impl Stopwatch {
    fn start() -> Self {
        Self(cpu_ns())
    }

    /// Adds the time since the last lap to `sum`.
    fn lap(&mut self, sum: &mut u64) {
        let now = cpu_ns();
        *sum += now - self.0;
        self.0 = now;
    }
}

/// Plays the whole tape once. A function of its own, so that a profile can be one of nothing else. Tells
/// more, which the agent would not do, if it is `told` to.
#[inline(never)]
fn play(tape: &Tape, told: bool) -> Round {
    let mut round = Round::default();
    let mut pipeline = Pipeline::new(Settings::default(), tape.seed());
    let mut spans: Vec<Span> = Vec::new();
    let mut batches: Vec<Encoded> = Vec::new();
    let (mut made, mut text) = (0, Vec::new());
    let mut watch = Stopwatch::start();
    for slice in tape.slices() {
        for step in slice.steps() {
            pipeline.step(&step, &mut spans);
        }
        watch.lap(&mut round.track_ns);
        pipeline.step(&slice.end(), &mut spans);
        watch.lap(&mut round.collect_ns);
        made += spans.len();
        round.spans += spans.len() as u64;
        if !spans.is_empty() {
            batches.push(Encoded::new(&spans));
        }
        watch.lap(&mut round.encode_ns);
        if told {
            text.clear();
            json::encode(&spans, &mut text);
            black_box(&text);
            watch.lap(&mut round.json_ns);
        }
        pipeline.reuse(&mut spans);
        watch.lap(&mut round.drop_ns);
        if made >= DRAIN_SPANS {
            made = 0;
            hand_over(std::mem::take(&mut batches), told, &mut round);
            watch = Stopwatch::start();
        }
    }
    hand_over(batches, told, &mut round);
    round
}

/// What the exporters do with the spans of one drain.
fn hand_over(batches: Vec<Encoded>, told: bool, round: &mut Round) {
    let mut digest = DefaultHasher::new();
    digest.write_u64(round.digest);
    let mut watch = Stopwatch::start();
    let mut parts = batches.iter().map(|batch| (batch, 0..batch.spans())).peekable();
    while parts.peek().is_some() {
        let (mut request, mut room) = (Vec::new(), REQUEST_SPANS);
        while let Some((batch, spans)) = parts.peek_mut().filter(|_| room > 0) {
            let middle = spans.end.min(spans.start + room);
            request.push((*batch, spans.start..middle));
            room -= middle - spans.start;
            spans.start = middle;
            if spans.start == spans.end {
                parts.next();
            }
        }
        let body = black_box(message(request));
        round.bytes += body.len() as u64;
        if told {
            watch.lap(&mut round.hand_over_ns);
            body.iter().for_each(|piece| digest.write(piece));
            watch = Stopwatch::start();
        }
    }
    drop(batches);
    watch.lap(&mut round.hand_over_ns);
    round.digest = digest.finish();
}

/// The least that anything must do: look at every record and copy it.
fn floor(tape: &Tape) -> u64 {
    let mut copy = Vec::with_capacity(1 << 16);
    let begun = cpu_ns();
    for slice in tape.slices() {
        for record in slice.records() {
            copy.clear();
            copy.extend_from_slice(record);
            black_box(&copy);
        }
    }
    cpu_ns() - begun
}

fn measure(name: &str, tape: &Tape, rounds: usize) -> Result<Value> {
    // The first round finds cold caches and an empty heap; it counts allocations instead.
    COUNTING.store(true, Ordering::Relaxed);
    let (before, before_bytes) =
        (ALLOCATIONS.load(Ordering::Relaxed), ALLOCATED_BYTES.load(Ordering::Relaxed));
    let first = play(tape, false);
    COUNTING.store(false, Ordering::Relaxed);
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    let allocated = ALLOCATED_BYTES.load(Ordering::Relaxed) - before_bytes;
    if first.spans == 0 {
        bail!("the records give no spans");
    }
    if let Some(expected) = tape.expected()
        && expected != first.spans
    {
        bail!("{expected} requests gave {} spans", first.spans);
    }
    let mut results = Vec::new();
    let mut digest = None;
    for _ in 0..rounds {
        let floor_ns = floor(tape);
        let round = play(tape, true);
        if round.spans != first.spans {
            bail!("a round gave {} spans, the first one {}", round.spans, first.spans);
        }
        if *digest.get_or_insert(round.digest) != round.digest {
            bail!("two rounds gave different bytes");
        }
        results.push(round.json(floor_ns));
    }
    Ok(json!({
        "traffic": name,
        "records": tape.count(),
        "record_bytes": tape.bytes(),
        "spans": first.spans,
        "otlp_bytes": first.bytes,
        "otlp_digest": digest.map(|digest| format!("{digest:016x}")),
        "allocations": allocations,
        "allocated_bytes": allocated,
        "rounds": results,
    }))
}

fn main() -> Result<()> {
    let mut rounds = 9;
    let mut requests = 100_000;
    let mut recording = None;
    let mut traffic = None;
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().with_context(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--rounds" => rounds = value.parse().context("--rounds")?,
            "--requests" => requests = value.parse().context("--requests")?,
            "--recording" => recording = Some(value),
            "--traffic" => traffic = Some(value),
            _ => bail!(
                "usage: pipeline [--rounds N] [--requests N] [--traffic NAME | --recording FILE]"
            ),
        }
    }
    let mut results = Vec::new();
    match recording {
        Some(path) => {
            let tape = Tape::read(&path)?;
            results.push(measure("recording", &tape, rounds)?);
        }
        None => {
            let is_meant = |name: &str| traffic.as_deref().is_none_or(|only| only == name);
            for recording in Recording::ALL.into_iter().filter(|one| is_meant(one.name())) {
                let tape = recording.make(requests);
                results.push(measure(recording.name(), &tape, rounds)?);
            }
        }
    }
    println!("{}", Value::Array(results));
    Ok(())
}
