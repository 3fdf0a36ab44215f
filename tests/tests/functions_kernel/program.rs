//! The probed program: this very test, started once more. Its every probed instruction is known; it
//! prints their addresses, then does what each line on its input says, and prints what came out.

use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".text",
    ".globl remora_test_probed, remora_test_probed_return, remora_test_depth",
    ".globl remora_test_depth_return, remora_test_locked, remora_test_refused, remora_test_many",
    ".globl remora_test_leaves, remora_test_leaves_jump, remora_test_left",
    // A push is emulated; a return is stepped.
    "remora_test_probed: push %rbp",
    "mov %rsp, %rbp",
    "lea (%rdi,%rsi), %rax",
    "pop %rbp",
    "remora_test_probed_return: ret",
    "remora_test_depth: push %rbx",
    "mov %rdi, %rbx",
    "xor %eax, %eax",
    "test %rdi, %rdi",
    "je 1f",
    "lea -1(%rdi), %rdi",
    "call remora_test_depth",
    "1: add %rbx, %rax",
    "pop %rbx",
    "remora_test_depth_return: ret",
    // Counts down, and jumps to what follows when it is below zero.
    "remora_test_leaves: push %rbp",
    "pop %rbp",
    "1: sub $1, %rdi",
    "remora_test_leaves_jump: js remora_test_left",
    "jmp 1b",
    "remora_test_left: mov %rdi, %rax",
    "ret",
    // The kernel does not step a lock prefix.
    "remora_test_locked: push %rdi",
    "remora_test_refused: lock addq $1, (%rsp)",
    "pop %rax",
    "ret",
    // Fifty thousand functions of three bytes.
    "remora_test_many: .rept 50000",
    "push %rbp",
    "pop %rbp",
    "ret",
    ".endr",
    options(att_syntax)
);

unsafe extern "C" {
    fn remora_test_probed(a: i64, b: i64, c: *const u8, d: *const u8, e: i64, f: i64) -> i64;
    fn remora_test_probed_return();
    fn remora_test_depth(n: i64) -> i64;
    fn remora_test_depth_return();
    fn remora_test_leaves(n: i64) -> i64;
    fn remora_test_leaves_jump();
    fn remora_test_locked(a: i64) -> i64;
    fn remora_test_refused();
    fn remora_test_many();
}

/// How many functions of three bytes there are.
pub(crate) const MANY: usize = 50_000;
const PAGE: usize = 4096;

/// Calls the first function.
fn probed(a: i64, b: i64, c: *const u8, d: *const u8) -> i64 {
    // SAFETY: it adds two numbers and follows no pointer.
    unsafe { remora_test_probed(a, b, c, d, 7, 8) }
}

/// Memory of which the last bytes can be read, and nothing behind them: its end.
fn edge() -> *const u8 {
    let (read_write, private) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping.
    let pages = unsafe { libc::mmap(std::ptr::null_mut(), 2 * PAGE, read_write, private, -1, 0) };
    assert_ne!(pages, libc::MAP_FAILED);
    let pages = pages.cast::<u8>();
    // SAFETY: its first page, which nobody else knows.
    unsafe { std::ptr::write_bytes(pages, b'x', PAGE) };
    // SAFETY: within the mapping.
    let end = unsafe { pages.add(PAGE) };
    // SAFETY: its second page, which nobody uses.
    assert_eq!(unsafe { libc::mprotect(end.cast(), PAGE, libc::PROT_NONE) }, 0);
    end
}

/// Serves until its input ends.
pub(crate) fn run() {
    let places = [
        ("probed", remora_test_probed as *const ()),
        ("probed_return", remora_test_probed_return as *const ()),
        ("depth", remora_test_depth as *const ()),
        ("depth_return", remora_test_depth_return as *const ()),
        ("leaves", remora_test_leaves as *const ()),
        ("leaves_jump", remora_test_leaves_jump as *const ()),
        ("refused", remora_test_refused as *const ()),
        ("many", remora_test_many as *const ()),
    ];
    // What libtest has begun to print ends here.
    println!();
    for (name, place) in places {
        println!("{name} {place:p}");
    }
    // SAFETY: takes nothing and cannot fail.
    println!("thread {:#x}", unsafe { libc::gettid() });
    println!("ready");
    let end = edge();
    for line in io::stdin().lock().lines() {
        let line = line.expect("text");
        let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
        println!("{}", answer(command, rest, end));
        io::stdout().flush().expect("someone reads");
        if command == "exec" {
            let me = std::env::current_exe().expect("it runs");
            panic!("{}", Command::new(me).args(std::env::args().skip(1)).exec());
        }
    }
}

fn answer(command: &str, rest: &str, end: *const u8) -> String {
    let number = || rest.parse::<i64>().expect("a number");
    let nothing = std::ptr::null();
    match command {
        "text" => {
            let text = format!("{rest}\0");
            probed(rest.len() as i64, -5, text.as_ptr(), nothing).to_string()
        }
        "edge" => {
            let from = end.wrapping_sub(number() as usize);
            probed(number(), 0, from, 8 as *const u8).to_string()
        }
        "wild" => probed(1, 1, end, 0xdead_0000_0000 as *const u8).to_string(),
        // SAFETY: it calls itself so often, on a stack that has room for it.
        "depth" => unsafe { remora_test_depth(number()) }.to_string(),
        "leaves" => {
            let (n, times) = rest.split_once(' ').expect("two numbers");
            let (n, times): (i64, i64) = (n.parse().expect("one"), times.parse().expect("one"));
            // SAFETY: it counts down.
            (0..times).map(|_| unsafe { remora_test_leaves(n) }).sum::<i64>().to_string()
        }
        // SAFETY: it adds one to a number.
        "locked" => unsafe { remora_test_locked(number()) }.to_string(),
        "times" => (0..number()).map(|n| probed(n, 1, nothing, nothing)).sum::<i64>().to_string(),
        "thread" => {
            let thread = std::thread::spawn(|| probed(1, 2, std::ptr::null(), std::ptr::null()));
            thread.join().expect("it adds").to_string()
        }
        "many" => {
            let first = remora_test_many as *const () as usize;
            for number in 0..MANY {
                let function = (first + 3 * number) as *const ();
                // SAFETY: one of the functions above, which take and give nothing.
                let function: extern "C" fn() = unsafe { std::mem::transmute(function) };
                function();
            }
            "many".to_owned()
        }
        "fork" => fork(),
        "exec" => "exec".to_owned(),
        _ => panic!("no command {command:?}"),
    }
}

/// A child's id, and what it has computed.
fn fork() -> String {
    // SAFETY: the child only adds and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let sum = probed(20, 3, std::ptr::null(), std::ptr::null());
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(sum as i32) };
    }
    let mut status = 0;
    // SAFETY: `status` is valid.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    format!("{child} {}", libc::WEXITSTATUS(status))
}
