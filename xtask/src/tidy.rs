//! The rules of this repository that no compiler checks, as code. Runs as a test, too.

mod names;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A Rust file.
struct Source {
    /// From the repository's root, with slashes.
    path: String,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/")
    }

    /// The part before the tests at its end.
    fn code(&self) -> &str {
        let end = self.text.find("#[cfg(test)]").unwrap_or(self.text.len());
        &self.text[..end]
    }
}

/// Longest file, and where a second look is due.
const LINES_MAX: usize = 800;
const LINES_MANY: usize = 450;

/// Where foreign crates live: what names them elsewhere is wrong.
const HOMES: &[(&str, &[&str])] = &[
    // Floors of benchmarks; the agent has a loader of its own.
    ("aya", &["xtask/bench/src/floor.rs"]),
    ("aya_ebpf", &["agent-ebpf/src/"]),
    ("aya_obj", &["agent/src/probe/"]),
    ("bytes", &["agent/src/export/", "tests/src/sink"]),
    ("clap", &["agent/src/cli/", "xtask/src/"]),
    ("clap_complete", &["agent/src/cli/"]),
    ("clap_mangen", &["agent/src/cli/"]),
    ("cpp_demangle", &["agent/src/inspect/"]),
    ("flate2", &["agent/src/export/"]),
    ("gimli", &["agent/src/inspect/"]),
    ("http_body", &["agent/src/export/"]),
    ("http_body_util", &["agent/src/export/"]),
    ("httparse", &["agent/src/protocol/"]),
    ("iced_x86", &["agent/src/inspect/"]),
    ("lzma_rust2", &["agent/src/inspect/"]),
    ("object", &["agent/src/inspect/", "agent/src/fuzzing/", "xtask/src/"]),
    ("procfs", &["agent/src/discover/"]),
    ("reqwest", &["agent/src/export/", "agent/src/debuginfod"]),
    ("rustc_demangle", &["agent/src/inspect/"]),
    // A program under test is built on it, and a backend that misbehaves.
    (
        "tokio",
        &[
            "agent/src/export/",
            "agent/src/debuginfod",
            "tests/src/sink",
            "tests/programs/servers/axum/",
        ],
    ),
    ("toml", &["agent/src/config/"]),
];

/// The files that may hold `unsafe`, and why.
const UNSAFE: &[(&str, &str)] = &[
    ("agent-ebpf/src/", "the kernel half reads kernel and user memory; the verifier checks it"),
    ("agent/fuzz/src/lib.rs", "counts what is allocated"),
    ("agent/src/function/value/tests/tracee.rs", "ptrace: stops programs at breakpoints"),
    ("agent/src/platform/clock.rs", "clock_gettime"),
    ("agent/src/platform/memory.rs", "malloc_trim"),
    ("agent/src/probe/bpf/", "calls of bpf(2)"),
    ("agent/src/probe/function/exercise.rs", "calls of functions written in assembly"),
    ("agent/src/run/functions/lease.rs", "leases: fcntl"),
    ("agent/src/probe/function/uprobe.rs", "calls of bpf(2) and perf_event_open(2)"),
    ("agent/src/probe/ring.rs", "memory shared with the kernel"),
    ("agent/src/run/inherited.rs", "signals as they were before Rust's runtime began"),
    ("agent/src/run/launch.rs", "a descriptor across exec, and kill"),
    ("agent/src/run/signals.rs", "signalfd"),
    ("tests/programs/functions/values/conventions.rs", "instructions on vectors"),
    ("tests/src/kernel.rs", "asks bpf(2) what is left"),
    ("tests/src/uring.rs", "memory shared with the kernel, and syscalls that std has no name for"),
    ("tests/tests/capture/", "socket calls that std has no name for"),
    ("tests/tests/functions_kernel/", "calls of functions written in assembly"),
    ("tests/tests/sources/web.rs", "sendfile"),
];

/// Words that have no place in any file, with the reason.
fn forbidden_words() -> Vec<(String, &'static str)> {
    // Put together here, so that this file does not hold them itself.
    [
        (["/wo", "rk/"], "a path of one machine"),
        (["/ro", "ot/"], "a path of one machine"),
        (["to", "do!("], "unfinished code"),
        (["unimpl", "emented!("], "unfinished code"),
        (["db", "g!("], "debugging output"),
        (["thread::sl", "eep"], "wait for a condition instead"),
    ]
    .map(|([a, b], why)| (format!("{a}{b}"), why))
    .to_vec()
}

/// Licences that may be linked into the agent (SPDX).
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Checks the repository.
pub(crate) fn run(root: &Path) -> Result<()> {
    let sources = sources(root)?;
    let mut wrong = Vec::new();
    for source in &sources {
        wrong.extend(check(source));
    }
    wrong.extend(manifests(root));
    wrong.extend(names::check(root, &sources));
    if wrong.is_empty() {
        println!("tidy: {} files keep the rules", sources.len());
        return Ok(());
    }
    let mut text = String::new();
    for line in &wrong {
        writeln!(text, "  {line}")?;
    }
    bail!("{} rules are broken:\n{text}", wrong.len());
}

