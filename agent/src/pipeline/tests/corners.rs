//! Ends, losses, beginnings in the middle, and identities that are used again.

use expect_test::{Expect, expect};

use super::*;

#[track_caller]
fn check(scene: &mut Scene, expected: Expect) {
    expected.assert_eq(&scene.trees());
}

const FRONT: Thread = (1, 1);
const BACK: Thread = (2, 2);

fn two() -> Scene {
    let mut scene = Scene::new();
    scene.process(1, "front");
    scene.process(2, "back");
    scene
}

#[test]
fn sequence_numbers_wrap() {
    let mut scene = two();
    let (c, s) = scene.tcp_at(1, 2, 5000, [u32::MAX - 20, u32::MAX - 3]);
    for path in ["/a", "/b", "/c"] {
        scene.ask(FRONT, c, BACK, s, path);
        scene.answer(BACK, s, FRONT, c);
    }
    check(
        &mut scene,
        expect![[r#"
            front → /a 200
              back /a 200 (tcp_seq exact)
            front → /b 200
              back /b 200 (tcp_seq exact)
            front → /c 200
              back /c 200 (tcp_seq exact)
        "#]],
    );
    assert_eq!(scene.pipeline.tallies().gaps, 0);
}

#[test]
fn a_request_is_joined_once() {
    // The same sequence numbers again, on another connection between the same ports.
    let mut scene = two();
    for path in ["/a", "/b"] {
        let (c, s) = scene.tcp_at(1, 2, 5000, [100, 200]);
        scene.ask(FRONT, c, BACK, s, path);
        scene.answer(BACK, s, FRONT, c);
        scene.shutdown(c);
        scene.shutdown(s);
        scene.close(c);
        scene.close(s);
    }
    check(
        &mut scene,
        expect![[r#"
            front → /a 200
              back /a 200 (tcp_seq exact)
            front → /b 200
              back /b 200 (tcp_seq exact)
        "#]],
    );
}

#[test]
fn different_bytes_are_not_joined() {
    let mut scene = two();
    let (c, s) = scene.tcp_at(1, 2, 5000, [100, 200]);
    scene.write(FRONT, c, &get("/a"));
    scene.sockets[s.0].seq = Some([101, 200]);
    scene.read(BACK, s, &get("/a"));
    scene.write(BACK, s, OK);
    scene.read(FRONT, c, OK);
    check(
        &mut scene,
        expect![[r#"
            front → /a 200
            back /a 200
        "#]],
    );
}

#[test]
fn unix_streams_are_joined_by_their_peers() {
    let mut scene = two();
    let (c, s) = scene.unix(1, 2, [0xa0, 0xb0]);
    for path in ["/a", "/b"] {
        scene.ask(FRONT, c, BACK, s, path);
        scene.answer(BACK, s, FRONT, c);
    }
    // An end that the kernel cannot name is nobody's.
    let (c, s) = scene.unix(1, 2, [0, 0]);
    scene.ask(FRONT, c, BACK, s, "/unknown");
    scene.answer(BACK, s, FRONT, c);
    check(
        &mut scene,
        expect![[r#"
            front → /a 200
              back /a 200 (unix_peer exact)
            front → /b 200
              back /b 200 (unix_peer exact)
            front → /unknown 200
            back /unknown 200
        "#]],
    );
}

#[test]
fn the_address_of_a_unix_stream_is_used_again() {
    let mut scene = two();
    let (c, s) = scene.unix(1, 2, [0xa0, 0xb0]);
    scene.ask(FRONT, c, BACK, s, "/never-answered");
    let sockets = scene.pipeline.sizes().0;
    let (c, s) = scene.unix(1, 2, [0xa0, 0xb0]);
    scene.ask(FRONT, c, BACK, s, "/a");
    scene.answer(BACK, s, FRONT, c);
    // Its end turned round.
    let (c, s) = scene.unix(1, 2, [0xb0, 0xa0]);
    scene.ask(FRONT, c, BACK, s, "/b");
    scene.answer(BACK, s, FRONT, c);
    scene.collect();
    assert_eq!(scene.pipeline.sizes().0, sockets, "the old ones are forgotten");
    check(
        &mut scene,
        expect![[r#"
            front → /never-answered  ~not_seen
              back /never-answered  (unix_peer exact) ~not_seen
            front → /a 200
              back /a 200 (unix_peer exact)
            front → /b 200
              back /b 200 (unix_peer exact)
        "#]],
    );
}

#[test]
fn a_layered_tcp_stream_is_joined_as_a_unix_stream_is() {
    // Kernel TLS, MPTCP: what the process moves is not what TCP counts.
    let mut scene = two();
    let (c, s) = scene.tcp(1, 2);
    scene.sockets[c.0].seq = None;
    scene.sockets[s.0].seq = None;
    scene.ask(FRONT, c, BACK, s, "/a");
    scene.answer(BACK, s, FRONT, c);
    // Of two at a time it is not known which is which.
    let both = [get("/b"), get("/c")];
    both.iter().for_each(|request| scene.write(FRONT, c, request));
    both.iter().for_each(|request| scene.read(BACK, s, request));
    scene.answer(BACK, s, FRONT, c);
    scene.answer(BACK, s, FRONT, c);
    check(
        &mut scene,
        expect![[r#"
            front → /a 200
              back /a 200 (tcp_peer exact)
            front → /b 200
            front → /c 200
            back /b 200
            back /c 200
        "#]],
    );
}

#[test]
fn a_socket_told_twice_is_one_socket() {
    let mut scene = two();
    let s = scene.outside(1);
    scene.asked(FRONT, s, "/a");
    scene.sockets[s.0].is_told = false;
    scene.answered(FRONT, s);
    check(
        &mut scene,
        expect![[r#"
            front /a 200
        "#]],
    );
}

#[test]
fn the_id_of_a_socket_is_used_again() {
    let mut scene = two();
    let old = scene.outside(1);
    scene.asked(FRONT, old, "/old");
    let new = scene.outside(1);
    let id = scene.sockets[old.0].id;
    scene.sockets[new.0].id = id;
    scene.sockets[new.0].told.socket = id;
    scene.asked(FRONT, new, "/new");
    scene.answered(FRONT, new);
    check(
        &mut scene,
        expect![[r#"
            front /old  ~not_seen
            front /new 200
        "#]],
    );
}

#[test]
fn lost_records_are_told_by_the_traces_that_were_open() {
    let mut scene = two();
    let (a, b) = (scene.outside(1), scene.outside(1));
    let (c, back) = scene.tcp(1, 2);
    scene.asked((1, 5), b, "/before");
    scene.answered((1, 5), b);
    scene.collect();
    scene.asked(FRONT, a, "/a");
    scene.ask(FRONT, c, BACK, back, "/b");
    scene.lose(|scene| scene.write(BACK, back, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"));
    scene.write(BACK, back, "ok");
    scene.read(FRONT, c, OK);
    scene.answered(FRONT, a);
    scene.collect();
    scene.asked((1, 5), b, "/behind");
    scene.answered((1, 5), b);
    check(
        &mut scene,
        expect![[r#"
            front /before 200
            front /a 200 lost 1
              front → /b 200 (thread inferred) lost 1
                back /b  (tcp_seq exact) lost 1 ~not_seen
            front /behind 200
        "#]],
    );
    assert_eq!(scene.pipeline.intake().missing, 1);
}

#[test]
fn after_a_loss_a_thread_proves_nothing_for_certain() {
    // The answer to /a is lost: the thread may have begun another story by then.
    let mut scene = two();
    scene.one_cpu = true;
    let a = scene.outside(1);
    scene.asked(FRONT, a, "/a");
    scene.call(FRONT, "/within");
    scene.collect();
    scene.lose(|scene| scene.answered(FRONT, a));
    scene.call(FRONT, "/perhaps");
    scene.asked(FRONT, a, "/b");
    scene.call(FRONT, "/of-b");
    scene.answered(FRONT, a);
    check(
        &mut scene,
        expect![[r#"
            front /a  lost 1 ~not_seen
              front → /within 200 (thread inferred) lost 1
              front → /perhaps 200 (thread inferred)
            front /b 200
              front → /of-b 200 (thread exact)
        "#]],
    );
}

#[test]
fn what_was_missed_is_not_taken_for_cut_off() {
    let mut scene = two();
    // The whole answer, its last part, the request's last byte, all before the end.
    let s = scene.outside(1);
    scene.asked(FRONT, s, "/answer");
    scene.lose(|scene| scene.answered(FRONT, s));
    scene.shutdown(s);
    scene.close(s);
    let (c, _) = scene.tcp(1, 0);
    scene.write(FRONT, c, &get("/part"));
    scene.read(FRONT, c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
    scene.lose(|scene| scene.read(FRONT, c, "def"));
    scene.end(FRONT, c);
    let s = scene.outside(1);
    scene.read(FRONT, s, "GET /ab");
    scene.lose(|scene| scene.read(FRONT, s, "c"));
    scene.read(FRONT, s, "d HTTP/1.1\r\n\r\n");
    scene.answered(FRONT, s);
    // A byte of an end is no loss.
    let (c, _) = scene.tcp(1, 0);
    scene.write(FRONT, c, &get("/fin"));
    if let Some([inbound, _]) = &mut scene.sockets[c.0].seq {
        *inbound += 1;
    }
    scene.read(FRONT, c, OK);
    scene.end(FRONT, c);
    check(
        &mut scene,
        expect![[r#"
            front /answer  lost 3 ~not_seen
            front → /part 200 lost 2 ~not_seen
            front → /fin 200
        "#]],
    );
}

#[test]
fn the_first_operations_of_a_socket_are_missed() {
    let mut scene = two();
    let (c, s) = scene.tcp(1, 2);
    scene.lose(|scene| scene.ask(FRONT, c, BACK, s, "/lost"));
    scene.answer(BACK, s, FRONT, c);
    scene.ask(FRONT, c, BACK, s, "/a");
    scene.answer(BACK, s, FRONT, c);
    check(
        &mut scene,
        expect![[r#"
            front → /a 200
              back /a 200 (tcp_seq exact)
        "#]],
    );
}

#[test]
fn an_operation_missed_on_a_unix_stream() {
    let mut scene = two();
    let (c, s) = scene.unix(1, 2, [0xa0, 0xb0]);
    scene.ask(FRONT, c, BACK, s, "/a");
    scene.lose(|scene| scene.write(BACK, s, OK));
    scene.read(FRONT, c, OK);
    scene.ask(FRONT, c, BACK, s, "/b");
    scene.answer(BACK, s, FRONT, c);
    check(
        &mut scene,
        expect![[r#"
            front → /a 200 lost 1
              back /a  (unix_peer exact) lost 1 ~not_seen
            front → /b 200 lost 1
            back /b 200
        "#]],
    );
}

#[test]
fn attached_in_the_middle() {
    let mut scene = two();
    let (c, s) = scene.tcp(1, 2);
    scene.older(c);
    scene.older(s);
    scene.write(BACK, s, "GET /content HTTP/1.1\r\n\r\n");
    scene.read(FRONT, c, "GET /content HTTP/1.1\r\n\r\n");
    scene.ask(FRONT, c, BACK, s, "/a");
    scene.answer(BACK, s, FRONT, c);
    check(
        &mut scene,
        expect![[r#"
            front → /a 200
              back /a 200 (tcp_seq exact)
        "#]],
    );
}

#[test]
fn connections_that_end_too_soon() {
    let mut scene = two();
    // The client leaves.
    let s = scene.outside(1);
    scene.asked(FRONT, s, "/client-left");
    scene.close(s);
    // The server closes in the middle of its answer.
    let (c, s) = scene.tcp(1, 2);
    scene.ask(FRONT, c, BACK, s, "/half");
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf";
    scene.write(BACK, s, half);
    scene.read(FRONT, c, half);
    scene.shutdown(s);
    scene.end(FRONT, c);
    scene.shutdown(c);
    scene.close(c);
    scene.close(s);
    // The server resets without an answer.
    let (c, s) = scene.tcp(1, 2);
    scene.ask(FRONT, c, BACK, s, "/reset");
    scene.close(s);
    scene.reset(c);
    scene.fails(FRONT, c, false, 104);
    check(
        &mut scene,
        expect![[r#"
            front /client-left  !connection_closed
            front → /half 200 !connection_closed
              back /half 200 (tcp_seq exact) !connection_closed
            front → /reset  !connection_closed
              back /reset  (tcp_seq exact) !connection_closed
        "#]],
    );
}

#[test]
fn an_answer_may_be_read_after_the_connection_is_gone() {
    // The server answers before it has read the whole request, and closes: a reset follows.
    let mut scene = two();
    let (c, s) = scene.tcp(1, 2);
    let head = "POST /upload HTTP/1.1\r\nContent-Length: 100000\r\n\r\n";
    scene.write(FRONT, c, head);
    scene.read(BACK, s, head);
    let large = "HTTP/1.1 413 Large\r\nContent-Length: 0\r\n\r\n";
    scene.write(BACK, s, large);
    scene.close(s);
    scene.reset(c);
    scene.collect();
    scene.fails(FRONT, c, true, 32);
    scene.read(FRONT, c, large);
    scene.end(FRONT, c);
    check(
        &mut scene,
        expect![[r#"
            front → /upload 413 !413
              back /upload 413 (tcp_seq exact)
        "#]],
    );
}

#[test]
fn an_answer_that_provokes_a_reset_was_written() {
    let mut scene = two();
    let s = scene.outside(1);
    scene.asked(FRONT, s, "/gone");
    // On loopback the reset comes while the answer is being written.
    scene.reset(s);
    scene.answered(FRONT, s);
    // Nobody reads what this one has asked for: it does not wait for long.
    let (c, _) = scene.tcp(1, 0);
    scene.write(FRONT, c, &get("/unread"));
    scene.reset(c);
    scene.wait(600_000_000);
    assert_eq!(scene.spans.len(), 2);
    check(
        &mut scene,
        expect![[r#"
            front /gone 200
            front → /unread  ~not_seen
        "#]],
    );
}

#[test]
fn a_connection_that_is_over_is_read_to_its_end() {
    let mut scene = two();
    let parts = ["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", "a", "b", "c", "d"];
    // A reset; both ends closed, but not by the process; nothing but that it is over.
    for (path, flags) in [("/reset", 0), ("/half-closed", 0), ("/over", io_flags::OVER)] {
        let (c, _) = scene.tcp(1, 0);
        scene.write(FRONT, c, &get(path));
        match path {
            "/reset" => scene.reset(c),
            "/half-closed" => scene.close(c),
            _ => {}
        }
        for part in parts {
            scene.wait(400_000_000);
            scene.moved(FRONT, c, flags, part.as_bytes());
        }
    }
    scene.wait(5_000_000_000);
    assert_eq!(scene.pipeline.sizes(), (0, 0), "all is forgotten");
    check(
        &mut scene,
        expect![[r#"
            front → /reset 200
            front → /half-closed 200
            front → /over 200
        "#]],
    );
}

#[test]
fn what_is_read_long_after_a_reset_is_still_a_request() {
    let mut scene = two();
    let s = scene.outside(1);
    scene.asked(FRONT, s, "/first");
    scene.answered(FRONT, s);
    scene.reset(s);
    scene.wait(2_000_000_000);
    scene.asked(FRONT, s, "/late");
    scene.end(FRONT, s);
    scene.wait(2_000_000_000);
    assert_eq!(scene.spans.len(), 2);
    assert_eq!(scene.pipeline.sizes(), (0, 0), "all is forgotten");
    assert_eq!(scene.pipeline.tallies().unknown_socket, 0);
    check(
        &mut scene,
        expect![[r#"
            front /first 200
            front /late  !connection_closed
        "#]],
    );
}

#[test]
fn sockets_do_not_pile_up() {
    let mut scene = two();
    for number in 0..50 {
        // Answered and closed; reset before anything was read; closed by a process that never
        // reads; a Unix stream, whose end nothing tells, at an address that is used again.
        let (c, s) = scene.tcp(1, 2);
        scene.ask(FRONT, c, BACK, s, "/a");
        scene.answer(BACK, s, FRONT, c);
        for end in [c, s] {
            scene.shutdown(end);
            scene.close(end);
        }
        let reset = scene.outside(1);
        scene.fails(FRONT, reset, false, 104);
        let (c, s) = scene.unix(1, 2, [0xa0, 0xb0 + (number & 1)]);
        scene.ask(FRONT, c, BACK, s, "/unix");
        scene.answer(BACK, s, FRONT, c);
        scene.wait(1_000_000_000);
    }
    let (sockets, exchanges) = scene.pipeline.sizes();
    assert!(sockets <= 4, "{sockets} sockets are remembered");
    assert_eq!(exchanges, 0);
}

#[test]
fn sockets_whose_close_was_missed_make_room_for_others() {
    let mut scene = two();
    let open = scene.outside(1);
    scene.asked(FRONT, open, "/open");
    for _ in 0..200 {
        let s = scene.outside(1);
        scene.asked((1, 5), s, "/a");
        scene.answered((1, 5), s);
        scene.collect();
    }
    assert!(scene.pipeline.sizes().0 <= 64);
    assert!((100..200).contains(&scene.pipeline.tallies().too_many_sockets));
    scene.answered(FRONT, open);
    let trees = scene.trees();
    assert!(trees.starts_with("front /open 200\n"), "{trees}");
    assert_eq!(trees.matches("front /a 200\n").count(), 200);
}

#[test]
fn exchanges_that_never_end_make_room_for_others() {
    let mut scene = two();
    let ends: Vec<End> = (0..16).map(|_| scene.outside(1)).collect();
    for _ in 0..100 {
        for (number, s) in ends.iter().enumerate() {
            scene.asked((1, number as u32), *s, "/a");
        }
        scene.collect();
    }
    assert!(scene.pipeline.sizes().1 <= 512);
    assert!(scene.pipeline.tallies().too_many_exchanges > 0);
    let s = scene.outside(1);
    scene.asked(FRONT, s, "/b");
    scene.answered(FRONT, s);
    let trees = scene.trees();
    assert!(trees.contains("front /b 200\n"), "{trees}");
}

#[test]
fn a_response_that_only_the_close_ends() {
    let until_close = "HTTP/1.0 200 OK\r\n\r\nsome";
    let mut scene = two();
    let (c, s) = scene.tcp(1, 2);
    scene.ask(FRONT, c, BACK, s, "/tcp");
    scene.write(BACK, s, until_close);
    scene.shutdown(s);
    scene.read(FRONT, c, until_close);
    scene.end(FRONT, c);
    scene.shutdown(c);
    scene.close(s);
    scene.close(c);
    // Nothing tells when a Unix stream is closed.
    let (c, s) = scene.unix(1, 2, [0xa0, 0xb0]);
    scene.ask(FRONT, c, BACK, s, "/unix");
    scene.write(BACK, s, until_close);
    scene.read(FRONT, c, until_close);
    scene.end(FRONT, c);
    scene.exit(2);
    check(
        &mut scene,
        expect![[r#"
            front → /tcp 200
              back /tcp 200 (tcp_seq exact)
            front → /unix 200
              back /unix 200 (unix_peer exact) ~not_seen
        "#]],
    );
}

#[test]
fn a_parent_that_shows_up_late_is_believed_only_in_its_own_trace() {
    // The sender's record comes when spans of the receiver's trace have left already.
    let mut scene = two();
    let s = scene.outside(1);
    let (c, back) = scene.tcp(1, 2);
    scene.asked(FRONT, s, "/a");
    scene.tell(c, 1);
    scene.held = Some(Vec::new());
    scene.write(FRONT, c, &get("/b"));
    let late = scene.held.take().expect("it was held");
    scene.read(BACK, back, &get("/b"));
    scene.call(BACK, "/inner");
    scene.collect();
    for (_, record) in late {
        scene.step(&Step::Record(&record));
    }
    scene.answer(BACK, back, FRONT, c);
    scene.answered(FRONT, s);
    check(
        &mut scene,
        expect![[r#"
            front /a 200
              front → /b 200 (thread exact)
                back /b 200 (tcp_seq exact)
                  back → /inner 200 (thread exact)
        "#]],
    );
}

#[test]
fn processes_that_were_not_announced_are_not_understood() {
    let mut scene = Scene::new();
    let s = scene.outside(1);
    scene.asked(FRONT, s, "/a");
    scene.process(1, "front");
    scene.answered(FRONT, s);
    scene.asked(FRONT, s, "/b");
    scene.answered(FRONT, s);
    check(
        &mut scene,
        expect![[r#"
            front /b 200
        "#]],
    );
    assert_eq!(scene.pipeline.tallies().unknown_process, 1);
}

#[test]
fn an_answer_and_the_request_behind_it_may_be_missed_together() {
    // The third request shows that bytes are missing before it, and the count of operations that its
    // bytes are not all. Were that overlooked, its answer would be taken for that of the first one.
    let mut scene = two();
    let s = scene.outside(2);
    scene.asked(BACK, s, "/a");
    scene.lose(|scene| {
        scene.answered(BACK, s);
        scene.asked(BACK, s, "/b");
        scene.answered(BACK, s);
    });
    scene.asked(BACK, s, "/c");
    scene.answered(BACK, s);
    scene.asked(BACK, s, "/d");
    scene.answered(BACK, s);
    check(
        &mut scene,
        expect![[r#"
        back /a  lost 3 ~not_seen
        back /c 200
        back /d 200
    "#]],
    );
}

#[test]
fn a_body_that_seems_cut_off_where_something_was_missed_has_no_size() {
    let mut scene = two();
    let s = scene.outside(2);
    scene.asked(BACK, s, "/a");
    scene.write(BACK, s, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    scene.lose(|scene| scene.write(BACK, s, "whole"));
    scene.shutdown(s);
    scene.close(s);
    // Something else is missed as well, so that the agent knows of a loss.
    scene.lose(|scene| scene.asked(BACK, s, "/b"));
    scene.end(BACK, s);
    check(
        &mut scene,
        expect![[r#"
        back /a 200 lost 2 ~not_seen
    "#]],
    );
    let sizes: Vec<_> =
        scene.spans.iter().map(|span| span.attributes.get("http.response.body.size")).collect();
    assert_eq!(sizes, [None]);
}

#[test]
fn the_last_bytes_of_a_connection_are_missed_if_no_program_has_told_them() {
    let mut scene = two();
    // The end of an answer, read; and an answer, written.
    let (head, body) = ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab", 2);
    let client = scene.tcp(1, 0).0;
    scene.write(FRONT, client, &get("/rest/unseen"));
    scene.read(FRONT, client, head);
    scene.unseen(client, false, body);
    scene.closes(client);
    let server = scene.outside(2);
    scene.read(BACK, server, &get("/all/seen"));
    scene.write(BACK, server, OK);
    scene.read(BACK, server, &get("/answer/unseen"));
    scene.unseen(server, true, OK.len() as u32);
    scene.closes(server);
    check(
        &mut scene,
        expect![[r#"
        front → /rest/unseen 200 lost 1 ~not_seen
        back /all/seen 200
        back /answer/unseen  lost 1 ~not_seen
    "#]],
    );
    assert_eq!(scene.pipeline.tallies().gaps, 2);
}

#[test]
fn nothing_is_missed_of_a_connection_that_was_seen_to_its_end() {
    let mut scene = two();
    let (c, s) = scene.tcp_at(1, 2, 5000, [u32::MAX - 20, u32::MAX - 3]);
    scene.ask(FRONT, c, BACK, s, "/a");
    scene.answer(BACK, s, FRONT, c);
    scene.closes(c);
    // The client's FIN takes a number, and is not told as read.
    scene.end(BACK, s);
    scene.closes(s);
    check(
        &mut scene,
        expect![[r#"
        front → /a 200
          back /a 200 (tcp_seq exact)
    "#]],
    );
    assert_eq!(scene.pipeline.tallies().gaps, 0);
}
