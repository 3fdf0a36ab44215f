//! What runtimes raise is told where it is raised: as often as it was, with its type and its message. The
//! programs do not notice.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use remora_tests::compile::compile;
use remora_tests::program::scripts;
use remora_tests::spans::{Event, SERVER, Span};
use remora_tests::{Scratch, is_root, servers, wire};

use crate::scene::{
    ALL_RAISED, Shown, Twice, Waiting, ended, go, probing, script, twice, wait_for_events,
};

/// How often, by type and message.
type Raised = BTreeMap<(String, String), u64>;

/// What a program says it has raised.
fn expected(shown: &Shown) -> Raised {
    let lines = shown.stdout.lines().filter_map(|line| line.strip_prefix("raised "));
    let line = |line: &str| {
        let mut fields = line.splitn(3, '\t');
        let count = fields.next()?.parse().ok()?;
        Some(((fields.next()?.to_owned(), fields.next()?.to_owned()), count))
    };
    lines.map(|text| line(text).unwrap_or_else(|| panic!("count, type, message: {text}"))).collect()
}

fn events(spans: &[Span]) -> impl Iterator<Item = &Event> {
    spans.iter().flat_map(|span| &span.events).filter(|event| event.name == "exception")
}

fn text<'a>(event: &'a Event, key: &str) -> &'a str {
    event.attributes.get(key).and_then(|value| value.as_str()).unwrap_or_default()
}

/// What spans say was raised; ends by a signal are not.
fn told(spans: &[Span]) -> Raised {
    let mut told = Raised::new();
    for event in events(spans) {
        let (name, message) = (text(event, "exception.type"), text(event, "exception.message"));
        if !name.starts_with("SIG") {
            *told.entry((name.to_owned(), message.to_owned())).or_default() += 1;
        }
    }
    told
}

/// Whether it is a call of a function.
fn is_call(span: &Span) -> bool {
    !span.text("code.function.name").is_empty()
}

/// A compiled program, whose exceptions lie within calls of these functions.
fn compiled(source: &str, flags: &[&str], functions: &[&str]) -> Option<Vec<Span>> {
    if !is_root() {
        return None;
    }
    let scratch = Scratch::new();
    let program = compile(&scratch, &format!("exceptions/{source}"), flags)?;
    let mut command = Command::new(&program);
    let Twice { alone, shown, ended } = twice(&scratch, &mut command, go, functions, ALL_RAISED);
    same(&shown, &alone);
    assert_eq!(told(&ended.spans), expected(&shown), "{:#?}", ended.log);
    assert!(ended.spans.iter().filter(|span| !span.events.is_empty()).all(is_call));
    Some(ended.spans)
}

/// The program did the same. A thread's id in what it says is another one each time.
fn same(probed: &Shown, alone: &Shown) {
    let steady = |text: &str| {
        let pieces = text
            .split('(')
            .map(|piece| piece.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned());
        pieces.collect::<Vec<_>>()
    };
    assert_eq!(probed.stdout, alone.stdout);
    assert_eq!(steady(&probed.stderr), steady(&alone.stderr));
    assert_eq!(probed.status, alone.status);
}

#[test]
fn cpp() {
    let Some(spans) = compiled("raise.cpp", &["-O2"], &["work", "outer"]) else { return };
    // What has left a call failed it.
    let failed = spans.iter().filter(|span| span.text("error.type") == "app::Deep");
    assert_eq!(failed.count(), 6, "three of each function");
}

#[test]
fn cpp_with_its_library_inside() {
    compiled("raise.cpp", &["-O1", "-static"], &["work", "outer"]);
}

/// They are read when they are missed, which takes a moment.
#[test]
fn cpp_with_names_that_are_in_no_memory() {
    if !is_root() {
        return;
    }
    for flags in [["-O2", "-pie"], ["-O2", "-no-pie"]] {
        let scratch = Scratch::new();
        let Some(program) = compile(&scratch, "exceptions/cold.cpp", &flags) else { return };
        let mut probed = Waiting::start(&scratch, "probed", &mut Command::new(&program));
        let agent = probing(&scratch, probed.pid(), &["work"], ALL_RAISED);
        probed.tell("go");
        wait_for_events(&scratch, 6);
        let shown = probed.end();
        let ended = ended(&scratch, agent);
        assert_eq!(shown.status.code(), Some(4));
        assert_eq!(told(&ended.spans), expected(&shown), "{:#?}", ended.log);
    }
}

