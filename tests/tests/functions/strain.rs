//! Many probes, many calls, and an agent that is killed in the middle of them.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use remora_tests::agent::{Agent, binary};
use remora_tests::compile::{compile, compile_file};
use remora_tests::kernel::{has_program, programs_of};
use remora_tests::program::scripts;
use remora_tests::{Scratch, is_root, spans, takes_its_time, until};

use crate::scene::{ALL, Hazard, Spans, Waiting, ended, probing, spans_by_function};

#[test]
fn a_program_that_reads_its_own_code_in_memory_sees_the_probes_and_nothing_once_they_are_gone() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let Some(program) = compile(&scratch, "hazards/text.c", &["-O2"]) else { return };
    let whiles = [("INT", "memory"), ("KILL", "memory"), ("INT", "mapped"), ("KILL", "mapped")];
    for (signal, how) in whiles {
        let mut command = Command::new(&program);
        let name = format!("{how}-{signal}");
        let mut probed = Waiting::start(&scratch, &name, command.arg(how));
        let agent = probing(&scratch, probed.pid(), &["work"], ALL);
        let programs = programs_of(agent.pid());
        probed.tell("go");
        let differ = until("its account", || {
            let text = probed.printed();
            let (_, count) = text.split_once("differ ")?;
            count.split_once('\n').map(|(count, _)| count.parse::<u64>().expect("a count"))
        });
        // The entry and at least one end; each is one byte, which the program has checked.
        assert!((2..10).contains(&differ), "{differ} bytes differ");
        agent.signal(signal);
        let ended = ended(&scratch, agent);
        assert_eq!(ended.code, if signal == "KILL" { None } else { Some(0) }, "{:#?}", ended.log);
        until("the programs' end", || programs.iter().all(|id| !has_program(*id)).then_some(()));
        probed.tell("again");
        let shown = probed.end();
        assert!(shown.stdout.ends_with("differ 0\ncalls work 1000\n"), "{}", shown.stdout);
        assert!(shown.status.success(), "{:?}", shown.status);
    }
}

#[test]
fn kills_while_a_function_is_called_all_the_time() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let Some(program) = compile(&scratch, "hazards/hot.c", &["-O2"]) else { return };
    let mut probed = Waiting::start(&scratch, "hot", Command::new(&program).arg("until"));
    probed.tell("go");
    let rounds = if takes_its_time() { 100 } else { 10 };
    for round in 0..rounds {
        let agent =
            probing(&scratch, probed.pid(), &["hot"], if round % 2 == 0 { ALL } else { &[] });
        let programs = programs_of(agent.pid());
        until("a span", || (!agent_spans(&scratch).is_empty()).then_some(()));
        agent.signal("KILL");
        drop(agent.end());
        until("the programs' end", || programs.iter().all(|id| !has_program(*id)).then_some(()));
        std::fs::remove_file(scratch.file("spans.jsonl")).expect("it was written");
    }
    probed.tell("enough");
    let shown = probed.end();
    assert!(shown.status.success() && shown.stdout.ends_with("right\n"), "{shown:?}");
}

fn agent_spans(scratch: &Scratch) -> String {
    std::fs::read_to_string(scratch.file("spans.jsonl")).unwrap_or_default()
}

#[test]
fn a_hot_function_is_left_alone_within_the_budget() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let Some(program) = compile(&scratch, "hazards/hot.c", &["-O2"]) else { return };
    let hazard = Hazard {
        source: "hazards/hot.c",
        flags: &[],
        args: &[],
        functions: &["hot"],
        spans: Spans::AtMost,
        options: &[],
    };
    let count = if takes_its_time() { "50000000" } else { "5000000" };
    let start = || {
        let mut command = Command::new(&program);
        command.arg(count);
        command
    };
    let (_, ended) = hazard.play(&scratch, start, |_| ());
    let spans = spans_by_function(&ended);
    let told = spans.get("hot").copied().unwrap_or_default();
    let suppressed: i64 = ended.spans.iter().filter_map(|span| span.int("remora.suppressed")).sum();
    println!("{told} spans, {suppressed} calls left out before them; {}", ended.done());
    assert!(told > 0 && told < count.parse().expect("a number"), "{told} spans");
    // Calls were left out, and a span says so, or the agent does.
    let says = ended.log.iter().any(|line| line.contains("hot"));
    assert!(suppressed > 0 || says, "{:#?}", ended.log);
}

