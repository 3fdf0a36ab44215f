//! Records of different sockets come in any order within a drain.

use proptest::prelude::*;

use super::*;

/// A scene with every kind of link, held back.
fn story() -> Scene {
    let mut scene = Scene::new();
    for (tgid, name) in [(1, "front"), (2, "back"), (3, "store")] {
        scene.process(tgid, name);
    }
    scene.held = Some(Vec::new());
    let (front, back, store) = ((1, 1), (2, 2), (3, 3));
    let s = scene.outside(1);
    let (c1, s1) = scene.tcp(1, 2);
    let (c2, s2) = scene.tcp(2, 3);
    let (c3, s3) = scene.unix(2, 3, [0xa0, 0xb0]);
    for path in ["/one", "/two"] {
        scene.asked(front, s, path);
        scene.ask(front, c1, back, s1, path);
        scene.ask(back, c2, store, s2, path);
        scene.answer(store, s2, back, c2);
        scene.ask(back, c3, store, s3, path);
        scene.answer(store, s3, back, c3);
        scene.answer(back, s1, front, c1);
        scene.answered(front, s);
    }
    scene
}

/// Plays held records in an order that can happen: each socket's and each thread's own order is
/// kept, and what has been read had been written, though its writer may not have said so yet.
fn play(scene: &mut Scene, choices: &[u16]) {
    let story = scene.held.take().expect("a story that was held back");
    let thread = |record: &[u8]| record.get(24..32).map(<[u8]>::to_vec);
    let is_write = |record: &[u8]| record[0] == kind::IO && record[1] & io_flags::OUTBOUND != 0;
    let mut waiting: Vec<usize> = (0..story.len()).collect();
    let mut choices = choices.iter().cycle();
    while !waiting.is_empty() {
        let must_wait = |&at: &usize| {
            let (cpu, record) = &story[at];
            let mine = thread(record);
            // `Scene::ask` and `Scene::answer` write right before they read.
            let writer = at.checked_sub(1).map(|at| &story[at].1).filter(|_| !is_write(record));
            let writer = writer.filter(|before| is_write(before)).map(|before| thread(before));
            waiting.iter().take_while(|before| **before < at).any(|&before| {
                let (other, earlier) = &story[before];
                let theirs = thread(earlier);
                let is_written_by = before + 1 < at && writer.as_ref() == Some(&theirs);
                other == cpu || theirs == mine || is_written_by
            })
        };
        let ready: Vec<usize> =
            (0..waiting.len()).filter(|index| !must_wait(&waiting[*index])).collect();
        let choice = usize::from(*choices.next().expect("there is one")) % ready.len();
        let (_, record) = &story[waiting.remove(ready[choice])];
        scene.step(&Step::Record(record));
    }
}

proptest! {
    #[test]
    fn any_order_gives_the_same_trees(choices in proptest::collection::vec(any::<u16>(), 1..200)) {
        let mut in_order = story();
        play(&mut in_order, &[0]);
        let expected = in_order.trees();
        let mut shuffled = story();
        play(&mut shuffled, &choices);
        prop_assert_eq!(shuffled.trees(), expected);
    }
}

#[test]
fn the_story_is_what_it_should_be() {
    let mut scene = story();
    play(&mut scene, &[0]);
    expect_test::expect![[r#"
        front /one 200
          front → /one 200 (thread exact)
            back /one 200 (tcp_seq exact)
              back → /one 200 (thread exact)
                store /one 200 (tcp_seq exact)
              back → /one 200 (thread exact)
                store /one 200 (unix_peer exact)
        front /two 200
          front → /two 200 (thread exact)
            back /two 200 (tcp_seq exact)
              back → /two 200 (thread exact)
                store /two 200 (tcp_seq exact)
              back → /two 200 (thread exact)
                store /two 200 (unix_peer exact)
    "#]]
    .assert_eq(&scene.trees());
}

#[test]
fn spans_that_are_taken_back_leave_nothing_to_those_to_come() {
    let play = |reuse: bool| {
        let mut scene = Scene::new();
        scene.process(1, "server");
        let s = scene.outside(1);
        let mut told = Vec::new();
        for (number, path) in
            ["/a?b=c", "/", "/a/longer/path?with=a&query=too", "/"].into_iter().enumerate()
        {
            scene.asked((1, 1), s, path);
            scene.answered((1, 1), s);
            scene.collect();
            assert_eq!(scene.spans.len(), 1, "{number}");
            told.extend(scene.spans.iter().cloned());
            if reuse {
                scene.pipeline.reuse(&mut scene.spans);
                assert!(scene.spans.is_empty());
            }
            scene.spans.clear();
        }
        told
    };
    assert_eq!(play(true), play(false));
}
