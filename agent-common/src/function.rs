//! Function probes: what a hit tells, and the bytecode that says what it reads.
//!
//! A probe sits on one instruction, a *site*. The probe's [`cookie`] holds the site's number, an index
//! of the map of [`Site`]s; the site names its code, a run of [`Op`]s in the map of code. One
//! interpreter runs them all, so that what a probe reads is changed by writing a map.
//!
//! The machine has one accumulator of 64 bits and [`SLOTS`] slots to keep values in. It only jumps
//! forward. What it writes is a row of *chunks* behind the [`Hit`]: a [`Chunk`] header, then its
//! bytes, padded to eight. A chunk is opened by [`op::CHUNK`] and grows by every op that says
//! "appends", until the next one is opened.

use crate::Header;

/// One hit of a site, followed by `copied` bytes of chunks.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hit {
    /// Kind [`kind::HIT`](crate::kind::HIT), flags [`hit_flags`]. [`Header::cpu_seq`] is 0: a program
    /// that can be preempted has no order on its CPU. The ring keeps the order of each thread.
    pub header: Header,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// The runtime's own id of its unit of work, if [`Hit::task_kind`] says so.
    pub task: u64,
    /// The canonical stack pointer: address of the slot that holds the function's return address.
    /// The same at the entry and at every return of one call; lower for what it calls. For a goroutine
    /// less the upper end of its stack (wrapping), because Go moves stacks.
    pub sp: u64,
    /// The site's number.
    pub site: u32,
    /// Calls of the site's function, by whatever process, that were not told since the last that was,
    /// because the budget or a rate was used up.
    pub suppressed: u32,
    /// Bytes of chunks that follow.
    pub copied: u16,
    /// One of [`task_kind`](crate::task_kind).
    pub task_kind: u8,
    /// One of [`left_out`]: whether its stack is missing, and why.
    pub stack: u8,
    /// Hits of this very thread that found no room since the last that was told.
    pub lost: u32,
}

/// Why no [`Image`] precedes a [`Hit`] that asks for one.
pub mod left_out {
    /// It does, or none was asked for.
    pub const NOT: u8 = 0;
    /// What stacks may cost the process was used up.
    pub const BUDGET: u8 = 1;
    /// So much is not copied a second.
    pub const RATE: u8 = 2;
    /// There was no room.
    pub const ROOM: u8 = 3;
}

/// Bits of [`Header::flags`] in a [`Hit`]; the first three are what the [`Site`] is.
pub mod hit_flags {
    /// Nothing has happened, so there is no [`Hit`].
    pub const NOTHING: u8 = 0;
    /// The function was entered.
    pub const ENTRY: u8 = 1;
    /// The function is about to return.
    pub const RETURN: u8 = 1 << 1;
    /// The function is about to jump into another in its place.
    pub const TAIL_CALL: u8 = 1 << 2;
    /// Neither: something happened (an exception, a static tracepoint).
    pub const EVENT: u8 = 1 << 3;
    /// The scratch was full, or the code ran too long: later chunks are missing.
    pub const CUT: u8 = 1 << 4;
}

/// A probed instruction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Index of its first [`Op`] in the map of code.
    pub code: u32,
    /// How many there are; 0: nothing is read.
    pub ops: u8,
    /// When a hit means something: [`condition`].
    pub condition: u8,
    /// What it is: [`hit_flags`].
    pub flags: u8,
    /// One of [`task_kind`](crate::task_kind): how the task is found.
    pub task_kind: u8,
    /// What is added to the stack pointer to have the canonical one: bytes pushed since the entry.
    pub sp_adjust: i32,
    /// Its function, an index of the map of functions' budgets.
    pub function: u32,
    /// For a goroutine: where its id lies within the `g` structure.
    pub task_offset: u32,
    /// What a hit costs the target, measured at start, nanoseconds.
    pub cost_ns: u32,
}

/// [`Site::condition`]: a jump is only an end where it is taken.
pub mod condition {
    /// Every hit means something.
    pub const ALWAYS: u8 = 0;
    /// A conditional jump (`Jcc`): a hit means something if the flags let it jump. The four bits below
    /// are its condition code as x86 encodes it (Intel SDM, volume 1, appendix B).
    pub const JUMPS: u8 = 1 << 4;
    /// The condition code's.
    pub const CODE_MASK: u8 = 15;
}

/// A site's number: its place in the map of sites, and above that how often another site has had the place
/// before. A hit that was told of the other one, and is read late, is not taken for one of this.
pub mod site_number {
    /// Bits of the place.
    pub const PLACE_BITS: u32 = 20;
    /// The place's.
    pub const PLACE_MASK: u32 = (1 << PLACE_BITS) - 1;
}

