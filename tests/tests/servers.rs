//! Servers as their packages bring them: what remora says of them is what their client knows, and
//! they do with remora what they do without.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Instant;

use remora_tests::agent::{Agent, Ended, binary};
use remora_tests::program::{Program, listening, own_port, scripts, service, tree};
use remora_tests::servers::{self, Behind, Row, Site};
use remora_tests::spans::{CLIENT, SERVER, Span, check_honest};
use remora_tests::talk::{STEPS, Talker, Told, mask};
use remora_tests::uring::Ring;
use remora_tests::wire::{Wire, get};
use remora_tests::{Scratch, is_root, until};

/// What a run of a server shows on the outside.
#[derive(Debug, PartialEq, Eq)]
struct Outside {
    told: Vec<Told>,
    exit: String,
    output: Vec<String>,
}

/// Starts the programs of a row, talks to them, with or without an agent beside, and ends them.
fn run(row: &Row, ports: (u16, u16), with_agent: bool) -> Option<(Outside, Option<Ended>)> {
    let scratch = Scratch::new();
    let site = Site { scratch: &scratch, port: ports.0, inner_port: ports.1 };
    let mut log = Vec::new();
    let mut programs = Vec::new();
    for (number, command) in (row.start)(&site)?.iter_mut().enumerate() {
        log.push(scratch.file(&format!("output-{number}")));
        programs.push(Program::logged(command, &log[number]));
        let is_there = |port| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        until(row.name, || {
            let ready = is_there(site.port)
                || is_there(site.inner_port)
                || scratch.file(servers::INNER_SOCKET).exists();
            ready.then_some(())
        });
    }
    until(row.name, || {
        let is_there = std::net::TcpStream::connect(("127.0.0.1", site.port)).is_ok();
        (is_there && get(site.port, "/hello").contains(" 200 ")).then_some(())
    });
    let mut outside = Outside { told: Vec::new(), exit: String::new(), output: Vec::new() };
    let agent = with_agent.then(|| {
        let pids: Vec<String> = programs
            .iter()
            .flat_map(|program| tree(program.pid()))
            .map(|p| p.to_string())
            .collect();
        Agent::run(&scratch, &["--stats", "--follow", "--pid", &pids.join(",")])
    });
    outside.told = Talker::new(site.port).talk(row.lacks);
    // Whoever is asked first goes first.
    while let Some(program) = programs.pop() {
        outside.exit += &format!("{} ", program.stop(row.signal));
    }
    for file in &log {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        outside.output.extend(mask(&text).lines().map(str::to_owned));
    }
    outside.output.sort();
    // Nothing is left to trace.
    Some((outside, agent.map(Agent::end)))
}

/// Method, path, query and status.
fn line(span: &Span) -> String {
    let query = match span.text("url.query") {
        "" => span.text("url.full").split_once('?').map_or("", |(_, query)| query),
        query => query,
    };
    let status = span.int("http.response.status_code");
    let status = status.map_or("-".to_owned(), |status| status.to_string());
    format!("{} {}?{query} {status}", span.text("http.request.method"), span.path())
}

/// Spans say what the client knows, in its order. A size is right or not told at all, and that only
/// where chunks were larger than what is copied of an operation.
fn agree(name: &str, spans: &[&Span], told: &[Told]) {
    let lines: Vec<String> = spans.iter().map(|span| line(span)).collect();
    let truth: Vec<&str> = told.iter().map(|told| told.line.as_str()).collect();
    assert_eq!(lines, truth, "{name}");
    for (span, told) in spans.iter().zip(told) {
        let keys = ["http.request.body.size", "http.response.body.size"];
        for (key, size) in keys.into_iter().zip(told.bodies) {
            match span.int(key) {
                Some(said) => assert_eq!(said as u64, size, "{name}: {key} of {}", told.line),
                None => {
                    assert!(["chunks", "flood"].contains(&told.step), "{name}: no {key}: {span:#?}")
                }
            }
        }
    }
}

