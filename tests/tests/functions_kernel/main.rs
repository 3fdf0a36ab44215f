//! Function probes against the real kernel: what a hit says of a program whose every instruction is
//! known, and that the program computes the same with them.

mod scene;

use std::os::fd::AsFd;

use agent_common::function::{Op, chunk_status, compare, hit_flags, op, register};
use agent_common::{kind, task_kind};
use remora::function::site::SiteKind;
use remora_tests::is_root;
use scene::{Program, Scene, point};

fn op(code: u8, a: u8, b: u16, imm: i32) -> Op {
    Op { code, a, b, imm }
}

/// A register as a chunk of eight bytes.
fn value(chunk: i32, register: u8) -> [Op; 3] {
    [op(op::CHUNK, 0, 0, chunk), op(op::REGISTER, register, 0, 0), op(op::PUT, 0, 8, 0)]
}

#[test]
fn entry_and_return_are_told() {
    if !is_root() {
        return;
    }
    let mut program = Program::start();
    let mut scene = Scene::start();
    let entry = program.point("probed", SiteKind::Entry, &[]);
    let end = program.point("probed_return", SiteKind::Return, &value(1, register::RAX));
    let sites = scene.attach(&program, &[entry, end]);
    assert_eq!(program.number("text hello"), 0);
    assert!(scene.drain().is_empty(), "not selected");
    scene.select(&program);
    assert_eq!(program.number("text hello, "), 1);
    let told = scene.drain();
    let [entry, end] = &told[..] else { panic!("two hits, not {told:?}") };
    assert_eq!(entry.hit.header.kind, kind::HIT);
    assert_eq!(
        (entry.hit.header.flags, end.hit.header.flags),
        (hit_flags::ENTRY, hit_flags::RETURN)
    );
    assert_eq!([entry.hit.site, end.hit.site], sites[..]);
    assert_eq!((entry.hit.tgid, entry.hit.tid), (program.id(), program.id()));
    assert_eq!((entry.hit.task, entry.hit.task_kind), (0, task_kind::THREAD));
    assert_eq!(entry.hit.sp, end.hit.sp, "the same call");
    assert!(entry.hit.header.ts_ns < end.hit.header.ts_ns);
    assert!(entry.chunks.is_empty());
    assert_eq!(end.number(1), 1);
}

/// What every op appends, of one call.
#[test]
fn every_op_says_what_is_there() {
    if !is_root() {
        return;
    }
    let mut program = Program::start();
    let mut scene = Scene::start();
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
    if !is_root() {
        return;
    }
    let mut program = Program::start();
    let mut scene = Scene::start();
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
    if !is_root() {
        return;
    }
    let mut program = Program::start();
    let mut scene = Scene::start();
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
