//! What nginx asks of others, while it serves many at once: each call's parent is the request that it was
//! made for. The path tells, which remora never looks at for this.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;

use remora_tests::agent::{Agent, Ended};
use remora_tests::program::{Program, listening, own_port};
use remora_tests::servers::installed;
use remora_tests::spans::{CLIENT, SERVER, Span, check_honest};
use remora_tests::wire::Wire;
use remora_tests::{Scratch, is_root, until};

/// nginx with two workers.
struct Nginx {
    program: Program,
    port: u16,
}

fn nginx(scratch: &Scratch, name: &str, http: &str, server: &str) -> Option<Nginx> {
    let (at, port) = (scratch.path().display(), own_port());
    let text = format!(
        "daemon off; user root; worker_processes 2; pid {at}/{name}.pid; error_log stderr crit;\n\
         worker_rlimit_nofile 8192; events {{ worker_connections 4000; }}\n\
         http {{ access_log off; default_type text/plain; keepalive_requests 1000000;\n\
         client_body_temp_path {at}/1; proxy_temp_path {at}/2; fastcgi_temp_path {at}/3;\n\
         uwsgi_temp_path {at}/4; scgi_temp_path {at}/5;\n{http}\n\
         server {{ listen 127.0.0.1:{port} backlog=4096; {server} }} }}\n"
    );
    let mut command = Command::new(installed("nginx")?);
    command.args(["-e", "stderr", "-c"]).arg(scratch.write(&format!("{name}.conf"), &text));
    let program = Program::start(&mut command);
    listening(port);
    Some(Nginx { program, port })
}

/// What is behind nginx: it answers with the path, by a port and by a Unix socket.
fn back(scratch: &Scratch) -> Option<Nginx> {
    let at = scratch.path().display();
    let listen =
        format!("listen unix:{at}/back; access_log {at}/asked; return 200 <$request_uri>;");
    // Whoever asks for that is sent elsewhere within itself.
    let map = "map $http_x_inner $inner { yes /inner$request_uri; default \"\"; }";
    let back =
        nginx(scratch, "back", &format!("{map} add_header X-Accel-Redirect $inner;"), &listen);
    if back.is_none() {
        println!("skipped: needs nginx");
    }
    back
}

/// An agent on these servers and all that they have forked.
fn agent(scratch: &Scratch, servers: &[&Nginx], args: &[&str]) -> Agent {
    let pids: Vec<String> = servers.iter().map(|nginx| nginx.program.pid().to_string()).collect();
    // Nothing is to be lost, however busy the host is.
    let room = ["--ring-mib", "64", "--payload-bytes", "1024"];
    Agent::run(scratch, &[args, &room, &["--follow", "--pid", &pids.join(",")]].concat())
}

/// How the calls are linked, and how often; every one to the request with its own path.
fn links(ended: &Ended, is_call: impl Fn(&Span) -> bool) -> BTreeMap<String, usize> {
    check_honest(&ended.spans);
    let served = ended.spans.iter().filter(|span| span.kind == SERVER);
    let served: BTreeMap<&str, &Span> = served.map(|span| (span.id.as_str(), span)).collect();
    let mut links = BTreeMap::new();
    for call in ended.spans.iter().filter(|span| span.kind == CLIENT && is_call(span)) {
        if let Some(parent) = &call.parent {
            let parent =
                served.get(parent.as_str()).expect("the parent is a request that was served");
            assert_eq!(parent.path(), call.path(), "{call:#?}");
        }
        *links.entry(call.link()).or_default() += 1;
    }
    links
}

/// Clients at one time, each with a connection of its own, or one for every request.
fn load(port: u16, clients: usize, requests: usize, stays: bool) {
    std::thread::scope(|scope| {
        for client in 0..clients {
            let run = move || {
                let mut wire = Wire::to(port);
                for number in 0..requests {
                    let upstream = ["one", "two"][(client + number) % 2];
                    let end = if stays { "" } else { "Connection: close\r\n" };
                    let path = format!("/{upstream}/{client}/{number}");
                    let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n{end}\r\n");
                    wire.send(request.as_bytes()).expect(&format!("<{path}>"));
                    if !stays && number + 1 < requests {
                        wire = Wire::to(port);
                    }
                }
            };
            let thread = std::thread::Builder::new().stack_size(256 << 10);
            thread.spawn_scoped(scope, run).expect("the host has threads");
        }
    });
}

