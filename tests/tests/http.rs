//! HTTP/1 as it happens between real sockets: what the span of each exchange says.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use remora_tests::agent::{Agent, Ended};
use remora_tests::program::{python, service};
use remora_tests::spans::{Span, check_honest};
use remora_tests::wire::{Wire, get};
use remora_tests::{Scratch, is_root, until};

/// Traces a server that takes `steps` while `client` talks to it.
fn scene(steps: &[&str], client: impl FnOnce(&mut Wire)) -> Ended {
    let scratch = Scratch::new();
    let (server, port) = python("raw.py", steps);
    let agent = Agent::run(&scratch, &["--pid", &server.pid().to_string()]);
    let mut wire = Wire::to(port.parse().expect("it prints its port"));
    client(&mut wire);
    assert_eq!(server.line(), "done");
    drop(wire);
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0));
    check_honest(&ended.spans);
    ended
}

/// What is asked of a span: method, path, status, error, body sizes.
fn say(span: &Span) -> String {
    let number = |key: &str| span.int(key).map_or("-".to_owned(), |number| number.to_string());
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    format!(
        "{} {} {} {} {}/{}",
        span.text("http.request.method"),
        span.path(),
        number("http.response.status_code"),
        or_dash(span.text("error.type")),
        number("http.request.body.size"),
        number("http.response.body.size"),
    )
}

fn check(ended: &Ended, expected: &[&str]) {
    let said: Vec<String> = ended.spans.iter().map(say).collect();
    assert_eq!(said, expected, "{:#?}", ended.log);
}

