//! What is known of registers and of the frame at a place in the code.

use iced_x86::{Code, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

/// What a register or a place in the frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Something, told apart by where it was made; copies have the same number.
    Something(u64),
    /// An address in the stack: `base` 0 is the place of the return address, others are what a stack
    /// pointer was aligned to.
    Stack { base: u64, offset: i64 },
    /// An address or a number.
    Constant(u64),
    /// What a table of jumps holds: 32-bit differences or 64-bit addresses.
    Entry { table: u64, index: u64, wide: bool },
    /// A difference out of a table with its base added.
    Target { table: u64, base: u64, index: u64 },
}

/// The largest that a value can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) most: u32,
    /// Whether it was compared, so that a table has an entry for each value up to it; else it only has
    /// no room for more.
    pub(super) is_exact: bool,
}

impl Bound {
    fn or(self, other: Self) -> Self {
        let is_exact = self.is_exact && self == other;
        Self { most: self.most.max(other.most), is_exact }
    }
}

/// A comparison that the flags still tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compared {
    Nothing,
    /// A value with a number.
    Number {
        value: u64,
        number: u32,
    },
    /// The stack pointer with an address in the stack.
    StackPointer {
        base: u64,
        offset: i64,
    },
}

/// Everything known at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    registers: [Value; 16],
    /// Places in the frame and what was stored there.
    saved: Vec<((u64, i64), Value)>,
    /// Largest that a value can be.
    bounds: Vec<(u64, Bound)>,
    compared: Compared,
}

/// Most that is remembered of frame and bounds.
const SAVED_MAX: usize = 64;
const BOUNDS_MAX: usize = 32;

const RAX: usize = 0;
const RSP: usize = 4;
const RBP: usize = 5;

impl State {
    /// At the first instruction of a function.
    pub(super) fn at_entry() -> Self {
        let mut registers = [Value::Something(0); 16];
        for (number, register) in registers.iter_mut().enumerate() {
            *register = Value::Something(number as u64);
        }
        registers[RSP] = Value::Stack { base: 0, offset: 0 };
        Self { registers, saved: Vec::new(), bounds: Vec::new(), compared: Compared::Nothing }
    }

    /// Where the program comes back to by other ways than a jump, with a frame of which only the stack
    /// pointer is known, `depth` bytes below the place of the return address.
    pub(super) fn with_frame(depth: u32) -> Self {
        let mut state = Self::at_entry();
        for number in 0..state.registers.len() {
            state.make(COMPUTED, number);
        }
        state.registers[RSP] = Value::Stack { base: 0, offset: -i64::from(depth) };
        state
    }

    /// How far the stack pointer is from the place of the return address; negative below it.
    pub(super) fn stack_pointer(&self) -> Option<i64> {
        match self.registers[RSP] {
            Value::Stack { base: 0, offset } => Some(offset),
            _ => None,
        }
    }

    /// Makes it true of two ways to get to `address`; tells whether that changed it. The stack
    /// pointer is not known behind that if the ways differ in it.
    pub(super) fn join(&mut self, other: &Self, address: u64) -> bool {
        let before = self.clone();
        for (number, (own, their)) in self.registers.iter_mut().zip(&other.registers).enumerate() {
            if own != their {
                let met = if is_pointer(*own) && is_pointer(*their) { MET } else { COMPUTED };
                *own = Value::Something(numbered(address, number, met));
            }
        }
        self.saved.retain(|slot| other.saved.contains(slot));
        self.bounds.retain_mut(|(value, most)| {
            let their = other.bounds.iter().find(|(their, _)| their == value);
            their.inspect(|(_, their)| *most = most.or(*their)).is_some()
        });
        if self.compared != other.compared {
            self.compared = Compared::Nothing;
        }
        *self != before
    }

    /// Where a jump through a register or memory finds its table: the table, the base of its
    /// differences (`None`: it has addresses), and the largest index if that is known.
    pub(super) fn jump_table(
        &self,
        jump: &Instruction,
    ) -> Option<(u64, Option<u64>, Option<Bound>)> {
        let value = match jump.op0_kind() {
            OpKind::Register => self.value(jump.op0_register())?,
            OpKind::Memory => self.load(jump)?,
            _ => return None,
        };
        match value {
            Value::Entry { table, index, wide: true } => Some((table, None, self.bound(index))),
            Value::Target { table, base, index } => Some((table, Some(base), self.bound(index))),
            _ => None,
        }
    }