/// Every request of `clients` at one time, to two servers behind nginx: one by connections that are kept,
/// one by a new one for each.
fn all_are_exact(clients: usize, requests: usize, stays: bool, args: &[&str]) {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let Some(back) = back(&scratch) else { return };
    let upstreams = format!(
        "upstream one {{ server 127.0.0.1:{0}; keepalive 16; }}\n\
         upstream two {{ server 127.0.0.1:{0}; }}\n",
        back.port
    );
    let locations = "location /one/ { proxy_pass http://one; proxy_http_version 1.1; \
                     proxy_set_header Connection \"\"; }\n\
                     location /two/ { proxy_pass http://two; }";
    let front = nginx(&scratch, "front", &upstreams, locations).expect("it is there");
    let agent = agent(&scratch, &[&front], args);
    load(front.port, clients, requests, stays);
    let ended = agent.stop();
    assert_eq!(ended.count("lost"), 0, "{:?}", ended.log);
    let total = clients * requests;
    assert_eq!(links(&ended, |_| true), [("nginx_request exact".to_owned(), total)].into());
    assert_eq!(ended.spans.iter().filter(|span| span.parent.is_none()).count(), total);
}

#[test]
fn of_64_clients_that_stay_every_call_is_exact() {
    all_are_exact(64, 20, true, &[]);
}

#[test]
fn of_512_clients_that_come_and_go_every_call_is_exact() {
    all_are_exact(512, 4, false, &[]);
}

#[test]
fn a_socket_that_is_found_by_its_descriptor_is_as_good() {
    all_are_exact(64, 10, true, &["--capture", "syscall"]);
}

/// The ways by which nginx comes to ask another server: each asks for the very path that it was asked for.
fn ways(back: &Nginx, scratch: &Scratch) -> (String, String) {
    let (port, dead) = (back.port, own_port());
    let unix = scratch.file("back").display().to_string();
    let http = format!(
        "limit_req_zone $server_name zone=slow:1m rate=200r/s;\n\
         upstream tcp {{ server 127.0.0.1:{port}; keepalive 4; }}\n\
         upstream unix {{ server unix:{unix}; keepalive 4; }}\n\
         upstream again {{ server 127.0.0.1:{dead} max_fails=0; server 127.0.0.1:{port}; }}\n\
         upstream failing {{ server 127.0.0.1:{fails}; }}\n\
         upstream fails {{ server 127.0.0.1:{fails} max_fails=0; server 127.0.0.1:{port}; }}\n\
         server {{ listen 127.0.0.1:{fails}; return 503; }}\n\
         proxy_http_version 1.1; proxy_set_header Connection \"\";",
        fails = own_port(),
    );
    let server = format!(
        "listen unix:{};\n\
         location /plain/ {{ proxy_pass http://tcp; }}\n\
         location /unix/ {{ proxy_pass http://unix; }}\n\
         location /again/ {{ proxy_next_upstream error non_idempotent; proxy_pass http://again; }}\n\
         location /fails/ {{ proxy_pass http://fails; proxy_next_upstream http_503 non_idempotent; }}\n\
         location /late/ {{ limit_req zone=slow burst=10000; proxy_pass http://tcp; }}\n\
         location /stream/ {{ proxy_request_buffering off; proxy_pass http://tcp; }}\n\
         location /asks/ {{ auth_request /check; proxy_pass http://tcp; }}\n\
         location /mirror/ {{ mirror /shadow; proxy_pass http://tcp; }}\n\
         location /bare/ {{ proxy_buffering off; limit_rate 1m; proxy_pass http://tcp; }}\n\
         location /error/ {{ proxy_intercept_errors on; error_page 503 = @again; proxy_pass http://failing; }}\n\
         location @again {{ proxy_pass http://tcp; }}\n\
         location /elsewhere/ {{ proxy_set_header X-Inner yes; proxy_set_header Connection \"\"; \
                                 proxy_pass http://tcp; }}\n\
         location /inner/ {{ internal; proxy_pass http://tcp/; }}\n\
         location = /check {{ internal; proxy_pass http://tcp$request_uri; \
                              proxy_pass_request_body off; proxy_set_header Content-Length \"\"; }}\n\
         location = /shadow {{ internal; proxy_pass http://tcp$request_uri; }}",
        scratch.file("front").display(),
    );
    (http, server)
}

const WAYS: [&str; 11] = [
    "plain",
    "unix",
    "again",
    "fails",
    "late",
    "stream",
    "asks",
    "mirror",
    "bare",
    "error",
    "elsewhere",
];

