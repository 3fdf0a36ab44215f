//! Backends that are away, slow, wrong or hostile: what is traced never notices, every span is either
//! delivered or counted as lost with its reason, and none is delivered twice unless the backend took
//! it without saying so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use remora_tests::agent::{Agent, Ended, binary};
use remora_tests::certificates::Pair;
use remora_tests::program::{Program, free_port, service};
use remora_tests::sink::{Answer, Sink};
use remora_tests::wire::{Wire, get};
use remora_tests::{Scratch, is_root};

/// How spans are carried.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Carrier {
    Grpc,
    Protobuf,
    Json,
    Zipkin,
}
use Carrier::{Grpc, Json, Protobuf, Zipkin};

/// Those that differ in how they fail.
const ALL: [Carrier; 3] = [Grpc, Protobuf, Zipkin];

impl Carrier {
    /// What losses are called by.
    fn name(self) -> &'static str {
        if self == Zipkin { "zipkin" } else { "otlp" }
    }

    fn flags(self, scheme: &str, port: u16) -> Vec<String> {
        let (flag, scheme) = match (self, scheme) {
            (Grpc, "https") => ("--otlp", "grpcs"),
            (Grpc, _) => ("--otlp", "grpc"),
            (Protobuf | Json, scheme) => ("--otlp", scheme),
            (Zipkin, scheme) => ("--zipkin", scheme),
        };
        let mut flags = vec![flag.to_owned(), format!("{scheme}://127.0.0.1:{port}")];
        if self == Json {
            flags.extend(["--otlp-protocol", "http/json"].map(str::to_owned));
        }
        flags
    }
}

/// A traced server, and an agent that sends its spans to one backend only.
struct Scene {
    carrier: Carrier,
    target: Program,
    target_port: u16,
    agent: Agent,
    asked: u64,
}

impl Scene {
    fn start(carrier: Carrier, backend: u16) -> Self {
        Self::with(carrier, &carrier.flags("http", backend), &[])
    }

    fn with(carrier: Carrier, flags: &[String], variables: &[(&str, &str)]) -> Self {
        let (target, target_port) = service("target", &[]);
        let mut command = Command::new(binary());
        command.args(["run", "--pid", &target.pid().to_string(), "--ring-mib", "1"]).args(flags);
        command.envs(variables.iter().copied());
        let mut agent = Agent::start(&mut command);
        agent.ready();
        Self { carrier, target, target_port, agent, asked: 0 }
    }

    /// Asks the traced server, which answers as if nothing had happened.
    fn ask(&mut self, times: u64) {
        for _ in 0..times {
            let answer = get(self.target_port, "/");
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("target"), "{answer}");
        }
        self.asked += times;
    }

    /// Ends it and checks the account: every request made a span, and every span is in it once.
    /// `losses` are the reasons and their counts.
    fn end(self, losses: &[(&str, u64)]) -> Ended {
        let Self { carrier, mut target, target_port, agent, asked } = self;
        let ended = agent.stop();
        assert!(get(target_port, "/").ends_with("target"), "it is as well as before");
        target.kill();
        assert_eq!(ended.code, Some(0), "{:#?}", ended.log);
        let lost: u64 = losses.iter().map(|(_, lost)| lost).sum();
        let mut expected = format!("spans={asked} exported={} lost={lost}", asked - lost);
        for (reason, lost) in losses {
            expected += &format!(" {}.{reason}={lost}", carrier.name());
        }
        assert_eq!(ended.done(), expected, "{carrier:?}: {:#?}", ended.log);
        ended
    }
}

/// Runs a scene for several carriers at one time.
fn each(carriers: &[Carrier], scene: impl Fn(Carrier) + Sync) {
    if !is_root() {
        return;
    }
    std::thread::scope(|scope| {
        for carrier in carriers {
            let scene = &scene;
            scope.spawn(move || scene(*carrier));
        }
    });
}

/// How many different spans these are, and how many in all.
fn different(ids: &[String]) -> (usize, usize) {
    (ids.iter().collect::<BTreeSet<_>>().len(), ids.len())
}

#[test]
fn a_backend_that_starts_later_gets_what_was_before() {
    each(&ALL, |carrier| {
        let port = free_port();
        let mut scene = Scene::start(carrier, port);
        scene.ask(3);
        scene.agent.logged("not reachable");
        let sink = Sink::on(port, |_, _| Answer::Take);
        sink.wait_for_spans(3);
        scene.end(&[]);
        assert_eq!(different(&sink.taken()), (3, 3));
    });
}

#[test]
fn a_backend_that_dies_is_survived() {
    each(&ALL, |carrier| {
        let sink = Sink::start(|_, _| Answer::Take);
        let mut scene = Scene::start(carrier, sink.port());
        scene.ask(2);
        sink.wait_for_spans(2);
        assert_eq!(different(&sink.taken()), (2, 2));
        drop(sink);
        scene.ask(3);
        scene.agent.logged("not reachable");
        scene.end(&[("shutdown", 3)]);
    });
}

