//! The same traffic gives the same spans from each capture source, and they are what the programs say
//! they did.
//!
//! Needs root. Prints, for `cargo xtask vm`, one line `source: NAME works: …` or
//! `source: NAME refused: …` for each source.

mod web;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use remora_tests::agent::{Agent, binary};
use remora_tests::kernel::{has_program, programs_of};
use remora_tests::program::Program;
use remora_tests::spans::{CLIENT, Span, check_honest};
use remora_tests::{Scratch, is_root, until};
use serde_json::Value;

/// Says which program a process of this test is to be.
const PROGRAM: &str = "REMORA_TEST_PROGRAM";

const SOURCES: [&str; 3] = ["socket", "fexit", "syscall"];

/// The traced programs: not a test, unless it was started by one.
#[test]
fn traced_program() {
    if let Ok(words) = std::env::var(PROGRAM) {
        web::run(&words);
    }
}

/// This test as one of its programs.
fn program(words: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.args(["--exact", "traced_program", "--nocapture", "--test-threads=1"]);
    command.env(PROGRAM, words);
    command.env("OTEL_SERVICE_NAME", words.split(' ').next().unwrap_or_default());
    command
}

/// A store that listens; its port and the name of its Unix socket.
fn store(scratch: &Scratch) -> (Program, u16, String) {
    let path = scratch.file("store.sock").display().to_string();
    let store = Program::start(&mut program(&format!("store {path}")));
    let port = store.line_after("ready ").parse().expect("a port");
    (store, port, path)
}

/// What `remora doctor` says of each source: `Err` is why it is refused.
fn doctor() -> BTreeMap<String, Result<(), String>> {
    let mut command = Command::new(binary());
    let output = command.args(["doctor", "--json", "--no-cost"]).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("JSON is text");
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let said: BTreeMap<_, _> = rows
        .filter_map(|row| {
            let name = row["name"].as_str()?.strip_prefix("capture source `")?.strip_suffix('`')?;
            let detail = row["detail"].as_str()?.to_owned();
            let good = row["state"] == "good";
            Some((name.to_owned(), if good { Ok(()) } else { Err(detail) }))
        })
        .collect();
    assert!(SOURCES.iter().all(|source| said.contains_key(*source)), "{text}");
    said
}

#[test]
fn every_source_gives_the_spans_that_the_programs_tell_of() {
    if !is_root() {
        return;
    }
    let _alone = alone();
    let mut first: Option<(&str, Vec<String>)> = None;
    let doctor = doctor();
    for source in SOURCES {
        if let Err(why) = &doctor[source] {
            refused(source, why);
            println!("source: {source} refused: {why}");
            continue;
        }
        let (spans, told) = shop(source);
        let facts: Vec<_> = spans.iter().map(|span| facts(span, &spans)).collect();
        compare(source, "the programs", facts, knowable(source, told));
        let mut whole: Vec<_> = spans.iter().map(|span| normalised(span, &spans)).collect();
        // What `fexit` makes of it was compared above.
        whole.retain(|span| !span.contains(UNDER_WAY));
        if let Some((other, expected)) = &first {
            compare(source, other, whole.clone(), expected.clone());
        }
        println!("source: {source} works: {} spans as told", spans.len());
        first = first.or(Some((source, whole)));
    }
    assert!(first.is_some(), "{doctor:?}");
}

/// The request for which a thread of the front waits in read(2) while the agent starts.
const UNDER_WAY: &str = "/plain/kept/1 ";

/// What a source can know of what the programs tell. `fexit` does not see the end of a call that was
/// under way when it was attached: the request that it read is missing, and what was asked for its
/// sake has no parent.
fn knowable(source: &str, told: Vec<String>) -> Vec<String> {
    if source != "fexit" {
        return told;
    }
    let known = told
        .into_iter()
        .filter(|line| !(line.starts_with("front server") && line.contains(UNDER_WAY)));
    let without_parent = |line: String| match line.split_once(" < front server") {
        Some((call, _)) if call.contains(UNDER_WAY) => format!("{call} < -"),
        _ => line,
    };
    known.map(without_parent).collect()
}