/// Asks for paths of its own in every way, with and without a body; how many requests that are.
fn asks_in_every_way<S: Read + Write>(connect: impl Fn() -> S, client: usize) -> usize {
    let body = "b".repeat(100_000);
    let mut stream = connect();
    for (number, way) in WAYS.iter().cycle().take(5 * WAYS.len()).enumerate() {
        let length = if number % 3 == 0 { body.len() } else { number % 2 };
        let path = format!("/{way}/{client}/{number}");
        let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("it reads");
        stream.write_all(&body.as_bytes()[..length]).expect("it reads");
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !answer.ends_with(format!("<{path}>").as_bytes()) {
            let read = stream.read(&mut buffer).expect("it answers");
            assert!(read > 0, "{path}: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&buffer[..read]);
        }
        if *way == "stream" {
            // nginx closes the connection if the answer is there before it has sent all of the request.
            stream = connect();
        }
    }
    5 * WAYS.len()
}

#[test]
fn whatever_way_nginx_comes_to_ask_it_is_known_for_whom() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let Some(back) = back(&scratch) else { return };
    let (http, server) = ways(&back, &scratch);
    let front = nginx(&scratch, "front", &http, &server).expect("it is there");
    let agent = agent(&scratch, &[&front], &[]);
    let unix = scratch.file("front");
    let requests: usize = std::thread::scope(|scope| {
        let ask = |client| {
            let (port, unix) = (front.port, &unix);
            let tcp = move || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
            let unix = move || UnixStream::connect(unix).expect("it listens");
            scope.spawn(move || match client % 2 {
                0 => asks_in_every_way(tcp, client),
                _ => asks_in_every_way(unix, client),
            })
        };
        let clients: Vec<_> = (0..24).map(ask).collect();
        clients.into_iter().map(|client| client.join().expect("every request is answered")).sum()
    });
    let ended = agent.stop();
    assert_eq!(ended.count("lost"), 0, "{:?}", ended.log);
    let links = links(&ended, |_| true);
    assert_eq!(links.keys().collect::<Vec<_>>(), ["nginx_request exact"], "{links:?}");
    // Beside the one that each request makes: one to ask whether it may, one that is a copy, one after an
    // answer that was no good or said where else to ask, and some that another server had to answer.
    let calls = links["nginx_request exact"];
    assert!(calls >= requests + requests * 4 / WAYS.len(), "{calls} calls of {requests} requests");
}

/// What is behind nginx is asked in the background for what is kept of it and has become old, after the answer.
#[test]
fn what_nginx_keeps_is_asked_for_by_whoever_finds_it_old() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let Some(back) = back(&scratch) else { return };
    let keep = format!(
        "proxy_cache_path {}/kept keys_zone=kept:1m; upstream tcp {{ server 127.0.0.1:{}; keepalive 4; }}\n\
         proxy_http_version 1.1; proxy_set_header Connection \"\";",
        scratch.path().display(),
        back.port
    );
    let server = "location /kept/ { proxy_cache kept; proxy_cache_key one; proxy_cache_valid 200 1s; \
                  proxy_cache_use_stale updating; proxy_cache_background_update on; \
                  add_header X-Kept $upstream_cache_status; proxy_pass http://tcp; }\n\
                  location /plain/ { proxy_pass http://tcp; }";
    let front = nginx(&scratch, "front", &keep, server).expect("it is there");
    let agent = agent(&scratch, &[&front], &[]);
    let done = &std::sync::atomic::AtomicBool::new(false);
    let (asked, kept) = std::thread::scope(|scope| {
        let others = scope.spawn(move || {
            let mut wire = Wire::to(front.port);
            let mut asked = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let path = format!("/plain/{asked}");
                let head = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
                wire.send(head.as_bytes()).expect(&format!("<{path}>"));
                asked += 1;
                // A second's worth of what is beside it need not be more.
                std::thread::park_timeout(std::time::Duration::from_millis(1));
            }
            asked
        });
        let mut wire = Wire::to(front.port);
        let mut number = 0;
        let mut kept = std::collections::BTreeMap::new();
        until("two updates", || {
            let head = format!("GET /kept/{number} HTTP/1.1\r\nHost: h\r\n\r\n");
            let answer = wire.send(head.as_bytes()).expect(">");
            let how = answer.split_once("X-Kept: ").expect("it says").1;
            *kept.entry(how.lines().next().expect("a word").to_owned()).or_insert(0) += 1;
            number += 1;
            (kept.get("STALE") == Some(&2)).then_some(())
        });
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        (others.join().expect("it is answered"), kept)
    });
    // Nobody waits for the last one.
    until("every call", || {
        let asked = std::fs::read_to_string(scratch.file("asked")).unwrap_or_default();
        (asked.lines().filter(|line| line.contains("/kept/")).count() == 3).then_some(())
    });
    let ended = agent.stop();
    assert_eq!(ended.count("lost"), 0, "{:?}", ended.log);
    assert_eq!(kept["MISS"], 1, "{kept:?}");
    assert_eq!(links(&ended, |_| true), [("nginx_request exact".to_owned(), asked + 3)].into());
}

