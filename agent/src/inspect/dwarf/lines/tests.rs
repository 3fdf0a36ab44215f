//! Every address of programs that are compiled here, as `addr2line` says it; and spoiled files.

use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::inspect::demangle::demangle;
use crate::scratch::Directory;

/// Compiles the program of a scene to `p`.
fn compile(directory: &Directory, compiler: &str, source: &str, flags: &[&str]) -> Option<()> {
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/programs/functions/");
    let source = format!("{sources}{source}");
    let args = [flags, &["-o", "p", &source]].concat();
    directory.run(compiler, &args).map(drop)
}

/// Every third address of the functions whose names have a word.
fn addresses(directory: &Directory, program: &str, word: &str) -> Vec<VirtAddr> {
    let symbols = directory.run("nm", &["-S", "--defined-only", program]).expect("nm is there");
    let mut found = Vec::new();
    for line in symbols.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [address, size, "t" | "T" | "W", name] = words[..] else { continue };
        if !name.contains(word) {
            continue;
        }
        let number = |text| u64::from_str_radix(text, 16).expect("a number");
        let (address, size) = (number(address), number(size));
        found.extend((address..address + size).step_by(3).map(VirtAddr));
    }
    assert!(found.len() > 20, "{symbols}");
    found
}

/// What a tool says of an address: names as ours, without what they are in where the tool leaves that out.
fn told(directory: &Directory, program: &str, all: &[VirtAddr]) -> Option<Vec<Vec<Said>>> {
    // The one of binutils (2.40) confuses files and names of inlined functions.
    let name = "llvm-addr2line";
    let input: String = all.iter().map(|address| format!("{:#x}\n", address.0)).collect();
    std::fs::write(directory.file("addresses"), input).expect("a file");
    let input = std::fs::File::open(directory.file("addresses")).expect("a file");
    let mut command = Command::new(name);
    command.args(["-a", "-f", "-i", "-e", program]).current_dir(directory.path());
    let Ok(output) = command.stdin(Stdio::from(input)).output() else {
        println!("skipped: needs {name}");
        return None;
    };
    let text = String::from_utf8(output.stdout).expect("text");
    let mut found: Vec<Vec<Said>> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("0x") {
            found.push(Vec::new());
            continue;
        }
        let place = lines.next().expect("a place");
        let place = place.split(" (discriminator").next().unwrap_or_default();
        let (file, number) = place.rsplit_once(':').expect("a line");
        let calls = found.last_mut().expect("an address");
        calls.push((named(line), file.to_owned(), number.parse().unwrap_or_default()));
    }
    assert_eq!(found.len(), all.len());
    Some(found)
}

type Said = (String, String, u32);

/// The last part of a name, which is all that a name of no linkage has.
fn named(name: &str) -> String {
    let short = demangle(name).short;
    short.rsplit("::").next().unwrap_or_default().to_owned()
}

fn calls(lines: &Lines, all: &[VirtAddr]) -> Vec<Vec<Call>> {
    let mut found = BTreeMap::new();
    lines.calls(all, &mut |told| found.extend(told));
    all.iter().map(|address| found.get(address).cloned().expect("each is told")).collect()
}

fn ours(lines: &Lines, all: &[VirtAddr]) -> Vec<Vec<Said>> {
    let calls = calls(lines, all);
    let said = |call: &Call| (named(&call.function), call.file.clone(), call.line);
    calls.iter().map(|calls| calls.iter().map(said).collect()).collect()
}

fn lines(directory: &Directory, program: &str) -> Lines {
    let module = Module::open(&directory.file(program)).expect("a module");
    let lines =
        Lines::open(&module, Lookup::below(Path::new("/")), BYTES_MAX).expect("they can be read");
    lines.expect("there are some")
}

/// What is told of a program is what a tool says; of how many addresses it says that a function is inlined.
fn check(directory: &Directory, program: &str, word: &str) -> Option<usize> {
    let lines = lines(directory, program);
    let all = addresses(directory, "p", word);
    let told = told(directory, "p", &all)?;
    let own = ours(&lines, &all);
    // Of code that is not described the symbol is said, and the symbol table's name of a file.
    let is_said = |(_, file, line): &&Said| file.starts_with('/') || *line > 0;
    for (at, (own, told)) in all.iter().zip(own.iter().zip(&told)) {
        let of = |calls: &[Said]| calls.iter().filter(is_said).cloned().collect::<Vec<_>>();
        assert_eq!(of(own), of(told), "{:#x} of {program}", at.0);
    }
    assert!(lines.bytes() < BYTES_MAX, "{}", lines.bytes());
    Some(own.iter().filter(|calls| calls.len() > 1).count())
}

