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

/// A program that listens at a port and asks at another one.
struct Row {
    /// How it is started; what is asked comes last.
    start: fn(&Site<'_>) -> Vec<Command>,
    kinds: &'static [&'static str],
    /// How often it asks for a request of a kind.
    asks: fn(&str) -> usize,
}

/// A program that does as it is told.
const fn does(start: fn(&Site<'_>) -> Vec<Command>) -> Row {
    let asks = |kind: &str| match kind {
        "each" => 2,
        "together" => 3,
        "after" | "client" => 1,
        _ => 0,
    };
    Row { start, kinds: &KINDS, asks }
}

/// One that passes on what it is asked.
const fn passes_on(start: fn(&Site<'_>) -> Vec<Command>) -> Row {
    Row { start, kinds: &KINDS, asks: |_| 1 }
}

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

fn axum(site: &Site<'_>) -> Vec<Command> {
    let program = servers::built("axum/release/axum-server").expect("set-up has built it");
    let mut command = Command::new(program);
    command.args([site.port.to_string(), site.inner_port.to_string()]);
    vec![command]
}

fn puma(site: &Site<'_>) -> Vec<Command> {
    let mut command = Command::new("puma");
    let bind = format!("tcp://127.0.0.1:{}", site.port);
    command.args(["--bind", &bind, "--threads", "4:4", "--environment", "production"]);
    command.arg(sources().join("threads.ru")).current_dir(site.scratch.path());
    with_back(command, site)
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

/// Apache before the same, with more settings.
fn apache(site: &Site<'_>, more: &str) -> Vec<Command> {
    let behind = Site { scratch: site.scratch, port: own_port(), inner_port: site.inner_port };
    let modules = "/usr/lib/apache2/modules";
    let proxy = format!(
        "LoadModule proxy_module {modules}/mod_proxy.so\n\
         LoadModule proxy_http_module {modules}/mod_proxy_http.so\n\
         ProxyPass / http://127.0.0.1:{}/\n{more}\n",
        behind.port
    );
    let mut commands = uvicorn(&behind);
    commands.push(servers::apache(site, &proxy).expect("set-up has installed it"));
    commands
}

/// Keep-alive requests of clients that are there at one time.
fn load(port: u16, clients: usize, kinds: &[&str]) {
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

/// How often each link was told, with one client and with several.
fn check(row: &Row) -> Vec<BTreeMap<String, usize>> {
    let mut all = Vec::new();
    if !is_root() {
        return all;
    }
    for clients in [1, 6] {
        let scratch = Scratch::new();
        let (_back, back) = service("back", &[]);
        let site = Site { scratch: &scratch, port: own_port(), inner_port: back };
        let mut programs: Vec<Program> = (row.start)(&site)
            .iter_mut()
            .map(|command| Program::logged(command, &scratch.file("log")))
            .collect();
        until("an answer", || {
            let is_there = std::net::TcpStream::connect(("127.0.0.1", site.port)).is_ok();
            (is_there && get(site.port, "/start").contains(" 200 ")).then_some(())
        });
        let program = programs.pop().expect("one at least");
        let pids: Vec<String> = tree(program.pid()).iter().map(u32::to_string).collect();
        let options = ["--stats", "--ring-mib", "64", "--follow", "--pid", &pids.join(",")];
        let agent = Agent::run(&scratch, &options);
        load(site.port, clients, row.kinds);
        let each = |count: fn(&str) -> usize| -> usize {
            row.kinds.iter().map(|kind| clients * ROUNDS * count(kind)).sum()
        };
        let is_for_one = |span: &Span| span.kind == CLIENT && !span.path().starts_with("/poll");
        // Nobody waits for what is done after an answer.
        agent.wait_for(each(row.asks), is_for_one);
        let ended = agent.stop();
        assert_eq!(ended.count("lost"), 0, "{:?}", ended.log);
        let links = links(&ended);
        let told: BTreeMap<String, usize> =
            links.iter().map(|(link, (count, _))| (link.clone(), *count)).collect();
        println!("{clients} clients: {told:?}");
        let served = ended.spans.iter().filter(|span| span.kind == SERVER);
        assert!(served.clone().all(|span| span.int("http.response.status_code") == Some(200)));
        assert_eq!(served.count(), each(|_| 1));
        assert_eq!(ended.spans.iter().filter(|span| is_for_one(span)).count(), each(row.asks));
        let wrong: Vec<&String> = links.values().flat_map(|(_, wrong)| wrong).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        all.push(told);
    }
    all
}

#[test]
fn uvicorn_is_not_guessed_at() {
    check(&does(uvicorn));
}

#[test]
fn haproxy_is_not_guessed_at() {
    check(&passes_on(|site| {
        haproxy(site, "http-reuse always\n filter compression\n compression algo gzip")
    }));
}

#[test]
fn haproxy_that_closes_is_not_guessed_at() {
    check(&passes_on(|site| haproxy(site, "option httpclose")));
}

/// The first one to ask is not there, and asked again and again until another one is.
#[test]
fn haproxy_that_tries_again_is_not_guessed_at() {
    check(&passes_on(|site| {
        let dead = own_port();
        let again = "retries 3\n option redispatch 1\n timeout connect 1s\n balance first";
        haproxy(site, &format!("{again}\n server dead 127.0.0.1:{dead}"))
    }));
}

#[test]
fn apache_is_not_guessed_at() {
    check(&passes_on(|site| apache(site, "")));
}

/// Of processes that serve one request at a time what they ask is known: others wait for them.
#[test]
fn processes_of_apache_are_known_by_whom_they_let_wait() {
    let told = check(&passes_on(|site| {
        let commands = apache(site, "KeepAlive Off\nServerLimit 2\nMaxRequestWorkers 2\n");
        let text = std::fs::read_to_string(site.scratch.file("apache.conf"));
        let text = text.expect("it was written").replace("mpm_event", "mpm_prefork");
        let threads = "MinSpareThreads 8\nThreadsPerChild 8\nMaxRequestWorkers 16\n";
        site.scratch.write("apache.conf", &text.replace(threads, ""));
        commands
    }));
    if let Some(told) = told.last() {
        assert!(told.contains_key("thread inferred"), "{told:?}");
    }
}

#[test]
fn node_is_not_guessed_at() {
    check(&does(node));
}

#[test]
fn tokio_is_not_guessed_at() {
    check(&does(axum));
}

/// Virtual ones, where this host has a JDK that knows them.
#[test]
fn threads_of_the_newest_java_are_not_guessed_at() {
    check(&Row { kinds: &JAVA, ..does(|site| java(site, servers::jdks().last())) });
}

#[test]
fn threads_of_the_oldest_java_are_not_guessed_at() {
    check(&Row { kinds: &JAVA, ..does(|site| java(site, servers::jdks().first())) });
}

#[test]
fn threads_of_gunicorn_are_not_guessed_at() {
    check(&does(|site| gunicorn(site, &["--worker-class", "gthread", "--threads", "4"])));
}

#[test]
fn plain_workers_of_gunicorn_are_not_guessed_at() {
    check(&does(|site| gunicorn(site, &["--worker-class", "sync"])));
}

#[test]
fn green_threads_of_gunicorn_are_not_guessed_at() {
    check(&does(|site| gunicorn(site, &["--worker-class", "gevent"])));
}

#[test]
fn threads_of_puma_are_not_guessed_at() {
    check(&does(puma));
}
