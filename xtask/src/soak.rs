//! `cargo xtask soak`: builds the agent as it is shipped and the program that watches it, which is
//! the benchmarks' (`xtask/bench`).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::json;

use crate::{build, setup};

/// How long, under which load. Fails if the agent's memory or descriptors grow, if anything is
/// remembered at the end that should not be, or if a span is missing that was not counted.
#[derive(Args)]
pub(crate) struct Options {
    /// How long the load lasts
    #[arg(long, default_value_t = 30.0, value_name = "MINUTES")]
    minutes: f64,
    /// Requests a second
    #[arg(long, default_value_t = 2000.0, value_name = "RATE")]
    rate: f64,
    /// Short processes a second, each of them traced
    #[arg(long, default_value_t = 20.0, value_name = "RATE")]
    processes: f64,
    /// Watch this agent instead of building one
    #[arg(long, value_name = "PATH")]
    remora: Option<PathBuf>,
}

/// Builds and watches.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let is_long = options.minutes > 0.0 && options.rate > 0.0 && options.processes > 0.0;
    ensure!(is_long, "--minutes, --rate and --processes are more than 0");
    setup::for_build()?;
    setup::for_demo()?;
    let agent = match &options.remora {
        Some(path) => path.clone(),
        None => build::run(root, true)?,
    };
    let bench = build::as_shipped(root, &["--package", "remora-bench", "--bin", "remora-bench"])?;
    let settings = json!({
        "minutes": options.minutes,
        "rate": options.rate,
        "processes": options.processes,
        "agent": agent,
    });
    let bench = bench.join("remora-bench");
    let status = Command::new(&bench).arg("soak").arg(settings.to_string()).status();
    let status = status.with_context(|| format!("cannot run {}", bench.display()))?;
    // It has said why.
    ensure!(status.success(), "the soak failed: {status}");
    Ok(())
}
