//! What the first instructions of a function do with its arguments: code that was not optimised puts
//! each into the frame, and its debug information names only that place. The instruction that puts
//! it there proves which register it came in. Bytes in, facts out; what is not recognised proves
//! nothing.

use std::ops::Range;

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register,
};

use crate::inspect::address::VirtAddr;

/// Most instructions that are looked at.
const INSTRUCTIONS_MAX: usize = 160;

/// An argument put into the frame as it was when the function was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Where, relative to the canonical frame address.
    pub(super) at: i64,
    /// Where it came in.
    pub(super) from: Source,
    /// How many of its bytes.
    pub(super) bytes: u8,
}

/// Where an argument comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// DWARF's number of a register.
    Register(u8),
    /// A place above the return address, relative to the canonical frame address.
    Caller(i64),
}

/// What is known of a function's first instructions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Prologue {
    /// First come, first.
    pub(super) stores: Vec<Stored>,
    /// `rbp` relative to the canonical frame address, once it is set.
    pub(super) frame: Option<i64>,
    /// `rsp` relative to it, where the first instructions have brought it.
    pub(super) stack: Option<i64>,
    /// Places in the frame that were written with something else than a register of the entry.
    other: Vec<(i64, i64)>,
    /// Registers, by DWARF's number, that hold something else than at the entry.
    written: u16,
}

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    /// An argument, and how many of its bytes are unchanged.
    Entry(Source, u8),
    /// The canonical frame address and this.
    Frame(i64),
    Other,
}

impl Prologue {
    /// What is put at `at`, relative to the canonical frame address.
    pub(super) fn stored(&self, at: i64) -> Option<Stored> {
        let store = self.stores.iter().find(|store| store.at == at)?;
        let end = at.checked_add(store.bytes.into())?;
        let other = self.other.iter().any(|(from, to)| *from < end && at < *to);
        (!other).then_some(*store)
    }

    /// Whether the first instructions put something else into a register, by DWARF's number.
    pub(super) fn writes(&self, register: u8) -> bool {
        self.written.checked_shr(register.into()).is_none_or(|bits| bits & 1 == 1)
    }

    /// Whether code uses what lies in the frame at these places, relative to the canonical frame address; or
    /// takes an address there. Reads straight through the code, with the stack where the first instructions
    /// have brought it.
    pub(super) fn is_used(&self, code: &[u8], address: VirtAddr, places: &Range<i64>) -> bool {
        let decoder = Decoder::with_ip(64, code, address.0, DecoderOptions::NONE);
        let uses = |instruction: Instruction| {
            let base = match instruction.memory_base() {
                Register::RSP => self.stack,
                Register::RBP => self.frame,
                _ => None,
            };
            let at = base?.checked_add(instruction.memory_displacement64() as i64)?;
            let bytes = instruction.memory_size().size().max(1) as i64;
            Some(at < places.end && places.start < at.saturating_add(bytes))
        };
        decoder.into_iter().filter_map(uses).any(|uses| uses)
    }
}

/// Reads a function's first instructions.
pub(super) fn read(code: &[u8], address: VirtAddr) -> Prologue {
    let mut decoder = Decoder::with_ip(64, code, address.0, DecoderOptions::NONE);
    let mut state = State::new();
    for instruction in decoder.iter().take(INSTRUCTIONS_MAX) {
        if instruction.is_invalid() {
            break;
        }
        match instruction.flow_control() {
            FlowControl::Next => state.run(&instruction),
            // The way on is the one that has not jumped away: Go's stack check.
            FlowControl::ConditionalBranch if !state.stored => {}
            _ => break,
        }
    }
    state.prologue.stack = state.body.unwrap_or_else(|| state.get(Register::RSP));
    if state.prologue.frame.is_none() {
        state.prologue.frame = state.get(Register::RBP);
    }
    state.prologue.written = state.written();
    state.prologue
}

struct State {
    registers: [Holds; 16],
    prologue: Prologue,
    /// Whether anything was stored but pushed registers.
    stored: bool,
    /// Whether room was made below what was pushed.
    made_room: bool,
    /// `rsp` in the function's body, once its first instructions are over: when something is given back, or
    /// pushed for a call.
    body: Option<Option<i64>>,
}

impl State {
    fn new() -> Self {
        let mut registers = [Holds::Other; 16];
        for (number, register) in GENERAL.iter().enumerate() {
            registers[number] = Holds::Entry(Source::Register(dwarf(*register)), 8);
        }
        registers[RSP] = Holds::Frame(-8);
        Self {
            registers,
            prologue: Prologue::default(),
            stored: false,
            made_room: false,
            body: None,
        }
    }