fn check(row: &Row) {
    if !is_root() {
        return;
    }
    let begun = Instant::now();
    let ports = (own_port(), own_port());
    let Some((alone, _)) = run(row, ports, false) else {
        println!("skipped: needs {} (cargo xtask setup)", row.name);
        return;
    };
    let alone_for = begun.elapsed();
    let (outside, ended) = run(row, ports, true).expect("it was there before");
    println!("{}: {alone_for:?} and {:?}", row.name, begun.elapsed() - alone_for);
    let ended = ended.expect("there was an agent");
    // The server does as the table says, so that the steps mean something.
    for told in &outside.told {
        let step = STEPS.iter().find(|step| step.name == told.step).expect("it was asked");
        let other = row.other.iter().find(|(name, _)| *name == step.name);
        let status = other.map_or(step.status, |(_, status)| *status);
        assert_eq!(told.answer.0, status, "{}: {}", row.name, told.line);
    }
    for (with, without) in outside.told.iter().zip(&alone.told) {
        assert_eq!(with, without, "{}: it answers otherwise with remora", row.name);
    }
    assert_eq!(outside.output, alone.output, "{}: it says something else with remora", row.name);
    assert_eq!(outside.exit, alone.exit, "{}: it ends otherwise with remora", row.name);
    assert_eq!(ended.code, Some(0), "{:#?}", ended.log);
    assert_eq!(ended.count("lost"), 0, "{:#?}", ended.log);
    check_honest(&ended.spans);
    let front = ended.of(row.service);
    let served: Vec<&Span> = front.iter().copied().filter(|span| span.kind == SERVER).collect();
    agree(row.name, &served, &outside.told);
    match row.behind {
        Behind::Nothing => assert_eq!(ended.spans.len(), served.len(), "{:#?}", ended.spans),
        Behind::Server => behind(row, &ended, &outside.told),
    }
}

/// A proxy asks the same of the server behind it, and every link that is claimed is true.
fn behind(row: &Row, ended: &Ended, told: &[Told]) {
    assert_eq!(ended.spans.len(), 3 * told.len(), "{:#?}", ended.log);
    let by_id: BTreeMap<&str, &Span> =
        ended.spans.iter().map(|span| (span.id.as_str(), span)).collect();
    let calls: Vec<&Span> = ended.spans.iter().filter(|span| span.kind == CLIENT).collect();
    agree(row.name, &calls, told);
    for span in &ended.spans {
        let parent = span.parent.as_deref().and_then(|parent| by_id.get(parent));
        if let Some(parent) = parent {
            assert_eq!(line(span), line(parent), "a wrong parent");
        }
        if span.service != row.service {
            assert_eq!(span.link(), "tcp_seq exact", "{span:#?}");
        }
    }
}

macro_rules! servers {
    ($($test:ident: $row:ident,)*) => { $(
        #[test]
        fn $test() {
            check(&servers::$row);
        }
    )* };
}

servers! {
    nginx_on_files: NGINX,
    nginx_before_a_server: NGINX_PROXY,
    nginx_before_php_fpm: PHP_FPM,
    apache_event: APACHE,
    haproxy_before_a_server: HAPROXY,
    lighttpd: LIGHTTPD,
    python_http_server: HTTP_SERVER,
    gunicorn_sync: GUNICORN_SYNC,
    gunicorn_threads: GUNICORN_THREADS,
    uvicorn: UVICORN,
    node: NODE,
    java_oldest: JAVA_OLDEST,
    java_newest: JAVA_NEWEST,
    go: GO,
    axum: AXUM,
    puma: PUMA,
}

#[test]
fn a_database_is_left_alone() {
    if !is_root() {
        return;
    }
    let Some(redis) = servers::installed("redis-check-rdb") else {
        println!("skipped: needs redis-tools (cargo xtask setup)");
        return;
    };
    let scratch = Scratch::new();
    // One program under several names.
    let server = scratch.file("redis-server");
    std::os::unix::fs::symlink(redis, &server).expect("the directory is ours");
    let port = own_port();
    let mut command = Command::new(server);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
    command.arg("--dir").arg(scratch.path());
    let redis = Program::logged(&mut command, &scratch.file("output"));
    listening(port);
    let agent = Agent::run(&scratch, &["--stats", "--pid", &redis.pid().to_string()]);
    let client = |name: &str, args: &[&str]| {
        let mut command = Command::new(name);
        command.args(["-p", &port.to_string()]).args(args);
        let output = command.output().expect("redis-tools has it");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(client("redis-cli", &["set", "GET /not HTTP/1.1", "a request"]), "OK\n");
    assert_eq!(client("redis-cli", &["get", "GET /not HTTP/1.1"]), "a request\n");
    client("redis-benchmark", &["-n", "2000", "-c", "8", "-q", "-t", "set,get,lpush,mset"]);
    // Commands as one may type them look most like HTTP.
    let mut wire = Wire::to(port);
    wire.send(b"GET key\r\nOPTIONS *\r\nGET /index\r\n").expect("-1\r\n-ERR");
    wire.send(b"INFO stats\r\n");
    let told = wire.expect("\r\n\r\n");
    let count = |name: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.parse::<u64>().ok()).unwrap_or_else(|| panic!("{told}"))
    };
    let (input, output) = (count("total_net_input_bytes"), count("total_net_output_bytes"));
    let ended = agent.stop();
    assert!(ended.spans.is_empty(), "{:#?}", ended.spans);
    assert_eq!(ended.count("lost"), 0, "{:?}", ended.log);
    // Its own reply to the question is not yet among them.
    let unknown = ended.count("remora_unknown_traffic_bytes_total");
    assert_eq!(unknown, input + output + told.len() as u64, "{:?}", ended.log);
}

