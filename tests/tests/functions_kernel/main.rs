//! Function probes against the real kernel: what a hit says of a program whose every instruction is
//! known, and that the program computes the same with them.
#![expect(unsafe_code, reason = "the probed program calls functions written in assembly")]

mod program;
mod scene;

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use agent_common::function::{
    CHUNKS_MAX, Chunk, Op, chunk_status, compare, hit_flags, op, register,
};
use agent_common::{kind, task_kind};
use remora::function::FunctionNo;
use remora::function::site::{Condition, SiteKind};
use remora::probe::Until;
use remora::probe::function::{HitCosts, Point};
use remora_tests::is_root;
use scene::{Program, Scene, point, wait};

/// Says that this process is the agent, and what it is to probe.
const AGENT: &str = "REMORA_TEST_AGENT";

/// The program and what sees it, if that can be.
fn started() -> Option<(Program, Scene)> {
    is_root().then(|| (Program::start(), Scene::start()))
}

fn op(code: u8, a: u8, b: u16, imm: i32) -> Op {
    Op { code, a, b, imm }
}

/// A register as a chunk of eight bytes.
fn value(chunk: i32, register: u8) -> [Op; 3] {
    [op(op::CHUNK, 0, 0, chunk), op(op::REGISTER, register, 0, 0), op(op::PUT, 0, 8, 0)]
}

/// The probed process: not a test, unless it was started by one.
#[test]
fn probed_program() {
    if std::env::var(scene::PROGRAM).is_ok() {
        program::run();
    }
}

#[test]
fn entry_and_return_are_told() {
    let Some((mut program, mut scene)) = started() else { return };
    let entry = program.point("probed", SiteKind::Entry, &[]);
    let end = program.point("probed_return", SiteKind::Return, &value(1, register::RAX));
    let sites = scene.attach(&program, &[entry, end]);
    assert_eq!(program.number("text hello"), 0);
    assert!(scene.drain().is_empty(), "not selected");
    scene.select(&program);
    assert_eq!(program.number("text hello,"), 1);
    let told = scene.drain();
    let [entry, end] = &told[..] else { panic!("two hits, not {told:?}") };
    assert_eq!(entry.hit.header.kind, kind::HIT);
    assert_eq!(
        (entry.hit.header.flags, end.hit.header.flags),
        (hit_flags::ENTRY, hit_flags::RETURN)
    );
    assert_eq!([entry.hit.site, end.hit.site], sites[..]);
    assert_eq!(entry.hit.tgid, program.id());
    assert_eq!(u64::from(entry.hit.tid), program.address("thread"));
    assert_eq!((entry.hit.task, entry.hit.task_kind), (0, task_kind::THREAD));
    assert_eq!(entry.hit.sp, end.hit.sp, "the same call");
    assert!(entry.hit.header.ts_ns < end.hit.header.ts_ns);
    assert!(entry.chunks.is_empty());
    assert_eq!(end.number(1), 1);
}

