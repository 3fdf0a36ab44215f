//! Whether an exception was caught is told where that is certain; and a request whose handler one has left
//! has failed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use remora_tests::agent::Ended;
use remora_tests::compile::{compile, compile_java};
use remora_tests::program::scripts;
use remora_tests::spans::{SERVER, Span};
use remora_tests::{Scratch, is_root, servers, wire};
use serde_json::Value;

use crate::scene::{ALL_RAISED, Shown, Twice, Waiting, go, script, twice};

/// How often, by message and fate.
type Fates = BTreeMap<(String, String), u64>;

/// What a program says becomes of what it raises.
fn expected(shown: &Shown) -> Fates {
    let lines = shown.stdout.lines().filter_map(|line| line.strip_prefix("fate "));
    let line = |line: &str| {
        let mut fields = line.splitn(3, '\t');
        let count: u64 = fields.next()?.parse().ok()?;
        Some(((fields.next()?.to_owned(), fields.next()?.to_owned()), count))
    };
    let mut expected = Fates::new();
    for text in lines {
        let (fate, count) = line(text).unwrap_or_else(|| panic!("count, message, fate: {text}"));
        *expected.entry(fate).or_default() += count;
    }
    expected
}

/// What spans say of it.
fn told(spans: &[Span]) -> Fates {
    let mut told = Fates::new();
    for event in spans.iter().flat_map(|span| &span.events) {
        let message = event.attributes.get("exception.message").and_then(Value::as_str);
        let fate = match event.attributes.get("remora.exception.caught").and_then(Value::as_bool) {
            Some(true) => "caught",
            Some(false) => "not caught",
            None => "-",
        };
        *told.entry((message.unwrap_or_default().to_owned(), fate.to_owned())).or_default() += 1;
    }
    told
}

/// Without what differs each time: threads' ids and addresses.
fn steady(text: &str) -> String {
    let without = |text: &str, before: &str, kind: fn(char) -> bool| -> String {
        text.split(before).map(|piece| piece.trim_start_matches(kind)).collect()
    };
    let text = without(text, "(", |c| c.is_ascii_digit());
    let text = without(&text, "0x", |c| c.is_ascii_hexdigit());
    // Addresses are as wide as they are.
    text.split_whitespace().collect()
}

/// A compiled program that says what becomes of its exceptions, and its spans.
fn compiled(source: &str, flags: &[&str], args: &[&str], functions: &[&str]) -> Option<Vec<Span>> {
    if !is_root() {
        return None;
    }
    let scratch = Scratch::new();
    let program = compile(&scratch, &format!("exceptions/{source}"), flags)?;
    let mut command = Command::new(&program);
    // Addresses in stacks are others each time.
    command.args(args).current_dir(scratch.path()).env_remove("RUST_BACKTRACE");
    let Twice { alone, shown, ended } = twice(&scratch, &mut command, go, functions, ALL_RAISED);
    assert_eq!(shown.stdout, alone.stdout);
    assert_eq!(steady(&shown.stderr), steady(&alone.stderr));
    assert_eq!(shown.status, alone.status);
    assert_eq!(told(&ended.spans), expected(&shown), "{:#?}", ended.log);
    Some(ended.spans)
}

/// The functions that failed without having returned, each with its error.
fn ended_by(spans: &[Span]) -> Vec<(String, String)> {
    let is_it = |span: &&Span| span.text("remora.end.reason") == "exit" && span.status == 2;
    let mut found: Vec<_> = spans
        .iter()
        .filter(is_it)
        .map(|span| [span.text("code.function.name"), span.text("error.type")].map(str::to_owned))
        .map(|[name, error]| (name, error))
        .collect();
    found.sort();
    found
}

const CPP: [&str; 5] = ["work", "inner", "last", "fenced", "attempt"];

#[test]
fn cpp() {
    for (how, fate) in [("throw", "not caught"), ("thread", "not caught"), ("rethrow", "caught")] {
        let flags = ["-O2", "-pthread"];
        let Some(spans) = compiled("fates.cpp", &flags, &[how, fate], &CPP) else { return };
        let last = pair("last", "app::Last");
        let expected = if fate == "caught" { Vec::new() } else { vec![last] };
        assert_eq!(ended_by(&spans), expected, "{how}");
    }
}

#[test]
fn cpp_out_of_a_function_that_lets_none_out() {
    compiled("fates.cpp", &["-O2", "-pthread"], &["noexcept", "-"], &CPP);
    let flags = ["-O2", "-pthread", "-static"];
    compiled("fates.cpp", &flags, &["noexcept", "not caught"], &CPP);
}

fn pair(a: &str, b: &str) -> (String, String) {
    (a.to_owned(), b.to_owned())
}

#[test]
fn rust() {
    compiled("fates.rs", &["-Copt-level=2"], &[], &["work"]);
}