fn check(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    let path = &source.path;
    let lines = source.text.lines().count();
    if !source.text.starts_with("//!") {
        wrong.push(format!("{path}: does not begin with `//!`: what it owns and refuses"));
    }
    if lines > LINES_MAX {
        wrong.push(format!("{path}: {lines} lines; split it before {LINES_MAX}"));
    } else if lines > LINES_MANY && !source.is_test() {
        println!("tidy: look twice at {path}: {lines} lines");
    }
    for (word, why) in forbidden_words() {
        if source.text.contains(&word) {
            wrong.push(format!("{path}: `{word}`: {why}"));
        }
    }
    for (name, homes) in HOMES {
        let uses = |line: &str| {
            let line = line.trim_start();
            let code = !line.starts_with("//");
            code && (line.contains(&format!("use {name}::"))
                || line.contains(&format!(" {name}::"))
                || line.contains(&format!("({name}::"))
                || line.contains(&format!("<{name}::")))
        };
        let home =
            homes.iter().any(|home| path.starts_with(home)) || path.starts_with("agent/fuzz");
        if !home && source.code().lines().any(uses) {
            wrong.push(format!("{path}: names `{name}`, which lives in {}", homes.join(", ")));
        }
    }
    let holds_unsafe = source.text.lines().any(|line| {
        let line = line.trim_start();
        !line.starts_with("//")
            && ["unsafe {", "unsafe impl", "unsafe fn"].iter().any(|w| line.contains(w))
    });
    if holds_unsafe
        && !path.starts_with("xtask")
        && !UNSAFE.iter().any(|(file, _)| path.starts_with(file))
    {
        wrong.push(format!("{path}: has `unsafe`, but is not in xtask's list of files that may"));
    }
    if !source.is_test() && source.code().contains(".unwrap()") {
        wrong.push(format!("{path}: `.unwrap()` outside tests"));
    }
    wrong
}

/// Lock files are there, and every dependency's licence is known to be good.
fn manifests(root: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut lines = BTreeSet::new();
    for workspace in ["", "agent-ebpf", "agent/fuzz"] {
        let (place, lock) = (root.join(workspace), Path::new(workspace).join("Cargo.lock"));
        let lock = lock.display();
        if !place.join("Cargo.lock").is_file() {
            wrong.push(format!("{lock} is missing"));
        }
        let mut metadata = crate::command::cargo();
        metadata.current_dir(place).args(["tree", "--workspace", "--locked", "--prefix", "none"]);
        metadata.args(["--edges", "normal,build", "--format", "{p}\t{l}"]);
        match crate::command::output(&mut metadata) {
            Some(tree) => lines.extend(tree.lines().map(str::to_owned)),
            None => {
                wrong.push(format!("`cargo tree --locked` fails: is {lock} up to date?"));
            }
        }
    }
    for line in lines {
        let Some((package, licence)) = line.split_once('\t') else { continue };
        let licence = licence.trim_end_matches(" (*)");
        if !is_good_licence(licence) {
            wrong.push(format!("{package}: licence `{licence}` is not in the list"));
        }
    }
    wrong
}

/// Whether some choice that an SPDX expression leaves is in the list.
fn is_good_licence(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], "");
    expression.split(" OR ").any(|choice| {
        choice.split(" AND ").all(|licence| {
            let licence = licence.split(" WITH ").next().unwrap_or(licence).trim();
            LICENCES.contains(&licence)
        })
    })
}

/// The repository's own Rust files.
fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut waiting: Vec<PathBuf> =
        ["agent", "agent-common", "agent-ebpf", "tests", "xtask"].map(|top| root.join(top)).into();
    while let Some(directory) = waiting.pop() {
        let entries = std::fs::read_dir(&directory)
            .with_context(|| format!("cannot read {}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    waiting.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path)?;
                let path = path.strip_prefix(root)?.to_string_lossy().into_owned();
                sources.push(Source { path, text });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_repository_is_tidy() {
        if let Err(error) = run(&crate::command::root()) {
            panic!("{error:#}");
        }
    }

    #[test]
    fn each_rule_has_something_to_say() {
        let says = |path: &str, text: &str| {
            let source = Source { path: path.to_owned(), text: text.to_owned() };
            check(&source).join("\n")
        };
        let unsafe_code = concat!("//! x\nfn f() { un", "safe { g() } }");
        for (path, text, part) in [
            ("agent/src/x.rs", "fn f() {}", "does not begin with"),
            ("agent/src/x.rs", "//! x\nuse aya::Ebpf;", "names `aya`"),
            ("agent/src/x.rs", "//! x\nuse reqwest::Url;", "names `reqwest`"),
            ("agent/src/x.rs", unsafe_code, "has `unsafe`"),
            ("agent/src/x.rs", "//! x\nfn f() { g().unwrap() }", "outside tests"),
            ("agent/src/x.rs", &format!("//! x\n{}", "\n".repeat(900)), "split it"),
            (
                "agent/src/x.rs",
                &format!("//! x\n// {}{}", "/wo", "rk/main"),
                "a path of one machine",
            ),
        ] {
            let said = says(path, text);
            assert!(said.contains(part), "{text:.60} gave {said:?}");
        }
        let fine = "//! x\nfn f() {}\n#[cfg(test)]\nmod tests { fn g() { h().unwrap() } }";
        assert_eq!(says("agent/src/x.rs", fine), "");
        assert_eq!(says("agent/src/probe/x.rs", "//! x\nuse aya_obj::Object;"), "");
    }

    #[test]
    fn licences_are_read() {
        for (licence, good) in [
            ("MIT", true),
            ("MIT OR GPL-3.0", true),
            ("MIT/Apache-2.0", true),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("GPL-3.0", false),
            ("MIT AND GPL-3.0", false),
            ("", false),
        ] {
            assert_eq!(is_good_licence(licence), good, "{licence}");
        }
    }
}