/// What every op appends, of one call.
#[test]
fn every_op_says_what_is_there() {
    let Some((mut program, mut scene)) = started() else { return };
    let ops = [
        &value(1, register::RDI)[..],
        &value(2, register::RSI),
        // The string that rdx points at.
        &[op(op::CHUNK, 0, 0, 3), op(op::REGISTER, 1, 0, 0), op(op::STRING, 0, 0, 100)],
        // The same, cut.
        &[op(op::CHUNK, 0, 0, 4), op(op::STRING, 0, 0, 4)],
        // As many bytes as rdi says, then three, into one chunk.
        &[
            op(op::REGISTER, register::RDI, 0, 0),
            op(op::SAVE, 2, 0, 0),
            op(op::CHUNK, 0, 0, 5),
            op(op::REGISTER, 1, 0, 0),
            op(op::COPY_COUNTED, 2, 1, 64),
            op(op::COPY, 0, 0, 3),
        ],
        // Twice as many, of which five are wanted.
        &[op(op::CHUNK, 0, 0, 6), op(op::COPY_COUNTED, 2, 2, 5)],
        // The third and fourth byte, as a number, plus one, shifted.
        &[
            op(op::CHUNK, 0, 0, 7),
            op(op::ADD, 0, 0, 2),
            op(op::LOAD, 0, 2, 0),
            op(op::ADD, 0, 0, 1),
            op(op::SHIFT, 0, 0, 16),
            op(op::PUT, 0, 8, 0),
        ],
        // Of two values the second.
        &[
            op(op::CHUNK, 0, 0, 8),
            op(op::CONSTANT, 0, 0, -7),
            op(op::SKIP_IF, compare::LT_SIGNED, 1, -6),
            op(op::PUT, 0, 8, 0),
            op(op::SHIFT, 2, 0, 1),
            op(op::AND, 0, 0, -2),
            op(op::SKIP, 0, 1, 0),
            op(op::PUT, 0, 8, 0),
            op(op::PUT, 0, 3, 0),
        ],
        &[op(op::CHUNK, 0, 0, 9), op(op::STACK_POINTER, 0, 0, 0), op(op::PUT, 0, 8, 0)],
        &[op(op::CHUNK, 0, 0, 10), op(op::RECALL, 2, 0, 0), op(op::PUT, 0, 1, 0)],
        &value(11, register::R8),
        &value(12, register::R8 + 1),
        &value(13, register::RIP),
        &[op(op::END, 0, 0, 0)],
        &value(14, register::RDI),
    ]
    .concat();
    scene.attach(&program, &[program.point("probed", SiteKind::Entry, &ops)]);
    scene.select(&program);
    assert_eq!(program.number("text kernel"), 1);
    let told = scene.drain();
    let [told] = &told[..] else { panic!("one hit, not {told:?}") };
    assert_eq!((told.number(1), told.number(2)), (6, -5));
    assert_eq!((told.chunk(3), told.status(3)), (&b"kernel"[..], 0));
    assert_eq!((told.chunk(4), told.status(4)), (&b"kern"[..], chunk_status::CUT));
    assert_eq!((told.chunk(5), told.status(5)), (&b"kernelker"[..], 0));
    assert_eq!((told.chunk(6), told.status(6)), (&b"kerne"[..], chunk_status::CUT));
    let word = i64::from(u16::from_ne_bytes(*b"rn"));
    assert_eq!(told.number(7), (word + 1) << 16);
    assert_eq!(told.chunk(8), &(-4i64).to_ne_bytes()[..3]);
    assert_eq!(told.number(9) as u64, told.hit.sp);
    assert_eq!(told.chunk(10), [6]);
    assert_eq!((told.number(11), told.number(12)), (7, 8));
    assert_eq!(told.number(13) as u64, program.address("probed"));
    assert_eq!(told.chunks.len(), 13, "nothing behind the end: {told:?}");
    assert_eq!(told.hit.header.flags, hit_flags::ENTRY, "nothing was cut");
}

#[test]
fn comparisons_hold_where_they_should() {
    let Some((mut program, mut scene)) = started() else { return };
    // rsi is -5; each op that holds leaves out the byte that says it does not.
    let cases = [
        (compare::EQ, -5, true),
        (compare::EQ, 5, false),
        (compare::NE, -5, false),
        (compare::LT, 5, false),
        (compare::LT, -4, true),
        (compare::LE, -5, true),
        (compare::LT_SIGNED, 5, true),
        (compare::LT_SIGNED, -5, false),
        (compare::LE_SIGNED, -5, true),
        (compare::GT, 5, true),
        (compare::GE, -5, true),
        (compare::GE, -4, false),
        (compare::GT_SIGNED, -6, true),
        (compare::GT_SIGNED, 5, false),
        (compare::GE_SIGNED, -5, true),
        (compare::GE_SIGNED, -4, false),
    ];
    let mut ops = vec![op(op::CHUNK, 0, 0, 1), op(op::REGISTER, register::RSI, 0, 0)];
    for (comparison, with, _) in cases {
        ops.extend([op(op::SKIP_IF, comparison, 1, with), op(op::PUT, 0, 1, 0)]);
        ops.extend([op(op::CHUNK, 0, 0, 2), op(op::REGISTER, register::RSI, 0, 0)]);
    }
    scene.attach(&program, &[program.point("probed", SiteKind::Entry, &ops)]);
    scene.select(&program);
    program.run("text x");
    let told = scene.drain();
    let [told] = &told[..] else { panic!("one hit, not {told:?}") };
    let held: Vec<bool> =
        told.chunks.iter().map(|(_, bytes)| bytes.is_empty()).take(cases.len()).collect();
    assert_eq!(held, cases.map(|(.., holds)| holds));
}

