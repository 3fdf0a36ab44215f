//! `remora doctor`: what this kernel and these privileges allow, what is lost without the rest and
//! how to get it, and what capturing costs on this host.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use super::table::{json_lines, print};
use super::{CliError, output};
use crate::platform::btf::{Btf, VMLINUX};
use crate::platform::privileges;
use crate::probe::function::{HitCosts, selftest};
use crate::probe::{Capture, CaptureError, Options, Source};

/// Flags of `remora doctor`.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Do not measure what capturing costs
    #[arg(long)]
    no_cost: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Good,
    Missing,
    Unknown,
}

/// One line of the report.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Row {
    /// A feature or a privilege.
    Check { name: String, state: State, detail: String, without: String, remedy: String },
    /// What capturing costs a traced program.
    Cost {
        source: String,
        state: &'static str,
        ns_per_operation: f64,
        added_ns: f64,
        ratio_to_untraced: f64,
    },
}

pub(super) fn doctor(options: &Doctor) -> Result<(), CliError> {
    let mut rows = vec![kernel()];
    rows.extend(privileges());
    rows.push(lockdown());
    rows.push(types());
    let mut works = Vec::new();
    for source in Source::ALL {
        let (row, good) = try_source(source);
        rows.push(row);
        works.extend(good.then_some(source));
    }
    rows.extend(functions());
    if !options.no_cost && !works.is_empty() {
        rows.extend(cost(&works).map_err(|source| CliError::Read { what: "the cost", source })?);
    }
    if options.json {
        json_lines(&rows)?;
    } else {
        print(&render(&rows))?;
    }
    if works.is_empty() {
        return Err(CliError::Run(CaptureError::NoSource.into()));
    }
    Ok(())
}

fn check(name: &str, state: State, detail: String) -> Row {
    let (without, remedy) = (String::new(), String::new());
    Row::Check { name: name.to_owned(), state, detail, without, remedy }
}

fn kernel() -> Row {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    check("kernel", State::Good, release.trim().to_owned())
}

fn privileges() -> Vec<Row> {
    let effective = privileges::effective();
    let row = |capability: &privileges::Capability| {
        let good = capability.is_in(effective);
        Row::Check {
            name: capability.name.to_owned(),
            state: if good { State::Good } else { State::Missing },
            detail: capability.purpose.to_owned(),
            without: "nothing can be traced".to_owned(),
            remedy: "run with sudo, or give the service this capability".to_owned(),
        }
    };
    privileges::NEEDED.iter().map(row).collect()
}

fn lockdown() -> Row {
    match std::fs::read_to_string("/sys/kernel/security/lockdown") {
        Ok(text) => {
            // "none [integrity] confidentiality"
            let mode = text.split(['[', ']']).nth(1).unwrap_or_default().to_owned();
            let bad = mode == "confidentiality";
            Row::Check {
                name: "lockdown".to_owned(),
                state: if bad { State::Missing } else { State::Good },
                detail: mode,
                without: "programs may not read memory: nothing can be traced".to_owned(),
                remedy: "boot without lockdown=confidentiality".to_owned(),
            }
        }
        Err(_) => {
            let detail = "securityfs is not mounted: the attempts below tell";
            check("lockdown", State::Unknown, detail.to_owned())
        }
    }
}

fn types() -> Row {
    let (state, detail) = match Btf::from_sys_fs() {
        Ok(_) => (State::Good, VMLINUX.to_owned()),
        Err(error) => (State::Missing, output::chain(&error)),
    };
    Row::Check {
        name: "kernel types (BTF)".to_owned(),
        state,
        detail,
        without: "field offsets are unknown: nothing can be traced".to_owned(),
        remedy: "use a kernel built with CONFIG_DEBUG_INFO_BTF=y".to_owned(),
    }
}

fn probe_options(source: Source) -> Options {
    let (ring_bytes, processes_max, payload_limit) = (1 << 20, 64, 4096);
    Options { source: Some(source), ring_bytes, processes_max, payload_limit, rules: false }
}

