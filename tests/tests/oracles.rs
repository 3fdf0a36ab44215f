//! Servers that log what they do, under load that is as bad as clients are: every line of the log is
//! one span, and every span is one line.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;

use remora_tests::agent::{Agent, Ended};
use remora_tests::load::{self, Going, Kind, Outcome};
use remora_tests::oracle::{
    Line, Logs, Means, compare, compare_precise_times, compare_times, token,
};
use remora_tests::program::{Program, listening, own_port, tree};
use remora_tests::servers::{self, Site};
use remora_tests::spans::{SERVER, Span, check_honest};
use remora_tests::{Scratch, is_root, until};

/// Any number: the requests follow from it.
const SEED: u64 = 0x72_65_6d_6f_72_61;

/// How many requests each scene makes.
const REQUESTS: usize = 10_000;

fn files(scratch: &Scratch) -> std::path::PathBuf {
    let root = scratch.file("files");
    std::fs::create_dir(&root).expect("the directory is ours");
    for (name, bytes) in [("small", 6), ("middle", 20_000), ("big", 600_000)] {
        std::fs::write(root.join(name), "m".repeat(bytes)).expect("the disk has room");
    }
    scratch.path().to_owned()
}

fn nginx_lines(log: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(log).expect("it was written");
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split('|').collect();
        let [method, path, status, sent, body, took, ended, pid, port] = fields[..] else {
            panic!("no line of ours: {line:?}");
        };
        let millis = |text: &str| text.replace('.', "").parse::<u64>().expect("seconds.millis");
        let (took, ended) = (millis(took), millis(ended));
        Line {
            method: method.to_owned(),
            path: path.to_owned(),
            status: status.parse().expect("a status"),
            sent_bytes: Some(sent.parse().expect("bytes")),
            body_bytes: Some(body.parse().expect("bytes")),
            peer_port: Some(port.parse().expect("a port")),
            times: Some(((ended - took) * 1_000_000, ended * 1_000_000)),
            pid: pid.parse().expect("a process"),
        }
    };
    text.lines().map(parse).collect()
}

/// A server under load: its log, what its clients know, and what remora tells.
struct Scene {
    lines: Vec<Line>,
    outcomes: Vec<Outcome>,
    ended: Ended,
    port: u16,
}

impl Scene {
    /// The spans of the server that logs.
    fn spans(&self) -> Vec<&Span> {
        let port = Some(self.port.into());
        let mine = |span: &&Span| span.kind == SERVER && span.int("server.port") == port;
        self.ended.spans.iter().filter(mine).collect()
    }

    /// Fails with the first few of what is wrong.
    fn is_right(&self, wrong: &[String]) {
        let few: String = wrong.iter().take(5).map(|one| format!("\n  {one}")).collect();
        assert!(wrong.is_empty(), "{} differences:{few}\n{:#?}", wrong.len(), self.ended.log);
    }
}

/// What a load is.
struct Load<'a> {
    clients: usize,
    kinds: &'a [Kind],
    /// Of the agent.
    options: &'a [&'a str],
    /// What ends the servers once their last connection has ended.
    signal: &'a str,
    /// The agent stands still until this log has [`STARVED_LINES`] lines.
    starved: Option<&'a Path>,
}

/// As many requests write more than a ring of one MiB holds, some hundred bytes each at least.
const STARVED_LINES: usize = 4000;

/// Stops the agent until the log is long enough.
fn starve(agent: u32, log: &Path) {
    let signal = |name: &str| {
        let status = Command::new("kill").args(["-s", name, &agent.to_string()]).status();
        assert!(status.expect("kill(1) is there").success());
    };
    let lines = || std::fs::read_to_string(log).unwrap_or_default().lines().count();
    signal("STOP");
    until("a log of some length", || (lines() >= STARVED_LINES).then_some(()));
    signal("CONT");
}