#[test]
fn what_cannot_be_read_is_said_to_be_so() {
    let Some((mut program, mut scene)) = started() else { return };
    let pointer = op(op::REGISTER, 1, 0, 0);
    let other = op(op::REGISTER, 2, 0, 0);
    let ops = [
        &[op(op::CHUNK, 0, 0, 1), pointer, op(op::COPY, 0, 0, 32), op(op::PUT, 0, 8, 0)][..],
        &value(2, register::RDI),
        // An address that is not worth a try.
        &[op(op::CHUNK, 0, 0, 3), other, op(op::LOAD, 0, 8, 0), op(op::PUT, 0, 8, 0)],
        &[op(op::CHUNK, 0, 0, 4), pointer, op(op::STRING, 0, 0, 32)],
        // After two failures nothing is tried, though this could be read.
        &[op(op::CHUNK, 0, 0, 5), pointer, op(op::LOAD, 0, 1, 0), op(op::PUT, 0, 1, 0)],
    ]
    .concat();
    scene.attach(&program, &[program.point("probed", SiteKind::Entry, &ops)]);
    scene.select(&program);
    assert_eq!(program.number("edge 16"), 16);
    let told = scene.drain();
    let [told] = &told[..] else { panic!("one hit, not {told:?}") };
    // What lies before the page that is not there.
    assert_eq!((told.chunk(1), told.status(1)), (&[b'x'; 16][..], chunk_status::FAULT));
    assert_eq!((told.number(2), told.status(2)), (16, 0));
    assert_eq!((told.chunk(3), told.status(3)), (&[][..], chunk_status::FAULT));
    assert_eq!((told.chunk(4), told.status(4)), (&[b'x'; 16][..], chunk_status::FAULT));
    assert_eq!((told.chunk(5), told.status(5)), (&[][..], chunk_status::FAULT));
    assert_eq!(program.number("wild"), 2);
    let told = scene.drain();
    assert!(told[0].chunk(1).is_empty() && told[0].status(1) == chunk_status::FAULT);
}

#[test]
fn a_record_that_is_full_says_so() {
    let Some((mut program, mut scene)) = started() else { return };
    let page = [op(op::REGISTER, 1, 0, 0), op(op::ADD, 0, 0, -2000)];
    let copy = |chunk: i32| [op(op::CHUNK, 0, 0, chunk), op(op::COPY, 0, 0, 1500)];
    let ops = [&page[..], &copy(1), &copy(2), &copy(3), &value(4, register::RDI)].concat();
    scene.attach(&program, &[program.point("probed", SiteKind::Entry, &ops)]);
    scene.select(&program);
    assert_eq!(program.number("edge 16"), 16);
    let told = scene.drain();
    let [told] = &told[..] else { panic!("one hit, not {told:?}") };
    assert_eq!(told.chunk(1), [b'x'; 1500]);
    let rest = CHUNKS_MAX - 2 * size_of::<Chunk>() - 1504;
    assert_eq!((told.chunk(2).len(), told.status(2)), (rest, chunk_status::CUT));
    assert_eq!(told.chunks.len(), 2);
    assert_eq!(told.hit.header.flags, hit_flags::ENTRY | hit_flags::CUT);
}

