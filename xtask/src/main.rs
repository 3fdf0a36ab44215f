//! `cargo xtask`: everything that is done to this repository, as code.

mod backends;
mod bench;
mod build;
mod command;
mod demo;
mod fuzz;
mod object;
mod programs;
mod setup;
mod soak;
mod test;
mod tidy;
mod vm;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Build, test, bench and tidy for remora.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or install what building and testing need; says what it does
    Setup,
    /// Build the agent with its eBPF object inside
    Build {
        /// As it is shipped: one stripped static file at target/release/remora
        #[arg(long)]
        release: bool,
    },
    /// Start a few programs that call each other, trace them, show their traces
    Demo,
    /// Measure what the agent costs, against floors taken in the same run; needs root
    Bench(bench::Options),
    /// Watch an agent beside a busy server for a long time; needs root
    Soak(soak::Options),
    /// Run all tests; installs what they need
    Test {
        /// Only what needs neither servers nor backends
        #[arg(long)]
        fast: bool,
        /// Also what takes long
        #[arg(long, conflicts_with = "fast")]
        all: bool,
    },
    /// Check on other kernels, in emulated machines, that every capture source tells the truth
    Vm {
        /// Which one
        #[arg(long, default_value = "all", value_parser = vm::SERIES)]
        kernel: String,
        /// Keep what the machines started from, and tell how to start one again
        #[arg(long)]
        keep: bool,
    },
    /// Feed parsers, pipeline and readers with hostile input
    Fuzz(fuzz::Options),
    /// Show what this kernel's verifier goes through for each program
    Verifier,
    /// Check the rules of this repository
    Tidy,
    /// Build or fetch the real backends that tests read spans back from
    Backends,
}

fn main() -> Result<()> {
    let root = command::root();
    match Cli::parse().task {
        Task::Setup => setup::run(&root),
        Task::Build { release } => {
            setup::for_build()?;
            build::run(&root, release).map(drop)
        }
        Task::Demo => {
            setup::for_build()?;
            setup::for_demo()?;
            let remora = build::run(&root, true)?;
            demo::run(&root, &remora)
        }
        Task::Bench(options) => bench::run(&root, &options),
        Task::Soak(options) => soak::run(&root, &options),
        Task::Test { fast, all } => test::run(
            &root,
            match (fast, all) {
                (true, _) => test::Scope::Fast,
                (_, true) => test::Scope::All,
                _ => test::Scope::Usual,
            },
        ),
        Task::Vm { kernel, keep } => {
            setup::for_build()?;
            let given = std::env::var_os("REMORA_BIN").map(std::path::PathBuf::from);
            let remora = given.map_or_else(|| build::run(&root, true), Ok)?;
            vm::run(&root, &remora, &vm::Options { kernel: &kernel, keep })
        }
        Task::Fuzz(options) => fuzz::run(&root, &options),
        Task::Verifier => {
            setup::for_build()?;
            build::ebpf(&root)?;
            vm::verifier(&root)
        }
        Task::Tidy => tidy::run(&root),
        Task::Backends => backends::run(&root),
    }
}
