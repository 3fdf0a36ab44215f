//! Lines and inlined functions on stacks are those that `addr2line` and programs themselves say.

use std::path::Path;
use std::process::Command;

use remora_tests::compile::compile;
use remora_tests::spans::Span;
use remora_tests::{Scratch, is_root};

use crate::scene::{ALL, Waiting, ended, probing};
use crate::stacks::{said, stack};

/// A function, its file, the line, and whether it was inlined into the next.
type Frame = (String, String, u32, bool);

/// Runs a program with probes on `work`: what it prints, and the stacks that are told of it.
fn told(program: &Path, scratch: &Scratch, work: &str) -> (String, Vec<String>) {
    let mut probed = Waiting::start(scratch, "probed", &mut Command::new(program));
    let options: Vec<&str> = [ALL, &["--exceptions"]].concat();
    let agent = probing(scratch, probed.pid(), &[work], &options);
    probed.tell("go");
    let shown = probed.end();
    let ended = ended(scratch, agent);
    assert_eq!(ended.code, Some(0), "{:#?}", ended.log);
    let mut calls: Vec<&Span> =
        ended.spans.iter().filter(|span| span.text("code.function.name") == work).collect();
    calls.sort_by_key(|span| span.start);
    let stacks = calls.iter().flat_map(|span| &span.events).map(|event| stack(event).to_owned());
    (shown.stdout, stacks.collect())
}

/// `at NAME (FILE:LINE)`, or ` [inlined]` behind that.
fn frame(line: &str) -> Option<Frame> {
    let line = line.strip_prefix("at ")?;
    let (line, is_inlined) = match line.strip_suffix(" [inlined]") {
        Some(line) => (line, true),
        None => (line, false),
    };
    let (name, place) = line.strip_suffix(')')?.rsplit_once(" (")?;
    let (file, line) = place.rsplit_once(':')?;
    Some((last(name).to_owned(), file.to_owned(), line.parse().ok()?, is_inlined))
}

/// The last part of a name, without arguments: all that tools say of some.
fn last(name: &str) -> &str {
    let name = name.rsplit("::").next().unwrap_or_default();
    name.split('(').next().unwrap_or_default()
}

/// What `addr2line` says of an address of a program.
fn by_tool(program: &Path, address: &str) -> Option<Vec<Frame>> {
    let mut tool = Command::new("llvm-addr2line");
    let Ok(output) = tool.args(["-C", "-f", "-i", "-e"]).arg(program).arg(address).output() else {
        println!("skipped: needs llvm-addr2line");
        return None;
    };
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    let (pairs, _) = lines.as_chunks::<2>();
    let frames = pairs.iter().enumerate().map(|(at, [name, place])| {
        let (file, line) = place.rsplit_once(':').expect("a place");
        let line = line.split(' ').next().and_then(|line| line.parse().ok()).unwrap_or_default();
        (last(name).to_owned(), file.to_owned(), line, at + 1 < pairs.len())
    });
    Some(frames.collect())
}

/// `of`: what has the debug information.
fn check(program: &Path, of: &Path, scratch: &Scratch, least: usize) {
    let (stdout, stacks) = told(program, scratch, "work");
    let said = said(&stdout);
    assert_eq!(said.len(), 3, "{stdout}");
    assert_eq!(stacks.len(), 3, "{stacks:#?}");
    for (said, stack) in said.iter().zip(&stacks) {
        let by_tool: Option<Vec<Vec<Frame>>> =
            said.iter().map(|address| by_tool(of, address)).collect();
        let Some(by_tool) = by_tool else { return };
        let expected: Vec<Frame> = by_tool.into_iter().flatten().collect();
        let told: Vec<Frame> = stack.lines().filter_map(frame).collect();
        // The C library's, around `main`, may have lines, too.
        assert_eq!(told.get(..expected.len()), Some(&*expected), "{stack} {expected:#?}");
        let inlined = told.iter().filter(|(.., is_inlined)| *is_inlined).count();
        assert!(inlined >= least, "{stack}");
        assert!(!stack.contains('…'), "it is told to its end: {stack}");
    }
}

fn cpp(flags: &[&str], least: usize) {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let Some(program) = compile(&scratch, "stacks/inlined.cpp", flags) else { return };
    check(&program, &program, &scratch, least);
}

#[test]
fn cpp_optimised() {
    cpp(&["-O2", "-g"], 5);
}

#[test]
fn cpp_not_optimised() {
    cpp(&["-O0", "-g"], 4);
}

#[test]
fn cpp_at_one_place_in_memory() {
    cpp(&["-O2", "-g", "-gdwarf-4", "-no-pie", "-fomit-frame-pointer"], 5);
}

#[test]
fn cpp_of_the_linker() {
    cpp(&["-O2", "-g", "-flto", "-gz"], 5);
}

/// What debug information was put into a file of its own.
#[test]
fn cpp_stripped() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let flags = ["-O2", "-g", "-Wl,--build-id"];
    let Some(program) = compile(&scratch, "stacks/inlined.cpp", &flags) else { return };
    let (aside, bare) = (scratch.file("bare.debug"), scratch.file("bare"));
    let objcopy = |args: &[&str], from: &Path, to: &Path| {
        let done = Command::new("objcopy").args(args).arg(from).arg(to).status();
        assert!(done.expect("objcopy is there").success());
    };
    objcopy(&["--only-keep-debug", "--compress-debug-sections"], &program, &aside);
    objcopy(&["--strip-all", &format!("--add-gnu-debuglink={}", aside.display())], &program, &bare);
    check(&bare, &program, &scratch, 5);
}

/// Rust's own backtraces have lines, too.
fn rust(flags: &[&str]) {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let Some(program) = compile(&scratch, "stacks/raise.rs", flags) else { return };
    let (stdout, stacks) = told(&program, &scratch, "raise::work");
    let places = stdout.lines().filter_map(|line| line.strip_prefix("places "));
    let said: Vec<Vec<&str>> = places.map(|line| line.split(' ').collect()).collect();
    assert_eq!((said.len(), stacks.len()), (3, 3), "{stdout} {stacks:#?}");
    for (said, stack) in said.iter().zip(&stacks) {
        let names = |line: &&str| line.starts_with("at raise::");
        let places = stack.lines().filter(names).filter_map(frame);
        let told: Vec<String> = places
            .map(|(_, file, line, _)| format!("{}:{line}", file.rsplit('/').next().expect("one")))
            .collect();
        assert_eq!(&told, said, "{stack}");
    }
}

#[test]
fn rust_optimised() {
    rust(&["-Copt-level=3", "-g"]);
}

#[test]
fn rust_at_one_place_in_memory() {
    rust(&["-Copt-level=1", "-g", "-Crelocation-model=static", "-Cforce-frame-pointers=no"]);
}