/// A program with so many functions, and a table of them.
fn with_functions(scratch: &Scratch, count: usize, main: &str) -> Option<PathBuf> {
    let mut source = String::from(".text\n");
    for number in 0..count {
        let _ = write!(
            source,
            ".globl f{number}\n.type f{number}, @function\nf{number}:\n push %rbx\n \
             lea {number}(%rdi), %rax\n pop %rbx\n ret\n.size f{number}, .-f{number}\n"
        );
    }
    source.push_str(".section .data.rel.ro, \"aw\"\n.balign 8\n.globl functions\nfunctions:\n");
    for number in 0..count {
        let _ = writeln!(source, " .quad f{number}");
    }
    source.push_str(" .quad 0\n.section .note.GNU-stack, \"\", @progbits\n");
    let assembler = scratch.write("many.S", &source);
    let (object, program) = (scratch.file("many.o"), scratch.file("many"));
    if !compile_file(&assembler, &object, &["-c"]) {
        return None;
    }
    let object = object.to_string_lossy().into_owned();
    let main = scripts().join("functions/hazards").join(main);
    assert!(compile_file(&main, &program, &["-O2", &object]));
    Some(program)
}

/// Two hundred of twenty thousand functions that are called twenty thousand times each, or all of them two
/// hundred times: nobody knows before which those are.
#[test]
fn of_a_wide_pattern_the_hot_functions_cost_little_until_they_go() {
    if !is_root() {
        return;
    }
    const COUNT: u64 = 20_000;
    let scratch = Scratch::new();
    let Some(program) = with_functions(&scratch, COUNT as usize, "wide.c") else { return };
    for (rounds, stride) in [(20_000, 100), (200, 1)] {
        let file = scratch.file("wide.jsonl");
        let mut command = Command::new(binary());
        command.args(["exec", "--stats", "--functions", "f*", "--functions", "!functions"]);
        command.arg("--file").arg(&file).arg("--").arg(&program);
        let ended = Agent::start(command.args([rounds.to_string(), stride.to_string()])).end();
        let calls = rounds * COUNT / stride;
        assert!(ended.stdout.starts_with(&format!("calls {calls} ")), "{:#?}", ended.log);
        let detached = ended.count("remora_functions_detached_total");
        // What the target has paid for, by calls: it is left alone before it has made many of them.
        let told = spans::read(&file).len() as u64;
        let paid = told + ended.count("remora_calls_suppressed_total");
        println!("{paid} of {calls} calls were hits, {detached} functions went");
        assert!(paid < calls / 20, "{paid} of {calls} calls: {:#?}", ended.log);
        assert!(ended.log.iter().any(|line| line.contains("step by step")), "{:#?}", ended.log);
        std::fs::remove_file(&file).expect("it was read");
    }
}

#[test]
fn thousands_of_functions() {
    if !is_root() {
        return;
    }
    const COUNT: usize = 50_000;
    let scratch = Scratch::new();
    let Some(program) = with_functions(&scratch, COUNT, "many.c") else { return };
    let mut probed = Waiting::start(&scratch, "many", &mut Command::new(&program));
    // All of them, and then as many again of them as a narrower pattern means.
    let agent = probing(&scratch, probed.pid(), &["f*", "!functions"], ALL);
    probed.tell("go");
    until("its account", || probed.printed().contains("round 0 ").then_some(()));
    agent.signal("INT");
    let all = ended(&scratch, agent);
    assert_eq!((all.code, all.count("lost")), (Some(0), 0), "{:#?}", all.log);
    let spans = spans_by_function(&all);
    assert!(spans.len() >= COUNT, "{} functions: {:#?}", spans.len(), all.log);
    assert!((0..COUNT).all(|number| spans.get(format!("f{number}").as_str()) == Some(&1)));
    drop(spans);
    std::fs::remove_file(scratch.file("spans.jsonl")).expect("it was written");
    for round in 1..=if takes_its_time() { 5 } else { 2 } {
        let agent = probing(&scratch, probed.pid(), &["f1*"], ALL);
        probed.tell("go");
        let said = format!("round {round} ");
        until("its account", || probed.printed().contains(&said).then_some(()));
        agent.signal("INT");
        let ended = ended(&scratch, agent);
        println!("{}", ended.done());
        assert_eq!((ended.code, ended.count("lost")), (Some(0), 0), "{:#?}", ended.log);
        let spans = spans_by_function(&ended);
        // 1, 10 to 19, 100 to 199, and so on.
        assert_eq!(spans.len(), 11_111, "{:#?}", ended.log);
        assert!(spans.values().all(|calls| *calls == 1), "each is called once");
        std::fs::remove_file(scratch.file("spans.jsonl")).expect("it was written");
    }
    let shown = probed.end();
    assert!(shown.status.success(), "{shown:?}");
    let right = shown
        .stdout
        .lines()
        .filter(|line| line.starts_with("round"))
        .all(|line| line.ends_with(&format!(" sum {}", COUNT * (COUNT - 1) / 2)));
    assert!(right, "{}", shown.stdout);
}

