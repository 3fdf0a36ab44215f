//! Measures the way from raw records to encoded spans, without a kernel and without a network: what
//! `cargo xtask bench pipeline` builds as the agent is built, runs and judges.
//!
//! Prints one JSON array. Judges nothing. The heap is counted in a round of its own, which is not
//! timed.
#![expect(unsafe_code, reason = "counts allocations, and reads this thread's CPU time")]

mod traffic;

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use remora::export::Batch;
use remora::export::otlp::{encode::Encoder, json};
use remora::pipeline::Pipeline;
use remora::span::model::Span;
use remora::span::tracker::Settings;
use serde_json::{Value, json};
use traffic::{Recording, Tape};

/// Spans of one request to a backend, as the exporters send them by default.
const REQUEST_SPANS: usize = 2048;

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
    /// Into what all destinations share.
    hand_over_ns: u64,
    /// OTLP's protobuf.
    encode_ns: u64,
    /// Freeing the spans.
    drop_ns: u64,
    /// OTLP's JSON, for comparison.
    json_ns: u64,
    spans: u64,
    bytes: u64,
}

impl Round {
    fn json(&self, floor_ns: u64) -> Value {
        json!({
            "track_ns": self.track_ns,
            "collect_ns": self.collect_ns,
            "hand_over_ns": self.hand_over_ns,
            "encode_ns": self.encode_ns,
            "drop_ns": self.drop_ns,
            "json_ns": self.json_ns,
            "floor_ns": floor_ns,
        })
    }
}

/// Adds what the stage took to `sum`.
fn timed<T>(sum: &mut u64, stage: impl FnOnce() -> T) -> T {
    let begun = cpu_ns();
    let result = stage();
    *sum += cpu_ns() - begun;
    result
}

/// Plays the whole tape once.
fn play(tape: &Tape, with_json: bool) -> Round {
    let mut round = Round::default();
    let mut pipeline = Pipeline::new(Settings::default(), tape.seed());
    let mut encoder = Encoder::default();
    let mut spans: Vec<Span> = Vec::new();
    let mut text = Vec::new();
    for drain in tape.drains() {
        timed(&mut round.track_ns, || {
            for step in drain.steps() {
                pipeline.step(&step, &mut spans);
            }
        });
        timed(&mut round.collect_ns, || pipeline.step(&drain.end(), &mut spans));
        let batch: Batch = timed(&mut round.hand_over_ns, || std::mem::take(&mut spans).into());
        round.spans += batch.len() as u64;
        timed(&mut round.encode_ns, || {
            for request in batch.chunks(REQUEST_SPANS) {
                round.bytes += black_box(encoder.encode(request)).len() as u64;
            }
        });
        if with_json {
            timed(&mut round.json_ns, || {
                for request in batch.chunks(REQUEST_SPANS) {
                    text.clear();
                    json::encode(request, &mut text);
                    black_box(&text);
                }
            });
        }
        timed(&mut round.drop_ns, || drop(batch));
    }
    round
}

/// The least that anything must do: look at every record and copy it.
fn floor(tape: &Tape) -> u64 {
    let mut copy = Vec::with_capacity(1 << 16);
    let mut ns = 0;
    timed(&mut ns, || {
        for drain in tape.drains() {
            for record in drain.records() {
                copy.clear();
                copy.extend_from_slice(record);
                black_box(&copy);
            }
        }
    });
    ns
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
    for _ in 0..rounds {
        let floor_ns = floor(tape);
        let round = play(tape, true);
        if round.spans != first.spans {
            bail!("a round gave {} spans, the first one {}", round.spans, first.spans);
        }
        results.push(round.json(floor_ns));
    }
    Ok(json!({
        "traffic": name,
        "records": tape.count(),
        "record_bytes": tape.bytes(),
        "spans": first.spans,
        "otlp_bytes": first.bytes,
        "allocations": allocations,
        "allocated_bytes": allocated,
        "rounds": results,
    }))
}

fn main() -> Result<()> {
    let mut rounds = 9;
    let mut requests = 100_000;
    let mut recording = None;
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().with_context(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--rounds" => rounds = value.parse().context("--rounds")?,
            "--requests" => requests = value.parse().context("--requests")?,
            "--recording" => recording = Some(value),
            _ => bail!("usage: pipeline [--rounds N] [--requests N] [--recording FILE]"),
        }
    }
    let mut results = Vec::new();
    match recording {
        Some(path) => {
            let tape = Tape::read(&path)?;
            results.push(measure("recording", &tape, rounds)?);
        }
        None => {
            for recording in Recording::ALL {
                let tape = recording.make(requests);
                results.push(measure(recording.name(), &tape, rounds)?);
            }
        }
    }
    println!("{}", Value::Array(results));
    Ok(())
}
