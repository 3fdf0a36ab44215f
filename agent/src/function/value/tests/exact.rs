//! Programs that say what their functions are given and give back, compiled in every way, stopped at
//! each function: what is read is what they say, or is said to be unreadable.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::interpret::{Outcome, run};
use super::super::{Compiled, Failure, Options, compile, compile_result};
use super::tracee;
use crate::function::site::{Placement, SiteKind};
use crate::inspect::code;
use crate::inspect::debug_file::Lookup;
use crate::inspect::demangle::Language;
use crate::inspect::dwarf::Debug;
use crate::inspect::elf::Module;
use crate::inspect::symbols::{Function, Index};

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

/// A function and what its probes read.
struct Probed {
    name: String,
    placement: Placement,
    entry: Compiled,
    result: Compiled,
}

/// A call that has not returned. Which it is is not told by the stack pointer: Go moves its stacks.
struct Call {
    function: usize,
    /// Lines before it.
    lines: usize,
}

#[derive(Default)]
struct Seen {
    functions: Vec<Probed>,
    open: Vec<Call>,
    lines: Vec<String>,
}

impl Seen {
    fn tell(&mut self, name: &str, compiled: &Compiled, stopped: &tracee::Stopped<'_>) {
        let Outcome::Told(chunks) = run(&compiled.ops, stopped) else { panic!("dropped") };
        for (attribute, value) in compiled.reader.read(&chunks) {
            self.lines.push(format!("{name}|{attribute}|{value}"));
        }
        if let Some(Failure { kind, message }) = compiled.reader.failure(&chunks) {
            let message = message.unwrap_or_default();
            self.lines.push(format!("{name}|failed|{kind}: {message}"));
        }
    }

    fn hit(&mut self, address: u64, stopped: &mut tracee::Stopped<'_>) {
        let functions = std::mem::take(&mut self.functions);
        for (number, probed) in functions.iter().enumerate() {
            let placement = &probed.placement;
            if placement.entry.address.0 == address {
                // Go begins anew when the stack was too small.
                let go = probed.name.starts_with("main.");
                if let Some(call) = self.open.pop_if(|call| go && call.function == number) {
                    self.lines.truncate(call.lines);
                }
                self.open.push(Call { function: number, lines: self.lines.len() });
                stopped.adjust = placement.entry.sp_adjust;
                self.tell(&probed.name, &probed.entry, stopped);
                if placement.entry.kind != SiteKind::Entry {
                    // It ends there.
                    self.open.pop();
                }
            }
            let Some(end) = placement.ends.iter().find(|end| end.address.0 == address) else {
                continue;
            };
            if self.open.pop_if(|call| call.function == number).is_some() {
                stopped.adjust = end.sp_adjust;
                match end.kind {
                    SiteKind::Return => self.tell(&probed.name, &probed.result, stopped),
                    _ => self.lines.push(format!("{}|remora.return|<tail call>", probed.name)),
                }
            }
        }
        self.functions = functions;
    }
}

/// What programs call a function: clones are called like what they are clones of, Rust's functions by
/// their path.
fn source_name(function: &Function) -> &str {
    if function.language == Language::Rust && function.linkage.starts_with("_") {
        return &function.name;
    }
    let mut linkage = function.linkage.as_str();
    for suffix in [".constprop.", ".isra."] {
        linkage = linkage.split(suffix).next().unwrap_or(linkage);
    }
    linkage
}