#[test]
fn a_runtime_that_compiles_while_it_runs() {
    if !is_root() {
        return;
    }
    if Command::new("node").arg("--version").output().is_err() {
        println!("skipped: needs node (cargo xtask setup)");
        return;
    }
    let scratch = Scratch::new();
    let script = scripts().join("functions/hazards/timers.js");
    let start = || {
        let mut command = Command::new("node");
        command.arg(&script);
        command
    };
    let hazard = Hazard {
        source: "",
        flags: &[],
        args: &[],
        functions: &["*!uv_run", "*!uv_timer_start", "*!uv__*", "*!*GarbageCollect*"],
        spans: Spans::AtMost,
        options: ALL,
    };
    let (_, ended) = hazard.play(&scratch, start, |_| ());
    let spans = spans_by_function(&ended);
    println!("{spans:?}; {}", ended.done());
    assert!(spans.get("uv_timer_start").is_some_and(|count| *count >= 100), "{spans:?}");
}

#[test]
fn what_a_rate_leaves_out_is_counted_to_the_last_call() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let Some(program) = compile(&scratch, "hazards/plain.c", &["-O2", "-lpthread"]) else { return };
    let hazard = Hazard {
        source: "hazards/plain.c",
        flags: &[],
        args: &[],
        functions: &["work@rate=100/s", "step@rate=50/s"],
        spans: Spans::Counted,
        options: ALL,
    };
    let (shown, ended) = hazard.play(&scratch, || Command::new(&program), |_| ());
    let calls: u64 = shown.calls().values().sum();
    let told = ended.count("remora_call_spans_total");
    println!("{told} of {calls} calls; {}", ended.done());
    assert!(!ended.log.iter().any(|line| line.contains("not traced")), "{:#?}", ended.log);
    assert!(told >= 100 && told < calls / 2, "{told}");
    assert_eq!(told + ended.count("remora_calls_suppressed_total"), calls, "{}", ended.done());
}

#[test]
fn an_end_that_was_lost_is_noticed() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let Some(program) = compile(&scratch, "hazards/hot.c", &["-O2"]) else { return };
    let mut probed = Waiting::start(&scratch, "hot", Command::new(&program).arg("100000"));
    let options = ["--max-overhead", "10000%", "--ring-mib", "1"];
    let agent = probing(&scratch, probed.pid(), &["hot"], &options);
    agent.signal("STOP");
    probed.tell("go");
    // What it does is more than the ring holds, and its end comes last.
    let shown = probed.end();
    agent.signal("CONT");
    // Nothing is left to trace, so it ends by itself.
    let ended = ended(&scratch, agent);
    println!("{}", ended.done());
    assert!(shown.status.success(), "{shown:?}");
    assert_eq!(ended.code, Some(0), "{:#?}", ended.log);
    assert!(ended.count("events.ring_full") > 0, "{}", ended.done());
    assert_eq!(ended.count("remora_processes"), 0, "{}", ended.done());
    let calls = shown.calls()["hot"];
    let told = spans_by_function(&ended).get("hot").copied().unwrap_or_default();
    assert!(told < calls && told + ended.count("lost") >= calls, "{told} of {calls}");
}
