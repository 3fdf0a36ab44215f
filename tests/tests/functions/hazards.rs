//! What kills or corrupts a program when probes are placed without thought, one row each.

use remora_tests::agent::{Agent, binary};
use remora_tests::compile::compile;
use remora_tests::{Scratch, is_root, until};
use std::process::Command;

use crate::scene::{ALL, Hazard, Spans, Waiting, ended, probing, spans_by_function};

/// A test for each row: its name, its source and how that is compiled, its arguments, what is probed,
/// and the spans that come of it.
macro_rules! hazards {
    ($($(#[doc = $why:literal])*
        $name:ident: $source:literal $flags:expr, $args:expr, $functions:expr, $spans:ident
        $(, $options:expr)?;)+) => {$(
        $(#[doc = $why])*
        #[test]
        fn $name() {
            play(&Hazard {
                source: concat!("hazards/", $source),
                flags: &$flags,
                args: &$args,
                functions: &$functions,
                spans: Spans::$spans,
                options: [ALL $(, $options)?].last().expect("one at least"),
            });
        }
    )+};
}

/// Compiles it and plays it.
fn play(hazard: &Hazard) {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let Some(program) = compile(&scratch, hazard.source, hazard.flags) else { return };
    let start = || {
        let mut command = Command::new(&program);
        command.args(hazard.args).current_dir(scratch.path());
        command
    };
    let (_, ended) = hazard.play(&scratch, start, |_| ());
    println!("{}", ended.done());
}

/// A program that translates the code of the libraries that it maps would take a probe for an instruction:
/// one that is known to do so has none there. Any other sees them.
#[test]
fn what_translates_libraries_finds_no_probes_in_them() {
    if !is_root() {
        return;
    }
    for (name, is_spared) in [("text", false), ("valgrind", true)] {
        let scratch = Scratch::new();
        let Some(compiled) = compile(&scratch, "hazards/text.c", &[O2]) else { return };
        let program = compiled.with_file_name(name);
        std::fs::rename(&compiled, &program).expect("both are in one directory");
        let mut command = Command::new(program);
        let mut probed = Waiting::start(&scratch, "probed", command.arg("library"));
        let agent = probing(&scratch, probed.pid(), &["libc.so.6!malloc", "work"], ALL);
        probed.tell("go");
        probed.tell("go");
        let shown = probed.end();
        let ended = ended(&scratch, agent);
        let said = ended.log.iter().any(|line| line.contains("libraries are not probed here"));
        let is_same = shown.stdout.lines().any(|line| line == "differ 0");
        assert_eq!((is_same, said), (is_spared, is_spared), "{shown:?} {:#?}", ended.log);
        // Its own code is not what it translates.
        let spans = spans_by_function(&ended);
        assert_eq!(spans.get("work"), shown.calls().get("work"), "{:#?}", ended.log);
    }
}

/// What copies its own code copies the probes in it, of which the kernel knows nothing there: it ends by SIGTRAP.
#[test]
fn what_moves_its_own_code_has_no_probes_in_it() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let script = "process.stdin.once('data', () => {
        for (let n = 0; n < 100; ++n) try { null.x } catch (error) { if (!n) console.log(error.message) }
        process.exit(3)
    }); console.log('ready')";
    let start = |name: &str, options: &[&str]| {
        Waiting::start(&scratch, name, Command::new("node").args(options).args(["-e", script]))
    };
    let end = |mut waiting: Waiting| {
        waiting.tell("go");
        waiting.end()
    };
    let moving = ["--use-largepages=silent"];
    let alone = end(start("alone", &moving));
    assert_eq!(alone.status.code(), Some(3), "{alone:?}");
    // From its first instruction on.
    let mut command = Command::new(binary());
    command.args(["exec", "--exceptions", "--file", "/dev/null", "--", "sh", "-c"]);
    let line = "echo | node --use-largepages=silent -e \"$0\"";
    command.args([&format!("{line}; echo $?"), script]);
    let started = Agent::start(&mut command).end();
    assert_eq!(started.stdout, format!("{}3\n", alone.stdout), "{:#?}", started.log);
    let said = started.log.iter().any(|line| line.contains("moves its own code"));
    assert!(said, "{:#?}", started.log);
    // Beside one that is probed.
    let traced = start("traced", &[]);
    let agent = probing(&scratch, traced.pid(), &[], &["--exceptions", "--follow"]);
    assert_eq!(end(start("beside", &moving)), alone);
    assert_eq!(end(traced), alone);
    let ended = ended(&scratch, agent);
    assert_eq!(ended.code, Some(0), "{:#?}", ended.log);
}

