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
