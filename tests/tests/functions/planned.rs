//! What would be attached is said beforehand, and what a configuration file asks for is understood.

use std::process::{Command, Output};

use remora_tests::agent::binary;
use remora_tests::compile::compile;
use remora_tests::{Scratch, is_root};
use serde_json::Value;

use crate::scene::Waiting;

fn remora(args: &[&str]) -> Output {
    Command::new(binary()).args(args).output().expect("it is built")
}

/// The rows of one kind: what they are about, and where.
fn rows(output: &Output, kind: &str, name: &str) -> Vec<(String, String, usize)> {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let rows = rows.filter(|row| row["kind"] == kind).map(|row| {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let offsets = row["offsets"].as_array().map_or(0, Vec::len);
        (text(name), text("module"), offsets)
    });
    rows.collect()
}

#[test]
fn everything_that_would_be_attached_is_listed() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let Some(program) = compile(&scratch, "hazards/throw.cpp", &["-O2"]) else { return };
    let waiting = Waiting::start(&scratch, "planned", &mut Command::new(&program));
    let pid = waiting.pid().to_string();
    let none = remora(&["plan", "--json", "--pid", &pid]);
    for kind in ["function", "exception", "usdt", "refused"] {
        assert_eq!(rows(&none, kind, "module"), [], "{kind}");
    }
    let programs = |output: &Output| -> Vec<String> {
        rows(output, "probe", "program").into_iter().map(|(name, _, _)| name).collect()
    };
    assert!(!programs(&none).contains(&"function_hit".to_owned()));
    let text = "functions = [\"main\", \"*!__cxa_get_globals\"]\nexceptions = true\n\
                usdt = \"libstdcxx:*\"\nmax-overhead = \"5%\"\n";
    let file = scratch.write("remora.toml", text);
    let file = file.to_str().expect("plain text");
    let all = remora(&["plan", "--json", "--pid", &pid, "--config", file]);
    let found = programs(&all);
    for program in ["function_hit", "signal_deliver"] {
        assert!(found.contains(&program.to_owned()), "{found:?}");
    }
    let functions = rows(&all, "function", "function");
    let has = |rows: &[(String, String, usize)], name: &str, module: &str, least: usize| {
        rows.iter().any(|(found, file, places)| {
            found == name && file.starts_with(module) && *places >= least
        })
    };
    assert!(has(&functions, "main", "throw", 2), "{functions:?}");
    assert!(has(&functions, "__cxa_get_globals", "libstdc++", 2), "{functions:?}");
    let exceptions = rows(&all, "exception", "function");
    assert!(has(&exceptions, "__cxa_throw", "libstdc++", 1), "{exceptions:?}");
    let tracepoints = rows(&all, "usdt", "tracepoint");
    assert!(has(&tracepoints, "libstdcxx:throw", "libstdc++", 1), "{tracepoints:?}");
    // The same for people, and nothing has happened.
    let shown = remora(&["plan", "--pid", &pid, "--config", file]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for text in ["function_hit", "main", "__cxa_throw", "libstdcxx:throw", "nothing was attached"] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
}

#[test]
fn what_is_wrong_in_a_file_is_said() {
    let scratch = Scratch::new();
    let pid = std::process::id().to_string();
    for (text, told) in [
        ("functions = \"a@bogus\"", "option `bogus`"),
        ("functions = [\"!a\"]", "nothing is left of `!a`"),
        ("usdt = \"a:b@x\"", "cannot use `a:b@x` for --usdt"),
        ("exceptions = \"yes\"", "'--exceptions'"),
        ("max-overhead = \"0\"", "cannot use `0` for --max-overhead"),
        ("max-overhead = [1, 2]", "'--max-overhead <PERCENT>'"),
        ("max_overhead = 2", "--max-overhead"),
        ("function = \"a\"", "--functions"),
        ("functions = [[\"a\"]]", "list of something else under `functions`"),
        ("debuginfod = true", "DEBUGINFOD_URLS"),
    ] {
        let file = scratch.write("wrong.toml", text);
        let file = file.to_str().expect("plain text");
        let mut command = Command::new(binary());
        command.args(["plan", "--pid", &pid, "--config", file]).env_remove("DEBUGINFOD_URLS");
        let output = command.output().expect("it is built");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}: {said}");
        assert!(said.contains(told), "{text}: {said}");
    }
}