    /// Whether a jump goes where an argument, a callee or a plain place in memory says: to a function.
    /// What was computed may be a place within this one.
    pub(super) fn is_pointer(&self, jump: &Instruction) -> bool {
        match jump.op0_kind() {
            OpKind::Memory => jump.memory_index() == Register::None || self.is_field(jump),
            OpKind::Register => match self.value(jump.op0_register()) {
                Some(value) => is_pointer(value),
                None => false,
            },
            _ => false,
        }
    }

    fn bound(&self, value: u64) -> Option<Bound> {
        self.bounds.iter().find(|(known, _)| *known == value).map(|(_, most)| *most)
    }

    fn set_bound(&mut self, value: u64, most: u32, is_exact: bool) {
        let most = Bound { most, is_exact };
        match self.bounds.iter_mut().find(|(known, _)| *known == value) {
            Some((_, known)) if known.most > most.most => *known = most,
            Some((_, known)) => known.is_exact |= is_exact && known.most == most.most,
            None => {
                if self.bounds.len() == BOUNDS_MAX {
                    self.bounds.remove(0);
                }
                self.bounds.push((value, most));
            }
        }
    }

    fn value(&self, register: Register) -> Option<Value> {
        self.registers.get(number(register)?).copied()
    }

    fn set(&mut self, register: Register, value: Value) {
        if let Some(own) = number(register).and_then(|number| self.registers.get_mut(number)) {
            *own = value;
        }
    }

    /// A register holds something else than before.
    fn make(&mut self, value: u64, number: usize) {
        // An earlier round of a loop made what has the same number.
        self.bounds.retain(|(known, _)| *known != value);
        if let Some(register) = self.registers.get_mut(number) {
            *register = Value::Something(value);
        }
    }

    /// What a memory operand's address is, if it has no index.
    fn address(&self, instruction: &Instruction) -> Option<Value> {
        let displacement = instruction.memory_displacement64();
        if instruction.segment_prefix() == Register::FS
            || instruction.segment_prefix() == Register::GS
        {
            return None;
        }
        if instruction.is_ip_rel_memory_operand() {
            return Some(Value::Constant(instruction.ip_rel_memory_address()));
        }
        if instruction.memory_index() != Register::None {
            return None;
        }
        if instruction.memory_base() == Register::None {
            return Some(Value::Constant(displacement));
        }
        add(self.value(instruction.memory_base())?, displacement.cast_signed())
    }

    /// What a memory operand holds, if that is known.
    fn load(&self, instruction: &Instruction) -> Option<Value> {
        if let Some(Value::Stack { base, offset }) = self.address(instruction) {
            let slot = self.saved.iter().find(|(slot, _)| *slot == (base, offset));
            return slot.map(|(_, value)| *value);
        }
        // table + index * size
        let index = self.value(instruction.memory_index())?;
        let base = match instruction.memory_base() {
            Register::None => 0,
            register => match self.value(register)? {
                Value::Constant(base) => base,
                _ => return None,
            },
        };
        let table = base.wrapping_add(instruction.memory_displacement64());
        let Value::Something(index) = index else { return None };
        match (instruction.memory_index_scale(), instruction.memory_size().size()) {
            (4, 4) => Some(Value::Entry { table, index, wide: false }),
            (8, 8) => Some(Value::Entry { table, index, wide: true }),
            _ => None,
        }
    }

    fn store(&mut self, instruction: &Instruction, size: usize, value: Option<Value>) {
        match self.address(instruction) {
            Some(Value::Stack { base, offset }) => self.save(base, offset, size, value),
            // Through any other pointer a local variable may change, but no saved register.
            _ => self.forget_locals(),
        }
    }

    fn save(&mut self, base: u64, offset: i64, size: usize, value: Option<Value>) {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        self.saved.retain(|((other, at), _)| {
            *other != base || *at >= offset.saturating_add(size) || *at + 8 <= offset
        });
        if let Some(value) = value
            && self.saved.len() < SAVED_MAX
        {
            self.saved.push(((base, offset), value));
            self.saved.sort_unstable_by_key(|(slot, _)| *slot);
        }
    }

    fn forget_locals(&mut self) {
        self.saved.retain(|(_, value)| matches!(value, Value::Stack { .. }));
    }

