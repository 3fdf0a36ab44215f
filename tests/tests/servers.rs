//! Servers as their packages bring them: what remora says of them is what their client knows, and
//! they do with remora what they do without.

use std::collections::BTreeMap;
use std::time::Instant;

use remora_tests::agent::{Agent, Ended};
use remora_tests::program::{Program, own_port, tree};
use remora_tests::servers::{self, Behind, Row, Site};
use remora_tests::spans::{CLIENT, SERVER, Span, check_honest};
use remora_tests::talk::{STEPS, Talker, Told, mask};
use remora_tests::wire::get;
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