#[test]
fn keep_alive_with_every_kind_of_body() {
    if !is_root() {
        return;
    }
    let ended = scene(
        &[
            "r:\\r\\n\\r\\n",
            "w:HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhello",
            "r:ping",
            "w:HTTP/1.1 201 Created\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n3\\r\\nabc\\r\\n",
            "w:4;x=y\\r\\ndefg\\r\\n0\\r\\nT: 1\\r\\n\\r\\n",
            "r:\\r\\n\\r\\n",
            "w:HTTP/1.1 200 OK\\r\\nContent-Length: 999\\r\\n\\r\\n",
            "r:\\r\\n\\r\\n",
            "w:HTTP/1.1 304 Not Modified\\r\\nContent-Length: 999\\r\\n\\r\\n",
            "r:\\r\\n\\r\\n",
            "w:HTTP/1.1 204 No Content\\r\\n\\r\\n",
            "r:\\r\\n\\r\\n",
            "w:HTTP/1.0 200 OK\\r\\n\\r\\nuntil the end",
            "c",
        ],
        |wire| {
            wire.send(b"GET /length HTTP/1.1\r\nHost: h\r\n\r\n").expect("hello");
            wire.send(b"POST /chunked HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nping");
            wire.expect("T: 1\r\n\r\n");
            wire.send(b"HEAD /head HTTP/1.1\r\nHost: h\r\n\r\n").expect("\r\n\r\n");
            wire.send(b"GET /304 HTTP/1.1\r\nHost: h\r\n\r\n").expect("\r\n\r\n");
            wire.send(b"DELETE /204 HTTP/1.1\r\nHost: h\r\n\r\n").expect("\r\n\r\n");
            wire.send(b"GET /close HTTP/1.1\r\nHost: h\r\n\r\n");
            assert!(wire.rest().ends_with("until the end"));
        },
    );
    check(
        &ended,
        &[
            "GET /length 200 - 0/5",
            "POST /chunked 201 - 4/7",
            "HEAD /head 200 - 0/0",
            "GET /304 304 - 0/0",
            "DELETE /204 204 - 0/0",
            "GET /close 200 - 0/13",
        ],
    );
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    if !is_root() {
        return;
    }
    let ended = scene(
        &[
            "r:/3 HTTP/1.1\\r\\n\\r\\n",
            "w:HTTP/1.1 200 OK\\r\\nContent-Length: 1\\r\\n\\r\\n1HTTP/1.1 404 No\\r\\nContent-Length: 0\\r\\n\\r\\n",
            "w:HTTP/1.1 500 Bad\\r\\nContent-Length: 2\\r\\n\\r\\n33",
        ],
        |wire| {
            wire.send(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n");
            wire.expect("33");
        },
    );
    check(&ended, &["GET /1 200 - 0/1", "GET /2 404 - 0/0", "GET /3 500 500 0/2"]);
    assert_eq!(ended.spans[2].status, 2);
    assert_eq!(ended.spans[1].status, 0, "a server's 4xx is no error");
}

#[test]
fn interim_answers_do_not_end_the_exchange() {
    if !is_root() {
        return;
    }
    let ended = scene(
        &[
            "r:\\r\\n\\r\\n",
            "w:HTTP/1.1 100 Continue\\r\\n\\r\\n",
            "r:body",
            "w:HTTP/1.1 103 Early Hints\\r\\nLink: x\\r\\n\\r\\n",
            "w:HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok",
        ],
        |wire| {
            wire.send(b"PUT /c HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
            wire.expect("100 Continue\r\n\r\n");
            wire.send(b"body").expect("ok");
        },
    );
    check(&ended, &["PUT /c 200 - 4/2"]);
}

#[test]
fn a_websocket_ends_the_exchange_at_its_101() {
    if !is_root() {
        return;
    }
    let ended = scene(
        &[
            "r:\\r\\n\\r\\n",
            "w:HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n\\r\\n",
            "r:frames",
            "w:GET /looks-like-http HTTP/1.1\\r\\n\\r\\n",
        ],
        |wire| {
            wire.send(b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
            wire.expect("\r\n\r\n");
            wire.send(b"GET /frame HTTP/1.1\r\n\r\nframes").expect("looks-like-http");
        },
    );
    check(&ended, &["GET /ws 101 - 0/0"]);
}

#[test]
fn connect_opens_a_tunnel() {
    if !is_root() {
        return;
    }
    let ended = scene(
        &[
            "r:\\r\\n\\r\\n",
            "w:HTTP/1.1 200 Connection established\\r\\n\\r\\n",
            "r:inside",
            "w:GET /not-ours HTTP/1.1\\r\\n\\r\\n",
        ],
        |wire| {
            wire.send(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n");
            wire.expect("\r\n\r\n");
            wire.send(b"GET /inside HTTP/1.1\r\n\r\ninside").expect("not-ours");
        },
    );
    assert_eq!(ended.spans.len(), 1, "{:#?}", ended.spans);
    assert_eq!(ended.spans[0].name, "CONNECT");
    assert_eq!(ended.spans[0].int("http.response.status_code"), Some(200));
}

#[test]
fn heads_in_tiny_vectors_and_tiny_writes() {
    if !is_root() {
        return;
    }
    let ended = scene(
        &[
            "r:\\r\\n\\r\\n",
            "v:|HTTP/1.1| |200| OK\\r\\n|Content-Length: 6\\r\\n|\\r\\n|abc||def",
            "r:\\r\\n\\r\\n",
            "w:H",
            "w:TTP/1.1 4",
            "w:04 ",
            "w:Not Found\\r",
            "w:\\nContent-Length: 0\\r\\n",
            "w:\\r",
            "w:\\n",
        ],
        |wire| {
            wire.send(b"GET /vectors HTTP/1.1\r\n\r\n").expect("abcdef");
            for piece in ["G", "ET ", "/tin", "y?x=1 HTTP/", "1.1\r\nHost", ": h\r\n", "\r", "\n"] {
                wire.send(piece.as_bytes());
            }
            wire.expect("\r\n\r\n");
        },
    );
    check(&ended, &["GET /vectors 200 - 0/6", "GET /tiny 404 - 0/0"]);
}

#[test]
fn an_answer_may_come_before_the_request_is_whole() {
    if !is_root() {
        return;
    }
    let ended = scene(
        &[
            "r:\\r\\n\\r\\n",
            "w:HTTP/1.1 413 Too Large\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n",
            "h",
            "e",
        ],
        |wire| {
            wire.send(b"POST /big HTTP/1.1\r\nContent-Length: 1000000\r\n\r\nsome");
            assert!(wire.rest().contains("413"));
            wire.half_close().expect("still open");
        },
    );
    assert_eq!(ended.spans.len(), 1, "{:#?}", ended.spans);
    assert_eq!(ended.spans[0].int("http.response.status_code"), Some(413));
}

#[test]
fn a_client_that_leaves_and_a_server_that_resets() {
    if !is_root() {
        return;
    }
    let left = scene(&["r:\\r\\n\\r\\n", "e", "c"], |wire| {
        wire.send(b"GET /left HTTP/1.1\r\nHost: h\r\n\r\n");
        wire.half_close().expect("still open");
        wire.rest();
    });
    assert_eq!(left.spans.len(), 1, "{:#?}", left.spans);
    assert_eq!(left.spans[0].int("http.response.status_code"), None);
    assert_ne!(left.spans[0].text("error.type"), "");
    assert_eq!(left.spans[0].status, 2);
    let reset = scene(
        &["r:\\r\\n\\r\\n", "w:HTTP/1.1 200 OK\\r\\nContent-Length: 100\\r\\n\\r\\nhalf", "x"],
        |wire| {
            wire.send(b"GET /reset HTTP/1.1\r\nHost: h\r\n\r\n");
            wire.rest();
        },
    );
    assert_eq!(reset.spans.len(), 1, "{:#?}", reset.spans);
    assert_eq!(reset.spans[0].int("http.response.status_code"), Some(200));
    assert_ne!(reset.spans[0].text("error.type"), "", "the answer was cut");
}

#[test]
fn an_answer_that_provokes_a_reset_was_written_all_the_same() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let answer = "w:HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok";
    let (server, port) = python("raw.py", &["r:\\r\\n\\r\\n", "e", answer, "c"]);
    let agent = Agent::run(&scratch, &["--pid", &server.pid().to_string()]);
    let mut wire = Wire::to(port.parse().expect("it prints its port"));
    wire.send(b"GET /gone HTTP/1.1\r\nHost: h\r\n\r\n");
    // Nobody is there any more when the answer comes; loopback says so while it is being written.
    drop(wire);
    assert_eq!(server.line(), "done");
    check(&agent.stop(), &["GET /gone 200 - 0/2"]);
}

#[test]
fn attaching_in_mid_message_begins_with_the_next_request() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (server, port) = python(
        "raw.py",
        &[
            "r:first",
            "w:HTTP/1.1 200 OK\\r\\nContent-Length: 10\\r\\n\\r\\n01234",
            "r:more",
            "w:56789",
            "r:\\r\\n\\r\\n",
            "w:HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok",
        ],
    );
    let mut wire = Wire::to(port.parse().expect("it prints its port"));
    wire.send(b"POST /old HTTP/1.1\r\nContent-Length: 9\r\n\r\nfirst").expect("01234");
    let agent = Agent::run(&scratch, &["--pid", &server.pid().to_string()]);
    wire.send(b"more").expect("56789");
    wire.send(b"GET /new HTTP/1.1\r\nHost: h\r\n\r\n").expect("ok");
    let ended = agent.stop();
    check(&ended, &["GET /new 200 - 0/2"]);
}

#[test]
fn bytes_that_are_not_http_are_counted_and_left_alone() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (server, port) = python("raw.py", &["r:bye", "w:\\x00\\x01binary"]);
    let agent = Agent::run(&scratch, &["--stats", "--pid", &server.pid().to_string()]);
    let mut wire = Wire::to(port.parse().expect("it prints its port"));
    wire.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfcbye").expect("binary");
    assert_eq!(server.line(), "done");
    let ended = agent.stop();
    assert!(ended.spans.is_empty());
    assert_eq!(ended.count("remora_unknown_traffic_bytes_total"), 20, "{:?}", ended.log);
    assert_eq!(ended.count("lost"), 0);
}

#[test]
fn what_never_became_a_request_is_not_a_loss() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (server, port) = python("raw.py", &["r:GET /unfini", "w:bye", "c"]);
    let agent = Agent::run(&scratch, &["--stats", "--pid", &server.pid().to_string()]);
    let mut wire = Wire::to(port.parse().expect("it prints its port"));
    wire.send(b"GET /unfini");
    assert_eq!(wire.rest(), "bye");
    assert_eq!(server.line(), "done");
    let ended = agent.stop();
    assert!(ended.spans.is_empty(), "{:#?}", ended.spans);
    assert_eq!(ended.count("remora_requests_unfinished_total"), 1, "{:?}", ended.log);
    assert_eq!(ended.count("lost"), 0, "{:?}", ended.log);
}

