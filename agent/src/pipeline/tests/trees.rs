//! Who is whose parent.

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
fn a_request_that_fans_out_and_calls_in_turn() {
    let mut scene = two();
    let s = scene.outside(1);
    let calls: Vec<(End, End)> = (0..3).map(|_| scene.tcp(1, 2)).collect();
    scene.asked(FRONT, s, "/a");
    // All asked before any answers; then one after the other on a connection that is kept.
    for (number, (c, back)) in calls.iter().enumerate() {
        scene.ask(FRONT, *c, (2, 10 + number as u32), *back, &format!("/fan{number}"));
    }
    for (number, (c, back)) in calls.iter().enumerate().rev() {
        scene.answer((2, 10 + number as u32), *back, FRONT, *c);
    }
    let (c, back) = calls[0];
    for path in ["/then", "/last"] {
        scene.ask(FRONT, c, (2, 10), back, path);
        scene.answer((2, 10), back, FRONT, c);
    }
    scene.answered(FRONT, s);
    check(
        &mut scene,
        expect![[r#"
            front /a 200
              front → /fan0 200 (thread exact)
                back /fan0 200 (tcp_seq exact)
              front → /fan1 200 (thread exact)
                back /fan1 200 (tcp_seq exact)
              front → /fan2 200 (thread exact)
                back /fan2 200 (tcp_seq exact)
              front → /then 200 (thread exact)
                back /then 200 (tcp_seq exact)
              front → /last 200 (thread exact)
                back /last 200 (tcp_seq exact)
        "#]],
    );
}

#[test]
fn three_deep_and_collected_in_between() {
    let mut scene = two();
    scene.process(3, "store");
    let s = scene.outside(1);
    let (c1, s1) = scene.tcp(1, 2);
    let (c2, s2) = scene.tcp(2, 3);
    for path in ["/one", "/two"] {
        scene.asked(FRONT, s, path);
        scene.collect();
        scene.ask(FRONT, c1, BACK, s1, path);
        scene.ask(BACK, c2, (3, 3), s2, path);
        scene.collect();
        scene.answer((3, 3), s2, BACK, c2);
        scene.collect();
        scene.answer(BACK, s1, FRONT, c1);
        scene.collect();
        scene.answered(FRONT, s);
        scene.collect();
    }
    check(
        &mut scene,
        expect![[r#"
            front /one 200
              front → /one 200 (thread exact)
                back /one 200 (tcp_seq exact)
                  back → /one 200 (thread exact)
                    store /one 200 (tcp_seq exact)
            front /two 200
              front → /two 200 (thread exact)
                back /two 200 (tcp_seq exact)
                  back → /two 200 (thread exact)
                    store /two 200 (tcp_seq exact)
        "#]],
    );
}

#[test]
fn a_kept_connection_is_nobodys_between_requests() {
    let mut scene = two();
    let s = scene.outside(1);
    scene.call(FRONT, "/before");
    scene.asked(FRONT, s, "/a");
    scene.call(FRONT, "/within");
    scene.answered(FRONT, s);
    scene.call(FRONT, "/between");
    scene.asked(FRONT, s, "/b");
    scene.answered(FRONT, s);
    scene.shutdown(s);
    scene.close(s);
    scene.call(FRONT, "/behind");
    check(
        &mut scene,
        expect![[r#"
            front → /before 200
            front /a 200
              front → /within 200 (thread exact)
            front → /between 200
            front /b 200
            front → /behind 200
        "#]],
    );
}

#[test]
fn a_response_whose_end_is_not_known_does_not_keep_its_thread() {
    let mut scene = two();
    let s = scene.outside(1);
    scene.asked(FRONT, s, "/a");
    scene.call(FRONT, "/within");
    let contradiction = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n";
    scene.write(FRONT, s, contradiction);
    scene.call(FRONT, "/perhaps-within");
    let other = scene.outside(1);
    scene.asked(FRONT, other, "/b");
    scene.call(FRONT, "/within-b");
    scene.answered(FRONT, other);
    check(
        &mut scene,
        expect![[r#"
            front /a 200 ~agent_stopped
              front → /within 200 (thread exact)
            front → /perhaps-within 200
            front /b 200
              front → /within-b 200 (thread exact)
        "#]],
    );
}

#[test]
fn a_response_by_another_thread_silences_the_rule() {
    let mut scene = two();
    let s = scene.outside(1);
    scene.asked(FRONT, s, "/a");
    // The reader of /a is free for something else, which shows when another thread answers.
    let (c, back) = scene.tcp(1, 2);
    scene.ask(FRONT, c, BACK, back, "/of-another-story");
    scene.answer(BACK, back, FRONT, c);
    scene.collect();
    scene.answered((1, 9), s);
    scene.asked(FRONT, s, "/b");
    scene.call(FRONT, "/unknown");
    scene.answered(FRONT, s);
    check(
        &mut scene,
        expect![[r#"
            front /a 200
            front → /of-another-story 200
              back /of-another-story 200 (tcp_seq exact)
            front /b 200
            front → /unknown 200
        "#]],
    );
}

#[test]
fn a_thread_proves_by_its_answer() {
    let mut scene = two();
    let s = scene.outside(1);
    // An answer that comes in time proves; one that comes late leaves the link inferred; later
    // requests profit from the proof.
    for path in ["/late", "/soon"] {
        scene.asked(FRONT, s, path);
        scene.call(FRONT, "/within");
        scene.wait(400_000_000);
        assert_eq!(scene.spans.len() % 2, 0, "the call waits");
        if path == "/late" {
            scene.wait(400_000_000);
        }
        scene.answered(FRONT, s);
        scene.collect();
        scene.asked(FRONT, s, "/next");
        scene.call(FRONT, "/within");
        scene.collect();
        scene.answered(FRONT, s);
        scene.collect();
        // Another program, of which nothing is known.
        scene.process(1, "front");
    }
    check(
        &mut scene,
        expect![[r#"
            front /late 200
              front → /within 200 (thread inferred)
            front /next 200
              front → /within 200 (thread exact)
            front /soon 200
              front → /within 200 (thread exact)
            front /next 200
              front → /within 200 (thread exact)
        "#]],
    );
}

#[test]
fn a_thread_that_has_two_requests_open_silences_the_rule() {
    let mut scene = two();
    let (a, b) = (scene.outside(1), scene.outside(1));
    scene.asked(FRONT, a, "/a");
    scene.asked(FRONT, b, "/b");
    scene.call(FRONT, "/unknown");
    scene.answered(FRONT, a);
    scene.answered(FRONT, b);
    scene.asked(FRONT, a, "/c");
    scene.call(FRONT, "/still-unknown");
    scene.answered(FRONT, a);
    check(
        &mut scene,
        expect![[r#"
            front /a 200
            front /b 200
            front → /unknown 200
            front /c 200
            front → /still-unknown 200
        "#]],
    );
}

#[test]
fn an_event_loop_says_something_only_with_one_request_open() {
    let mut scene = two();
    let (a, b) = (scene.outside(1), scene.outside(1));
    scene.nonblocking(&[a, b]);
    scene.calm();
    scene.asked(FRONT, a, "/a");
    scene.call(FRONT, "/of-a");
    scene.asked((1, 5), b, "/b");
    scene.call(FRONT, "/of-a-or-b");
    scene.answered((1, 5), b);
    scene.answered(FRONT, a);
    check(
        &mut scene,
        expect![[r#"
            front /a 200
              front → /of-a 200 (thread inferred)
            front /b 200
            front → /of-a-or-b 200
        "#]],
    );
}

#[test]
fn an_event_loop_that_calls_for_nobody_says_nothing() {
    let mut scene = two();
    let s = scene.outside(1);
    scene.nonblocking(&[s]);
    scene.calm();
    scene.asked(FRONT, s, "/a");
    scene.call(FRONT, "/of-a");
    scene.answered(FRONT, s);
    scene.call(FRONT, "/in-the-background");
    scene.calm();
    scene.asked(FRONT, s, "/b");
    scene.call(FRONT, "/of-b-or-in-the-background");
    scene.answered(FRONT, s);
    check(
        &mut scene,
        expect![[r#"
            front /a 200
              front → /of-a 200 (thread inferred)
            front → /in-the-background 200
            front /b 200
            front → /of-b-or-in-the-background 200
        "#]],
    );
}

#[test]
fn a_thread_that_has_called_for_nobody_before_it_served_says_nothing() {
    let mut scene = two();
    let s = scene.outside(1);
    scene.nonblocking(&[s]);
    scene.call(FRONT, "/is-it-well");
    // One that never serves anybody says nothing of those that do.
    scene.call((1, 7), "/by-another");
    scene.calm();
    scene.asked((1, 5), s, "/a");
    scene.call((1, 5), "/of-a");
    scene.answered((1, 5), s);
    scene.calm();
    scene.asked(FRONT, s, "/b");
    scene.call(FRONT, "/of-b-or-is-it-well");
    scene.answered(FRONT, s);
    check(
        &mut scene,
        expect![[r#"
            front → /is-it-well 200
            front → /by-another 200
            front /a 200
              front → /of-a 200 (thread inferred)
            front /b 200
            front → /of-b-or-is-it-well 200
        "#]],
    );
}

#[test]
fn an_event_loop_that_was_busy_a_moment_ago_says_nothing() {
    let mut scene = two();
    let s = scene.outside(1);
    scene.nonblocking(&[s]);
    // Nobody has watched what it did before.
    scene.asked(FRONT, s, "/first");
    scene.call(FRONT, "/of-the-first-or-not");
    scene.answered(FRONT, s);
    scene.calm();
    scene.asked(FRONT, s, "/a");
    scene.answered(FRONT, s);
    scene.asked(FRONT, s, "/b");
    scene.call(FRONT, "/of-a-or-b");
    scene.answered(FRONT, s);
    scene.calm();
    scene.asked(FRONT, s, "/c");
    scene.call(FRONT, "/of-c");
    scene.answered(FRONT, s);
    check(
        &mut scene,
        expect![[r#"
            front /first 200
            front → /of-the-first-or-not 200
            front /a 200
            front /b 200
            front → /of-a-or-b 200
            front /c 200
              front → /of-c 200 (thread inferred)
        "#]],
    );
}

/// Who waits for an answer while the next request waits for it serves one at a time.
#[test]
fn a_thread_that_lets_others_wait_is_believed() {
    let mut scene = two();
    let ends: Vec<End> = (0..12).map(|_| scene.outside(1)).collect();
    scene.nonblocking(&ends);
    let mut came = None;
    for (number, s) in ends.iter().enumerate() {
        scene.age_ns = came.map_or(u32::MAX, |came| (scene.now - came) as u32);
        scene.asked(FRONT, *s, &format!("/{number}"));
        scene.age_ns = u32::MAX;
        // What comes before it asks waits till the end; the last ones come too late to say anything.
        came = (number < 8).then_some(scene.now - 1);
        scene.call(FRONT, "/of-it");
        scene.answered(FRONT, *s);
    }
    let trees = scene.trees();
    let believed = trees.matches("  front → /of-it 200 (thread inferred)").count();
    assert_eq!(believed, 4, "{trees}");
}

#[test]
fn a_runtime_with_its_own_tasks_has_no_threads() {
    let mut scene = Scene::new();
    scene.announce(1, "go", true);
    let s = scene.outside(1);
    scene.asked(FRONT, s, "/a");
    scene.call(FRONT, "/unknown");
    scene.answered(FRONT, s);
    check(
        &mut scene,
        expect![[r#"
            go /a 200
            go → /unknown 200
        "#]],
    );
}

#[test]
fn threads_serve_side_by_side() {
    let mut scene = two();
    let ends: Vec<End> = (0..4).map(|_| scene.outside(1)).collect();
    for (number, s) in ends.iter().enumerate() {
        scene.asked((1, 10 + number as u32), *s, &format!("/{number}"));
    }
    for number in (0..4).rev() {
        scene.call((1, 10 + number as u32), &format!("/of-{number}"));
    }
    for (number, s) in ends.iter().enumerate() {
        scene.answered((1, 10 + number as u32), *s);
    }
    check(
        &mut scene,
        expect![[r#"
            front /0 200
              front → /of-0 200 (thread exact)
            front /1 200
              front → /of-1 200 (thread exact)
            front /2 200
              front → /of-2 200 (thread exact)
            front /3 200
              front → /of-3 200 (thread exact)
        "#]],
    );
}

#[test]
fn a_process_that_calls_itself() {
    let mut scene = two();
    let s = scene.outside(1);
    let (c, own) = scene.tcp(1, 1);
    scene.asked(FRONT, s, "/a");
    scene.ask(FRONT, c, (1, 2), own, "/self");
    scene.call((1, 2), "/inner");
    scene.answer((1, 2), own, FRONT, c);
    scene.answered(FRONT, s);
    check(
        &mut scene,
        expect![[r#"
            front /a 200
              front → /self 200 (thread exact)
                front /self 200 (tcp_seq exact)
                  front → /inner 200 (thread exact)
        "#]],
    );
}

#[test]
fn a_head_that_never_ends_is_nobodys_parent() {
    let mut scene = two();
    let s = scene.outside(1);
    scene.nonblocking(&[s]);
    scene.read(FRONT, s, "GET /slow HTTP/1.1\r\nHost");
    scene.call(FRONT, "/of-another-story");
    scene.close(s);
    let s = scene.outside(1);
    scene.read(FRONT, s, "GET");
    scene.call(FRONT, "/unknown");
    scene.read(FRONT, s, "TING you\r\n");
    check(
        &mut scene,
        expect![[r#"
            front /slow  !connection_closed
            front → /of-another-story 200
            front → /unknown 200
        "#]],
    );
}

#[test]
fn a_recycled_thread_serves_nothing_yet() {
    let mut scene = two();
    let s = scene.outside(1);
    scene.asked((1, 7), s, "/a");
    // The thread has ended without an answer; another gets its id.
    scene.fork(FRONT, (1, 7));
    scene.call((1, 7), "/of-another-story");
    scene.answered((1, 7), s);
    check(
        &mut scene,
        expect![[r#"
            front /a 200
            front → /of-another-story 200
        "#]],
    );
}

#[test]
fn a_recycled_process_serves_nothing_yet() {
    let mut scene = two();
    let s = scene.outside(1);
    scene.asked(FRONT, s, "/a");
    scene.exit(1);
    scene.process(1, "another");
    scene.call(FRONT, "/of-another-story");
    check(
        &mut scene,
        expect![[r#"
            front /a  ~agent_stopped
            another → /of-another-story 200
        "#]],
    );
}

#[test]
fn a_child_forked_while_serving_is_not_its_parents_thread() {
    let mut scene = two();
    let s = scene.outside(1);
    scene.asked(FRONT, s, "/a");
    scene.fork(FRONT, (3, 3));
    scene.process(3, "child");
    scene.call((3, 3), "/by-the-child");
    scene.call(FRONT, "/by-the-parent");
    scene.answered(FRONT, s);
    scene.exit(3);
    check(
        &mut scene,
        expect![[r#"
            front /a 200
              front → /by-the-parent 200 (thread exact)
            child → /by-the-child 200
        "#]],
    );
}

#[test]
fn trace_headers_name_traces_and_parents() {
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let told = format!("traceparent: 00-{trace}-b7ad6b7169203331-01");
    let mut scene = two();
    let s = scene.outside(1);
    let (c, back) = scene.tcp(1, 2);
    scene.read(FRONT, s, &with_header("/a", &told));
    // The header is passed on as it came: the call is this request's, the server's its call's.
    let passed = with_header("/passed", &told);
    scene.write(FRONT, c, &passed);
    scene.read(BACK, back, &passed);
    scene.answer(BACK, back, FRONT, c);
    // A library has made a span of its own.
    let own = format!("traceparent: 00-{trace}-00f067aa0ba902b7-01");
    let own = with_header("/own", &own);
    scene.write(FRONT, c, &own);
    scene.read(BACK, back, &own);
    scene.answer(BACK, back, FRONT, c);
    scene.answered(FRONT, s);
    check(
        &mut scene,
        expect![[r#"
            front /a 200 (header exact)
              front → /passed 200 (thread exact)
                back /passed 200 (tcp_seq exact)
            front → /own 200 (header exact)
              back /own 200 (tcp_seq exact)
        "#]],
    );
    assert!(scene.spans.iter().all(|span| span.trace_id.to_string() == trace));
    assert_eq!(scene.pipeline.tallies().disputed, 0);
}

#[test]
fn a_header_wins_a_dispute_with_the_thread() {
    let mut scene = two();
    let s = scene.outside(1);
    let (c, _) = scene.tcp(1, 0);
    scene.asked(FRONT, s, "/a");
    let told = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    scene.write(FRONT, c, &with_header("/of-another-trace", told));
    scene.read(FRONT, c, OK);
    scene.answered(FRONT, s);
    check(
        &mut scene,
        expect![[r#"
            front /a 200
            front → /of-another-trace 200 (header exact)
        "#]],
    );
    assert_eq!(scene.pipeline.tallies().disputed, 1);
    let traces: std::collections::BTreeSet<_> = scene.spans.iter().map(|s| s.trace_id).collect();
    assert_eq!(traces.len(), 2);
}

#[test]
fn samplers_keep_whole_traces_or_nothing() {
    let sampler = crate::span::sampler::Sampler::parse("traceidratio", "0.5").expect("a ratio");
    let mut scene = Scene::with(Settings { sampler, ..Settings::default() });
    scene.process(1, "front");
    scene.process(2, "back");
    let s = scene.outside(1);
    let (c, back) = scene.tcp(1, 2);
    for _ in 0..100 {
        scene.asked(FRONT, s, "/a");
        scene.ask(FRONT, c, BACK, back, "/b");
        scene.answer(BACK, back, FRONT, c);
        scene.collect();
        scene.answered(FRONT, s);
    }
    scene.trees();
    let tallies = scene.pipeline.tallies();
    assert_eq!(tallies.spans + tallies.unsampled, 300);
    assert_eq!(scene.spans.len() as u64, tallies.spans);
    assert!(tallies.spans.is_multiple_of(3) && (60..240).contains(&tallies.spans), "{tallies:?}");
}
