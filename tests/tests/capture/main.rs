//! Every capture source tells the same about the same traffic, and what it tells is true.
//!
//! Needs root. A source that works prints `source: NAME operations as told` for `cargo xtask vm`.
//! What a kernel cannot do is printed: as `elsewhere: needs …` where `cargo xtask vm` runs
//! it on a kernel that can, else as `skipped: needs …`.
#![expect(unsafe_code, reason = "the captured program makes its syscalls itself")]

mod observed;
mod traffic;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};

use observed::Observed;
use remora::event::Role;
use remora::platform::btf::Btf;
use remora::probe::function::selftest::SelfTest;
use remora::probe::function::{FunctionProbes, Limits};
use remora::probe::{Capture, CaptureError, Options, Source, Verified, plan};
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
    check_programs(source, &capture);
    for family in Family::ALL {
        for age in ["new", "older"] {
            println!("{} {} {age}", source.as_str(), family.name());
            let (observed, told) = observe(&mut capture, family, age);
            observed.check_operations(&["a", "b", "c"], &told);
            observed.check_sequences();
            check_ends(&observed, source, family, age == "older");
        }
    }
    let counters = capture.counters().expect("counters");
    assert_eq!(counters.of(agent_common::counter::RING_FULL), 0);
    assert_eq!(counters.of(agent_common::counter::NO_STORAGE), 0);
    assert_eq!(counters.of(agent_common::counter::IO_URING), 0);
    println!("source: {} operations as told", source.as_str());
}

/// io_uring's operations are seen as sizes, or counted by the source that cannot see them: never
/// with bytes from a buffer that is not theirs.
#[test]
fn io_uring_is_told_without_bytes() {
    for (source, counter) in [
        (Source::SocketTracepoints, agent_common::counter::IO_URING),
        (Source::SocketFunctions, agent_common::counter::IO_URING),
        (Source::SyscallExit, agent_common::counter::IO_URING_UNSEEN),
    ] {
        let Some(mut capture) = start(source, source.as_str()) else { continue };
        for family in Family::ALL {
            println!("{} {}", source.as_str(), family.name());
            let (observed, told) = observe(&mut capture, family, "uring");
            if told.iter().any(|line| line == "no io_uring") {
                println!("skipped: needs io_uring");
                return;
            }
            if source == Source::SyscallExit {
                observed.check_payloads(&told);
            } else {
                observed.check_operations(&["a", "b"], &told);
                observed.check_sequences();
            }
        }
        let counters = capture.counters().expect("counters");
        assert!(counters.of(counter) > 0);
        assert_eq!(counters.of(agent_common::counter::UNREADABLE), 0);
    }
}

/// A process in namespaces of its own, seen from outside.
#[test]
fn a_process_in_other_namespaces_is_told_with_its_network() {
    for source in Source::ALL {
        let Some(mut capture) = start(source, source.as_str()) else { continue };
        let mut command = Command::new("unshare");
        command.args(["--net", "--pid", "--fork"]).arg(std::env::current_exe().expect("own path"));
        let seen = observe_command(&mut capture, command, Family::V4, "namespace", child_of);
        seen.observed.check_operations(&["a", "b", "c"], &seen.told);
        seen.observed.check_sequences();
        check_ends(&seen.observed, source, Family::V4, false);
        assert_eq!(seen.observed.sockets()[0].netns, seen.netns);
        assert_ne!(seen.netns, netns_of(std::process::id()));
    }
}

/// Forked children and the programs they start stay captured, on sockets they have inherited.
#[test]
fn forked_children_and_their_programs_are_followed() {
    for source in Source::ALL {
        let Some(mut capture) = start(source, source.as_str()) else { continue };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let script = format!(
            "echo ready; read go; exec 3<>/dev/tcp/127.0.0.1/{port}; (echo child >&3; head -c 4 <&3); echo parent >&3"
        );
        let mut shell = Command::new("bash")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash starts");
        let mut output = BufReader::new(shell.stdout.take().expect("piped"));
        output.read_line(&mut String::new()).expect("it gets ready");
        capture.selection().select(shell.id(), true, 4096).expect("selected");
        shell.stdin.take().expect("piped").write_all(b"go\n").expect("it listens");
        let (mut peer, _) = listener.accept().expect("it connects");
        peer.write_all(b"ping").expect("it reads");
        finish(&mut shell);
        let mut observed = Observed::new(shell.id());
        observed.follows = true;
        observed.drain_until_exit(&mut capture);
        let [socket] = observed.sockets() else { panic!("{:?}", observed.sockets()) };
        assert_eq!(socket.remote.ip().map(|ip| ip.port()), Some(port));
        let operations = observed.payloads(socket.id);
        let expected: [&[u8]; 3] = [b"child\n", b"ping", b"parent\n"];
        assert_eq!(operations.iter().map(|(_, bytes)| &bytes[..]).collect::<Vec<_>>(), expected);
        let [first, second, third] = [0, 1, 2].map(|index| operations[index].0);
        assert_eq!(third, shell.id());
        assert!(first != third && second != third, "children did it");
        assert_eq!(observed.programs(), ["head"]);
        assert_eq!(capture.selection().bits(shell.id()), None);
        assert_eq!(capture.selection().bits(second), None);
    }
}

