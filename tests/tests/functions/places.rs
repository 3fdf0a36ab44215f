//! Programs that are found in odd places: deleted, replaced, in other mounts and roots, under another
//! tracer, launched by the agent.

use std::path::Path;
use std::process::Command;

use remora_tests::agent::{Agent, binary};
use remora_tests::compile::{compile, compile_file};
use remora_tests::program::{scripts, tree};
use remora_tests::{Scratch, copy_program, is_root, spans, until};

use crate::scene::{ALL, Hazard, Spans, Waiting, ended, probing, spans_by_function};

/// A program of four threads and its two functions.
const PLAIN: Hazard = Hazard {
    source: "hazards/plain.c",
    flags: &["-O2", "-g", "-lpthread"],
    args: &[],
    functions: &["work", "step"],
    spans: Spans::Exact,
    options: ALL,
};

fn compiled(scratch: &Scratch, flags: &[&str]) -> Option<std::path::PathBuf> {
    is_root().then(|| compile(scratch, PLAIN.source, flags)).flatten()
}

/// A shell that does `before` in mounts of its own, and becomes `program`.
fn in_own_mounts(before: &str, program: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-e", "-c", &format!("{before}; exec {program}")]);
    command
}

#[test]
fn a_program_whose_file_is_deleted() {
    let scratch = Scratch::new();
    let Some(program) = compiled(&scratch, PLAIN.flags) else { return };
    let copy = scratch.file("copy");
    let start = || {
        copy_program(&program, &copy);
        Command::new(&copy)
    };
    PLAIN.play(&scratch, start, |_| std::fs::remove_file(&copy).expect("it was there"));
}

#[test]
fn a_program_whose_file_is_another_one_by_now() {
    let scratch = Scratch::new();
    let Some(program) = compiled(&scratch, PLAIN.flags) else { return };
    let copy = scratch.file("copy");
    let start = || {
        // The other program of this name must not be in the way.
        let _ = std::fs::remove_file(&copy);
        copy_program(&program, &copy);
        Command::new(&copy)
    };
    let replace = |_: &Waiting| {
        std::fs::remove_file(&copy).expect("it was there");
        // It has functions of the same names at other places.
        let flags = ["-O0", "-lpthread"];
        compile_file(&scripts().join("functions").join(PLAIN.source), &copy, &flags);
    };
    PLAIN.play(&scratch, start, replace);
}

#[test]
fn a_program_in_mounts_of_its_own() {
    let scratch = Scratch::new();
    let Some(program) = compiled(&scratch, PLAIN.flags) else { return };
    let start = || {
        let before = format!("mount -t tmpfs none /mnt; cp {} /mnt/hidden", program.display());
        in_own_mounts(&before, "/mnt/hidden")
    };
    PLAIN.play(&scratch, start, |_| ());
}

#[test]
fn a_program_on_an_overlay() {
    let scratch = Scratch::new();
    let Some(program) = compiled(&scratch, PLAIN.flags) else { return };
    let start = || {
        let before = format!(
            "mount -t tmpfs none /mnt; cd /mnt; mkdir lower upper work merged; cp {} lower/program; \
             mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged",
            program.display()
        );
        in_own_mounts(&before, "merged/program")
    };
    PLAIN.play(&scratch, start, |_| ());
}

#[test]
fn a_program_in_a_root_of_its_own() {
    let scratch = Scratch::new();
    let Some(program) = compiled(&scratch, &["-O2", "-g", "-static", "-lpthread"]) else { return };
    let root = scratch.file("root");
    std::fs::create_dir_all(root.join("bin")).expect("the directory is ours");
    copy_program(&program, &root.join("bin/program"));
    let start = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--root"]).arg(&root);
        command.arg("/bin/program");
        // The process that forks is not it.
        command
    };
    let alone = Waiting::start(&scratch, "alone", &mut start());
    let alone = through(alone);
    let probed = Waiting::start(&scratch, "probed", &mut start());
    let pid = child_of(probed.pid());
    let agent = probing(&scratch, pid, PLAIN.functions, PLAIN.options);
    let again = through(probed);
    PLAIN.judge(&alone, &again, &ended(&scratch, agent));
}

/// Lets a program go on to its end.
fn through(mut program: Waiting) -> crate::scene::Shown {
    program.tell("go");
    program.end()
}

/// The only child of a process.
fn child_of(pid: u32) -> u32 {
    until("a child", || tree(pid).get(1).copied())
}

#[test]
fn a_program_that_another_tracer_holds() {
    let scratch = Scratch::new();
    let Some(program) = compiled(&scratch, PLAIN.flags) else { return };
    if Command::new("strace").arg("-V").output().is_err() {
        println!("skipped: needs strace");
        return;
    }
    let start = |trace: &Path| {
        let mut command = Command::new("strace");
        command.args(["-f", "-o"]).arg(trace).arg(&program);
        command
    };
    let (without, with) = (scratch.file("without"), scratch.file("with"));
    let alone = through(Waiting::start(&scratch, "alone", &mut start(&without)));
    let probed = Waiting::start(&scratch, "probed", &mut start(&with));
    let agent = probing(&scratch, child_of(probed.pid()), PLAIN.functions, PLAIN.options);
    let again = through(probed);
    PLAIN.judge(&alone, &again, &ended(&scratch, agent));
    // Nor does the other tracer see a call or a signal more.
    let seen = |trace: &Path| {
        let text = std::fs::read_to_string(trace).expect("strace writes it");
        let names = text.lines().filter_map(|line| {
            let (_, what) = line.split_once(' ')?;
            let name = what.trim_start().split(['(', ' ']).next()?.to_owned();
            // How often threads wait for each other, and how a call is told that was held up.
            let varies = ["futex", "<...", "madvise", "mprotect", "munmap", "mmap", "brk"];
            (!varies.contains(&name.as_str())).then_some(name)
        });
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    assert_eq!(seen(&with), seen(&without));
}

#[test]
fn a_program_that_the_agent_starts() {
    let scratch = Scratch::new();
    let Some(program) = compiled(&scratch, PLAIN.flags) else { return };
    let file = scratch.file("spans.jsonl");
    let mut command = Command::new("sh");
    // It finds its line at once.
    let inner = "echo go | exec \"$0\" exec --max-overhead 10000% --functions work --functions step \
        --file \"$1\" -- \"$2\"";
    command.args(["-c", inner]).arg(binary()).arg(&file).arg(&program);
    let mut ended = Agent::start(&mut command).end();
    ended.spans = spans::read(&file);
    assert_eq!(ended.code, Some(0), "{:#?}", ended.log);
    assert!(ended.stdout.ends_with("calls work 4000\ncalls step 8000\n"), "{}", ended.stdout);
    let spans = spans_by_function(&ended);
    assert_eq!(
        (spans.get("work"), spans.get("step")),
        (Some(&4000), Some(&8000)),
        "{:#?}",
        ended.log
    );
}

#[test]
fn a_library_that_is_closed_and_opened_again() {
    let scratch = Scratch::new();
    if !is_root() {
        return;
    }
    let flags = ["-O2", "-shared", "-fPIC"];
    let Some(library) = compile(&scratch, "hazards/library.c", &flags) else { return };
    let Some(program) = compile(&scratch, "hazards/opens.c", &["-O2", "-ldl"]) else { return };
    let hazard = Hazard { functions: &["library!shared"], ..PLAIN };
    let start = || {
        let mut command = Command::new(&program);
        command.arg(&library);
        command
    };
    hazard.play(&scratch, start, |_| ());
}
