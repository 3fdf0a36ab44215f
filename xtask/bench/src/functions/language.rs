//! The function that is measured in each language, how it is built, and what is to be told of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::bpftrace::Reads;
use crate::Settings;

/// A language and its function.
pub(super) struct Language {
    pub(super) name: &'static str,
    source: &'static str,
    build: fn(&Path, &Path) -> Result<()>,
    pub(super) pattern: &'static str,
    /// What a span of it shows, with what it was asked for as `N` and the price of that as `P`.
    pub(super) shown: &'static [(&'static str, &'static str)],
    /// What is asked for costs three times as much as the pieces' number, and this.
    pub(super) besides: u64,
    pub(super) reads: Reads,
    /// Whether a function's return address can be replaced: Go's runtime ends the program when it meets
    /// such a one on a stack.
    pub(super) takes_uretprobes: bool,
}

/// C++, on whose function other benchmarks lie, too.
pub(super) const CPP: Language = Language {
    name: "C++",
    source: "price.cpp",
    build: cpp,
    pattern: "shop::price",
    shown: &[
        ("customer", "Ada Lovelace"),
        ("count", "N"),
        ("currency", "Dollar"),
        ("return", "{cents: P, pieces: N}"),
    ],
    besides: 12,
    reads: Reads {
        arguments: &["str(*(uint64 *)arg0, *(uint64 *)(arg0 + 8))", "arg1", "arg2"],
        results: &["reg(\"ax\")"],
        format: "%s %ld %ld %lx",
    },
    takes_uretprobes: true,
};

pub(super) const LANGUAGES: [Language; 3] = [
    Language {
        name: "Go",
        source: "price.go",
        build: go,
        pattern: "main.price",
        shown: &[("customer", "Ada Lovelace"), ("count", "N"), ("return", "(P, nil)")],
        besides: 0,
        reads: Reads {
            arguments: &["str(reg(\"ax\"), reg(\"bx\"))", "reg(\"cx\")"],
            results: &["reg(\"ax\")", "reg(\"bx\")"],
            format: "%s %ld %ld %lx",
        },
        takes_uretprobes: false,
    },
    CPP,
    Language {
        name: "Rust",
        source: "price.rs",
        build: rust,
        pattern: "price::shop::price",
        shown: &[("customer", "Ada Lovelace"), ("count", "N"), ("return", "Ok(P)")],
        besides: 0,
        reads: Reads {
            arguments: &["str(arg0, arg1)", "arg2"],
            results: &["reg(\"ax\")", "reg(\"dx\")"],
            format: "%s %ld %ld %ld",
        },
        takes_uretprobes: true,
    },
];

fn go(source: &Path, binary: &Path) -> Result<()> {
    let known = ["go", "/usr/local/go/bin/go"];
    let is_there = |go: &&str| Command::new(go).arg("version").output().is_ok();
    let mut build = Command::new(known.into_iter().find(is_there).context("needs Go")?);
    compile(build.args(["build", "-o"]).arg(binary).arg(source))
}

fn cpp(source: &Path, binary: &Path) -> Result<()> {
    compile(Command::new("c++").args(["-O2", "-g", "-o"]).arg(binary).arg(source))
}

fn rust(source: &Path, binary: &Path) -> Result<()> {
    let mut build = Command::new("rustc");
    build.args(["--edition", "2024", "-O", "-g", "--crate-name", "price", "-o"]);
    compile(build.arg(binary).arg(source))
}

/// Builds it; its file.
pub(super) fn compiled(settings: &Settings, language: &Language) -> Result<PathBuf> {
    let source = settings.programs.join("functions").join(language.source);
    let file = settings.cache.join(format!("{}.bench", language.source));
    (language.build)(&source, &file).with_context(|| format!("{}", source.display()))?;
    Ok(file)
}

/// Runs a compiler, or what comes behind it.
pub(super) fn compile(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "it does not compile");
    Ok(())
}
