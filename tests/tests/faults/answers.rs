//! Backends that answer, but not what one hopes for.

use std::collections::BTreeMap;

use remora_tests::sink::{Answer, Sink};
use remora_tests::wire::Wire;

use crate::{ALL, Carrier::Grpc, Carrier::Json, Carrier::Protobuf, Carrier::Zipkin};
use crate::{Scene, different, each};

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
        // Without a status gRPC's is UNKNOWN, which is not sent again.
        let refused = if matches!(carrier, Grpc) { 1 } else { 0 };
        sink.wait_for_requests(2 - refused);
        if refused > 0 {
            scene.ask(1);
            sink.wait_for_requests(2);
        }
        scene.ask(1);
        sink.wait_for_requests(3);
        scene.end(if refused > 0 { &[("refused", 1)] } else { &[] });
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
