//! The child's side of the self-test: functions whose every instruction is known, in this very
//! executable, called when the parent says so. Nothing here knows of probes.
#![expect(unsafe_code, reason = "calls functions written in assembly")]

use std::hint::black_box;
use std::io::{self, BufRead};
use std::time::Instant;

use agent_common::function::IMAGE_MAX;

/// Calls of each function in a round.
const CALLS: u32 = 200;

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".text",
    ".globl remora_exercise_emulated, remora_exercise_stepped, remora_exercise_read",
    ".globl remora_exercise_nop5, remora_exercise_nop5_place",
    // The kernel does what a push does, and goes on behind it.
    "remora_exercise_emulated: push %rbp",
    "pop %rbp",
    "lea (%rdi,%rsi), %rax",
    "ret",
    // It runs a copy of this one with the single-step flag set.
    "remora_exercise_stepped: lea (%rdi,%rsi), %rax",
    "ret",
    "remora_exercise_read: push %rbp",
    "lea (%rdi,%rsi), %rax",
    "pop %rbp",
    "ret",
    // A function that calls none keeps its values below the stack pointer (System V psABI, 3.2.2).
    // What replaces a five-byte NOP there by a call overwrites them.
    "remora_exercise_nop5: mov %rdi, -8(%rsp)",
    "remora_exercise_nop5_place: .byte 0x0f, 0x1f, 0x44, 0x00, 0x00",
    "mov -8(%rsp), %rax",
    "ret",
    options(att_syntax)
);

#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    fn remora_exercise_emulated(a: u64, b: u64) -> u64;
    fn remora_exercise_stepped(a: u64, b: u64) -> u64;
    fn remora_exercise_read(a: u64, b: u64) -> u64;
    fn remora_exercise_nop5(a: u64) -> u64;
    fn remora_exercise_nop5_place();
}

/// Instructions to probe, by their addresses in this process; `None` where there are none.
#[cfg(target_arch = "x86_64")]
pub(super) fn places() -> Option<[u64; 4]> {
    let emulated = remora_exercise_emulated as *const () as u64;
    let stepped = remora_exercise_stepped as *const () as u64;
    let read = remora_exercise_read as *const () as u64;
    Some([emulated, stepped, read, remora_exercise_nop5_place as *const () as u64])
}

/// As above: nothing is written for this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn places() -> Option<[u64; 4]> {
    None
}

/// Does what each line on stdin says and answers with a line of numbers; ends with the input.
pub(crate) fn run() -> io::Result<()> {
    for line in io::stdin().lock().lines() {
        match line?.as_str() {
            "calls" => {
                let emulated = nanoseconds(emulated)?;
                let stepped = nanoseconds(stepped)?;
                println!("{emulated} {stepped}");
            }
            "read" => println!("{}", read(3, 5)),
            "thread" => {
                let sum = std::thread::spawn(|| read(30, 50)).join();
                println!("{}", sum.map_err(|_| io::Error::other("the thread has failed"))?);
            }
            "stack" => println!("{}", deep(3, 5)),
            "nop5" => {
                // Such places are rewritten after the first hits.
                let good = (0..4).filter(|_| nop5(0x1234) == 0x1234).count();
                println!("{good}");
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    Ok(())
}

/// Nanoseconds of one call, the best of a few rounds: what comes between is not the probe's.
fn nanoseconds(call: fn(u64, u64) -> u64) -> io::Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let begun = Instant::now();
        for number in 0..u64::from(CALLS) {
            if call(number, 7) != number + 7 {
                return Err(io::Error::other("it computes something else"));
            }
        }
        best = best.min(begun.elapsed().as_nanos() as f64 / f64::from(CALLS));
    }
    Ok(best)
}

/// Calls the emulated function where the stack reaches far.
fn deep(a: u64, b: u64) -> u64 {
    let mut room = [1u8; 2 * IMAGE_MAX];
    black_box(&mut room);
    let sum = emulated(a, b);
    black_box(&mut room);
    sum
}

#[cfg(target_arch = "x86_64")]
fn emulated(a: u64, b: u64) -> u64 {
    // SAFETY: the function above takes two numbers and touches nothing else.
    unsafe { remora_exercise_emulated(a, b) }
}

#[cfg(target_arch = "x86_64")]
fn stepped(a: u64, b: u64) -> u64 {
    // SAFETY: as above.
    unsafe { remora_exercise_stepped(a, b) }
}

#[cfg(target_arch = "x86_64")]
fn read(a: u64, b: u64) -> u64 {
    // SAFETY: as above.
    unsafe { remora_exercise_read(a, b) }
}

#[cfg(target_arch = "x86_64")]
fn nop5(a: u64) -> u64 {
    // SAFETY: the function above takes a number and touches nothing but its own red zone.
    unsafe { remora_exercise_nop5(a) }
}

#[cfg(not(target_arch = "x86_64"))]
fn emulated(a: u64, b: u64) -> u64 {
    a + b
}

#[cfg(not(target_arch = "x86_64"))]
fn stepped(a: u64, b: u64) -> u64 {
    a + b
}

#[cfg(not(target_arch = "x86_64"))]
fn read(a: u64, b: u64) -> u64 {
    a + b
}

#[cfg(not(target_arch = "x86_64"))]
fn nop5(a: u64) -> u64 {
    a
}