/// Puts programs, the one that clients talk to last, under load with an agent beside.
fn under_load(
    scratch: &Scratch,
    port: u16,
    commands: Vec<Command>,
    load: &Load<'_>,
) -> (Vec<Outcome>, Ended) {
    let mut programs = Vec::new();
    for (number, mut command) in commands.into_iter().enumerate() {
        let output = scratch.file(&format!("output-{number}"));
        programs.push(Program::logged(&mut command, &output));
    }
    listening(port);
    let pids = programs.iter().flat_map(|program| tree(program.pid()));
    let pids: Vec<String> = pids.map(|pid| pid.to_string()).collect();
    let pids = pids.join(",");
    let args = [load.options, &["--stats", "--follow", "--pid", &pids]].concat();
    let agent = Agent::run(scratch, &args);
    let visits = load::plan(SEED, REQUESTS, load.kinds);
    let agent_pid = agent.pid();
    let outcomes = std::thread::scope(|scope| {
        if let Some(log) = load.starved {
            scope.spawn(move || starve(agent_pid, log));
        }
        load::run(port, &visits, load.clients)
    });
    while let Some(program) = programs.pop() {
        program.stop(load.signal);
    }
    // Nothing is left to trace.
    let ended = agent.end();
    check_honest(&ended.spans);
    (outcomes, ended)
}

/// nginx on files, with a server behind it for what is posted; it logs into `to`.
fn nginx_on_files(site: &Site<'_>, to: &Path) -> Option<Command> {
    let root = files(site.scratch);
    let (root, to, inner) = (root.display(), to.display(), site.inner_port);
    let server = format!(
        "access_log {to} oracle; root {root}; keepalive_requests 100000; sendfile on;\n\
         rewrite ^/[0-9]+(/.*)$ $1;\n\
         location /post {{ proxy_pass http://127.0.0.1:{inner}$request_uri;\n\
         proxy_http_version 1.1; }}\n\
         location /chunks {{ alias {root}/files; sub_filter nothing something;\n\
         sub_filter_types *; }}\n"
    );
    let http = format!(
        "log_format oracle '$request_method|$request_uri|$status|$bytes_sent|$body_bytes_sent|\
         $request_time|$msec|$pid|$remote_port';\n\
         server {{ listen 127.0.0.1:{inner}; access_log off; return 200 \"posted\"; }}\n"
    );
    servers::nginx(site, &server, &http)
}

fn nginx_under_load(clients: usize, options: &[&str], starves: bool) -> Option<Scene> {
    if !is_root() {
        return None;
    }
    let scratch = Scratch::new();
    let site = Site { scratch: &scratch, port: own_port(), inner_port: own_port() };
    let log = scratch.file("access.log");
    let Some(nginx) = nginx_on_files(&site, &log) else {
        println!("skipped: needs nginx (cargo xtask setup)");
        return None;
    };
    let more =
        [Kind::Chunks, Kind::PostExpect, Kind::NoHost, Kind::BadLength, Kind::Alien].as_slice();
    let kinds = [&Kind::FILES, more].concat();
    let starved = starves.then_some(log.as_path());
    let load = Load { clients, kinds: &kinds, options, signal: "QUIT", starved };
    let (outcomes, ended) = under_load(&scratch, site.port, vec![nginx], &load);
    let scene = Scene { lines: nginx_lines(&log), outcomes, ended, port: site.port };
    println!("nginx, {clients} clients: {}", say(&scene));
    Some(scene)
}

