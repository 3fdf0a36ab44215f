//! Lines and inlined functions on stacks are those that `addr2line` and programs themselves say.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use remora_tests::compile::compile;
use remora_tests::spans;
use remora_tests::{Scratch, is_root, until};

use crate::scene::{ALL_RAISED, Waiting, ended, file, probing};
use crate::stacks::{said, stack};

/// Calls of a round.
const ROUND: usize = 3;

/// A function, its file, the line, and whether it was inlined into the next.
type Frame = (String, String, u32, bool);

/// Runs a program with probes on `work`, round after round, until the stacks of one are told as `is_told`
/// would have them by what it has printed: lines are read when they are needed first, and only so long is waited
/// for them.
fn play(
    program: &Path,
    scratch: &Scratch,
    work: &str,
    mut is_told: impl FnMut(&str, &[String]) -> bool,
) {
    let mut probed = Waiting::start(scratch, "probed", &mut Command::new(program));
    let agent = probing(scratch, probed.pid(), &[work], ALL_RAISED);
    let mut rounds = 0;
    until("a round with lines", || {
        rounds += 1;
        probed.tell("go");
        let mut calls = until("the round's calls", || {
            let mut calls = spans::read(&file(scratch));
            calls.retain(|span| span.text("code.function.name") == work);
            (calls.len() >= rounds * ROUND).then_some(calls)
        });
        calls.sort_by_key(|span| span.start);
        let last = calls.get((rounds - 1) * ROUND..).unwrap_or_default();
        let events = last.iter().flat_map(|span| &span.events);
        let stacks: Vec<String> = events.map(|event| stack(event).to_owned()).collect();
        is_told(&probed.printed(), &stacks).then_some(())
    });
    probed.end();
    let ended = ended(scratch, agent);
    assert_eq!(ended.code, Some(0), "{:#?}", ended.log);
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
fn by_tool(program: &Path, address: &str) -> Vec<Frame> {
    let mut tool = Command::new("llvm-addr2line");
    let output = tool.args(["-C", "-f", "-i", "-e"]).arg(program).arg(address).output();
    let output = output.expect("llvm-addr2line is there");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    let (pairs, _) = lines.as_chunks::<2>();
    let frames = pairs.iter().enumerate().map(|(at, [name, place])| {
        let (file, line) = place.rsplit_once(':').expect("a place");
        let line = line.split(' ').next().and_then(|line| line.parse().ok()).unwrap_or_default();
        (last(name).to_owned(), file.to_owned(), line, at + 1 < pairs.len())
    });
    frames.collect()
}

/// `of`: what has the debug information.
fn check(program: &Path, of: &Path, scratch: &Scratch, least: usize) {
    let mut by_address: HashMap<String, Vec<Frame>> = HashMap::new();
    play(program, scratch, "work", |stdout, stacks| {
        let said = said(stdout);
        let said = &said[said.len() - ROUND..];
        assert_eq!(stacks.len(), ROUND, "{stacks:#?}");
        said.iter().zip(stacks).all(|(said, stack)| {
            let mut expected = Vec::new();
            for address in said {
                let frames = by_address.entry((*address).to_owned());
                expected.extend(frames.or_insert_with(|| by_tool(of, address)).clone());
            }
            assert!(expected.iter().filter(|(.., is_inlined)| *is_inlined).count() >= least);
            assert!(!stack.contains('…'), "it is told to its end: {stack}");
            let told: Vec<Frame> = stack.lines().filter_map(frame).collect();
            // Each line that is told is right, whether the others are there or not.
            let is_right = |frame: &Frame| expected.contains(frame);
            let own = |frame: &&Frame| frame.1.contains("stacks/inlined.cpp");
            assert!(told.iter().filter(own).all(is_right), "{stack} {expected:#?}");
            // The C library's, around `main`, may have lines, too.
            told.get(..expected.len()) == Some(&*expected)
        })
    });
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

/// What says which functions are where lies in a file of its own.
#[test]
fn cpp_split() {
    cpp(&["-O2", "-g", "-gsplit-dwarf"], 5);
    cpp(&["-O2", "-g", "-gsplit-dwarf", "-gdwarf-4"], 5);
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
    play(&program, &scratch, "raise::work", |stdout, stacks| {
        let places = stdout.lines().filter_map(|line| line.strip_prefix("places "));
        let said: Vec<Vec<&str>> = places.map(|line| line.split(' ').collect()).collect();
        assert_eq!(stacks.len(), ROUND, "{stacks:#?}");
        said[said.len() - ROUND..].iter().zip(stacks).all(|(said, stack)| {
            let names = |line: &&str| line.starts_with("at raise::");
            let places = stack.lines().filter(names).filter_map(frame);
            let place = |(_, file, line, _): Frame| {
                format!("{}:{line}", file.rsplit('/').next().expect("one"))
            };
            let told: Vec<String> = places.map(place).collect();
            assert!(told.iter().all(|place| said.contains(&&**place)), "{stack} {said:?}");
            &told == said
        })
    });
}

#[test]
fn rust_optimised() {
    rust(&["-Copt-level=3", "-g"]);
}

#[test]
fn rust_at_one_place_in_memory() {
    rust(&["-Copt-level=1", "-g", "-Crelocation-model=static", "-Cforce-frame-pointers=no"]);
}
