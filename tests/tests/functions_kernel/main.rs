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
