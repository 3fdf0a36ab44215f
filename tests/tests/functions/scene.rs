//! One program run twice, alone and with probes on some of its functions.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use remora_tests::agent::{Agent, Ended, binary};
use remora_tests::program::scripts;
use remora_tests::spans::{self, Span, check_honest};
use remora_tests::{Scratch, until};

/// A program, what is probed of it, and what that must give.
pub(crate) struct Hazard {
    /// In `tests/programs/functions`.
    pub(crate) source: &'static str,
    /// For its compiler.
    pub(crate) flags: &'static [&'static str],
    /// For itself.
    pub(crate) args: &'static [&'static str],
    /// What is probed: patterns.
    pub(crate) functions: &'static [&'static str],
    /// How many spans there are to be.
    pub(crate) spans: Spans,
    /// More words for the agent.
    pub(crate) options: &'static [&'static str],
}

/// How many spans a function has, by the number of calls that its program counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spans {
    /// As many.
    Exact,
    /// As many, or none if the function cannot be probed without harm: then the agent says so.
    AllOrNone,
    /// At most as many: probes may get lost without harm.
    AtMost,
    /// Some; they say how many calls were left out before them, and are no more with those.
    Counted,
}

/// What a run of a program shows.
#[derive(Debug, PartialEq)]
pub(crate) struct Shown {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: ExitStatus,
}

impl Shown {
    /// The calls that the program counted, by function. A name may be told more than once.
    pub(crate) fn calls(&self) -> BTreeMap<&str, u64> {
        let lines = self.stdout.lines().filter_map(|line| {
            let line = line.strip_prefix("calls")?.trim_start_matches('~').trim_start();
            let (name, count) = line.rsplit_once(' ')?;
            Some((name, count.parse().expect("a count")))
        });
        lines.collect()
    }

    /// What must not differ: all but the counts that depend on timing.
    fn without_timing(&self) -> (Vec<&str>, &str, ExitStatus) {
        let lines = self.stdout.lines().filter(|line| !line.starts_with("calls~"));
        (lines.collect(), &self.stderr, self.status)
    }
}

