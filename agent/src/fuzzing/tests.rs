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
        let found = sections::with(&input, program::look).expect("there are descriptors");
        probed += found.plan.functions.len();
        described += found.described;
        lines += found.lines;
    }
    assert!(probed > 50 && described > 50 && lines > 100, "{probed} {described} {lines}");
}