#[test]
fn a_backend_that_comes_back_gets_what_was_meanwhile() {
    each(&ALL, |carrier| {
        let sink = Sink::start(|_, _| Answer::Take);
        let port = sink.port();
        let mut scene = Scene::start(carrier, port);
        scene.ask(2);
        sink.wait_for_spans(2);
        let mut taken = sink.taken();
        drop(sink);
        scene.ask(3);
        scene.agent.logged("not reachable");
        let sink = Sink::on(port, |_, _| Answer::Take);
        sink.wait_for_spans(3);
        scene.end(&[]);
        taken.extend(sink.taken());
        assert_eq!(different(&taken), (5, 5));
    });
}

#[test]
fn a_slow_backend_holds_up_nobody_elses_spans() {
    each(&ALL, |carrier| {
        let sink = Sink::start(|number, _| if number == 0 { Answer::Hold } else { Answer::Take });
        let mut scene = Scene::start(carrier, sink.port());
        scene.ask(1);
        sink.wait_for_requests(1);
        scene.ask(1);
        // It goes out although the first has no answer.
        sink.wait_for_requests(2);
        sink.release();
        scene.end(&[]);
        assert_eq!(different(&sink.taken()), (2, 2));
    });
}

#[test]
fn a_backend_that_never_answers_does_not_keep_the_agent() {
    each(&ALL, |carrier| {
        let sink = Sink::start(|_, _| Answer::Silence);
        let mut scene = Scene::start(carrier, sink.port());
        scene.ask(2);
        sink.wait_for_requests(1);
        scene.end(&[("shutdown", 2)]);
    });
}

#[test]
fn a_request_without_an_answer_is_sent_again() {
    each(&[Grpc, Protobuf], |carrier| {
        let sink =
            Sink::start(|number, _| if number == 0 { Answer::Silence } else { Answer::Take });
        let timeout = [("OTEL_EXPORTER_OTLP_TIMEOUT", "300")];
        let mut scene = Scene::with(carrier, &carrier.flags("http", sink.port()), &timeout);
        scene.ask(1);
        sink.wait_for_spans(1);
        scene.end(&[]);
        assert_eq!(sink.received().len(), 2);
    });
}

#[test]
fn a_reset_connection_is_made_again() {
    each(&ALL, |carrier| {
        let sink = Sink::start(|number, _| if number < 2 { Answer::Reset } else { Answer::Take });
        let mut scene = Scene::start(carrier, sink.port());
        scene.ask(2);
        sink.wait_for_spans(2);
        scene.end(&[]);
        assert_eq!(different(&sink.taken()), (2, 2));
    });
}

#[test]
fn only_a_lost_answer_makes_a_span_come_twice() {
    each(&ALL, |carrier| {
        let sink =
            Sink::start(|number, _| if number == 0 { Answer::TakeAndReset } else { Answer::Take });
        let mut scene = Scene::start(carrier, sink.port());
        scene.ask(1);
        sink.wait_for_spans(2);
        scene.ask(1);
        sink.wait_for_spans(3);
        scene.end(&[]);
        let taken = sink.taken();
        assert_eq!(different(&taken), (2, 3));
        assert_eq!(taken[0], taken[1], "the one whose answer was lost");
    });
}

#[test]
fn a_busy_backend_is_asked_again_when_it_says() {
    each(&ALL, |carrier| {
        let sink = Sink::start(|number, _| match number {
            0 => Answer::Later(504),
            1 => Answer::LaterAt(503),
            2 => Answer::LaterAfter(429, 1),
            _ => Answer::Take,
        });
        let mut scene = Scene::start(carrier, sink.port());
        scene.ask(1);
        sink.wait_for_spans(1);
        scene.end(&[]);
        assert_eq!(sink.received().len(), 4);
    });
}

#[test]
fn what_is_refused_for_good_is_counted_and_not_sent_again() {
    each(&ALL, |carrier| {
        let sink = Sink::start(|number, _| match number {
            0 => Answer::Refuse(400, 3),
            1 => Answer::Refuse(401, 16),
            2 => Answer::Refuse(404, 12),
            // Without RetryInfo this code is for good.
            3 => Answer::Refuse(500, 8),
            _ => Answer::Take,
        });
        let mut scene = Scene::start(carrier, sink.port());
        for number in 1..=5 {
            scene.ask(1);
            sink.wait_for_requests(number);
        }
        let ended = scene.end(&[("refused", 4)]);
        assert_eq!(sink.received().len(), 5);
        let said: Vec<_> = ended.log.iter().filter(|line| line.contains("refused: ")).collect();
        assert_eq!(said.len(), 1, "a state is logged once: {:#?}", ended.log);
        assert!(said[0].contains("as the test says"), "with what the backend said: {said:?}");
    });
}

