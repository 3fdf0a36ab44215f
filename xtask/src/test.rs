//! `cargo xtask test`: every check of this repository, in one command.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::command::{cargo, has, target};
use crate::{backends, build, setup, tidy, vm};

/// What ran, for the summary.
#[derive(Default)]
struct Report {
    steps: Vec<(String, bool, f64)>,
    skipped: Vec<String>,
    /// What this kernel cannot do and a virtual machine does instead.
    elsewhere: Vec<String>,
}

/// How much is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// What needs neither root nor servers.
    Fast,
    /// What every change has to pass.
    Usual,
    /// Also what takes long.
    All,
}

/// Runs the tests.
pub(crate) fn run(root: &Path, scope: Scope) -> Result<()> {
    let fast = scope == Scope::Fast;
    let mut report = Report::default();
    setup::for_build()?;
    if !fast {
        setup::for_tests(root)?;
    }
    // Beside everything until the tests, which need them.
    let backends = (!fast).then(|| backends::start(root));
    report.step("tidy", || tidy::run(root));
    report.step("format", || format(root));
    report.step("build", || build::run(root, !fast).map(drop));
    report.step("clippy", || clippy(root));
    report.step("fuzz targets", || fuzz_targets(root));
    let packages: &[&str] = match fast {
        true => &[
            "--lib",
            "--bins",
            "--package",
            "remora",
            "--package",
            "agent-common",
            "--package",
            "xtask",
        ],
        false => &["--workspace"],
    };
    let remora = target(root).join("release/remora");
    let mut tests = cargo();
    tests.current_dir(root).args(["test", "--no-fail-fast"]).args(packages);
    if scope == Scope::All {
        tests.env("REMORA_TEST_ALL", "1");
    }
    if let Some(backends) = backends {
        tests.env("REMORA_BIN", &remora);
        report.step("backends", || {
            tests.envs(backends.wait());
            Ok(())
        });
    }
    // Skips are told on standard output, which tests would hold back.
    tests.args(["--", "--show-output"]);
    let (mut skipped, mut elsewhere) = (Vec::new(), Vec::new());
    report.step("tests", || watch(&mut tests, &mut skipped, &mut elsewhere));
    (report.skipped, report.elsewhere) = (skipped, elsewhere);
    if !fast {
        match vm::impossible() {
            None => report.step("other kernels", || vm::run(root, &remora, &vm::Options::ALL)),
            Some(needs) => report.skipped.push(format!("needs {needs}: other kernels")),
        }
        report.step("licences and advisories", || deny(root));
    }
    report.print();
    let failed = report.steps.iter().filter(|(_, good, _)| !good).count();
    if failed > 0 {
        bail!("{failed} of {} steps failed", report.steps.len());
    }
    if !report.skipped.is_empty() && std::env::var_os("CI").is_some() {
        bail!("{} tests were skipped, which CI does not allow", report.skipped.len());
    }
    Ok(())
}

impl Report {
    fn step(&mut self, name: &str, step: impl FnOnce() -> Result<()>) {
        println!("\n== {name}");
        let begun = Instant::now();
        let result = step();
        if let Err(error) = &result {
            println!("{name} failed: {error:#}");
        }
        self.steps.push((name.to_owned(), result.is_ok(), begun.elapsed().as_secs_f64()));
    }

    fn print(&self) {
        println!("\n== summary");
        for (name, good, seconds) in &self.steps {
            println!("{} {name:<26} {seconds:>6.1} s", if *good { "ok    " } else { "FAILED" });
        }
        println!("{} skipped", self.skipped.len());
        for skipped in &self.skipped {
            println!("  {skipped}");
        }
        if !self.elsewhere.is_empty() {
            println!("{} left to `cargo xtask vm`", self.elsewhere.len());
        }
        for elsewhere in &self.elsewhere {
            println!("  {elsewhere}");
        }
    }
}

/// Runs the tests and takes down what they skip.
fn watch(
    tests: &mut Command,
    skipped: &mut Vec<String>,
    elsewhere: &mut Vec<String>,
) -> Result<()> {
    let mut child = tests.stdout(Stdio::piped()).spawn().context("cannot run cargo test")?;
    let stdout = child.stdout.take().context("stdout is a pipe")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        if let Some(why) = line.trim_start().strip_prefix("skipped: ") {
            skipped.push(why.to_owned());
        }
        if let Some(why) = line.trim_start().strip_prefix("elsewhere: ") {
            elsewhere.push(why.to_owned());
        }
        println!("{line}");
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("cargo test: {status}");
    }
    Ok(())
}

fn format(root: &Path) -> Result<()> {
    for directory in ["", "agent-ebpf", "agent/fuzz"] {
        let mut format = cargo();
        format.current_dir(root.join(directory)).args(["fmt", "--all", "--check"]);
        crate::command::run(&mut format)?;
    }
    Ok(())
}

fn clippy(root: &Path) -> Result<()> {
    let mut clippy = cargo();
    clippy.current_dir(root).args(["clippy", "--workspace", "--all-targets", "--quiet"]);
    crate::command::run(clippy.args(["--", "-D", "warnings"]))
}

/// They compile: without libFuzzer, which takes long, what they call is the library with one feature more.
fn fuzz_targets(root: &Path) -> Result<()> {
    let mut clippy = cargo();
    clippy.current_dir(root).args(["clippy", "--package", "remora", "--lib", "--quiet"]);
    crate::command::run(clippy.args(["--features", "fuzzing", "--", "-D", "warnings"]))
}

/// cargo-deny reads `deny.toml`.
fn deny(root: &Path) -> Result<()> {
    if !has("cargo-deny") {
        println!("cargo-deny is not installed: `cargo install cargo-deny --locked` brings it");
        println!("its checks of licences and sources are done by `tidy` from the lock files");
        return Ok(());
    }
    let mut deny = cargo();
    deny.current_dir(root).args(["deny", "--offline", "check", "licenses", "bans", "sources"]);
    crate::command::run(&mut deny)
}
