//! `cargo xtask fuzz`: builds the fuzz targets with coverage and runs them. Needs a C++ compiler for
//! libFuzzer, but neither a nightly compiler nor cargo-fuzz.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command::{self, cargo, target};

/// What to fuzz.
#[derive(Args)]
pub(crate) struct Options {
    /// A target, or all of them one after the other
    #[arg(default_value = "all")]
    target: String,
    /// How long each runs
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    seconds: u32,
    /// Keep what reaches code that no kept input reaches
    #[arg(long)]
    keep: bool,
}

/// LLVM's coverage as libFuzzer wants it: a counter for each edge, and what is compared with what.
const FLAGS: &str = "--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Longest input.
const INPUT_BYTES_MAX: u32 = 16 << 10;

/// Builds and runs.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let fuzz = root.join("agent/fuzz");
    let all = targets(&fuzz)?;
    let wanted: Vec<&String> = all
        .iter()
        .filter(|name| matches!(&*options.target, "all") || **name == options.target)
        .collect();
    if wanted.is_empty() {
        bail!("no target `{}`: there are {}", options.target, all.join(", "));
    }
    let built = build(root, &fuzz)?;
    let mut broken = Vec::new();
    for name in wanted {
        let places = Places::of(root, &fuzz, name)?;
        let report = fuzz_one(&built.join(name), &places, options.seconds)?;
        println!("{name}: {report}");
        if options.keep {
            keep(&built.join(name), &places)?;
        }
        if !report.good {
            broken.push(name.as_str());
        }
    }
    if !broken.is_empty() {
        bail!("a promise is broken: {}; see target/fuzz/artifacts", broken.join(", "));
    }
    Ok(())
}

/// The targets, by the names of their files.
fn targets(fuzz: &Path) -> Result<Vec<String>> {
    let directory = fuzz.join("fuzz_targets");
    let entries = std::fs::read_dir(&directory);
    let mut names = Vec::new();
    for entry in entries.with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Where a target's files are.
struct Places {
    /// Inputs in the repository.
    kept: PathBuf,
    /// Inputs found on this machine.
    found: PathBuf,
    /// Inputs that break something.
    artifacts: PathBuf,
}

impl Places {
    fn of(root: &Path, fuzz: &Path, name: &str) -> Result<Self> {
        let own = target(root).join("fuzz");
        let places = Self {
            kept: fuzz.join("corpus").join(name),
            found: own.join("corpus").join(name),
            artifacts: own.join("artifacts").join(name),
        };
        for directory in [&places.kept, &places.found, &places.artifacts] {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        Ok(places)
    }
}

/// Builds every target; the directory of the programs.
fn build(root: &Path, fuzz: &Path) -> Result<PathBuf> {
    let own = target(root).join("fuzz/build");
    let triple = crate::build::host()?;
    let mut build = cargo();
    build.current_dir(fuzz).env("CARGO_TARGET_DIR", &own).env("RUSTFLAGS", FLAGS);
    // With an explicit target the flags do not reach build scripts and macros.
    build.args(["build", "--release", "--locked", "--target", &triple]);
    command::run(&mut build)?;
    Ok(own.join(triple).join("release"))
}

/// What came of a run.
struct Report {
    executions: String,
    edges: String,
    good: bool,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { executions, edges, good } = self;
        let end = if *good { "no promise broken" } else { "BROKEN" };
        write!(f, "{executions} executions, {edges} edges reached, {end}")
    }
}

fn fuzz_one(program: &Path, places: &Places, seconds: u32) -> Result<Report> {
    let mut fuzz = Command::new("nice");
    fuzz.args(["-n", "10"]).arg(program).args([&places.found, &places.kept]);
    fuzz.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={INPUT_BYTES_MAX}"));
    fuzz.arg(format!("-artifact_prefix={}/", places.artifacts.display()));
    fuzz.args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]);
    let mut child = fuzz.stderr(Stdio::piped()).spawn().context("cannot run the target")?;
    let stderr = child.stderr.take().context("stderr is a pipe")?;
    let mut report = Report { executions: "0".to_owned(), edges: "0".to_owned(), good: false };
    for line in BufReader::new(stderr).lines() {
        let line = line?;
        let behind = |word: &str| {
            let (_, behind) = line.split_once(word)?;
            Some(behind.split_whitespace().next()?.to_owned())
        };
        if let Some(edges) = behind(" cov: ") {
            report.edges = edges;
        } else if let Some(executions) = behind("stat::number_of_executed_units:") {
            report.executions = executions;
        } else if !line.starts_with("stat::") {
            // How a panic or a hang shows itself.
            eprintln!("{line}");
        }
    }
    report.good = child.wait()?.success();
    Ok(report)
}

/// Adds to the repository what reaches edges that nothing there reaches: few inputs that reach many.
fn keep(program: &Path, places: &Places) -> Result<()> {
    let before = count(&places.kept)?;
    let mut merge = Command::new(program);
    merge.args(["-set_cover_merge=1", "-use_counters=0"]).args([&places.kept, &places.found]);
    merge.stderr(Stdio::null());
    command::run(&mut merge)?;
    println!("{} inputs were kept, {} are", before, count(&places.kept)?);
    Ok(())
}

fn count(directory: &Path) -> Result<usize> {
    Ok(std::fs::read_dir(directory)?.count())
}