fn say(scene: &Scene) -> String {
    format!(
        "{} requests, {} lines, {} spans, {}",
        scene.outcomes.len(),
        scene.lines.len(),
        scene.spans().len(),
        scene.ended.done().split(" remora_").next().unwrap_or_default()
    )
}
/// Everything is told, or counted where bytes were not copied.
fn nginx(clients: usize, means: Means) {
    let options: &[&str] = match means {
        Means::Enough => &["--payload-bytes", "16384", "--ring-mib", "64"],
        _ => &["--ring-mib", "64"],
    };
    let Some(scene) = nginx_under_load(clients, options, false) else { return };
    let spans = scene.spans();
    let found = compare(&spans, &scene.lines, &scene.outcomes, means, Logs::All);
    scene.is_right(&found.wrong);
    scene.is_right(&compare_times(&spans, &scene.lines, &scene.outcomes));
    parents(&scene.ended);
    let count = |name: &str| scene.ended.count(name);
    assert_eq!(count("events.ring_full"), 0, "{}", scene.ended.done());
    // Only answers that begin an operation are counted, which nearly all do.
    let untold = count("exchanges.untold");
    let least = found.untold - found.untold / 100;
    assert!((least..=found.untold).contains(&untold), "{untold} of {} are counted", found.untold);
    if means == Means::Enough {
        let unfinished = count("remora_requests_unfinished_total");
        // nginx does not look at what comes behind a request whose client has gone.
        let behind = scene.outcomes.iter().filter(|outcome| outcome.pipelined && !outcome.sent);
        let behind = behind.count() as u64;
        let most = found.unfinished + behind;
        assert!((found.unfinished..=most).contains(&unfinished), "{}", scene.ended.done());
        assert_eq!(count("exchanges.headless"), 0, "{}", scene.ended.done());
    }
}

#[test]
fn nginx_with_one_client() {
    nginx(1, Means::Cut);
}

#[test]
fn nginx_with_64_clients() {
    nginx(64, Means::Cut);
}

#[test]
fn nginx_with_512_clients() {
    nginx(512, Means::Cut);
}

#[test]
fn nginx_with_64_clients_and_every_byte_copied() {
    nginx(64, Means::Enough);
}

/// What is told is true, however much is lost.
#[test]
fn nginx_with_a_ring_too_small_for_its_events() {
    let options = ["--payload-bytes", "16384", "--ring-mib", "1"];
    let Some(scene) = nginx_under_load(64, &options, true) else { return };
    let found = compare(&scene.spans(), &scene.lines, &scene.outcomes, Means::Lost, Logs::All);
    assert!(scene.ended.count("events.ring_full") > 0, "{}", scene.ended.done());
    scene.is_right(&found.wrong);
}

/// `%m|%U|%>s|%O|%{remote}p|%{begin:usec}t|%D|%P`
fn apache_lines(log: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(log).expect("it was written");
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split('|').collect();
        let [method, path, status, sent, port, began, took, pid] = fields[..] else {
            panic!("no line of ours: {line:?}");
        };
        let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("{line:?}"));
        Line {
            method: method.to_owned(),
            path: path.to_owned(),
            status: number(status) as u16,
            sent_bytes: Some(number(sent)),
            // It counts what it meant to send.
            body_bytes: if number(sent) == 0 { Some(0) } else { None },
            peer_port: Some(number(port) as u16),
            times: Some((number(began) * 1000, (number(began) + number(took)) * 1000)),
            pid: number(pid) as u32,
        }
    };
    text.lines().map(parse).collect()
}

/// Apache on files; it logs into `to`.
fn apache_on_files(site: &Site<'_>, to: &Path) -> Option<Command> {
    let root = files(site.scratch).join("files");
    let more = format!(
        "LogFormat \"%m|%U|%>s|%O|%{{remote}}p|%{{begin:usec}}t|%D|%P\" oracle\n\
         CustomLog {} oracle\nMaxKeepAliveRequests 0\nThreadsPerChild 64\nServerLimit 2\n\
         MaxRequestWorkers 128\nMaxSpareThreads 128\n\
         AliasMatch ^/[0-9]+/files/(.*)$ {1}/$1\nAliasMatch ^/[0-9]+/post$ {1}/small\n",
        to.display(),
        root.display()
    );
    servers::apache(site, &more)
}

#[test]
fn apache_with_64_clients() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let log = scratch.file("access.log");
    let site = Site { scratch: &scratch, port: own_port(), inner_port: 0 };
    let Some(apache) = apache_on_files(&site, &log) else {
        println!("skipped: needs apache2 (cargo xtask setup)");
        return;
    };
    let kinds = [&Kind::FILES, [Kind::NoHost, Kind::BadLength].as_slice()].concat();
    let options = ["--payload-bytes", "16384", "--ring-mib", "64"];
    let load =
        Load { clients: 64, kinds: &kinds, options: &options, signal: "WINCH", starved: None };
    let (outcomes, ended) = under_load(&scratch, site.port, vec![apache], &load);
    let scene = Scene { lines: apache_lines(&log), outcomes, ended, port: site.port };
    println!("apache, 64 clients: {}", say(&scene));
    let spans = scene.spans();
    let found = compare(&spans, &scene.lines, &scene.outcomes, Means::Enough, Logs::Served);
    scene.is_right(&found.wrong);
    scene.is_right(&compare_precise_times(&spans, &scene.lines, &scene.outcomes));
    assert_eq!(scene.ended.count("lost"), 0, "{}", scene.ended.done());
}

