//! `soak`: an agent beside a server under a steady load while short processes come and go, for as
//! long as is asked. What must not grow is looked at all the time, and what must be gone at the end
//! is waited for. Started by `cargo xtask soak`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::agent::{Agent, Done};
use crate::load::{Client, Outcome, Pace, Plan};
use crate::servers::{self, Scratch, Workshop};
use crate::sink::Sink;
use crate::statistics::mean;
use crate::sys;

/// Kept-alive connections of the load.
const CONNECTIONS: usize = 32;
/// The program that comes and goes, as `--exe` knows it.
const VISITOR: &str = "remora-soak-visitor";
/// What the last third of the samples may add to the first, in memory.
const GROWTH: f64 = 1.05;
/// The same in descriptors: a connection to the backend may just be made anew.
const DESCRIPTORS: usize = 2;
/// How long what is remembered may take to be forgotten.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `cargo xtask soak` hands over.
#[derive(Deserialize)]
pub(crate) struct Settings {
    minutes: f64,
    /// Requests a second.
    rate: f64,
    /// Short processes a second.
    processes: f64,
    agent: PathBuf,
}

/// What is looked at.
#[derive(Clone, Copy, Debug)]
struct Sample {
    seconds: f64,
    memory_mb: f64,
    descriptors: usize,
    /// Processes that are traced; those that the kernel half remembers.
    processes: u64,
    selected: u64,
    sockets: u64,
    exchanges: u64,
    spans: u64,
    /// Losses that were counted; records that are known to be missing.
    lost: u64,
    missing: u64,
}

/// Runs it; fails if anything drifts.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    let scratch = Scratch::new("soak")?;
    let visitor = scratch.path().join(VISITOR);
    let me = std::env::current_exe().context("cannot find this program")?;
    std::fs::copy(me, &visitor).context("cannot copy the visitor")?;
    let workshop =
        Workshop { programs: scratch.path(), cache: scratch.path(), scratch: scratch.path() };
    let server = servers::nginx_static(&workshop).context("cannot start nginx")?;
    let client = Client::probe(server.port)?;
    let sink = Sink::start()?;
    let metrics = servers::free_port()?;
    let args = ["--exe", &format!("*/{VISITOR}"), "--otlp", &sink.url(), "--metrics"];
    let mut args = args.map(str::to_owned).to_vec();
    args.push(format!("127.0.0.1:{metrics}"));
    let agent = Agent::start(&settings.agent, &server.pids(), &args)?;
    let watch = Watch { agent: &agent, metrics, began: Instant::now() };
    let base = watch.sample()?;
    println!("{}", Sample::HEAD);
    println!("{base}");
    let (samples, sent, visits) = load(settings, &client, &watch, (&visitor, server.port))?;
    let last = watch.forgets(&base);
    let done = agent.stop()?;
    println!("{sent} requests and {visits} processes; {}", done.line);
    let arrived = sink.reset().spans;
    let mut wrong = drift(&samples);
    wrong.extend(last.err().map(|error| format!("{error:#}")));
    // Each visitor has the client's span besides the server's.
    wrong.extend(uncounted(sent + 2 * visits, &done));
    if arrived != done.exported {
        wrong.push(format!("{arrived} spans arrived, {} are said to", done.exported));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    println!("nothing drifts, nothing is left, nothing is missing");
    Ok(())
}