fn check_all(cases: &[Case]) {
    let wrong: Vec<String> = cases.iter().filter_map(|case| check(case).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Runs a program and compares what it says with what is read.
fn check(case: &Case) -> Result<(), String> {
    let directory =
        std::env::temp_dir().join(format!("remora-values-{}-{}", std::process::id(), case.source));
    std::fs::create_dir_all(&directory).expect("a directory is made");
    let done = match build(case, &directory) {
        Some(program) => check_program(case, &program),
        None => Ok(()),
    };
    std::fs::remove_dir_all(&directory).expect("the directory is removed");
    done
}

fn check_program(case: &Case, program: &Path) -> Result<(), String> {
    let what = format!("{} {} {}", case.compiler, case.arguments, case.source);
    let said = Command::new(program).output().expect("the program runs").stdout;
    let said = String::from_utf8(said).expect("it writes text");
    let names: BTreeSet<&str> = said.lines().filter_map(|line| line.split('|').next()).collect();
    let module = Module::open(program).expect("it can be read");
    let index = Index::read(&module, Lookup::below(Path::new("/"))).expect("it has symbols");
    let debug = Debug::open(program, Lookup::below(Path::new("/"))).expect("it can be read");
    let options = Options::default();
    let mut seen = Seen::default();
    for function in index.functions(|_| true) {
        let Some(name) = names.get(source_name(&function)) else { continue };
        let placement = code::place(&module, &index, &function)
            .unwrap_or_else(|refusal| panic!("{what}: {name}: {refusal}"));
        let described = debug
            .describe(function.address, placement.entry.address)
            .unwrap_or_else(|error| panic!("{what}: {name}: {error}"));
        seen.functions.push(Probed {
            name: (*name).to_owned(),
            placement,
            entry: compile(&described, &options).expect("it compiles"),
            result: compile_result(&described, &options),
        });
    }
    assert!(seen.functions.len() > 2, "{what}: too few functions are found");
    let sites: Vec<u64> = seen
        .functions
        .iter()
        .flat_map(|probed| probed.placement.sites())
        .map(|site| site.address.0)
        .collect();
    let output = tracee::run(program, &sites, &mut |address, stopped| seen.hit(address, stopped));
    assert!(seen.open.is_empty(), "{what}: a call has not returned");
    compare(&what, &output, &seen, case.unreadable_max)
}

/// Addresses differ from run to run, so that the output of the very run is compared.
fn compare(what: &str, said: &str, seen: &Seen, unreadable_max: usize) -> Result<(), String> {
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
        let known =
            seen.functions.iter().any(|probed| line.split('|').next() == Some(&probed.name));
        if !known {
            continue;
        }
        let turn = turn.entry(key(line)).or_default();
        let found = read.get(&key(line)).and_then(|lines| lines.get(*turn)).copied();
        *turn += 1;
        match found {
            Some(found) if found == line => {}
            Some(found) if found.contains('<') => unreadable.push(format!("{line}: {found}")),
            // Lines of a program's that are no values.
            None if !line.contains("|remora.") && !line.contains("|failed|") => {}
            found => wrong.push(format!("said {line}\n  read {found:?}")),
        }
    }
    for line in seen.lines.iter().filter(|line| line.contains("|failed|")) {
        if !said.lines().any(|said| said == line) {
            wrong.push(format!("read {line}"));
        }
    }
    println!("{what}: {} values, {} unreadable", seen.lines.len(), unreadable.len());
    if !wrong.is_empty() {
        return Err(format!("{what}: {} are wrong:\n{}", wrong.len(), wrong.join("\n")));
    }
    if unreadable.len() > unreadable_max {
        let count = unreadable.len();
        return Err(format!("{what}: {count} are unreadable:\n{}", unreadable.join("\n")));
    }
    Ok(())
}

#[test]
fn c_is_read_as_it_is() {
    check_all(&[
        case("gcc", "-g -O0", "values.c", 0),
        case("gcc", "-g -O0 -no-pie", "values.c", 0),
        case("gcc", "-g -O1 -gdwarf-4", "values.c", 2),
        case("gcc", "-g -O2", "values.c", 2),
        case("gcc", "-g -O3 -flto", "values.c", 2),
        case("gcc", "-g -Os -fcf-protection=full -gz=zlib", "values.c", 2),
        case("clang", "-g -O0", "values.c", 2),
        case("clang", "-g -O2 -gdwarf-4", "values.c", 8),
        case("clang", "-g -O3 -no-pie -flto -fuse-ld=lld", "values.c", 26),
    ]);
}

#[test]
fn cpp_is_read_as_it_is() {
    check_all(&[
        case("g++", "-g -O0", "values.cpp", 0),
        case("g++", "-g -O2", "values.cpp", 2),
        case("g++", "-g -O3 -flto", "values.cpp", 4),
        case("clang++", "-std=c++17 -g -O0", "values.cpp", 0),
        case("clang++", "-std=c++17 -g -O2", "values.cpp", 0),
        case("clang++", "-std=c++17 -g -O2 -stdlib=libc++", "libcxx.cpp", 0),
        case("clang++", "-std=c++17 -g -O0 -stdlib=libc++", "libcxx.cpp", 0),
    ]);
}

#[test]
fn rust_is_read_as_it_is() {
    check_all(&[
        case("rustc", "-g -Copt-level=0 -Awarnings", "values.rs", 0),
        case("rustc", "-g -Copt-level=2 -Awarnings", "values.rs", 4),
        case("rustc", "-g -Copt-level=3 -Clto=fat -Awarnings", "values.rs", 4),
    ]);
}

#[test]
fn go_is_read_as_it_is() {
    check_all(&[
        case("go", "build", "values.go", 0),
        case("go", "build -gcflags=-N -gcflags=-l", "values.go", 0),
    ]);
}

#[test]
fn altered_functions_are_not_lied_about() {
    check_all(&[
        case("gcc", "-g -O1", "altered.c", 0),
        case("gcc", "-g -O2", "altered.c", 6),
        case("gcc", "-g -O3 -flto -no-pie", "altered.c", 9),
        case("clang", "-g -O1", "altered.c", 9),
        case("clang", "-g -O3", "altered.c", 9),
        case("rustc", "-g -Copt-level=1 -Awarnings", "altered.rs", 18),
        case("rustc", "-g -Copt-level=3 -Clto=fat -Ccodegen-units=1 -Awarnings", "altered.rs", 33),
    ]);
}

#[test]
fn conventions_are_kept_to_in_their_corners() {
    check_all(&[
        case("gcc", "-g -O0", "conventions.c", 6),
        case("gcc", "-g -O2 -mavx2", "conventions.c", 8),
        case("clang", "-g -O0", "conventions.c", 6),
        case("clang", "-g -O2 -mavx2", "conventions.c", 10),
        case("rustc", "-g -Copt-level=0 -Awarnings", "conventions.rs", 0),
        case("rustc", "-g -Copt-level=2 -Awarnings", "conventions.rs", 0),
    ]);
}

/// What made-up programs have shown to be told wrongly.
#[test]
fn what_was_once_read_wrongly_is_not() {
    check_all(&[
        case("gcc", "-g -O0", "corners.c", 4),
        case("gcc", "-g -O0 -gdwarf-4", "corners.c", 4),
        case("gcc", "-g -O2", "corners.c", 0),
        case("gcc", "-g -O1 -fno-var-tracking", "corners.c", 6),
        case("gcc", "-g -O2 -mavx2 -mstackrealign", "corners.c", 0),
        case("clang", "-g -O0 -gdwarf-4", "corners.c", 6),
        case("clang", "-g -O1", "corners.c", 10),
        case("clang", "-g -O2", "corners.c", 10),
        case("g++", "-g -O1", "corners.cpp", 2),
        case("clang++", "-g -O2", "corners.cpp", 6),
        case("rustc", "-g --edition=2024 -Copt-level=0 -Awarnings", "corners.rs", 6),
        case("rustc", "-g --edition=2024 -Copt-level=2 -Awarnings", "corners.rs", 6),
        case("go", "build", "corners.go", 4),
        case("go", "build -gcflags=-N -gcflags=-l", "corners.go", 4),
    ]);
}
