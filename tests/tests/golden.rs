//! Recordings of real traffic, replayed: the spans are those that were checked in, byte for byte.
//! After a wanted change, `UPDATE_EXPECT=1` writes them anew.

use std::path::Path;
use std::process::Command;

use remora_tests::Scratch;
use remora_tests::agent::{Agent, binary};
use remora_tests::spans::{self, SERVER, check_honest};

#[test]
fn recordings_give_their_spans() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings");
    let scratch = Scratch::new();
    let mut count = 0;
    for entry in std::fs::read_dir(&directory).expect("it is there").flatten() {
        let recording = entry.path();
        if recording.extension().is_none_or(|extension| extension != "remora") {
            continue;
        }
        count += 1;
        let file = scratch.file(&format!("{count}.jsonl"));
        let mut command = Command::new(binary());
        command.arg("replay").arg(&recording).arg("--file").arg(&file);
        let ended = Agent::start(&mut command).end();
        assert_eq!(
            (ended.code, ended.count("lost")),
            (Some(0), 0),
            "{recording:?} {:?}",
            ended.log
        );
        check_honest(&spans::read(&file));
        let expected = recording.with_extension("jsonl");
        let got = std::fs::read(&file).expect("it was written");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&expected, got).expect("the repository is writable");
            continue;
        }
        let wanted = std::fs::read(&expected).expect("checked in beside the recording");
        assert!(got == wanted, "{recording:?} gives other spans than {expected:?}");
    }
    assert!(count >= 3, "recordings are checked in");
}

/// What the headers of each tracing system name is the trace and the parent.
#[test]
fn trace_headers_are_honoured() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings/headers.jsonl");
    let spans = spans::read(&file);
    for (path, trace, parent) in [
        ("/w3c", "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"),
        ("/b3", "80f198ee56343ba864fe8b2a57d3eff7", "e457b5a2e4d86bd1"),
        ("/jaeger", "000000000000000080f198ee56343ba8", "e457b5a2e4d86bd1"),
        ("/xray", "5759e988bd862e3fe1be46a994272793", "53995c3f42cd8ad8"),
        ("/datadog", "0000000000000000112210f47de98115", "000000003ade68b1"),
    ] {
        let mine: Vec<_> = spans.iter().filter(|span| span.path() == path).collect();
        assert_eq!(mine.len(), 7, "{path}");
        assert!(mine.iter().all(|span| span.trace == trace), "{path} is one trace");
        let first = mine.iter().find(|span| span.service == "shop" && span.kind == SERVER);
        let first = first.expect("the shop is asked first");
        assert_eq!(first.parent.as_deref(), Some(parent), "{path}");
        assert_eq!(first.link(), "header exact");
        assert_eq!(first.flags & 0x300, 0x300, "the parent is elsewhere");
    }
}