#[test]
fn a_condition_decides_what_is_told() {
    let Some((mut program, mut scene)) = started() else { return };
    let condition = [
        op(op::REGISTER, register::RDI, 0, 0),
        op(op::SKIP_IF, compare::GE_SIGNED, 1, 90),
        op(op::DROP, 0, 0, 0),
    ];
    let ops = [&condition[..], &value(1, register::RDI)].concat();
    scene.attach(&program, &[program.point("probed", SiteKind::Entry, &ops)]);
    scene.select(&program);
    program.run("times 100");
    let told: Vec<i64> = scene.drain().iter().map(|told| told.number(1)).collect();
    assert_eq!(told, (90..100).collect::<Vec<_>>());
    let counters = scene.probes.counters(FunctionNo(0)).expect("it is known");
    assert_eq!((counters.told, counters.dropped), (10, 90));
    assert_eq!(counters.cost_ns, 100 * u64::from(HitCosts::ASSUMED.emulated_ns));
}

#[test]
fn a_stack_is_told_from_the_top() {
    let Some((mut program, mut scene)) = started() else { return };
    let ops = [op(op::CHUNK, 0, 0, 1), op(op::STACK, 0, 0, 16)];
    scene.attach(&program, &[program.point("probed", SiteKind::Entry, &ops)]);
    scene.select(&program);
    program.run("text x");
    let told = scene.drain();
    let frames = told[0].chunk(1);
    assert!(frames.len().is_multiple_of(8) && frames.len() <= 128, "{frames:?}");
    assert_eq!(frames[..8], program.address("probed").to_ne_bytes());
}

#[test]
fn recursion_is_told_by_the_stack_pointer() {
    let Some((mut program, mut scene)) = started() else { return };
    scene.probe(&program, "depth", &value(1, register::RDI), &value(1, register::RAX));
    assert_eq!(program.number("depth 200"), 20_100);
    let told = scene.drain();
    assert_eq!(told.len(), 402);
    let (entries, ends) = told.split_at(201);
    for (entry, end) in entries.iter().zip(ends.iter().rev()) {
        let n = entry.number(1);
        assert_eq!(end.number(1), n * (n + 1) / 2);
        assert_eq!(entry.hit.sp, end.hit.sp);
    }
    assert!(entries.is_sorted_by(|a, b| a.hit.sp > b.hit.sp), "deeper is lower");
}

#[test]
fn threads_children_and_new_programs_are_told_apart() {
    let Some((mut program, mut scene)) = started() else { return };
    let ops = value(1, register::RDI);
    let point = program.point("probed", SiteKind::Entry, &ops);
    let points = std::slice::from_ref(&point);
    let of_one = scene.probes.attach(&program.file(), Some(program.id()), points).expect("it can");
    scene.select(&program);
    assert_eq!(program.number("thread"), 3);
    let told = scene.drain();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].hit.tgid, program.id());
    assert_ne!(u64::from(told[0].hit.tid), program.address("thread"));
    // A probe of one process does not see its child, which computes the same all the same.
    assert!(program.run("fork").ends_with(" 23"));
    assert!(scene.drain().is_empty());
    // One of all processes does, but tells it only of those that are selected.
    let of_all = scene.probes.attach(&program.file(), None, points).expect("it can");
    assert!(program.run("fork").ends_with(" 23"));
    assert!(scene.drain().is_empty(), "a child that is not followed is not selected");
    let follow = scene.capture.selection();
    follow.select(program.id(), true, 64).expect("room for one");
    follow.select_functions(program.id()).expect("room for one");
    let said = program.run("fork");
    let child: u32 = said.split_once(' ').expect("two numbers").0.parse().expect("a number");
    let told = scene.drain();
    assert_eq!(told.iter().map(|told| told.hit.tgid).collect::<Vec<_>>(), [child]);
    // The next program in the same process is another one: its functions are not selected.
    assert_eq!(program.run("exec"), "exec");
    program.read_addresses();
    assert_eq!(program.number("text x"), -4);
    assert!(scene.drain().is_empty());
    scene.select(&program);
    assert_eq!(program.number("text x"), -4);
    // That of all processes is there still; that of one is, too, where it was set as one of many.
    let still = scene.drain().len();
    assert!(still == 1 || still == 2, "{still}");
    scene.probes.detach(of_one.link);
    scene.probes.detach(of_all.link);
    wait("the probes are gone", || {
        scene.drain();
        program.run("text x");
        scene.drain().is_empty()
    });
}