    /// What a taken or not taken conditional jump says about what was compared.
    pub(super) fn branch(&mut self, jump: &Instruction, taken: bool) {
        let code = jump.code().as_short_branch();
        match self.compared {
            Compared::Number { value, number } => {
                let is_equal = matches!(code, Code::Je_rel8_64 | Code::Jne_rel8_64);
                let most = match (code, taken) {
                    (Code::Ja_rel8_64, false) | (Code::Jbe_rel8_64, true) => Some(number),
                    (Code::Jae_rel8_64, false) | (Code::Jb_rel8_64, true) => number.checked_sub(1),
                    (Code::Je_rel8_64, true) | (Code::Jne_rel8_64, false) => Some(number),
                    _ => None,
                };
                if let Some(most) = most {
                    self.set_bound(value, most, !is_equal);
                }
            }
            Compared::StackPointer { base, offset } => {
                let same =
                    matches!((code, taken), (Code::Je_rel8_64, true) | (Code::Jne_rel8_64, false));
                if same {
                    self.registers[RSP] = Value::Stack { base, offset };
                }
            }
            Compared::Nothing => {}
        }
    }

    /// What a call leaves: the stack pointer, and the registers that a callee preserves.
    pub(super) fn call(&mut self, address: u64, preserved: &[usize]) {
        for number in 0..self.registers.len() {
            if number != RSP && !preserved.contains(&number) {
                self.make(made_at(address, number), number);
            }
        }
        self.forget_locals();
        self.compared = Compared::Nothing;
    }

    /// The stack pointer is not known.
    pub(super) fn forget_stack_pointer(&mut self, address: u64) {
        self.make(numbered(address, RSP, COMPUTED), RSP);
    }

    /// Bytes are taken off the stack.
    pub(super) fn pop(&mut self, bytes: u64) {
        let _ = i64::try_from(bytes).ok().and_then(|bytes| self.move_stack(bytes));
    }

    /// What an instruction that goes on to the next does.
    pub(super) fn step(&mut self, instruction: &Instruction, info: &mut InstructionInfoFactory) {
        let flags = instruction.rflags_modified() != 0;
        if flags {
            self.compared = Compared::Nothing;
        }
        if self.known_step(instruction) {
            return;
        }
        let ip = instruction.ip();
        let info = info.info(instruction);
        let mut written = Vec::new();
        for used in info.used_registers() {
            let writes = matches!(
                used.access(),
                OpAccess::Write
                    | OpAccess::CondWrite
                    | OpAccess::ReadWrite
                    | OpAccess::ReadCondWrite
            );
            if writes && let Some(number) = number(used.register()) {
                written.push(number);
            }
        }
        for used in info.used_memory() {
            let writes = matches!(
                used.access(),
                OpAccess::Write
                    | OpAccess::CondWrite
                    | OpAccess::ReadWrite
                    | OpAccess::ReadCondWrite
            );
            if writes {
                self.store(instruction, used.memory_size().size(), None);
            }
        }
        let is_load =
            instruction.mnemonic() == Mnemonic::Mov && instruction.op1_kind() == OpKind::Memory;
        let gives = gives_pointer(instruction) || is_load && self.is_field(instruction);
        let kind = if gives { MADE } else { COMPUTED };
        for number in written {
            self.make(numbered(ip, number, kind), number);
        }
    }

    /// Whether a memory operand is a field at a place that the object says, a distance in bytes from a
    /// pointer (CPython's `tp_vectorcall_offset`). Tables are indexed by entries, and lie at a constant place.
    fn is_field(&self, instruction: &Instruction) -> bool {
        let is_pointer = |register| self.value(register).is_some_and(is_pointer);
        instruction.memory_index_scale() == 1
            && instruction.memory_displacement64() == 0
            && is_pointer(instruction.memory_base())
            && is_pointer(instruction.memory_index())
    }

    /// The few instructions whose effect is followed.
    fn known_step(&mut self, instruction: &Instruction) -> bool {
        self.try_step(instruction).is_some()
    }

