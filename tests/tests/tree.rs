//! Several processes that call each other: who is whose parent.

use std::collections::BTreeMap;

use remora_tests::agent::Agent;
use remora_tests::program::{nginx, service};
use remora_tests::spans::{CLIENT, SERVER, Span, check_honest};
use remora_tests::wire::{Wire, get};
use remora_tests::{Scratch, is_root};

fn count<'a>(spans: &'a [Span], key: impl Fn(&'a Span) -> String) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for span in spans {
        *counts.entry(key(span)).or_default() += 1;
    }
    counts
}

#[test]
fn a_request_through_three_services_is_one_tree() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (back, back_port) = service("back", &[]);
    let (front, front_port) = service("front", &[back_port, back_port]);
    let (proxy, port) = nginx(&scratch, front_port, "");
    let pids = format!("{},{},{}", back.pid(), front.pid(), proxy.pid());
    let agent = Agent::run(&scratch, &["--pid", &pids]);
    let answer = get(port, "/tree?a=1");
    assert!(answer.ends_with("frontbackback"), "{answer}");
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.count("spans"), 7, "{:?}", ended.log);
    assert_eq!(ended.count("exported"), 7);
    assert_eq!(ended.count("lost"), 0);
    check_honest(&ended.spans);
    assert!(ended.spans.iter().all(|span| span.trace == ended.spans[0].trace));
    assert_eq!(ended.spans.iter().filter(|span| span.parent.is_none()).count(), 1);
    // Both Python programs are called by their script.
    let kinds = count(&ended.spans, |span| {
        format!(
            "{} {} {}",
            span.service,
            if span.kind == SERVER { "server" } else { "client" },
            span.link()
        )
    });
    let expected = [
        ("nginx client nginx_request exact", 1),
        ("nginx server ", 1),
        ("service client thread exact", 2),
        ("service server tcp_seq exact", 3),
    ];
    assert_eq!(kinds, expected.map(|(key, n)| (key.to_owned(), n)).into());
    for span in &ended.spans {
        assert_eq!(span.name, "GET");
        assert_eq!(span.path(), "/tree");
        assert_eq!(span.int("http.response.status_code"), Some(200));
    }
}

#[test]
fn many_requests_at_once_are_never_mixed_up() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (back, back_port) = service("back", &[]);
    let (front, port) = service("front", &[back_port, back_port]);
    let pids = format!("{},{}", back.pid(), front.pid());
    let agent = Agent::run(&scratch, &["--pid", &pids]);
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            std::thread::spawn(move || {
                let mut wire = Wire::to(port);
                for number in 0..25 {
                    let request = format!("GET /r/{thread}/{number} HTTP/1.1\r\nHost: h\r\n\r\n");
                    wire.send(request.as_bytes()).expect("frontbackback");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("every request is answered");
    }
    let ended = agent.stop();
    assert_eq!(ended.count("spans"), 8 * 25 * 5, "{:?}", ended.log);
    check_honest(&ended.spans);
    let paths: BTreeMap<&str, &str> =
        ended.spans.iter().map(|span| (span.id.as_str(), span.path())).collect();
    for span in &ended.spans {
        // The path tells which request a call really belongs to.
        if let Some(parent) = &span.parent {
            assert_eq!(paths.get(parent.as_str()), Some(&span.path()), "{span:#?}");
        }
        assert_eq!(span.parent.is_none(), span.kind == SERVER && span.link().is_empty());
    }
    assert_eq!(ended.spans.iter().filter(|span| span.parent.is_none()).count(), 200);
    assert_eq!(ended.spans.iter().filter(|span| span.kind == CLIENT).count(), 400);
}

#[test]
fn an_event_loop_gets_no_parent_by_its_thread() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (back, back_port) = service("back", &[]);
    let (proxy, port) = nginx(&scratch, back_port, "");
    let pids = format!("{},{}", back.pid(), proxy.pid());
    let agent = Agent::run(&scratch, &["--pid", &pids]);
    // Two requests are open at once, so nginx gives itself away before it calls anyone.
    let mut first = Wire::to(port);
    first.send(b"POST /one HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n");
    let mut second = Wire::to(port);
    second.send(b"POST /two HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n");
    agent.spans();
    second.send(b"2").expect("back2");
    first.send(b"1").expect("back1");
    let ended = agent.stop();
    check_honest(&ended.spans);
    let calls: Vec<_> = ended.of("nginx").into_iter().filter(|span| span.kind == CLIENT).collect();
    assert_eq!(calls.len(), 2);
    assert!(calls.iter().all(|call| call.link() == "nginx_request exact"), "{calls:#?}");
    let paths: BTreeMap<&str, &str> =
        ended.spans.iter().map(|span| (span.id.as_str(), span.path())).collect();
    for call in &calls {
        let parent = call.parent.as_deref();
        assert!(parent.is_none_or(|parent| paths.get(parent) == Some(&call.path())), "{call:#?}");
    }
    // What the sockets prove is still there.
    let served = ended.of("service");
    assert!(served.iter().all(|span| span.link() == "tcp_seq exact"), "{served:#?}");
}
