//! How long a large program's functions take to be listed and placed, and what memory that takes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use remora::function::pattern::{Called, Patterns};
use remora::function::plan::{Place, plan};
use remora::inspect::debug_file::Lookup;
use remora::inspect::elf::Module;
use remora::inspect::symbols::Index;
use serde_json::json;

use super::BENCH;
use crate::Settings;
use crate::report::{Report, Target, Unit};
use crate::servers::Scratch;
use crate::statistics::{median, spread};

/// Functions of the program.
const COUNT: usize = 150_000;

#[derive(Default)]
struct Taken {
    index_ms: Vec<f64>,
    index_mb: Vec<f64>,
    place_ms: Vec<f64>,
    place_mb: Vec<f64>,
}

pub(super) fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    println!("functions: a program with {COUNT} of them");
    let scratch = Scratch::new("index")?;
    let program = program(scratch.path())?;
    let rounds = settings.rounds(7);
    let mut taken = Taken::default();
    for round in 0..rounds {
        println!("  round {} of {rounds}", round + 1);
        measure(&program, &mut taken)?;
    }
    let Taken { index_ms, index_mb, place_ms, place_mb } = &taken;
    let what = format!("{COUNT} functions: listing them");
    report.judge(
        BENCH,
        what,
        median(index_ms.clone()),
        Unit::Ms,
        Target::Most(3000.0),
        spread(index_ms),
    );
    let what = "… and memory at most";
    report.judge(
        BENCH,
        what,
        median(index_mb.clone()),
        Unit::Mb,
        Target::Most(200.0),
        spread(index_mb),
    );
    let what = "… placing the probes of all of them, listing included";
    report.tell(BENCH, what, median(place_ms.clone()), Unit::Ms, spread(place_ms));
    report.tell(
        BENCH,
        "… and memory at most",
        median(place_mb.clone()),
        Unit::Mb,
        spread(place_mb),
    );
    report.raw(
        "index of functions",
        json!({
            "functions": COUNT,
            "index_ms": index_ms,
            "index_mb": index_mb,
            "place_ms": place_ms,
            "place_mb": place_mb,
        }),
    );
    Ok(())
}

/// Functions of a few branches and ends each, by an assembler: a compiler would take minutes.
fn program(scratch: &Path) -> Result<PathBuf> {
    let mut source = String::from(".text\n");
    for number in 0..COUNT {
        writeln!(
            source,
            ".globl f{number}\n.type f{number}, @function\nf{number}:\n push %rbx\n mov %rdi, %rbx\n \
             test %rdi, %rdi\n je 1f\n lea {number}(%rdi), %rax\n pop %rbx\n ret\n\
             1: mov ${number}, %edi\n call f0\n add %rbx, %rax\n pop %rbx\n ret\n\
             .size f{number}, .-f{number}"
        )?;
    }
    source.push_str(".globl _start\n_start: ud2\n.section .note.GNU-stack, \"\", @progbits\n");
    let (assembler, program) = (scratch.join("many.S"), scratch.join("many"));
    std::fs::write(&assembler, source)?;
    let output = Command::new("cc")
        .args(["-nostdlib", "-static", "-o"])
        .args([&program, &assembler])
        .output()
        .context("cannot run cc")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(program)
}

fn measure(program: &Path, taken: &mut Taken) -> Result<()> {
    let lookup = Lookup::below(Path::new("/"));
    let before = begin()?;
    let begun = Instant::now();
    let module = Module::open(program)?;
    let index = Index::read(&module, lookup)?;
    let found = index.functions(|name| name == "f77").len();
    taken.index_ms.push(begun.elapsed().as_secs_f64() * 1e3);
    taken.index_mb.push(kib("VmHWM:")?.saturating_sub(before) as f64 / 1024.0);
    ensure!(found == 1, "{found} functions are called f77");
    drop((index, module));

    let patterns = Patterns::parse(&["*"])?;
    let called = Called { name: "many", other_names: &[], is_executable: true };
    let place = Place { file: program, called, lookup, knows_goroutines: false };
    let before = begin()?;
    let begun = Instant::now();
    let plan = plan(&place, &patterns)?;
    taken.place_ms.push(begun.elapsed().as_secs_f64() * 1e3);
    taken.place_mb.push(kib("VmHWM:")?.saturating_sub(before) as f64 / 1024.0);
    if plan.functions.len() < COUNT {
        bail!(
            "{} of {COUNT} functions are placed: {:?}",
            plan.functions.len(),
            plan.refused.first()
        );
    }
    Ok(())
}

/// Gives memory back and forgets how much there was at most; what there is.
fn begin() -> Result<usize> {
    remora::platform::memory::give_back();
    // proc(5), "clear_refs": 5 sets the most to what there is.
    std::fs::write("/proc/self/clear_refs", "5").context("cannot reset VmHWM")?;
    kib("VmRSS:")
}

fn kib(name: &str) -> Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_ascii_whitespace().next());
    number.with_context(|| format!("no {name}"))?.parse().context("a number")
}
