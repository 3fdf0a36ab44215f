//! Whose call nginx makes, by what it keeps of it itself.

use expect_test::{Expect, expect};

use super::*;

#[track_caller]
fn check(scene: &mut Scene, expected: Expect) {
    expected.assert_eq(&scene.trees());
}

const WORKER: Thread = (1, 1);

fn nginx() -> Scene {
    let mut scene = Scene::new();
    scene.process(1, "nginx");
    scene
}

/// Has it call for whatever came by `client`.
fn call_for(scene: &mut Scene, client: End, path: &str) {
    scene.serving = Some((client, true));
    scene.call(WORKER, path);
}

/// As [`call_for`], for something beside that.
fn beside(scene: &mut Scene, client: End, path: &str) {
    scene.serving = Some((client, false));
    scene.call(WORKER, path);
}

/// Has a request come by `client`, call for it, and answers it.
fn served(scene: &mut Scene, client: End, path: &str) {
    scene.asked(WORKER, client, path);
    call_for(scene, client, path);
    scene.answered(WORKER, client);
}

/// Loses an answer and the request after it, whose call seems to be for the one before.
fn lose_between(scene: &mut Scene, client: End) {
    scene.lose(|scene| {
        scene.answered(WORKER, client);
        scene.asked(WORKER, client, "/lost");
    });
    call_for(scene, client, "/lost");
    scene.answered(WORKER, client);
}

#[test]
fn requests_that_one_thread_serves_at_once() {
    let mut scene = nginx();
    let [a, b] = [(); 2].map(|()| scene.outside(1));
    scene.nonblocking(&[a, b]);
    for round in 1..=2 {
        scene.asked(WORKER, a, &format!("/a{round}"));
        scene.asked(WORKER, b, &format!("/b{round}"));
        call_for(&mut scene, b, &format!("/b{round}"));
        call_for(&mut scene, a, &format!("/a{round}"));
        beside(&mut scene, a, &format!("/a{round}"));
        scene.answered(WORKER, a);
        scene.answered(WORKER, b);
    }
    check(
        &mut scene,
        expect![[r#"
        nginx /a1 200
          nginx → /a1 200 (nginx_request exact)
          nginx → /a1 200 (nginx_request exact)
        nginx /b1 200
          nginx → /b1 200 (nginx_request exact)
        nginx /a2 200
          nginx → /a2 200 (nginx_request exact)
          nginx → /a2 200 (nginx_request exact)
        nginx /b2 200
          nginx → /b2 200 (nginx_request exact)
    "#]],
    );
}

#[test]
fn what_is_done_in_the_background_after_the_answer() {
    let mut scene = nginx();
    let s = scene.outside(1);
    scene.asked(WORKER, s, "/a");
    scene.answered(WORKER, s);
    beside(&mut scene, s, "/copy");
    // It is forgotten by now.
    scene.wait(50_000_000);
    beside(&mut scene, s, "/late");
    check(
        &mut scene,
        expect![[r#"
        nginx /a 200
          nginx → /copy 200 (nginx_request exact)
        nginx → /late 200
    "#]],
    );
}

#[test]
fn requests_that_were_read_together() {
    let mut scene = nginx();
    let s = scene.outside(1);
    scene.read(WORKER, s, &(get("/a") + &get("/b")));
    call_for(&mut scene, s, "/a");
    scene.answered(WORKER, s);
    beside(&mut scene, s, "/a-or-b");
    call_for(&mut scene, s, "/b");
    scene.answered(WORKER, s);
    // Read alone again.
    scene.asked(WORKER, s, "/c");
    beside(&mut scene, s, "/c");
    scene.answered(WORKER, s);
    check(
        &mut scene,
        expect![[r#"
        nginx /a 200
          nginx → /a 200 (nginx_request inferred)
        nginx /b 200
          nginx → /b 200 (nginx_request inferred)
        nginx → /a-or-b 200
        nginx /c 200
          nginx → /c 200 (nginx_request exact)
    "#]],
    );
}

#[test]
fn a_request_that_was_lost_has_its_calls_to_itself() {
    let mut scene = nginx();
    let s = scene.outside(1);
    scene.asked(WORKER, s, "/a");
    call_for(&mut scene, s, "/a");
    lose_between(&mut scene, s);
    served(&mut scene, s, "/b");
    check(
        &mut scene,
        expect![[r#"
        nginx /a  lost 2 ~not_seen
          nginx → /a 200 (nginx_request exact) lost 2
        nginx → /lost 200 lost 2
        nginx /b 200
          nginx → /b 200 (nginx_request exact)
    "#]],
    );
}

#[test]
fn a_connection_that_is_not_understood_is_not_mistaken_for_another() {
    let mut scene = nginx();
    let [tls, plain] = [(); 2].map(|()| scene.outside(1));
    scene.read(WORKER, tls, "\x17\x03\x03\x01\x00 nothing that anybody reads");
    scene.asked(WORKER, plain, "/a");
    // The thread has this one request open, but nginx says that it is for another.
    call_for(&mut scene, tls, "/secret");
    scene.answered(WORKER, plain);
    check(
        &mut scene,
        expect![[r#"
        nginx /a 200
        nginx → /secret 200
    "#]],
    );
}

#[test]
fn losses_where_no_position_tells() {
    let mut scene = nginx();
    let (_, s) = scene.unix(0, 1, [0x10, 0x20]);
    served(&mut scene, s, "/a");
    scene.asked(WORKER, s, "/b");
    lose_between(&mut scene, s);
    check(
        &mut scene,
        expect![[r#"
        nginx /a 200 lost 2
          nginx → /a 200 (nginx_request inferred) lost 2
        nginx /b  lost 2 ~not_seen
          nginx → /lost 200 (nginx_request inferred) lost 2
    "#]],
    );
}
