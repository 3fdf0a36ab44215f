//! A made-up program run under the agent, and what that told of its calls held against what the program says.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use remora_tests::Scratch;
use remora_tests::agent::{Agent, Ended, binary};
use remora_tests::spans::{self, Span, check_honest};
use serde_json::Value;

use super::expected::{Expected, Tally};
use super::planned::{Outcome, Planned, ROWS};
use crate::scene::ALL;

/// What came of one program.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) calls: u64,
    /// Those before it was noticed that stacks are close to each other.
    pub(crate) unnoticed: u64,
    pub(crate) arguments: Tally,
    pub(crate) results: Tally,
    /// Calls that the agent says to have given up before they returned, by why.
    pub(crate) inferred: BTreeMap<String, u64>,
    /// What is not true.
    pub(crate) lies: Vec<String>,
}

impl Report {
    pub(crate) fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.unnoticed += other.unnoticed;
        self.arguments.add(&other.arguments);
        self.results.add(&other.results);
        for (reason, count) in other.inferred {
            *self.inferred.entry(reason).or_default() += count;
        }
        self.lies.extend(other.lies);
    }
}

/// A call as the program logged it.
struct Call {
    function: usize,
    /// Which of the thread's calls of the function.
    row: usize,
    parent: Option<usize>,
    /// Which of the function's calls came last in it, when it ended with that.
    last: Option<usize>,
    /// It was thrown or jumped through.
    unwound: bool,
}

/// Calls of one thread, in the order in which they were entered.
fn calls_of(lines: &[&str]) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    // What is open on each stack, and whether it will end with what it calls.
    let mut stacks: BTreeMap<usize, Vec<(usize, bool)>> = BTreeMap::new();
    let mut stack = 0;
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for line in lines {
        let (what, number) = line.split_once(' ').expect("two words");
        let number: usize = number.parse().expect("a number");
        let open = stacks.entry(stack).or_default();
        match what {
            "+" => {
                let count = counts.entry(number).or_default();
                let row = *count % ROWS;
                *count += 1;
                let parent = open.last().map(|(call, _)| *call);
                if let Some((parent, true)) = open.last() {
                    calls[*parent].last = Some(calls.len());
                }
                open.push((calls.len(), false));
                calls.push(Call { function: number, row, parent, last: None, unwound: false });
            }
            "~" => open.last_mut().expect("it is open").1 = true,
            "-" => {
                open.pop();
                while open.pop_if(|(_, leaves)| *leaves).is_some() {}
            }
            // It goes on in the call with this number.
            "!" => {
                while let Some((call, _)) = open.pop_if(|(call, _)| *call != number) {
                    calls[call].unwound = true;
                }
            }
            "L" => stack = number,
            other => panic!("{other}?"),
        }
    }
    assert!(stacks.values().all(Vec::is_empty), "what was entered is left");
    calls
}

/// The log, by thread.
fn log(path: &Path) -> BTreeMap<i64, Vec<Call>> {
    let text = std::fs::read_to_string(path).expect("the program writes it");
    let mut threads: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
    let mut thread = 0;
    for line in text.lines() {
        match line.strip_prefix("T ") {
            Some(id) => {
                thread = id.parse().expect("a number");
                threads.insert(thread, Vec::new());
            }
            None => threads.entry(thread).or_default().push(line),
        }
    }
    threads.into_iter().map(|(thread, lines)| (thread, calls_of(&lines))).collect()
}

/// The number of the function that a name is of.
fn function_of(name: &str) -> Option<usize> {
    let (_, rest) = name.rsplit_once("g_")?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (number, behind) = rest.split_at(end);
    // Not what lies within it, as Go's closures.
    if behind.is_empty() || behind.starts_with(['(', ' ', '.', '[']) {
        number.parse().ok()
    } else {
        None
    }
}

/// An attribute as text.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Runs a program alone and under the agent, and compares.
pub(crate) fn play(scratch: &Scratch, program: &Path, planned: &Planned) -> Report {
    let (alone, probed) = (scratch.file("alone.log"), scratch.file("probed.log"));
    let status = Command::new(program).arg(&alone).status().expect("it was compiled");
    let mut report = Report::default();
    if !status.success() {
        report.lies.push(format!("the program is not sound: {status}"));
        return report;
    }
    let ended = traced(scratch, program, &probed);
    let without_threads = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines().map(|line| if line.starts_with('T') { "T" } else { line });
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    if ended.code != Some(0) || without_threads(&alone) != without_threads(&probed) {
        report.lies.push(format!("the program does something else: {:#?}", ended.log));
        return report;
    }
    assert_eq!(ended.count("lost"), 0, "{:#?}", ended.log);
    check_honest(&ended.spans);
    compare(&log(&probed), &ended, planned, &mut report);
    report
}

fn traced(scratch: &Scratch, program: &Path, log: &Path) -> Ended {
    let file = scratch.file("spans.jsonl");
    // What another run has left.
    let _ = std::fs::remove_file(&file);
    let mut command = Command::new(binary());
    command.args(["exec", "--stats"]).args(ALL);
    // Not what starts Rust's programs, nor Go's closures.
    for pattern in ["*g_*", "!*lang_*", "!*.func*"] {
        command.args(["--functions", pattern]);
    }
    command.env("OTEL_BSP_MAX_QUEUE_SIZE", "1000000");
    command.arg("--file").arg(&file).arg("--").arg(program).arg(log);
    let mut ended = Agent::start(&mut command).end();
    ended.spans = spans::read(&file);
    ended
}