#[test]
fn a_target_longer_than_what_is_copied_is_a_loss() {
    if !is_root() {
        return;
    }
    let ended = scene(
        &["r:\\r\\n\\r\\n", "w:HTTP/1.1 414 URI Too Long\\r\\nContent-Length: 0\\r\\n\\r\\n"],
        |wire| {
            let target = "t".repeat(10_000);
            wire.send(format!("GET /{target} HTTP/1.1\r\n\r\n").as_bytes()).expect("\r\n\r\n");
        },
    );
    assert!(ended.spans.is_empty(), "{:#?}", ended.spans);
    assert_eq!(ended.count("exchanges.headless"), 1, "{:?}", ended.log);
}

#[test]
fn what_a_proxy_says_of_its_client_comes_before_the_first_request() {
    if !is_root() {
        return;
    }
    let answer = "w:HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok";
    let steps = ["r:/1 HTTP/1.1\\r\\n\\r\\n", answer, "r:/2 HTTP/1.1\\r\\n\\r\\n", answer];
    let line = "PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n";
    let binary = "\r\n\r\n\0\r\nQUIT\n!\x11\0\x0cclient|proxy";
    for (preface, ending) in [(line, ""), (binary, ""), (binary, "\r\n")] {
        let ended = scene(&steps, |wire| {
            wire.send(format!("{preface}{ending}GET /1 HTTP/1.1\r\n\r\n").as_bytes()).expect("ok");
            wire.send(b"GET /2 HTTP/1.1\r\n\r\n").expect("ok");
        });
        check(&ended, &["GET /1 200 - 0/2", "GET /2 200 - 0/2"]);
    }
}