#[test]
fn a_refused_instruction_does_not_lose_the_others() {
    let Some((mut program, mut scene)) = started() else { return };
    if !scene.attaches_at_once() {
        return;
    }
    let many = program.offset("many");
    let mut points: Vec<_> =
        (0..999).map(|index| point(many + 3 * index, SiteKind::Entry, &[])).collect();
    points.insert(500, program.point("refused", SiteKind::Entry, &[]));
    let attached = scene.probes.attach(&program.file(), Some(program.id()), &points);
    let attached = attached.expect("it goes on");
    let refused: Vec<usize> = attached.refused.iter().map(|(index, _)| *index).collect();
    assert_eq!(refused, [500], "{:?}", attached.refused);
    assert_eq!(attached.sites.len(), 1000);
    scene.select(&program);
    assert_eq!(program.number("locked 7"), 8);
    program.run("many");
    let told: Vec<u32> = scene.drain().iter().map(|told| told.hit.site).collect();
    let mut good: Vec<u32> = attached.sites.iter().map(|site| site.0).collect();
    good.remove(500);
    assert_eq!(told, good);
}

#[test]
fn fifty_thousand_points_come_and_go() {
    if !is_root() {
        return;
    }
    let mut program = Program::start();
    let mut scene = Scene::with_ring(1 << 23);
    if !scene.attaches_at_once() {
        return;
    }
    let many = program.offset("many");
    let points: Vec<_> = (0..program::MANY as u64)
        .map(|index| point(many + 3 * index, SiteKind::Entry, &[]))
        .collect();
    let begun = std::time::Instant::now();
    let attached = scene.probes.attach(&program.file(), Some(program.id()), &points);
    let attached = attached.expect("it can");
    println!("50,000 points attached in {:?}", begun.elapsed());
    assert!(attached.refused.is_empty());
    scene.select(&program);
    assert_eq!(program.run("many"), "many");
    let told: Vec<u32> = scene.drain().iter().map(|told| told.hit.site).collect();
    assert_eq!(told, attached.sites.iter().map(|site| site.0).collect::<Vec<_>>());
    let begun = std::time::Instant::now();
    let file = program.file();
    drop(scene);
    println!("and detached in {:?}", begun.elapsed());
    // Nothing is left in the program's text.
    let text = program.text("many", 150_000);
    let file = std::fs::read(file).expect("it was built");
    let from = many as usize;
    assert!(text == file[from..from + 150_000], "the text is as it was");
    assert_eq!(program.run("many"), "many");
}

#[test]
fn a_full_ring_is_counted() {
    if !is_root() {
        return;
    }
    let mut program = Program::start();
    let mut scene = Scene::with_ring(1 << 16);
    scene.attach(&program, &[program.point("probed", SiteKind::Entry, &value(1, register::RDI))]);
    scene.select(&program);
    program.run("times 5000");
    let told = scene.drain();
    assert!(!told.is_empty() && told.len() < 5000, "{}", told.len());
    assert!(told.iter().all(|told| told.hit.lost == 0));
    let lost = 5000 - told.len();
    program.run("times 1");
    let next = scene.drain();
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].hit.lost as usize, lost);
    let counters = scene.probes.counters(FunctionNo(0)).expect("it is known");
    assert_eq!((counters.told, counters.lost), (told.len() as u64 + 1, lost as u64));
    let selection = scene.capture.selection();
    assert_eq!(selection.lost(program.id()), Some(lost as u64));
    let counters = scene.capture.counters().expect("they are there");
    assert_eq!(counters.of(agent_common::counter::RING_FULL), lost as u64);
    assert!(counters.events > told.len() as u64);
}