#[test]
fn spans_that_are_rejected_one_by_one_are_counted() {
    each(&[Grpc, Protobuf, Json], |carrier| {
        let sink = Sink::start(|number, _| match number {
            0 => Answer::Partial(1, "one is bad"),
            1 => Answer::Partial(0, "a word of warning"),
            // More than there were.
            2 => Answer::Partial(100, ""),
            _ => Answer::Take,
        });
        let mut scene = Scene::start(carrier, sink.port());
        for number in 1..=4 {
            scene.ask(1);
            sink.wait_for_requests(number);
        }
        let ended = scene.end(&[("rejected", 2)]);
        assert_eq!(different(&sink.taken()), (4, 4), "never sent again");
        assert!(ended.log.iter().any(|line| line.contains("one is bad")), "{:#?}", ended.log);
    });
}

#[test]
fn an_answer_that_makes_no_sense_is_survived() {
    each(&[Grpc, Protobuf, Json, Zipkin], |carrier| {
        let sink = Sink::start(|number, _| match number {
            0 => Answer::Garbage,
            1 => Answer::TakeOddly,
            _ => Answer::Take,
        });
        let mut scene = Scene::start(carrier, sink.port());
        scene.ask(1);
        sink.wait_for_requests(2);
        scene.ask(1);
        sink.wait_for_requests(3);
        scene.end(&[]);
        assert_eq!(different(&sink.taken()), (2, 2));
    });
}

#[test]
fn a_redirect_is_not_followed() {
    each(&ALL, |carrier| {
        let other = Sink::start(|_, _| Answer::Take);
        let port = other.port();
        let sink = Sink::start(move |_, _| Answer::Redirect(port));
        let mut scene = Scene::start(carrier, sink.port());
        scene.ask(1);
        sink.wait_for_requests(1);
        scene.end(&[("refused", 1)]);
        assert_eq!(other.received().len(), 0, "nobody asked to send spans there");
    });
}

/// Many requests that end at about one time.
fn burst(scene: &mut Scene, count: u64) {
    let mut wire = Wire::to(scene.target_port);
    for _ in 0..count {
        wire.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").expect("target");
    }
    scene.asked += count;
}

/// So that a burst goes out in one request.
const GATHER: [(&str, &str); 1] = [("OTEL_BSP_SCHEDULE_DELAY", "500")];

#[test]
fn a_request_that_is_too_large_is_sent_in_parts() {
    each(&ALL, |carrier| {
        let sink = Sink::start(|_, spans| if spans > 8 { Answer::TooLarge } else { Answer::Take });
        let mut scene = Scene::with(carrier, &carrier.flags("http", sink.port()), &GATHER);
        burst(&mut scene, 40);
        sink.wait_for_spans(40);
        scene.end(&[]);
        assert_eq!(different(&sink.taken()), (40, 40));
        assert!(sink.received().iter().any(|request| !request.taken), "there was a large one");
    });
}

#[test]
fn a_backend_that_finds_everything_too_large_is_not_pestered() {
    each(&ALL, |carrier| {
        let sink = Sink::start(|_, _| Answer::TooLarge);
        let mut scene = Scene::with(carrier, &carrier.flags("http", sink.port()), &GATHER);
        burst(&mut scene, 40);
        scene.end(&[("too_large", 40)]);
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for id in sink.received().into_iter().flat_map(|request| request.ids) {
            *times.entry(id).or_default() += 1;
        }
        assert_eq!(times.len(), 40);
        let most = times.into_values().max();
        assert!(most <= Some(4), "as a whole, and halved three times: {most:?}");
    });
}

#[test]
fn the_queue_is_bounded() {
    each(&ALL, |carrier| {
        let flags = carrier.flags("http", free_port());
        let mut scene = Scene::with(carrier, &flags, &[("OTEL_BSP_MAX_QUEUE_SIZE", "10")]);
        scene.ask(30);
        scene.end(&[("queue_full", 20), ("shutdown", 10)]);
    });
}

#[test]
fn two_backends_of_one_kind_share_their_reasons() {
    if !is_root() {
        return;
    }
    let sink = Sink::start(|_, _| Answer::Take);
    let away = [free_port(), free_port()];
    let flags = [sink.port(), away[0], away[1]].map(|port| Protobuf.flags("http", port)).concat();
    let mut scene = Scene::with(Protobuf, &flags, &[]);
    scene.ask(2);
    // A dead one holds up no other.
    sink.wait_for_spans(2);
    let ended = scene.agent.stop();
    assert_eq!(ended.done(), "spans=2 exported=0 lost=4 otlp.shutdown=4", "{:#?}", ended.log);
}

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
    let cases: [(&[(&str, &str)], &str, &str, &str); 4] = [
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