/// What it has printed behind its port.
fn behind_port(shown: &Shown) -> Vec<&str> {
    shown.stdout.lines().skip(2).collect()
}

/// A Go program that has answered some requests, and ended.
fn go_program(how: &str, functions: &[&str]) -> Option<Ended> {
    if !is_root() {
        return None;
    }
    let scratch = Scratch::new();
    let program = compile(&scratch, "exceptions/fates.go", &[])?;
    let mut command = Command::new(&program);
    command.arg(how);
    let ask = |program: &mut Waiting| {
        let port = program.port();
        for path in ["/recovers", "/leaves", "/half", "/aborts", "/fails", "/ends"] {
            let answer = wire::get(port, path);
            let first = answer.lines().next().unwrap_or_default();
            let expected = match path {
                "/recovers" | "/half" => "HTTP/1.1 200 OK",
                "/fails" => "HTTP/1.1 500 Internal Server Error",
                _ => "",
            };
            assert_eq!(first, expected, "{path}: {answer}");
        }
    };
    let Twice { alone, shown, ended } = twice(&scratch, &mut command, ask, functions, ALL_RAISED);
    assert_eq!(behind_port(&shown), behind_port(&alone));
    assert_eq!(shown.status, alone.status);
    assert_eq!(told(&ended.spans), expected(&shown), "{:#?}", ended.log);
    Some(ended)
}

/// The requests by their paths: the status of the answer, and why they failed.
fn requests(spans: &[Span]) -> Vec<(String, Option<i64>, String)> {
    let requests = spans.iter().filter(|span| span.kind == SERVER);
    let said = requests.map(|span| {
        assert_eq!(span.status == 2, !span.text("error.type").is_empty(), "{span:?}");
        let status = span.int("http.response.status_code");
        (span.path().to_owned(), status, span.text("error.type").to_owned())
    });
    let mut said: Vec<_> = said.collect();
    said.sort();
    said
}

#[test]
fn go_requests_that_a_panic_has_left_have_failed() {
    let Some(ended) = go_program("throw", &[]) else { return };
    let error = "*errors.errorString";
    let expected = [
        ("/aborts", None, error),
        ("/ends", None, "fatal error"),
        // Its answer says why.
        ("/fails", Some(500), "500"),
        ("/half", Some(200), error),
        ("/leaves", None, error),
        ("/recovers", Some(200), ""),
    ];
    let expected =
        expected.map(|(path, status, error)| (path.to_owned(), status, error.to_owned()));
    assert_eq!(requests(&ended.spans), expected, "{:#?}", ended.log);
}

#[test]
fn go_panics_in_functions() {
    let Some(ended) = go_program("panic", &["main.work"]) else { return };
    // The last one ends the program.
    assert_eq!(ended_by(&ended.spans), [pair("main.work", "*errors.errorString")]);
}

/// A script that answers one request, and ends within the next one with what nobody has caught.
fn ending(interpreter: &str, name: &str) -> Option<Vec<Span>> {
    let (shown, ended) = ends_within(script(interpreter, name)?, &["/ends"])?;
    assert_eq!(told(&ended.spans), expected(&shown), "{:#?}", ended.log);
    Some(ended.spans)
}

/// A script that answers one request and does not answer these.
fn ends_within(mut start: Command, unanswered: &[&str]) -> Option<(Shown, Ended)> {
    if !is_root() {
        return None;
    }
    let scratch = Scratch::new();
    let ask = |program: &mut Waiting| {
        let port = program.port();
        let answer = wire::get(port, "/answers");
        assert!(answer.contains("200"), "{answer}");
        for path in unanswered {
            assert_eq!(wire::get(port, path), "", "{path}");
        }
    };
    let Twice { alone, shown, ended } = twice(&scratch, &mut start, ask, &[], &["--exceptions"]);
    assert_eq!(behind_port(&shown), behind_port(&alone));
    assert_eq!(shown.stderr, alone.stderr);
    assert_eq!(shown.status, alone.status);
    Some((shown, ended))
}

/// The request during which it has ended has failed with what has ended it.
fn check_end(spans: &[Span], error: &str) {
    let expected = [("/answers", Some(200), ""), ("/ends", None, error)];
    let expected =
        expected.map(|(path, status, error)| (path.to_owned(), status, error.to_owned()));
    assert_eq!(requests(spans), expected);
}

#[test]
fn php() {
    let Some(spans) = ending("php", "fates.php") else { return };
    check_end(&spans, "RuntimeException");
}

