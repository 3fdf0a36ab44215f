//! Every input that fuzzers have found worth keeping, replayed.

use std::path::PathBuf;

use super::*;

/// Where the inputs of a target are kept.
fn corpus(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", target].iter().collect()
}

#[test]
fn every_kept_input_keeps_every_promise() {
    for (name, run) in TARGETS {
        let mut count = 0;
        for entry in std::fs::read_dir(corpus(name)).expect("each target has a corpus") {
            let path = entry.expect("the directory can be read").path();
            let input = std::fs::read(&path).expect("the file can be read");
            let result = std::panic::catch_unwind(|| run(&input));
            assert!(result.is_ok(), "{} breaks a promise", path.display());
            count += 1;
        }
        assert!(count >= 10, "{name} has only {count} inputs");
    }
}

/// Each is a program of its own, which has only its name to say.
#[test]
fn every_target_can_be_run() {
    let place: PathBuf = [env!("CARGO_MANIFEST_DIR"), "fuzz"].iter().collect();
    let manifest = std::fs::read_to_string(place.join("Cargo.toml")).expect("a manifest");
    for (name, _) in TARGETS {
        let path = format!("fuzz_targets/{name}.rs");
        let program = std::fs::read_to_string(place.join(&path)).expect("a program");
        let call = format!("remora_fuzz::run(\"{name}\", bytes)");
        assert!(program.contains(&call), "{program}");
        let table = format!("[[bin]]\nname = \"{name}\"\npath = \"{path}\"\n");
        assert!(manifest.contains(&table), "{name} is not in the manifest");
    }
    let programs = std::fs::read_dir(place.join("fuzz_targets")).expect("programs").count();
    assert_eq!(programs, TARGETS.len());
}

#[test]
fn nothing_and_anything_are_taken() {
    for (_, run) in TARGETS {
        run(b"");
        for byte in 0..=255 {
            run(&[byte; 64]);
        }
    }
}

/// Inputs that are refused at once would find nothing.
#[test]
fn kept_sections_are_read_to_their_ground() {
    let (mut probed, mut described, mut lines) = (0, 0, 0);
    for entry in std::fs::read_dir(corpus("sections")).expect("it is there") {
        let input = std::fs::read(entry.expect("it can be read").path()).expect("a file");
        let look = |program: &program::Program<'_>| program::look(program, program::Telling::Text);
        let found = sections::with(&input, look).expect("there are descriptors");
        assert!(found.text.lines().count() > 5, "{}", found.text);
        probed += found.plan.functions.len();
        described += found.described;
        lines += found.lines;
    }
    assert!(probed > 50 && described > 50 && lines > 100, "{probed} {described} {lines}");
}