/// What a probe's cookie holds: the number of its site in the low 32 bits, then the number of its link,
/// then the link's generation: 0 or 1, changed each time a link is replaced.
pub mod cookie {
    /// Where the link's number begins.
    pub const LINK_SHIFT: u32 = 32;
    /// Its bits.
    pub const LINK_MASK: u32 = (1 << 30) - 1;
    /// Where the generation begins.
    pub const GENERATION_SHIFT: u32 = 62;
    /// What the map of links holds for a link of which nothing is told any more: no generation.
    pub const SILENT: u32 = 2;
}

/// A function's state in the kernel half, shared by all CPUs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Function {
    /// Most calls told in a window of [`RATE_WINDOW_SHIFT`]; 0: no limit.
    pub limit: u64,
    /// The window's number.
    pub window: u64,
    /// Calls in it.
    pub used: u64,
    /// Calls that were not told since the last that was.
    pub suppressed: u64,
    /// 1 once a call was not told.
    pub suppresses: u64,
}

/// What the kernel half has counted for a function, on each CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Hits that were told.
    pub told: u64,
    /// Entries and events that were not, because the budget or the rate was used up.
    pub suppressed: u64,
    /// Hits that found no room.
    pub lost: u64,
    /// Hits that a condition has dropped ([`op::DROP`]).
    pub dropped: u64,
    /// What all hits have cost by [`Site::cost_ns`], nanoseconds.
    pub cost_ns: u64,
}

/// A process's budget is for a window of this power of two nanoseconds (134 ms).
pub const BUDGET_WINDOW_SHIFT: u64 = 27;

/// What hits and copies of stacks may cost together, in parts of a budget (numerator, denominator): the rest
/// is for hits alone. More than what stays of functions when some are detached.
pub const IMAGE_BUDGET: (u64, u64) = (3, 4);

/// What one copy of a stack is taken to have cost at the most, in what the self-test measured: it may have
/// been interrupted.
pub const IMAGE_COSTS_MOST: u64 = 16;

/// Budgets that a process may spend before it is acted upon at once: one CPU's in one window wake the
/// reader.
pub const BUDGET_GROSS: u64 = 4;

/// A function's rate is for a window of this power of two nanoseconds (1.07 s).
pub const RATE_WINDOW_SHIFT: u64 = 30;

/// How many slots the machine has.
pub const SLOTS: usize = 4;

/// Most [`Op`]s of one site.
pub const OPS_MAX: usize = 160;

/// Most bytes of chunks of one hit.
pub const CHUNKS_MAX: usize = 2048;

/// What a thread's stack was when something happened, to be unwound: its registers, and `copied` bytes of
/// memory from the stack pointer on. The record of what happened follows, with the same time and thread.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Kind [`kind::IMAGE`](crate::kind::IMAGE); [`Header::cpu_seq`] is 0, as in a [`Hit`].
    pub header: Header,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// The number of the site that was hit; [`IMAGE_OF_SIGNAL`] for a signal.
    pub site: u32,
    /// Bytes that follow.
    pub copied: u32,
    /// Bits of [`image_flags`].
    pub flags: u32,
    /// How an interpreter writes its frames, as user space calls it: [`layout::WRITTEN`].
    pub written: u32,
    /// By DWARF's numbers, up to [`register::RIP`].
    pub registers: [u64; IMAGE_REGISTERS],
}

/// Bits of [`Image::flags`].
pub mod image_flags {
    /// What comes next could not be read: it is not there, or not in memory.
    pub const FAULT: u32 = 1;
    /// What follows are [`InterpretedFrame`](super::InterpretedFrame)s instead of the stack.
    pub const INTERPRETED: u32 = 1 << 1;
    /// There are more frames.
    pub const CUT: u32 = 1 << 2;
}

/// A frame of an interpreter's, the innermost first, followed by its function's name, its file's and the
/// start of the table of its lines; those padded together to eight bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterpretedFrame {
    /// The line on which its code begins.
    pub first_line: u32,
    /// How far into its code it is, bytes.
    pub at: i32,
    /// Who owns it, as the interpreter says.
    pub owner: u8,
    /// Bits of [`frame_flags`].
    pub flags: u8,
    /// Bytes of the function's name.
    pub name: u16,
    /// Bytes of the file's name.
    pub file: u16,
    /// Bytes of the table.
    pub table: u16,
    /// How the names are written: [`string_bits`].
    pub states: [u32; 2],
    /// How long the names are, characters.
    pub lengths: [u32; 2],
}

/// Bits of [`InterpretedFrame::flags`].
pub mod frame_flags {
    /// The function's name could not be read.
    pub const NO_NAME: u8 = 1;
    /// The file's could not.
    pub const NO_FILE: u8 = 1 << 1;
    /// The table could not.
    pub const NO_TABLE: u8 = 1 << 2;
    /// There is more of the table.
    pub const TABLE_CUT: u8 = 1 << 3;
}

