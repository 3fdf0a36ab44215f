//! Programs that say what their functions are given and give back, compiled in every way, stopped at
//! each function: what is read is what they say, or is said to be unreadable.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::interpret::{Outcome, run};
use super::super::{Compiled, Options, Value, compile, compile_result};
use super::tracee;
use crate::inspect::address::VirtAddr;
use crate::inspect::dwarf::Debug;

/// A way to compile a program, and how many of its values may be unreadable.
struct Case {
    compiler: &'static str,
    arguments: &'static str,
    source: &'static str,
    unreadable_max: usize,
}

const fn case(
    compiler: &'static str,
    arguments: &'static str,
    source: &'static str,
    unreadable_max: usize,
) -> Case {
    Case { compiler, arguments, source, unreadable_max }
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/programs/functions/values")
}

/// Compiles a program; `None` if there is no such compiler here.
fn build(case: &Case, directory: &Path) -> Option<PathBuf> {
    let out = directory.join("program");
    let mut command = Command::new(case.compiler);
    command.args(case.arguments.split_whitespace()).arg("-o").arg(&out);
    command.arg(sources().join(case.source));
    let done = match command.output() {
        Ok(done) => done,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: needs {}", case.compiler);
            return None;
        }
        Err(error) => panic!("cannot run {}: {error}", case.compiler),
    };
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{} {}: {said}", case.compiler, case.arguments);
    Some(out)
}

/// The functions of a program by the names of their symbols.
fn symbols(program: &Path) -> BTreeMap<String, u64> {
    let out = Command::new("nm").arg(program).output().expect("nm is there");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [address, "t" | "T" | "W", name] = words.as_slice() {
            let address = u64::from_str_radix(address, 16).expect("an address");
            found.insert((*name).to_owned(), address);
        }
    }
    found
}

#[derive(Default)]
struct Seen {
    entries: BTreeMap<u64, (String, Compiled, Compiled)>,
    /// Calls that have not returned: function, stack pointer at the entry.
    open: Vec<(u64, u64)>,
    lines: Vec<String>,
    unreadable: usize,
}

impl Seen {
    fn tell(&mut self, name: &str, compiled: &Compiled, stopped: &tracee::Stopped<'_>) {
        let Outcome::Told(chunks) = run(&compiled.ops, stopped) else { panic!("dropped") };
        for (attribute, value) in compiled.reader.read(&chunks) {
            self.lines.push(format!("{name}|{attribute}|{value}"));
            self.unreadable += usize::from(matches!(value, Value::Unavailable(_)));
        }
    }
}

/// Runs a program and compares what it says with what is read.
fn check(case: &Case) {
    let directory =
        std::env::temp_dir().join(format!("remora-values-{}-{}", std::process::id(), case.source));
    std::fs::create_dir_all(&directory).expect("a directory is made");
    if let Some(program) = build(case, &directory) {
        check_program(case, &program);
    }
    std::fs::remove_dir_all(&directory).expect("the directory is removed");
}

fn check_program(case: &Case, program: &Path) {
    let what = format!("{} {} {}", case.compiler, case.arguments, case.source);
    let said = Command::new(program).output().expect("the program runs").stdout;
    let said = String::from_utf8(said).expect("it writes text");
    let symbols = symbols(program);
    let debug = Debug::open(program).expect("it can be read");
    let mut seen = Seen::default();
    for line in said.lines() {
        let name = line.split('|').next().expect("a name");
        let Some(address) = symbols.get(name) else { continue };
        seen.entries.entry(*address).or_insert_with(|| {
            let described = debug
                .describe(VirtAddr(*address), VirtAddr(*address))
                .unwrap_or_else(|error| panic!("{what}: {name}: {error}"));
            let options = Options::default();
            let entry = compile(&described, &options).expect("it compiles");
            let result = compile_result(&described, &options);
            (name.to_owned(), entry, result)
        });
    }
    assert!(seen.entries.len() > 3, "{what}: too few functions are found");
    let entries: Vec<u64> = seen.entries.keys().copied().collect();
    let output = tracee::run(program, &entries, &mut |address, stopped| {
        if let Some((name, entry, _)) = seen.entries.get(&address).cloned() {
            seen.tell(&name, &entry, stopped);
            seen.open.push((address, stopped.sp()));
            return vec![stopped.word(stopped.sp())];
        }
        if let Some((function, sp)) = seen.open.last().copied()
            && stopped.sp() == sp + 8
        {
            seen.open.pop();
            let (name, _, result) = seen.entries[&function].clone();
            seen.tell(&name, &result, stopped);
        }
        Vec::new()
    });
    assert!(seen.open.is_empty(), "{what}: a call has not returned");
    compare(&what, &output, &seen, case.unreadable_max);
}