/// A source that `doctor` finds refused is refused for the same reason when it is demanded.
fn refused(source: &str, why: &str) {
    let mut command = Command::new(binary());
    let pid = std::process::id().to_string();
    let output = command.args(["run", "--console", "--capture", source, "--pid", &pid]).output();
    let output = output.expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(why), "{said}\nand doctor: {why}");
}

/// Without a wish the best source that works is taken, and the log tells why better ones were not.
#[test]
fn the_best_source_that_works_is_taken() {
    if !is_root() {
        return;
    }
    let _alone = alone();
    let doctor = doctor();
    let scratch = Scratch::new();
    let (store, port, _path) = store(&scratch);
    let mut command = Command::new(binary());
    command.args(["exec", "--log", "info", "--file"]).arg(scratch.file("spans.jsonl"));
    command.arg("--").arg(std::env::current_exe().expect("own path"));
    command.args(["--exact", "traced_program", "--nocapture", "--test-threads=1"]);
    command.env(PROGRAM, format!("passer {port}")).env("OTEL_SERVICE_NAME", "passer");
    let mut agent = Agent::start(&mut command);
    let ready = agent.ready();
    let best = SOURCES.into_iter().find(|source| doctor[*source].is_ok()).expect("one works");
    assert!(ready.ends_with(&format!(" capture={best}")), "{ready}");
    let ended = agent.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.log);
    for source in SOURCES.into_iter().take_while(|source| *source != best) {
        let told = ended.log.iter().find(|line| line.contains("capture source refused"));
        assert!(told.is_some_and(|line| line.contains(source)), "{source}: {:?}", ended.log);
    }
    let spans = remora_tests::spans::read(&scratch.file("spans.jsonl"));
    let said: Vec<_> = spans.iter().map(|span| facts(span, &spans)).collect();
    assert_eq!(said, ["passer client GET /plain/passing 200 0/14 < -"]);
    drop(store);
}

/// The sources that can be had here.
fn working() -> impl Iterator<Item = String> {
    doctor().into_iter().filter_map(|(source, works)| works.is_ok().then_some(source))
}

/// A store, with an agent that looks at it by one source.
struct Traced {
    agent: Agent,
    port: u16,
    path: String,
    /// Gone last.
    _held: (Program, Scratch),
}

impl Traced {
    fn store(source: &str) -> Self {
        let scratch = Scratch::new();
        let (store, port, path) = store(&scratch);
        let pid = store.pid().to_string();
        let agent = Agent::run(&scratch, &["--capture", source, "--pid", &pid]);
        Self { agent, port, path, _held: (store, scratch) }
    }
}

/// However the agent looks, when it is killed nothing of it stays and nobody notices.
#[test]
fn a_killed_agent_leaves_nothing_behind() {
    if !is_root() {
        return;
    }
    let _alone = alone();
    for source in working() {
        let Traced { agent, port, _held, .. } = Traced::store(&source);
        let mut wire = remora_tests::wire::Wire::to(port);
        wire.send(b"GET /plain/1 HTTP/1.1\r\n\r\n").expect("/plain/1");
        let programs = programs_of(agent.pid());
        assert!(programs.len() >= 5, "{programs:?}");
        assert!(programs.iter().all(|id| has_program(*id)));
        wire.send(b"GET /plain/2 HTTP/1.1\r\n");
        agent.signal("KILL");
        assert_eq!(agent.end().code, None);
        // In mid-request, on the same connection.
        wire.send(b"\r\n").expect("/plain/2");
        until("the programs' end", || programs.iter().all(|id| !has_program(*id)).then_some(()));
        wire.send(b"GET /plain/3 HTTP/1.1\r\n\r\n").expect("/plain/3");
    }
}