#[test]
fn a_rate_suppresses_calls_whole() {
    let Some((mut program, mut scene)) = started() else { return };
    scene.probe(&program, "depth", &value(1, register::RDI), &value(1, register::RAX));
    scene.probes.set_rate(FunctionNo(0), 100).expect("it is known");
    // More than a window can take, however slow this is.
    assert_eq!(program.number("depth 5000"), 12_502_500);
    let told = scene.drain();
    let stacks = |kind| {
        let of_kind = told.iter().filter(move |told| told.hit.header.flags == kind);
        of_kind.map(|told| told.hit.sp).collect::<Vec<_>>()
    };
    let (entries, mut ends) = (stacks(hit_flags::ENTRY), stacks(hit_flags::RETURN));
    ends.reverse();
    // A return whose entry is not known any more is told; none is missing.
    let ends: Vec<u64> = ends.into_iter().filter(|sp| entries.contains(sp)).collect();
    assert_eq!(entries, ends);
    let counters = scene.probes.counters(FunctionNo(0)).expect("it is known");
    assert_eq!(counters.suppressed, 5001 - entries.len() as u64);
    assert!(counters.suppressed > 0);
    scene.probes.set_rate(FunctionNo(0), 0).expect("it is known");
    program.run("depth 0");
    let told = scene.drain();
    assert_eq!(told.len(), 2);
}

#[test]
fn a_budget_suppresses_calls_and_counts_them() {
    let Some((mut program, mut scene)) = started() else { return };
    scene.probe(&program, "probed", &value(1, register::RDI), &[]);
    // A hit is taken to cost a microsecond: some 134 hits a window.
    scene.probes.set_budget(program.id(), 1_000_000).expect("room for one");
    assert_eq!(program.number("times 5000"), 12_502_500);
    let told = scene.drain();
    let counters = scene.probes.counters(FunctionNo(0)).expect("it is known");
    let entries = told.iter().filter(|told| told.hit.header.flags == hit_flags::ENTRY);
    assert_eq!(entries.clone().count() as u64 + counters.suppressed, 5000);
    assert!(counters.suppressed > 1000, "{counters:?}");
    let said: u64 = entries.map(|told| u64::from(told.hit.suppressed)).sum();
    assert!(said <= counters.suppressed);
    let ends = told.len() as u64 - (5000 - counters.suppressed);
    assert_eq!(ends, 5000 - counters.suppressed, "each return of a told entry, and no other");
    assert_eq!(counters.told, told.len() as u64);
    scene.probes.set_budget(program.id(), 0).expect("room for one");
    // Once the window is over, all is told. It may have been a fresh one, in which some still are.
    wait("the budget is gone", || {
        program.run("times 1000");
        scene.drain().len() == 2000
    });
    program.run("times 1000");
    assert_eq!(scene.drain().len(), 2000);
}

#[test]
fn what_costs_a_gross_lot_wakes_the_reader() {
    let Some((mut program, mut scene)) = started() else { return };
    scene.probe(&program, "probed", &[], &[]);
    // Some 134 hits a window; four times as many are gross.
    scene.probes.set_budget(program.id(), 1_000_000).expect("room for one");
    program.run("times 100");
    assert_eq!(scene.probes.take_alarm().expect("it is there"), None);
    assert_eq!(scene.drain().len() % 2, 0);
    scene.capture.rouse().expect("it is there");
    let (ended, writer) = std::io::pipe().expect("a pipe");
    std::thread::scope(|scope| {
        let (woken, waiting) = std::sync::mpsc::channel::<()>();
        let program = &mut program;
        scope.spawn(move || {
            program.run("times 20000");
            // Ended by the waiter, or too late: then the pipe is what wakes it.
            let _ = waiting.recv_timeout(Duration::from_secs(20));
            drop(writer);
        });
        let too_late = scene.capture.wait(Until::Woken, [Some(ended.as_fd())], None);
        assert!(!too_late.expect("it waits"), "the kernel half has woken nobody");
        drop(woken);
    });
    assert!(scene.probes.take_alarm().expect("it is there").is_some());
    assert_eq!(scene.probes.take_alarm().expect("it is there"), None, "once");
    let all = scene.probes.all_counters(3).expect("they are known");
    let each = [0, 1, 2].map(|number| scene.probes.counters(FunctionNo(number)).expect("known"));
    assert_eq!(all, each);
    assert_eq!(all[0].cost_ns, 2 * 20_100 * 1000);
    assert!(all[0].suppressed > 0 && all[1].told == 0);
}

