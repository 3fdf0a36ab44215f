//! Tables of jumps, as far as registers and memory tell: which one, of how many entries, and what is the
//! index into it.

use iced_x86::{Instruction, OpKind, Register};

use super::{Bound, COMPUTED, RSP, State, Value, made_at, number, numbered};

/// A place in memory: how far it is from what a register held, and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) from: Value,
    offset: u64,
    bytes: usize,
}

/// A 32-bit difference out of a table that a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The difference, or what it is with the table's address added.
    value: u64,
    register: usize,
    /// What that held.
    table: Value,
    index: u64,
    is_target: bool,
}

impl State {
    /// Where a jump through a register or memory finds its table: the table, the base of its
    /// differences (`None`: it has addresses), and the largest index if that is known.
    pub(in crate::inspect::code) fn jump_table(
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

    /// The register that holds the table which a jump goes by, if it is not known which one that is, and
    /// the largest index if that is known.
    pub(in crate::inspect::code) fn table_register(
        &self,
        jump: &Instruction,
    ) -> Option<(usize, Option<Bound>)> {
        if jump.op0_kind() != OpKind::Register {
            return None;
        }
        let Value::Something(target) = self.value(jump.op0_register())? else { return None };
        let found = self.found.filter(|found| found.is_target && found.value == target)?;
        Some((found.register, self.bound(found.index)))
    }

    /// What is at a place that is not in the frame, from here on as long as nothing is stored.
    pub(super) fn look(&mut self, instruction: &Instruction) -> Option<u64> {
        let place = self.place(instruction)?;
        if let Some(value) = self.seen(instruction) {
            return Some(value);
        }
        // No comparison makes a stack pointer: nothing else has the number.
        let value = made_at(instruction.ip(), RSP);
        self.bounds.retain(|(known, _)| *known != value);
        self.seen = Some((place, value));
        Some(value)
    }

    /// What a table gives at a place that is not known.
    pub(super) fn find(&mut self, i: &Instruction) -> Option<()> {
        let (to, register) = (number(i.op0_register())?, number(i.memory_base())?);
        let (table, index) = (self.value(i.memory_base())?, self.value(i.memory_index())?);
        let Value::Something(index) = index else { return None };
        let is_plain = (i.memory_index_scale(), i.memory_displacement64()) == (4, 0);
        if !is_plain || to == register {
            return None;
        }
        let value = numbered(i.ip(), to, COMPUTED);
        self.make(value, to);
        self.found = Some(Found { value, register, table, index, is_target: false });
        Some(())
    }

    /// The same with the table's address added.
    pub(super) fn find_target(&mut self, i: &Instruction) -> Option<()> {
        let (to, other) = (number(i.op0_register())?, number(i.op1_register())?);
        let holds = |number: usize, value: Value| self.registers.get(number) == Some(&value);
        let found = self.found.filter(|found| !found.is_target && found.register == other)?;
        if !holds(to, Value::Something(found.value)) || !holds(other, found.table) {
            return None;
        }
        let value = numbered(i.ip(), to, COMPUTED);
        self.make(value, to);
        self.found = Some(Found { value, is_target: true, ..found });
        Some(())
    }

    /// A difference out of a table and its base.
    pub(super) fn sum(&self, one: Register, other: Register) -> Option<Value> {
        match (self.value(one)?, self.value(other)?) {
            (Value::Entry { table, index, wide: false }, Value::Constant(base))
            | (Value::Constant(base), Value::Entry { table, index, wide: false }) => {
                Some(Value::Target { table, base, index })
            }
            _ => None,
        }
    }

    /// What a memory operand outside of the frame was when it was looked at last.
    pub(super) fn seen(&self, instruction: &Instruction) -> Option<u64> {
        let place = self.place(instruction)?;
        self.seen.filter(|(seen, _)| *seen == place).map(|(_, value)| value)
    }

    /// Where a memory operand is, if it is one place and not in the frame.
    fn place(&self, instruction: &Instruction) -> Option<Place> {
        let segment = matches!(instruction.segment_prefix(), Register::FS | Register::GS);
        if segment || instruction.memory_index() != Register::None {
            return None;
        }
        let bytes = instruction.memory_size().size();
        if instruction.is_ip_rel_memory_operand() {
            let from = Value::Constant(instruction.ip_rel_memory_address());
            return Some(Place { from, offset: 0, bytes });
        }
        let from = self.value(instruction.memory_base())?;
        let is_somewhere = matches!(from, Value::Something(_) | Value::Constant(_));
        let offset = instruction.memory_displacement64();
        is_somewhere.then_some(Place { from, offset, bytes })
    }
}
