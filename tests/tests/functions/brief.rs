//! Programs that are over in their first millisecond: what they do by libraries is told as what they do
//! themselves, from before `main` on, and nobody holds them up.

use std::path::Path;
use std::process::Command;

use remora_tests::agent::{Agent, Ended, binary};
use remora_tests::compile::{compile, compile_file};
use remora_tests::program::scripts;
use remora_tests::{Scratch, is_root, spans};

use crate::scene::{ALL, spans_by_function};

/// How often a program is started. One that is seen by luck is not seen so often.
const TIMES: usize = 10;

/// Starts a program by an agent; the end of both.
fn launched(scratch: &Scratch, name: &str, options: &[&str], command: &[&Path]) -> Ended {
    let file = scratch.file(name);
    let mut launcher = Command::new(binary());
    launcher.arg("exec").args(ALL).args(options).arg("--file").arg(&file).arg("--").args(command);
    let mut ended = Agent::start(&mut launcher).end();
    ended.spans = spans::read(&file);
    assert_eq!(ended.code, Some(0), "{:#?}", ended.log);
    assert_eq!(ended.count("lost"), 0, "{:#?}", ended.log);
    ended
}

/// The types and messages of exceptions, in their order.
fn raised(ended: &Ended) -> Vec<(&str, &str)> {
    let events = ended.spans.iter().flat_map(|span| &span.events);
    let mut raised: Vec<_> = events
        .filter(|event| event.name == "exception")
        .map(|event| {
            let value = |key| event.attributes.get(key).and_then(|value| value.as_str());
            let [name, message] = ["exception.type", "exception.message"].map(value);
            (name.unwrap_or_default(), message.unwrap_or_default())
        })
        .collect();
    raised.sort_unstable();
    raised
}

#[test]
fn an_exception_by_a_shared_library() {
    let scratch = Scratch::new();
    if !is_root() {
        return;
    }
    let Some(program) = compile(&scratch, "exceptions/brief.cpp", &["-O2"]) else { return };
    let options = ["--exceptions", "--functions", "work"];
    let expected = ["early", "late"].map(|message| ("std::runtime_error", message));
    for time in 0..TIMES {
        let ended = launched(&scratch, &format!("{time}.jsonl"), &options, &[&program]);
        assert_eq!(ended.stdout, "5\n");
        assert_eq!(raised(&ended), expected, "{:#?}", ended.log);
        assert_eq!(spans_by_function(&ended).get("work"), Some(&3), "{:#?}", ended.log);
    }
}

/// One of its own, where only the program says it is.
#[test]
fn calls_in_a_library_of_its_own() {
    let scratch = Scratch::new();
    if !is_root() {
        return;
    }
    let source = scripts().join("functions/hazards/library.c");
    let library = scratch.file("libinner.so");
    let shared = ["-O2", "-shared", "-fPIC", "-Wl,-soname,libinner.so"];
    if !compile_file(&source, &library, &shared) {
        return;
    }
    let beside = format!("-L{}", scratch.path().display());
    for rpath in ["-Wl,--enable-new-dtags,-rpath,$ORIGIN", "-Wl,--disable-new-dtags,-rpath,$ORIGIN"]
    {
        let flags = ["-O2", &beside, rpath, "-linner"];
        let Some(program) = compile(&scratch, "exceptions/calls.c", &flags) else { return };
        let options = ["--functions", "libinner.so!shared"];
        let ended = launched(&scratch, "calls.jsonl", &options, &[&program]);
        assert_eq!(ended.stdout, "calls shared 2\n");
        assert_eq!(spans_by_function(&ended).get("shared"), Some(&2), "{:#?}", ended.log);
        std::fs::remove_file(scratch.file("calls.jsonl")).expect("it was read");
    }
}

/// What runs is the interpreter that its first line names.
#[test]
fn a_script() {
    let scratch = Scratch::new();
    if !is_root() {
        return;
    }
    let Some(program) = compile(&scratch, "exceptions/brief.cpp", &["-O2"]) else { return };
    let script = scratch.file("script");
    std::fs::write(&script, format!("#! {}\n", program.display())).expect("the directory is ours");
    let made = Command::new("chmod").arg("+x").arg(&script).status();
    assert!(made.is_ok_and(|status| status.success()));
    let options = ["--exceptions", "--functions", "work"];
    let ended = launched(&scratch, "script.jsonl", &options, &[&script]);
    assert_eq!(ended.stdout, "5\n");
    assert_eq!(raised(&ended).len(), 2, "{:#?}", ended.log);
    assert_eq!(spans_by_function(&ended).get("work"), Some(&3), "{:#?}", ended.log);
}