fn compare(
    threads: &BTreeMap<i64, Vec<Call>>,
    ended: &Ended,
    planned: &Planned,
    report: &mut Report,
) {
    let mut spans: BTreeMap<i64, Vec<(usize, &Span)>> = BTreeMap::new();
    let mut probed = vec![false; planned.functions.len()];
    for span in &ended.spans {
        let Some(function) = function_of(span.text("code.function.name")) else { continue };
        probed[function] = true;
        let thread = span.int("thread.id").unwrap_or(1);
        spans.entry(thread).or_default().push((function, span));
    }
    // Stacks that lie close to each other are noticed by what they make impossible.
    let is_noticed = |span: &&Span| span.link() == "stack inferred";
    let noticed = ended.spans.iter().filter(is_noticed).map(|span| span.start).min();
    let noticed = noticed.filter(|_| planned.stacks_are_close).unwrap_or(0);
    for (thread, calls) in threads {
        let told = spans.remove(thread).unwrap_or_default();
        let is_probed = |call: &&Call| probed[call.function];
        for call in calls.iter().filter(|call| !is_probed(call)) {
            let name = format!("g_{}", call.function);
            let said = ended.log.iter().any(|line| line.contains(&name));
            if !said {
                report.lies.push(format!("nothing is said of {name}, which is not told"));
            }
        }
        let of_probed: Vec<usize> = (0..calls.len()).filter(|n| is_probed(&&calls[*n])).collect();
        let order: Vec<usize> = of_probed.iter().map(|n| calls[*n].function).collect();
        let told_order: Vec<usize> = told.iter().map(|(function, _)| *function).collect();
        if order != told_order {
            let at = order.iter().zip(&told_order).take_while(|(one, other)| one == other).count();
            report.lies.push(format!(
                "calls {} and spans {} differ from {at} on: {:?} {:?}",
                order.len(),
                told_order.len(),
                &order[at..order.len().min(at + 5)],
                &told_order[at..told_order.len().min(at + 5)]
            ));
            continue;
        }
        let of_call: BTreeMap<usize, &Span> =
            of_probed.iter().copied().zip(told.iter().map(|(_, span)| *span)).collect();
        for (number, span) in &of_call {
            report.calls += 1;
            if span.start < noticed {
                report.unnoticed += 1;
                continue;
            }
            one(*number, calls, span, &of_call, planned, report);
        }
    }
}

/// One call.
fn one(
    number: usize,
    calls: &[Call],
    span: &Span,
    all: &BTreeMap<usize, &Span>,
    planned: &Planned,
    report: &mut Report,
) {
    let call = &calls[number];
    let function = &planned.functions[call.function];
    let mut lie = |what: String| {
        report.lies.push(format!("{what} (row {} of `{}`)", call.row, function.head));
    };
    // Its caller, or who called that, if it is not probed.
    let mut parent = call.parent;
    while let Some(above) = parent.filter(|above| !all.contains_key(above)) {
        parent = calls[above].parent;
    }
    let id = parent.map(|parent| all[&parent].id.as_str());
    // What is told as a guess may be one, and be made or not.
    let is_guessed =
        planned.stacks_are_close && ["stack inferred", ""].contains(&span.link().as_str());
    if span.parent.as_deref() != id && !is_guessed {
        lie(format!("its parent is {:?} and not {id:?}", span.parent));
    }
    let mut named: BTreeMap<&str, &Value> = BTreeMap::new();
    for (name, value) in &span.attributes {
        if let Some(name) = name.strip_prefix("remora.arg.") {
            named.insert(name, value);
        }
    }
    for (which, (name, rows)) in function.parameters.iter().enumerate() {
        // Rust's debug information has no names of those that nothing is left of.
        match named.remove(name.as_str()).or_else(|| named.remove(which.to_string().as_str())) {
            Some(value) => {
                let (told, right) = (text(value), &rows[call.row]);
                if !right.is(&told, &mut report.arguments) {
                    lie(format!("{name} is told as {told}, but is {right:?}"));
                }
            }
            None => {
                *report.arguments.reasons.entry("missing".to_owned()).or_default() += 1;
            }
        }
    }
    let is_looked_at = !matches!(function.result, Outcome::Unknown);
    for (name, value) in named.into_iter().filter(|_| is_looked_at) {
        lie(format!("there is no {name}, but {value} is told"));
    }
    let reason = span.text("remora.end.reason");
    if !reason.is_empty() {
        *report.inferred.entry(reason.to_owned()).or_default() += 1;
    }
    let right = match reason {
        // A call that ends with another may be a jump.
        "" => !call.unwound,
        "tail_call" => call.last.is_some(),
        "unwound" => call.unwound,
        "unknown" => planned.stacks_are_close,
        _ => false,
    };
    if !right {
        lie(format!("its end is told as {reason:?}, but unwound is {}", call.unwound));
    }
    let told = span.attributes.get("remora.return");
    if matches!(function.result, Outcome::Unknown) {
        return;
    }
    match (told, result(number, calls, planned)) {
        (None, None) => {}
        (None, Some(_)) => {
            *report.results.reasons.entry("missing".to_owned()).or_default() += 1;
        }
        (Some(told), None) => lie(format!("nothing is returned, but {told} is told")),
        (Some(told), Some(right)) => {
            let told = text(told);
            if !right.is(&told, &mut report.results) {
                lie(format!("the result is told as {told}, but is {right:?}"));
            }
        }
    }
}

/// What a call gave back.
fn result<'p>(number: usize, calls: &[Call], planned: &'p Planned) -> Option<&'p Expected> {
    let call = &calls[number];
    let function = &planned.functions[call.function];
    match &function.result {
        Outcome::Nothing | Outcome::Unknown => None,
        Outcome::Rows(rows) => rows.get(call.row),
        Outcome::Parameter(given) => function.parameters[*given].1.get(call.row),
        Outcome::Callee => result(call.last?, calls, planned),
    }
}
