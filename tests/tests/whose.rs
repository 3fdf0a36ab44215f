//! Calls of programs that serve many requests by few threads (event loops, green threads, virtual threads), and by
//! threads that do other things besides: whatever parent is told of a call is true. The path tells, which remora
//! never looks at for this: each call asks for the path of the request that it is made for, but those that are made
//! for none ask for `/poll`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use remora_tests::agent::{Agent, Ended};
use remora_tests::program::{Program, own_port, scripts, service, tree};
use remora_tests::servers::{self, Site};
use remora_tests::spans::{CLIENT, SERVER, Span, check_honest};
use remora_tests::wire::{Wire, get};
use remora_tests::{Scratch, is_root, until};

/// What a request has its server do.
/// * `each`: it asks twice, and waits before;
/// * `together`: it asks three times at once;
/// * `slow`: it waits; the first one begins to poll, for as long as the program runs;
/// * `after`: it asks when it has answered;
/// * `handed`: it answers some time later by another thread; that of the request does something else meanwhile.
const KINDS: [&str; 4] = ["each", "together", "slow", "after"];

const JAVA: [&str; 6] = ["each", "together", "client", "after", "slow", "handed"];

/// How often each kind is asked for by a client.
const ROUNDS: usize = 8;

/// Starts a program that listens at a port and asks at another one.
type Start = fn(&Site<'_>) -> Vec<Command>;

fn sources() -> PathBuf {
    scripts().join("whose")
}

fn with_back(mut command: Command, site: &Site<'_>) -> Vec<Command> {
    command.env("BACK", site.inner_port.to_string());
    vec![command]
}

fn python(program: &str) -> Command {
    Command::new(servers::built(&format!("python/bin/{program}")).expect("set-up has fetched it"))
}

fn uvicorn(site: &Site<'_>) -> Vec<Command> {
    let mut command = python("uvicorn");
    command.arg("--app-dir").arg(sources()).args(["--log-level", "warning", "asgi:app"]);
    command.args(["--port", &site.port.to_string()]);
    with_back(command, site)
}

fn gunicorn(site: &Site<'_>, class: &[&str]) -> Vec<Command> {
    let mut command = python("gunicorn");
    command.args(["--bind", &format!("127.0.0.1:{}", site.port), "--chdir"]).arg(sources());
    command.args(["--log-level", "warning", "--worker-tmp-dir"]).arg(site.scratch.path());
    command.args(class).arg("wsgi:app");
    with_back(command, site)
}

fn node(site: &Site<'_>) -> Vec<Command> {
    let mut command = Command::new("node");
    command.arg(sources().join("loop.js"));
    command.args([site.port.to_string(), site.inner_port.to_string()]);
    vec![command]
}

fn java(site: &Site<'_>, java: Option<&PathBuf>) -> Vec<Command> {
    let mut command = Command::new(java.expect("set-up has installed it"));
    command.arg("-XX:TieredStopAtLevel=1").arg(sources().join("Threads.java"));
    command.args([site.port.to_string(), site.inner_port.to_string()]);
    vec![command]
}

/// HAProxy before the event loop above, which it asks whether it is well, too, more often than anybody would.
fn haproxy(site: &Site<'_>, options: &str) -> Vec<Command> {
    let behind = Site { scratch: site.scratch, port: own_port(), inner_port: site.inner_port };
    let text = format!(
        "global\n nbthread 2\ndefaults\n mode http\n timeout connect 20s\n timeout client 20s\n \
         timeout server 20s\n timeout check 20s\nlisten front\n bind 127.0.0.1:{}\n option httpchk GET /poll/0\n {options}\n \
         server behind 127.0.0.1:{} check inter 7ms fall 1000\n",
        site.port, behind.port
    );
    let mut commands = uvicorn(&behind);
    commands.push(servers::haproxy(site, &text).expect("set-up has installed it"));
    commands
}

/// Apache before the same.
fn apache(site: &Site<'_>) -> Vec<Command> {
    let behind = Site { scratch: site.scratch, port: own_port(), inner_port: site.inner_port };
    let modules = "/usr/lib/apache2/modules";
    let proxy = format!(
        "LoadModule proxy_module {modules}/mod_proxy.so\n\
         LoadModule proxy_http_module {modules}/mod_proxy_http.so\n\
         ProxyPass / http://127.0.0.1:{}/\n",
        behind.port
    );
    let mut commands = uvicorn(&behind);
    commands.push(servers::apache(site, &proxy).expect("set-up has installed it"));
    commands
}

/// Keep-alive requests of clients that are there at one time.
fn load(port: u16, clients: usize, kinds: &[&str]) -> usize {
    std::thread::scope(|scope| {
        for client in 0..clients {
            scope.spawn(move || {
                let mut wire = Wire::to(port);
                for number in 0..ROUNDS {
                    for kind in kinds {
                        let head =
                            format!("GET /{kind}/{client}/{number} HTTP/1.1\r\nHost: h\r\n\r\n");
                        let answer = wire.send(head.as_bytes()).expect("ok");
                        if answer.contains("onnection: close") {
                            wire = Wire::to(port);
                        }
                    }
                }
            });
        }
    });
    clients * kinds.len() * ROUNDS
}

/// The links of calls, and how many of each are wrong.
fn links(ended: &Ended) -> BTreeMap<String, (usize, Vec<String>)> {
    check_honest(&ended.spans);
    let by_id: BTreeMap<&str, &Span> =
        ended.spans.iter().map(|span| (span.id.as_str(), span)).collect();
    let mut links: BTreeMap<String, (usize, Vec<String>)> = BTreeMap::new();
    for call in ended.spans.iter().filter(|span| span.kind == CLIENT) {
        let (count, wrong) = links.entry(call.link()).or_default();
        *count += 1;
        let parent = call.parent.as_deref().map(|parent| by_id[parent].path());
        if let Some(parent) = parent.filter(|parent| *parent != call.path()) {
            wrong.push(format!("{} below {parent}", call.path()));
        }
    }
    links
}

fn check(start: Start, kinds: &[&str]) {
    if !is_root() {
        return;
    }
    for clients in [1, 6] {
        let scratch = Scratch::new();
        let (_back, back) = service("back", &[]);
        let site = Site { scratch: &scratch, port: own_port(), inner_port: back };
        let mut programs: Vec<Program> = start(&site)
            .iter_mut()
            .map(|command| Program::logged(command, &scratch.file("log")))
            .collect();
        until("an answer", || {
            let wire = std::net::TcpStream::connect(("127.0.0.1", site.port));
            let log = || std::fs::read_to_string(scratch.file("log"));
            wire.map_err(|_| log()).ok()?;
            get(site.port, "/start").contains(" 200 ").then_some(())
        });
        let program = programs.pop().expect("one at least");
        let pids: Vec<String> = tree(program.pid()).iter().map(u32::to_string).collect();
        let agent = Agent::run(&scratch, &["--stats", "--follow", "--pid", &pids.join(",")]);
        let requests = load(site.port, clients, kinds);
        let ended = agent.stop();
        let links = links(&ended);
        println!("{clients} clients: {links:#?}");
        let served = ended.spans.iter().filter(|span| span.kind == SERVER).count();
        assert_eq!(served, requests);
        let wrong: usize = links.values().map(|(_, wrong)| wrong.len()).sum();
        assert_eq!(wrong, 0);
    }
}

#[test]
fn uvicorn_is_not_guessed_at() {
    check(uvicorn, &KINDS);
}

#[test]
fn haproxy_is_not_guessed_at() {
    let start: Start =
        |site| haproxy(site, "http-reuse always\n filter compression\n compression algo gzip");
    check(start, &KINDS);
}

#[test]
fn haproxy_that_closes_is_not_guessed_at() {
    check(|site| haproxy(site, "option httpclose"), &KINDS);
}

#[test]
fn apache_is_not_guessed_at() {
    check(apache, &KINDS);
}

#[test]
fn node_is_not_guessed_at() {
    check(node, &KINDS);
}

/// Virtual ones, where this host has a JDK that knows them.
#[test]
fn threads_of_the_newest_java_are_not_guessed_at() {
    check(|site| java(site, servers::jdks().last()), &JAVA);
}

#[test]
fn threads_of_the_oldest_java_are_not_guessed_at() {
    check(|site| java(site, servers::jdks().first()), &JAVA);
}

#[test]
fn threads_of_gunicorn_are_not_guessed_at() {
    check(|site| gunicorn(site, &["--worker-class", "gthread", "--threads", "4"]), &KINDS);
}

#[test]
fn plain_workers_of_gunicorn_are_not_guessed_at() {
    check(|site| gunicorn(site, &["--worker-class", "sync"]), &KINDS);
}

#[test]
fn green_threads_of_gunicorn_are_not_guessed_at() {
    check(|site| gunicorn(site, &["--worker-class", "gevent"]), &KINDS);
}
