//! `cargo xtask bench`: builds what is measured as it is shipped, and the program that measures,
//! which lies in `xtask/bench` because it must be optimised and this one need not be.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::command::{self, target};
use crate::{build, setup};

/// What to measure and how. Handed on to the measuring program as JSON.
#[derive(Args, Serialize)]
pub(crate) struct Options {
    /// Which benchmark
    #[arg(value_enum)]
    which: Which,
    /// A short run that shows whether everything works; its numbers mean little
    #[arg(long)]
    quick: bool,
    /// Fail if a target is missed
    #[arg(long)]
    check: bool,
    /// Write everything that was measured into this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure this agent instead of building one
    #[arg(long, value_name = "PATH")]
    remora: Option<PathBuf>,
    /// Measure only these servers (overhead): nginx, go, node, java, python, proxy; only these peers, or
    /// those of these servers (peers): tcpdump, bpftrace, strace, otel-go, otel-node, otel-java,
    /// otel-python; or only these parts (functions): call, languages, budget
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// How often each phase is repeated
    #[arg(long, value_name = "COUNT")]
    rounds: Option<usize>,
    /// How long a phase under load is measured
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Measure every floor, not only the one to compare with (overhead)
    #[arg(long = "floors")]
    all_floors: bool,
    /// Bytes of an operation (socket)
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    bytes: usize,
    /// Play this recording of `remora record` (pipeline)
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
    /// A further word for `remora run` (may be repeated)
    #[arg(long = "agent-arg", value_name = "ARG", allow_hyphen_values = true)]
    agent_args: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Which {
    /// Records to encoded spans, in memory
    Pipeline,
    /// One operation on a socket
    Socket,
    /// One call of a probed function
    Functions,
    /// Real servers under load
    Overhead,
    /// Other tracers on the same servers, beside the agent
    Peers,
    /// From the agent's start to its first span
    Start,
    /// Many connections, many processes
    Scale,
    /// All of them
    All,
}

/// What the measuring program is told.
#[derive(Serialize)]
struct Settings<'a> {
    #[serde(flatten)]
    options: &'a Options,
    /// The agent; none where it is not needed.
    agent: Option<PathBuf>,
    /// The floors' eBPF object.
    floors: Option<PathBuf>,
    /// The pipeline's program.
    pipeline: Option<PathBuf>,
    /// Where servers may be built.
    cache: PathBuf,
    /// Sources of the servers.
    programs: PathBuf,
}

/// What the servers of `overhead` need besides, with the package that has each.
const SERVERS: [(&str, &str); 3] =
    [("go", "golang-go"), ("node", "nodejs"), ("javac", "default-jdk-headless")];

/// What `functions` compiles with, compares with, and probes, with the package that has each.
const FUNCTIONS: [(&str, &str); 4] =
    [("go", "golang-go"), ("c++", "g++"), ("strip", "binutils"), ("bpftrace", "bpftrace")];

/// What is measured beside the agent, and what fetches the rest of that, with the package that has each.
const PEERS: [(&str, &str); 6] = [
    ("tcpdump", "tcpdump"),
    ("bpftrace", "bpftrace"),
    ("strace", "strace"),
    ("unshare", "util-linux"),
    ("npm", "npm"),
    ("mvn", "maven"),
];

/// The packages of programs that are missing.
fn missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let elsewhere = |program| program == "go" && Path::new("/usr/local/go/bin/go").is_file();
    let there = |program| command::has(program) || elsewhere(program);
    let missing = programs.iter().filter(|(program, _)| !there(program));
    missing.map(|(_, package)| *package).collect()
}

/// Installs what `functions` needs. What cannot be had is not measured, which the table says.
fn for_functions() {
    let packages = missing(&FUNCTIONS);
    let installed = if packages.is_empty() { Ok(()) } else { setup::apt(&packages) };
    // nginx, which must not begin to serve.
    if let Err(error) = installed.and_then(|()| setup::for_demo()) {
        println!("setup: {error:#}");
    }
}

/// Installs what `peers` needs besides. A peer that cannot be had is not measured, which the report says.
fn for_peers() {
    // One by one: a package that cannot be had is not the others' loss.
    for package in missing(&PEERS) {
        if let Err(error) = setup::apt(&[package]) {
            println!("setup: {error:#}");
        }
    }
}

/// Installs what the servers need. What cannot be had is left out of the measurement, which says so.
fn servers() {
    let mut packages = missing(&SERVERS);
    let venv = ["-c", "import ensurepip, venv"];
    if command::output(Command::new("python3").args(venv)).is_none() {
        packages.push("python3-venv");
    }
    if !packages.is_empty()
        && let Err(error) = setup::apt(&packages)
    {
        println!("setup: {error:#}");
    }
}

/// Builds and measures.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    setup::for_build()?;
    let wants = |which| options.which == which || options.which == Which::All;
    let mut settings = Settings {
        options,
        agent: None,
        floors: None,
        pipeline: None,
        cache: target(root).join("bench"),
        programs: root.join("xtask/bench/programs"),
    };
    std::fs::create_dir_all(&settings.cache).context("cannot create target/bench")?;
    if wants(Which::Pipeline) {
        build::ebpf(root)?;
        let built = build::as_shipped(root, &["--package", "remora-bench", "--bin", "pipeline"])?;
        settings.pipeline = Some(built.join("pipeline"));
    }
    if wants(Which::Functions) {
        for_functions();
    }
    if wants(Which::Overhead) || wants(Which::Peers) {
        servers();
    }
    if wants(Which::Peers) {
        setup::for_demo()?;
        for_peers();
    }
    if !matches!(options.which, Which::Pipeline | Which::Functions | Which::Peers) {
        setup::for_tests(root)?;
        settings.floors = Some(build::ebpf_object(root, "floor")?);
    }
    if options.which != Which::Pipeline {
        settings.agent = Some(match &options.remora {
            Some(path) => path.clone(),
            None => build::run(root, true)?,
        });
    }
    let bench = build::as_shipped(root, &["--package", "remora-bench", "--bin", "remora-bench"])?;
    let bench = bench.join("remora-bench");
    let settings = serde_json::to_string(&settings).context("cannot write the settings")?;
    let status = Command::new(&bench).arg(settings).status();
    let status = status.with_context(|| format!("cannot run {}", bench.display()))?;
    // It has said why.
    ensure!(status.success(), "the benchmark failed: {status}");
    Ok(())
}
