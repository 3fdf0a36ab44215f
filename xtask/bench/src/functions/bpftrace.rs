//! bpftrace, doing what the agent does: reading the same arguments where the function is entered, its
//! result where it returns, and telling of each call once.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use remora::function::plan::Planned;
use remora::inspect::demangle::Language;

use crate::callee::Callee;
use crate::sys;

/// How long it may take to attach, and to tell what it has seen.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing more may come before what is missing counts as lost.
const SILENCE: Duration = Duration::from_millis(500);
/// The first word of every record.
const WORD: &str = "price ";

/// What is read of a function, in bpftrace's words.
pub(super) struct Reads {
    /// At its entry.
    pub(super) arguments: &'static [&'static str],
    /// At its end.
    pub(super) results: &'static [&'static str],
    /// How all of them are printed, a directive each.
    pub(super) format: &'static str,
}

/// How it sees a function's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// By a uretprobe, which puts another return address into the target's stack.
    Replaced,
    /// By uprobes where the function returns, as the agent does.
    Probed,
}

impl Ends {
    /// What the agent is compared with.
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Replaced => {
                "what bpftrace adds, which replaces the return address (not done here)"
            }
            Self::Probed => "what bpftrace adds at the same returns",
        }
    }
}

/// Its program for a function of `file`, which has no symbols: only then does Debian's bpftrace, built
/// without a disassembler, take places within functions, which are places in the file then.
pub(super) fn script(file: &Path, function: &Planned, reads: &Reads, ends: Ends) -> String {
    let file = file.display();
    // A goroutine may go on on another thread.
    let task = if function.language == Language::Go { "reg(\"r14\")" } else { "tid" };
    let entry = function.placement.entry;
    // Where bpftrace's users place it, by the function's name.
    let begin = entry.offset.0.wrapping_sub(entry.address.0).wrapping_add(function.address.0);
    let places: Vec<String> = match ends {
        Ends::Replaced => vec![format!("uretprobe:{file}:{begin:#x}")],
        Ends::Probed => {
            let ends = function.placement.ends.iter();
            ends.map(|end| format!("uprobe:{file}:{:#x}", end.offset.0)).collect()
        }
    };
    let kept = (1..=reads.arguments.len()).map(|place| format!("$call.{place}"));
    let told: Vec<String> = kept.chain(reads.results.iter().map(ToString::to_string)).collect();
    format!(
        "uprobe:{file}:{begin:#x} {{ @calls[{task}] = (nsecs, {}); }}\n\
         {} {{ $call = @calls[{task}]; printf(\"{WORD}%ld {}\\n\", nsecs - $call.0, {}); \
         delete(@calls[{task}]); }}\n",
        reads.arguments.join(", "),
        places.join(", "),
        reads.format,
        told.join(", ")
    )
}

/// A running bpftrace; ended with the value.
pub(super) struct Bpftrace {
    child: Child,
    said: PathBuf,
    records: BufReader<File>,
    line: String,
    /// Records so far.
    told: u64,
    /// The last of them.
    pub(super) last: String,
}

impl Bpftrace {
    /// Starts it beside a process, on another CPU, and waits until it tells of calls.
    pub(super) fn start(scratch: &Path, script: &str, subject: &mut Callee) -> Result<Self> {
        let (program, output) = (scratch.join("trace.bt"), scratch.join("records"));
        let said = scratch.join("said");
        std::fs::write(&program, script)?;
        let mut command = Command::new("bpftrace");
        // As many pages as the agent's ring has. Unsafe is to bpftrace what it cannot check.
        command.env("BPFTRACE_PERF_RB_PAGES", "4096").args(["--unsafe", "-B", "line", "-p"]);
        command.arg(subject.pid().to_string()).arg(&program);
        sys::pinned(&mut command, 1).stdin(Stdio::null()).stdout(File::create(&output)?);
        let child = command.stderr(File::create(&said)?).spawn();
        let child = child.context("cannot start bpftrace")?;
        let (records, line, last) =
            (BufReader::new(File::open(&output)?), String::new(), String::new());
        let mut bpftrace = Self { child, said, records, line, told: 0, last };
        let deadline = Instant::now() + PATIENCE;
        while bpftrace.read()? == 0 {
            if let Some(status) = bpftrace.child.try_wait()? {
                bail!("bpftrace ended with {status}: {}", bpftrace.complaint());
            }
            if Instant::now() > deadline {
                bail!("bpftrace tells of no call: {}", bpftrace.complaint());
            }
            subject.batch(1)?;
            sys::rest(Duration::from_millis(20));
        }
        bpftrace.rest()?;
        Ok(bpftrace)
    }

    /// What it has said besides records.
    fn complaint(&self) -> String {
        let text = std::fs::read_to_string(&self.said).unwrap_or_default();
        // It warns of each place that it cannot check, and of a limit that does not matter.
        let is_complaint = |line: &&str| !line.starts_with("WARNING") && !line.contains("MEMLOCK");
        text.lines().filter(is_complaint).collect::<Vec<_>>().join(" ")
    }

    /// How many records have come.
    fn read(&mut self) -> Result<u64> {
        loop {
            // A line that is not whole yet stays until it is.
            if self.records.read_line(&mut self.line)? == 0 || !self.line.ends_with('\n') {
                return Ok(self.told);
            }
            if self.line.starts_with(WORD) {
                self.told += 1;
                self.last.clone_from(&self.line);
            }
            self.line.clear();
        }
    }

    /// Waits until nothing comes any more.
    fn rest(&mut self) -> Result<()> {
        let (mut before, mut since) = (self.read()?, Instant::now());
        while since.elapsed() < SILENCE {
            sys::rest(Duration::from_millis(5));
            let told = self.read()?;
            if told != before {
                (before, since) = (told, Instant::now());
            }
        }
        Ok(())
    }

    /// Waits for the records of a batch of calls; how many of them were lost.
    pub(super) fn lost_of(&mut self, before: u64, calls: u64) -> Result<u64> {
        let mut since = (self.read()?, Instant::now());
        while self.told < before + calls && since.1.elapsed() < SILENCE {
            sys::rest(Duration::from_millis(2));
            let told = self.read()?;
            if told != since.0 {
                since = (told, Instant::now());
            }
        }
        Ok((before + calls).saturating_sub(self.told))
    }

    /// Records so far.
    pub(super) fn told(&self) -> u64 {
        self.told
    }
}

impl Drop for Bpftrace {
    fn drop(&mut self) {
        // It detaches its probes before it ends.
        sys::end(&mut self.child, PATIENCE);
    }
}