/// nginx asks for a file piece by piece.
#[test]
fn pieces_that_nginx_asks_for_are_of_one_request() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.file("sliced")).expect("the directory is ours");
    for number in 0..8 {
        scratch.write(&format!("sliced/{number}"), &"x".repeat(40_000));
    }
    let files = format!("root {};", scratch.path().display());
    let Some(back) = nginx(&scratch, "back", "", &files) else {
        println!("skipped: needs nginx");
        return;
    };
    let server = format!(
        "location /sliced/ {{ slice 8k; proxy_set_header Range $slice_range; proxy_http_version 1.1; \
         proxy_pass http://127.0.0.1:{}; }}",
        back.port
    );
    let front = nginx(&scratch, "front", "", &server).expect("it is there");
    let agent = agent(&scratch, &[&front], &[]);
    std::thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                let answer = remora_tests::wire::get(front.port, &format!("/sliced/{number}"));
                assert!(answer.ends_with(&"x".repeat(40_000)));
            });
        }
    });
    let ended = agent.stop();
    assert_eq!(ended.count("lost"), 0, "{:?}", ended.log);
    assert_eq!(links(&ended, |_| true), [("nginx_request exact".to_owned(), 8 * 5)].into());
    let answered = ended.spans.iter().filter(|span| span.kind == SERVER);
    assert!(answered.clone().all(|span| span.int("http.response.body.size") == Some(40_000)));
    assert_eq!(answered.count(), 8);
}

#[test]
fn of_requests_that_were_read_together_what_is_beside_them_stays_unknown() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let Some(back) = back(&scratch) else { return };
    let (http, server) = ways(&back, &scratch);
    let front = nginx(&scratch, "front", &http, &server).expect("it is there");
    let agent = agent(&scratch, &[&front], &[]);
    let requests = ["/mirror/1", "/plain/2", "/mirror/3"]
        .map(|path| format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
    let mut wire = Wire::to(front.port);
    wire.send(requests.concat().as_bytes()).expect("</mirror/3>");
    drop(wire);
    // Nobody waits for the answers to copies.
    until("every call", || {
        let asked = std::fs::read_to_string(scratch.file("asked")).unwrap_or_default();
        (asked.lines().count() == 5).then_some(())
    });
    let ended = agent.stop();
    let expected = [("", 2), ("nginx_request inferred", 3)];
    assert_eq!(links(&ended, |_| true), expected.map(|(link, n)| (link.to_owned(), n)).into());
}

#[test]
fn what_came_in_a_way_that_is_not_understood_is_not_put_below_what_is_open() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let Some(back) = back(&scratch) else { return };
    let Some(curl) = installed("curl") else {
        println!("skipped: needs curl");
        return;
    };
    let (other, port) = (own_port(), back.port);
    let server = format!(
        "listen 127.0.0.1:{other} http2; location / {{ proxy_pass http://127.0.0.1:{port}; }}"
    );
    let front = nginx(&scratch, "front", "", &server).expect("it is there");
    let agent = agent(&scratch, &[&front], &[]);
    // The one request that its thread seems to serve.
    let mut open = Wire::to(front.port);
    open.send(b"POST /open HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n");
    let url = format!("http://127.0.0.1:{other}/other");
    let mut ask = Command::new(curl);
    ask.args(["--silent", "--fail", "--http2-prior-knowledge", &url]);
    for _ in 0..8 {
        let answer = ask.output().expect("it is there");
        assert_eq!(String::from_utf8_lossy(&answer.stdout), "</other>");
    }
    open.send(b"1").expect("</open>");
    let ended = agent.stop();
    let expected = [("", 8), ("nginx_request exact", 1)];
    assert_eq!(links(&ended, |_| true), expected.map(|(link, n)| (link.to_owned(), n)).into());
}
