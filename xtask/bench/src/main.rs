//! Measures what the agent costs, beside floors taken in the same run, and judges it by the
//! project's targets. Started by `cargo xtask bench`, which has built everything.
//!
//! A child of its own, started as `remora-bench exerciser`, does the operations that are measured.
//! `cargo xtask soak` starts it to watch an agent for a long time.

mod agent;
mod callee;
mod exerciser;
mod floor;
mod functions;
mod load;
mod measured;
mod overhead;
mod peers;
mod pipeline;
mod process;
mod protobuf;
mod report;
mod scale;
mod servers;
mod sink;
mod soak;
mod socket;
mod start;
mod statistics;
mod sys;
mod verdicts;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use report::Report;

/// What `cargo xtask bench` hands over.
#[derive(Deserialize)]
struct Settings {
    which: String,
    quick: bool,
    check: bool,
    json: Option<PathBuf>,
    rounds: Option<usize>,
    seconds: Option<f64>,
    only: Vec<String>,
    all_floors: bool,
    bytes: usize,
    recording: Option<PathBuf>,
    agent_args: Vec<String>,
    agent: Option<PathBuf>,
    floors: Option<PathBuf>,
    pipeline: Option<PathBuf>,
    cache: PathBuf,
    programs: PathBuf,
}

impl Settings {
    fn wants(&self, which: &str) -> bool {
        self.which == which || self.which == "all"
    }

    /// How often phases are repeated.
    fn rounds(&self, usual: usize) -> usize {
        self.rounds.unwrap_or(if self.quick { 2 } else { usual }).max(1)
    }
}

fn main() -> Result<ExitCode> {
    let argument = std::env::args().nth(1).context("started without settings: use cargo xtask")?;
    let rest = std::env::args().nth(2).unwrap_or_default();
    match argument.as_str() {
        "callee" => return callee::serve().map(|()| ExitCode::SUCCESS),
        "exerciser" => return exerciser::serve().map(|()| ExitCode::SUCCESS),
        "visitor" => return soak::visit(&rest).map(|()| ExitCode::SUCCESS),
        "soak" => {
            let settings = serde_json::from_str(&rest).context("cannot read the settings")?;
            return soak::run(&settings).map(|()| ExitCode::SUCCESS);
        }
        _ => {}
    }
    let settings: Settings = serde_json::from_str(&argument).context("cannot read the settings")?;
    let mut report = Report::new(settings.quick);
    if settings.wants("pipeline") {
        pipeline::run(&settings, &mut report)?;
    }
    if settings.wants("socket") {
        socket::run(&settings, &mut report)?;
    }
    if settings.wants("functions") {
        functions::run(&settings, &mut report)?;
    }
    if settings.wants("overhead") {
        overhead::run(&settings, &mut report)?;
    }
    if settings.wants("peers") {
        peers::run(&settings, &mut report)?;
    }
    if settings.wants("start") {
        start::run(&settings, &mut report)?;
    }
    if settings.wants("scale") {
        sys::raise_descriptors().context("cannot have more descriptors")?;
        scale::run(&settings, &mut report)?;
    }
    report.print();
    if let Some(path) = &settings.json {
        report.write(path)?;
    }
    let missed = report.missed();
    if settings.check && missed > 0 {
        bail!("{missed} targets are missed");
    }
    // It is reported, and nobody must take the rest for the whole.
    Ok(if report.missing() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
