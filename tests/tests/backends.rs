//! What arrives at real backends: the very spans that the agent made, field by field.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::sync::Arc;

use remora::export::otlp::config::{Config, Overrides, Protocol};
use remora::export::{Destination, Exporters, Limits, Loss};
use remora::span::attributes::{Attributes, Value};
use remora::span::model;
use remora_tests::agent::Agent;
use remora_tests::backend::{
    Backend, COLLECTOR, JAEGER, LIMITED_COLLECTOR, SMALL_COLLECTOR, ZIPKIN,
};
use remora_tests::program::{Program, free_port, listening, named_service, nginx};
use remora_tests::spans::{SERVER, Span, check_honest, read};
use remora_tests::wire::{curl, get};
use remora_tests::{DEADLINE, Scratch, is_root, until};

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
    let (stock, stock_port) = named_service("Stock", &[]);
    let (cart, cart_port) = named_service("cart", &[stock_port]);
    let (front, front_port) = named_service("front", &[cart_port, stock_port]);
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
    let path = format!("/api/v2/dependencies?endTs={}&lookback=3600000", now() / 1_000_000);
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

/// One attribute of every type and of every value that some encoder might not like.
fn attributes() -> Attributes {
    let mut list = Attributes::default();
    list.text("text", "Grüße, \"世界\" \\ / \u{1}\u{7f}\n");
    list.text("text.empty", "");
    list.int("int", 42);
    list.int("int.zero", 0);
    list.int("int.least", i64::MIN);
    list.int("int.greatest", i64::MAX);
    list.push("double", Value::Double(0.1));
    list.push("double.whole", Value::Double(-3.0));
    list.push("double.huge", Value::Double(1e300));
    list.push("double.infinite", Value::Double(f64::NEG_INFINITY));
    list.push("double.none", Value::Double(f64::NAN));
    list.bool("bool", true);
    list.bool("bool.false", false);
    list.push("bytes", Value::Bytes(b"\x00\xff\xfb"));
    list.push("bytes.none", Value::Bytes(b""));
    list.push("texts", Value::texts(&["a".to_owned(), String::new(), "\"b\"".to_owned()]));
    list.push("texts.none", Value::texts(&[]));
    list
}

/// Now, in nanoseconds since 1970.
fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_nanos() as u64
}

/// A span without anything special; its id and times follow from its number.
fn plain(
    resource: &Arc<model::Resource>,
    trace_id: model::TraceId,
    start: u64,
    number: u64,
) -> model::Span {
    model::Span {
        resource: Arc::clone(resource),
        trace_id,
        span_id: model::SpanId(number.to_be_bytes()),
        parent: None,
        trace_state: String::new(),
        trace_flags: 0,
        kind: model::Kind::Server,
        name: "GET".into(),
        start: model::UnixNs(start + number),
        end: model::UnixNs(start + 1_000_001 * number),
        attributes: Attributes::default(),
        events: Vec::new(),
        links: Vec::new(),
        status: model::StatusCode::Unset,
        status_message: String::new(),
    }
}

fn otlp(url: &str, protocol: Protocol) -> Destination {
    let overrides = Overrides { protocol: Some(protocol), ..Overrides::default() };
    Destination::Otlp(Config::from_url(url, &overrides, |_| None).expect("a good URL"))
}

fn zipkin(backend: &Backend) -> Destination {
    let url = backend.url("http", "ZIPKIN_PORT");
    Destination::Zipkin(remora::export::zipkin::parse_url(&url).expect("a good URL"))
}

