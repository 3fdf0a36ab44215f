//! Requests in rare system calls, and between processes of rare shapes: every one is told as the programs tell it, by
//! every source that this kernel has.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use remora_tests::agent::{Agent, Ended};
use remora_tests::compile::compile_file;
use remora_tests::program::{Program, scripts};
use remora_tests::spans::{CLIENT, SERVER, Span, check_honest};
use remora_tests::{Scratch, is_root};

/// What the programs said, and what the agent did.
struct Played {
    told: Vec<String>,
    lost: BTreeSet<String>,
    /// By the path of a call: that of the request for whose sake it was made.
    within: BTreeMap<String, String>,
    ended: Ended,
}

/// Plays a program's shapes beside an agent with this source.
fn play(source: &str, command: &mut Command) -> Played {
    let scratch = Scratch::new();
    let mut program = Program::start_told(command);
    assert_eq!(program.line(), "ready");
    let pid = program.pid().to_string();
    let agent = Agent::run(&scratch, &["--stats", "--capture", source, "--follow", "--pid", &pid]);
    program.tell("go");
    let (mut told, mut lost, mut within) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
    loop {
        let line = program.line();
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["told", _shape, ref did @ ..] => told.push(did.join(" ")),
            ["lost", _shape, path] => drop(lost.insert(path.to_owned())),
            ["within", _shape, path, server] => {
                drop(within.insert(path.to_owned(), server.to_owned()));
            }
            _ => {
                assert_eq!(line, "done");
                break;
            }
        }
    }
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0));
    check_honest(&ended.spans);
    Played { told, lost, within, ended }
}

/// The path of a request, or what stands for it.
fn path(span: &Span) -> &str {
    match (span.path(), span.text("http.request.method")) {
        ("", "OPTIONS") => "*",
        ("", _) => "-",
        (path, _) => path,
    }
}

/// A span as the programs tell of it.
fn line(span: &Span) -> String {
    let number = |key: &str| span.int(key).map_or("-".to_owned(), |number| number.to_string());
    format!(
        "{} {} {} {} {} {}/{} {}",
        if span.kind == SERVER { "server" } else { "client" },
        span.resource["process.pid"],
        span.text("http.request.method"),
        path(span),
        number("http.response.status_code"),
        number("http.request.body.size"),
        number("http.response.body.size"),
        number("server.port"),
    )
}

/// What is wrong with what was seen.
fn faults(played: &Played) -> Vec<String> {
    let spans = &played.ended.spans;
    let mut faults = Vec::new();
    let mut missing = played.told.clone();
    for span in spans {
        let said = line(span);
        match missing.iter().position(|told| *told == said) {
            Some(index) => drop(missing.swap_remove(index)),
            None => faults.push(format!("said but not so: {said}")),
        }
        let lost = span.int("remora.lost").is_some();
        if lost != (span.kind == SERVER && played.lost.contains(path(span))) {
            faults.push(format!("lost: {lost}: {said}"));
        }
        let (kind, of) = match span.kind {
            SERVER => (CLIENT, path(span)),
            _ => (SERVER, played.within.get(path(span)).map_or("-", String::as_str)),
        };
        let parent = spans.iter().find(|other| other.kind == kind && self::path(other) == of);
        let parent = parent.map(|parent| parent.id.as_str());
        // Of what a process does for itself not everything can be known.
        let may_be_unknown = span.kind == CLIENT && span.parent.is_none();
        if span.parent.as_deref() != parent && !may_be_unknown {
            faults.push(format!("parent {:?}, not {parent:?}: {said}", span.parent));
        }
    }
    faults.extend(missing.iter().map(|told| format!("not said: {told}")));
    faults
}

fn check(source: &str, least: usize, command: &mut Command) {
    let played = play(source, command);
    assert!(played.told.len() >= least, "{:#?}", played.told);
    let faults = faults(&played);
    assert!(faults.is_empty(), "{faults:#?} {:#?}", played.ended.log);
}

fn check_python(source: &str) {
    if is_root() {
        check(source, 180, Command::new("python3").arg(scripts().join("shapes")));
    }
}

fn check_go(source: &str) {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let program = scratch.file("net");
    if compile_file(&scripts().join("shapes/net.go"), &program, &[]) {
        check(source, 50, &mut Command::new(program));
    }
}

#[test]
fn sockets_tell_of_every_shape() {
    check_python("socket");
}

#[test]
fn syscall_exits_tell_of_every_shape() {
    check_python("syscall");
}

#[test]
fn sockets_tell_of_what_go_does() {
    check_go("socket");
}

#[test]
fn syscall_exits_tell_of_what_go_does() {
    check_go("syscall");
}