/// The entry of a function and its end by a jump that is taken if the sign is set.
fn leaves(program: &Program, scene: &mut Scene) {
    let entry = program.point("leaves", SiteKind::Entry, &[]);
    let mut jump = program.point("leaves_jump", SiteKind::TailCall, &value(1, register::RDI));
    jump.site.jumps_if = Condition::of_code(8);
    scene.attach(program, &[entry, jump]);
    scene.select(program);
}

#[test]
fn a_conditional_jump_is_an_end_when_it_is_taken() {
    let Some((mut program, mut scene)) = started() else { return };
    leaves(&program, &mut scene);
    assert_eq!(program.number("leaves 100 3"), -3);
    let told = scene.drain();
    let kinds: Vec<u8> = told.iter().map(|told| told.hit.header.flags).collect();
    assert_eq!(kinds, [hit_flags::ENTRY, hit_flags::TAIL_CALL].repeat(3));
    for call in told.chunks(2) {
        assert_eq!((call[0].hit.sp, call[1].number(1)), (call[1].hit.sp, -1));
    }
    let counters = scene.probes.counters(FunctionNo(0)).expect("it is known");
    assert_eq!((counters.told, counters.suppressed, counters.dropped), (6, 0, 0));
    // Three entries, and as often a jump that is not taken a hundred times before it is.
    let hits = 3 * (1 + 101);
    assert_eq!(counters.cost_ns, hits * u64::from(HitCosts::ASSUMED.emulated_ns));
}

/// Has it called a hundred times, with `n` jumps before each end: how many of them are told, whole.
fn leave(program: &mut Program, scene: &mut Scene, n: u32) -> u64 {
    assert_eq!(program.number(&format!("leaves {n} 100")), -100);
    let told = scene.drain();
    let entries = told.iter().filter(|told| told.hit.header.flags == hit_flags::ENTRY).count();
    assert_eq!(told.len(), 2 * entries);
    let counters = scene.probes.counters(FunctionNo(0)).expect("it is known");
    assert_eq!(counters.suppressed, 100 - entries as u64);
    entries as u64
}

#[test]
fn a_jump_that_is_not_taken_does_not_end_a_call_that_is_not_told() {
    let Some((mut program, mut scene)) = started() else { return };
    leaves(&program, &mut scene);
    scene.probes.set_rate(FunctionNo(0), 10).expect("it is known");
    let told = leave(&mut program, &mut scene, 5);
    assert!((10..100).contains(&told), "{told}");
}

#[test]
fn a_jump_that_is_not_taken_uses_up_the_budget() {
    let Some((mut program, mut scene)) = started() else { return };
    leaves(&program, &mut scene);
    // Some 134 hits a window: a call has more.
    scene.probes.set_budget(program.id(), 1_000_000).expect("room for one");
    let told = leave(&mut program, &mut scene, 200);
    assert!((1..100).contains(&told), "{told}");
}

#[test]
fn a_function_goes_and_the_others_stay() {
    let Some((mut program, mut scene)) = started() else { return };
    let of = |number: u32, point: Point| Point { function: FunctionNo(number), ..point };
    let points = [
        of(0, program.point("probed", SiteKind::Entry, &[])),
        of(0, program.point("probed_return", SiteKind::Return, &[])),
        of(1, program.point("depth", SiteKind::Entry, &[])),
        of(1, program.point("depth_return", SiteKind::Return, &[])),
    ];
    let attached = scene.probes.attach(&program.file(), Some(program.id()), &points);
    let attached = attached.expect("it can");
    let sites: Vec<u32> = attached.sites.iter().map(|site| site.0).collect();
    scene.select(&program);
    program.run("depth 0");
    program.run("text x");
    let told = |scene: &mut Scene| scene.drain().iter().map(|hit| hit.hit.site).collect::<Vec<_>>();
    assert_eq!(told(&mut scene), [sites[2], sites[3], sites[0], sites[1]]);
    for _ in 0..3 {
        // Those that are not there any more change nothing.
        scene.probes.take_out(attached.set, &[FunctionNo(7), FunctionNo(0)]).expect("it can");
        program.run("text x");
        program.run("depth 1");
        assert_eq!(told(&mut scene), [sites[2], sites[2], sites[3], sites[3]]);
    }
    scene.probes.take_out(attached.set, &[FunctionNo(1)]).expect("it can");
    wait("all are gone", || {
        program.run("depth 1");
        scene.drain().is_empty()
    });
}

