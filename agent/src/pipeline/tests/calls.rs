//! What lies within what, when functions are probed.

mod raised;

use agent_common::function::Hit;
use agent_common::function::site_number::PLACE_BITS;
use agent_common::task_kind;
use expect_test::{Expect, expect};

use super::*;
use crate::function::exception::{Catcher, CatcherKind, Decode};
use crate::function::facts::{FunctionFacts, Role, SiteFacts};
use crate::function::site::SiteKind;
use crate::span::attributes::Value;
use crate::span::model::SpanEvent;

#[track_caller]
fn check(scene: &mut Scene, expected: Expect) {
    expected.assert_eq(&scene.trees());
}

const APP: Thread = (1, 1);
const OTHER: Thread = (1, 2);

/// Slots for return addresses, the deeper the lower.
fn sp(depth: u64) -> u64 {
    0x7fff_0000 - depth * 0x40
}

const CALL: Role = Role::Call { min_ns: 0, in_request: false };

/// Functions `f0` to `f4`, of which `f1` jumps to `f2` at its end.
fn scene() -> Scene {
    let mut scene = Scene::new();
    scene.process(1, "app");
    for number in 0..5 {
        scene.function(number, CALL);
    }
    scene
}

impl Scene {
    fn function(&mut self, number: u32, role: Role) {
        let site =
            |kind, place, into| SiteFacts { number: number * 3 + place, kind, into, reader: None };
        let sites = vec![
            site(SiteKind::Entry, 0, None),
            site(SiteKind::Return, 1, None),
            site(SiteKind::TailCall, 2, (number == 1).then_some(2)),
        ];
        let facts = FunctionFacts {
            number,
            name: format!("f{number}"),
            module: "app".to_owned(),
            source: None,
            role,
            sites,
        };
        self.step(&Step::Function(Arc::new(facts)));
    }

    fn hit(&mut self, (tgid, tid): Thread, site: u32, sp: u64, lost: u32) {
        self.now += 1000;
        let header = wire::Header { kind: kind::HIT, ts_ns: self.now, ..Default::default() };
        let hit = Hit { header, tgid, tid, sp, site, lost, ..Default::default() };
        let record = records::hit(&hit, &[]);
        self.record(header.cpu, record);
    }

    fn enter(&mut self, thread: Thread, function: u32, sp: u64) {
        self.hit(thread, function * 3, sp, 0);
    }

    fn leave(&mut self, thread: Thread, function: u32, sp: u64) {
        self.hit(thread, function * 3 + 1, sp, 0);
    }

    fn jump(&mut self, thread: Thread, function: u32, sp: u64) {
        self.hit(thread, function * 3 + 2, sp, 0);
    }
}