#[test]
fn every_address_is_told_as_addr2line_tells_it() {
    let directory = Directory::new("lines-all");
    for (compiler, flags, least) in [
        ("g++", &["-O2", "-g"][..], 100),
        ("g++", &["-O0", "-g"], 0),
        ("g++", &["-O2", "-g", "-gdwarf-4", "-no-pie"], 100),
        ("g++", &["-O2", "-g", "-gdwarf-3", "-ffunction-sections"], 100),
        ("g++", &["-O2", "-g", "-flto"], 100),
        ("g++", &["-O2", "-g1", "-gz"], 100),
        ("clang++", &["-O2", "-g", "-gdwarf-4"], 100),
        ("clang++", &["-O1", "-g", "-gdwarf-5", "-ffunction-sections"], 100),
        ("clang++", &["-O2", "-gline-tables-only"], 100),
    ] {
        let source = "stacks/inlined.cpp";
        let Some(()) = compile(&directory, compiler, source, flags) else { continue };
        let Some(inlined) = check(&directory, "p", "") else { return };
        assert!(inlined >= least, "{compiler} {flags:?}: {inlined}");
    }
    for flags in [&["-g", "-Copt-level=2"][..], &["-Cdebuginfo=1", "-Copt-level=3", "-Clto=fat"]] {
        let flags = &[flags, &["--edition=2024"]].concat();
        let Some(()) = compile(&directory, "rustc", "stacks/raise.rs", flags) else { continue };
        let Some(inlined) = check(&directory, "p", "raise") else { return };
        assert!(inlined > 100, "{flags:?}: {inlined}");
    }
}

#[test]
fn what_was_put_aside_is_found() {
    let directory = Directory::new("lines-aside");
    let Some(()) = compile(&directory, "g++", "stacks/inlined.cpp", &["-O2", "-g"]) else { return };
    let run = |program, args: &[&str]| directory.run(program, args);
    let keep = ["--only-keep-debug", "--compress-debug-sections", "p", "p.debug"];
    run("objcopy", &keep).expect("objcopy is there");
    run("objcopy", &["--strip-all", "--add-gnu-debuglink=p.debug", "p", "bare"]).expect("it is");
    assert!(check(&directory, "bare", "").is_none_or(|inlined| inlined >= 100));
    // What two programs have alike goes to a third file, which LLVM's tools do not look into.
    let all = addresses(&directory, "p", "");
    let before = calls(&lines(&directory, "p"), &all);
    run("cp", &["p", "q"]);
    let Some(_) = run("dwz", &["-m", "shared", "p", "q"]) else { return };
    assert!(Module::open(&directory.file("p")).expect("it").section(".gnu_debugaltlink").is_some());
    assert_eq!(calls(&lines(&directory, "p"), &all), before);
    assert!(
        before.iter().flatten().any(|call| call.function == "app::(anonymous namespace)::hidden")
    );
}

/// The files with the other halves of units.
fn halves(directory: &Directory) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory.path()).expect("it is ours");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.extension().is_some_and(|ending| ending == "dwo")).collect()
}

/// As what is not split, which the tool is asked about above: it knows no ranges of Clang's halves.
#[test]
fn split_units_are_read_in_both_halves() {
    let inlining = "-fsplit-dwarf-inlining";
    for (compiler, flags) in [
        ("g++", &["-O2", "-g"][..]),
        ("g++", &["-O2", "-g", "-gdwarf-4", "-no-pie"]),
        ("g++", &["-O1", "-g", "-ffunction-sections", "-gz"]),
        ("clang++", &["-O2", "-g", "-gdwarf-5"]),
        ("clang++", &["-O1", "-g", "-gdwarf-4"]),
        ("clang++", &["-O2", "-g", "-gdwarf-5", inlining]),
    ] {
        let directory = Directory::new("lines-split");
        let source = "stacks/inlined.cpp";
        let Some(()) = compile(&directory, compiler, source, flags) else { continue };
        let all = addresses(&directory, "p", "");
        let whole = calls(&lines(&directory, "p"), &all);
        assert!(
            whole.iter().filter(|calls| calls.len() > 1).count() >= 100,
            "{compiler} {flags:?}"
        );
        compile(&directory, compiler, source, &[flags, &["-gsplit-dwarf"]].concat())
            .expect("it is");
        assert_eq!((addresses(&directory, "p", ""), halves(&directory).len()), (all.clone(), 1));
        let told = || calls(&lines(&directory, "p"), &all);
        assert!(told() == whole, "{compiler} {flags:?}");
        // The same from a package; the tool for that takes none whose sections are packed.
        let is_packed = flags.contains(&"-gz");
        if !is_packed && directory.run("llvm-dwp", &["-e", "p", "-o", "p.dwp"]).is_none() {
            return;
        }
        for half in halves(&directory) {
            std::fs::remove_file(half).expect("it is there");
        }
        if !is_packed {
            assert!(told() == whole, "{compiler} {flags:?}");
            std::fs::remove_file(directory.file("p.dwp")).expect("it is there");
        }
        // And from neither nothing, unless the program itself says what is inlined.
        let is_told = flags.contains(&inlining);
        let names = told().iter().flatten().filter(|call| !call.function.is_empty()).count();
        assert_eq!(names > 0, is_told, "{compiler} {flags:?}");
    }
}

