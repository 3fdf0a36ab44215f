//! `functions`: what a call of a probed function costs more, beside empty programs at the same places
//! and beside another tracer that does the same work.

mod bpftrace;
mod budget;
mod language;
mod languages;
mod samples;
mod single;

use anyhow::{Context, Result};
use remora::probe::function::selftest::SelfTest;
use remora::probe::function::{FunctionProbes, Limits};
use remora::probe::{Capture, Options};

use crate::Settings;
use crate::report::Report;

const BENCH: &str = "functions";

/// The records of a batch fit in.
const RING_BYTES: u32 = 1 << 24;

type Part = fn(&Settings, &mut Report) -> Result<()>;

pub(crate) fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let parts: [(&str, Part); 3] =
        [("call", single::run), ("languages", languages::run), ("budget", budget::run)];
    let chosen = |name: &str| settings.only.iter().any(|only| only == name);
    // Names that mean other benchmarks choose none of these.
    let all = !parts.iter().any(|(name, _)| chosen(name));
    for (_, run) in parts.into_iter().filter(|(name, _)| all || chosen(name)) {
        run(settings, report)?;
    }
    Ok(())
}

/// The capture programs, beside which those of functions are loaded.
fn capture() -> Result<Capture> {
    let options = Options {
        source: None,
        ring_bytes: RING_BYTES,
        processes_max: 64,
        payload_limit: 64,
        rules: false,
    };
    Capture::start(&options).context("cannot load the capture programs")
}

fn load(capture: &Capture) -> Result<FunctionProbes> {
    FunctionProbes::load(capture, Limits::default(), &SelfTest::ASSUMED)
        .context("cannot load the program of function probes")
}