/// No hook of any source tells of a Unix socket's close: it is asked for, in the way of the source, or told by
/// another socket that comes to be where it was.
#[test]
fn a_unix_sockets_close_ends_its_answer_whatever_the_source() {
    if !is_root() {
        return;
    }
    let _alone = alone();
    for source in working() {
        let Traced { agent, path, _held, .. } = Traced::store(&source);
        for number in 0..UNIX_CLOSES {
            let mut wire = UnixStream::connect(&path).expect("it listens");
            let request = format!("GET /eof/{number} HTTP/1.1\r\n\r\n");
            wire.write_all(request.as_bytes()).expect("it reads");
            wire.read_to_string(&mut String::new()).expect("it closes");
        }
        // Neither the store nor its agent ends, nor does anything else happen.
        agent.wait_for(UNIX_CLOSES, |span| span.path().starts_with("/eof/"));
        let ended = agent.stop();
        check_honest(&ended.spans);
        let facts = ended.spans.iter().map(|span| facts(span, &ended.spans)).collect();
        let told = |number| format!("store server GET /eof/{number} 200 0/10 < -");
        compare(&source, "the store", facts, (0..UNIX_CLOSES).map(told).collect());
        for span in &ended.spans {
            assert_eq!(span.text("remora.end.reason"), "", "{source}: {span:?}");
        }
    }
}

/// How many connections one after another end an answer.
const UNIX_CLOSES: usize = 20;

/// `fexit` hears of a call's end by code that the kernel makes anew for all who watch a function, when one
/// of them begins or ceases to; whatever call is under way then, ends unheard. That is told.
#[test]
fn what_others_hide_from_fexit_is_counted() {
    if !is_root() {
        return;
    }
    let _alone = alone();
    if doctor()["fexit"].is_err() {
        return;
    }
    let (scratch, others) = (Scratch::new(), Scratch::new());
    let server = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let port = server.local_addr().expect("it is bound").port();
    let mut asker = Program::start_told(&mut program(&format!("asker {port}")));
    let (mut server, _) = server.accept().expect("it connects");
    asker.line_after("ready");
    let pid = asker.pid();
    let agent = Agent::run(&scratch, &["--stats", "--capture", "fexit", "--pid", &pid.to_string()]);
    asker.tell("go");
    let mut request = [0; 100];
    assert_ne!(server.read(&mut request).ok(), Some(0));
    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha").expect("it reads");
    asker.line_after("head");
    until("it waits for the rest", || is_receiving(pid).then_some(()));
    let own = std::process::id().to_string();
    let other = Agent::run(&others, &["--capture", "fexit", "--pid", &own]);
    server.write_all(b"lf").expect("it reads");
    asker.line_after("closed");
    assert_eq!(other.stop().code, Some(0));
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{:?}", ended.log);
    check_honest(&ended.spans);
    let said: Vec<_> = ended.spans.iter().map(|span| facts(span, &ended.spans)).collect();
    let told = format!("{:?}\n{}", ended.spans, ended.done());
    assert_eq!(said, ["asker client GET /halves 200 0/4 < -"], "{told}");
    assert_eq!(ended.count("remora_stream_gaps_total"), 1, "{told}");
    assert_eq!(ended.spans[0].int("remora.lost"), Some(1), "{told}");
}

/// Whether a thread of a process waits in recvfrom(2).
fn is_receiving(pid: u32) -> bool {
    let number = libc::SYS_recvfrom.to_string();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    tasks.flatten().any(|task| {
        let call = std::fs::read_to_string(task.path().join("syscall")).unwrap_or_default();
        call.split(' ').next() == Some(&number)
    })
}