#[test]
fn lines_that_no_parser_takes_but_servers_answer() {
    if !is_root() {
        return;
    }
    let answer = "w:HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n";
    let ended =
        scene(&["r:\\r\\n\\r\\n", answer, "r:body", answer, "r:\\r\\n\\r\\n", answer], |wire| {
            wire.send(b"GET /caf\xe9?token=h\xfcsh HTTP/1.1\r\nHost: h\r\n\r\n").expect("\r\n\r\n");
            wire.send(b"PUT /a b\tc HTTP/1.1 \r\nContent-Length: 4\r\n\r\nbody").expect("\r\n\r\n");
            wire.send(b"GET /after HTTP/1.1\r\nHost: h\r\n\r\n").expect("\r\n\r\n");
        });
    check(&ended, &["GET /caf%E9 200 - 0/0", "PUT /a b%09c 200 - 4/0", "GET /after 200 - 0/0"]);
    assert_eq!(ended.spans[0].text("url.query"), "token=REDACTED");
}

#[test]
fn a_unix_socket_that_is_closed_ends_its_answer() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let answer = "w:HTTP/1.0 200 OK\\r\\n\\r\\nuntil the end";
    let (server, path) = python("raw.py", &["u", "r:\\r\\n\\r\\n", answer, "c"]);
    let agent = Agent::run(&scratch, &["--pid", &server.pid().to_string()]);
    let mut wire = UnixStream::connect(path).expect("it listens");
    wire.write_all(b"GET /unix HTTP/1.0\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    wire.read_to_string(&mut answer).expect("it closes");
    // Neither the server nor its agent ends, nor does anything else happen.
    agent.wait_for(1, |span| span.path() == "/unix");
    let ended = agent.stop();
    check(&ended, &["GET /unix 200 - 0/13"]);
    assert_eq!(ended.spans[0].text("remora.end.reason"), "");
}

#[test]
fn heads_larger_than_what_is_copied_still_tell_what_was_asked() {
    if !is_root() {
        return;
    }
    let ended = scene(
        &[
            "r:\\r\\n\\r\\n",
            "w:HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok",
            "r:\\r\\n\\r\\n",
            "w:HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok",
        ],
        |wire| {
            let cookie = "c".repeat(30_000);
            let request = format!("GET /huge HTTP/1.1\r\nCookie: {cookie}\r\n\r\n");
            wire.send(request.as_bytes()).expect("ok");
            wire.send(b"GET /after HTTP/1.1\r\nHost: h\r\n\r\n").expect("ok");
        },
    );
    let said: Vec<&str> = ended.spans.iter().map(Span::path).collect();
    assert_eq!(said, ["/huge", "/after"], "{:#?}", ended.spans);
}