/// Whether the kernel takes a source is found by trying.
fn try_source(source: Source) -> (Row, bool) {
    let result = Capture::start(&probe_options(source));
    let good = result.is_ok();
    let detail = match &result {
        Ok(_) => source.describe().to_owned(),
        Err(error) => told(error),
    };
    let (without, remedy) = match source {
        _ if privileges::check().is_err() => {
            ("nothing can be traced", "get the capabilities above first")
        }
        Source::SocketTracepoints => (
            "a costlier source is used, if one works",
            "use Linux 6.3 or later with CONFIG_DEBUG_INFO_BTF=y",
        ),
        Source::SocketFunctions => (
            "no loss where another source works",
            "use a kernel with CONFIG_FUNCTION_TRACER and BPF trampolines",
        ),
        Source::SyscallExit => (
            "nothing can be traced, unless another source works",
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y",
        ),
    };
    let row = Row::Check {
        name: format!("capture source `{}`", source.as_str()),
        state: if good { State::Good } else { State::Missing },
        detail,
        without: without.to_owned(),
        remedy: remedy.to_owned(),
    };
    (row, good)
}

/// Function probes, found by trying them on a child.
fn functions() -> Vec<Row> {
    let name = "function probes";
    let test = match selftest::run() {
        Ok(test) => test,
        Err(error) => {
            return vec![Row::Check {
                name: name.to_owned(),
                state: State::Missing,
                detail: one_line(&error),
                without: "functions cannot be traced; requests are not affected".to_owned(),
                remedy: "use Linux 6.6 or later with CONFIG_UPROBE_EVENTS=y".to_owned(),
            }];
        }
    };
    let HitCosts { emulated_ns, stepped_ns, image_ns } = test.costs;
    let cost = format!(
        "tried on a child: a hit costs {emulated_ns} ns, {stepped_ns} ns where the kernel must step; \
         a stack {image_ns} ns"
    );
    let at_once = Row::Check {
        name: "probes attached at once".to_owned(),
        state: if test.at_once { State::Good } else { State::Missing },
        detail: "uprobe_multi".to_owned(),
        without: "a few functions only, slow to attach and detach".to_owned(),
        remedy: "use Linux 6.6 or later".to_owned(),
    };
    let threads = Row::Check {
        name: "probes of one process".to_owned(),
        state: if test.sees_threads { State::Good } else { State::Missing },
        detail: "see all its threads".to_owned(),
        without: "probes are set in every process that runs the same file".to_owned(),
        remedy: "use Linux 6.6.33, 6.10 or later".to_owned(),
    };
    let (state, detail) = match test.nop5_is_safe {
        Some(true) => (State::Good, "a probe there changes nothing; none is ever set"),
        Some(false) => (State::Unknown, "a probe there would change the program; none is ever set"),
        None => (State::Unknown, "not tried; no probe is ever set there"),
    };
    vec![
        check(name, State::Good, cost),
        at_once,
        threads,
        check("five-byte NOPs", state, detail.to_owned()),
    ]
}

/// An error in one line, without the verifier's log that it may lead up to.
fn told(error: &CaptureError) -> String {
    one_line(error)
}

/// As [`told`], whatever the error.
fn one_line(error: &dyn std::error::Error) -> String {
    let text = output::chain(error);
    let line = text.lines().next().unwrap_or_default();
    let line = line.split(". Verifier output:").next().unwrap_or(line);
    line.trim_end().to_owned()
}

/// Rounds of the measurement; the median counts.
const ROUNDS: usize = 15;
/// Socket operations of a round: a write and a read each way over loopback TCP.
const OPERATIONS: u32 = 8000;