/// Bits of [`InterpretedFrame::states`].
pub mod string_bits {
    /// Bytes of a character.
    pub const KIND: u32 = 7;
    /// Its characters lie behind the string itself.
    pub const COMPACT: u32 = 1 << 3;
    /// All of them are ASCII's.
    pub const ASCII: u32 = 1 << 4;
    /// All of the bits.
    pub const ALL: u32 = 31;
}

/// Most bytes of a function's name, of a file's and of a table of lines.
pub const FRAME_TEXT_MAX: [u16; 3] = [96, 160, 512];

/// Most frames of an interpreter's.
pub const INTERPRETED_MAX: usize = 40;

/// What [`op::FRAMES`] is told of an interpreter: indices of the constants behind it.
pub mod layout {
    /// In a frame: its code.
    pub const FRAME_CODE: usize = 0;
    /// In a frame: the one that has called it.
    pub const FRAME_PREVIOUS: usize = 1;
    /// In a frame: the instruction that it is at.
    pub const FRAME_INSTRUCTION: usize = 2;
    /// In a frame: a byte that says who owns it. [`NOWHERE`]: nothing does.
    pub const FRAME_OWNER: usize = 3;
    /// In code: its first line, four bytes.
    pub const CODE_LINE: usize = 4;
    /// In code: the name of its file.
    pub const CODE_FILE: usize = 5;
    /// In code: its name.
    pub const CODE_NAME: usize = 6;
    /// In code: the table of its lines.
    pub const CODE_TABLE: usize = 7;
    /// In code: its instructions.
    pub const CODE_START: usize = 8;
    /// In a string: its length.
    pub const STRING_LENGTH: usize = 9;
    /// In a string: how it is written, four bytes.
    pub const STRING_STATE: usize = 10;
    /// In a string: its characters, if all are ASCII's.
    pub const STRING_TEXT: usize = 11;
    /// In bytes: how many.
    pub const BYTES_LENGTH: usize = 12;
    /// In bytes: they.
    pub const BYTES: usize = 13;
    /// How [`FRAME_INSTRUCTION`] says it: 0 as a pointer, which lies behind [`CODE_START`], else as a number
    /// of four bytes that counts so many bytes each.
    pub const INSTRUCTION_UNIT: usize = 14;
    /// What becomes [`Image::written`](super::Image::written).
    pub const WRITTEN: usize = 15;
    /// By how many bits [`STRING_STATE`] is to be shifted for [`string_bits`](super::string_bits).
    pub const STRING_SHIFT: usize = 16;
    /// In a string: its characters, if some are not ASCII's.
    pub const STRING_WIDE: usize = 17;
    /// How many constants there are.
    pub const COUNT: usize = 18;

    /// There is no such thing.
    pub const NOWHERE: u32 = u16::MAX as u32;

    const _: () = assert!(COUNT.is_multiple_of(2));
}

/// [`Image::site`] of a signal.
pub const IMAGE_OF_SIGNAL: u32 = u32::MAX;

/// Registers in an [`Image`].
pub const IMAGE_REGISTERS: usize = 17;

/// Most bytes of a stack that are copied; a power of two.
pub const IMAGE_MAX: usize = 16384;

/// One instruction of the machine.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Op {
    /// One of [`op`].
    pub code: u8,
    /// A register ([`register`]), a slot, or a comparison ([`compare`]).
    pub a: u8,
    /// A size in bytes, or how many ops a jump leaves out.
    pub b: u16,
    /// A constant.
    pub imm: i32,
}

