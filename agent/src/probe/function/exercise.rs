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
    ".globl remora_exercise_nop5, remora_exercise_nop5_place, remora_exercise_jumps",
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
    // Whether a conditional jump is taken with these flags: for each condition a function of sixteen bytes,
    // whose third is the jump's first. One of a condition and its opposite is short, the other near.
    ".balign 16",
    "remora_exercise_jumps:",
    ".set condition, 0",
    ".rept 8",
    "push %rdi",
    "popf",
    ".byte 0x70 + condition",
    ".byte 1f - (. + 1)",
    "xor %eax, %eax",
    "ret",
    "1: push $1",
    "pop %rax",
    "ret",
    ".balign 16, 0xcc",
    "push %rdi",
    "popf",
    ".byte 0x0f, 0x81 + condition",
    ".long 1f - (. + 4)",
    "xor %eax, %eax",
    "ret",
    "1: push $1",
    "pop %rax",
    "ret",
    ".balign 16, 0xcc",
    ".set condition, condition + 2",
    ".endr",
    options(att_syntax)
);

#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    fn remora_exercise_emulated(a: u64, b: u64) -> u64;
    fn remora_exercise_stepped(a: u64, b: u64) -> u64;
    fn remora_exercise_read(a: u64, b: u64) -> u64;
    fn remora_exercise_nop5(a: u64) -> u64;
    fn remora_exercise_nop5_place();
    fn remora_exercise_jumps();
}

/// Conditions that a jump can have, each with a function of its own.
pub(super) const CONDITIONS: u64 = 16;

/// Bytes of such a function, and where its jump is.
const JUMPS_BYTES: u64 = 16;
const JUMP_AT: u64 = 2;

/// The flags that conditions ask for: carry, parity, zero, sign and overflow (Intel SDM, volume 1, 3.4.3).
const FLAGS: [u64; 5] = [1 << 0, 1 << 2, 1 << 6, 1 << 7, 1 << 11];

/// Every combination of them.
pub(super) fn flags() -> impl Iterator<Item = u64> {
    let of = |chosen: u32| {
        let flags = FLAGS.iter().enumerate();
        flags.filter(|(bit, _)| chosen >> bit & 1 == 1).fold(0, |sum, (_, flag)| sum | flag)
    };
    (0..1 << FLAGS.len()).map(of)
}

/// Instructions to probe, by their addresses in this process; `None` where there are none.
#[cfg(target_arch = "x86_64")]
pub(super) fn places() -> Option<[u64; 5]> {
    let emulated = remora_exercise_emulated as *const () as u64;
    let stepped = remora_exercise_stepped as *const () as u64;
    let read = remora_exercise_read as *const () as u64;
    let nop5 = remora_exercise_nop5_place as *const () as u64;
    Some([emulated, stepped, read, nop5, remora_exercise_jumps as *const () as u64])
}

/// Where the jump with a condition is, behind where the functions of all of them begin.
pub(super) fn jump(condition: u64) -> u64 {
    condition * JUMPS_BYTES + JUMP_AT
}

/// As above: nothing is written for this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn places() -> Option<[u64; 5]> {
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
            "jumps" => {
                let taken: Vec<String> = (0..CONDITIONS).map(taken).collect();
                println!("{}", taken.join(" "));
            }
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

/// With which combinations of flags a condition jumps: a bit for each, as a number.
fn taken(condition: u64) -> String {
    let jumps = flags().enumerate().filter(|(_, flags)| jumps(*flags, condition));
    jumps.fold(0u32, |taken, (number, _)| taken | 1 << number).to_string()
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

#[cfg(target_arch = "x86_64")]
fn jumps(flags: u64, condition: u64) -> bool {
    let first = remora_exercise_jumps as *const () as usize;
    let function = first + (condition * JUMPS_BYTES) as usize;
    // SAFETY: one of the functions that begin there, one for each condition below `CONDITIONS`.
    let function: extern "C" fn(u64, u64) -> u64 =
        unsafe { std::mem::transmute(function as *const ()) };
    function(flags, condition) == 1
}

#[cfg(not(target_arch = "x86_64"))]
fn jumps(_: u64, _: u64) -> bool {
    false
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
