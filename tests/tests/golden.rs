//! Recordings of real traffic, replayed: the spans are those that were checked in, byte for byte.
//! After a wanted change, `UPDATE_EXPECT=1` writes them anew.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use remora::pipeline::Step;
use remora::pipeline::recording::{Player, Recorder};
use remora::span::attributes::{Attributes, Value};
use remora::span::model::Resource;
use remora_tests::Scratch;
use remora_tests::agent::{Agent, binary};
use remora_tests::program::{Program, named_service, nginx, python};
use remora_tests::spans::{self, SERVER, check_honest};
use remora_tests::wire::{Wire, get};

#[test]
fn recordings_give_their_spans() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings");
    let scratch = Scratch::new();
    let mut count = 0;
    for entry in std::fs::read_dir(&directory).expect("it is there").flatten() {
        let recording = entry.path();
        if recording.extension().is_none_or(|extension| extension != "remora") {
            continue;
        }
        count += 1;
        let file = scratch.file(&format!("{count}.jsonl"));
        let mut command = Command::new(binary());
        command.arg("replay").arg(&recording).arg("--file").arg(&file);
        let ended = Agent::start(&mut command).end();
        assert_eq!(
            (ended.code, ended.count("lost")),
            (Some(0), 0),
            "{recording:?} {:?}",
            ended.log
        );
        check_honest(&spans::read(&file));
        let expected = recording.with_extension("jsonl");
        let got = std::fs::read(&file).expect("it was written");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&expected, got).expect("the repository is writable");
            continue;
        }
        let wanted = std::fs::read(&expected).expect("checked in beside the recording");
        assert!(got == wanted, "{recording:?} gives other spans than {expected:?}");
    }
    assert!(count >= 3, "recordings are checked in");
}

/// What the headers of each tracing system name is the trace and the parent.
#[test]
fn trace_headers_are_honoured() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings/headers.jsonl");
    let spans = spans::read(&file);
    for (path, trace, parent) in [
        ("/w3c", "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"),
        ("/b3", "80f198ee56343ba864fe8b2a57d3eff7", "e457b5a2e4d86bd1"),
        ("/jaeger", "000000000000000080f198ee56343ba8", "e457b5a2e4d86bd1"),
        ("/xray", "5759e988bd862e3fe1be46a994272793", "53995c3f42cd8ad8"),
        ("/datadog", "0000000000000000112210f47de98115", "000000003ade68b1"),
    ] {
        let mine: Vec<_> = spans.iter().filter(|span| span.path() == path).collect();
        assert_eq!(mine.len(), 7, "{path}");
        assert!(mine.iter().all(|span| span.trace == trace), "{path} is one trace");
        let first = mine.iter().find(|span| span.service == "shop" && span.kind == SERVER);
        let first = first.expect("the shop is asked first");
        assert_eq!(first.parent.as_deref(), Some(parent), "{path}");
        assert_eq!(first.link(), "header exact");
        assert_eq!(first.flags & 0x300, 0x300, "the parent is elsewhere");
    }
}

