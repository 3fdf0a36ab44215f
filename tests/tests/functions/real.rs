//! Whole programs with all of their functions probed, and those of the libraries that they use most: with
//! their signals, threads, collectors and handlers of faults they do and say what they do and say alone.

use std::path::Path;
use std::process::Command;

use remora_tests::agent::{Agent, binary};
use remora_tests::compile::compile;
use remora_tests::program::scripts;
use remora_tests::spans::{self, check_honest};
use remora_tests::{Scratch, is_root};

use crate::scene::{Shown, Waiting, ended, probing};

/// The hottest functions are left out and detached on the way, and processes that are started are probed.
const OPTIONS: &[&str] = &["--max-overhead", "100%", "--exceptions", "--follow"];

/// A test for each row: its name, who runs which program of `tests/programs/functions/real`, what of it is
/// probed, and how many functions that are at least.
macro_rules! programs {
    ($($name:ident: $runner:expr, $source:literal, $functions:expr, $least:literal;)+) => {$(
        #[test]
        fn $name() {
            play(&$runner, $source, &$functions, $least);
        }
    )+};
}

programs! {
    a_shell: ["bash"], "work.sh", ["*", "libc.so.6!*"], 4000;
    go: [], "work.go", ["*"], 2000;
    rust: ["-O"], "work.rs", ["*", "libc.so.6!*", "libgcc_s.so.1!*"], 3500;
    cpp: ["-O2", "-std=c++17", "-lpthread"], "work.cpp",
        ["*", "libstdc++.so.6!*", "libgcc_s.so.1!*", "libc.so.6!*", "libm.so.6!*", "ld-linux*!*"], 8000;
}

fn play(runner: &[&str], source: &str, functions: &[&str], least: u64) {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let is_compiled = [".go", ".rs", ".cpp"].iter().any(|ending| source.ends_with(ending));
    let program = if is_compiled {
        let Some(program) = compile(&scratch, &format!("real/{source}"), runner) else { return };
        program
    } else {
        scripts().join("functions/real").join(source)
    };
    let start = |name: &str| {
        let mut command = match (is_compiled, runner) {
            (false, [runner, args @ ..]) => {
                let mut command = Command::new(runner);
                command.args(args).arg(&program);
                command
            }
            _ => Command::new(&program),
        };
        Waiting::start(&scratch, name, command.current_dir(scratch.path()))
    };
    let told = |mut program: Waiting| -> Shown {
        program.tell("go");
        program.end()
    };
    let alone = told(start("alone"));
    let probed = start("probed");
    let agent = probing(&scratch, probed.pid(), functions, OPTIONS);
    let probed = told(probed);
    let ended = ended(&scratch, agent);
    assert_eq!(probed, alone, "{:#?}", ended.log);
    assert_eq!(ended.code, Some(0), "{:#?}", ended.log);
    assert!(!ended.log.iter().any(|line| line.contains("panicked")), "{:#?}", ended.log);
    check_honest(&ended.spans);
    assert!(!ended.spans.is_empty(), "{:#?}", ended.log);
    let ready = ended.log.iter().find(|line| line.starts_with("remora: ready"));
    let field =
        ready.and_then(|line| line.split(' ').find_map(|word| word.strip_prefix("functions=")));
    let functions: u64 = field.and_then(|count| count.parse().ok()).unwrap_or_default();
    println!("{functions} functions, {}", ended.done());
    assert!(functions >= least, "{functions} functions: {:#?}", ended.log);
}

/// Code that was written by hand: all of it is passed by what uses it, from the first instruction on.
#[test]
fn assembly_of_libraries() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let input = scratch.file("input");
    std::fs::write(&input, (0..30_000_u32).map(|n| ((n * n) >> 7) as u8).collect::<Vec<_>>())
        .expect("ours");
    let key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let vector = &key[..32];
    for args in [
        &["dgst", "-sha256"][..],
        &["dgst", "-sha512"],
        &["dgst", "-sha3-256"],
        &["dgst", "-blake2b512"],
        &["enc", "-a", "-aes-256-cbc", "-K", key, "-iv", vector, "-in"],
        &["enc", "-a", "-aes-128-ctr", "-K", vector, "-iv", vector, "-in"],
        &["enc", "-a", "-chacha20", "-K", key, "-iv", vector, "-in"],
        &["enc", "-a", "-camellia-256-cbc", "-K", key, "-iv", vector, "-in"],
    ] {
        assert_same(&scratch, Path::new("openssl"), args, &input);
    }
}

/// What a program that is probed from its start prints is what it prints alone.
fn assert_same(scratch: &Scratch, program: &Path, args: &[&str], input: &Path) {
    let output = Command::new(program).args(args).arg(input).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let file = scratch.file("started.jsonl");
    let mut command = Command::new(binary());
    command.args(["exec", "--max-overhead", "100%", "--functions", "libcrypto.so*!*"]);
    command.arg("--file").arg(&file).arg("--").arg(program).args(args).arg(input);
    let ended = Agent::start(&mut command).end();
    assert_eq!(ended.stdout, String::from_utf8_lossy(&output.stdout), "{args:?} {:#?}", ended.log);
    assert!(!spans::read(&file).is_empty(), "{args:?} {:#?}", ended.log);
    std::fs::remove_file(&file).expect("it was read");
}
