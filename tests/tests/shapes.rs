//! Requests in rare system calls, and between processes of rare shapes: every one is told as the programs tell it, by
//! every source that this kernel has.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use remora_tests::agent::{Agent, Ended};
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

/// Plays shapes, all of them if none is named, beside an agent with this source.
fn play(source: &str, shapes: &[&str]) -> Played {
    let scratch = Scratch::new();
    let mut command = Command::new("python3");
    command.arg(scripts().join("shapes")).args(shapes);
    let mut program = Program::start_told(&mut command);
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

/// A span as the programs tell of it.
fn line(span: &Span) -> String {
    let number = |key: &str| span.int(key).map_or("-".to_owned(), |number| number.to_string());
    format!(
        "{} {} {} {} {} {}/{} {}",
        if span.kind == SERVER { "server" } else { "client" },
        span.resource["process.pid"],
        span.text("http.request.method"),
        span.path(),
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
        if lost != (span.kind == SERVER && played.lost.contains(span.path())) {
            faults.push(format!("lost: {lost}: {said}"));
        }
        let (kind, path) = match span.kind {
            SERVER => (CLIENT, span.path()),
            _ => (SERVER, played.within.get(span.path()).map_or("-", String::as_str)),
        };
        let parent = spans.iter().find(|other| other.kind == kind && other.path() == path);
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

fn check(source: &str) {
    if !is_root() {
        return;
    }
    let played = play(source, &[]);
    assert!(played.told.len() > 50, "{:#?}", played.told);
    let faults = faults(&played);
    assert!(faults.is_empty(), "{faults:#?} {:#?}", played.ended.log);
}

#[test]
fn sockets_tell_of_every_shape() {
    check("socket");
}

#[test]
fn syscall_exits_tell_of_every_shape() {
    check("syscall");
}