    fn written(&self) -> u16 {
        let own = |register: &Register| Source::Register(dwarf(*register));
        GENERAL.iter().zip(self.registers).fold(0, |written, (register, holds)| match holds {
            Holds::Entry(source, _) if source == own(register) => written,
            _ => written | 1 << dwarf(*register),
        })
    }

    fn get(&self, register: Register) -> Option<i64> {
        match self.registers[index(register)?] {
            Holds::Frame(at) => Some(at),
            _ => None,
        }
    }

    /// Notices the end of the instructions that bring `rsp` to where it is in the function's body.
    fn notice_body(&mut self, instruction: &Instruction) {
        use Register::{R12, R13, R14, R15, RAX, RBP, RBX, RSP};
        let makes_room = instruction.op0_register() == RSP
            && match instruction.mnemonic() {
                Mnemonic::Sub => true,
                Mnemonic::Add => instruction.try_immediate(1).is_ok_and(|by| (by as i64) < 0),
                Mnemonic::Lea => {
                    instruction.memory_base() == RSP
                        && (instruction.memory_displacement64() as i64) < 0
                }
                _ => false,
            };
        let is_over = match instruction.mnemonic() {
            Mnemonic::Push => {
                let is_saved =
                    [RAX, RBX, RBP, R12, R13, R14, R15].contains(&instruction.op0_register());
                self.made_room || !is_saved
            }
            Mnemonic::Pop | Mnemonic::Leave => true,
            Mnemonic::Add | Mnemonic::Mov | Mnemonic::Lea => {
                instruction.op0_register() == RSP && !makes_room
            }
            _ => false,
        };
        if is_over && self.body.is_none() {
            self.body = Some(self.get(RSP));
        }
        self.made_room |= makes_room;
    }

    fn run(&mut self, instruction: &Instruction) {
        self.notice_body(instruction);
        match instruction.mnemonic() {
            Mnemonic::Endbr64 | Mnemonic::Nop => {}
            Mnemonic::Cmp | Mnemonic::Test => {}
            Mnemonic::Push => self.move_stack(-8),
            Mnemonic::Pop => {
                self.move_stack(8);
                self.forget(instruction);
            }
            Mnemonic::Sub | Mnemonic::Add
                if instruction.op0_register() == Register::RSP
                    && instruction.op1_kind() != OpKind::Register
                    && instruction.op1_kind() != OpKind::Memory =>
            {
                let by = instruction.immediate(1) as i64;
                let by = if instruction.mnemonic() == Mnemonic::Sub { -by } else { by };
                self.move_stack(by);
            }
            Mnemonic::Lea => {
                let address = self.address(instruction);
                let to = index(instruction.op0_register());
                self.forget(instruction);
                if let (Some(to), Some(at), 8) = (to, address, instruction.op0_register().size()) {
                    self.registers[to] = Holds::Frame(at);
                    self.remember_frame(to);
                }
            }
            // Clang cuts a truth value to its bit, which changes nothing of it.
            Mnemonic::And
                if instruction.op0_register().size() == 1
                    && instruction.op1_kind() == OpKind::Immediate8
                    && instruction.immediate8() == 1 => {}
            Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd => {
                self.copy(instruction);
            }
            _ => self.forget(instruction),
        }
    }

    fn move_stack(&mut self, by: i64) {
        if let Holds::Frame(at) = self.registers[RSP] {
            self.registers[RSP] = at.checked_add(by).map_or(Holds::Other, Holds::Frame);
        }
    }

    fn copy(&mut self, instruction: &Instruction) {
        let from = match instruction.op1_kind() {
            OpKind::Register => index(instruction.op1_register()),
            OpKind::Memory => return self.load(instruction),
            _ => None,
        };
        let low = !high_byte(instruction.op1_register()) && !high_byte(instruction.op0_register());
        match instruction.op0_kind() {
            OpKind::Register => {
                let held = from.filter(|_| low).map(|from| self.registers[from]);
                let size = instruction.op1_register().size().min(instruction.op0_register().size());
                let to = index(instruction.op0_register());
                let (Some(to), true) = (to, low) else { return self.forget(instruction) };
                self.registers[to] = match held {
                    Some(Holds::Entry(source, bytes)) => {
                        Holds::Entry(source, bytes.min(size as u8))
                    }
                    Some(Holds::Frame(at)) if size == 8 => Holds::Frame(at),
                    _ => Holds::Other,
                };
                self.remember_frame(to);
            }
            OpKind::Memory => {
                let Some(at) = self.address(instruction) else { return };
                self.stored = true;
                let size = instruction.memory_size().size() as i64;
                match from.filter(|_| low).map(|from| self.registers[from]) {
                    Some(Holds::Entry(from, bytes)) if i64::from(bytes) >= size => {
                        self.store(Stored { at, from, bytes: size as u8 });
                    }
                    // The rest was added when the register was filled.
                    Some(Holds::Entry(from, bytes)) => {
                        self.store(Stored { at, from, bytes });
                        self.write(at + i64::from(bytes), size - i64::from(bytes));
                    }
                    _ => self.write(at, size),
                }
            }
            _ => self.forget(instruction),
        }
    }