/// `ORACLE|%HM|%HP|%ST|%cp`, among other lines. (`%B` counts what it meant to send.)
fn haproxy_lines(output: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(output).expect("it was written");
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split('|').collect();
        let [method, path, status, port] = fields[..] else {
            panic!("no line of ours: {line:?}");
        };
        Line {
            method: method.to_owned(),
            path: path.to_owned(),
            status: status.parse().unwrap_or(0),
            sent_bytes: None,
            body_bytes: None,
            peer_port: Some(port.parse().expect("a port")),
            times: None,
            pid: 0,
        }
    };
    text.lines().filter_map(|line| line.strip_prefix("ORACLE|")).map(parse).collect()
}

#[test]
fn haproxy_with_64_clients_before_nginx() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let behind = Site { scratch: &scratch, port: own_port(), inner_port: own_port() };
    let site = Site { scratch: &scratch, port: own_port(), inner_port: behind.port };
    let log = scratch.file("access.log");
    // A single thread: of two that log at once, one drops its line.
    let text = format!(
        "global\n nbthread 1\n log stdout format raw local0\n\
         defaults\n mode http\n log global\n timeout connect 20s\n timeout client 20s\n\
         timeout server 20s\n log-format \"ORACLE|%HM|%HP|%ST|%cp\"\n\
         listen front\n bind 127.0.0.1:{}\n server behind 127.0.0.1:{}\n",
        site.port, site.inner_port
    );
    let (Some(nginx), Some(haproxy)) =
        (nginx_on_files(&behind, &log), servers::haproxy(&site, &text))
    else {
        println!("skipped: needs haproxy and nginx (cargo xtask setup)");
        return;
    };
    let more = [Kind::Chunks, Kind::PostExpect, Kind::NoHost].as_slice();
    let mut kinds = [&Kind::FILES, more].concat();
    // Of four servers in a row, its bytes would be more than the agent of this test can take in.
    kinds.retain(|kind| *kind != Kind::Big);
    let options = ["--ring-mib", "128"];
    let load =
        Load { clients: 64, kinds: &kinds, options: &options, signal: "TERM", starved: None };
    let (outcomes, ended) = under_load(&scratch, site.port, vec![nginx, haproxy], &load);
    let lines = haproxy_lines(&scratch.file("output-1"));
    let mut scene = Scene { lines, outcomes, ended, port: site.port };
    println!("haproxy, 64 clients: {}", say(&scene));
    let found = compare(&scene.spans(), &scene.lines, &scene.outcomes, Means::Cut, Logs::Served);
    scene.is_right(&found.wrong);
    // And the server behind it tells the same story.
    (scene.lines, scene.port) = (nginx_lines(&log), behind.port);
    println!("nginx behind it: {}", say(&scene));
    let found = compare(&scene.spans(), &scene.lines, &scene.outcomes, Means::Cut, Logs::All);
    scene.is_right(&found.wrong);
    scene.is_right(&compare_times(&scene.spans(), &scene.lines, &scene.outcomes));
    chain(&scene.ended);
}

/// What HAProxy asks of nginx is one span at either end, joined for certain.
fn chain(ended: &Ended) {
    let called: Vec<&Span> = ended.spans.iter().filter(|span| span.service == "nginx").collect();
    for span in called.iter().filter(|span| span.kind == SERVER) {
        assert_eq!(span.link(), "tcp_seq exact", "{span:#?}");
    }
    parents(ended);
}