#[test]
fn the_half_of_another_build_is_not_read() {
    let directory = Directory::new("lines-halves");
    let (source, flags) = ("stacks/inlined.cpp", ["-O2", "-g", "-gsplit-dwarf"]);
    let Some(()) = compile(&directory, "g++", source, &flags) else { return };
    let [half] = &*halves(&directory) else { panic!("one half") };
    let right = std::fs::read(half).expect("it is there");
    let all = addresses(&directory, "p", "");
    let whole = calls(&lines(&directory, "p"), &all);
    let is_known = |told: &[Vec<Call>]| told.iter().flatten().any(|call| !call.function.is_empty());
    assert!(is_known(&whole));
    std::fs::copy(directory.file("p"), directory.file("kept")).expect("a file");
    compile(&directory, "g++", source, &["-O1", "-g", "-gsplit-dwarf"]).expect("it is there");
    std::fs::copy(directory.file("kept"), directory.file("p")).expect("a file");
    assert!(!is_known(&calls(&lines(&directory, "p"), &all)));
    // Nor does a spoiled one do harm.
    let all: Vec<VirtAddr> = all.into_iter().step_by(9).collect();
    for at in (0..right.len()).step_by((right.len() / 60).max(1)) {
        for value in [0, 0x7f, 0xff] {
            let mut spoiled = right.clone();
            spoiled[at] = value;
            std::fs::write(half, &spoiled).expect("a file");
            assert_eq!(calls(&lines(&directory, "p"), &all).len(), all.len());
        }
    }
}

#[test]
fn a_file_without_has_none() {
    let directory = Directory::new("lines-none");
    let Some(()) = compile(&directory, "g++", "stacks/inlined.cpp", &["-O2"]) else { return };
    let module = Module::open(&directory.file("p")).expect("a module");
    assert!(
        Lines::open(&module, Lookup::below(directory.path()), BYTES_MAX)
            .expect("it can be read")
            .is_none()
    );
}

#[test]
fn spoiled_files_tell_something_else_or_nothing() {
    let directory = Directory::new("lines-spoiled");
    let Some(()) = compile(&directory, "g++", "stacks/inlined.cpp", &["-O2", "-g"]) else { return };
    let whole = std::fs::read(directory.file("p")).expect("it is there");
    let module = Module::open(&directory.file("p")).expect("a module");
    let all: Vec<VirtAddr> = addresses(&directory, "p", "").into_iter().step_by(9).collect();
    for section in module.sections().iter().filter(|section| section.name.starts_with(".debug_")) {
        let (begin, bytes) = (section.offset.0 as usize, section.size as usize);
        for at in (begin..begin + bytes).step_by((bytes / 14).max(1)) {
            for value in [0, 0x7f, 0xff] {
                let mut spoiled = whole.clone();
                spoiled[at] = value;
                std::fs::write(directory.file("q"), &spoiled).expect("a file");
                let module = Module::open(&directory.file("q")).expect("its headers are whole");
                let lines = Lines::open(&module, Lookup::below(directory.path()), BYTES_MAX);
                if let Ok(Some(lines)) = lines {
                    assert_eq!(calls(&lines, &all).len(), all.len());
                }
            }
        }
    }
}

#[test]
fn packed_sections_that_are_too_short_are_damaged() {
    let directory = Directory::new("lines-short");
    let flags = ["-O2", "-g", "-gz"];
    let Some(()) = compile(&directory, "g++", "stacks/inlined.cpp", &flags) else { return };
    let mut file = std::fs::read(directory.file("p")).expect("it is there");
    let module = Module::open(&directory.file("p")).expect("a module");
    let info = module.section(".debug_info").expect("it has lines");
    // Of `Elf64_Ehdr` and `Elf64_Shdr`: where the headers of sections are; where a section is, its size.
    let word = |file: &[u8], at: usize| u64::from_le_bytes(*file[at..].first_chunk().expect("it"));
    let mut headers = (word(&file, 40) as usize..).step_by(64);
    let header = headers.find(|at| word(&file, at + 24) == info.offset.0).expect("it is there");
    for size in 1..30u64 {
        file[header + 32..header + 40].copy_from_slice(&size.to_le_bytes());
        std::fs::write(directory.file("q"), &file).expect("a file");
        let module = Module::open(&directory.file("q")).expect("its headers are whole");
        let lines = Lines::open(&module, Lookup::below(directory.path()), BYTES_MAX);
        assert!(matches!(lines, Err(LinesError::Packed { .. })), "{size}: {lines:?}");
    }
}
