//! What arrives at real backends: the very spans that the agent made, field by field.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use remora_tests::agent::Agent;
use remora_tests::backend::{Backend, COLLECTOR, JAEGER, ZIPKIN};
use remora_tests::program::{Program, free_port, listening, nginx, scripts};
use remora_tests::spans::{SERVER, Span, check_honest};
use remora_tests::wire::{curl, get};
use remora_tests::{Scratch, is_root, until};

/// What the first page says: a stock server, traced by its process id, seen in Jaeger.
#[test]
fn a_stock_server_is_seen_in_jaeger_however_otlp_is_carried() {
    if !is_root() {
        return;
    }
    let Some(jaeger) = Backend::start(&JAEGER) else { return };
    let scratch = Scratch::new();
    scratch.write("page.txt", "hello");
    let port = free_port();
    let mut command = Command::new("python3");
    command.args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()]);
    command.current_dir(scratch.path()).stderr(Stdio::null());
    let server = Program::start(&mut command);
    listening(port);
    for (url, protocol) in [
        (jaeger.url("grpc", "GRPC_PORT"), "grpc"),
        (jaeger.url("http", "HTTP_PORT"), "http/protobuf"),
        (jaeger.url("http", "HTTP_PORT"), "http/json"),
    ] {
        for gzip in ["false", "true"] {
            let own = Scratch::new();
            let pid = server.pid().to_string();
            let to = ["--otlp", &url, "--otlp-protocol", protocol, "--otlp-gzip", gzip];
            let agent = Agent::run(&own, &[&["--pid", &pid][..], &to].concat());
            assert_eq!(curl(port, "/page.txt"), (200, "hello".to_owned()));
            let made = agent.wait_for(1, |span| span.path() == "/page.txt");
            // While the agent runs: nobody should have to end it to see a span.
            jaeger.has_just(&made);
            let [span] = &made[..] else { panic!("one request, one span: {made:#?}") };
            assert_eq!((span.service.as_str(), span.kind), ("http.server", SERVER));
            assert_eq!(
                span.int("process.pid").or(Some(server.pid().into())),
                Some(server.pid().into())
            );
            assert_eq!(span.int("http.response.status_code"), Some(200));
            let ended = agent.stop();
            assert_eq!(ended.code, Some(0));
            assert_eq!(
                ended.done(),
                "spans=1 exported=1 lost=0",
                "{protocol} {gzip}: {:#?}",
                ended.log
            );
        }
    }
}

/// A server of `tests/programs/service.py` that says what it is called; its port.
fn named(name: &str, backends: &[u16]) -> (Program, u16) {
    let mut command = Command::new("python3");
    command.arg(scripts().join("service.py")).arg(name).env("OTEL_SERVICE_NAME", name);
    command.args(backends.iter().map(u16::to_string));
    let program = Program::start(&mut command);
    let port = program.line().parse().expect("it prints its port");
    (program, port)
}

/// Every span of a set of traces, by trace.
fn by_trace(spans: &[Span]) -> BTreeMap<&str, Vec<Span>> {
    let mut traces: BTreeMap<&str, Vec<Span>> = BTreeMap::new();
    for span in spans {
        traces.entry(&span.trace).or_default().push(span.clone());
    }
    traces
}

#[test]
fn a_tree_of_services_arrives_everywhere_as_it_was_made() {
    if !is_root() {
        return;
    }
    let (Some(jaeger), Some(collector), Some(zipkin)) =
        (Backend::start(&JAEGER), Backend::start(&COLLECTOR), Backend::start(&ZIPKIN))
    else {
        return;
    };
    let scratch = Scratch::new();
    let (stock, stock_port) = named("Stock", &[]);
    let (cart, cart_port) = named("cart", &[stock_port]);
    let (front, front_port) = named("front", &[cart_port, stock_port]);
    let (proxy, port) = nginx(&scratch, front_port, "");
    let pids = [&stock, &cart, &front, &proxy].map(|program| program.pid().to_string()).join(",");
    let to = [
        ["--pid", &pids],
        ["--otlp", &jaeger.url("grpc", "GRPC_PORT")],
        ["--otlp", &collector.url("http", "HTTP_PORT")],
        ["--zipkin", &zipkin.url("http", "ZIPKIN_PORT")],
        ["--otlp-gzip", "true"],
    ];
    let agent = Agent::run(&scratch, to.as_flattened());
    for path in ["/good?token=secret", "/good", "/fail"] {
        let answer = get(port, path);
        assert!(answer.ends_with("frontcartStockStock"), "{answer}");
    }
    let made = agent.wait_for(27, |_| true);
    check_honest(&made);
    let traces = by_trace(&made);
    assert_eq!(traces.len(), 3, "{made:#?}");
    for spans in traces.values() {
        assert_eq!(spans.len(), 9);
        for backend in [&jaeger, &collector, &zipkin] {
            backend.has_just(spans);
        }
    }
    // Each edge with its calls and its failures, and no edge to or from anything else.
    let edges = [("nginx", "front"), ("front", "cart"), ("front", "stock"), ("cart", "stock")];
    let edges = edges.map(|(parent, child)| format!("{parent} {child} 3 1"));
    let edges: BTreeSet<String> = edges.into();
    until("Zipkin's dependencies", || Some(()).filter(|()| dependencies(&zipkin) == edges));
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.done(), "spans=27 exported=27 lost=0", "{:#?}", ended.log);
}

/// Zipkin's graph, an edge a line: parent, child, calls, failed calls.
fn dependencies(zipkin: &Backend) -> BTreeSet<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("after 1970").as_millis();
    let path = format!("/api/v2/dependencies?endTs={now}&lookback=3600000");
    let answer = zipkin.ask("ZIPKIN_PORT", &path).unwrap_or_default();
    let edges = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    edges
        .iter()
        .map(|edge| {
            let text = |key: &str| edge[key].as_str().unwrap_or_default();
            let count = |key: &str| edge[key].as_u64().unwrap_or(0);
            let (calls, failed) = (count("callCount"), count("errorCount"));
            format!("{} {} {calls} {failed}", text("parent"), text("child"))
        })
        .collect()
}
