//! Many processes come and go: what is kept for the probes of one that has ended is used for another, and
//! nothing that is told of the one is taken for the other's.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use remora_tests::agent::Agent;
use remora_tests::compile::{compile, compile_file};
use remora_tests::program::{free_port, scripts};
use remora_tests::wire::get;
use remora_tests::{Scratch, copy_program, is_root, until};

use crate::scene::{ALL, Waiting, spans_by_function};

/// An agent that traces the programs of a folder, and its counts.
struct Watched {
    agent: Agent,
    port: u16,
}

impl Watched {
    fn start(scratch: &Scratch, programs: &Path, functions: &[&str]) -> Self {
        let port = free_port();
        let (exe, address) = (format!("{}/**", programs.display()), format!("127.0.0.1:{port}"));
        let mut args = vec!["--exe", &exe, "--metrics", &address, "--stats"];
        args.extend(ALL);
        functions.iter().for_each(|pattern| args.extend(["--functions", pattern]));
        Self { agent: Agent::run(scratch, &args), port }
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        let text = get(self.port, "/metrics");
        let counts = text.lines().filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        counts.collect()
    }

    /// Waits until no probe is attached, then tells how many functions and sites have numbers.
    fn numbers(&self) -> (u64, u64) {
        until("all probes to be gone", || {
            let counts = self.counts();
            let of = |name: &str| counts.get(name).copied().expect("it is counted");
            let gone = of("remora_processes") == 0 && of("remora_function_links") == 0;
            gone.then(|| (of("remora_function_numbers"), of("remora_function_sites")))
        })
    }

    /// Waits until so many processes are probed, in `links` links.
    fn probed(&self, processes: u64, links: u64) {
        until("the probes", || {
            let counts = self.counts();
            let there = counts.get("remora_processes") == Some(&processes)
                && counts.get("remora_function_links") == Some(&links);
            there.then_some(())
        });
    }
}

#[test]
fn a_thousand_short_processes() {
    if !is_root() {
        return;
    }
    const ROUNDS: usize = 20;
    const AT_ONCE: usize = 50;
    let scratch = Scratch::new();
    let Some(program) = compile(&scratch, "hazards/brief.c", &["-O2"]) else { return };
    let folder = scratch.file("programs");
    std::fs::create_dir(&folder).expect("the directory is ours");
    let copy = folder.join("brief");
    copy_program(&program, &copy);
    let watched = Watched::start(&scratch, &folder, &["work", "libc.so.6!strtol"]);
    let mut first = None;
    for round in 0..ROUNDS {
        let start = |number| {
            Waiting::start(&scratch, &format!("{round}.{number}"), &mut Command::new(&copy))
        };
        let all: Vec<Waiting> = (0..AT_ONCE).map(start).collect();
        // The program's own functions in one link for all, the library's in one for each.
        watched.probed(AT_ONCE as u64, 1 + AT_ONCE as u64);
        for mut one in all {
            one.tell("go");
            assert!(one.end().status.success());
        }
        let numbers = watched.numbers();
        assert!(numbers.0 >= 2 && numbers.1 >= 4, "{numbers:?}");
        assert_eq!(*first.get_or_insert(numbers), numbers, "round {round}");
    }
    let ended = watched.agent.stop();
    assert_eq!(ended.code, Some(0), "{:#?}", ended.log);
    let spans = spans_by_function(&ended);
    let calls = (3 * ROUNDS * AT_ONCE) as u64;
    assert_eq!((spans.get("work"), spans.get("strtol")), (Some(&calls), Some(&calls)));
    assert_eq!(ended.count("lost"), 0, "{}", ended.done());
}

#[test]
fn two_hundred_programs() {
    if !is_root() {
        return;
    }
    const ROUNDS: usize = 10;
    const AT_ONCE: usize = 20;
    let scratch = Scratch::new();
    let Some(program) = compile(&scratch, "hazards/brief.c", &["-O2"]) else { return };
    let folder = scratch.file("programs");
    std::fs::create_dir(&folder).expect("the directory is ours");
    let watched = Watched::start(&scratch, &folder, &["work"]);
    let mut most = 0;
    for round in 0..ROUNDS {
        let start = |number| {
            let name = format!("{round}.{number}");
            let copy = folder.join(&name);
            copy_program(&program, &copy);
            Waiting::start(&scratch, &name, &mut Command::new(copy))
        };
        let all: Vec<Waiting> = (0..AT_ONCE).map(start).collect();
        watched.probed(AT_ONCE as u64, AT_ONCE as u64);
        for mut one in all {
            one.tell("go");
            assert!(one.end().status.success());
        }
        let (functions, _) = watched.numbers();
        most = most.max(functions);
    }
    // Those of some files are kept, in case that they are run again.
    assert!(most <= 100, "{most} numbers are in use");
    let ended = watched.agent.stop();
    let spans = spans_by_function(&ended);
    assert_eq!(spans.get("work"), Some(&((3 * ROUNDS * AT_ONCE) as u64)), "{:#?}", ended.log);
    let unknown =
        ended.log.iter().any(|line| line.contains("remora_function_hits_unknown_total=0"));
    assert!(unknown, "{:#?}", ended.log);
}

#[test]
fn a_file_that_is_written_anew_between_two_runs() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let compiled = ["-O2", "-O0"].map(|level| {
        let out = scratch.file(level);
        let source = scripts().join("functions/hazards/plain.c");
        compile_file(&source, &out, &[level, "-lpthread"]).then_some(out)
    });
    let [Some(fast), Some(slow)] = compiled else { return };
    let folder = scratch.file("programs");
    std::fs::create_dir(&folder).expect("the directory is ours");
    let copy = folder.join("plain");
    // The same file, with the same functions at other places.
    let overwrite = |with: &Path| copy_program(with, &copy);
    let started = |name: &str| Waiting::start(&scratch, name, &mut Command::new(&copy));
    let through = |mut program: Waiting| {
        program.tell("go");
        program.end()
    };
    overwrite(&fast);
    let expected = through(started("alone"));
    let watched = Watched::start(&scratch, &folder, &["work", "step"]);
    for next in [&slow, &fast, &slow, &fast, &slow] {
        let probed = started("probed");
        watched.probed(1, 1);
        assert_eq!(through(probed), expected);
        // Overwritten and run again while its probes are being taken away.
        overwrite(next);
        assert_eq!(through(started("at once")), expected);
        watched.numbers();
    }
    let ended = watched.agent.stop();
    assert_eq!((ended.code, ended.count("lost")), (Some(0), 0), "{:#?}", ended.log);
    // Those that were waited for are told in full, of the others what came after the probes.
    let spans = spans_by_function(&ended);
    let (work, step) = (spans.get("work").copied(), spans.get("step").copied());
    assert!((5 * 4000..=10 * 4000).contains(&work.unwrap_or(0)), "{work:?}");
    assert!((5 * 8000..=10 * 8000).contains(&step.unwrap_or(0)), "{step:?}");
}
