//! Whose call a goroutine makes, or has made for it.

use expect_test::{Expect, expect};

use super::*;

#[track_caller]
fn check(scene: &mut Scene, expected: Expect) {
    expected.assert_eq(&scene.trees());
}

/// Whatever thread runs it says nothing.
const THREAD: Thread = (1, 1);

/// A server that multiplexes goroutines over threads, and two connections to it.
fn go() -> (Scene, [End; 2]) {
    let mut scene = Scene::new();
    scene.announce(1, "go", true);
    let ends = [(); 2].map(|()| scene.outside(1));
    (scene, ends)
}

/// What a goroutine does itself, or has done for it while it waits.
fn by(scene: &mut Scene, goroutine: u64, waits: bool, story: impl FnOnce(&mut Scene)) {
    let before = scene.goroutine.replace((goroutine, waits));
    story(scene);
    scene.goroutine = before;
}

/// Two requests are open, and a call is made: written and read by goroutines of the client's, which are
/// told for the goroutine that waits where `is_told` says.
fn calls(is_told: [bool; 2]) -> String {
    let (mut scene, [a, b]) = go();
    by(&mut scene, 10, false, |scene| scene.asked(THREAD, a, "/a"));
    by(&mut scene, 20, false, |scene| scene.asked(THREAD, b, "/b"));
    let (c, _) = scene.tcp(1, 0);
    let [writes, reads] = is_told;
    let who = |is_told: bool, own: u64| if is_told { (10, true) } else { (own, false) };
    let (writer, reader) = (who(writes, 31), who(reads, 32));
    by(&mut scene, writer.0, writer.1, |scene| scene.write(THREAD, c, &get("/called")));
    by(&mut scene, reader.0, reader.1, |scene| scene.read(THREAD, c, OK));
    by(&mut scene, 20, false, |scene| scene.answered(THREAD, b));
    by(&mut scene, 10, false, |scene| scene.answered(THREAD, a));
    scene.trees()
}

#[test]
fn who_waits_is_told_with_the_call_or_with_the_answer() {
    let expected = expect![[r#"
        go /a 200
          go → /called 200 (goroutine exact)
        go /b 200
    "#]];
    expected.assert_eq(&calls([true, false]));
    assert_eq!(calls([false, true]), calls([true, false]));
    assert_eq!(calls([true, true]), calls([true, false]));
}

#[test]
fn who_writes_or_reads_for_others_says_nothing() {
    let expected = expect![[r#"
        go /a 200
        go /b 200
        go → /called 200
    "#]];
    expected.assert_eq(&calls([false, false]));
}

#[test]
fn who_reads_an_answer_has_not_asked() {
    let (mut scene, [a, _]) = go();
    by(&mut scene, 10, false, |scene| scene.asked(THREAD, a, "/a"));
    let (c, _) = scene.tcp(1, 0);
    by(&mut scene, 31, false, |scene| scene.write(THREAD, c, &get("/another-one")));
    by(&mut scene, 10, false, |scene| scene.read(THREAD, c, OK));
    by(&mut scene, 10, false, |scene| scene.answered(THREAD, a));
    check(
        &mut scene,
        expect![[r#"
        go /a 200
        go → /another-one 200
    "#]],
    );
}
