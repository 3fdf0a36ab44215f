//! What the tracker makes of events in an order that kernels do give.

use super::*;
use crate::event::ids::{SocketId, Tid};
use crate::event::{Io, Outcome};
use crate::protocol::Segment;
use crate::span::attributes::Attributes;
use crate::span::model::Kind;

const CLIENT: Tgid = Tgid(1);
const SERVER: Tgid = Tgid(2);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// A socket at first sight.
fn socket(id: u64, tgid: Tgid, [local, remote]: [Address; 2]) -> Socket {
    Socket {
        at: MonoNs(1),
        id: SocketId(id),
        tgid,
        netns: 1,
        local,
        remote,
        role: None,
        is_older: false,
        from: [None; 2],
        op: 0,
    }
}

/// A Unix stream between two processes.
fn unix_stream() -> Tracker {
    let mut tracker = Tracker::new(Settings::default(), 1);
    let ends = [Address::Unix(10), Address::Unix(20)];
    for (tgid, [local, remote]) in [(CLIENT, ends), (SERVER, [ends[1], ends[0]])] {
        let service_name = tgid.0.to_string();
        let resource = Resource { attributes: Attributes::default(), service_name };
        tracker.process(tgid, Arc::new(resource), false);
        tracker.event(&Event::Socket(socket(tgid.0.into(), tgid, [local, remote])));
    }
    tracker
}

/// An operation on a process's end; its number is told by its place in `steps`.
type Step = (u64, Tgid, Direction, &'static [u8]);

fn feed(tracker: &mut Tracker, steps: &[Step]) {
    let mut ops = [0; 3];
    for &(at, tgid, direction, bytes) in steps {
        let op = ops[tgid.0 as usize];
        ops[tgid.0 as usize] += 1;
        let task = TaskId { tgid, kind: agent_common::task_kind::THREAD, id: tgid.0.into() };
        let segment = Segment { prefix: bytes, len: bytes.len() as u64, suffix: &[] };
        tracker.event(&Event::Io(Io {
            waits: false,
            behalf: None,
            at: MonoNs(at),
            socket: SocketId(tgid.0.into()),
            tgid,
            tid: Tid(tgid.0),
            task,
            direction,
            op,
            tcp_seq: None,
            segment_age_ns: u32::MAX,
            nonblocking: false,
            over: false,
            outcome: Outcome::Moved(segment),
        }));
    }
}

/// Whether each server span, oldest first, is a child of a client span.
fn joined(tracker: &mut Tracker) -> Vec<bool> {
    let mut spans = Vec::new();
    tracker.finish(MonoNs(1000), &mut spans);
    spans.sort_by_key(|span| span.start.0);
    let servers = spans.iter().filter(|span| span.kind == Kind::Server);
    servers.map(|span| span.parent.is_some()).collect()
}

const IN: Direction = Direction::Inbound;
const OUT: Direction = Direction::Outbound;

#[test]
fn a_server_that_answers_before_the_client_is_told_of_is_joined() {
    let mut tracker = unix_stream();
    feed(
        &mut tracker,
        &[
            (10, CLIENT, OUT, REQUEST),
            (11, SERVER, IN, REQUEST),
            (12, SERVER, OUT, ANSWER),
            (13, CLIENT, IN, ANSWER),
            // The client's processor does something else between its write and its record.
            (21, SERVER, IN, REQUEST),
            (22, SERVER, OUT, ANSWER),
            (23, CLIENT, OUT, REQUEST),
            (24, CLIENT, IN, ANSWER),
        ],
    );
    assert_eq!(joined(&mut tracker), [true, true]);
}

#[test]
fn an_answer_that_was_read_before_the_request_is_not_its_own() {
    let mut tracker = unix_stream();
    feed(
        &mut tracker,
        &[
            (11, SERVER, IN, REQUEST),
            (12, SERVER, OUT, ANSWER),
            (13, CLIENT, IN, ANSWER),
            (20, CLIENT, OUT, REQUEST),
        ],
    );
    assert_eq!(joined(&mut tracker), [false]);
}

/// Nothing tells of a Unix socket's close.
#[test]
fn what_is_quiet_is_asked_for_and_ends_when_it_is_gone() {
    let step = |after: u64| MonoNs(after * QUIET_NS);
    for (answer, is_told) in [(&b"HTTP/1.0 200 OK\r\n\r\nbody"[..], true), (b"", false)] {
        let mut tracker = unix_stream();
        feed(&mut tracker, &[(10, SERVER, IN, REQUEST)]);
        let mut spans = Vec::new();
        if !answer.is_empty() {
            feed(&mut tracker, &[(11, SERVER, OUT, answer)]);
        }
        tracker.collect(MonoNs(12), &mut spans);
        assert_eq!(tracker.take_quiet(), []);
        tracker.collect(step(2), &mut spans);
        assert_eq!(tracker.take_quiet(), [SocketId(SERVER.0.into())]);
        assert_eq!(tracker.take_quiet(), [], "asked for once");
        tracker.collect(step(4), &mut spans);
        assert_eq!(tracker.take_quiet(), [SocketId(SERVER.0.into())], "and again later");
        let id = SocketId(SERVER.0.into());
        let last = crate::event::Last::default();
        tracker.event(&Event::Closed { id, at: step(4), held: false, last });
        tracker.collect(step(6), &mut spans);
        assert_eq!((tracker.take_quiet(), tracker.is_watching()), (Vec::new(), false));
        let [span] = spans.as_slice() else { panic!("{spans:#?}") };
        let text = format!("{:?}", span.attributes);
        assert_eq!(text.contains("http.response.body.size"), is_told, "{text}");
        assert_eq!(text.contains("not_seen"), !is_told, "{text}");
        assert!(!text.contains("connection_closed"), "{text}");
    }
}

#[test]
fn a_unix_socket_whose_address_is_anothers_was_closed() {
    let mut tracker = unix_stream();
    feed(
        &mut tracker,
        &[(10, SERVER, IN, REQUEST), (11, SERVER, OUT, b"HTTP/1.0 200 OK\r\n\r\nbody")],
    );
    let other = socket(9, SERVER, [Address::Unix(20), Address::Unix(30)]);
    tracker.event(&Event::Socket(Socket { at: MonoNs(20), ..other }));
    let mut spans = Vec::new();
    tracker.collect(MonoNs(1000), &mut spans);
    let [span] = spans.as_slice() else { panic!("{spans:#?}") };
    let text = format!("{:?}", span.attributes);
    assert!(text.contains("http.response.body.size") && !text.contains("not_seen"), "{text}");
}

#[test]
fn networks_with_the_same_addresses_are_two() {
    let mut tracker = unix_stream();
    let address = |text: &str| Address::Tcp(text.parse().expect("an address"));
    let ends = [address("10.0.0.1:80"), address("10.0.0.2:4711")];
    let socket = |id, netns| Socket { netns, ..socket(id, SERVER, ends) };
    let before = tracker.sizes().0;
    tracker.event(&Event::Socket(socket(11, 1)));
    tracker.event(&Event::Socket(socket(12, 2)));
    assert_eq!(tracker.sizes().0, before + 2);
    tracker.event(&Event::Socket(socket(13, 2)));
    assert_eq!(tracker.sizes().0, before + 2, "one that took another's place");
}