/// Loads the server for the whole time and takes samples meanwhile; with them, how many requests were
/// sent and how many visitors were there.
fn load(
    settings: &Settings,
    client: &Client,
    watch: &Watch<'_>,
    visitor: (&Path, u16),
) -> Result<(Vec<Sample>, u64, u64)> {
    let measured = Duration::from_secs_f64(settings.minutes * 60.0);
    let pace = Pace::Open(settings.rate);
    let warm_up = Duration::ZERO;
    let plan = Plan { cpu: 1, connections: CONNECTIONS, pace, warm_up, measured };
    let period = (measured / 12).clamp(Duration::from_secs(1), Duration::from_secs(60));
    let over = AtomicBool::new(false);
    let visits = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let requests = scope.spawn(|| {
            let outcome = client.run(plan, &mut |_| Ok(()));
            over.store(true, Ordering::Relaxed);
            outcome
        });
        let coming = scope.spawn(|| come(settings.processes, visitor, &over, &visits));
        let mut samples = Vec::new();
        let mut due = Instant::now() + period;
        while !over.load(Ordering::Relaxed) {
            sys::rest(Duration::from_millis(50));
            if Instant::now() < due {
                continue;
            }
            due += period;
            let sample = watch.sample();
            // Whoever is not waited for would go on for minutes.
            let Ok(sample) = sample.inspect_err(|_| over.store(true, Ordering::Relaxed)) else {
                break;
            };
            println!("{sample}");
            samples.push(sample);
        }
        let outcome: Outcome =
            requests.join().unwrap_or_else(|_| bail!("the load has panicked"))?;
        coming.join().unwrap_or_else(|_| bail!("whoever starts processes has panicked"))?;
        Ok((samples, outcome.sent, visits.load(Ordering::Relaxed)))
    })
}

/// Has visitors come at a steady rate, one at a time, until it is over.
fn come(
    rate: f64,
    (visitor, port): (&Path, u16),
    over: &AtomicBool,
    visits: &AtomicU64,
) -> Result<()> {
    let began = Instant::now();
    while !over.load(Ordering::Relaxed) {
        let mut command = Command::new(visitor);
        command.arg("visitor").arg(port.to_string()).stdin(Stdio::null());
        let status = command.status().context("cannot start a visitor");
        let status = status.inspect_err(|_| over.store(true, Ordering::Relaxed))?;
        ensure!(status.success(), "a visitor ended with {status}");
        let count = visits.fetch_add(1, Ordering::Relaxed) + 1;
        let next = began + Duration::from_secs_f64(count as f64 / rate);
        sys::rest(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// What a visitor does: one request on one connection.
pub(crate) fn visit(port: &str) -> Result<()> {
    let port: u16 = port.parse().context("not a port")?;
    let answer = get(port, "/bench")?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "the server said {answer:?}");
    Ok(())
}

fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("cannot connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).context("cannot ask")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("no answer")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Who is looked at.
struct Watch<'a> {
    agent: &'a Agent,
    metrics: u16,
    began: Instant,
}

impl Watch<'_> {
    fn sample(&self) -> Result<Sample> {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.agent.pid()));
        let descriptors = descriptors.context("the agent is gone")?.count();
        let text = get(self.metrics, "/metrics").context("the agent tells no metrics")?;
        let mut values = text.lines().filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name, value.trim().parse::<u64>().ok()?))
        });
        let of = |name: &str| {
            let mut values = values.clone();
            let found = values.find(|(known, _)| *known == name);
            found.map(|(_, value)| value).with_context(|| format!("no metric {name}"))
        };
        Ok(Sample {
            seconds: self.began.elapsed().as_secs_f64(),
            memory_mb: self.agent.memory_mb()?.0,
            descriptors,
            processes: of("remora_processes")?,
            selected: of("remora_selected_processes")?,
            sockets: of("remora_sockets")?,
            exchanges: of("remora_open_exchanges")?,
            spans: of("remora_spans_total")?,
            missing: of("remora_events_missing_total")?,
            lost: values
                .by_ref()
                .filter(|(name, _)| name.starts_with("remora_lost_total{"))
                .map(|(_, lost)| lost)
                .sum(),
        })
    }

    /// Waits until no more is remembered than in the beginning.
    fn forgets(&self, base: &Sample) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let sample = self.sample()?;
            let alive = std::fs::read_dir("/proc")?.flatten().filter(|entry| {
                entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok())
            });
            // The kernel half remembers whom it was told to leave alone, until they exit.
            let forgotten = sample.sockets <= base.sockets
                && sample.exchanges <= base.exchanges
                && sample.processes <= base.processes
                && sample.selected <= alive.count() as u64;
            if forgotten {
                println!("{sample}");
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "something is still remembered: {sample:?}");
            sys::rest(Duration::from_millis(100));
        }
    }
}

