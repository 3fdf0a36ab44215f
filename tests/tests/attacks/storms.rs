//! More than the agent can take, or than it should keep: losses are told, nothing piles up.

use std::collections::BTreeSet;
use std::process::Command;

use remora_tests::agent::{Agent, Ended};
use remora_tests::kernel::keys_of_map;
use remora_tests::program::{Program, free_port, python, scripts};
use remora_tests::spans::Span;
use remora_tests::wire::Wire;
use remora_tests::{Scratch, is_root, until};

use crate::{drained, metric, resident_kib, status_of};

const RING_FULL: &str = "remora_lost_total{reason=\"events.ring_full\"}";

/// A span that has all that there is to know of a request to `many.py`, which answers its target.
fn is_whole(span: &Span) -> bool {
    span.int("http.response.status_code") == Some(200)
        && span.int("http.response.body.size") == Some(span.path().len() as i64)
        && ["error.type", "remora.end.reason"].iter().all(|key| span.text(key).is_empty())
}

/// Asks for `/WHAT/0`… in turns on connections that stay and on new ones. Each head fills most of
/// a page.
fn ask(port: u16, what: &str, count: usize, stay: &mut [Wire]) {
    let filler = "x".repeat(3000);
    for number in 0..count {
        let target = format!("/{what}/{number}");
        let request = format!("GET {target} HTTP/1.1\r\nHost: h\r\nX: {filler}\r\n\r\n");
        let turn = number % (2 * stay.len());
        let answer = match stay.get_mut(turn) {
            Some(wire) => wire.send(request.as_bytes()).expect(&target),
            None => Wire::to(port).send(request.as_bytes()).expect(&target),
        };
        assert!(answer.ends_with(&format!("\r\n\r\n{target}")), "{answer:?}");
    }
}

fn of<'a>(ended: &'a Ended, what: &str) -> Vec<&'a Span> {
    let starts = format!("/{what}/");
    let spans: Vec<_> =
        ended.spans.iter().filter(|span| span.path().starts_with(&starts)).collect();
    let paths: BTreeSet<_> = spans.iter().map(|span| span.path()).collect();
    assert_eq!(paths.len(), spans.len(), "no request is told twice");
    spans
}

#[test]
fn what_a_full_ring_loses_is_told_and_nothing_after_it() {
    if !is_root() {
        return;
    }
    const COUNT: usize = 1000;
    const PORTION: usize = 50;
    let scratch = Scratch::new();
    let (server, port) = python("many.py", &[]);
    let port: u16 = port.parse().expect("it prints its port");
    let metrics = free_port();
    let address = format!("127.0.0.1:{metrics}");
    let pid = server.pid().to_string();
    // On one CPU, as each CPU's losses are seen by what comes next on it.
    let cpus = status_of(server.pid(), "Cpus_allowed_list");
    let cpu = cpus.split([',', '-']).next().unwrap_or("0");
    let pinned = Command::new("taskset").args(["-c", "-p", cpu, &pid]).output();
    assert!(pinned.expect("taskset(1) is there").status.success());
    let args = ["--stats", "--ring-mib", "1", "--pid", &pid, "--metrics", &address];
    let agent = Agent::run(&scratch, &args);
    let mut stay: Vec<_> = (0..3).map(|_| Wire::to(port)).collect();
    ask(port, "before", 12, &mut stay);
    agent.signal("STOP");
    let is_stopped = || status_of(agent.pid(), "State").starts_with('T').then_some(());
    until("the agent's stop", is_stopped);
    // Three times what the ring can hold, and no one reads it: events are lost.
    ask(port, "flood", COUNT, &mut stay);
    agent.signal("CONT");
    // A loss is seen by the next event of the same kind on the same CPU.
    until("all losses seen", || {
        ask(port, "between", 6, &mut stay);
        drained(metrics);
        let lost = metric(metrics, RING_FULL);
        assert!(lost > 0, "the flood fits into the ring");
        (metric(metrics, "remora_events_missing_total") == lost).then_some(())
    });
    let lost = metric(metrics, RING_FULL);
    // And what was lost of a connection is seen by the next event of that one.
    ask(port, "settled", 6, &mut stay);
    drained(metrics);
    // In portions that fit into the ring even if the agent does not get a CPU meanwhile.
    for portion in 0..COUNT / PORTION {
        ask(port, &format!("after/{portion}"), PORTION, &mut stay);
        drained(metrics);
    }
    drop(stay);
    drained(metrics);
    assert_eq!(metric(metrics, RING_FULL), lost, "recovered");
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0));
    ask(port, "alone", 4, &mut [Wire::to(port)]);

    let before = of(&ended, "before");
    assert_eq!(before.len(), 12, "{}", ended.done());
    // A request without a span has lost an event at least, or is counted as untold: what was lost
    // was not looked into, so that an equation is not to be had.
    let flood = of(&ended, "flood");
    let untold = (COUNT - flood.len()) as u64;
    assert!(untold > 0, "{}", ended.done());
    assert!(untold <= ended.count("lost"), "{untold} of {}", ended.done());
    for span in flood {
        let says_so = span.int("remora.lost").is_some_and(|lost| lost > 0);
        assert!(says_so || is_whole(span), "{span:#?}");
    }
    // And what began after the last loss was seen is as if there had been none.
    let after = of(&ended, "after");
    assert_eq!(after.len(), COUNT, "{}", ended.done());
    for span in after {
        assert!(is_whole(span) && span.int("remora.lost").is_none(), "{span:#?}");
    }
    assert_eq!(ended.count("remora_kernel_events_total"), ended.count("remora_events_total"));
    println!("flood: {untold} of {COUNT} untold; {}", ended.done());
}

