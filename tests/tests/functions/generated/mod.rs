//! Programs that nobody has written: a seed decides which functions they have, what those are given and give
//! back, and how they are compiled. What is told of their calls is what the programs say, or is said not to be
//! known. `REMORA_TEST_SEEDS` names others than those of every run, as `from..to`.

mod c;
mod c_types;
mod dice;
mod expected;
mod golang;
mod nesting;
mod planned;
mod play;
mod rust;

use std::path::{Path, PathBuf};
use std::process::Command;

use remora_tests::{Scratch, is_root, takes_its_time};

use self::c::Dialect;
use self::dice::Dice;
use self::nesting::Stacks;
use self::planned::Planned;
use self::play::{Report, play};

/// A way to compile.
#[derive(Clone, Debug)]
struct Way {
    compiler: &'static str,
    level: &'static str,
    more: Vec<&'static str>,
}

impl Way {
    /// One of those that C's and C++'s compilers have.
    fn of_c(dice: &mut Dice, compiler: &'static str, level: &'static str) -> Self {
        let mut more = vec![*dice.one(&["-gdwarf-5", "-gdwarf-4"])];
        if compiler.ends_with("++") {
            more.push(*dice.one(&["-std=c++17", "-std=c++20"]));
        }
        for (often, flag) in [
            (30, "-fno-omit-frame-pointer"),
            (20, "-fcf-protection=none"),
            (20, "-fcf-protection=full"),
            (30, "-no-pie"),
            (10, "-fstack-protector-all"),
            (10, "-mno-red-zone"),
            (10, "-fno-plt"),
            (10, "-fno-optimize-sibling-calls"),
            (10, "-ffunction-sections"),
        ] {
            if dice.percent(often) {
                more.push(flag);
            }
        }
        let of_gcc = [
            (20, "-flto"),
            (15, "-fno-ipa-sra"),
            (15, "-fipa-pta"),
            (10, "-fno-var-tracking"),
            (10, "-fstack-clash-protection"),
            (10, "-mavx2"),
        ];
        for (often, flag) in of_gcc {
            if compiler.starts_with('g') && dice.percent(often) {
                more.push(flag);
            }
        }
        Self { compiler, level, more }
    }

    /// Compiles a program.
    fn compile(&self, scratch: &Scratch, planned: &Planned, ending: &str) -> PathBuf {
        let source = scratch.write(&format!("made.{ending}"), &planned.source);
        let out = scratch.file("made");
        let mut command = Command::new(self.compiler);
        command.arg(self.level).args(&self.more).arg("-w").arg("-o").arg(&out).arg(&source);
        run(&mut command);
        out
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said: String = said.chars().take(2000).collect();
        panic!("{command:?}: {said}");
    }
}

/// What is kept of a program that was lied about, for who looks into it.
fn keep(scratch: &Scratch, name: &str) {
    // Those of every run are made again by their seed.
    if std::env::var_os("REMORA_TEST_SEEDS").is_none() {
        return;
    }
    let kept = std::env::temp_dir().join(format!("remora-made-{name}"));
    let _ = std::fs::remove_dir_all(&kept);
    let status = Command::new("cp").arg("-r").arg(scratch.path()).arg(&kept).status();
    assert!(status.is_ok_and(|status| status.success()), "cp");
    eprintln!("kept in {}", kept.display());
}

/// Which seeds: those of every run, or those that somebody asks for.
fn seeds(always: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let asked = std::env::var("REMORA_TEST_SEEDS").ok();
    if let Some((from, to)) = asked.as_deref().and_then(|asked| asked.split_once("..")) {
        return from.parse().expect("a number")..to.parse().expect("a number");
    }
    // Ten times as many when everything is to be tested.
    let times = if takes_its_time() { 10 } else { 1 };
    always.start..always.end * times
}

const LEVELS: [&str; 6] = ["-O0", "-O1", "-O2", "-O3", "-Os", "-Og"];

fn of_c(dialect: Dialect, always: std::ops::Range<u64>) {
    if !is_root() {
        return;
    }
    let (ending, compilers) = match dialect {
        Dialect::C => ("c", ["gcc", "clang"]),
        Dialect::Cpp => ("cpp", ["g++", "clang++"]),
    };
    let mut table = Table::default();
    for seed in seeds(always) {
        let mut dice = Dice::new(!seed);
        let compiler = compilers[(seed % 2) as usize];
        let level = LEVELS[(seed / 2 % 6) as usize];
        let way = Way::of_c(&mut dice, compiler, level);
        let planned = c::program(seed, dialect);
        let scratch = Scratch::new();
        let program = way.compile(&scratch, &planned, ending);
        let report = play(&scratch, &program, &planned);
        if !report.lies.is_empty() {
            keep(&scratch, &format!("{ending}-{seed}"));
        }
        table.add(seed, &format!("{} {}", way.compiler, way.level), &format!("{way:?}"), report);
    }
    table.judge();
}

/// What was told, by how programs were compiled.
#[derive(Default)]
struct Table {
    rows: std::collections::BTreeMap<String, Report>,
}