impl Sample {
    const HEAD: &str = "seconds  memory MB  descriptors  processes  selected  sockets  exchanges  \
        spans     lost  missing";
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seconds, memory_mb, descriptors, processes, selected, .. } = self;
        let Self { sockets, exchanges, spans, lost, missing, .. } = self;
        write!(f, "{seconds:<7.0}  {memory_mb:<9.2}  {descriptors:<11}  {processes:<9}  ")?;
        write!(f, "{selected:<8}  {sockets:<7}  {exchanges:<9}  {spans:<8}  {lost:<4}  {missing}")
    }
}

/// What has grown from the first third to the last, after the first tenth.
fn drift(samples: &[Sample]) -> Vec<String> {
    let settled = samples.get(samples.len().div_ceil(10)..).unwrap_or_default();
    let third = settled.len() / 3;
    let (Some(first), Some(last)) = (settled.get(..third), settled.get(settled.len() - third..))
    else {
        return vec!["too few samples".to_owned()];
    };
    if third == 0 {
        return vec!["too few samples".to_owned()];
    }
    let mut wrong = Vec::new();
    let [before, after] =
        [first, last].map(|part| mean(part.iter().map(|sample| sample.memory_mb)));
    println!("memory: {before:.2} MB in the first third, {after:.2} MB in the last");
    if after > before * GROWTH {
        wrong.push(format!("memory grows from {before:.2} to {after:.2} MB"));
    }
    let [before, after] = [first, last]
        .map(|part| part.iter().map(|sample| sample.descriptors).max().unwrap_or_default());
    if after > before + DESCRIPTORS {
        wrong.push(format!("descriptors grow from {before} to {after}"));
    }
    wrong
}

/// What is missing without having been counted, or was told though it never was.
fn uncounted(expected: u64, done: &Done) -> Option<String> {
    let told = done.spans;
    let right = told <= expected && told + done.lost >= expected;
    (!right).then(|| format!("{expected} spans were to come: {told} did, {} are lost", done.lost))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(memory: impl Fn(usize) -> f64, descriptors: impl Fn(usize) -> usize) -> Vec<Sample> {
        let sample = |number| Sample {
            seconds: number as f64,
            memory_mb: memory(number),
            descriptors: descriptors(number),
            processes: 1,
            selected: 1,
            sockets: 32,
            exchanges: 0,
            spans: 0,
            lost: 0,
            missing: 0,
        };
        (0..12).map(sample).collect()
    }

    #[test]
    fn what_grows_is_seen() {
        let flat = |_| 20;
        assert!(drift(&samples(|number| 10.0 + number as f64 / 100.0, flat)).is_empty());
        assert!(drift(&samples(|number| if number == 0 { 5.0 } else { 10.0 }, flat)).is_empty());
        assert_eq!(drift(&samples(|number| 10.0 + number as f64 / 10.0, flat)).len(), 1);
        assert_eq!(drift(&samples(|_| 10.0, |number| 20 + number)).len(), 1);
        assert_eq!(drift(&[]).len(), 1);
    }

    #[test]
    fn what_is_missing_must_be_counted() {
        let done = |spans, lost| Done { spans, lost, ..Done::default() };
        assert!(uncounted(10, &done(10, 0)).is_none());
        assert!(uncounted(10, &done(8, 2)).is_none());
        assert!(uncounted(10, &done(8, 1)).is_some());
        assert!(uncounted(10, &done(11, 0)).is_some());
    }
}