/// The kernel takes a debugger's breakpoint for the probe that is there, and the program never stops.
#[test]
fn what_a_debugger_holds_stops_at_its_breakpoints() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let Some(program) = compile(&scratch, "hazards/debugged.c", &[O2]) else { return };
    // The one that is held is probed, or the debugger, which runs the same file, with its children or without.
    for (is_probed, options) in [(true, ALL), (false, ALL), (false, &[ALL, &["--follow"]].concat())]
    {
        let mut debugger = Waiting::start(&scratch, "debugger", &mut Command::new(&program));
        let child = until("the child's id", || {
            let printed = debugger.printed();
            printed.strip_prefix("ready\nchild ")?.strip_suffix('\n')?.parse().ok()
        });
        let probed = if is_probed { child } else { debugger.pid() };
        let agent = probing(&scratch, probed, &["work"], options);
        debugger.tell("go");
        let shown = debugger.end();
        let ended = ended(&scratch, agent);
        assert!(shown.stdout.ends_with("\nstops 20 of 20\n"), "{shown:?} {:#?}", ended.log);
        let said = ended.log.iter().any(|line| line.contains("a debugger holds it"));
        assert_eq!(said, is_probed || options != ALL, "{:#?}", ended.log);
        assert_eq!((ended.code, ended.spans.len()), (Some(0), 0), "{:#?}", ended.log);
    }
}

/// Probes in a program's file are in all who run it.
#[test]
fn code_that_another_process_has_rewritten_is_not_probed() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let Some(program) = compile(&scratch, "hazards/rewritten.c", &[O2]) else { return };
    let start = |name: &str, args: &[&str]| {
        Waiting::start(&scratch, name, Command::new(&program).args(args))
    };
    let end = |mut waiting: Waiting| {
        waiting.tell("go");
        waiting.end()
    };
    let alone = end(start("alone", &[]));
    let untraced = start("untraced", &[]);
    let traced = start("traced", &["plain"]);
    let agent = probing(&scratch, traced.pid(), &["patched", "led", "work"], FOLLOW);
    assert_eq!(end(untraced), alone);
    let shown = end(traced);
    let ended = ended(&scratch, agent);
    let spans = spans_by_function(&ended);
    assert_eq!(spans.get("work"), shown.calls().get("work"), "{:#?}", ended.log);
    assert_eq!((spans.get("patched"), spans.get("led")), (None, None), "{:#?}", ended.log);
    assert!(ended.log.iter().any(|line| line.contains("in memory")), "{:#?}", ended.log);
}

const O2: &str = "-O2";

