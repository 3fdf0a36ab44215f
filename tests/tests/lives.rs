//! Servers whose workers come and go while they serve: every answer is told once, as that of the process that has
//! given it, which it says in its body.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use remora_tests::agent::{Agent, Ended, binary};
use remora_tests::program::{Program, own_port, scripts, tree};
use remora_tests::servers::{self, Site};
use remora_tests::spans::{SERVER, Span, check_honest};
use remora_tests::{DEADLINE, Scratch, is_root, until};

/// A server, and what is done to it while it serves.
struct Row {
    start: fn(&Site<'_>) -> Command,
    /// Signals to its first process, one after the other, and whether another process answers then.
    signals: &'static [(&'static str, bool)],
}

/// Clients at one time.
const CLIENTS: usize = 6;
/// Requests after the start and after each signal, at least.
const REQUESTS: usize = 90;

/// The path of a request, and what its client has read: the process that answered, or nothing.
type Outcome = (String, Option<u32>);

/// Where a server that cannot say in its answers which process gives them writes it: a line of a path and a process
/// for each. It answers with [`NO_PROCESS`].
const LOG: &str = "answered";
const NO_PROCESS: u32 = 0;

/// One request; the process that has answered, and whether the connection stays.
fn ask(stream: &mut TcpStream, path: &str) -> Option<(u32, bool)> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 200 "), "{text}");
            let length = head.split_once("content-length: ").expect("it has a length").1;
            let length: usize = length.lines().next()?.trim().parse().expect("a number");
            if body.len() == length {
                return Some((
                    body.parse().expect("a process id"),
                    !head.contains("connection: close"),
                ));
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) => return None,
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{path}");
                return None;
            }
        }
    }
}

/// What clients have seen by now.
#[derive(Default)]
struct Seen {
    requests: AtomicUsize,
    processes: Mutex<BTreeSet<u32>>,
    is_enough: AtomicBool,
}

impl Seen {
    /// Waits for some requests more, and for `fresh` processes more.
    fn wait(&self, fresh: usize, known: usize) {
        let due = self.requests.load(Ordering::Relaxed) + REQUESTS;
        until("requests", || {
            let processes = self.processes.lock().expect("nobody panics with it").len();
            let is_due = self.requests.load(Ordering::Relaxed) >= due;
            (is_due && processes >= known + fresh).then_some(())
        });
    }

    /// A client that stays as long as it may, or comes for each request.
    fn client(&self, port: u16, number: usize) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let mut stream = None;
        while !self.is_enough.load(Ordering::Relaxed) {
            let path = format!("/{number}/{}", outcomes.len());
            let mut open = stream.take().unwrap_or_else(|| {
                let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok();
                let stream = until("a connection", connect);
                stream.set_read_timeout(Some(DEADLINE)).expect("not zero");
                stream
            });
            let answer = ask(&mut open, &path);
            if let Some((_, true)) = answer
                && number.is_multiple_of(2)
            {
                stream = Some(open);
            }
            let pid = answer.map(|(pid, _)| pid);
            self.processes.lock().expect("nobody panics with it").extend(pid);
            self.requests.fetch_add(1, Ordering::Relaxed);
            outcomes.push((path, pid));
            // For the others, too, on a host of few processors.
            std::thread::park_timeout(Duration::from_millis(2));
        }
        outcomes
    }
}

/// All clients, while the signals are sent.
fn load(port: u16, pid: u32, signals: &[(&str, bool)]) -> Vec<Outcome> {
    let seen = &Seen::default();
    std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|number| scope.spawn(move || seen.client(port, number))).collect();
        seen.wait(1, 0);
        for (signal, brings) in signals {
            let known = seen.processes.lock().expect("nobody panics with it").len();
            let status = Command::new("kill").args(["-s", signal, &pid.to_string()]).status();
            assert!(status.expect("kill(1) is there").success());
            seen.wait(usize::from(*brings), known);
        }
        // Without signals they end by themselves.
        seen.wait(if signals.is_empty() { 3 } else { 0 }, 0);
        seen.is_enough.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().expect("it ends")).collect()
    })
}

