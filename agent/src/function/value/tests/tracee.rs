//! A program that is stopped at breakpoints: what the kernel half would see at a probe.

#![expect(unsafe_code, reason = "ptrace")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use agent_common::function::register as number;

use super::super::interpret::Machine;

const BREAKPOINT: u8 = 0xcc;

/// A stopped thread.
pub(super) struct Stopped<'t> {
    registers: libc::user_regs_struct,
    memory: &'t File,
    /// Added to `rsp` to have the canonical stack pointer.
    pub(super) adjust: i32,
}

impl Machine for Stopped<'_> {
    fn register(&self, register: u8) -> u64 {
        let r = &self.registers;
        match register {
            number::RAX => r.rax,
            number::RDX => r.rdx,
            number::RCX => r.rcx,
            number::RBX => r.rbx,
            number::RSI => r.rsi,
            number::RDI => r.rdi,
            number::RBP => r.rbp,
            number::RSP => r.rsp,
            8 => r.r8,
            9 => r.r9,
            10 => r.r10,
            11 => r.r11,
            12 => r.r12,
            13 => r.r13,
            14 => r.r14,
            15 => r.r15,
            number::RIP => r.rip,
            other => panic!("no register {other}"),
        }
    }

    fn stack_pointer(&self) -> u64 {
        self.registers.rsp.wrapping_add_signed(self.adjust.into())
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        self.memory.read_exact_at(bytes, address).is_ok()
    }
}

/// What a caller does at a breakpoint, which is given as its file has it.
pub(super) type Hit<'h> = dyn FnMut(u64, &mut Stopped<'_>) + 'h;

/// Runs a program with breakpoints, given as its file has them, until it ends; returns what it wrote.
pub(super) fn run(program: &Path, breakpoints: &[u64], hit: &mut Hit<'_>) -> String {
    let mut command = Command::new(program);
    command.stdout(Stdio::piped());
    // SAFETY: what runs between fork and exec only asks to be traced, which is async-signal-safe.
    unsafe { command.pre_exec(trace_me) };
    let mut child = command.spawn().expect("the program starts");
    let output = child.stdout.take().expect("it has a pipe");
    // It writes less than a pipe holds before it is read.
    let mut tracer = Tracer::new(child, program);
    for address in breakpoints {
        tracer.set(address + tracer.bias);
    }
    tracer.run(hit);
    let mut text = String::new();
    { output }.read_to_string(&mut text).expect("it writes text");
    text
}

fn trace_me() -> std::io::Result<()> {
    ptrace(libc::PTRACE_TRACEME, 0, 0).map(drop)
}

fn ptrace(request: u32, pid: i32, data: usize) -> std::io::Result<i64> {
    // SAFETY: the requests used here take no address, or that of a structure that lives on.
    let done = unsafe { libc::ptrace(request, pid, 0, data) };
    if done == -1 { Err(std::io::Error::last_os_error()) } else { Ok(done) }
}

struct Tracer {
    child: Child,
    memory: File,
    /// The bytes under the breakpoints.
    under: BTreeMap<u64, u8>,
    bias: u64,
}

impl Tracer {
    fn new(child: Child, program: &Path) -> Self {
        let pid = child.id() as i32;
        assert_eq!(wait(pid).0, pid, "it stops at exec");
        let options = libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
        ptrace(libc::PTRACE_SETOPTIONS, pid, options as usize).expect("options are taken");
        let open = |name: &str, write| {
            let path = format!("/proc/{pid}/{name}");
            File::options().read(true).write(write).open(path).expect("it is there")
        };
        let mut maps = String::new();
        open("maps", false).read_to_string(&mut maps).expect("maps are text");
        let real = program.canonicalize().expect("the program is there");
        let line = maps.lines().find(|line| line.ends_with(real.to_str().expect("a name")));
        let start = line.and_then(|line| line.split('-').next()).expect("it is mapped");
        let start = u64::from_str_radix(start, 16).expect("an address");
        // A program that does not move is linked to where it is mapped.
        let bias = if start < 0x10_0000_0000 { 0 } else { start };
        let memory = open("mem", true);
        Self { child, memory, under: BTreeMap::new(), bias }
    }

    fn set(&mut self, address: u64) {
        let mut byte = [0];
        self.memory.read_exact_at(&mut byte, address).expect("code is readable");
        self.under.entry(address).or_insert(byte[0]);
        self.memory.write_all_at(&[BREAKPOINT], address).expect("code is writable");
    }

    fn run(&mut self, hit: &mut Hit<'_>) {
        let main = self.child.id() as i32;
        let mut go_on = (main, 0);
        loop {
            let (thread, signal) = go_on;
            // A thread that has ended in the meantime is waited for below.
            let _ = ptrace(libc::PTRACE_CONT, thread, signal);
            let (thread, status) = wait(-1);
            go_on = (thread, 0);
            if !libc::WIFSTOPPED(status) {
                if thread == main {
                    assert!(libc::WIFEXITED(status), "it ended with {status:#x}");
                    return;
                }
                continue;
            }
            match libc::WSTOPSIG(status) {
                libc::SIGTRAP if status >> 16 == 0 => self.stopped(thread, hit),
                // An event of a new thread, and that thread's first stop.
                libc::SIGTRAP | libc::SIGSTOP => {}
                signal => go_on.1 = signal as usize,
            }
        }
    }

    fn stopped(&mut self, thread: i32, hit: &mut Hit<'_>) {
        let mut registers = registers(thread);
        let address = registers.rip - 1;
        let Some(under) = self.under.get(&address).copied() else { return };
        registers.rip = address;
        set_registers(thread, &registers);
        let mut stopped = Stopped { registers, memory: &self.memory, adjust: 0 };
        hit(address - self.bias, &mut stopped);
        self.memory.write_all_at(&[under], address).expect("code is writable");
        ptrace(libc::PTRACE_SINGLESTEP, thread, 0).expect("it steps");
        let (stepped, _) = wait(thread);
        assert_eq!(stepped, thread);
        self.memory.write_all_at(&[BREAKPOINT], address).expect("code is writable");
    }
}

/// Waits for children of this very thread: other tests have others.
fn wait(pid: i32) -> (i32, i32) {
    let mut status = 0;
    // SAFETY: `status` is an integer that is written to.
    let pid = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    assert!(pid > 0, "there is something to wait for");
    (pid, status)
}

fn registers(thread: i32) -> libc::user_regs_struct {
    // SAFETY: the structure is integers only, for which zeros are values.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    ptrace(libc::PTRACE_GETREGS, thread, &raw mut registers as usize).expect("it has registers");
    registers
}

fn set_registers(thread: i32, registers: &libc::user_regs_struct) {
    ptrace(libc::PTRACE_SETREGS, thread, &raw const *registers as usize).expect("it takes them");
}
