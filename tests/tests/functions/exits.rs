//! What is open when its process ends says how it ended.

use std::process::Command;

use remora_tests::compile::compile;
use remora_tests::spans::{SERVER, Span};
use remora_tests::{Scratch, is_root, until, wire};

use crate::scene::{ALL, Twice, Waiting, twice};

/// How it ends: by a path, and by a signal that it is sent besides.
struct End {
    path: &'static str,
    kill: Option<&'static str>,
    code: Option<i64>,
    signal: &'static str,
}

const ENDS: [End; 9] = [
    End { path: "/exit", kill: None, code: Some(3), signal: "" },
    End { path: "/now", kill: None, code: Some(4), signal: "" },
    End { path: "/well", kill: None, code: None, signal: "" },
    End { path: "/abort", kill: None, code: None, signal: "SIGABRT" },
    End { path: "/segv", kill: None, code: None, signal: "SIGSEGV" },
    End { path: "/waits", kill: Some("KILL"), code: None, signal: "SIGKILL" },
    End { path: "/waits", kill: Some("TERM"), code: None, signal: "SIGTERM" },
    // Another program's end says nothing of what this one has left.
    End { path: "/exec", kill: None, code: None, signal: "" },
    // The end of the last thread is not that of the process: it ended well with its first.
    End { path: "/first", kill: None, code: None, signal: "" },
];

/// The spans of a program that has answered a request and ended in another one.
fn spans(end: &End, functions: &[&str], options: &[&str]) -> Vec<Span> {
    let scratch = Scratch::new();
    let flags = ["-O1", "-pthread"];
    let Some(program) = compile(&scratch, "exceptions/exits.c", &flags) else { return Vec::new() };
    let mut command = Command::new(&program);
    command.current_dir(scratch.path());
    let ask = |program: &mut Waiting| {
        let port = program.port();
        assert!(wire::get(port, "/thread").contains("200"));
        let mut open = wire::Wire::to(port);
        open.send(format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", end.path).as_bytes());
        if let Some(signal) = end.kill {
            let asleep = format!("/proc/{}/syscall", program.pid());
            // pause(2)
            until("it to wait", || {
                std::fs::read_to_string(&asleep).ok().filter(|text| text.starts_with("34 "))
            });
            let mut kill = Command::new("kill");
            let sent = kill.arg(format!("-{signal}")).arg(program.pid().to_string()).status();
            assert!(sent.is_ok_and(|status| status.success()));
        }
        assert_eq!(open.rest(), "");
    };
    let options = [ALL, options].concat();
    let Twice { alone, shown, ended } = twice(&scratch, &mut command, ask, functions, &options);
    assert_eq!((shown.stderr, shown.status), (alone.stderr, alone.status));
    ended.spans
}

/// What a span says of its process's end.
fn said(span: &Span) -> (Option<i64>, &str) {
    (span.int("process.exit.code"), span.text("remora.process.exit.signal"))
}

#[test]
fn a_request_in_which_a_program_ends_says_how() {
    if !is_root() {
        return;
    }
    for end in &ENDS {
        let spans = spans(end, &[], &[]);
        let requests = || spans.iter().filter(|span| span.kind == SERVER);
        let [answered, open] = requests().collect::<Vec<_>>()[..] else { panic!("{spans:#?}") };
        let (answered, open) =
            if open.path() == end.path { (answered, open) } else { (open, answered) };
        assert_eq!((answered.path(), said(answered)), ("/thread", (None, "")), "{}", end.path);
        assert_eq!((open.path(), said(open)), (end.path, (end.code, end.signal)));
        assert_eq!(open.text("error.type"), "connection_closed", "{open:#?}");
    }
}

#[test]
fn calls_in_which_a_program_ends_say_how() {
    if !is_root() {
        return;
    }
    let functions = ["work", "other", "gone"];
    for end in ENDS.iter().filter(|end| end.path != "/waits") {
        let spans = spans(end, &functions, &["--exceptions"]);
        let of = |name: &str| {
            let found = spans.iter().filter(|span| span.text("code.function.name") == name);
            found.map(said).collect::<Vec<_>>()
        };
        // Of a thread that has ended before.
        assert_eq!(of("gone"), [(None, "")], "{}", end.path);
        assert_eq!(of("other"), [(None, "")], "{}", end.path);
        let mut work = of("work");
        work.sort();
        let mut expected = vec![(None, ""), (end.code, end.signal)];
        expected.sort();
        assert_eq!(work, expected, "{}", end.path);
        // Not when the process ended.
        let last = spans.iter().map(|span| span.end).max();
        let gone = spans.iter().find(|span| span.text("code.function.name") == "gone");
        assert!(gone.map(|span| span.end) < last, "{spans:#?}");
    }
}
