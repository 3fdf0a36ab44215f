//! The agent is killed, and it is not there at all: the targets do the same.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use remora_tests::agent::{Agent, binary};
use remora_tests::kernel::{has_program, programs_of};
use remora_tests::load::Random;
use remora_tests::program::{scripts, service, tree};
use remora_tests::wire::Wire;
use remora_tests::{DEADLINE, Scratch, is_root, until};

/// Ends the load however the scene ends.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks until it is told to end: one on a connection that stays, one on a new one. Counts answers.
fn ask(port: u16, ended: &AtomicBool, answers: &AtomicU64) {
    let mut stays = Wire::to(port);
    while !ended.load(Ordering::Relaxed) {
        let number = answers.load(Ordering::Relaxed);
        let body = format!("<{number}>");
        let request =
            format!("POST /{number} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
        for wire in [&mut stays, &mut Wire::to(port)] {
            let answer = wire.send(request.as_bytes()).send(body.as_bytes()).expect(">");
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer:?}");
            assert!(answer.ends_with(&format!("\r\n\r\nserved{body}")), "{answer:?}");
            answers.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn fifty_kills_under_load_leave_nothing_and_hurt_no_answer() {
    if !is_root() {
        return;
    }
    let (server, port) = service("served", &[]);
    let pid = server.pid().to_string();
    let (ended, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    // What one of them holds when it is ready.
    let scratch = Scratch::new();
    let agent = Agent::run(&scratch, &["--pid", &pid]);
    let all = programs_of(agent.pid()).len();
    assert_eq!(agent.stop().code, Some(0));
    let mut random = Random::new(1);
    std::thread::scope(|scope| {
        let ends = Ends(&ended);
        let load = scope.spawn(|| ask(port, &ended, &answers));
        for round in 0..50 {
            let scratch = Scratch::new();
            let mut command = Command::new(binary());
            command.args(["run", "--pid", &pid, "--file", "spans"]);
            command.current_dir(scratch.path()).env("TMPDIR", scratch.path());
            let mut agent = Agent::start(&mut command);
            let me = agent.pid();
            // Every second one dies while it attaches, with some of its programs.
            let programs = if round % 2 == 0 {
                agent.ready();
                let before = answers.load(Ordering::Relaxed);
                until("load", || (answers.load(Ordering::Relaxed) > before + 4).then_some(()));
                programs_of(me)
            } else {
                let some = 1 + random.below(all);
                until("programs", || {
                    let programs = programs_of(me);
                    (programs.len() >= some).then_some(programs)
                })
            };
            assert_eq!(tree(me), [me], "it has no children");
            agent.signal("KILL");
            assert_eq!(agent.end().code, None);
            until("the programs' end", || {
                programs.iter().all(|id| !has_program(*id)).then_some(())
            });
            let left = std::fs::read_dir(scratch.path()).expect("it is there").flatten();
            let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
            assert!(left.iter().all(|name| name == "spans"), "{left:?}");
            assert!(!load.is_finished(), "an answer was wrong, or none came");
        }
        drop(ends);
        load.join().expect("every answer is right");
    });
    let scratch = Scratch::new();
    let agent = Agent::run(&scratch, &["--pid", &pid]);
    assert!(remora_tests::wire::get(port, "/after").ends_with("served"));
    let ended = agent.stop();
    assert_eq!((ended.count("spans"), ended.count("lost")), (1, 0), "{:?}", ended.log);
    println!("answers: {}", answers.load(Ordering::Relaxed));
}

/// Everything that `sums.py` says of the seeded traffic, and a digest of what it answered.
fn account(traced: bool) -> (std::process::Output, Vec<u8>) {
    const CLIENTS: u64 = 8;
    const LINES: usize = 400;
    let mut command = Command::new("python3");
    command.arg(scripts().join("sums.py")).stdin(Stdio::null());
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("python3 is there");
    // A byte at a time: what follows the line is the account.
    let stdout = child.stdout.as_mut().expect("it is a pipe");
    let (mut line, mut byte) = (Vec::new(), [0]);
    loop {
        stdout.read_exact(&mut byte).expect("it prints");
        match byte {
            [b'\n'] => break,
            [other] => line.push(other),
        }
    }
    let port: u16 = String::from_utf8_lossy(&line).parse().expect("its port");
    let connect = || {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("not zero");
        stream
    };
    let scratch = Scratch::new();
    let agent =
        traced.then(|| Agent::run(&scratch, &["--stats", "--pid", &child.id().to_string()]));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|seed| {
            let mut stream = connect();
            std::thread::spawn(move || {
                let mut random = Random::new(seed);
                let mut asked: Vec<u8> = Vec::new();
                for _ in 0..LINES {
                    // Some of it looks like HTTP, so that the agent has work with it.
                    let start =
                        [&b"GET / HTTP/1.1"[..], b"Content-Length: 9", b""][random.below(3)];
                    asked.extend_from_slice(start);
                    let length = random.below(2000);
                    asked.extend((0..length).map(|_| b' ' + random.below(95) as u8));
                    asked.push(b'\n');
                }
                let mut writer = stream.try_clone().expect("another descriptor");
                let writes = std::thread::spawn(move || {
                    for part in asked.chunks(1000) {
                        writer.write_all(part).expect("it reads");
                    }
                    writer.shutdown(std::net::Shutdown::Write).expect("it is connected");
                });
                let mut answered = Vec::new();
                stream.read_to_end(&mut answered).expect("it answers");
                writes.join().expect("it reads everything");
                answered
            })
        })
        .collect();
    let answered = clients.into_iter().flat_map(|one| one.join().expect("answered")).collect();
    connect().write_all(b"end\n").expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    if let Some(agent) = agent {
        let ended = agent.end();
        assert_eq!(ended.code, Some(0), "its target has ended: {:?}", ended.log);
        assert!(ended.count("remora_kernel_events_total") > CLIENTS, "it saw: {}", ended.done());
    }
    (output, answered)
}

#[test]
fn a_target_says_byte_for_byte_the_same_without_the_agent() {
    if !is_root() {
        return;
    }
    let (alone, answers) = account(false);
    let (traced, traced_answers) = account(true);
    assert!(alone.status.code().is_some_and(|code| code > 0), "{:?}", alone.status);
    assert_eq!(alone.stdout.split(|byte| *byte == b'\n').count(), 9, "{alone:?}");
    assert_eq!(alone, traced);
    assert!(answers == traced_answers, "byte for byte");
}