/// Makes the symbols of an executable unreadable, but for those that it exports (`Elf64_Ehdr`,
/// `Elf64_Shdr`).
fn hide_symbols(program: &Path) {
    let mut bytes = std::fs::read(program).expect("it was compiled just now");
    let word = |bytes: &[u8], at: usize| {
        u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
    };
    let start = word(&bytes, 0x28) as usize;
    let count = usize::from(u16::from_le_bytes([bytes[0x3c], bytes[0x3d]]));
    let sections = (0..count).map(|number| start + 64 * number);
    let symbols: Vec<usize> = sections.filter(|at| bytes[at + 4..at + 8] == [2, 0, 0, 0]).collect();
    assert_eq!(symbols.len(), 1, "one table of symbols");
    // Its place becomes one that is not in the file.
    bytes[symbols[0] + 0x1c] = 0xff;
    std::fs::write(program, bytes).expect("it is ours");
}

#[test]
fn what_an_executable_exports_is_enough() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let flags = ["-O2", "-static-libstdc++", "-static-libgcc", "-rdynamic"];
    let Some(program) = compile(&scratch, "exceptions/raise.cpp", &flags) else { return };
    hide_symbols(&program);
    let mut probed = Waiting::start(&scratch, "probed", &mut Command::new(&program));
    let agent = probing(&scratch, probed.pid(), &["work"], &["--exceptions"]);
    probed.tell("go");
    let shown = probed.end();
    let ended = ended(&scratch, agent);
    let says = |text: &str| ended.log.iter().any(|line| line.contains(text));
    assert!(says(" functions=0 exceptions=3"), "{:#?}", ended.log);
    assert!(says("cannot look for functions"), "{:#?}", ended.log);
    // And the signal that ends it.
    let raised: u64 = expected(&shown).values().sum();
    assert_eq!(ended.count("remora_exceptions_outside_spans_total"), raised + 1);
}

#[test]
fn rust() {
    let Some(spans) = compiled("raise.rs", &["-Copt-level=2"], &["work"]) else { return };
    for event in events(&spans) {
        let place = text(event, "code.file.path");
        assert!(place.ends_with(".rs"), "{event:?}");
    }
}

#[test]
fn go_as_it_is() {
    compiled("raise.go", &[], &["main.work"]);
}

#[test]
fn go_of_a_position_independent_kind() {
    compiled("raise.go", &["-buildmode=pie"], &["main.work"]);
}

#[test]
fn go_stripped() {
    compiled("raise.go", &["-ldflags=-s -w"], &["main.work"]);
}

/// A script that answers one request, and raises its exceptions meanwhile.
fn answering(mut command: impl FnMut() -> Option<Command>) {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let Some(mut start) = command() else { return };
    let ask = |program: &mut Waiting| {
        let answer = wire::get(program.port(), "/");
        assert!(answer.contains("200"), "{answer}");
    };
    let Twice { alone, shown, ended } = twice(&scratch, &mut start, ask, &[], &["--exceptions"]);
    let without_port = |shown: &Shown| {
        let lines: Vec<_> = shown.stdout.lines().map(str::to_owned).collect();
        (lines.get(2..).map(<[_]>::to_vec), shown.stderr.clone(), shown.status)
    };
    assert_eq!(without_port(&shown), without_port(&alone));
    assert_eq!(told(&ended.spans), expected(&shown), "{:#?}", ended.log);
    assert!(ended.spans.iter().all(|span| span.kind == SERVER));
}

#[test]
fn python() {
    answering(|| script("python3", "raise.py"));
}