impl Table {
    fn add(&mut self, seed: u64, row: &str, way: &str, mut report: Report) {
        // One program's are of a kind.
        let count = report.lies.len();
        report.lies.truncate(4);
        if count > 0 {
            let lies = report.lies.join("\n    ");
            report.lies = vec![format!("seed {seed}, {way}: {count} lies\n    {lies}")];
        }
        self.rows.entry(row.to_owned()).or_default().add(report);
    }

    /// Prints it. Nothing that was told may be wrong.
    fn judge(&self) {
        println!(
            "{:14} {:>7} {:>10} {:>8} {:>10} {:>8}",
            "", "calls", "arguments", "untold", "results", "untold"
        );
        for (row, report) in &self.rows {
            let (given, back) = (&report.arguments, &report.results);
            println!(
                "{row:14} {:>7} {:>10} {:>8} {:>10} {:>8}",
                report.calls,
                given.told,
                given.untold(),
                back.told,
                back.untold()
            );
            println!("    {:?}", given.reasons);
            println!("    {:?} {:?} {}", back.reasons, report.inferred, report.unnoticed);
        }
        let lies: Vec<&String> = self.rows.values().flat_map(|report| &report.lies).collect();
        for lie in &lies {
            println!("{lie}");
        }
        assert!(lies.is_empty(), "{} programs were lied about", lies.len());
    }
}

#[test]
fn of_c_is_told_what_is_true() {
    of_c(Dialect::C, 0..6);
}

/// Compiles and plays programs of one seed after the other.
fn of(
    language: &str,
    always: std::ops::Range<u64>,
    make: impl Fn(u64) -> Planned,
    way: impl Fn(u64, &Path, &Path) -> (String, Command),
) {
    if !is_root() {
        return;
    }
    let mut table = Table::default();
    for seed in seeds(always) {
        let planned = make(seed);
        let scratch = Scratch::new();
        let source = scratch.write(&format!("made.{language}"), &planned.source);
        let out = scratch.file("made");
        let (row, mut command) = way(seed, &source, &out);
        run(&mut command);
        let report = play(&scratch, &out, &planned);
        if !report.lies.is_empty() {
            keep(&scratch, &format!("{language}-{seed}"));
        }
        table.add(seed, &row, &format!("{command:?}"), report);
    }
    table.judge();
}

fn of_ways(stacks: Stacks, always: std::ops::Range<u64>) {
    of(
        "cc",
        always,
        |seed| nesting::program(seed, stacks),
        |seed, source, out| {
            let mut dice = Dice::new(!seed);
            let compiler = ["g++", "clang++"][(seed % 2) as usize];
            let level = LEVELS[(seed / 2 % 6) as usize];
            let way = Way::of_c(&mut dice, compiler, level);
            let mut command = Command::new(compiler);
            // What jumps is not fortified: that refuses jumps between stacks.
            command.arg(level).args(&way.more).arg("-U_FORTIFY_SOURCE").arg("-w");
            command.arg("-o").arg(out).arg(source);
            (format!("{compiler} {level}"), command)
        },
    );
}

#[test]
fn of_ways_is_told_what_is_true() {
    of_ways(Stacks::Own, 0..3);
}

#[test]
fn of_stacks_is_told_what_is_true() {
    of_ways(Stacks::Apart, 0..2);
}

#[test]
fn of_pools_is_told_what_is_true() {
    of_ways(Stacks::Near, 0..2);
}

#[test]
fn of_rust_is_told_what_is_true() {
    of("rs", 0..4, rust::program, |seed, source, out| {
        let mut dice = Dice::new(!seed);
        let level = ["0", "1", "2", "3", "s"][(seed % 5) as usize];
        let mut command = Command::new("rustc");
        command.args([
            "--edition",
            "2024",
            "-C",
            &format!("opt-level={level}"),
            "-C",
            "debuginfo=2",
        ]);
        for (often, flag) in [
            (30, "force-frame-pointers=yes"),
            (30, "codegen-units=1"),
            (20, "lto=fat"),
            (30, "panic=abort"),
            (20, "relocation-model=static"),
            (30, "overflow-checks=yes"),
        ] {
            if dice.percent(often) {
                command.args(["-C", flag]);
            }
        }
        command.arg("-o").arg(out).arg(source);
        (format!("rustc {level}"), command)
    });
}

#[test]
fn of_go_is_told_what_is_true() {
    of("go", 0..6, golang::program, |seed, source, out| {
        let mut command = Command::new("/usr/local/go/bin/go");
        command.args(["build", "-trimpath"]);
        let row = match seed % 3 {
            0 => "go",
            1 => {
                command.arg("-gcflags=-N -l");
                "go -N -l"
            }
            _ => {
                command.arg("-gcflags=-l");
                "go -l"
            }
        };
        command.arg("-o").arg(out).arg(source);
        (row.to_owned(), command)
    });
}

#[test]
fn of_cpp_is_told_what_is_true() {
    of_c(Dialect::Cpp, 0..4);
}
