//! The process whose functions are probed, and the benchmark's end of it. Every instruction of its
//! functions is known; they lie in this very executable.
#![expect(unsafe_code, reason = "calls functions written in assembly")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use remora::probe::function::selftest::file_offsets;

use crate::sys;

/// Functions of [`Places::many`], three bytes each: a push, a pop and a return.
pub(crate) const MANY: u64 = 10_000;

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".text",
    ".globl remora_bench_called, remora_bench_called_return, remora_bench_many",
    "remora_bench_called: push %rbp",
    "mov %rsp, %rbp",
    "lea (%rdi,%rsi), %rax",
    "add %rdx, %rax",
    "add %rcx, %rax",
    "pop %rbp",
    "remora_bench_called_return: ret",
    "remora_bench_many: .rept 10000",
    "push %rbp",
    "pop %rbp",
    "ret",
    ".endr",
    options(att_syntax)
);

#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    fn remora_bench_called(a: u64, b: u64, c: u64, d: u64) -> u64;
    fn remora_bench_called_return();
    fn remora_bench_many();
}

/// Offsets in this executable's file.
#[derive(Clone, Copy)]
pub(crate) struct Places {
    /// A function of four numbers: its first instruction, which the kernel emulates.
    pub(crate) entry: u64,
    /// And its return, which it steps.
    pub(crate) end: u64,
    /// The first of [`MANY`].
    pub(crate) many: u64,
}

/// Where the functions are.
#[cfg(target_arch = "x86_64")]
pub(crate) fn places() -> Result<Places> {
    let addresses = [
        remora_bench_called as *const () as u64,
        remora_bench_called_return as *const () as u64,
        remora_bench_many as *const () as u64,
    ];
    let offsets =
        file_offsets(addresses).context("this program's code is not in /proc/self/maps")?;
    let [entry, end, many] = offsets;
    Ok(Places { entry, end, many })
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn places() -> Result<Places> {
    bail!("functions are not measured on this architecture")
}

#[cfg(target_arch = "x86_64")]
fn call(a: u64, b: u64, c: u64, d: u64) -> u64 {
    // SAFETY: the function above takes four numbers and touches nothing else.
    unsafe { remora_bench_called(a, b, c, d) }
}

#[cfg(not(target_arch = "x86_64"))]
fn call(a: u64, b: u64, c: u64, d: u64) -> u64 {
    a + b + c + d
}

/// The benchmark's end.
pub(crate) struct Callee {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Callee {
    /// Starts one on the first CPU.
    pub(crate) fn start() -> Result<Self> {
        Self::of(Command::new("/proc/self/exe").arg("callee"))
    }

    /// As [`start`](Self::start), another program that does as [`serve`] does.
    pub(crate) fn of(command: &mut Command) -> Result<Self> {
        sys::pinned(command, 0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the callee")?;
        let commands = child.stdin.take().context("stdin is a pipe")?;
        let answers = BufReader::new(child.stdout.take().context("stdout is a pipe")?);
        let mut callee = Self { child, commands, answers };
        callee.batch(1)?;
        Ok(callee)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Calls the function `count` times; CPU nanoseconds of a call.
    pub(crate) fn batch(&mut self, count: u64) -> Result<f64> {
        writeln!(self.commands, "{count}").context("the callee has ended")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).context("the callee does not answer")?;
        let ns: u64 = answer.trim().parse().context("the callee answers with a number")?;
        Ok(ns as f64 / count as f64)
    }
}

impl Drop for Callee {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's end: serves until standard input is closed.
pub(crate) fn serve() -> Result<()> {
    for line in std::io::stdin().lines() {
        let count: u64 = line?.trim().parse().context("a command is a count")?;
        let cpu = sys::thread_cpu_ns();
        for number in 0..count {
            if call(number, 1, 2, 3) != number + 6 {
                bail!("probes change what it computes");
            }
        }
        let cpu = sys::thread_cpu_ns() - cpu;
        ensure!(cpu > 0, "the clock stands still");
        println!("{cpu}");
    }
    Ok(())
}
