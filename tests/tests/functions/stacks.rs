//! Stacks are those that programs say themselves.

use std::ffi::OsStr;
use std::process::Command;

use remora_tests::compile::compile;
use remora_tests::program::scripts;
use remora_tests::spans::{Event, Span};
use remora_tests::{Scratch, is_root, servers, wire};

use crate::scene::{ALL, ALL_RAISED, Twice, Waiting, ended, go, probing, twice};

/// Runs a program with and without probes on `work`; each stack that it says, and that is told, without
/// what the two do not share.
fn check(source: &str, flags: &[&str], work: &str, name: impl Fn(&str) -> Option<&str>) {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let Some(program) = compile(&scratch, &format!("stacks/{source}"), flags) else { return };
    let mut command = Command::new(&program);
    let Twice { alone, shown, ended } = twice(&scratch, &mut command, go, &[work], ALL_RAISED);
    assert_eq!(shown, alone);
    let said = said(&shown.stdout);
    let mut calls: Vec<&Span> =
        ended.spans.iter().filter(|span| span.text("code.function.name") == work).collect();
    calls.sort_by_key(|span| span.start);
    let stacks: Vec<&str> = calls.iter().flat_map(|span| &span.events).map(stack).collect();
    let told: Vec<Vec<&str>> =
        stacks.iter().map(|stack| stack.lines().filter_map(&name).collect()).collect();
    assert_eq!(told, said, "{stacks:#?} {:#?}", ended.log);
    for stack in stacks {
        assert!(!stack.contains('…'), "every one is told to its end: {stack}");
    }
}

/// The stacks that a program says.
pub(crate) fn said(stdout: &str) -> Vec<Vec<&str>> {
    let lines = stdout.lines().filter_map(|line| line.strip_prefix("stack "));
    let said: Vec<Vec<&str>> = lines.map(|line| line.split(' ').collect()).collect();
    assert!(!said.is_empty(), "{stdout}");
    said
}

pub(crate) fn stack(event: &Event) -> &str {
    let stack = event.attributes.get("exception.stacktrace");
    stack.and_then(|stack| stack.as_str()).unwrap_or_default()
}

/// `at NAME+0x… (…)`, `at NAME (FILE:LINE)`; of what has a frame of its own.
fn native(line: &str) -> Option<&str> {
    let name = line.strip_prefix("at ").filter(|line| !line.ends_with(" [inlined]"))?;
    let end = name.rfind("+0x").or(name.rfind(" ("))?;
    name.get(..end)
}

fn cpp(flags: &[&str]) {
    let flags: Vec<&str> = [&["-rdynamic"], flags].concat();
    // What lies around `main` has names that the program does not know.
    let around = ["__libc_start_call_main", "__libc_start_main", "_start"];
    check("raise.cpp", &flags, "work", |line| native(line).filter(|name| !around.contains(name)));
}

#[test]
fn cpp_without_frame_pointers() {
    cpp(&["-O2", "-fomit-frame-pointer"]);
}

#[test]
fn cpp_at_one_place_in_memory() {
    cpp(&["-O2", "-no-pie", "-g"]);
}

#[test]
fn cpp_stripped() {
    cpp(&["-O1", "-s"]);
}

#[test]
fn cpp_not_optimised() {
    cpp(&["-O0", "-g"]);
}

fn rust(flags: &[&str]) {
    check("raise.rs", flags, "raise::work", |line| {
        native(line).filter(|name| name.starts_with("raise::"))
    });
}

#[test]
fn rust_optimised() {
    rust(&["-Copt-level=3"]);
}

#[test]
fn rust_at_one_place_in_memory() {
    rust(&["-Copt-level=1", "-Crelocation-model=static", "-Cforce-frame-pointers=no"]);
}

fn go_program(flags: &[&str]) {
    // What the runtime calls between the program and a panic is not on the program's own stack.
    let inner = ["runtime.panicBounds", "runtime.panicBounds64", "runtime.goPanicIndex"];
    let inner = [&inner[..], &["runtime.panicmem", "runtime.sigpanic"]].concat();
    check("raise.go", flags, "main.work", |line| {
        line.strip_suffix("(...)").filter(|name| !inner.contains(name))
    });
}

#[test]
fn go_as_it_is() {
    go_program(&[]);
}

#[test]
fn go_of_a_position_independent_kind() {
    go_program(&["-buildmode=pie"]);
}

#[test]
fn go_stripped() {
    go_program(&["-ldflags=-s -w"]);
}

/// Who has called is said of calls, too, if that is asked for.
#[test]
fn calls() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let Some(program) = compile(&scratch, "stacks/raise.cpp", &["-O2"]) else { return };
    let mut probed = Waiting::start(&scratch, "probed", &mut Command::new(&program));
    let agent = probing(&scratch, probed.pid(), &["app::deep@stack", "work"], ALL);
    probed.tell("go");
    probed.end();
    let ended = ended(&scratch, agent);
    let of = |name: &str| {
        let mut spans: Vec<&Span> =
            ended.spans.iter().filter(|span| span.text("code.function.name") == name).collect();
        spans.sort_by_key(|span| span.start);
        spans.into_iter().map(|span| span.text("code.stacktrace").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of("work"), [""; 3]);
    let deep = of("app::deep");
    assert_eq!(deep.len(), 11, "{deep:#?}");
    for (depth, stack) in deep.iter().enumerate() {
        let names: Vec<&str> = stack.lines().filter_map(native).collect();
        let above = ["work", "main", "__libc_start_call_main", "__libc_start_main", "_start"];
        let expected: Vec<&str> = [&vec!["app::deep"; depth + 1][..], &above].concat();
        assert_eq!(names, expected);
    }
}