    /// What the caller put onto the stack is an argument, too.
    fn load(&mut self, instruction: &Instruction) {
        let at = self.address(instruction).filter(|at| *at >= 0);
        let size = instruction.memory_size().size();
        let to =
            index(instruction.op0_register()).filter(|_| !high_byte(instruction.op0_register()));
        self.forget(instruction);
        if let (Some(to), Some(at), 1 | 2 | 4 | 8) = (to, at, size) {
            self.registers[to] = Holds::Entry(Source::Caller(at), size as u8);
        }
    }

    fn store(&mut self, store: Stored) {
        let known = |old: &Stored| {
            old.at < store.at + i64::from(store.bytes) && store.at < old.at + i64::from(old.bytes)
        };
        // A place that was filled before is no argument's home any more.
        if !self.prologue.stores.iter().any(known) {
            self.prologue.stores.push(store);
        }
    }

    /// Something else was written: if nothing was there before, no argument comes there.
    fn write(&mut self, at: i64, bytes: i64) {
        let end = at.saturating_add(bytes);
        let filled = self
            .prologue
            .stores
            .iter()
            .any(|old| old.at < end && at < old.at + i64::from(old.bytes));
        if !filled {
            self.prologue.other.push((at, end));
        }
    }

    fn remember_frame(&mut self, register: usize) {
        if register == RBP
            && let Holds::Frame(at) = self.registers[RBP]
        {
            self.prologue.frame.get_or_insert(at);
        }
    }

    /// The address of a memory operand, relative to the canonical frame address.
    fn address(&self, instruction: &Instruction) -> Option<i64> {
        let plain = instruction.memory_index() == Register::None
            && instruction.segment_prefix() == Register::None;
        if !plain {
            return None;
        }
        let base = self.get(instruction.memory_base())?;
        base.checked_add(instruction.memory_displacement64() as i64)
    }

    /// An instruction that is not followed: what it writes is not known afterwards.
    fn forget(&mut self, instruction: &Instruction) {
        // Scalars of floating point are stored, too.
        if instruction.op0_kind() == OpKind::Memory
            && let Some(at) = self.address(instruction)
        {
            self.stored = true;
            self.write(at, instruction.memory_size().size() as i64);
        }
        let mut written = iced_x86::InstructionInfoFactory::new();
        for used in written.info(instruction).used_registers() {
            use iced_x86::OpAccess::{CondRead, NoMemAccess, None, Read};
            if !matches!(used.access(), Read | CondRead | NoMemAccess | None)
                && let Some(number) = index(used.register())
            {
                self.registers[number] = Holds::Other;
            }
        }
        if instruction.code() == Code::INVALID {
            self.registers = [Holds::Other; 16];
        }
    }
}

const RSP: usize = 4;
const RBP: usize = 5;

/// In the order of their encoding.
const GENERAL: [Register; 16] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RBX,
    Register::RSP,
    Register::RBP,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

fn index(register: Register) -> Option<usize> {
    register.is_gpr().then(|| register.full_register().number())
}

fn high_byte(register: Register) -> bool {
    matches!(register, Register::AH | Register::BH | Register::CH | Register::DH)
}

/// DWARF's number (System V psABI, figure 3.36).
pub(super) fn dwarf(register: Register) -> u8 {
    use agent_common::function::register as number;
    match register {
        Register::RAX => number::RAX,
        Register::RCX => number::RCX,
        Register::RDX => number::RDX,
        Register::RBX => number::RBX,
        Register::RSP => number::RSP,
        Register::RBP => number::RBP,
        Register::RSI => number::RSI,
        Register::RDI => number::RDI,
        other => other.number() as u8,
    }
}