    fn try_step(&mut self, i: &Instruction) -> Option<()> {
        let (first, second) = (i.op0_register(), i.op1_register());
        let wide = first.size() == 8;
        match (i.mnemonic(), i.op0_kind(), i.op1_kind()) {
            (Mnemonic::Push, kind, _) if i.stack_pointer_increment() == -8 => {
                let value = (kind == OpKind::Register).then(|| self.value(first)).flatten();
                self.move_stack(-8)?;
                if let Value::Stack { base, offset } = self.registers[RSP] {
                    self.save(base, offset, 8, value);
                }
            }
            (Mnemonic::Pushfq, ..) => {
                self.move_stack(-8)?;
                if let Value::Stack { base, offset } = self.registers[RSP] {
                    self.save(base, offset, 8, None);
                }
            }
            (Mnemonic::Popfq, ..) => self.move_stack(8)?,
            (Mnemonic::Pop, OpKind::Register, _) if wide => {
                let value = self.top();
                let value = value.unwrap_or(Value::Something(made_at(i.ip(), number(first)?)));
                self.move_stack(8)?;
                self.set(first, value);
            }
            (Mnemonic::Leave, ..) => {
                let Value::Stack { base, offset } = self.registers[RBP] else { return None };
                self.registers[RSP] = Value::Stack { base, offset };
                let saved = self.top();
                self.registers[RBP] = saved.unwrap_or(Value::Something(made_at(i.ip(), RBP)));
                self.move_stack(8)?;
            }
            (Mnemonic::Mov, OpKind::Register, OpKind::Register) if first.size() >= 4 => {
                let value = self.value(second)?;
                // The lower half of an address is no address.
                if !wide && matches!(value, Value::Stack { .. }) {
                    return None;
                }
                self.set(first, value);
            }
            (Mnemonic::Movzx, OpKind::Register, OpKind::Register) if first.size() >= 4 => {
                let Value::Something(value) = self.value(second)? else { return None };
                let most = if second.size() == 1 { 0xff } else { 0xffff };
                self.set_bound(value, most, false);
                self.set(first, Value::Something(value));
            }
            (Mnemonic::Movzx, OpKind::Register, OpKind::Memory) if first.size() >= 4 => {
                let most = if i.memory_size().size() == 1 { 0xff } else { 0xffff };
                let value = made_at(i.ip(), number(first)?);
                self.make(value, number(first)?);
                self.set_bound(value, most, false);
            }
            (Mnemonic::Mov, OpKind::Register, OpKind::Memory) if first.size() >= 4 => {
                let value = self.load(i)?;
                if matches!(value, Value::Stack { .. } | Value::Entry { .. }) && !wide {
                    return None;
                }
                self.set(first, value);
            }
            (Mnemonic::Movsxd, OpKind::Register, OpKind::Memory) if wide => {
                let value = self.load(i)?;
                self.set(first, value);
            }
            (Mnemonic::Movsxd, OpKind::Register, OpKind::Register) if wide => {
                let value @ Value::Something(_) = self.value(second)? else { return None };
                self.set(first, value);
            }
            (Mnemonic::Cdqe, ..) => {
                let Value::Something(_) = self.registers[RAX] else { return None };
            }
            (Mnemonic::Mov, OpKind::Memory, OpKind::Register) if second.size() >= 4 => {
                let value = self.value(second);
                self.store(i, second.size(), value);
            }
            (Mnemonic::Mov, OpKind::Register, _) if first.size() >= 4 => {
                let immediate = i.try_immediate(1).ok()?;
                self.set(first, Value::Constant(immediate));
            }
            (Mnemonic::Lea, OpKind::Register, _)
                if wide
                    && i.memory_index() != Register::None
                    && i.memory_index_scale() == 1
                    && i.memory_displacement64() == 0 =>
            {
                let sum = self.sum(i.memory_base(), i.memory_index())?;
                self.set(first, sum);
            }
            (Mnemonic::Lea, OpKind::Register, _) if wide => {
                let value = self.address(i)?;
                self.set(first, value);
            }
            (Mnemonic::Add, OpKind::Register, OpKind::Register) if wide => {
                let sum = self.sum(first, second)?;
                self.set(first, sum);
            }
            (Mnemonic::Add | Mnemonic::Sub, OpKind::Register, _) if wide => {
                let immediate = i.try_immediate(1).ok()?.cast_signed();
                let add_or_sub = i.mnemonic() == Mnemonic::Add;
                let difference = if add_or_sub { immediate } else { immediate.checked_neg()? };
                let value = self.value(first)?;
                if !matches!(value, Value::Stack { .. }) {
                    return None;
                }
                self.set(first, add(value, difference)?);
            }
            (Mnemonic::And, OpKind::Register, _) if first == Register::RSP => {
                i.try_immediate(1).ok()?;
                self.registers[RSP] = Value::Stack { base: i.ip(), offset: 0 };
            }
            (Mnemonic::And, OpKind::Register, _) if first.size() >= 4 => {
                let most = u32::try_from(i.try_immediate(1).ok()?).ok()?;
                let value = numbered(i.ip(), number(first)?, COMPUTED);
                self.make(value, number(first)?);
                self.set_bound(value, most, false);
            }
            (Mnemonic::Cmp, OpKind::Register, OpKind::Register) if wide => {
                let (a, b) = (self.value(first)?, self.value(second)?);
                let limit = match (first, second) {
                    (Register::RSP, _) => b,
                    (_, Register::RSP) => a,
                    _ => return None,
                };
                let Value::Stack { base, offset } = limit else { return None };
                self.compared = Compared::StackPointer { base, offset };
            }
            (Mnemonic::Cmp, kind @ (OpKind::Register | OpKind::Memory), _) => {
                let value = if kind == OpKind::Register { self.value(first) } else { self.load(i) };
                let (Value::Something(value), number) = (value?, i.try_immediate(1).ok()?) else {
                    return None;
                };
                self.compared = Compared::Number { value, number: u32::try_from(number).ok()? };
            }
            _ => return None,
        }
        Some(())
    }

