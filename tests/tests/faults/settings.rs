//! What a user can set: certificates, and the variables of the OpenTelemetry specification.

use std::path::Path;

use remora_tests::certificates::Pair;
use remora_tests::program::free_port;
use remora_tests::sink::{Answer, Sink};
use remora_tests::wire::curl;
use remora_tests::{Scratch, is_root};

use crate::{ALL, Carrier::Grpc, Carrier::Protobuf, Carrier::Zipkin, Scene, each};

#[test]
fn a_certificate_of_nobody_known_is_not_trusted() {
    each(&ALL, |carrier| {
        let scratch = Scratch::new();
        let authority = Pair::authority(scratch.path(), "authority");
        let sink = Sink::secure(&authority.sign(scratch.path(), "server"), None);
        let mut scene = Scene::with(carrier, &carrier.flags("https", sink.port()), &[]);
        scene.ask(1);
        let said = scene.agent.logged("not reachable");
        assert!(said.contains("certificate"), "{said}");
        scene.end(&[("shutdown", 1)]);
        assert_eq!(sink.received().len(), 0);
    });
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn certificates_can_be_given() {
    each(&[Grpc, Protobuf], |carrier| {
        let scratch = Scratch::new();
        let authority = Pair::authority(scratch.path(), "authority");
        let server = authority.sign(scratch.path(), "server");
        let client = authority.sign(scratch.path(), "client");
        let trust = ("OTEL_EXPORTER_OTLP_CERTIFICATE", text(&authority.certificate));
        let own = [
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", text(&client.certificate)),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", text(&client.key)),
        ];
        // An authority of one's own.
        let sink = Sink::secure(&server, None);
        let mut scene = Scene::with(carrier, &carrier.flags("https", sink.port()), &[trust]);
        scene.ask(1);
        sink.wait_for_spans(1);
        scene.end(&[]);
        // A server that wants to know who comes.
        let sink = Sink::secure(&server, Some(&authority));
        let flags = carrier.flags("https", sink.port());
        let mut scene = Scene::with(carrier, &flags, &[trust, own[0], own[1]]);
        scene.ask(1);
        sink.wait_for_spans(1);
        scene.end(&[]);
        let mut scene = Scene::with(carrier, &flags, &[trust]);
        scene.ask(1);
        scene.agent.logged("not reachable");
        scene.end(&[("shutdown", 1)]);
        assert_eq!(sink.taken().len(), 1, "only who has a certificate");
    });
}

#[test]
fn a_host_without_certificates_can_send_without_tls() {
    each(&ALL, |carrier| {
        let sink = Sink::start(|_, _| Answer::Take);
        let none = [("SSL_CERT_FILE", "/nonexistent"), ("SSL_CERT_DIR", "/nonexistent")];
        let mut scene = Scene::with(carrier, &carrier.flags("http", sink.port()), &none);
        scene.ask(1);
        sink.wait_for_spans(1);
        scene.end(&[]);
    });
}

/// Variables; the path, the content type and the encoding that they lead to.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str, &'a str);

#[test]
fn the_environment_is_honoured() {
    if !is_root() {
        return;
    }
    let sink = Sink::start(|_, _| Answer::Take);
    let base = format!("http://127.0.0.1:{}/base/", sink.port());
    let exact = format!("http://127.0.0.1:{}/exact", sink.port());
    let grpc = format!("http://127.0.0.1:{}", sink.port());
    let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let cases: [Case<'_>; 4] = [
        (
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", &base)],
            "/base/v1/traces",
            "application/x-protobuf",
            "",
        ),
        (
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
                ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &exact),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ],
            "/exact",
            "application/json",
            "gzip",
        ),
        (
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &grpc),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
                ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none"),
            ],
            path,
            "application/grpc",
            "",
        ),
        (&[("OTEL_EXPORTER_ZIPKIN_ENDPOINT", &exact)], "/exact", "application/json", ""),
    ];
    for (number, (variables, path, kind, encoding)) in cases.into_iter().enumerate() {
        let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "Api-Key=a%20b,x=y");
        let variables = [variables, &[headers, ("OTEL_EXPORTER_OTLP_CERTIFICATE", "")]].concat();
        let carrier = if number == 3 { Zipkin } else { Protobuf };
        let mut scene = Scene::with(carrier, &[], &variables);
        scene.ask(1);
        sink.wait_for_requests(number + 1);
        scene.end(&[]);
        let last = sink.received().pop().expect("a request");
        assert_eq!((last.path.as_str(), last.header("content-type")), (path, kind));
        assert_eq!(last.header("content-encoding"), encoding);
        if carrier != Zipkin {
            assert_eq!((last.header("api-key"), last.header("x")), ("a b", "y"));
        }
        if encoding == "gzip" {
            assert_eq!(last.body[..2], [0x1f, 0x8b], "RFC 1952");
        }
        assert!(last.header("user-agent").starts_with("remora/"));
    }
}

/// A password in a URL goes to the backend and nowhere else.
#[test]
fn a_password_is_sent_and_not_told() {
    each(&ALL, |carrier| {
        let port = free_port();
        let url = carrier.flags("http", port).remove(1).replace("//", "//user:hush@");
        let flag = carrier.flags("http", port).remove(0);
        let mut scene = Scene::with(carrier, &[flag, url], &[]);
        scene.ask(1);
        scene.agent.logged("not reachable");
        let (_, metrics) = curl(scene.metrics, "/metrics");
        assert!(metrics.contains("destination=") && !metrics.contains("hush"), "{metrics}");
        let sink = Sink::on(port, |_, _| Answer::Take);
        sink.wait_for_spans(1);
        let received = sink.received();
        assert_eq!(received[0].header("authorization"), "Basic dXNlcjpodXNo");
        let ended = scene.end(&[]);
        assert!(!ended.log.iter().any(|line| line.contains("hush")), "{:#?}", ended.log);
    });
}
