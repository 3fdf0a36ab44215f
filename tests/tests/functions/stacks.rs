//! Stacks are those that programs say themselves.

use std::process::Command;

use remora_tests::compile::compile;
use remora_tests::spans::Span;
use remora_tests::{Scratch, is_root};

use crate::scene::{ALL, Waiting, ended, probing};

/// Runs a program with and without probes on `work`; each stack that it says, and that is told, without
/// what the two do not share.
fn check(source: &str, flags: &[&str], work: &str, name: impl Fn(&str) -> Option<&str>) {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let Some(program) = compile(&scratch, &format!("stacks/{source}"), flags) else { return };
    let start = |name| Waiting::start(&scratch, name, &mut Command::new(&program));
    let mut alone = start("alone");
    alone.tell("go");
    let alone = alone.end();
    let mut probed = start("probed");
    let options: Vec<&str> = [ALL, &["--exceptions"]].concat();
    let agent = probing(&scratch, probed.pid(), &[work], &options);
    probed.tell("go");
    let shown = probed.end();
    let ended = ended(&scratch, agent);
    assert_eq!(shown, alone);
    assert_eq!(ended.code, Some(0), "{:#?}", ended.log);
    let said: Vec<Vec<&str>> = shown
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("stack "))
        .map(|line| line.split(' ').collect())
        .collect();
    assert!(!said.is_empty(), "{shown:?}");
    let mut calls: Vec<&Span> =
        ended.spans.iter().filter(|span| span.text("code.function.name") == work).collect();
    calls.sort_by_key(|span| span.start);
    let stacks = calls.iter().flat_map(|span| &span.events).map(|event| {
        let stack = event.attributes.get("exception.stacktrace");
        stack.and_then(|stack| stack.as_str()).unwrap_or_default()
    });
    let stacks: Vec<&str> = stacks.collect();
    let told: Vec<Vec<&str>> =
        stacks.iter().map(|stack| stack.lines().filter_map(&name).collect()).collect();
    assert_eq!(told, said, "{stacks:#?} {:#?}", ended.log);
    for stack in stacks {
        assert!(!stack.contains('…'), "every one is told to its end: {stack}");
    }
}

/// `at NAME+0x… (…)`
fn native(line: &str) -> Option<&str> {
    let name = line.strip_prefix("at ")?;
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

fn go(flags: &[&str]) {
    // What the runtime calls between the program and a panic is not on the program's own stack.
    let inner = ["runtime.panicBounds", "runtime.panicBounds64", "runtime.goPanicIndex"];
    let inner = [&inner[..], &["runtime.panicmem", "runtime.sigpanic"]].concat();
    check("raise.go", flags, "main.work", |line| {
        line.strip_suffix("(...)").filter(|name| !inner.contains(name))
    });
}

#[test]
fn go_as_it_is() {
    go(&[]);
}

#[test]
fn go_of_a_position_independent_kind() {
    go(&["-buildmode=pie"]);
}

#[test]
fn go_stripped() {
    go(&["-ldflags=-s -w"]);
}