/// What has ended a thread or the program has failed the request that it served.
fn python(interpreter: impl AsRef<OsStr>) {
    let mut command = Command::new(interpreter);
    command.arg(scripts().join("functions/exceptions/fates.py"));
    let unanswered = ["/thread", "/value", "/ends"];
    let Some((shown, ended)) = ends_within(command, &unanswered) else { return };
    let expected = expected(&shown);
    let mut told = told(&ended.spans);
    // To write a traceback raises some more.
    told.retain(|(message, fate), _| {
        let is_own = expected.keys().any(|(own, _)| own == message);
        assert!(is_own || fate == "-", "{message}: {fate}");
        is_own
    });
    assert_eq!(told, expected, "{:#?}", ended.log);
    let request = |path: &str, status, error: &str| (path.to_owned(), status, error.to_owned());
    let expected = [
        request("/answers", Some(200), ""),
        request("/ends", None, "RuntimeError"),
        request("/thread", None, "RuntimeError"),
        request("/value", None, "IndexError"),
    ];
    assert_eq!(requests(&ended.spans), expected);
}

#[test]
fn python_as_it_is() {
    python("python3");
}

#[test]
fn pythons_of_other_versions() {
    for version in ["3.9", "3.10", "3.12", "3.13", "3.14"] {
        match servers::python(version) {
            Some(interpreter) => python(interpreter),
            None => println!("skipped: needs Python {version} (cargo xtask setup)"),
        }
    }
}

#[test]
fn node() {
    let Some(spans) = ending("node", "fates.js") else { return };
    check_end(&spans, "Error");
}

/// What the interpreter handles is known, whoever has thrown it; what compiled code handles has a message.
/// `caught` is what is told of what is caught.
fn java(jdk: &Path, options: &[&str], caught: &str) {
    let Some((shown, ended)) = java_ends(jdk, options, caught) else { return };
    assert_eq!(told(&ended.spans), expected(&shown), "{jdk:?} {options:?}: {:#?}", ended.log);
    let request = |path: &str, status, error: &str| (path.to_owned(), status, error.to_owned());
    let expected = [
        request("/answers", Some(200), ""),
        request("/ends", None, "Fates$Rich"),
        request("/thread", None, "java.lang.IllegalStateException"),
    ];
    assert_eq!(requests(&ended.spans), expected);
}

/// The program's account and the agent's; `None` without root.
fn java_ends(jdk: &Path, options: &[&str], caught: &str) -> Option<(Shown, Ended)> {
    if !is_root() {
        return None;
    }
    let scratch = Scratch::new();
    let classes = compile_java(&scratch, "exceptions/Fates.java")?;
    let mut command = Command::new(jdk);
    command.args(options).arg("-cp").arg(&classes).args(["Fates", caught]);
    ends_within(command, &["/thread", "/ends"])
}

/// As objects are moved in one way or another, and refer to others by four bytes or eight.
#[test]
fn java_as_it_is() {
    for jdk in servers::jdks() {
        for options in [&[][..], &["-XX:+UseSerialGC", "-XX:-UseCompressedOops"]] {
            java(&jdk, options, "caught");
        }
    }
}

/// And by four bytes that are shifted.
#[test]
fn java_with_short_headers() {
    // Other versions have none.
    let flags = ["-XX:+IgnoreUnrecognizedVMOptions", "-XX:+UseCompactObjectHeaders"];
    for jdk in servers::jdks() {
        java(&jdk, &[&flags[..], &["-XX:+UseParallelGC", "-Xmx5g"]].concat(), "caught");
    }
}

const COMPILED: [&str; 3] =
    ["-XX:CompileCommand=quiet", "-XX:CompileCommand=compileonly,Fates::*", "-Xcomp"];

#[test]
fn java_that_is_compiled() {
    for jdk in servers::jdks() {
        java(&jdk, &[&COMPILED[..], &["-XX:TieredStopAtLevel=1"]].concat(), "-");
    }
}

/// What the second compiler's code handles within itself is not seen to be thrown. What is told is true.
#[test]
fn java_that_is_compiled_into_one() {
    for jdk in servers::jdks() {
        let options = [&COMPILED[..], &["-XX:-TieredCompilation"]].concat();
        let Some((shown, ended)) = java_ends(&jdk, &options, "-") else { return };
        let (told, expected) = (told(&ended.spans), expected(&shown));
        let is_true = |((message, fate), count): (&(String, String), &u64)| {
            let most = expected.get(&pair(message, fate)).copied().unwrap_or_default();
            message.is_empty() && fate == "-" || *count <= most
        };
        assert!(told.iter().all(is_true), "{told:#?} {expected:#?}");
        for ends in ["of a thread", "the end"] {
            assert_eq!(told.get(&pair(ends, "not caught")), Some(&1), "{told:#?}");
        }
    }
}

/// Where objects are moved while the program runs, none is known again: nothing is said of it but its
/// class.
#[test]
fn java_whose_objects_are_not_known_again() {
    for jdk in servers::jdks() {
        let Some((shown, ended)) = java_ends(&jdk, &["-XX:+UseZGC"], "caught") else { return };
        let count = expected(&shown).values().sum();
        assert_eq!(told(&ended.spans), Fates::from([(pair("", "-"), count)]), "{:#?}", ended.log);
    }
}