/// Keeps a scene's agents from those of others, which would hide calls from `fexit`.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // Another scene that has failed has left nothing behind.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets the programs do their work beside an agent with this source; its spans, and what the
/// programs told.
fn shop(source: &str) -> (Vec<Span>, Vec<String>) {
    let scratch = Scratch::new();
    let (store, store_port, path) = store(&scratch);
    let front = Program::start(&mut program(&format!("front {store_port} {path}")));
    let ports = front.line_after("ready ");
    let words = format!("shopper {ports} {store_port} {path}");
    let mut shopper = Program::start_told(&mut program(&words));
    shopper.line_after("ready");
    let pids = [&store, &front, &shopper].map(|program| program.pid().to_string()).join(",");
    let agent = Agent::run(&scratch, &["--stats", "--capture", source, "--pid", &pids]);
    shopper.tell("go");
    let mut told = Vec::new();
    loop {
        match shopper.line() {
            line if line == "done" => break,
            line => told.push(line),
        }
    }
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{:?}", ended.log);
    assert_eq!(ended.count("lost"), 0, "{}", ended.done());
    assert_eq!(ended.count("remora_spans_total"), ended.spans.len() as u64, "{}", ended.done());
    // What sendfile(2) moves has no buffer.
    assert_ne!(ended.count("remora_unreadable_payloads_total"), 0, "{}", ended.done());
    assert_eq!(ended.count("remora_events_missing_total"), 0, "{}", ended.done());
    assert_eq!(ended.count("remora_events_of_unknown_socket_total"), 0, "{}", ended.done());
    assert_eq!(ended.count("remora_stream_gaps_total"), 0, "{}", ended.done());
    for program in [store, front] {
        told.extend(program.rest());
    }
    told.retain(|line| line.contains('<') && !line.contains("/before"));
    check_honest(&ended.spans);
    (ended.spans, told)
}

/// What a program can tell of an exchange, as it does.
fn facts(span: &Span, all: &[Span]) -> String {
    let size = |key| span.int(key).unwrap_or(0);
    let status = span.int("http.response.status_code");
    let status = status.map_or_else(|| "-".to_owned(), |status| status.to_string());
    let parent = span.parent.as_ref().map_or_else(
        || "-".to_owned(),
        |id| all.iter().find(|other| other.id == *id).map_or_else(|| id.clone(), who),
    );
    let (method, path) = (span.text("http.request.method"), span.path());
    let (asked, answered) = (size("http.request.body.size"), size("http.response.body.size"));
    let kind = kind(span);
    format!("{} {kind} {method} {path} {status} {asked}/{answered} < {parent}", span.service)
}

fn kind(span: &Span) -> &'static str {
    if span.kind == CLIENT { "client" } else { "server" }
}

fn who(span: &Span) -> String {
    format!("{} {} {}", span.service, kind(span), span.path())
}

/// Everything that a span says, without what differs from run to run.
fn normalised(span: &Span, all: &[Span]) -> String {
    const VARYING: [&str; 6] = [
        "network.peer.port",
        "process.pid",
        "remora.queue_ns",
        "server.port",
        "service.instance.id",
        "thread.id",
    ];
    let text = |attributes: &BTreeMap<String, Value>| {
        let pair = |(key, value): (&String, &Value)| match VARYING.contains(&key.as_str()) {
            true => format!("{key}=…"),
            false => format!("{key}={value}"),
        };
        attributes.iter().map(pair).collect::<Vec<_>>().join(" ")
    };
    format!(
        "{}\n  {} {} {} {}\n  {}\n  {}",
        facts(span, all),
        span.name,
        span.kind,
        span.status,
        span.flags,
        text(&span.attributes),
        text(&span.resource),
    )
}

/// # Panics
/// If there is a difference; shows the beginning of it.
fn compare(source: &str, with: &str, mut seen: Vec<String>, mut expected: Vec<String>) {
    let mut only_seen = Vec::new();
    for line in seen.drain(..) {
        match expected.iter().position(|other| *other == line) {
            Some(at) => drop(expected.swap_remove(at)),
            None => only_seen.push(line),
        }
    }
    only_seen.sort();
    expected.sort();
    only_seen.truncate(10);
    expected.truncate(10);
    let same = only_seen.is_empty() && expected.is_empty();
    assert!(same, "{source} {only_seen:#?}\nbut {with}: {expected:#?}");
}