/// Makes the recordings anew, as after a change of the wire format; then run with `UPDATE_EXPECT=1`
/// and read what has changed.
#[test]
#[ignore = "writes into tests/recordings"]
fn recordings_are_made() {
    record("tree", |_| {
        let (stock, stock_port) = named_service("stock", &[]);
        let (shop, shop_port) = named_service("shop", &[stock_port, stock_port]);
        let scratch = Scratch::new();
        let (edge, port) = nginx(&scratch, shop_port, "");
        let ask = move || {
            let _kept = scratch;
            for path in ["/cart", "/fail", "/cart?token=hush"] {
                get(port, path);
            }
        };
        (vec![stock, shop, edge], Box::new(ask))
    });
    record("busy", |_| {
        let (stock, stock_port) = named_service("stock", &[]);
        let (shop, port) = named_service("shop", &[stock_port, stock_port]);
        let ask = move || {
            let clients = (0..8).map(|client| {
                std::thread::spawn(move || {
                    let mut wire = Wire::to(port);
                    for number in 0..8 {
                        let path = format!("/busy/{client}/{number}");
                        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
                        wire.send(request.as_bytes()).expect("shopstockstock");
                    }
                })
            });
            for client in clients.collect::<Vec<_>>() {
                client.join().expect("every request is answered");
            }
        };
        (vec![stock, shop], Box::new(ask))
    });
    record("headers", |_| {
        let (stock, stock_port) = named_service("stock", &[]);
        let (prices, prices_port) = named_service("prices", &[stock_port]);
        let (shop, port) = named_service("shop", &[stock_port, prices_port]);
        let ask = move || {
            for (path, headers) in [
                (
                    "/w3c",
                    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
                     tracestate: vendor=value\r\n",
                ),
                ("/b3", "b3: 80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1\r\n"),
                ("/jaeger", "uber-trace-id: 80f198ee56343ba8%3Ae457b5a2e4d86bd1%3A0%3A1\r\n"),
                (
                    "/xray",
                    "X-Amzn-Trace-Id: Root=1-5759e988-bd862e3fe1be46a994272793;\
                     Parent=53995c3f42cd8ad8;Sampled=1\r\n",
                ),
                (
                    "/datadog",
                    "x-datadog-trace-id: 1234567890123456789\r\nx-datadog-parent-id: 987654321\r\n",
                ),
            ] {
                let request =
                    format!("GET {path} HTTP/1.1\r\nHost: h\r\n{headers}Connection: close\r\n\r\n");
                Wire::to(port).send(request.as_bytes()).rest();
            }
        };
        (vec![stock, prices, shop], Box::new(ask))
    });
    record("odd", |_| {
        let (server, port) = python(
            "raw.py",
            &[
                "r:/2 HTTP/1.1\\r\\n\\r\\n",
                "w:HTTP/1.1 200 OK\\r\\nContent-Length: 1\\r\\n\\r\\n1HTTP/1.1 404 No\\r\\n\\r\\n",
                "v:|HTTP/1.1| |200| OK\\r\\n|Transfer-Encoding: chunked\\r\\n|\\r\\n|3\\r\\nabc\\r\\n||0\\r\\n\\r\\n",
                "c",
            ],
        );
        let port = port.parse().expect("it prints its port");
        let ask = move || {
            let mut wire = Wire::to(port);
            wire.send(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n");
            wire.rest();
        };
        (vec![server], Box::new(ask))
    });
}

/// Programs to trace, and what to do then.
type Scene = (Vec<Program>, Box<dyn FnOnce()>);

fn record(name: &str, scene: impl FnOnce(&Scratch) -> Scene) {
    let scratch = Scratch::new();
    let (programs, ask) = scene(&scratch);
    let pids: Vec<_> = programs.iter().map(|program| program.pid().to_string()).collect();
    let raw = scratch.file("raw");
    let mut command = Command::new(binary());
    command.arg("record").arg(&raw).args(["--pid", &pids.join(",")]);
    let mut agent = Agent::start(&mut command);
    agent.ready();
    ask();
    let ended = agent.stop();
    assert_eq!((ended.code, ended.count("lost")), (Some(0), 0), "{name} {:?}", ended.log);
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings");
    let file = File::create(directory.join(format!("{name}.remora"))).expect("writable");
    let mut player =
        Player::new(BufReader::new(File::open(raw).expect("recorded"))).expect("a recording");
    let mut recorder = Recorder::new(file, player.seed()).expect("writable");
    while let Some(step) = player.next_step().expect("whole") {
        recorder.write(&without_host(step)).expect("writable");
    }
}

/// The step without what it says of the machine and the place that it was recorded on.
fn without_host(step: Step<'_>) -> Step<'_> {
    let Step::Process { tgid, resource, multiplexes_tasks } = step else { return step };
    let mut attributes = Attributes::default();
    for (key, value) in resource.attributes.iter() {
        match key {
            "service.name" | "process.pid" | "process.runtime.name" => attributes.push(key, value),
            "host.name" => attributes.push(key, Value::Text("example")),
            _ => {}
        }
    }
    let service_name = resource.service_name.clone();
    Step::Process {
        tgid,
        resource: Arc::new(Resource { attributes, service_name }),
        multiplexes_tasks,
    }
}