    /// A difference out of a table and its base.
    fn sum(&self, one: Register, other: Register) -> Option<Value> {
        match (self.value(one)?, self.value(other)?) {
            (Value::Entry { table, index, wide: false }, Value::Constant(base))
            | (Value::Constant(base), Value::Entry { table, index, wide: false }) => {
                Some(Value::Target { table, base, index })
            }
            _ => None,
        }
    }

    fn move_stack(&mut self, by: i64) -> Option<()> {
        let value = add(self.registers[RSP], by);
        // Where it is not known it stays unknown, whatever is pushed.
        if let Some(value) = value {
            self.registers[RSP] = value;
        }
        Some(())
    }

    /// What the stack pointer points at.
    fn top(&self) -> Option<Value> {
        let Value::Stack { base, offset } = self.registers[RSP] else { return None };
        self.saved.iter().find(|(slot, _)| *slot == (base, offset)).map(|(_, value)| *value)
    }
}

/// What is added to the number of a register, beside the address, to number what it holds: what was
/// loaded or returned, where ways meet that had left different such things in it, and what was computed.
const MADE: u64 = 16;
const MET: u64 = 32;
const COMPUTED: u64 = 48;

fn numbered(address: u64, register: usize, kind: u64) -> u64 {
    (address << 6) | (register as u64 + kind)
}

/// The number of what an instruction leaves in a register.
fn made_at(address: u64, register: usize) -> u64 {
    numbered(address, register, MADE)
}

/// Whether a value is an argument, a result, or from a plain place in memory.
fn is_pointer(value: Value) -> bool {
    matches!(value, Value::Something(value) if value & 63 < COMPUTED)
}

/// What may come out of an instruction that is the address of a function: loads, choices between
/// two, and the scrambling of pointers that C libraries do.
fn gives_pointer(instruction: &Instruction) -> bool {
    let plain = instruction.memory_index() == Register::None;
    match instruction.mnemonic() {
        Mnemonic::Mov => plain && instruction.op1_kind() == OpKind::Memory,
        Mnemonic::Xor | Mnemonic::Ror | Mnemonic::Rol => true,
        Mnemonic::Cmove | Mnemonic::Cmovne => plain,
        _ => false,
    }
}

fn add(value: Value, by: i64) -> Option<Value> {
    match value {
        Value::Stack { base, offset } => {
            Some(Value::Stack { base, offset: offset.checked_add(by)? })
        }
        Value::Constant(value) => Some(Value::Constant(value.wrapping_add_signed(by))),
        _ if by == 0 => Some(value),
        _ => None,
    }
}

/// The number of a general register, whichever part of it is named.
pub(super) fn number(register: Register) -> Option<usize> {
    register.is_gpr().then(|| register.full_register() as usize - Register::RAX as usize)
}