/// Nobody would take it out again, and its end be waited for.
#[test]
fn what_is_not_selected_any_more_is_not_selected_for_functions() {
    let Some((program, mut scene)) = started() else { return };
    let selection = scene.capture.selection();
    selection.confirm_functions(program.id()).expect("there is nothing to do");
    assert_eq!(selection.bits(program.id()), None);
    selection.select(program.id(), false, 64).expect("room for one");
    let before = selection.bits(program.id());
    selection.confirm_functions(program.id()).expect("it is there");
    assert_ne!(selection.bits(program.id()), before);
}

/// A path below `/proc/PID` leads elsewhere when its process has another program, or is another one.
#[test]
fn what_stays_is_in_the_same_file_whatever_its_path_leads_to() {
    let Some((mut program, mut scene)) = started() else { return };
    let folder = std::env::temp_dir().join(format!("remora-links-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a directory");
    let (path, other) = (folder.join("program"), folder.join("other"));
    std::os::unix::fs::symlink(program.file(), &path).expect("the directory is ours");
    std::fs::copy(program.file(), &other).expect("there is room");
    let of = |number: u32, point: Point| Point { function: FunctionNo(number), ..point };
    let points = [
        of(0, program.point("probed", SiteKind::Entry, &[])),
        of(1, program.point("depth", SiteKind::Entry, &[])),
    ];
    let attached = scene.probes.attach(&path, None, &points).expect("it can");
    scene.select(&program);
    std::fs::rename(&other, &path).expect("both are ours");
    scene.probes.take_out(attached.set, &[FunctionNo(0)]).expect("it can");
    std::fs::remove_dir_all(&folder).expect("it is ours");
    program.run("text x");
    program.run("depth 0");
    let told: Vec<u32> = scene.drain().iter().map(|hit| hit.hit.site).collect();
    assert_eq!(told, [attached.sites[1].0]);
}

#[test]
fn a_killed_agent_leaves_nothing() {
    if !is_root() {
        return;
    }
    if let Ok(place) = std::env::var(AGENT) {
        // The agent's side: attaches, says so, and waits to be killed.
        let (tgid, offset) = place.split_once(' ').expect("two numbers");
        let tgid: u32 = tgid.parse().expect("a number");
        let offset: u64 = offset.parse().expect("a number");
        let mut scene = Scene::start();
        let file = std::path::PathBuf::from(format!("/proc/{tgid}/exe"));
        let points: Vec<_> =
            (0..50).map(|index| point(offset + 3 * index, SiteKind::Entry, &[])).collect();
        scene.probes.attach(&file, Some(tgid), &points).expect("it can");
        scene.capture.selection().select_functions(tgid).expect("room for one");
        println!("attached");
        loop {
            std::thread::park();
        }
    }
    let mut program = Program::start();
    let clean = program.text("many", 3000);
    let mut agent = Command::new(std::env::current_exe().expect("it runs"))
        .args(["--exact", "a_killed_agent_leaves_nothing", "--nocapture"])
        .env(AGENT, format!("{} {}", program.id(), program.offset("many")))
        .stdout(Stdio::piped())
        .spawn()
        .expect("it can be started");
    let output = BufReader::new(agent.stdout.take().expect("piped"));
    let attached =
        output.lines().map(|line| line.expect("text")).any(|line| line.ends_with("attached"));
    assert!(attached);
    assert_ne!(program.text("many", 3000), clean, "breakpoints are there");
    assert_eq!(program.run("many"), "many");
    agent.kill().expect("it is ours");
    agent.wait().expect("it is ours");
    wait("the text is as it was", || program.text("many", 3000) == clean);
    assert_eq!(program.run("many"), "many");
}
