//! What a Go server asks others by `net/http`'s client, which writes from goroutines of its own: each
//! call's parent is the request whose goroutine waits for it. The path tells, which remora never looks at
//! for this.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use remora::inspect::runtime;
use remora_tests::agent::Agent;
use remora_tests::compile::compile_file;
use remora_tests::program::{Program, listening, own_port, scripts};
use remora_tests::servers::{Site, built, nginx};
use remora_tests::spans::{CLIENT, SERVER, Span, check_honest};
use remora_tests::wire::Wire;
use remora_tests::{Scratch, is_root};

const CLIENTS: usize = 32;
const ROUNDS: usize = 6;
const WAYS: [&str; 7] = ["kept", "timed", "fresh", "post", "twice", "proxy", "spawned"];

#[test]
fn a_go_server_that_asks_another_is_known_for_whom_it_does() {
    known_for_whom(&[], fixed);
}

#[test]
fn a_descriptor_leads_to_the_same_goroutine() {
    known_for_whom(&["--capture", "syscall"], fixed);
}

#[test]
fn a_go_server_that_lies_anywhere_is_known_for_whom_it_does() {
    known_for_whom(&[], movable);
}

/// As Go's linker makes it by default: a register has the goroutine.
fn fixed(_: &Scratch) -> Option<PathBuf> {
    let front = built("go-front")?;
    assert!(finds_system_calls(&front), "no instruction of {}", front.display());
    Some(front)
}

/// Whose thread-local storage has it.
fn movable(scratch: &Scratch) -> Option<PathBuf> {
    let source = scripts().join("servers/go/front.go");
    let front = scratch.file("movable");
    let built = compile_file(&source, &front, &["-buildmode=pie"]);
    assert!(!built || !finds_system_calls(&front), "{} lies anywhere", front.display());
    built.then_some(front)
}

/// Whether it is known where the program makes its system calls.
fn finds_system_calls(program: &Path) -> bool {
    let runtime = runtime::go(program).expect("it is a Go program");
    runtime.goroutines.expect("of a version that is known").syscall.is_some()
}

fn known_for_whom(args: &[&str], front: impl Fn(&Scratch) -> Option<PathBuf>) {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let site = Site { scratch: &scratch, port: own_port(), inner_port: 0 };
    let (Some(front), Some(mut back)) =
        (front(&scratch), nginx(&site, "return 200 <$request_uri>;", ""))
    else {
        println!("skipped: needs Go and nginx");
        return;
    };
    let _back = Program::start(&mut back);
    listening(site.port);
    let port = own_port();
    let url = format!("http://127.0.0.1:{}", site.port);
    let front = Program::start(Command::new(front).arg(port.to_string()).arg(&url));
    listening(port);
    let pid = front.pid().to_string();
    // Nothing is to be lost, however busy the host is.
    let room = ["--stats", "--ring-mib", "64", "--payload-bytes", "1024", "--pid", &pid];
    let agent = Agent::run(&scratch, &[args, &room].concat());
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let mut wire = Wire::to(port);
                for (number, way) in WAYS.iter().cycle().take(ROUNDS * WAYS.len()).enumerate() {
                    let path = format!("/{way}/{client}/{number}");
                    let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
                    wire.send(request.as_bytes()).expect(&format!("<{path}>"));
                }
            });
        }
    });
    let ended = agent.stop();
    assert_eq!(ended.count("lost"), 0, "{:?}", ended.log);
    check_honest(&ended.spans);
    let served = ended.spans.iter().filter(|span| span.kind == SERVER);
    let served: BTreeMap<&str, &Span> = served.map(|span| (span.id.as_str(), span)).collect();
    let mut links: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for call in ended.spans.iter().filter(|span| span.kind == CLIENT) {
        if let Some(parent) = &call.parent {
            let parent =
                served.get(parent.as_str()).expect("the parent is a request that was served");
            assert_eq!(parent.path(), call.path(), "{call:#?}");
        }
        let way = call.path().split('/').nth(1).unwrap_or_default();
        *links.entry((way, call.link())).or_default() += 1;
    }
    // One that had not come to wait before its answer was there: seen on a host without a free processor,
    // counted, and rare.
    let unproved = ended.count("remora_go_calls_unproved_total") as usize;
    let mut unknown = 0;
    for way in WAYS.into_iter().filter(|way| *way != "spawned") {
        let missing = links.remove(&(way, String::new())).unwrap_or(0);
        *links.entry((way, "goroutine exact".to_owned())).or_default() += missing;
        unknown += missing;
    }
    assert!(unknown <= unproved, "{unknown} unknown, {unproved} counted");
    let each = CLIENTS * ROUNDS;
    assert!(unproved <= each / 10, "{unproved} unproved");
    let expected = WAYS.map(|way| match way {
        // Whose goroutine asks serves nothing.
        "spawned" => ((way, String::new()), each),
        "twice" => ((way, "goroutine exact".to_owned()), 2 * each),
        _ => ((way, "goroutine exact".to_owned()), each),
    });
    assert_eq!(links, expected.into());
}
