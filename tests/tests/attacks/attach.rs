//! Processes that are strange to attach to.

use std::process::Command;

use remora_tests::agent::{Agent, binary};
use remora_tests::kernel::programs_of;
use remora_tests::load::Random;
use remora_tests::program::{Program, python, scripts, service};
use remora_tests::wire::{Wire, get};
use remora_tests::{Scratch, is_root, until};

use crate::status_of;

#[test]
fn it_does_not_trace_itself() {
    if !is_root() {
        return;
    }
    // exec keeps the process id.
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" run --pid $$"]).arg(binary());
    let ended = Agent::start(&mut command).end();
    assert_eq!(ended.code, Some(1), "{:?}", ended.log);
    let says =
        ended.log.iter().any(|line| line.contains("is this agent, which never traces itself"));
    assert!(says, "{:?}", ended.log);
}

#[test]
fn a_process_may_die_at_any_moment_of_the_attaching() {
    if !is_root() {
        return;
    }
    let (stays, port) = service("stays", &[]);
    let scratch = Scratch::new();
    let agent = Agent::run(&scratch, &["--pid", &stays.pid().to_string()]);
    let all = programs_of(agent.pid()).len();
    assert_eq!(agent.stop().code, Some(0));
    let mut random = Random::new(2);
    let mut refused = 0;
    for _ in 0..50 {
        let mut dies = Program::start_told(&mut Command::new("cat"));
        let mut command = Command::new(binary());
        command.args(["run", "--console", "--pid", &dies.pid().to_string()]);
        let mut agent = Agent::start(&mut command);
        // It has that many programs already; they are all there shortly before it is ready.
        let some = random.below(all + all / 2);
        if some > all {
            agent.ready();
        }
        until("programs", || (programs_of(agent.pid()).len() >= some.min(all)).then_some(()));
        dies.kill();
        let ended = agent.end();
        let said = |text: &str| ended.log.iter().any(|line| line.contains(text));
        let is_refused = ended.code == Some(1) && said("it has exited or never existed");
        let is_done = ended.code == Some(0) && said("remora: done");
        assert!(is_refused || is_done, "{some}: {:?} {:?}", ended.code, ended.log);
        assert!(!said("panicked"), "{:?}", ended.log);
        refused += u32::from(is_refused);
    }
    println!("refused: {refused} of 50");
    assert!(get(port, "/after").ends_with("stays"));
}

#[test]
fn a_stopped_process_is_seen_when_it_goes_on() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (server, port) = service("stopped", &[]);
    let pid = server.pid().to_string();
    let signal = |name: &str| {
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.expect("kill(1) is there").success());
    };
    signal("STOP");
    until("its stop", || status_of(server.pid(), "State").starts_with('T').then_some(()));
    let agent = Agent::run(&scratch, &["--pid", &pid]);
    assert!(status_of(server.pid(), "State").starts_with('T'), "it is left as it was");
    let mut wire = Wire::to(port);
    wire.send(b"GET /first HTTP/1.1\r\nHost: h\r\n\r\n");
    signal("CONT");
    wire.expect("\r\n\r\nstopped");
    // Stopped again at the agent's end, and on.
    signal("STOP");
    until("its stop", || status_of(server.pid(), "State").starts_with('T').then_some(()));
    let ended = agent.stop();
    signal("CONT");
    assert!(get(port, "/after").ends_with("stopped"));
    assert_eq!(ended.spans.len(), 1, "{:?}", ended.log);
    assert_eq!(ended.spans[0].path(), "/first");
    assert_eq!(ended.spans[0].int("http.response.status_code"), Some(200));
    assert_eq!(ended.count("lost"), 0);
}

#[test]
fn a_process_that_another_tracer_holds_is_seen_by_both() {
    if !is_root() {
        return;
    }
    if Command::new("strace").arg("-V").output().is_err() {
        println!("skipped: needs strace");
        return;
    }
    let scratch = Scratch::new();
    let trace = scratch.file("strace");
    let mut command = Command::new("strace");
    command.args(["-f", "-e", "trace=network", "-o"]).arg(&trace).arg("python3");
    command.arg(scripts().join("service.py")).arg("held");
    let strace = Program::start(&mut command);
    let port: u16 = strace.line().parse().expect("it prints its port");
    let server = remora_tests::program::tree(strace.pid());
    let server = *server.get(1).expect("strace's child");
    assert_eq!(status_of(server, "TracerPid"), strace.pid().to_string());
    let agent = Agent::run(&scratch, &["--pid", &server.to_string()]);
    for number in 0..20 {
        assert!(get(port, &format!("/{number}")).ends_with("held"));
    }
    let ended = agent.stop();
    let paths: Vec<_> = ended.spans.iter().map(|span| span.path().to_owned()).collect();
    let expected: Vec<_> = (0..20).map(|number| format!("/{number}")).collect();
    assert_eq!(paths, expected, "{:?}", ended.log);
    assert_eq!(ended.count("lost"), 0);
    assert_eq!(status_of(server, "TracerPid"), strace.pid().to_string(), "it is still held");
    // The tracer saw the program's own calls and has not been let go.
    let text = std::fs::read_to_string(&trace).expect("strace writes it");
    assert!(text.matches("accept4(").count() >= 20, "{text}");
    let status = Command::new("kill").arg(server.to_string()).status();
    assert!(status.expect("kill(1) is there").success());
}

#[test]
fn a_process_that_may_only_read_and_write_is_seen_and_lives() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (mut server, port) = python("strict.py", &[]);
    let mut wire = Wire::to(port.parse().expect("it prints its port"));
    assert_eq!(server.line(), "strict");
    until("strict mode", || (status_of(server.pid(), "Seccomp") == "1").then_some(()));
    let agent = Agent::run(&scratch, &["--pid", &server.pid().to_string()]);
    for number in 0..20 {
        let request = format!("GET /{number} HTTP/1.1\r\nHost: h\r\n\r\n");
        wire.send(request.as_bytes()).expect("\r\n\r\nstrict");
    }
    drop(wire);
    assert_eq!(server.wait(), Some(3), "it ends as it wants to");
    // Nothing is left to trace, so it ends by itself.
    let ended = agent.end();
    assert_eq!((ended.code, ended.count("lost")), (Some(0), 0), "{:?}", ended.log);
    let paths: Vec<_> = ended.spans.iter().map(|span| span.path().to_owned()).collect();
    let expected: Vec<_> = (0..20).map(|number| format!("/{number}")).collect();
    assert_eq!(paths, expected, "{:?}", ended.log);
}