/// The script, for an interpreter of Python's.
fn python(interpreter: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(interpreter);
    command.arg(scripts().join("functions/stacks/raise.py"));
    command
}

/// `  File "…/NAME", line LINE, in FUNCTION`
fn of_python(line: &str) -> Option<String> {
    let (file, rest) = line.strip_prefix("  File \"")?.split_once("\", line ")?;
    let (line, function) = rest.split_once(", in ")?;
    Some(format!("{}:{line}:{function}", file.rsplit('/').next()?))
}

fn interpreted(mut command: Command) {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let ask = |program: &mut Waiting| assert!(wire::get(program.port(), "/").contains("200"));
    let Twice { alone, shown, ended } = twice(&scratch, &mut command, ask, &[], &["--exceptions"]);
    let said = said(&shown.stdout);
    assert_eq!(said, self::said(&alone.stdout));
    assert_eq!((&shown.stderr, shown.status), (&alone.stderr, alone.status));
    let stacks: Vec<&str> = ended.spans.iter().flat_map(|span| &span.events).map(stack).collect();
    let told: Vec<Vec<String>> =
        stacks.iter().map(|stack| stack.lines().filter_map(of_python).collect()).collect();
    assert_eq!(told, said, "{stacks:#?} {:#?}", ended.log);
    assert!(stacks.iter().all(|stack| !stack.contains('…')), "{stacks:#?}");
}

#[test]
fn python_as_it_is() {
    interpreted(python("python3"));
}

#[test]
fn python_3_9() {
    of_version("3.9");
}

#[test]
fn python_3_10() {
    of_version("3.10");
}

#[test]
fn python_3_12() {
    of_version("3.12");
}

#[test]
fn python_3_13() {
    of_version("3.13");
}

#[test]
fn python_3_14() {
    of_version("3.14");
}

/// One of those that set-up has fetched.
fn of_version(version: &str) {
    let Some(interpreter) = servers::python(version) else {
        println!("skipped: needs Python {version} (cargo xtask setup)");
        return;
    };
    interpreted(python(interpreter));
}

/// The names on the stack of a signal that ends a program.
fn of_signal(args: &[&str]) -> Option<Vec<String>> {
    if !is_root() {
        return None;
    }
    let scratch = Scratch::new();
    let flags = ["-O2", "-fomit-frame-pointer"];
    let program = compile(&scratch, "stacks/signal.c", &flags)?;
    let mut command = Command::new(&program);
    let mut probed =
        Waiting::start(&scratch, "probed", command.args(args).current_dir(scratch.path()));
    let agent = probing(&scratch, probed.pid(), &["work"], ALL_RAISED);
    probed.tell("go");
    probed.end();
    let ended = ended(&scratch, agent);
    let stacks: Vec<&str> = ended.spans.iter().flat_map(|span| &span.events).map(stack).collect();
    let [stack] = stacks[..] else { panic!("one event: {stacks:#?} {:#?}", ended.log) };
    assert!(!stack.contains('…'), "it is told to its end: {stack}");
    Some(stack.lines().filter_map(native).map(str::to_owned).collect())
}

const AROUND: [&str; 4] = ["main", "__libc_start_call_main", "__libc_start_main", "_start"];

#[test]
fn a_signal() {
    let Some(names) = of_signal(&[]) else { return };
    assert_eq!(names, [&["wrong", "work"], &AROUND[..]].concat());
}

/// What it has interrupted is found through the frame that the kernel has made.
#[test]
fn a_signal_within_a_handler() {
    let Some(names) = of_signal(&["interrupts"]) else { return };
    assert_eq!(names[..2], ["wrong", "handler"]);
    // Behind that the C library's own functions.
    assert_eq!(names[names.len() - 5..], [&["work"], &AROUND[..]].concat(), "{names:?}");
}

/// Copies of stacks are the first to go when a budget is small: calls are told without, and say so.
#[test]
fn a_storm_of_stacks_is_left_out_within_the_budget() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    // A function that begins with a push: hits are cheap beside stacks.
    let flags = ["-O0"];
    let Some(program) = compile(&scratch, "stacks/storm.c", &flags) else { return };
    let mut probed = Waiting::start(&scratch, "probed", &mut Command::new(&program));
    // 134 microseconds in each window: a dozen calls, and fewer stacks.
    let agent = probing(&scratch, probed.pid(), &["work@stack"], &["--max-overhead", "0.1%"]);
    probed.tell("go");
    let shown = probed.end();
    assert!(shown.status.success(), "{shown:?}");
    let ended = ended(&scratch, agent);
    assert_eq!(ended.code, Some(0), "{:#?}", ended.log);
    let of = |span: &&Span| span.text("code.function.name") == "work";
    let calls: Vec<&Span> = ended.spans.iter().filter(of).collect();
    let with = calls.iter().filter(|span| span.text("code.stacktrace").contains("at main")).count();
    let without = |why| {
        let is_left_out = |span: &&&Span| span.text("remora.stack.left_out") == why;
        calls.iter().filter(is_left_out).count()
    };
    let (budget, any) = (without("budget"), calls.len() - without(""));
    println!("{} calls, {with} stacks, {budget} without budget; {}", calls.len(), ended.done());
    assert!(with > 0 && budget > 0, "{:#?}", ended.log);
    assert_eq!(with + any, calls.len(), "each call has its stack or says why not");
    // A record may have been lost behind its stack.
    let suppressed = ended.count("remora_stacks_suppressed_total");
    assert!(suppressed >= budget as u64, "{suppressed} {budget}");
    assert_eq!(ended.count("remora_stacks_left_out_total"), suppressed + (any - budget) as u64);
}