/// A thousand short processes, half of them forks; every one of them ends as it should.
fn storm(starter: &mut Program) {
    starter.tell("1000");
    assert_eq!(starter.line(), "1000", "every exit status is right");
}

/// Three storms; how much the agent has grown from the first to the last, in KiB.
fn growth(agent: &Agent, starter: &mut Program, settled: impl Fn()) -> u64 {
    let resident: Vec<_> = (0..3)
        .map(|_| {
            storm(starter);
            settled();
            // An exited process is forgotten by the kernel half itself.
            until("no dead process in the selection", || {
                let is_alive = |pid: &u32| std::fs::exists(format!("/proc/{pid}")).unwrap_or(true);
                keys_of_map(agent.pid(), "SELECTED").iter().all(is_alive).then_some(())
            });
            resident_kib(agent.pid())
        })
        .collect();
    println!("resident after each storm: {resident:?} KiB");
    resident[2].saturating_sub(resident[0])
}

/// What two thousand processes may leave behind, which is less than 1 KiB each.
const GROWTH_KIB: u64 = 1024;

#[test]
fn a_storm_of_processes_leaves_nothing_in_an_agent_that_looks_at_all() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let mut starter = Program::start_told(Command::new("python3").arg(scripts().join("storm.py")));
    assert_eq!(starter.line(), "ready");
    // Every program that starts on this host is looked at and found not to be wanted. (With `--all`
    // the agent would remember what the rest of the host does, too.)
    let args = ["--exe", "no-such-program-*", "--pid", &starter.pid().to_string()];
    let agent = Agent::run(&scratch, &args);
    let growth = growth(&agent, &mut starter, || ());
    assert!(growth < GROWTH_KIB, "{growth} KiB more");
    assert!(keys_of_map(agent.pid(), "SELECTED").contains(&starter.pid()));
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{:?}", ended.log);
}

#[test]
fn a_storm_of_children_leaves_nothing_in_an_agent_that_follows() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let metrics = free_port();
    let address = format!("127.0.0.1:{metrics}");
    let mut starter = Program::start_told(Command::new("python3").arg(scripts().join("storm.py")));
    assert_eq!(starter.line(), "ready");
    let pid = starter.pid().to_string();
    let agent = Agent::run(&scratch, &["--follow", "--pid", &pid, "--metrics", &address]);
    let growth = growth(&agent, &mut starter, || drained(metrics));
    assert!(growth < GROWTH_KIB, "{growth} KiB more");
    // One each, although every second child becomes another program.
    assert_eq!(metric(metrics, "remora_processes_traced_total"), 1 + 3 * 1000);
    assert_eq!(metric(metrics, "remora_processes"), 1);
    assert_eq!(metric(metrics, "remora_selected_processes"), 1);
    let chosen = keys_of_map(agent.pid(), "SELECTED");
    assert!(chosen.contains(&starter.pid()), "{chosen:?}");
    starter.kill();
    // Nothing is left to trace, so it ends by itself.
    let ended = agent.end();
    assert_eq!((ended.code, ended.count("lost")), (Some(0), 0), "{:?}", ended.log);
}

/// Raises this process's limit of open files as far as its hard limit allows; how many that are.
fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("proc(5)");
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let hard = line.and_then(|line| line.split_whitespace().nth(4)).expect("a hard limit");
    let mut command = Command::new("prlimit");
    command.args(["--pid", &std::process::id().to_string(), &format!("--nofile={hard}:{hard}")]);
    assert!(command.status().expect("prlimit(1) is there").success());
    hard.parse().unwrap_or(usize::MAX)
}

#[test]
fn ten_thousand_connections_are_seen_and_forgotten() {
    if !is_root() {
        return;
    }
    let count = 10_000.min(open_files() - 500);
    println!("connections: {count}");
    let scratch = Scratch::new();
    let (server, port) = python("many.py", &[]);
    let port: u16 = port.parse().expect("it prints its port");
    let metrics = free_port();
    let address = format!("127.0.0.1:{metrics}");
    let agent = Agent::run(&scratch, &["--pid", &server.pid().to_string(), "--metrics", &address]);
    Wire::to(port).send(b"GET /warm HTTP/1.1\r\nHost: h\r\n\r\n").expect("/warm");
    until("a span", || (metric(metrics, "remora_spans_total") == 1).then_some(()));
    let gauge = || metric(metrics, "remora_sockets");
    until("no connection", || (gauge() == 0).then_some(()));
    let mut wires: Vec<_> = (0..count).map(|_| Wire::to(port)).collect();
    for (number, wire) in wires.iter_mut().enumerate() {
        wire.send(format!("GET /{number} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
    }
    for (number, wire) in wires.iter_mut().enumerate() {
        let answer = wire.expect(&format!("\r\n\r\n/{number}"));
        assert!(answer.ends_with(&format!("\r\n\r\n/{number}")), "{answer:?}");
    }
    drained(metrics);
    assert_eq!(gauge(), count as u64, "all at one time");
    drop(wires);
    until("every socket is forgotten", || (gauge() == 0).then_some(()));
    let ended = agent.stop();
    assert_eq!((ended.code, ended.count("lost")), (Some(0), 0), "{:?}", ended.log);
    let numbers: BTreeSet<usize> =
        ended.spans.iter().filter_map(|span| span.path()[1..].parse().ok()).collect();
    assert_eq!(ended.spans.len(), count + 1);
    assert!(numbers.into_iter().eq(0..count), "each request has its span");
}