hazards! {
    /// An exception that unwinds through a return probe by trampoline aborts the program.
    cpp_exceptions: "throw.cpp" [O2, "-g"], [], ["inner", "middle", "outer"], Exact;
    /// The same at every level of optimisation: frames, cleanups and cold parts are laid out differently.
    cpp_exceptions_unoptimised: "throw.cpp" ["-O0"], [], ["inner", "middle", "outer"], Exact;
    cpp_exceptions_size: "throw.cpp" ["-Os"], [], ["inner", "middle", "outer"], Exact;
    /// As above, for panics.
    rust_panics: "catch.rs" ["-Copt-level=2", "-g"], [], ["may_panic", "passes_on"], Exact;
    rust_panics_unoptimised: "catch.rs" [], [], ["may_panic", "passes_on"], Exact;
    /// A Go stack is copied when it grows, return addresses and all, and its collector walks it.
    go_stacks: "stacks.go" [], [], ["main.down", "main.work", "main.risk"], Exact;
    go_stacks_stripped: "stacks.go"
        ["-ldflags=-s -w"], [], ["main.down", "main.work", "main.risk"], Exact;
    /// A probe on the five-byte NOP may become a call, which writes into the red zone.
    five_byte_nops: "nop5.c" [O2], [], ["leaf", "red"], AllOrNone, FOLLOW;
    /// Children inherit the probes, and a program may become another one.
    processes: "processes.c" [O2, "-g"], [], ["work"], AtMost, FOLLOW;
    processes_not_followed: "processes.c" [O2], [], ["work"], AtMost;
    /// Return probes by trampoline stop at 64 nested calls.
    deep_recursion: "recursion.c" [O2, "-g"], [], ["down"], Exact;
    deep_recursion_unoptimised: "recursion.c" ["-O0"], [], ["down"], Exact;
    /// With `endbr64` in front of every function.
    deep_recursion_cet: "recursion.c" [O2, "-fcf-protection=full"], [], ["down"], Exact;
    /// A jump in place of a call and a return.
    tail_calls: "tail.c" [O2, "-g"], [], ["first", "second", "third", "is_even", "is_odd"], Exact;
    tail_calls_cet: "tail.c"
        [O2, "-fcf-protection=full", "-no-pie"],
        [], ["first", "second", "third", "is_even", "is_odd"], Exact;
    /// Jumps in place of a call and a return that are taken only if a condition holds.
    conditional_tail_calls: "conditional.c" [O2],
        [], ["short_*", "near_*", "hot", "after", "met", "down", "bottom", "even", "odd", "to_hidden",
            "choose", "checks", "runs", "copies"], Exact;
    /// The same with none of what they jump into probed.
    conditional_tail_calls_alone: "conditional.c" [O2],
        ["alone"], ["short_?", "short_??", "near_?", "near_??", "hot", "down", "even", "to_hidden", "choose",
            "checks"], Exact;
    /// Functions of one instruction: one probe is their entry and their end.
    single_instructions: "single.cpp" [O2, "-g", "-lpthread"],
        [], ["nothing", "marked", "pops", "onwards", "marked_onwards", "elsewhere", "to_nothing",
            "by_pointer", "to_throw", "handler", "adds", "throws"], Exact;
    /// The same with none of what they jump into probed.
    single_instructions_alone: "single.cpp" ["-O0", "-lpthread", "-no-pie"],
        ["alone"], ["nothing", "marked", "pops", "onwards", "marked_onwards", "elsewhere", "to_nothing",
            "by_pointer", "to_throw", "handler"], Exact;
    /// Jumps by tables of functions, of which none leads into the function itself.
    tables_of_functions: "by_table.c" [O2, "-fPIE", "-pie"],
        [], ["by_constant", "by_structure", "by_changing", "by_object", "within", "even", "odd"], Exact;
    tables_of_functions_not_pie: "by_table.c" [O2, "-no-pie", "-fno-pie", "-s", "-rdynamic"],
        [], ["by_constant", "by_structure", "by_changing", "by_object", "within", "even", "odd"], AllOrNone;
    /// Frames that never return.
    long_jumps: "jump.c" [O2], [], ["hop", "leap"], Exact;
    threads: "threads.c" [O2, "-lpthread"], [], ["leave", "wait_here", "work"], Exact;
    /// Signals in the middle of an instruction that is stepped over, and on another stack.
    signals: "signals.c" [O2], [], ["busy", "fault", "tally"], Exact;
    signals_unoptimised: "signals.c" ["-O0"], [], ["busy", "fault", "tally"], Exact;
    /// Stacks that the kernel knows nothing of.
    fibres: "fibres.c" [O2, "-lpthread"], [], ["inner", "outer"], Exact;
    /// A trampoline is a system call from a place that the program has not allowed.
    syscall_user_dispatch: "dispatch.c" [O2], [], ["step", "plain"], Exact;
    seccomp_strict: "confined.c" [O2], ["strict"], ["work", "refused"], Exact;
    seccomp_kill: "confined.c" [O2], ["kill"], ["work", "refused"], Exact;
    seccomp_errno: "confined.c" [O2], ["errno"], ["work", "refused"], Exact;
    seccomp_trap: "confined.c" [O2], ["trap"], ["work", "refused"], Exact;
    /// A trampoline on the stack ends a backtrace.
    backtraces: "frames.c" [O2, "-g"], [], ["look", "nest"], Exact;
    backtraces_frame_pointers: "frames.c"
        [O2, "-fno-omit-frame-pointer"], [], ["look", "nest"], Exact;
    /// Bytes that look like instructions and are data.
    tables: "tables.c" [O2], [], ["lookup", "behind", "constant", "choose", "compute"], AllOrNone;
    tables_pie: "tables.c"
        ["-O3", "-fPIE", "-pie"],
        [], ["lookup", "behind", "constant", "choose", "compute"], AllOrNone;
    /// Functions without a return of their own.
    return_thunks_elsewhere: "thunks.c"
        [O2, "-mfunction-return=thunk-extern", "-DEXTERN", "-fcf-protection=none"],
        [], ["work", "choose"], Exact;
    return_thunks: "thunks.c"
        [O2, "-mfunction-return=thunk", "-mindirect-branch=thunk", "-fcf-protection=none"],
        [], ["work", "choose"], Exact;
    return_thunks_inline: "thunks.c"
        [O2, "-mfunction-return=thunk-inline", "-mindirect-branch=thunk-inline", "-fcf-protection=none"],
        [], ["work", "choose"], AllOrNone;
    /// The file of a program is as it was.
    own_file: "text.c" [O2], ["file"], ["work"], Exact;
    /// One instruction that the kernel refuses must not cost the others.
    refused_instructions: "refused.c"
        [O2],
        [], ["locked", "longnop", "relative", "looping", "calling", "flags", "stacked",
            "repeated", "returning", "waiting", "trapping", "restoring", "repeating", "plain"], AllOrNone;
    /// What a probe reads may not be there.
    bad_pointers: "pointers.c" [O2, "-g"], [], ["take", "walk", "end"], Exact;
    bad_pointers_unoptimised: "pointers.c" ["-O0", "-g"], [], ["take", "walk", "end"], Exact;
    /// Code that is changed beside a probe.
    patched_code: "patches.c" [O2], [], ["patched", "work"], AllOrNone;
    /// Code that is dropped and read anew loses its probes.
    dropped_code: "patches.c" [O2], ["again"], ["work"], AtMost;
    /// What is in the file is not what runs: the kernel would run the former.
    relocated_code: "relocated.c" [O2, "-fPIE", "-pie", "-Wl,-z,notext"],
        [], ["read_datum", "jump_away", "work"], AllOrNone;
    relocated_code_beside: "relocated.c" [O2, "-fPIE", "-pie", "-Wl,-z,notext"],
        ["beside"], ["read_datum", "jump_away", "work"], Exact;
    rewritten_code: "rewritten.c" [O2], [], ["patched", "led", "work"], AllOrNone;
    rewritten_code_beside: "rewritten.c" [O2],
        ["beside"], ["patched", "led", "work"], Exact;
    /// However a program ends, it ends so.
    ends_by_abort: "dies.c" [O2, "-lpthread"], ["abort"], ["before", "last"], Exact;
    ends_by_fault: "dies.c" [O2, "-lpthread"], ["segv"], ["before", "last"], Exact;
    ends_by_exit: "dies.c" [O2, "-lpthread"], ["exit"], ["before", "last"], Exact;
    ends_by_kill: "dies.c" [O2, "-lpthread"], ["kill"], ["before", "last"], Exact;
    /// Functions that have room for patches at their beginning.
    patchable_entries: "plain.c"
        [O2, "-fpatchable-function-entry=8,4", "-lpthread"], [], ["work", "step"], Exact;
    link_time_optimised: "plain.c" ["-O3", "-flto", "-lpthread"], [], ["work", "step"], Exact;
}

const FOLLOW: &[&str] = &["--max-overhead", "10000%", "--ring-mib", "64", "--follow"];
