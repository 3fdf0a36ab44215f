//! Bytes that mean harm, through real sockets.

use std::collections::BTreeMap;
use std::process::Command;

use remora_tests::agent::Agent;
use remora_tests::program::{Program, free_port, python, scripts, service};
use remora_tests::spans::SERVER;
use remora_tests::wire::get;
use remora_tests::{Scratch, is_root, takes_its_time, until};

use crate::{drained, metric, resident_kib};

/// Requests in all; a thorough test sends ten times as many. About as many responses come back.
const MESSAGES: usize = 100_000;

/// What the second half may add to what the first has left.
const GROWTH_KIB: u64 = 4096;

#[test]
fn a_hundred_thousand_spoiled_requests_and_their_answers_do_it_no_harm() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let metrics = free_port();
    let address = format!("127.0.0.1:{metrics}");
    let (well, port) = service("well", &[]);
    let mut pids = well.pid().to_string();
    let mut talkers: Vec<(Program, Program)> = Vec::new();
    for seed in ["1", "2"] {
        let (server, its_port) = python("hostile.py", &["server", seed]);
        let mut command = Command::new("python3");
        command.arg(scripts().join("hostile.py")).args(["client", seed, &its_port]);
        let client = Program::start_told(&mut command);
        assert_eq!(client.line(), "ready");
        pids.push_str(&format!(",{},{}", server.pid(), client.pid()));
        talkers.push((server, client));
    }
    let agent = Agent::run(&scratch, &["--stats", "--pid", &pids, "--metrics", &address]);
    let messages = MESSAGES * if takes_its_time() { 10 } else { 1 };
    // Two who talk, two halves.
    let each = (messages / 4).to_string();
    let mut talk = |each: &str| {
        talkers.iter_mut().for_each(|(_, client)| client.tell(each));
        talkers.iter().for_each(|(_, client)| assert_eq!(client.line(), each));
        drained(metrics);
        resident_kib(agent.pid())
    };
    let half = talk(&each);
    let whole = talk(&each);
    println!("resident: {half} KiB after the first half, {whole} KiB after the second");
    assert!(whole < half + GROWTH_KIB, "{half} KiB, then {whole} KiB");
    assert!(get(port, "/well").ends_with("well"));
    until("every connection's end", || (metric(metrics, "remora_sockets") == 0).then_some(()));
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{:?}", ended.log);
    assert!(!ended.log.iter().any(|line| line.contains("panicked")), "{:?}", ended.log);
    let well = ended.of("service");
    assert_eq!(well.len(), 1, "{well:#?}");
    assert_eq!((well[0].kind, well[0].path()), (SERVER, "/well"));
    assert_eq!(well[0].int("http.response.status_code"), Some(200));
    assert_eq!(well[0].int("http.response.body.size"), Some(4));
    assert_eq!(well[0].int("remora.lost"), None);
    println!("{}", ended.done());
    // Rubbish in, but no nonsense out. Which end comes first is nobody's to say: a response may be
    // there before the request that the client takes it for the answer of.
    let by_id: BTreeMap<_, _> = ended.spans.iter().map(|span| (&span.id, span)).collect();
    assert_eq!(by_id.len(), ended.spans.len(), "span ids are unique");
    for span in &ended.spans {
        assert!(span.start <= span.end, "{span:#?}");
        assert_eq!(span.parent.is_none(), span.link().is_empty(), "{span:#?}");
        let parent = span.parent.as_ref().and_then(|parent| by_id.get(parent));
        assert!(parent.is_none_or(|parent| parent.trace == span.trace), "{span:#?}");
        let status = span.int("http.response.status_code");
        assert!(status.is_none_or(|status| (100..1000).contains(&status)), "{span:#?}");
    }
}