/// What an [`Op`] does. An op that reads memory and fails marks the open chunk
/// [`chunk_status::FAULT`] and goes on at the next [`CHUNK`](op::CHUNK) or the end;
/// an address below 4096 fails without being tried, and after two failures in a hit every read does.
pub mod op {
    /// The end of the code.
    pub const END: u8 = 0;
    /// The accumulator becomes register `a`.
    pub const REGISTER: u8 = 1;
    /// The accumulator becomes the canonical stack pointer (DWARF's CFA is 8 above it).
    pub const STACK_POINTER: u8 = 2;
    /// The accumulator becomes `imm`, sign-extended.
    pub const CONSTANT: u8 = 3;
    /// `imm` is added to the accumulator.
    pub const ADD: u8 = 4;
    /// The accumulator becomes the `b` bytes (1, 2, 4 or 8) that lie `imm` behind where it points,
    /// zero-extended.
    pub const LOAD: u8 = 5;
    /// Slot `a` becomes the accumulator.
    pub const SAVE: u8 = 6;
    /// The accumulator becomes slot `a`.
    pub const RECALL: u8 = 7;
    /// Opens chunk number `imm`.
    pub const CHUNK: u8 = 8;
    /// Appends the low `b` bytes (1 to 8) of the accumulator.
    pub const PUT: u8 = 9;
    /// Appends the `imm` bytes that the accumulator points at; the accumulator stays.
    pub const COPY: u8 = 10;
    /// Appends slot `a` times `b` bytes that the accumulator points at, at most `imm`; the chunk is
    /// marked [`chunk_status::CUT`](super::chunk_status::CUT) if that were more.
    pub const COPY_COUNTED: u8 = 11;
    /// Appends the zero-terminated string that the accumulator points at, without its zero, at most
    /// `imm` bytes.
    pub const STRING: u8 = 12;
    /// Leaves out the next `b` ops if the accumulator, compared ([`compare`](super::compare) `a`)
    /// with `imm` (sign-extended), holds.
    pub const SKIP_IF: u8 = 13;
    /// Leaves out the next `b` ops.
    pub const SKIP: u8 = 14;
    /// The hit is not told: a condition of the user's does not hold.
    pub const DROP: u8 = 15;
    /// Appends the addresses on the user stack as frame pointers tell them, the site's own first, at
    /// most `imm` of them, eight bytes each.
    pub const STACK: u8 = 16;
    /// The accumulator is shifted left (`a` 0), right (`a` 1) or right with its sign (`a` 2) by
    /// `imm` bits.
    pub const SHIFT: u8 = 17;
    /// The accumulator and `imm` (sign-extended) are and-ed.
    pub const AND: u8 = 18;
    /// Slot `a` is added to the accumulator.
    pub const ADD_SLOT: u8 = 19;
    /// An [`Image`](super::Image) of the stack is written before the hit, unless that is dropped.
    pub const IMAGE: u8 = 20;
    /// An [`Image`](super::Image) with the frames of an interpreter is written before the hit, unless that
    /// is dropped. The accumulator points at the innermost. The ops behind it are left out: their
    /// `b` and `imm` are the constants of a [`layout`](super::layout), two of them in each.
    pub const FRAMES: u8 = 21;
    /// Two constants of [`FRAMES`]'s.
    pub const CONSTANT_OF_FRAMES: u8 = 22;
}

/// Comparisons of [`op::SKIP_IF`].
pub mod compare {
    /// Equal.
    pub const EQ: u8 = 0;
    /// Not equal.
    pub const NE: u8 = 1;
    /// Less, unsigned.
    pub const LT: u8 = 2;
    /// Less or equal, unsigned.
    pub const LE: u8 = 3;
    /// Less, signed.
    pub const LT_SIGNED: u8 = 4;
    /// Less or equal, signed.
    pub const LE_SIGNED: u8 = 5;
    /// Greater, unsigned.
    pub const GT: u8 = 6;
    /// Greater or equal, unsigned.
    pub const GE: u8 = 7;
    /// Greater, signed.
    pub const GT_SIGNED: u8 = 8;
    /// Greater or equal, signed.
    pub const GE_SIGNED: u8 = 9;
}

/// Registers, numbered as DWARF numbers them for x86-64 (System V psABI, figure 3.36).
pub mod register {
    /// `rax`
    pub const RAX: u8 = 0;
    /// `rdx`
    pub const RDX: u8 = 1;
    /// `rcx`
    pub const RCX: u8 = 2;
    /// `rbx`
    pub const RBX: u8 = 3;
    /// `rsi`
    pub const RSI: u8 = 4;
    /// `rdi`
    pub const RDI: u8 = 5;
    /// `rbp`
    pub const RBP: u8 = 6;
    /// `rsp`
    pub const RSP: u8 = 7;
    /// `r8`; `r9` to `r15` follow.
    pub const R8: u8 = 8;
    /// `r14`, where Go keeps its `g`.
    pub const R14: u8 = 14;
    /// `rip`
    pub const RIP: u8 = 16;
}

/// What precedes the bytes of a chunk. The bytes are padded to a multiple of eight.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Its number, from [`op::CHUNK`].
    pub number: u16,
    /// Bits of [`chunk_status`].
    pub status: u16,
    /// Its bytes, without padding.
    pub bytes: u32,
}

/// Bits of [`Chunk::status`].
pub mod chunk_status {
    /// Memory could not be read: the chunk ends before what could not.
    pub const FAULT: u16 = 1;
    /// The value was longer than what was asked for.
    pub const CUT: u16 = 1 << 1;
}

const _: () = {
    assert!(size_of::<Hit>() == 56);
    assert!(size_of::<Site>() == 24);
    // Site::ops
    assert!(OPS_MAX <= u8::MAX as usize);
    assert!(size_of::<Op>() == 8);
    assert!(size_of::<Image>() == 176);
    assert!(size_of::<InterpretedFrame>() == 32);
    assert!(size_of::<Function>() == 40);
    assert!(size_of::<Counts>() == 40);
    assert!(size_of::<Chunk>() == 8);
};
