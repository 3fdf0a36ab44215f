//! Sites in small functions that are written here, and in whole programs.

mod survey;

use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::inspect::debug_file::Lookup;

/// A directory that is removed with what was built in it.
pub(super) struct Built(PathBuf);

impl Built {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("remora-code-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a source and runs a compiler on it; `None` if there is no such compiler.
    pub(super) fn build(&self, source: &str, text: &str, command: &[&str]) -> Option<PathBuf> {
        std::fs::write(self.path(source), text).expect("a source");
        let (program, args) = command.split_first().expect("a program");
        let mut command = Command::new(program);
        command.args(args).args(["-o", "built", source]).current_dir(&self.0);
        match command.output() {
            Ok(output) => {
                let errors = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{program}: {errors}");
                Some(self.path("built"))
            }
            Err(_) => {
                println!("skipped: needs {program}");
                None
            }
        }
    }
}

impl Drop for Built {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Functions, and where their probes go: distances from the function, the bytes that are added to the
/// stack pointer if there are any, and whether the kernel emulates what is under the entry.
const FUNCTIONS: &[(&str, &str, &str)] = &[
    ("push", "push %rbp; mov %rsp,%rbp; pop %rbp; ret", "entry +0 cheap; return +5"),
    ("marked", "endbr64; push %rbx; pop %rbx; ret", "entry +4 cheap; return +6"),
    ("marked_dear", "endbr64; mov %edi,%eax; ret", "entry +4; return +6"),
    (
        "below",
        "mov %edi,%eax; push %rbx; push %r12; pop %r12; pop %rbx; ret",
        "entry +2 cheap; return +8",
    ),
    (
        "second_push",
        "sub $24,%rsp; push %rbx; pop %rbx; add $24,%rsp; ret",
        "entry +4 cheap 24; return +10",
    ),
    ("flags", "nop; push %rdi; popf; pushf; pop %rax; ret", "entry +0 cheap; return +5"),
    // What clobbers an argument ends the search.
    ("clobbers", "xor %edi,%edi; push %rbx; pop %rbx; ret", "entry +0; return +4"),
    ("clobbers_memory", "movl $0,(%rdi); push %rbx; pop %rbx; ret", "entry +0; return +8"),
    ("saves_in_frame", "mov %rdi,-8(%rsp); push %rbx; pop %rbx; ret", "entry +5 cheap; return +7"),
    (
        "below_its_frame",
        "sub $8,%rsp; mov %rdi,(%rsp); push %rbx; pop %rbx; add $8,%rsp; ret",
        "entry +8 cheap 8; return +14",
    ),
    // Never a NOP of five bytes; one of another size is cheap.
    ("nop5", ".byte 0x0f,0x1f,0x44,0,0; mov %edi,%eax; ret", "entry +5; return +7"),
    ("nop4", ".byte 0x0f,0x1f,0x40,0; mov %edi,%eax; ret", "entry +0 cheap; return +6"),
    ("locked", "lock incl (%rdi); ret", "refused: the kernel refuses a probe on the instruction"),
    // A step's trap flag is never stored, and no turn of a loop is a call.
    ("stores_flags", "pushf; pop %rax; ret", "entry +1 8; return +2"),
    ("restores_flags", "pushf; cld; popf; ret", "entry +1 8; return +3"),
    ("repeats", "rep stosb; ret", "refused: the kernel refuses a probe on the instruction"),
    // An aborted transaction goes on elsewhere.
    (
        "transaction",
        "push %rbx; xbegin 1f; xend; pop %rbx; ret; 1: pop %rbx; ret",
        "entry +0 cheap; return +11; return +13",
    ),
    (
        "begins_transaction",
        "xbegin 1f; 1: ret",
        "refused: the kernel refuses a probe on the instruction",
    ),
    // A branch counts only if every way passes it, once.
    ("branches", "test %edi,%edi; je 1f; push %rbx; pop %rbx; 1: ret", "entry +2 cheap; return +6"),
    (
        "loops",
        "1: dec %edi; jne 1b; push %rbx; pop %rbx; ret",
        "refused: its first instructions are within a loop",
    ),
    (
        "all_loops",
        "1: lea -1(%rax),%rax; test %rax,%rax; jne 1b; push %rbx; pop %rbx; ret",
        "entry +9 cheap; return +11",
    ),
    // Ends.
    (
        "two_ends",
        "push %rbx; test %edi,%edi; je 1f; pop %rbx; ret; 1: pop %rbx; xor %eax,%eax; ret",
        "entry +0 cheap; return +6; return +10",
    ),
    ("tail", "push %rbx; pop %rbx; jmp push", "entry +0 cheap; tail +2"),
    ("tail_pointer", "push %rbx; pop %rbx; jmp *%rdi", "entry +0 cheap; tail +2"),
    (
        "tail_vtable",
        "push %rbx; mov (%rdi),%rax; pop %rbx; jmp *16(%rax)",
        "entry +0 cheap; tail +5",
    ),
    (
        "tail_notrack",
        "push %rbx; pop %rbx; notrack jmp *%rdi",
        "refused: the kernel refuses a probe on the instruction",
    ),
    ("thunk", "push %rbx; pop %rbx; jmp __x86_return_thunk", "entry +0 cheap; return +2"),
    // Ends that are ends if a condition holds. Nothing behind them is passed by every call.
    ("tail_if", "test %edi,%edi; je push; ret", "entry +0; tail if 4 +2; return +8"),
    (
        "tail_if_cheap",
        "nop; test %edi,%edi; jg push; push %rbx; pop %rbx; ret",
        "entry +0 cheap; tail if 15 +3; return +11",
    ),
    (
        "tails_if",
        "push %rbx; test %edi,%edi; pop %rbx; js push; cmp $7,%edi; jb marked; jmp below",
        "entry +0 cheap; tail if 8 +4; tail if 2 +13; tail +19",
    ),
    (
        "tail_if_into_midst",
        "test %edi,%edi; jne marked+4; ret",
        "entry +0; tail if 5 +2; return +8",
    ),
    (
        "thunk_if",
        "test %edi,%edi; jne __x86_return_thunk; push %rbx; pop %rbx; ret",
        "entry +0; return if 5 +2; return +10",
    ),
    ("tail_if_looping", "nop; 1: dec %edi; js push; jmp 1b", "entry +0 cheap; tail if 8 +3"),
    ("tail_if_first", "je push; mov %edi,%eax; ret", "refused: it is shorter than its probes"),
    (
        "tail_if_with_frame",
        "push %rbx; test %edi,%edi; je push; pop %rbx; ret",
        "refused: it jumps into other code",
    ),
    (
        "tail_if_unbalanced",
        "mov %rdi,%rsp; test %edi,%edi; je push; ret",
        "refused: the stack pointer is not known at the end",
    ),
    (
        "tail_if_hinted",
        "test %edi,%edi; .byte 0x2e; je push; ret",
        "refused: the kernel refuses a probe on the instruction",
    ),
    ("tail_if_counted", "nop; jrcxz counted; ret", "refused: it may end at the conditional jump"),
    ("counted", "mov %edi,%eax; ret", "entry +0; return +2"),
    // Where they begin they end.
    ("only_jump", "jmp push", "entry and tail +0 cheap"),
    ("only_return", "ret", "entry and return +0"),
    ("only_return_pops", "ret $8", "entry and return +0"),
    ("only_pointer", "jmp *%rdi", "entry and tail +0"),
    (
        "only_jump_notrack",
        "notrack jmp *%rdi",
        "refused: the kernel refuses a probe on the instruction",
    ),
    ("only_loop", "1: jmp 1b", "refused: its first instructions are within a loop"),
    ("short_marked", "endbr64; jmp push", "entry and tail +4 cheap"),
    ("returns_marked", "endbr64; ret", "entry and return +4"),
    ("with_frame", "push %rbx; jmp push", "refused: it jumps into other code"),
    ("never", "push %rbx; 1: jmp 1b", "entry +0 cheap"),
    ("traps", "push %rbx; ud2", "entry +0 cheap"),
    ("falls", "push %rbx; pop %rbx", "refused: its code runs on into what follows it"),
    ("pops_args", "push %rbx; pop %rbx; ret $16", "entry +0 cheap; return +2"),
    ("unbalanced", "push %rbx; ret", "refused: the stack pointer is not known at the end"),
    // Data between the code, with a byte that is a return's.
    (
        "data_between",
        "push %rbx; jmp 1f; .byte 0xc3,0xc3,0xe8; 1: pop %rbx; ret",
        "entry +0 cheap; return +7",
    ),
    // A call that does not return, before a piece with another frame.
    (
        "noreturn",
        "push %rbx; test %edi,%edi; je 1f; pop %rbx; ret; 1: call never; 2: pop %rbx; nop; ret",
        "entry +0 cheap; return +6; return +14",
    ),
    (
        "noreturn_conflict",
        "cmp $1,%edi; je 2f; push %rbx; test %edi,%edi; je 1f; pop %rbx; ret; 1: call never; 2: mov %edi,%eax; ret",
        "entry +3 cheap; return +11; return +19",
    ),
    // Frames that are aligned, and by other registers.
    (
        "aligned",
        "push %rbp; mov %rsp,%rbp; and $-32,%rsp; sub $64,%rsp; leave; ret",
        "entry +0 cheap; return +13",
    ),
    (
        "realigned",
        "lea 8(%rsp),%r10; and $-32,%rsp; push -8(%r10); push %rbp; mov %rsp,%rbp; push %r10; \
      sub $40,%rsp; mov -8(%rbp),%r10; leave; lea -8(%r10),%rsp; ret",
        "entry +0; return +32",
    ),
    (
        "variable",
        "push %rbp; mov %rsp,%rbp; sub %rdi,%rsp; lea -8(%rbp),%rsp; mov %rbp,%rsp; pop %rbp; ret",
        "entry +0 cheap; return +15",
    ),
    (
        "probed_stack",
        "lea -0x5000(%rsp),%r11; 1: sub $0x1000,%rsp; orq $0,(%rsp); cmp %r11,%rsp; jne 1b; \
      add $0x5000,%rsp; ret",
        "entry +0; return +32",
    ),
    // Tables of jumps.
    (
        "table",
        "cmp $2,%edi; ja 9f; mov %edi,%eax; lea 5f(%rip),%rdx; movslq (%rdx,%rax,4),%rax; \
      add %rdx,%rax; notrack jmp *%rax; 1: mov $1,%eax; ret; 2: mov $2,%eax; ret; 9: xor %eax,%eax; ret; \
      .section .rodata; .align 4; 5: .long 1b-5b,2b-5b,1b-5b; .long 0xc3c3c3; .text",
        "entry +3 cheap; return +29; return +35; return +38",
    ),
    (
        "table_of_any_size",
        "movzbl (%rdi),%eax; lea 5f(%rip),%rcx; movslq (%rcx,%rax,4),%rax; add %rcx,%rax; \
      jmp *%rax; 1: mov $1,%eax; ret; 2: mov $2,%eax; ret; \
      .section .rodata; .align 4; 5: .long 1b-5b,2b-5b; .long 0x7fffffff; .text",
        "entry +0; return +24; return +30",
    ),
    // What is compared in memory is what is loaded from there, unless something was stored meanwhile.
    (
        "table_compared_in_memory",
        "cmpl $1,8(%rdi); ja 9f; mov 8(%rdi),%eax; lea 5f(%rip),%rdx; movslq (%rdx,%rax,4),%rax; \
      add %rdx,%rax; jmp *%rax; 1: mov $1,%eax; ret; 9: xor %eax,%eax; ret; 3: mov $3,%eax; ret; \
      .section .rodata; .align 4; 5: .long 1b-5b,9b-5b,3b-5b; .text",
        "entry +4 cheap; return +30; return +33",
    ),
    (
        "table_after_a_store",
        "cmpl $1,8(%rdi); ja 9f; movl $2,(%rsi); mov 8(%rdi),%eax; lea 5f(%rip),%rdx; \
      movslq (%rdx,%rax,4),%rax; add %rdx,%rax; jmp *%rax; 1: mov $1,%eax; ret; 9: xor %eax,%eax; ret; \
      3: mov $3,%eax; ret; .section .rodata; .align 4; 5: .long 1b-5b,9b-5b,3b-5b,0x7fffffff; .text",
        "entry +4 cheap; return +36; return +39; return +45",
    ),
    // The one table that is ever loaded into the register, whatever else comes into it.
    (
        "table_in_a_register",
        "push %rbx; cmp $1,%edi; ja 9f; lea 5f(%rip),%rbx; test %esi,%esi; je 2f; mov %rsi,%rbx; \
      2: mov %edi,%eax; movslq (%rbx,%rax,4),%rax; add %rbx,%rax; jmp *%rax; \
      1: mov $1,%eax; pop %rbx; ret; 9: pop %rbx; ret; \
      .section .rodata; .align 4; 5: .long 1b-5b,9b-5b; .text",
        "entry +0 cheap; return +37; return +39",
    ),
    (
        "two_tables_in_a_register",
        "push %rbx; cmp $1,%edi; ja 9f; lea 5f(%rip),%rbx; test %esi,%esi; je 2f; lea 6f(%rip),%rbx; \
      2: mov %edi,%eax; movslq (%rbx,%rax,4),%rax; add %rbx,%rax; jmp *%rax; \
      1: mov $1,%eax; pop %rbx; ret; 9: pop %rbx; ret; \
      .section .rodata; .align 4; 5: .long 1b-5b,9b-5b; 6: .long 9b-6b,1b-6b; .text",
        "refused: the jump",
    ),
    (
        "table_of_addresses",
        "cmp $1,%rdi; ja 9f; lea 5f(%rip),%rcx; jmp *(%rcx,%rdi,8); 1: inc %eax; ret; \
      9: ret; .section .rodata; .align 8; 5: .quad 1b,9b; .text",
        "entry +4 cheap; return +18; return +19",
    ),
    // Tables of functions: which entry is used is not known.
    (
        "table_of_functions",
        "imul $3,%rdi,%rdi; lea 5f(%rip),%rcx; jmp *8(%rcx,%rdi,8); \
      .data; .align 8; 5: .quad 7, push, 0, 8, marked, 0; .text",
        "entry +0; tail +11",
    ),
    (
        "table_of_functions_loaded",
        "lea 5f(%rip),%rcx; mov (%rcx,%rdi,8),%rax; jmp *%rax; \
      .section .rodata; .align 8; 5: .quad push, marked; .text",
        "entry +0; tail +11",
    ),
    // One that leads into the function itself may be one of its jumps.
    (
        "table_of_both",
        "lea 5f(%rip),%rcx; jmp *(%rcx,%rdi,8); 1: ret; \
      .data; .align 8; 5: .quad push, 1b; .text",
        "refused: the jump",
    ),
    (
        "table_of_nothing",
        "lea 5f(%rip),%rcx; jmp *(%rcx,%rdi,8); \
      .data; .align 8; 5: .quad 0, push; .text",
        "refused: the jump",
    ),
    // A field at a place that the object says, and one of a table at a place that is not known.
    ("field", "mov 56(%rdi),%rax; mov (%rsi,%rax),%rax; jmp *%rax", "entry +0; tail +8"),
    ("field_in_jump", "mov (%rsi),%rax; jmp *(%rsi,%rax)", "entry +0; tail +3"),
    ("scaled_field", "mov (%rsi,%rdi,8),%rax; jmp *%rax", "refused: the jump"),
    ("table_unknown", "lea (%rdi,%rsi),%rax; jmp *%rax", "refused: the jump"),
];

#[test]
fn what_functions_end_with() {
    // As they are compiled that raise an exception in CPython, with and without a value.
    let text = "\
        .text\n\
        .globl none\n.type none,@function\n\
        none: push %rbp; mov %rdi,%rbp; test %rbp,%rbp; je 1f; testb $64,(%rbp); je 2f\n\
        1: mov %rbp,%rsi; xor %edx,%edx; pop %rbp; jmp raise\n\
        2: lea none(%rip),%rdx; xor %eax,%eax; pop %rbp; jmp format\n\
        .size none,.-none\n\
        .globl some\n.type some,@function\n\
        some: mov %rsi,%rdx; test %edi,%edi; je 1f; jmp raise\n\
        1: mov %edi,%edx; test %edx,%edx; jne 3f; xor %edx,%edx; 2: mov %rdi,%rsi; jmp raise\n\
        3: mov $1,%edx; jmp 2b\n\
        .size some,.-some\n\
        .type raise,@function\nraise: push %rbx; pop %rbx; ret\n.size raise,.-raise\n\
        .type format,@function\nformat: push %rbx; pop %rbx; ret\n.size format,.-format\n";
    let built = Built::new("tails");
    let flags = ["gcc", "-nostdlib", "-no-pie", "-Wl,-e,none", "-Wl,-z,noexecstack"];
    let Some(path) = built.build("tails.S", text, &flags) else { return };
    let module = Module::open(&path).expect("a program");
    let index = Index::read(&module, Lookup::below(Path::new("/"))).expect("symbols");
    let ends = |name: &str| -> Vec<(String, bool)> {
        let functions = index.functions(|other| other == name);
        let [function] = functions.as_slice() else { panic!("{name}: {functions:?}") };
        let calls = tail_calls(&module, &index, function).expect("it can be followed");
        let named = |call: TailCall| (index.starting_at(call.target), call.third_is_zero);
        let text = |(name, zero): (Option<&str>, bool)| (name.unwrap_or("?").to_owned(), zero);
        calls.into_iter().map(named).map(text).collect()
    };
    let (raise, format) = ("raise".to_owned(), "format".to_owned());
    assert_eq!(ends("none"), [(raise.clone(), true), (format, false)]);
    assert_eq!(ends("some"), [(raise.clone(), false), (raise, false)], "not on every way there");
}

#[test]
fn what_a_call_was_given_is_still_there() {
    /// A register, and what is added before each pointer is followed.
    type Kept<'a> = Option<(u8, &'a [i32])>;
    let given: &[(&str, &str, Kept<'_>)] = &[
        ("in_frame", "mov 8(%rsp),%rax; mov 0x70(%rax),%rdi; call named", Some((7, &[8, 0x70]))),
        ("in_register", "mov %rsi,%rdx; mov 16(%rbx),%rdi; nop; call named", Some((3, &[16]))),
        ("itself", "mov %r12,%rax; mov %rax,%rdi; call named", Some((12, &[]))),
        ("of_another", "mov %r12,%rdi; call other", None),
        ("changed", "mov (%rbx),%rdi; mov %rsi,%rbx; call named", None),
        ("stored", "mov 8(%rsp),%rdi; mov %rsi,8(%rsp); call named", None),
        ("indexed", "mov (%rbx,%rcx,8),%rdi; call named", None),
        ("lost", "mov (%rcx),%rdi; call other; call named", None),
        ("joined", "test %esi,%esi; je 1f; mov (%rbx),%rdi; 1: call named", None),
    ];
    let mut text = String::from(".text\n");
    for name in ["named", "other"] {
        text.push_str(&format!(".type {name},@function\n{name}:\nret\n.size {name},.-{name}\n"));
    }
    for (name, code, _) in given {
        text.push_str(&format!(
            ".globl {name}\n.type {name},@function\n{name}:\n.cfi_startproc\n{code}\nbehind_{name}:\n\
             nop\nret\n.cfi_endproc\n.size {name},.-{name}\n.globl behind_{name}\n"
        ));
    }
    let built = Built::new("given");
    let flags = ["gcc", "-nostdlib", "-no-pie", "-Wl,-e,itself", "-Wl,-z,noexecstack"];
    let text = text.replace("; ", "\n");
    let Some(path) = built.build("given.S", &text, &flags) else { return };
    let module = Module::open(&path).expect("a program");
    let index = Index::read(&module, Lookup::below(Path::new("/"))).expect("symbols");
    for (name, code, expected) in given {
        let behind = crate::function::exception::data::symbol(&module, &format!("behind_{name}"));
        let found = argument_before(&module, &index, behind.expect("it is there"), "named");
        let found = found.as_ref().map(|kept| (kept.register, kept.offsets.as_slice()));
        assert_eq!(found, *expected, "{code}");
    }
}

#[test]
fn what_every_way_to_a_return_passes_last() {
    /// Whether there is such a place, what is pushed there, and what was saved.
    type Last<'a> = Option<(i32, &'a [(usize, i32)])>;
    let framed =
        "push %rbp; mov %rsp,%rbp; push %r15; mov %rdi,%r15; push %r14; test %edi,%edi; je 1f";
    let leaves = "pop %r14; pop %r15; pop %rbp; ret";
    let arms = format!("{framed}; call other; 1: test %esi,%esi; here: jne 2f; nop; 2: {leaves}");
    let given: &[(&str, &str, Last<'_>)] = &[
        ("arms", &arms, Some((24, &[(5, 8), (15, 16)]))),
        (
            "one_arm",
            "test %edi,%edi; here: je 1f; test %esi,%esi; jne 1f; nop; 1: ret",
            Some((0, &[])),
        ),
        ("in_loop", "push %rbx; 1: dec %edi; here: jne 1b; pop %rbx; ret", None),
        ("before_loop", "test %esi,%esi; here: je 2f; 1: dec %edi; jne 1b; 2: ret", Some((0, &[]))),
        (
            "traps",
            "push %rbx; test %edi,%edi; here: jne 1f; pop %rbx; ret; 1: ud2",
            Some((8, &[(3, 8)])),
        ),
        ("elsewhere", "test %edi,%edi; here: jne 1f; ret; 1: jmp other", None),
        ("straight", "here: mov %edi,%eax; ret", None),
        // What is pushed is the caller's no longer.
        (
            "late",
            "xor %ebx,%ebx; push %rbx; test %edi,%edi; here: jne 1f; nop; 1: pop %rbx; ret",
            Some((8, &[])),
        ),
        (
            "unsaved",
            "mov %rsp,%rbp; push %rbp; test %edi,%edi; here: jne 1f; nop; 1: pop %rbp; ret",
            Some((8, &[])),
        ),
    ];
    let mut text = String::from(".text\n.type other,@function\nother:\nret\n.size other,.-other\n");
    for (name, code, _) in given {
        let code = code.replace("here:", &format!("here_{name}:")).replace("; ", "\n");
        text.push_str(&format!(
            ".globl {name}\n.type {name},@function\n{name}:\n{code}\n.size {name},.-{name}\n\
             .globl here_{name}\n"
        ));
    }
    let built = Built::new("leaving");
    let flags = ["gcc", "-nostdlib", "-no-pie", "-Wl,-e,arms", "-Wl,-z,noexecstack"];
    let Some(path) = built.build("leaving.S", &text, &flags) else { return };
    let module = Module::open(&path).expect("a program");
    let index = Index::read(&module, Lookup::below(Path::new("/"))).expect("symbols");
    for (name, code, expected) in given {
        let functions = index.functions(|other| other == *name);
        let [function] = functions.as_slice() else { panic!("{name}: {functions:?}") };
        let found = place_leaving(&module, &index, function).expect("it can be followed");
        let place = found.as_ref().map(|found| (found.site.sp_adjust, found.saved.as_slice()));
        assert_eq!(place, *expected, "{code}");
        if let Some(Leaving { site, .. }) = found {
            let here = crate::function::exception::data::symbol(&module, &format!("here_{name}"));
            assert_eq!(Some(site.address), here, "{code}");
            assert_eq!((site.kind, site.cost), (SiteKind::Event, CostClass::Emulated), "{code}");
        }
    }
}

#[test]
fn small_functions() {
    let mut text = String::from(
        ".text\n__x86_return_thunk: ret\n.type __x86_return_thunk,@function\n.size __x86_return_thunk,1\n",
    );
    for (name, code, _) in FUNCTIONS {
        let code = code.replace("; ", "\n");
        text.push_str(&format!(
            ".globl {name}\n.type {name},@function\n{name}:\n{code}\n.size {name},.-{name}\n.balign 16,0xcc\n"
        ));
    }
    let built = Built::new("small");
    let flags = ["gcc", "-nostdlib", "-no-pie", "-Wl,-e,push", "-Wl,-z,noexecstack"];
    let Some(path) = built.build("small.S", &text, &flags) else { return };
    let module = Module::open(&path).expect("a program");
    let index = Index::read(&module, Lookup::below(Path::new("/"))).expect("symbols");
    let mut wrong = Vec::new();
    for (name, code, expected) in FUNCTIONS {
        let functions = index.functions(|other| other == *name);
        let [function] = functions.as_slice() else { panic!("{name}: {functions:?}") };
        let found = match place(&module, &index, function) {
            Ok(placement) => described(function.address, &placement),
            Err(refusal) => format!("refused: {refusal}"),
        };
        let fits = match expected.strip_prefix("refused") {
            Some(_) => found.starts_with(expected),
            None => found == *expected,
        };
        if !fits {
            wrong.push(format!("{name}: {code}\n  expected {expected}\n  found    {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each call that is found not to return makes all be followed anew.
#[test]
fn tangled_code_is_given_up() {
    let code = "test %edi,%edi\njne 1f\npush %rax\ncall named\nnop\n1:\n";
    let text = format!(
        ".text\n.type named,@function\nnamed: ret\n.size named,1\n.balign 16\n\
         .globl tangled\n.type tangled,@function\ntangled:\n{}ret\n.size tangled,.-tangled\n",
        code.repeat(40)
    );
    let built = Built::new("tangled");
    let flags = ["gcc", "-nostdlib", "-no-pie", "-Wl,-e,tangled", "-Wl,-z,noexecstack"];
    let Some(path) = built.build("tangled.S", &text, &flags) else { return };
    let module = Module::open(&path).expect("a program");
    let index = Index::read(&module, Lookup::below(Path::new("/"))).expect("symbols");
    let functions = index.functions(|name| name == "tangled");
    let [Function { address, size, language, .. }] = functions.as_slice() else {
        panic!("{functions:?}")
    };
    let program = Binary::new(&module, &index);
    let follow = |looks| Flow::follow_within(&program, *address, *size, *language, looks).err();
    assert_eq!(follow(40 * 5), Some(Refusal::Tangled));
    assert_eq!(follow(40 * 40 * 5), None);
}

/// Functions that run on into the next one, and what is padded behind them.
const RUNS_ON: &[(&str, &str, &str, &str)] = &[
    ("checks", "nop; cmp %edi,%esi; jb away", ".balign 16", "entry +0 cheap; tail +3"),
    ("ends", "push %rbx; mov %edi,%eax; pop %rbx", "", "entry +0 cheap; tail +3 8"),
    ("framed", "push %rbx; mov %edi,%eax", "", "refused: its code runs on"),
    ("padded", "push %rbx; mov %edi,%eax; pop %rbx", "int3", "refused: its code runs on"),
    ("within", "1: nop; dec %edi; jne 1b", "", "refused: its code runs on"),
    ("away", "mov %edi,%eax; ret", "", "entry +0; return +2"),
];

#[test]
fn functions_that_run_on_into_the_next() {
    let mut text = String::from(".text\n");
    for (name, code, padding, _) in RUNS_ON {
        let code = code.replace("; ", "\n");
        text.push_str(&format!(
            ".globl {name}\n.type {name},@function\n{name}:\n{code}\n.size {name},.-{name}\n{padding}\n"
        ));
    }
    let built = Built::new("runs-on");
    let flags = ["gcc", "-nostdlib", "-no-pie", "-Wl,-e,away", "-Wl,-z,noexecstack"];
    let Some(path) = built.build("on.S", &text, &flags) else { return };
    let module = Module::open(&path).expect("a program");
    let index = Index::read(&module, Lookup::below(Path::new("/"))).expect("symbols");
    for (name, code, _, expected) in RUNS_ON {
        let functions = index.functions(|other| other == *name);
        let [function] = functions.as_slice() else { panic!("{name}: {functions:?}") };
        let found = match place(&module, &index, function) {
            Ok(placement) => described(function.address, &placement),
            Err(refusal) => format!("refused: {refusal}"),
        };
        let is_expected = found.starts_with("refused") && found.starts_with(expected);
        assert!(is_expected || found == *expected, "{name}: {code}: {found}");
    }
}

#[test]
fn conditions_are_those_of_their_jumps() {
    let codes =
        ["o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"];
    let mut text = String::from(
        ".text\n.globl _start\n.type _start,@function\n_start: ret\n.size _start,1\n.space 256,0xcc\n",
    );
    for code in codes {
        text.push_str(&format!(".type short_{code},@function\nshort_{code}: nop\nj{code} 1f\n"));
        text.push_str(&format!("ret\n.size short_{code},.-short_{code}\n"));
        text.push_str(&format!(".type next_{code},@function\nnext_{code}: 1: ret\n"));
        text.push_str(&format!(".size next_{code},.-next_{code}\n"));
        text.push_str(&format!(".type near_{code},@function\nnear_{code}: nop\nj{code} _start\n"));
        text.push_str(&format!("ret\n.size near_{code},.-near_{code}\n"));
    }
    let built = Built::new("conditions");
    let flags = ["gcc", "-nostdlib", "-no-pie", "-Wl,-z,noexecstack"];
    let Some(path) = built.build("conditions.S", &text, &flags) else { return };
    let module = Module::open(&path).expect("a program");
    let index = Index::read(&module, Lookup::below(Path::new("/"))).expect("symbols");
    for (number, code) in codes.into_iter().enumerate() {
        for (form, behind) in [("short", 3), ("near", 7)] {
            let functions = index.functions(|name| name == format!("{form}_{code}"));
            let [function] = functions.as_slice() else { panic!("{form}_{code}: {functions:?}") };
            let placement = place(&module, &index, function).expect("it can be probed");
            let expected = format!("entry +0 cheap; tail if {number} +1; return +{behind}");
            assert_eq!(described(function.address, &placement), expected, "{form} {code}");
        }
    }
}

fn described(function: VirtAddr, placement: &Placement) -> String {
    let words: Vec<_> = placement
        .sites()
        .map(|site| {
            let kind = match site.kind {
                SiteKind::Entry => "entry",
                SiteKind::Return => "return",
                SiteKind::TailCall => "tail",
                SiteKind::EntryAndReturn => "entry and return",
                SiteKind::EntryAndTailCall => "entry and tail",
                SiteKind::Event => "event",
            };
            let cheap = if site.kind.is_entry() && site.cost == CostClass::Emulated {
                " cheap"
            } else {
                ""
            };
            let condition = site.jumps_if.map_or(String::new(), |condition| {
                format!(" if {}", condition.wire() & agent_common::function::condition::CODE_MASK)
            });
            let adjust =
                if site.sp_adjust == 0 { String::new() } else { format!(" {}", site.sp_adjust) };
            format!("{kind}{condition} +{}{cheap}{adjust}", site.address.0 - function.0)
        })
        .collect();
    words.join("; ")
}