/// Addresses differ from run to run, so that the output of the very run is compared.
fn compare(what: &str, said: &str, seen: &Seen, unreadable_max: usize) {
    let key = |line: &str| {
        let mut words = line.splitn(3, '|');
        (words.next().map(str::to_owned), words.next().map(str::to_owned))
    };
    let mut read: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for line in &seen.lines {
        read.entry(key(line)).or_default().push(line);
    }
    let mut wrong = Vec::new();
    let mut unreadable = Vec::new();
    let mut turn: BTreeMap<_, usize> = BTreeMap::new();
    for line in said.lines() {
        let known = seen.entries.values().any(|(name, ..)| line.split('|').next() == Some(name));
        if !known {
            continue;
        }
        let turn = turn.entry(key(line)).or_default();
        let found = read.get(&key(line)).and_then(|lines| lines.get(*turn)).copied();
        *turn += 1;
        match found {
            Some(found) if found == line => {}
            Some(found) if found.contains('<') => unreadable.push(format!("{line}: {found}")),
            found => wrong.push(format!("said {line}\n  read {found:?}")),
        }
    }
    assert!(wrong.is_empty(), "{what}: {} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    println!("{what}: {} values, {} unreadable", seen.lines.len(), unreadable.len());
    assert!(
        unreadable.len() <= unreadable_max,
        "{what}: {} are unreadable:\n{}",
        unreadable.len(),
        unreadable.join("\n")
    );
}

#[test]
fn c_is_read_as_it_is() {
    for case in [
        case("gcc", "-g -O0", "values.c", 0),
        case("gcc", "-g -O0 -no-pie", "values.c", 0),
        case("gcc", "-g -O1 -gdwarf-4", "values.c", 0),
        case("gcc", "-g -O2", "values.c", 0),
        case("gcc", "-g -O3 -flto", "values.c", 0),
        case("gcc", "-g -Os -fcf-protection=full -gz=zlib", "values.c", 0),
        case("clang", "-g -O0", "values.c", 0),
        case("clang", "-g -O2 -gdwarf-4", "values.c", 0),
        case("clang", "-g -O3 -no-pie", "values.c", 0),
    ] {
        check(&case);
    }
}

#[test]
fn cpp_is_read_as_it_is() {
    for case in [
        case("g++", "-g -O0", "values.cpp", 0),
        case("g++", "-g -O2", "values.cpp", 0),
        case("g++", "-g -O3 -flto", "values.cpp", 0),
        case("clang++", "-g -O0", "values.cpp", 0),
        case("clang++", "-g -O2", "values.cpp", 0),
    ] {
        check(&case);
    }
}

#[test]
fn rust_is_read_as_it_is() {
    for case in [
        case("rustc", "-g -Copt-level=0 -Awarnings", "values.rs", 0),
        case("rustc", "-g -Copt-level=2 -Awarnings", "values.rs", 0),
        case("rustc", "-g -Copt-level=3 -Clto=fat -Awarnings", "values.rs", 0),
    ] {
        check(&case);
    }
}

#[test]
fn go_is_read_as_it_is() {
    for case in [
        case("go", "build", "values.go", 0),
        case("go", "build -gcflags=-N -gcflags=-l", "values.go", 0),
    ] {
        check(&case);
    }
}
