//! Every capture source tells the same about the same traffic, and what it tells is true.
//!
//! Needs root. What a kernel cannot do is printed as `skipped: needs …`.
#![expect(unsafe_code, reason = "the captured program makes its syscalls itself")]

mod observed;
mod traffic;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use observed::Observed;
use remora::event::Role;
use remora::probe::{Capture, CaptureError, Options, Source};
use traffic::Family;

/// Says which traffic a process of this program is to make.
const TRAFFIC: &str = "REMORA_TEST_TRAFFIC";

/// The captured process: not a test, unless it was started by one.
#[test]
fn captured_program() {
    if let Ok(arguments) = std::env::var(TRAFFIC) {
        traffic::run(&arguments);
    }
}

#[test]
fn socket_tracepoints_tell_what_happened() {
    check(Source::SocketTracepoints, "the socket tracepoints (Linux 6.3)");
}

#[test]
fn socket_functions_tell_what_happened() {
    check(Source::SocketFunctions, "fexit");
}

#[test]
fn syscall_exits_tell_what_happened() {
    check(Source::SyscallExit, "BTF tracepoints");
}

fn check(source: Source, needs: &str) {
    let Some(mut capture) = start(source, needs) else { return };
    for family in Family::ALL {
        for age in ["new", "older"] {
            println!("{} {} {age}", source.as_str(), family.name());
            let (observed, told) = observe(&mut capture, family, age);
            observed.check_operations(&told);
            observed.check_sequences();
            check_ends(&observed, family, age == "older");
        }
    }
    let counters = capture.counters().expect("counters");
    assert_eq!(counters[agent_common::counter::RING_FULL as usize], 0);
    assert_eq!(counters[agent_common::counter::NO_STORAGE as usize], 0);
    assert_eq!(counters[agent_common::counter::IO_URING as usize], 0);
}

fn start(source: Source, needs: &str) -> Option<Capture> {
    let options = Options {
        source: Some(source),
        ring_bytes: 16 << 20,
        processes_max: 1024,
        payload_limit: traffic::LIMIT as u32,
        rules: false,
    };
    match Capture::start(&options) {
        Ok(capture) => Some(capture),
        Err(error @ (CaptureError::Attach { .. } | CaptureError::Function { .. })) => {
            let text = format!("{error:?}");
            // A program that the verifier refuses is a bug, not a missing feature.
            assert!(!text.contains("processed "), "{text}");
            println!("skipped: needs {needs}: {error}");
            None
        }
        Err(error) if !procfs_says_root() => {
            println!("skipped: needs root: {error}");
            None
        }
        Err(error) => panic!("{error:?}"),
    }
}

fn procfs_says_root() -> bool {
    // SAFETY: takes no arguments.
    unsafe { libc::geteuid() == 0 }
}

/// Starts the program, captures it, and returns what was seen and what the program says.
fn observe(capture: &mut Capture, family: Family, age: &str) -> (Observed, Vec<String>) {
    let program = std::env::current_exe().expect("own path");
    let mut child = Command::new(program)
        .args(["--exact", "captured_program", "--nocapture", "--test-threads=1"])
        .env(TRAFFIC, format!("{} {age}", family.name()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("program starts");
    let mut output = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut next = || output.next().map(|line| line.expect("a line"));
    while !next().expect("the program gets ready").ends_with("ready") {}
    capture.select(child.id(), false, traffic::LIMIT as u32).expect("selected");
    child.stdin.take().expect("piped").write_all(b"go\n").expect("it listens");
    let mut told = Vec::new();
    loop {
        let line = next().expect("the program gets done");
        if line == "done" {
            break;
        }
        told.push(line);
    }
    while next().is_some() {}
    finish(&mut child);
    let mut observed = Observed::new(child.id());
    observed.drain_until_exit(capture);
    (observed, told)
}

fn finish(child: &mut Child) {
    assert!(child.wait().expect("it ends").success());
}

fn check_ends(observed: &Observed, family: Family, is_older: bool) {
    let [a, b, c] = observed.sockets() else { panic!("{:#?}", observed.sockets()) };
    assert_eq!((a.local, a.remote), (b.remote, b.local), "each is the other's peer");
    assert_eq!((a.netns, b.netns), (c.netns, c.netns));
    assert_eq!(a.role, Some(Role::Connected));
    assert_eq!(b.role, Some(Role::Accepted));
    assert_eq!(c.role, Some(Role::Connected));
    let is_tcp = family != Family::Unix;
    assert_eq!(a.is_older, is_older && is_tcp);
    assert_eq!(b.is_older, is_older && is_tcp);
    assert!(!c.is_older);
    for end in [a, b] {
        match family {
            Family::V4 | Family::Mapped => assert!(end.local.ip().expect("ip").is_ipv4()),
            Family::V6 => assert!(end.local.ip().expect("ip").is_ipv6()),
            Family::Unix => assert_eq!(end.local.ip(), None),
        }
        assert_eq!(observed.is_closed(end.id), is_tcp);
    }
}
