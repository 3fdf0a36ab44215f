//! Every function of whole programs: sites are where a disassembler and the unwind tables say they are.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::Command;

use super::*;

/// What was found in a program.
#[derive(Debug, Default)]
struct Survey {
    functions: usize,
    placed: usize,
    cheap: usize,
    refused: BTreeMap<&'static str, usize>,
    sites: Vec<(String, Site)>,
    /// Sites at which the unwind table tells how far the stack pointer is from the return address.
    described: usize,
}

fn survey(path: &Path) -> Survey {
    let module = Module::open(path).expect("a program");
    let index = Index::read(&module, Lookup::below(Path::new("/"))).expect("symbols");
    let mut survey = Survey::default();
    for function in index.functions(|_| true) {
        survey.functions += 1;
        match place(&module, &index, &function) {
            Ok(placement) => {
                survey.placed += 1;
                survey.cheap += usize::from(placement.entry.cost == CostClass::Emulated);
                let sites = placement.sites();
                survey.sites.extend(sites.map(|site| (function.linkage.clone(), *site)));
            }
            Err(refusal) => *survey.refused.entry(kind(&refusal)).or_default() += 1,
        }
    }
    // rsp is DWARF's register 7. With another one as base the table says nothing of it.
    const RSP: u16 = 7;
    for (name, site) in &survey.sites {
        if let Some((RSP, distance)) = index.unwind(&module).return_slot(site.address) {
            survey.described += 1;
            assert_eq!(i64::from(site.sp_adjust), distance, "{name}: {site:?}");
        }
        assert_eq!(module.code_offset(site.address), Some(site.offset));
        assert_eq!(module.code_address(site.offset), Some(site.address));
    }
    println!(
        "{}: {} functions, {:.1} % placed, {:.1} % of these cheap, {} sites, {} in unwind tables; {:?}",
        path.display(),
        survey.functions,
        100.0 * survey.placed as f64 / survey.functions as f64,
        100.0 * survey.cheap as f64 / survey.placed as f64,
        survey.sites.len(),
        survey.described,
        survey.refused,
    );
    survey
}

fn kind(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Resolver => "resolver",
        Refusal::Unreadable => "unreadable",
        Refusal::Undecodable(_) => "undecodable",
        Refusal::TooLarge => "too large",
        Refusal::Tangled => "tangled",
        Refusal::RunsOn(_) => "runs on",
        Refusal::UnresolvedJump(_) => "unresolved jump",
        Refusal::ConditionalEnd(_) => "conditional end",
        Refusal::SharedCode(_) => "shared code",
        Refusal::StackUnknown(_) => "stack unknown",
        Refusal::Instruction(_) => "refused instruction",
        Refusal::Overlap(_) => "overlap",
        Refusal::EntryInLoop => "entry in a loop",
        Refusal::Short => "short",
        Refusal::Ends => "ends",
        Refusal::Relocated(_) => "relocated",
    }
}

/// Where a disassembler of another make sees instructions begin.
fn boundaries(path: &Path) -> Option<HashSet<u64>> {
    let mut command = Command::new("objdump");
    command.args(["-d", "-w", "--no-show-raw-insn"]).arg(path);
    let Ok(output) = command.output() else {
        println!("skipped: needs objdump");
        return None;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let address = |line: &str| u64::from_str_radix(line.split_once(":\t")?.0.trim(), 16).ok();
    Some(text.lines().filter(|line| !line.contains("(bad)")).filter_map(address).collect())
}

/// Checks a program; at least so many percent of its functions are placed.
fn check(path: &Path, least: f64) {
    let survey = survey(path);
    assert!(survey.functions > 0);
    let share = 100.0 * survey.placed as f64 / survey.functions as f64;
    assert!(share >= least, "{share} % of {} placed", path.display());
    let Some(boundaries) = boundaries(path) else { return };
    for (name, site) in &survey.sites {
        assert!(boundaries.contains(&site.address.0), "{name}: {site:?} is within an instruction");
    }
}

#[test]
fn the_c_library() {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("our own");
    let path = maps.lines().find_map(|line| {
        let path = line.split_ascii_whitespace().nth(5)?;
        path.contains("/libc.so").then_some(path)
    });
    match path {
        // A tenth of it is chosen at load time or written by hand.
        Some(path) => check(Path::new(path), 85.0),
        None => println!("skipped: needs a dynamic C library"),
    }
}

const CPP: &str = r#"
#include <cstdio>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>
static int parse(const std::string &text) {
  try { return std::stoi(text); } catch (const std::invalid_argument &) { return -1; }
}
int kind(int n) {
  switch (n) {
  case 0: return std::puts("a"); case 1: return std::puts("b"); case 2: return std::puts("cc");
  case 3: return std::puts("d") + 7; case 4: return n * 31; case 5: return std::puts("f"); default: return -2;
  }
}
int main(int count, char **words) {
  std::map<std::string, std::vector<int>> found;
  for (int i = 0; i < count; i++) found[words[i]].push_back(parse(words[i]) + kind(i));
  std::ostringstream out;
  for (const auto &[name, numbers] : found) out << name << numbers.size();
  return std::puts(out.str().c_str()) < 0;
}
"#;

#[test]
fn a_cpp_program() {
    for level in ["-O0", "-O2", "-Os"] {
        let built = Built::new(level);
        if let Some(path) = built.build("p.cc", CPP, &["g++", "-std=c++17", level]) {
            check(&path, 95.0);
        }
    }
}

const RUST: &str = r#"
use std::collections::BTreeMap;
fn kind(text: &str) -> u32 {
    match text.len() { 0 => 7, 1 => 9, 2 => text.bytes().map(u32::from).sum(), 3 => 11, 4 => 80, _ => 1 }
}
fn main() {
    let mut found = BTreeMap::new();
    for word in std::env::args() { *found.entry(kind(&word)).or_insert(0) += word.parse().unwrap_or(1u64); }
    let caught = std::panic::catch_unwind(|| println!("{found:?}"));
    std::process::exit(caught.is_err().into());
}
"#;

#[test]
fn a_rust_program() {
    let built = Built::new("rust");
    if let Some(path) = built.build("p.rs", RUST, &["rustc", "-O"]) {
        check(&path, 95.0);
    }
}

const GO: &str = r#"package main

import ("errors"; "fmt"; "os"; "sort"; "strings")

type shape interface{ area() float64 }
type square struct{ side float64 }
func (s square) area() float64 { return s.side * s.side }
func guarded(f func()) (err error) {
	defer func() { if r := recover(); r != nil { err = errors.New(fmt.Sprint(r)) } }()
	f()
	return nil
}
func main() {
	words := strings.Fields(strings.Join(os.Args, " "))
	sort.Strings(words)
	var s shape = square{2}
	fmt.Println(words, s.area(), guarded(func() { panic("x") }))
}
"#;

#[test]
fn a_go_program() {
    let built = Built::new("go");
    let strip = ["go", "build", "-ldflags=-s -w"];
    for command in [&["go", "build"][..], &strip] {
        if let Some(path) = built.build("p.go", GO, command) {
            check(&path, 95.0);
        }
    }
}
