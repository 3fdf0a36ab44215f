//! Writes what a hook reads, in the kernel half's bytecode.

use agent_common::function::{Op, compare, op};

/// Ops in the making.
#[derive(Debug, Default)]
pub(super) struct Code {
    ops: Vec<Op>,
}

/// A jump that has not landed yet.
#[must_use]
pub(super) struct Jump(usize);

impl Code {
    /// The ops.
    pub(super) fn finish(self) -> Vec<Op> {
        self.ops
    }

    fn op(&mut self, code: u8, a: u8, b: u16, imm: i32) -> &mut Self {
        self.ops.push(Op { code, a, b, imm });
        self
    }

    /// Opens a chunk.
    pub(super) fn chunk(&mut self, number: u16) -> &mut Self {
        self.op(op::CHUNK, 0, 0, i32::from(number))
    }

    /// The accumulator becomes a register.
    pub(super) fn register(&mut self, register: u8) -> &mut Self {
        self.op(op::REGISTER, register, 0, 0)
    }

    /// The accumulator becomes the address of the slot with the return address.
    pub(super) fn stack_pointer(&mut self) -> &mut Self {
        self.op(op::STACK_POINTER, 0, 0, 0)
    }

    /// The accumulator becomes a constant.
    pub(super) fn constant(&mut self, value: i32) -> &mut Self {
        self.op(op::CONSTANT, 0, 0, value)
    }

    /// Adds a constant.
    pub(super) fn add(&mut self, value: i32) -> &mut Self {
        if value == 0 { self } else { self.op(op::ADD, 0, 0, value) }
    }

    /// Adds what a slot holds.
    pub(super) fn add_slot(&mut self, slot: u8) -> &mut Self {
        self.op(op::ADD_SLOT, slot, 0, 0)
    }

    /// The accumulator becomes the `bytes` that lie `offset` behind where it points.
    pub(super) fn load(&mut self, offset: i32, bytes: u16) -> &mut Self {
        self.op(op::LOAD, 0, bytes, offset)
    }

    /// The accumulator becomes the pointer that lies `offset` behind where it points.
    pub(super) fn follow(&mut self, offset: i32) -> &mut Self {
        self.load(offset, 8)
    }

    pub(super) fn save(&mut self, slot: u8) -> &mut Self {
        self.op(op::SAVE, slot, 0, 0)
    }

    pub(super) fn recall(&mut self, slot: u8) -> &mut Self {
        self.op(op::RECALL, slot, 0, 0)
    }

    pub(super) fn and(&mut self, mask: i32) -> &mut Self {
        self.op(op::AND, 0, 0, mask)
    }

    pub(super) fn shift_right(&mut self, bits: i32) -> &mut Self {
        self.op(op::SHIFT, 1, 0, bits)
    }

    pub(super) fn shift_left(&mut self, bits: i32) -> &mut Self {
        self.op(op::SHIFT, 0, 0, bits)
    }

    /// Appends the low bytes of the accumulator.
    pub(super) fn put(&mut self, bytes: u16) -> &mut Self {
        self.op(op::PUT, 0, bytes, 0)
    }

    /// Appends so many bytes from where the accumulator points.
    pub(super) fn copy(&mut self, bytes: i32) -> &mut Self {
        self.op(op::COPY, 0, 0, bytes)
    }

    /// Appends as many bytes from where the accumulator points as a slot says, at most `most`.
    pub(super) fn counted(&mut self, slot: u8, most: i32) -> &mut Self {
        self.op(op::COPY_COUNTED, slot, 1, most)
    }

    /// Appends the string that the accumulator points at.
    pub(super) fn string(&mut self, most: i32) -> &mut Self {
        self.op(op::STRING, 0, 0, most)
    }

    /// The hit is not told.
    pub(super) fn drop_hit(&mut self) -> &mut Self {
        self.op(op::DROP, 0, 0, 0)
    }

    /// Jumps if the accumulator is this number.
    pub(super) fn jump_if(&mut self, number: i32) -> Jump {
        self.op(op::SKIP_IF, compare::EQ, 0, number);
        Jump(self.ops.len() - 1)
    }

    /// Jumps if it is another one.
    pub(super) fn jump_unless(&mut self, number: i32) -> Jump {
        self.op(op::SKIP_IF, compare::NE, 0, number);
        Jump(self.ops.len() - 1)
    }

    /// Jumps if the accumulator is less than this number, both unsigned.
    pub(super) fn jump_if_below(&mut self, number: i32) -> Jump {
        self.op(op::SKIP_IF, compare::LT, 0, number);
        Jump(self.ops.len() - 1)
    }

    /// Jumps.
    pub(super) fn jump(&mut self) -> Jump {
        self.op(op::SKIP, 0, 0, 0);
        Jump(self.ops.len() - 1)
    }

    /// Where a jump ends.
    pub(super) fn land(&mut self, Jump(at): Jump) {
        let over = self.ops.len() - 1 - at;
        if let Some(op) = self.ops.get_mut(at) {
            // No more than OPS_MAX.
            op.b = over as u16;
        }
    }
}
