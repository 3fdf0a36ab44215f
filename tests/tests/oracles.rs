//! Servers that log what they do, under load that is as bad as clients are: every line of the log is
//! one span, and every span is one line.

use std::path::Path;

use remora_tests::agent::{Agent, Ended};
use remora_tests::load::{self, Kind, Outcome};
use remora_tests::oracle::{Line, Means, compare, compare_times};
use remora_tests::program::{Program, listening, own_port, tree};
use remora_tests::servers::{self, Site};
use remora_tests::spans::{SERVER, Span, check_honest};
use remora_tests::{Scratch, is_root};

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

/// nginx under load: its log, what its clients know, and what remora tells.
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

fn nginx_under_load(clients: usize, options: &[&str]) -> Option<Scene> {
    if !is_root() {
        return None;
    }
    let scratch = Scratch::new();
    let (root, log) = (files(&scratch), scratch.file("access.log"));
    let (root, to) = (root.display(), log.display());
    let site = Site { scratch: &scratch, port: own_port(), inner_port: own_port() };
    let server = format!(
        "access_log {to} oracle; root {root}; keepalive_requests 100000; sendfile on;\n\
         rewrite ^/[0-9]+(/.*)$ $1;\n\
         location /post {{ proxy_pass http://127.0.0.1:{0}$request_uri; proxy_http_version 1.1; }}\n\
         location /chunks {{ alias {root}/files; sub_filter nothing something;\n\
         sub_filter_types *; }}\n",
        site.inner_port
    );
    let http = format!(
        "log_format oracle '$request_method|$request_uri|$status|$bytes_sent|$body_bytes_sent|\
         $request_time|$msec|$pid|$remote_port';\n\
         server {{ listen 127.0.0.1:{}; access_log off; return 200 \"posted\"; }}\n",
        site.inner_port
    );
    let Some(mut command) = servers::nginx(&site, &server, &http) else {
        println!("skipped: needs nginx (cargo xtask setup)");
        return None;
    };
    let nginx = Program::logged(&mut command, &scratch.file("output"));
    listening(site.port);
    let pids: Vec<String> = tree(nginx.pid()).iter().map(u32::to_string).collect();
    let pids = pids.join(",");
    let args = [options, &["--stats", "--follow", "--pid", &pids]].concat();
    let agent = Agent::run(&scratch, &args);
    let more =
        [Kind::Chunks, Kind::PostExpect, Kind::NoHost, Kind::BadLength, Kind::Alien].as_slice();
    let visits = load::plan(SEED, REQUESTS, &[&Kind::FILES, more].concat());
    let outcomes = load::run(site.port, &visits, clients);
    // It ends once its last connection has, and remora with it.
    nginx.stop("QUIT");
    let ended = agent.end();
    check_honest(&ended.spans);
    let scene = Scene { lines: nginx_lines(&log), outcomes, ended, port: site.port };
    println!(
        "nginx, {clients} clients: {} requests, {} lines, {} spans, {}",
        scene.outcomes.len(),
        scene.lines.len(),
        scene.spans().len(),
        scene.ended.done().split(" remora_").next().unwrap_or_default()
    );
    Some(scene)
}

/// Everything is told, or counted where bytes were not copied.
fn nginx(clients: usize, means: Means) {
    let options: &[&str] = match means {
        Means::Enough => &["--payload-bytes", "16384", "--ring-mib", "64"],
        _ => &[],
    };
    let Some(scene) = nginx_under_load(clients, options) else { return };
    let spans = scene.spans();
    let found = compare(&spans, &scene.lines, &scene.outcomes, means);
    scene.is_right(&found.wrong);
    scene.is_right(&compare_times(&spans, &scene.lines, &scene.outcomes));
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
