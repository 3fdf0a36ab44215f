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