fn faults(ended: &Ended, outcomes: &[Outcome], is_logged: bool) -> Vec<String> {
    check_honest(&ended.spans);
    let mut spans: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in &ended.spans {
        assert_eq!(span.kind, SERVER);
        spans.entry(span.path()).or_default().push(span);
    }
    let mut faults = Vec::new();
    for (path, answered) in outcomes {
        let told = spans.remove(path.as_str()).unwrap_or_default();
        let said: Vec<_> = told
            .iter()
            .map(|span| {
                let pid = span.resource["process.pid"].as_u64();
                let size = span.int("http.response.body.size");
                (pid, span.int("http.response.status_code"), size, span.int("remora.lost"))
            })
            .collect();
        let is_right = match answered {
            Some(pid) => {
                let size = if is_logged { 1 } else { pid.to_string().len() as i64 };
                said == [(Some(u64::from(*pid)), Some(200), Some(size), None)]
            }
            // What was read of it before its worker went may be told.
            None => said.len() <= 1,
        };
        if !is_right {
            faults.push(format!("{path} by {answered:?}: {said:?}"));
        }
    }
    faults.extend(spans.keys().map(|path| format!("never asked: {path}")));
    faults
}

fn check(row: &Row) {
    if !is_root() {
        return;
    }
    for how in ["--pid", "--port"] {
        let scratch = Scratch::new();
        let site = Site { scratch: &scratch, port: own_port(), inner_port: 0 };
        let program = Program::logged(&mut (row.start)(&site), &scratch.file("log"));
        let answers = || {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, site.port)).ok()?;
            ask(&mut stream, "/")
        };
        until("an answer", answers);
        // A daemon says which one it is.
        let daemon = std::fs::read_to_string(scratch.file("nginx.pid")).ok();
        let first = daemon.map_or(program.pid(), |pid| pid.trim().parse().expect("a process id"));
        let which = if how == "--pid" { first.to_string() } else { site.port.to_string() };
        let follow: &[&str] = if how == "--pid" { &["--follow"] } else { &[] };
        let agent =
            Agent::run(&scratch, &[&["--stats", "--ring-mib", "64", how, &which], follow].concat());
        let mut outcomes = load(site.port, first, row.signals);
        let ended = agent.stop();
        drop(program);
        if let Ok(text) = std::fs::read_to_string(scratch.file(LOG)) {
            let lines: BTreeMap<_, _> =
                text.lines().filter_map(|line| line.split_once(' ')).collect();
            for (path, pid) in &mut outcomes {
                *pid = pid.map(|_| lines[path.as_str()].parse().expect("a process id"));
            }
        }
        // What is no child any more: the first process, or who has taken its place.
        for file in ["nginx.pid", "nginx.pid.oldbin"] {
            let pid = std::fs::read_to_string(scratch.file(file)).ok();
            let family =
                pid.map_or(Vec::new(), |pid| tree(pid.trim().parse().expect("a process id")));
            let family = family.iter().filter(|pid| is_nginx(**pid)).map(u32::to_string);
            let mut kill = Command::new("kill");
            // Ended already is as good.
            let _ = kill.arg("-KILL").args(family).stderr(std::process::Stdio::null()).status();
        }
        let workers: std::collections::BTreeSet<_> =
            outcomes.iter().filter_map(|(_, pid)| *pid).collect();
        let answered = outcomes.iter().filter(|(_, pid)| pid.is_some()).count();
        assert!(workers.len() >= row.signals.len().min(2), "nobody has come");
        println!("{how}: {answered} answers of {}, by {} processes", outcomes.len(), workers.len());
        assert_eq!(ended.count("lost"), 0, "{:#?}", ended.log);
        let faults = faults(&ended, &outcomes, scratch.file(LOG).exists());
        assert!(faults.is_empty(), "{how}: {faults:#?} {:#?}", ended.log);
    }
}

/// Whether a process is nginx still.
fn is_nginx(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "nginx\n")
}

fn sources() -> PathBuf {
    scripts().join("lives")
}

fn gunicorn(site: &Site<'_>, more: &[&str]) -> Command {
    let gunicorn = servers::built("python/bin/gunicorn").expect("set-up has fetched it");
    let mut command = Command::new(gunicorn);
    command.args(["--bind", &format!("127.0.0.1:{}", site.port), "--chdir"]).arg(sources());
    command.args(["--workers", "2", "--worker-tmp-dir"]).arg(site.scratch.path());
    command.args(more).arg("pids:wsgi");
    command
}

