//! Stacks wait for what is read for them, in their order, within their bounds, and no longer.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use agent_common::function::{IMAGE_REGISTERS, image_flags, register};
use agent_common::kind;

use super::*;
use crate::inspect::elf::Module;
use crate::run::held::{Held, Next};
use crate::scratch::Directory;
use reader::Ends;

const TGID: u32 = 7;

/// A process that has a program mapped, as `/proc` tells it, and nobody who reads files before he is asked to.
struct Scene {
    /// Is looked into until the end.
    _proc: Directory,
    stacks: Stacks,
    ends: Ends,
    held: Held,
    /// In the program's code.
    instruction: u64,
}

impl Scene {
    fn new(name: &str) -> Self {
        Self::of(Directory::new(&format!("stacks-{name}")), Path::new("/bin/sh"))
    }

    fn of(proc: Directory, program: &Path) -> Self {
        let module = Module::open(program).expect("a program");
        let mut segments = module.segments().iter();
        let code = segments.find(|segment| segment.executable).expect("a program has code");
        let start = 0x5000_0000_u64;
        let end = start + code.file_size.next_multiple_of(4096);
        let files = proc.file(&format!("{TGID}/map_files"));
        fs::create_dir_all(&files).expect("the directory is ours");
        symlink(program, files.join(format!("{start:x}-{end:x}"))).expect("the directory is ours");
        let line = format!("{start:x}-{end:x} r-xp {:08x} fe:00 12 /bin/sh\n", code.offset.0);
        fs::write(proc.file(&format!("{TGID}/maps")), line).expect("the directory is ours");
        let (reader, ends) = Reader::connected().expect("a counter");
        let stacks = Stacks::new(proc.path().to_owned(), reader);
        Self { _proc: proc, stacks, ends, held: Held::default(), instruction: start + 64 }
    }

    /// A stack arrives.
    fn image(&mut self, thread: u32, flags: u32) {
        let mut record = vec![0; size_of::<agent_common::function::Image>()];
        let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &[kind::IMAGE]);
        put(16, &TGID.to_ne_bytes());
        put(20, &thread.to_ne_bytes());
        put(32, &flags.to_ne_bytes());
        let mut registers = [0_u64; IMAGE_REGISTERS];
        registers[register::RSP as usize] = 0x7000_0000;
        registers[register::RIP as usize] = self.instruction;
        for (number, word) in registers.iter().enumerate() {
            put(40 + 8 * number, &word.to_ne_bytes());
        }
        self.held.push_stack(self.stacks.begin(&record).expect("an image"));
    }

    /// What is taken in at a moment: threads of stacks, and records.
    fn taken(&mut self, now: Instant) -> Vec<String> {
        self.stacks.take_answers();
        let next = std::iter::from_fn(|| self.held.next(&mut self.stacks, now));
        let name = |next| match next {
            Next::Record(record) => format!("record {}", record.len()),
            Next::Stack(taken) => match &taken.stack.end {
                Some(end) if end.contains("being read") => format!("{} unread", taken.tid.0),
                _ => taken.tid.0.to_string(),
            },
        };
        next.map(name).collect()
    }
}

#[test]
fn what_comes_behind_a_stack_waits_with_it() {
    let mut scene = Scene::new("order");
    scene.image(1, 0);
    scene.held.push_record(&[0; 5]);
    scene.image(2, image_flags::INTERPRETED);
    scene.image(3, 0);
    scene.held.push_record(&[0; 6]);
    let now = Instant::now();
    assert_eq!(scene.taken(now), [""; 0]);
    assert_eq!(scene.ends.read_tables(), 1, "it is asked once");
    // Of an address in a program without lines.
    assert_eq!(scene.taken(now), [""; 0]);
    assert_eq!(scene.ends.find_no_lines(), 1, "it is asked once");
    assert_eq!(scene.taken(now), ["1", "record 5", "2", "3", "record 6"]);
    assert!(scene.held.is_empty());
    assert_eq!(scene.stacks.unread(), 0);
    // All is known by now.
    scene.image(4, 0);
    assert_eq!(scene.taken(now), ["4"]);
}