#[test]
fn requests_in_many_vectors() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (_served, port) = service("served", &[]);
    let file = scratch.file("spans.jsonl");
    let mut command = Command::new(binary());
    command.args(["exec", "--file"]).arg(&file).args(["--", "python3"]);
    command.arg(scripts().join("vectors.py")).arg(port.to_string());
    let ended = Agent::start(&mut command).end();
    let spans = remora_tests::spans::read(&file);
    check_honest(&spans);
    let told: String = spans
        .iter()
        .map(|span| {
            let number = |key| span.int(key).map_or("-".to_owned(), |number| number.to_string());
            format!(
                "{} {} {} {} {}\n",
                span.text("http.request.method"),
                span.path(),
                number("http.response.status_code"),
                number("http.request.body.size"),
                number("http.response.body.size"),
            )
        })
        .collect();
    // Its head is cut, so that nothing says whether there is a body.
    let printed = ended.stdout.replace("GET /many 200 0 6", "GET /many 200 - 6");
    assert_eq!(told, printed, "{:?}", ended.log);
    assert_eq!(ended.count("lost"), 0, "{:?}", ended.log);
}

/// Tells a process of this program to serve over io_uring.
const URING: &str = "REMORA_TEST_URING";

/// A server of two requests whose bytes only io_uring moves: not a test, unless it was started by one.
#[test]
fn uring_server() {
    if std::env::var_os(URING).is_none() {
        return;
    }
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback has ports");
    let Some(ring) = Ring::new(false) else {
        println!("\nno io_uring");
        return;
    };
    println!("\nport {}", listener.local_addr().expect("it is bound").port());
    let (stream, _) = listener.accept().expect("the test connects");
    let fd = stream.as_raw_fd() as usize;
    let buffer = [0_u8; 4096];
    for _ in 0..2 {
        ring.submit(false, fd, &buffer, 0);
        assert!(ring.result() > 0);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        ring.submit(true, fd, answer, 0);
        assert_eq!(ring.result(), answer.len() as i32);
    }
    ring.submit(false, fd, &buffer, 0);
    ring.result();
}

#[test]
fn requests_over_io_uring_are_counted_and_not_made_up() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.args(["--exact", "uring_server", "--nocapture"]).env(URING, "1");
    let server = Program::start(&mut command);
    let port: u16 = loop {
        let line = server.line();
        if line == "no io_uring" {
            println!("skipped: needs io_uring");
            return;
        }
        if let Some(port) = line.strip_prefix("port ") {
            break port.parse().expect("it prints its port");
        }
    };
    let agent = Agent::run(&scratch, &["--stats", "--pid", &server.pid().to_string()]);
    let mut wire = Wire::to(port);
    let request = b"GET /uring HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut moved = 0;
    for _ in 0..2 {
        wire.send(request);
        moved += request.len() + wire.expect("ok").len();
    }
    drop(wire);
    let ended = agent.end();
    assert!(ended.spans.is_empty(), "{:#?}", ended.spans);
    let count = |name: &str| ended.count(name) as usize;
    let seen = count("remora_io_uring_operations_total");
    let unseen = count("remora_io_uring_calls_unseen_total");
    // By a source that sees io_uring every operation is counted, and every byte is unknown.
    match seen {
        0 => assert!(unseen > 0, "{:?}", ended.log),
        _ => assert_eq!((seen, count("remora_unknown_traffic_bytes_total")), (4, moved)),
    }
}
