//! Backends that are not there, die, come back, hang or are slow.

use remora_tests::is_root;
use remora_tests::program::free_port;
use remora_tests::sink::{Answer, Sink};

use crate::{ALL, Carrier::Grpc, Carrier::Protobuf, Scene, different, each};

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
        scene.wait_for_exported(2);
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
        scene.wait_for_exported(2);
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
        let timeout = [("OTEL_EXPORTER_OTLP_TIMEOUT", "1500")];
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