/// As programs are that are linked again: the same file, written anew.
#[test]
fn a_file_with_other_bytes_is_read_again() {
    let proc = Directory::new("stacks-again");
    let program = proc.file("program");
    fs::copy("/bin/sh", &program).expect("there is room");
    let mut scene = Scene::of(proc, &program);
    scene.image(1, 0);
    assert_eq!(scene.ends.read_tables(), 1);
    scene.stacks.take_answers();
    // What was asked before is answered after.
    let (old, new) = (fs::read("/bin/sh"), fs::read("/bin/cat"));
    let (old, mut new) = (old.expect("a program"), new.expect("a program"));
    assert_ne!(old, new);
    new.push(0);
    fs::write(&program, &new).expect("the directory is ours");
    scene.stacks.forget(Tgid(TGID));
    scene.image(2, 0);
    assert_eq!(scene.ends.read_tables(), 1, "it is another one");
    // Back again, and asked of before the answer has come.
    fs::write(&program, &old).expect("the directory is ours");
    scene.stacks.forget(Tgid(TGID));
    scene.image(3, 0);
    assert_eq!(scene.ends.read_tables(), 1);
    scene.stacks.forget(Tgid(TGID));
    scene.image(4, 0);
    assert_eq!(scene.ends.read_tables(), 0, "it is the same");
}

#[test]
fn a_stack_does_not_wait_for_long() {
    let mut scene = Scene::new("time");
    scene.image(1, 0);
    scene.held.push_record(&[0; 5]);
    let until = scene.held.until().expect("it waits");
    assert!(until <= Instant::now() + PATIENCE);
    scene.image(2, 0);
    assert_eq!(scene.taken(until - Duration::from_millis(1)), [""; 0]);
    assert_eq!(scene.taken(until), ["1 unread", "record 5"]);
    assert_eq!(scene.taken(until + PATIENCE), ["2 unread"]);
    assert_eq!(scene.stacks.unread(), 2);
}

#[test]
fn stacks_wait_for_lines_a_part_of_the_time() {
    let mut scene = Scene::new("lines");
    scene.image(1, 0);
    scene.ends.read_tables();
    let now = Instant::now();
    assert_eq!(scene.taken(now), [""; 0]);
    let until = scene.held.until().expect("it waits for lines");
    assert_eq!(scene.taken(until), ["1"]);
    // The answer is still to come, and little patience is left.
    scene.image(2, 0);
    assert_eq!(scene.taken(until), [""; 0]);
    let next = scene.held.until().expect("it waits for lines");
    assert!(next < until + PATIENCE / 5, "{:?}", next - until);
    assert_eq!(scene.taken(next), ["2"]);
    assert_eq!(scene.stacks.unread(), 2);
}

#[test]
fn what_waits_has_a_bound() {
    let mut scene = Scene::new("room");
    static RECORD: [u8; 1 << 16] = [0; 1 << 16];
    scene.image(1, 0);
    scene.held.push_record(&RECORD);
    scene.image(2, 0);
    let mut behind = 0;
    while !scene.held.is_full() {
        scene.held.push_record(&RECORD);
        behind += 1;
    }
    assert!(behind > 32, "{behind}");
    let now = Instant::now();
    // With the first one there is room again for what waits behind the second.
    assert_eq!(scene.taken(now), ["1 unread", "record 65536"]);
    assert_eq!(scene.held.hurried(), 1);
    scene.held.push_record(&RECORD);
    scene.held.push_record(&RECORD);
    assert_eq!(scene.taken(now).len(), 1 + behind + 2);
    assert_eq!((scene.held.hurried(), scene.held.len()), (2, 0));
}