#[test]
fn absolute_targets_and_secrets() {
    if !is_root() {
        return;
    }
    let ended = scene(
        &["r:\\r\\n\\r\\n", "w:HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n"],
        |wire| {
            wire.send(
                b"GET http://user:secret@example.org:81/p?token=hush&q=1 HTTP/1.1\r\n\
                  Host: other\r\nAuthorization: Bearer hush\r\n\r\n",
            );
            wire.expect("\r\n\r\n");
        },
    );
    let span = &ended.spans[0];
    assert_eq!(span.path(), "/p");
    assert_eq!(span.text("url.query"), "token=REDACTED&q=1");
    assert_eq!(span.text("server.address"), "example.org");
    assert!(!format!("{span:?}").contains("hush") && !format!("{span:?}").contains("secret"));
}

#[test]
fn what_is_read_long_after_a_reset_is_still_a_request() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let go = scratch.file("go");
    assert!(Command::new("mkfifo").arg(&go).status().expect("mkfifo(1) is there").success());
    let waits = format!("f:{}", go.display());
    let answer = "w:HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n";
    let steps = ["r:/1 HTTP/1.1\\r\\n\\r\\n", answer, &waits, "r:/2 HTTP/1.1\\r\\n\\r\\n", "e"];
    let (server, port) = python("raw.py", &steps);
    let (other, other_port) = service("other", &[]);
    let pids = format!("{},{}", server.pid(), other.pid());
    let agent = Agent::run(&scratch, &["--stats", "--pid", &pids]);
    let mut wire = Wire::to(port.parse().expect("it prints its port"));
    wire.send(b"GET /1 HTTP/1.1\r\n\r\n");
    agent.wait_for(1, |_| true);
    wire.send(b"GET /2 HTTP/1.1\r\n\r\n");
    // With an answer that nobody has read, a close is a reset.
    drop(wire);
    // A later span that is told: the agent has taken in the reset.
    get(other_port, "/later");
    agent.wait_for(2, |_| true);
    std::fs::write(&go, "go").expect("the server reads it");
    assert_eq!(server.line(), "done");
    let ended = agent.stop();
    let expected = ["GET /1 200 - 0/0", "GET /later 200 - 0/5", "GET /2 - connection_closed 0/-"];
    check(&ended, &expected);
    assert_eq!(ended.count("remora_events_of_unknown_socket_total"), 0, "{:?}", ended.log);
}

/// Whether every thread of a process is.
fn all_are_stopped(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it is there");
    threads.flatten().all(|thread| {
        // One that has just ended is not there the next time.
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

#[test]
fn how_long_a_request_has_waited_to_be_read() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (server, port) = service("held", &[]);
    let agent = Agent::run(&scratch, &["--pid", &server.pid().to_string()]);
    let signal = |name: &str| {
        let status = Command::new("kill").args(["-s", name, &server.pid().to_string()]).status();
        assert!(status.expect("kill(1) is there").success());
    };
    let mut wire = Wire::to(port);
    wire.send(b"GET /at-once HTTP/1.1\r\nHost: h\r\n\r\n").expect("held");
    let held = Duration::from_millis(200);
    // On a connection that its server knows, and on one that waits to be accepted.
    let mut longest = Duration::ZERO;
    for path in ["/held", "/held-new"] {
        signal("STOP");
        // One that waits in read(2) may still find what comes meanwhile.
        until("its stop", || all_are_stopped(server.pid()).then_some(()));
        let begun = Instant::now();
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
        let sent = Instant::now();
        until("a while", || (sent.elapsed() >= held).then_some(()));
        signal("CONT");
        wire.expect("held");
        longest = longest.max(begun.elapsed());
        wire = Wire::to(port);
    }
    let ended = agent.stop();
    let queued = |path: &str| {
        let span = ended.spans.iter().find(|span| span.path() == path).expect("it is told");
        Duration::from_nanos(span.int("remora.queue_ns").unwrap_or(0) as u64)
    };
    // A tick is ten milliseconds at most, and the last one does not count.
    let least = held - Duration::from_millis(20);
    for path in ["/held", "/held-new"] {
        assert!((least..=longest).contains(&queued(path)), "{path}: {:?}", queued(path));
    }
}