/// Those that set-up has fetched are stripped; from 3.13 on the function that raises has no name then.
#[test]
fn pythons_of_other_versions() {
    for version in ["3.9", "3.10", "3.12", "3.13", "3.14"] {
        answering(|| {
            let Some(interpreter) = servers::python(version) else {
                println!("skipped: needs Python {version} (cargo xtask setup)");
                return None;
            };
            let mut command = Command::new(interpreter);
            command.arg(scripts().join("functions/exceptions/raise.py"));
            Some(command)
        });
    }
}

#[test]
fn php() {
    answering(|| script("php", "raise.php"));
}

#[test]
fn ruby() {
    answering(|| script("ruby", "raise.rb"));
}

/// It is compiled as it starts.
#[test]
fn java() {
    answering(|| script("java", "Raise.java"));
}

#[test]
fn node() {
    answering(|| script("node", "raise.js"));
}

/// Nobody reads so many: what is left out is counted, and the program does not notice.
#[test]
fn a_storm_is_limited() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let Some(program) = compile(&scratch, "exceptions/storm.cpp", &["-O2"]) else { return };
    let (mut command, functions) = (Command::new(&program), &["work@rate=100000"]);
    let Twice { alone, shown, ended } = twice(&scratch, &mut command, go, functions, ALL_RAISED);
    same(&shown, &alone);
    let told = events(&ended.spans).count() as i64;
    let suppressed = events(&ended.spans)
        .filter_map(|event| event.attributes.get("remora.suppressed")?.as_i64())
        .sum::<i64>();
    println!("{told} told, {suppressed} left out before the last of them; {}", ended.done());
    // Windows of a second: as many as the windows that the program ran in, and no more than it raised.
    assert!(told >= 200 && told + suppressed <= 50_000, "{told} {suppressed}");
}

/// Names of functions, each with what is said of a call of it.
type Said = Vec<(String, String)>;

/// What a crash says: the event of each span that has one, and the spans that failed.
fn crash(args: &[&str]) -> Option<(Said, Said)> {
    if !is_root() {
        return None;
    }
    let scratch = Scratch::new();
    let program = compile(&scratch, "exceptions/crash.c", &["-O1", "-pthread"])?;
    let mut command = Command::new(&program);
    command.args(args).current_dir(scratch.path());
    let functions = &["work", "other", "waits"];
    let Twice { alone, shown, ended } = twice(&scratch, &mut command, go, functions, ALL_RAISED);
    same(&shown, &alone);
    let name = |span: &Span| span.text("code.function.name").to_owned();
    let mut told: Vec<_> = ended
        .spans
        .iter()
        .flat_map(|span| {
            let types = span.events.iter().map(|event| text(event, "exception.type").to_owned());
            types.map(|kind| (name(span), kind)).collect::<Vec<_>>()
        })
        .collect();
    let mut failed: Vec<_> = ended
        .spans
        .iter()
        .filter(|span| span.status == 2)
        .map(|span| {
            assert_eq!(span.text("remora.end.reason"), "exit", "{span:?}");
            (name(span), span.text("error.type").to_owned())
        })
        .collect();
    told.sort();
    failed.sort();
    Some((told, failed))
}

fn pairs(pairs: &[(&str, &str)]) -> Said {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn a_signal_that_ends_a_program_is_told() {
    for (how, name) in [("segv", "SIGSEGV"), ("abort", "SIGABRT"), ("fpe", "SIGFPE")] {
        let Some((told, failed)) = crash(&[how]) else { return };
        assert_eq!(told, pairs(&[("work", name)]));
        assert_eq!(failed, pairs(&[("work", name); 3]));
    }
}

#[test]
fn a_signal_is_told_of_the_thread_that_met_it() {
    let Some((told, failed)) = crash(&["segv", "thread"]) else { return };
    assert_eq!(told, pairs(&[("work", "SIGSEGV")]));
    let name = "SIGSEGV";
    assert_eq!(failed, pairs(&[("other", name), ("work", name), ("work", name)]), "not of `waits`");
}

#[test]
fn an_exit_is_no_error() {
    let Some((told, failed)) = crash(&["exit", "thread"]) else { return };
    assert_eq!((told, failed), (Vec::new(), Vec::new()));
}