/// A program that is there and waits for its line.
pub(crate) struct Waiting {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Waiting {
    /// Starts it.
    pub(crate) fn start(scratch: &Scratch, name: &str, command: &mut Command) -> Self {
        let [stdout, stderr] = ["out", "err"].map(|end| scratch.file(&format!("{name}.{end}")));
        let file = |path: &Path| File::create(path).expect("the directory is ours");
        command.stdin(Stdio::piped()).stdout(file(&stdout)).stderr(file(&stderr));
        let child = command.spawn();
        let mut child = child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        until("the program to be ready", || {
            let ended = child.try_wait().ok().flatten();
            let said = std::fs::read_to_string(&stderr).unwrap_or_default();
            assert_eq!(ended, None, "{command:?} has ended: {said}");
            let text = std::fs::read_to_string(&stdout).unwrap_or_default();
            text.starts_with("ready\n").then_some(())
        });
        Self { child, stdout, stderr }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The port that its second line names.
    pub(crate) fn port(&self) -> u16 {
        until("a port", || self.printed().lines().nth(1)?.parse().ok())
    }

    /// Sends it a line.
    pub(crate) fn tell(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("it is a pipe");
        // It may have ended.
        let _ = stdin.write_all(format!("{line}\n").as_bytes());
    }

    /// What it has printed by now.
    pub(crate) fn printed(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Shown {
        drop(self.child.stdin.take());
        let status = until("the program's end", || self.child.try_wait().ok().flatten());
        let text = |path: &Path| {
            let bytes = std::fs::read(path).expect("it is there");
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Shown { stdout: text(&self.stdout), stderr: text(&self.stderr), status }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program's two runs, and what was told of the second.
pub(crate) struct Twice {
    pub(crate) alone: Shown,
    pub(crate) shown: Shown,
    pub(crate) ended: Ended,
}

/// Plays a program alone, and once more with probes.
pub(crate) fn twice(
    scratch: &Scratch,
    command: &mut Command,
    play: impl Fn(&mut Waiting),
    functions: &[&str],
    options: &[&str],
) -> Twice {
    let mut alone = Waiting::start(scratch, "alone", command);
    play(&mut alone);
    let alone = alone.end();
    let mut probed = Waiting::start(scratch, "probed", command);
    let agent = probing(scratch, probed.pid(), functions, options);
    play(&mut probed);
    let shown = probed.end();
    let ended = ended(scratch, agent);
    assert_eq!(ended.code, Some(0), "{:#?}", ended.log);
    Twice { alone, shown, ended }
}

/// Lets a program begin its work.
pub(crate) fn go(program: &mut Waiting) {
    program.tell("go");
}

/// An interpreter with a script in `functions/exceptions`, if it is there.
pub(crate) fn script(interpreter: &str, name: &str) -> Option<Command> {
    let at = Path::new("/usr/bin").join(interpreter);
    if !at.exists() {
        println!("skipped: needs {interpreter}");
        return None;
    }
    let mut command = Command::new(at);
    command.arg(scripts().join("functions/exceptions").join(name));
    Some(command)
}

/// An agent that probes functions of a process.
pub(crate) fn probing(scratch: &Scratch, pid: u32, functions: &[&str], options: &[&str]) -> Agent {
    let mut command = Command::new(binary());
    command.args(["run", "--stats", "--pid", &pid.to_string()]).args(options);
    for pattern in functions {
        command.args(["--functions", pattern]);
    }
    // Nor does it drop what it cannot write as fast as it comes.
    command.env("OTEL_BSP_MAX_QUEUE_SIZE", "1000000");
    command.arg("--file").arg(file(scratch));
    let mut agent = Agent::start(&mut command);
    agent.ready();
    agent
}

/// Waits until so many events are in the spans that [`probing`] has written.
pub(crate) fn wait_for_events(scratch: &Scratch, count: usize) {
    until("events in the file", || {
        let spans = spans::read(&file(scratch));
        let events: usize = spans.iter().map(|span| span.events.len()).sum();
        (events >= count).then_some(())
    });
}

/// Where [`probing`] writes spans.
pub(crate) fn file(scratch: &Scratch) -> PathBuf {
    scratch.file("spans.jsonl")
}

/// Waits for the end of an agent that has nothing left to trace.
pub(crate) fn ended(scratch: &Scratch, agent: Agent) -> Ended {
    let mut ended = agent.end();
    ended.spans = spans::read(&file(scratch));
    ended
}

/// Nothing is throttled: every call is to be seen.
pub(crate) const ALL: &[&str] = &["--max-overhead", "10000%", "--ring-mib", "64"];

/// And what is raised.
pub(crate) const ALL_RAISED: &[&str] =
    &["--max-overhead", "10000%", "--ring-mib", "64", "--exceptions"];

impl Hazard {
    /// Plays it: a program that [`command`](Self::command) starts, `before` the agent comes.
    pub(crate) fn play(
        &self,
        scratch: &Scratch,
        start: impl Fn() -> Command,
        before: impl Fn(&Waiting),
    ) -> (Shown, Ended) {
        let alone = Waiting::start(scratch, "alone", &mut start());
        let shown = told(alone);
        let probed = Waiting::start(scratch, "probed", &mut start());
        before(&probed);
        let agent = probing(scratch, probed.pid(), self.functions, self.options);
        let again = told(probed);
        let ended = ended(scratch, agent);
        self.judge(&shown, &again, &ended);
        (again, ended)
    }

    /// Whether the program did the same, and its calls are told.
    pub(crate) fn judge(&self, alone: &Shown, probed: &Shown, ended: &Ended) {
        assert_eq!(probed.without_timing(), alone.without_timing(), "{:#?}", ended.log);
        assert_eq!(ended.code, Some(0), "{:#?}", ended.log);
        let panicked = ended.log.iter().any(|line| line.contains("panicked"));
        assert!(!panicked, "{:#?}", ended.log);
        if matches!(self.spans, Spans::Exact | Spans::AllOrNone) {
            assert_eq!(ended.count("lost"), 0, "{:#?}", ended.log);
        }
        check_honest(&ended.spans);
        if ended.count("lost") == 0 {
            check_nested(&ended.spans);
        }
        let spans = spans_by_function(ended);
        let wrong: Vec<String> = probed
            .calls()
            .into_iter()
            .filter_map(|(function, calls)| {
                let spans = spans.get(function).copied().unwrap_or_default();
                let left_out = left_out(ended, function);
                let right = match self.spans {
                    Spans::Exact => spans == calls,
                    Spans::AllOrNone => spans == calls || (spans == 0 && refused(ended, function)),
                    Spans::AtMost => spans <= calls,
                    Spans::Counted => spans > 0 && spans + left_out <= calls,
                };
                (!right).then(|| {
                    format!("{function}: {calls} calls, {spans} spans, {left_out} left out")
                })
            })
            .collect();
        assert!(wrong.is_empty(), "{:?}: {wrong:#?} {:#?}", self.spans, ended.log);
    }
}

/// Lets a program go on to its end. Those that wait a second time are told at once.
fn told(mut program: Waiting) -> Shown {
    program.tell("go");
    program.tell("go");
    program.end()
}

/// How many spans each function has.
pub(crate) fn spans_by_function(ended: &Ended) -> BTreeMap<&str, u64> {
    let mut counts = BTreeMap::new();
    for span in &ended.spans {
        let name = span.text("code.function.name");
        if !name.is_empty() {
            *counts.entry(name).or_default() += 1;
        }
    }
    counts
}

/// Calls of a function that the agent says it has left out or lost.
fn left_out(ended: &Ended, function: &str) -> u64 {
    let spans = ended.spans.iter().filter(|span| span.text("code.function.name") == function);
    let told: i64 = spans.filter_map(|span| span.int("remora.suppressed")).sum();
    told as u64 + ended.count("lost")
}

/// Whether the agent has said that it does not probe this function.
fn refused(ended: &Ended, function: &str) -> bool {
    ended.log.iter().any(|line| line.contains(function))
}

/// A call lies within the call that it names as its parent.
fn check_nested(spans: &[Span]) {
    let by_id: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
    let is_nested = |span: &&Span| span.text("remora.parent.method") == "stack";
    let missing = spans
        .iter()
        .filter(is_nested)
        .filter(|span| !span.parent.as_deref().is_some_and(|parent| by_id.contains_key(parent)));
    let missing: Vec<_> = missing.collect();
    let first = missing.first();
    assert!(missing.is_empty(), "{} parents are missing, that of {first:#?}", missing.len());
    for span in spans.iter().filter(is_nested) {
        let parent = by_id[span.parent.as_deref().unwrap_or_default()];
        assert!(parent.start <= span.start && span.end <= parent.end, "{span:#?} in {parent:#?}");
    }
}