/// No span has a parent of another request.
fn parents(ended: &Ended) {
    let by_id: BTreeMap<&str, &Span> =
        ended.spans.iter().map(|span| (span.id.as_str(), span)).collect();
    for span in &ended.spans {
        let Some(parent) = span.parent.as_deref().and_then(|id| by_id.get(id)) else { continue };
        assert_eq!(span.path(), parent.path(), "{span:#?} {parent:#?}");
    }
}

/// Attaches to programs that have been busy for a while, on connections that stay.
fn attach(name: &str, port: u16, commands: Vec<Command>, lines: impl Fn() -> Vec<Line>) {
    let scratch = Scratch::new();
    let mut programs = Vec::new();
    for (number, mut command) in commands.into_iter().enumerate() {
        let output = scratch.file(&format!("output-{number}"));
        programs.push(Program::logged(&mut command, &output));
    }
    listening(port);
    let going = Going::new();
    let mut kinds = Kind::FILES.to_vec();
    // What is under way then is whatever takes long; small ones come often enough.
    kinds.extend([Kind::Big, Kind::Middle, Kind::Post]);
    let (known, ended) = std::thread::scope(|scope| {
        let (going, kinds) = (&going, &kinds);
        let client = |seed| scope.spawn(move || going.client(port, seed, kinds));
        let clients: Vec<_> = (0..32).map(client).collect();
        until("requests before", || (going.begun() > 500).then_some(()));
        let pids = programs.iter().flat_map(|program| tree(program.pid()));
        let pids: Vec<String> = pids.map(|pid| pid.to_string()).collect();
        let options = ["--payload-bytes", "16384", "--ring-mib", "128", "--stats", "--follow"];
        let agent = Agent::run(&scratch, &[&options[..], &["--pid", &pids.join(",")]].concat());
        going.marked.store(true, Ordering::SeqCst);
        let before = going.begun();
        until("requests after", || (going.begun() > before + 3000).then_some(()));
        going.end();
        let known: Vec<(Outcome, bool)> =
            clients.into_iter().flat_map(|client| client.join().expect("it goes on")).collect();
        while let Some(program) = programs.pop() {
            program.stop("TERM");
        }
        (known, agent.end())
    });
    let scene = Scene { lines: lines(), outcomes: Vec::new(), ended, port };
    let (after, before): (Vec<_>, Vec<_>) = known.into_iter().partition(|(_, after)| *after);
    println!("{name}: {} before, {} after, {}", before.len(), after.len(), say(&scene));
    for (outcomes, means) in [(after, Means::Enough), (before, Means::Lost)] {
        let outcomes: Vec<Outcome> = outcomes.into_iter().map(|(outcome, _)| outcome).collect();
        let tokens: BTreeSet<usize> = outcomes.iter().map(|outcome| outcome.token).collect();
        let is_mine = |path: &str| token(path).is_some_and(|token| tokens.contains(&token));
        let lines: Vec<Line> =
            scene.lines.iter().filter(|line| is_mine(&line.path)).cloned().collect();
        let spans: Vec<&Span> =
            scene.spans().into_iter().filter(|span| is_mine(span.path())).collect();
        let found = compare(&spans, &lines, &outcomes, means, Logs::Served);
        scene.is_right(&found.wrong);
    }
    assert_eq!(scene.ended.count("lost"), 0, "{}", scene.ended.done());
}

#[test]
fn attaching_to_a_busy_nginx_misses_no_request_that_begins_afterwards() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let site = Site { scratch: &scratch, port: own_port(), inner_port: own_port() };
    let log = scratch.file("access.log");
    let Some(nginx) = nginx_on_files(&site, &log) else {
        println!("skipped: needs nginx (cargo xtask setup)");
        return;
    };
    attach("nginx", site.port, vec![nginx], || nginx_lines(&log));
}

#[test]
fn attaching_to_a_busy_apache_misses_no_request_that_begins_afterwards() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let site = Site { scratch: &scratch, port: own_port(), inner_port: 0 };
    let log = scratch.file("access.log");
    let Some(apache) = apache_on_files(&site, &log) else {
        println!("skipped: needs apache2 (cargo xtask setup)");
        return;
    };
    attach("apache", site.port, vec![apache], || apache_lines(&log));
}