/// One trace of hand-made spans that use every field there is.
fn hand_made() -> Vec<model::Span> {
    let start = now();
    let resource = |name: &str| {
        let mut attributes = attributes();
        attributes.text("service.name", name);
        Arc::new(model::Resource { attributes, service_name: name.to_owned() })
    };
    let (first, second) = (resource("First"), resource("second"));
    let trace_id = model::TraceId((start as u128 | 0xabcd << 112).to_be_bytes());
    let id = |number: u8| model::SpanId([0xf0, 0, 0, 0, 0, 0, 0, number]);
    let span = |number: u8, kind, resource: &Arc<model::Resource>| model::Span {
        span_id: id(number),
        kind,
        ..plain(resource, trace_id, start, u64::from(number))
    };
    let child = |number: u8, parent: u8, kind, resource| {
        let parent = model::Parent {
            span_id: id(parent),
            method: model::Method::TcpSeq,
            confidence: model::Confidence::Exact,
            remote: kind == model::Kind::Server,
        };
        model::Span { parent: Some(parent), ..span(number, kind, resource) }
    };
    let event = |name: &str, at: u64, attributes| model::SpanEvent {
        name: name.to_owned(),
        time: model::UnixNs(start + at),
        attributes,
    };
    let link = |number: u8, trace_state: &str, attributes| model::Link {
        trace_id: model::TraceId([number; 16]),
        span_id: id(number),
        trace_state: trace_state.to_owned(),
        attributes,
    };
    let mut root = span(1, model::Kind::Server, &first);
    root.trace_state = "a=1,b=t61rcWkgMzE".to_owned();
    root.trace_flags = 3;
    root.attributes = attributes();
    root.status = model::StatusCode::Ok;
    root.events = vec![
        event("exception", 20_000, attributes()),
        event("plain", 10_000, Attributes::default()),
    ];
    root.links = vec![link(7, "x=y", attributes()), link(8, "", Attributes::default())];
    let mut client = child(2, 1, model::Kind::Client, &first);
    client.attributes.text("server.address", "Api.example.com");
    client.attributes.int("server.port", 443);
    client.attributes.text("network.peer.address", "192.0.2.7");
    client.attributes.int("network.peer.port", 8443);
    client.attributes.text("error.type", "503");
    client.attributes.bool("error", true);
    client.status = model::StatusCode::Error;
    let mut served = child(3, 2, model::Kind::Server, &second);
    served.attributes.text("network.peer.address", "2001:db8::7");
    served.attributes.text("int", "not the resource's");
    served.status = model::StatusCode::Error;
    served.status_message = "out of \"luck\"".to_owned();
    let mut inner = child(4, 3, model::Kind::Internal, &second);
    inner.attributes.text("network.peer.address", "/run/a.sock");
    inner.attributes.int("network.peer.port", 1 << 40);
    inner.name = "Inner Work".into();
    let producer = child(5, 4, model::Kind::Producer, &second);
    let consumer = child(6, 5, model::Kind::Consumer, &first);
    vec![root, client, served, inner, producer, consumer]
}

#[test]
fn every_field_that_a_span_can_have_arrives() {
    let (Some(jaeger), Some(collector), Some(other), Some(server)) = (
        Backend::start(&JAEGER),
        Backend::start(&COLLECTOR),
        Backend::start(&COLLECTOR),
        Backend::start(&ZIPKIN),
    ) else {
        return;
    };
    let scratch = Scratch::new();
    let file = scratch.file("spans.jsonl");
    let destinations = vec![
        otlp(&jaeger.url("grpc", "GRPC_PORT"), Protocol::Grpc),
        otlp(&collector.url("http", "HTTP_PORT"), Protocol::HttpProtobuf),
        otlp(&other.url("http", "HTTP_PORT"), Protocol::HttpJson),
        zipkin(&server),
        Destination::File(file.clone()),
    ];
    let exporters = Exporters::start(destinations, Limits::default()).expect("they start");
    let spans = hand_made();
    exporters.offer(spans.clone());
    for (name, account) in exporters.finish(DEADLINE) {
        assert_eq!((account.sent, account.lost_in_all()), (6, 0), "{name}");
    }
    let made = read(&file);
    // The file is what the others are compared with: nothing may be missing there.
    let [root, ..] = &made[..] else { panic!("an empty file") };
    assert_eq!(root.attributes.len(), 17);
    assert_eq!(root.attributes["int.greatest"], i64::MAX);
    assert_eq!(root.attributes["texts"], serde_json::json!(["a", "", "\"b\""]));
    assert_eq!((root.events.len(), root.links.len(), root.flags), (2, 2, 0x103));
    assert_eq!((root.events[0].attributes.len(), root.links[0].attributes.len()), (17, 17));
    assert_eq!((&*root.trace_state, &*root.links[0].trace_state), ("a=1,b=t61rcWkgMzE", "x=y"));
    assert_eq!((made[2].status, &*made[2].message, made[2].flags), (2, "out of \"luck\"", 0x300));
    for backend in [&jaeger, &collector, &other, &server] {
        backend.has_just(&made);
    }
}