/// Runs the same socket operations untraced, beside another traced process, and traced, in turns.
fn cost(sources: &[Source]) -> io::Result<Vec<Row>> {
    let mut child = Exerciser::start()?;
    let mut rows = Vec::new();
    let mut untraced = Vec::new();
    let mut beside: Vec<Vec<f64>> = vec![Vec::new(); sources.len()];
    let mut traced: Vec<Vec<f64>> = vec![Vec::new(); sources.len()];
    child.run()?;
    for _ in 0..ROUNDS {
        untraced.push(child.run()?);
        for ((source, beside), traced) in sources.iter().zip(&mut beside).zip(&mut traced) {
            let capture = Capture::start(&probe_options(*source));
            let mut capture = capture.map_err(io::Error::other)?;
            beside.push(child.run()?);
            let selected = capture.selection().select(child.child.id(), false, 4096);
            selected.map_err(io::Error::other)?;
            traced.push(child.run()?);
        }
    }
    let floor = median(&mut untraced);
    let mut row = |source: &str, state, ns: f64| {
        rows.push(Row::Cost {
            source: source.to_owned(),
            state,
            ns_per_operation: ns,
            added_ns: ns - floor,
            ratio_to_untraced: ns / floor,
        });
    };
    row("-", "untraced", floor);
    for ((source, beside), traced) in sources.iter().zip(&mut beside).zip(&mut traced) {
        row(source.as_str(), "another process traced", median(beside));
        row(source.as_str(), "traced", median(traced));
    }
    Ok(rows)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A child that does socket operations when told to.
struct Exerciser {
    child: Child,
    told: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Exerciser {
    fn start() -> io::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg("exercise")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
        let told = child.stdin.take().ok_or_else(missing)?;
        let answers = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        Ok(Self { child, told, answers })
    }

    /// Nanoseconds of one operation.
    fn run(&mut self) -> io::Result<f64> {
        self.told.write_all(b"go\n")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        answer.trim().parse().map_err(io::Error::other)
    }
}

impl Drop for Exerciser {
    fn drop(&mut self) {
        // It ends by itself when its input does; this makes sure.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's side: for every line on stdin, one round; ends with the input.
pub(super) fn exercise() -> Result<(), CliError> {
    exercise_rounds().map_err(|source| CliError::Read { what: "the exercise", source })
}

fn exercise_rounds() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let mut buffer = [b'x'; 64];
    for line in io::stdin().lock().lines() {
        line?;
        let begun = Instant::now();
        // One thread holds both ends, so nothing waits and nothing is scheduled.
        for _ in 0..OPERATIONS / 4 {
            client.write_all(&buffer)?;
            server.read_exact(&mut buffer)?;
            server.write_all(&buffer)?;
            client.read_exact(&mut buffer)?;
        }
        let ns = begun.elapsed().as_nanos() as f64 / f64::from(OPERATIONS);
        println!("{ns}");
    }
    Ok(())
}

fn render(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut costs = false;
    for row in rows {
        match row {
            Row::Check { name, state, detail, without, remedy } => {
                let mark = match state {
                    State::Good => "✓",
                    State::Missing => "✗",
                    State::Unknown => "?",
                };
                text.push_str(&format!("{mark} {name:<24} {detail}\n"));
                if *state == State::Missing {
                    text.push_str(&format!("  {:<24} without it: {without}\n", ""));
                    text.push_str(&format!("  {:<24} remedy: {remedy}\n", ""));
                }
            }
            Row::Cost { source, state, ns_per_operation, added_ns, ratio_to_untraced } => {
                if !std::mem::replace(&mut costs, true) {
                    text.push_str(&format!(
                        "\ncost of one 64-byte socket operation over loopback TCP (median of {ROUNDS} \
                         rounds of {OPERATIONS})\n"
                    ));
                }
                let name = if source == "-" { String::new() } else { format!("{source}: ") };
                text.push_str(&format!(
                    "  {:<32} {ns_per_operation:>7.0} ns  {added_ns:>+6.0} ns  ×{ratio_to_untraced:.2}\n",
                    format!("{name}{state}"),
                ));
            }
        }
    }
    text
}