/// Steps of the verifier that a program may take: the kernel refuses it at a million, and another
/// kernel's verifier may take several times as many.
const VERIFIER_STEPS_MAX: u32 = 250_000;

/// Far from what the verifier refuses, with what is left for kernels that have not been tried.
#[test]
fn programs_are_easy_to_verify() {
    for source in Source::ALL {
        if let Some(capture) = start(source, source.as_str()) {
            check_programs(source, &capture);
            let functions = FunctionProbes::load(&capture, Limits::default(), &SelfTest::ASSUMED);
            let functions = functions.expect("the program of function probes is taken");
            let Verified { program, steps, .. } = functions.verified();
            let steps = steps.expect("Linux 5.16 or later");
            println!("verified: functions {program} {steps} 0");
            assert!(steps < VERIFIER_STEPS_MAX, "{program}: {steps}");
        }
    }
}

fn check_programs(source: Source, capture: &Capture) {
    let programs = capture.programs();
    let kernel = Btf::from_sys_fs().expect("this kernel has BTF");
    let mut planned: Vec<_> =
        plan::probes(source, &kernel).iter().map(|probe| probe.program).collect();
    planned.sort_unstable();
    let attached: Vec<_> = programs.iter().map(|one| one.program.as_str()).collect();
    assert_eq!(attached, planned, "`remora plan` says what is attached");
    for Verified { program, steps, bytes } in programs {
        let (steps, bytes) = (steps.expect("Linux 5.16 or later"), bytes.expect("loaded by us"));
        println!("verified: {} {program} {steps} {bytes}", source.as_str());
        assert!(steps < VERIFIER_STEPS_MAX, "{program}: {steps}");
    }
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
        Err(
            error @ (CaptureError::Attach { .. }
            | CaptureError::Tracepoint { .. }
            | CaptureError::Function { .. }),
        ) => {
            let text = format!("{error:?}");
            // A program that the verifier refuses is a bug, not a missing feature.
            assert!(!text.contains("processed "), "{text}");
            // Kernels that refuse trampolines are common; `cargo xtask vm` has one that takes them.
            let word = if source == Source::SocketFunctions { "elsewhere" } else { "skipped" };
            println!("{word}: needs {needs}: {error}");
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
    let program = Command::new(std::env::current_exe().expect("own path"));
    let seen = observe_command(capture, program, family, age, |tgid| tgid);
    (seen.observed, seen.told)
}

struct Seen {
    observed: Observed,
    told: Vec<String>,
    netns: u32,
}

/// As [`observe`], where `command` starts the program and `captured` finds it.
fn observe_command(
    capture: &mut Capture,
    mut command: Command,
    family: Family,
    age: &str,
    captured: impl Fn(u32) -> u32,
) -> Seen {
    let mut child = command
        .args(["--exact", "captured_program", "--nocapture", "--test-threads=1"])
        .env(TRAFFIC, format!("{} {age}", family.name()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("program starts");
    let mut output = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut next = || output.next().map(|line| line.expect("a line"));
    while !next().expect("the program gets ready").ends_with("ready") {}
    let tgid = captured(child.id());
    let netns = netns_of(tgid);
    capture.selection().select(tgid, false, traffic::LIMIT as u32).expect("selected");
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
    let mut observed = Observed::new(tgid);
    observed.drain_until_exit(capture);
    Seen { observed, told, netns }
}

fn child_of(tgid: u32) -> u32 {
    let path = format!("/proc/{tgid}/task/{tgid}/children");
    let children = std::fs::read_to_string(path).expect("children");
    children.trim().parse().expect("one child")
}

/// The inode of a process's network namespace.
fn netns_of(tgid: u32) -> u32 {
    std::fs::metadata(format!("/proc/{tgid}/ns/net")).expect("a namespace").ino() as u32
}

fn finish(child: &mut Child) {
    assert!(child.wait().expect("it ends").success());
}

fn check_ends(observed: &Observed, source: Source, family: Family, is_older: bool) {
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
        // Of what it finds by address, a source learns that another socket has come to be there.
        let is_replaced = source == Source::SyscallExit && end.local == c.local;
        assert_eq!(observed.is_closed(end.id), is_tcp || is_replaced);
    }
}