#[test]
fn workers_of_gunicorn_that_end_after_some_requests() {
    check(&Row {
        start: |site| gunicorn(site, &["--worker-class", "sync", "--max-requests", "20"]),
        signals: &[],
    });
}

#[test]
fn gunicorn_that_is_told_to_begin_anew() {
    check(&Row {
        start: |site| {
            gunicorn(site, &["--worker-class", "gthread", "--threads", "4", "--reuse-port"])
        },
        signals: &[("HUP", true), ("TTIN", true), ("HUP", true)],
    });
}

#[test]
fn workers_of_uvicorn_that_come_anew() {
    check(&Row {
        start: |site| {
            let uvicorn = servers::built("python/bin/uvicorn").expect("set-up has fetched it");
            let mut command = Command::new(uvicorn);
            command.arg("--app-dir").arg(sources()).args(["--workers", "2", "pids:asgi"]);
            command.args(["--log-level", "warning", "--port", &site.port.to_string()]);
            command
        },
        signals: &[("HUP", true)],
    });
}

#[test]
fn workers_that_node_passes_connections_to() {
    check(&Row {
        start: |site| {
            let mut command = Command::new("node");
            command.arg(sources().join("cluster.js")).arg(site.port.to_string());
            command
        },
        signals: &[("HUP", true), ("HUP", true)],
    });
}

/// What would be traced is what is.
#[test]
fn workers_that_connections_are_passed_to_are_planned() {
    if !is_root() {
        return;
    }
    let port = own_port();
    let mut command = Command::new("node");
    let server = Program::start(command.arg(sources().join("cluster.js")).arg(port.to_string()));
    until("a worker", || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
        ask(&mut stream, "/").and_then(|_| (tree(server.pid()).len() == 3).then_some(()))
    });
    let mut plan = Command::new(binary());
    let plan = plan.args(["plan", "--json", "--port", &port.to_string()]).output();
    let plan = String::from_utf8(plan.expect("it runs").stdout).expect("text");
    let rows = plan.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let planned: BTreeSet<u64> = rows
        .filter(|row: &serde_json::Value| row["kind"] == "process")
        .filter_map(|row| row["pid"].as_u64())
        .collect();
    assert_eq!(planned, tree(server.pid()).into_iter().map(u64::from).collect());
}

#[test]
fn nginx_that_is_told_to_begin_anew() {
    check(&Row {
        start: |site| {
            servers::nginx(site, "location / { return 200 $pid; }", "")
                .expect("set-up has installed it")
        },
        signals: &[("HUP", true), ("HUP", true), ("HUP", true)],
    });
}

#[test]
fn nginx_whose_program_is_replaced() {
    check(&Row {
        start: |site| {
            let location = "location / { return 200 $pid; }";
            let nginx = servers::nginx(site, location, "").expect("set-up has installed it");
            // It begins another program only as a daemon.
            let file = site.scratch.file("nginx.conf");
            let text = std::fs::read_to_string(file).expect("it was written");
            site.scratch.write("nginx.conf", &text.replace("daemon off", "daemon on"));
            nginx
        },
        signals: &[("USR2", true), ("WINCH", false), ("QUIT", false)],
    });
}

/// Its first process makes another set of workers; those that are there answer what they have read and end.
#[test]
fn apache_that_begins_anew_with_grace() {
    check(&Row {
        start: |site| {
            let (zero, log) =
                (site.scratch.write("zero", &NO_PROCESS.to_string()), site.scratch.file(LOG));
            let more = format!(
                "LogFormat \"%U %P\" pids\nCustomLog {} pids\nAliasMatch ^/ {}\n",
                log.display(),
                zero.display()
            );
            servers::apache(site, &more).expect("set-up has installed it")
        },
        signals: &[("USR1", false), ("USR1", false)],
    });
}

#[test]
fn puma_that_begins_anew_phase_by_phase() {
    check(&Row {
        start: |site| {
            let mut command = Command::new("puma");
            let bind = format!("tcp://127.0.0.1:{}", site.port);
            command.args(["--workers", "2", "--threads", "2:2", "--bind", &bind]);
            command.arg(sources().join("pids.ru")).current_dir(site.scratch.path());
            command
        },
        signals: &[("USR1", true)],
    });
}