fn resource() -> Arc<model::Resource> {
    let mut attributes = Attributes::default();
    attributes.text("service.name", "made");
    Arc::new(model::Resource { attributes, service_name: "made".to_owned() })
}

#[test]
fn what_is_too_large_for_a_real_backend_arrives_in_parts() {
    let (Some(over_grpc), Some(over_http)) =
        (Backend::start(&SMALL_COLLECTOR), Backend::start(&SMALL_COLLECTOR))
    else {
        return;
    };
    let scratch = Scratch::new();
    let file = scratch.file("spans.jsonl");
    let destinations = vec![
        otlp(&over_grpc.url("grpc", "GRPC_PORT"), Protocol::Grpc),
        otlp(&over_http.url("http", "HTTP_PORT"), Protocol::HttpProtobuf),
        Destination::File(file.clone()),
    ];
    let exporters = Exporters::start(destinations, Limits::default()).expect("they start");
    let (resource, start) = (resource(), now());
    let spans = (1..=300).map(|number| {
        let mut span = plain(&resource, model::TraceId([7; 16]), start, number);
        span.attributes.text("large", &"x".repeat(15_000));
        span
    });
    // 4.5 MB, which is more than one request of ours and four of theirs.
    exporters.offer(spans.collect());
    for (name, account) in exporters.finish(DEADLINE) {
        assert_eq!((account.sent, account.lost_in_all()), (300, 0), "{name}");
    }
    let made = read(&file);
    over_grpc.has_just(&made);
    over_http.has_just(&made);
}

#[test]
fn a_real_backend_that_is_out_of_memory_is_asked_again() {
    let Some(collector) = Backend::start(&LIMITED_COLLECTOR) else { return };
    let destinations = vec![
        otlp(&collector.url("grpc", "GRPC_PORT"), Protocol::Grpc),
        otlp(&collector.url("http", "HTTP_PORT"), Protocol::HttpProtobuf),
    ];
    let exporters = Exporters::start(destinations, Limits::default()).expect("they start");
    let resource = resource();
    let mut number = 0;
    until("refusals", || {
        number += 1;
        exporters.offer(vec![plain(&resource, model::TraceId([8; 16]), now(), number)]);
        exporters.accounts().iter().all(|(_, account)| account.retries > 0).then_some(())
    });
    let mut sent = 0;
    for (name, account) in exporters.finish(DEADLINE) {
        let shutdown =
            Loss::ALL.iter().position(|loss| *loss == Loss::Shutdown).map(|at| account.lost[at]);
        assert_eq!(account.accepted, number, "{name}");
        assert_eq!(Some(account.lost_in_all()), shutdown, "nothing is lost before the end: {name}");
        assert_eq!(account.sent + account.lost_in_all(), number, "{name}");
        assert!(account.lost_in_all() > 0, "{name}");
        sent += account.sent;
    }
    let trace = "08".repeat(16);
    let arrived = || Some(collector.trace(&trace).len() as u64).filter(|arrived| *arrived >= sent);
    assert_eq!(until("what was taken", arrived), sent);
}