#[test]
fn calls_within_a_request_and_calls_made_by_them() {
    let mut scene = scene();
    let s = scene.outside(1);
    // The request is read within a loop that is there for ever.
    scene.enter(APP, 4, sp(0));
    for _ in 0..2 {
        scene.asked(APP, s, "/a");
        scene.enter(APP, 0, sp(1));
        scene.enter(APP, 3, sp(2));
        scene.call(APP, "/down");
        scene.leave(APP, 3, sp(2));
        scene.enter(APP, 3, sp(2));
        scene.leave(APP, 3, sp(2));
        scene.leave(APP, 0, sp(1));
        scene.answered(APP, s);
        scene.collect();
    }
    check(
        &mut scene,
        expect![[r#"
            app f4() ~agent_stopped
            app /a 200
              app f0() (thread exact)
                app f3() (stack exact)
                  app → /down 200 (thread exact)
                app f3() (stack exact)
            app /a 200
              app f0() (thread exact)
                app f3() (stack exact)
                  app → /down 200 (thread exact)
                app f3() (stack exact)
        "#]],
    );
}

#[test]
fn a_hit_that_comes_late_is_none_of_whoever_has_its_place_by_now() {
    let mut scene = scene();
    let (old, new) = (0, 1 << PLACE_BITS);
    scene.enter(APP, old, sp(1));
    scene.leave(APP, old, sp(1));
    let site = |kind, place| SiteFacts { number: new | place, kind, into: None, reader: None };
    let facts = FunctionFacts {
        number: 0,
        name: "heir".to_owned(),
        module: "other".to_owned(),
        source: None,
        role: CALL,
        sites: vec![site(SiteKind::Entry, 0), site(SiteKind::Return, 1)],
    };
    scene.step(&Step::Function(Arc::new(facts)));
    // One of the old function's, and one of the new one's.
    scene.enter(OTHER, old, sp(1));
    scene.leave(OTHER, old, sp(1));
    scene.hit(OTHER, new, sp(1), 0);
    scene.hit(OTHER, new | 1, sp(1), 0);
    check(
        &mut scene,
        expect![[r#"
            app f0()
            app heir()
        "#]],
    );
    assert_eq!(scene.pipeline.call_tallies().unknown, 2);
}

#[test]
fn an_event_loop_serves_whom_it_has_last_heard() {
    let mut scene = scene();
    let (a, b) = (scene.outside(1), scene.outside(1));
    scene.nonblocking(&[a, b]);
    for path in ["/a", "/b"] {
        scene.asked(APP, if path == "/a" { a } else { b }, path);
        scene.enter(APP, 0, sp(1));
        scene.leave(APP, 0, sp(1));
    }
    scene.answered(APP, a);
    // That one is over; who is served is not known until something is heard.
    scene.enter(APP, 1, sp(1));
    scene.leave(APP, 1, sp(1));
    scene.answered(APP, b);
    check(
        &mut scene,
        expect![[r#"
        app /a 200
          app f0() (thread inferred)
        app /b 200
          app f0() (resume inferred)
        app f1()
    "#]],
    );
}

#[test]
fn recursion_and_threads() {
    let mut scene = scene();
    for depth in 0..3 {
        scene.enter(APP, 0, sp(depth));
        scene.enter(OTHER, 3, sp(depth) - 0x100_0000);
    }
    for depth in (0..3).rev() {
        scene.leave(APP, 0, sp(depth));
        scene.leave(OTHER, 3, sp(depth) - 0x100_0000);
    }
    check(
        &mut scene,
        expect![[r#"
            app f0()
              app f0() (stack exact)
                app f0() (stack exact)
            app f3()
              app f3() (stack exact)
                app f3() (stack exact)
        "#]],
    );
}

#[test]
fn frames_that_are_left_without_a_return() {
    let mut scene = scene();
    // An exception goes from f2 to f0, past f1.
    scene.enter(APP, 0, sp(0));
    scene.enter(APP, 1, sp(1));
    scene.enter(APP, 2, sp(2));
    scene.enter(APP, 3, sp(1));
    scene.leave(APP, 3, sp(1));
    scene.enter(APP, 1, sp(1));
    scene.enter(APP, 2, sp(2));
    scene.leave(APP, 0, sp(0));
    check(
        &mut scene,
        expect![[r#"
            app f0()
              app f1() (stack exact) ~unwound
                app f2() (stack exact) ~unwound
              app f3() (stack exact)
              app f1() (stack exact) ~unwound
                app f2() (stack exact) ~unwound
        "#]],
    );
}

#[test]
fn a_tail_call_is_within_its_caller_if_it_is_probed() {
    let mut scene = scene();
    scene.enter(APP, 0, sp(0));
    scene.enter(APP, 1, sp(1));
    scene.jump(APP, 1, sp(1));
    scene.enter(APP, 2, sp(1));
    scene.leave(APP, 2, sp(1));
    // Another function is called from the same place, and what f1 has jumped to was not seen.
    scene.enter(APP, 1, sp(1));
    scene.jump(APP, 1, sp(1));
    scene.enter(APP, 3, sp(1));
    scene.leave(APP, 3, sp(1));
    // A jump to what is not probed is a return.
    scene.enter(APP, 3, sp(1));
    scene.jump(APP, 3, sp(1));
    scene.leave(APP, 0, sp(0));
    check(
        &mut scene,
        expect![[r#"
            app f0()
              app f1() (stack exact)
                app f2() (stack exact)
              app f1() (stack exact) ~tail_call
              app f3() (stack exact)
              app f3() (stack exact)
        "#]],
    );
}

#[test]
fn a_tail_call_is_unwound_with_what_it_has_jumped_to() {
    let mut scene = scene();
    scene.enter(APP, 0, sp(0));
    scene.enter(APP, 1, sp(1));
    scene.jump(APP, 1, sp(1));
    scene.enter(APP, 2, sp(1));
    // An exception leaves both.
    scene.leave(APP, 0, sp(0));
    check(
        &mut scene,
        expect![[r#"
            app f0()
              app f1() (stack exact) ~unwound
                app f2() (stack exact) ~unwound
        "#]],
    );
}

#[test]
fn a_signal_handler_on_its_own_stack_ends_nothing() {
    let mut scene = scene();
    scene.enter(APP, 0, sp(0));
    scene.enter(APP, 1, sp(1));
    scene.enter(APP, 3, 0x1000_0000);
    scene.leave(APP, 3, 0x1000_0000);
    scene.enter(APP, 2, sp(2));
    scene.leave(APP, 2, sp(2));
    scene.leave(APP, 1, sp(1));
    scene.leave(APP, 0, sp(0));
    check(
        &mut scene,
        expect![[r#"
            app f0()
              app f1() (stack exact)
                app f2() (stack exact)
            app f3()
        "#]],
    );
}

#[test]
fn what_was_lost_is_said() {
    let mut scene = scene();
    scene.enter(APP, 0, sp(0));
    scene.enter(APP, 1, sp(1));
    scene.hit(APP, 6, sp(1), 2);
    scene.leave(APP, 2, sp(1));
    scene.leave(APP, 0, sp(0));
    assert_eq!(scene.pipeline.call_tallies().lost, 2);
    check(
        &mut scene,
        expect![[r#"
            app f0() lost 2
              app f1() (stack exact) lost 2 ~lost
              app f2() (stack exact)
        "#]],
    );
}

#[test]
fn short_calls_are_left_out_unless_something_lies_within() {
    let mut scene = scene();
    scene.function(0, Role::Call { min_ns: 10_000, in_request: false });
    scene.function(3, Role::Call { min_ns: 1_000_000, in_request: false });
    scene.enter(APP, 0, sp(0));
    scene.leave(APP, 0, sp(0));
    scene.enter(APP, 0, sp(0));
    scene.enter(APP, 3, sp(1));
    scene.enter(APP, 1, sp(2));
    scene.leave(APP, 1, sp(2));
    scene.leave(APP, 3, sp(1));
    scene.leave(APP, 0, sp(0));
    assert_eq!(scene.pipeline.call_tallies().left_out, 1);
    check(
        &mut scene,
        expect![[r#"
            app f0()
              app f3() (stack exact)
                app f1() (stack exact)
        "#]],
    );
}

#[test]
fn outside_of_a_request() {
    let mut scene = scene();
    scene.function(0, Role::Call { min_ns: 0, in_request: true });
    let s = scene.outside(1);
    scene.enter(APP, 0, sp(0));
    scene.enter(APP, 1, sp(1));
    scene.leave(APP, 1, sp(1));
    scene.asked(APP, s, "/a");
    scene.enter(APP, 0, sp(1));
    scene.leave(APP, 0, sp(1));
    scene.answered(APP, s);
    scene.leave(APP, 0, sp(0));
    check(
        &mut scene,
        expect![[r#"
            app f1()
            app /a 200
              app f0() (thread exact)
        "#]],
    );
}

#[test]
fn a_call_without_a_request_is_a_trace_of_its_own() {
    let mut scene = scene();
    scene.process(2, "back");
    scene.enter(APP, 0, sp(0));
    let (c, s) = scene.tcp(1, 2);
    scene.ask(APP, c, (2, 2), s, "/x");
    scene.answer((2, 2), s, APP, c);
    scene.leave(APP, 0, sp(0));
    check(
        &mut scene,
        expect![[r#"
            app f0()
              app → /x 200 (thread exact)
                back /x 200 (tcp_seq exact)
        "#]],
    );
}

#[test]
fn a_request_that_another_thread_answers_keeps_no_calls() {
    let mut scene = scene();
    let s = scene.outside(1);
    scene.asked(APP, s, "/a");
    scene.enter(APP, 0, sp(0));
    scene.enter(APP, 1, sp(1));
    scene.leave(APP, 1, sp(1));
    scene.leave(APP, 0, sp(0));
    scene.answered(OTHER, s);
    check(
        &mut scene,
        expect![[r#"
            app /a 200
            app f0()
              app f1() (stack exact)
        "#]],
    );
}

#[test]
fn exits_end_what_is_open() {
    let mut scene = scene();
    scene.enter(APP, 0, sp(0));
    scene.enter(APP, 1, sp(1));
    scene.exit(1);
    check(
        &mut scene,
        expect![[r#"
            app f0() ~exit
              app f1() (stack exact) ~exit
        "#]],
    );
}
