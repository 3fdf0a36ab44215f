//! Writes bytecode: places as numbers and bytes, jumps, chunks, within the bounds of one hit.

use agent_common::function::{CHUNKS_MAX, Chunk, OPS_MAX, Op, op};

use crate::inspect::dwarf::place::{Piece, Place, Step, Unreadable};

/// Slot that holds a length; those before it hold addresses of objects.
pub(super) const LENGTH_SLOT: u8 = 3;

/// What an offset is relative to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Base<'p> {
    /// A place of the debug information's.
    Place(&'p Place),
    /// The address in a slot.
    Slot(u8),
}

/// Bytecode being written.
#[derive(Debug)]
pub(super) struct Emitter {
    pub(super) ops: Vec<Op>,
    /// Bytes of chunks at most, so far.
    bytes: usize,
    chunks: u16,
    /// What may be used up to here; what is kept for later values is left out.
    ops_limit: usize,
    bytes_limit: usize,
}

/// Where the writing may be taken back to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    ops: usize,
    bytes: usize,
    chunks: u16,
}

impl Emitter {
    pub(super) fn new() -> Self {
        let (ops_limit, bytes_limit) = (OPS_MAX, CHUNKS_MAX);
        Self { ops: Vec::new(), bytes: 0, chunks: 0, ops_limit, bytes_limit }
    }

    /// Keeps room for what comes later.
    pub(super) fn keep(&mut self, ops: usize, bytes: usize) {
        self.ops_limit = OPS_MAX.saturating_sub(ops);
        self.bytes_limit = CHUNKS_MAX.saturating_sub(bytes);
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { ops: self.ops.len(), bytes: self.bytes, chunks: self.chunks }
    }

    pub(super) fn back(&mut self, mark: Mark) {
        self.ops.truncate(mark.ops);
        self.bytes = mark.bytes;
        self.chunks = mark.chunks;
    }

    /// Whether what was written is within the bounds.
    pub(super) fn fits(&self) -> bool {
        self.ops.len() <= self.ops_limit && self.bytes <= self.bytes_limit
    }

    pub(super) fn op(&mut self, code: u8, a: u8, b: u16, imm: i32) {
        self.ops.push(Op { code, a, b, imm });
    }

    /// Opens a chunk that will have at most so many bytes.
    pub(super) fn chunk(&mut self, bytes: usize) -> u16 {
        let number = self.chunks;
        self.chunks += 1;
        self.bytes += size_of::<Chunk>() + bytes.next_multiple_of(8);
        self.op(op::CHUNK, 0, 0, i32::from(number));
        number
    }

    /// A jump forward over what comes, if the accumulator compares so; [`Emitter::land`] ends it.
    pub(super) fn skip_if(&mut self, compare: u8, imm: i32) -> usize {
        self.op(op::SKIP_IF, compare, 0, imm);
        self.ops.len() - 1
    }

    /// The end of a jump.
    pub(super) fn land(&mut self, jump: usize) {
        let over = self.ops.len() - 1 - jump;
        if let Some(op) = self.ops.get_mut(jump) {
            op.b = over as u16;
        }
    }

    /// Puts a constant into the accumulator.
    pub(super) fn constant(&mut self, value: i64) {
        if let Ok(small) = i32::try_from(value) {
            return self.op(op::CONSTANT, 0, 0, small);
        }
        let low = value as i32;
        let high = value.wrapping_sub(i64::from(low)) >> 32;
        self.op(op::CONSTANT, 0, 0, high as i32);
        self.op(op::SHIFT, 0, 0, 32);
        self.op(op::ADD, 0, 0, low);
    }

    pub(super) fn add(&mut self, value: i64) -> Result<(), Unreadable> {
        if value != 0 {
            let small = i32::try_from(value).map_err(|_| Unreadable::Location)?;
            self.op(op::ADD, 0, 0, small);
        }
        Ok(())
    }

    fn steps(&mut self, steps: &[Step]) -> Result<(), Unreadable> {
        for step in steps {
            match *step {
                Step::Register(number) => self.op(op::REGISTER, number, 0, 0),
                Step::Cfa => {
                    self.op(op::STACK_POINTER, 0, 0, 0);
                    self.op(op::ADD, 0, 0, 8);
                }
                Step::Constant(value) => self.constant(value),
                Step::Add(value) => self.add(value)?,
                Step::Load(bytes) => self.op(op::LOAD, 0, bytes.into(), 0),
                Step::ShiftLeft(bits) => self.op(op::SHIFT, 0, 0, bits.into()),
                Step::ShiftRight(bits) => self.op(op::SHIFT, 1, 0, bits.into()),
                Step::ShiftRightSigned(bits) => self.op(op::SHIFT, 2, 0, bits.into()),
                Step::And(mask) => self.op(op::AND, 0, 0, mask),
            }
        }
        Ok(())
    }

    /// The accumulator becomes the number of 1, 2, 4 or 8 bytes at an offset, zero-extended.
    pub(super) fn number(&mut self, base: Base<'_>, at: u64, bytes: u8) -> Result<(), Unreadable> {
        if !matches!(bytes, 1 | 2 | 4 | 8) {
            return Err(Unreadable::Type);
        }
        let offset = i64::try_from(at).map_err(|_| Unreadable::Type)?;
        match base {
            Base::Slot(slot) => {
                self.op(op::RECALL, slot, 0, 0);
                self.add(offset)?;
                self.op(op::LOAD, 0, bytes.into(), 0);
            }
            Base::Place(Place::Memory(steps)) => {
                self.steps(steps)?;
                self.add(offset)?;
                self.op(op::LOAD, 0, bytes.into(), 0);
            }
            Base::Place(Place::Value(steps)) => {
                if at + u64::from(bytes) > 8 {
                    return Err(Unreadable::OptimizedOut);
                }
                self.steps(steps)?;
                let above = 64 - 8 * i32::from(bytes) - 8 * at as i32;
                if above != 0 {
                    self.op(op::SHIFT, 0, 0, above);
                }
                if bytes != 8 {
                    self.op(op::SHIFT, 1, 0, 64 - 8 * i32::from(bytes));
                }
            }
            Base::Place(Place::Bytes(known)) => {
                let end = at as usize + usize::from(bytes);
                let part = known.get(at as usize..end).ok_or(Unreadable::OptimizedOut)?;
                let mut number = [0; 8];
                number[..part.len()].copy_from_slice(part);
                self.constant(i64::from_le_bytes(number));
            }
            Base::Place(Place::Pieces(pieces)) => {
                let (piece, from) = piece_of(pieces, at, bytes.into())?;
                let place = piece.place.as_ref().map_err(|reason| *reason)?;
                return self.number(Base::Place(place), at - from, bytes);
            }
        }
        Ok(())
    }

    /// The accumulator becomes the address of what lies at an offset, if it has one.
    pub(super) fn address(&mut self, base: Base<'_>, at: u64) -> Result<(), Unreadable> {
        let offset = i64::try_from(at).map_err(|_| Unreadable::Type)?;
        match base {
            Base::Slot(slot) => self.op(op::RECALL, slot, 0, 0),
            Base::Place(Place::Memory(steps)) => self.steps(steps)?,
            Base::Place(_) => return Err(Unreadable::Location),
        }
        self.add(offset)
    }

    /// Appends a value's bytes to the open chunk. Parts that are not known are zeros there; see
    /// [`known`].
    pub(super) fn image(&mut self, place: &Place, bytes: u64) -> Result<(), Unreadable> {
        match place {
            Place::Value(steps) => {
                self.steps(steps)?;
                self.op(op::PUT, 0, bytes.min(8) as u16, 0);
            }
            Place::Memory(steps) => {
                self.steps(steps)?;
                self.op(op::COPY, 0, 0, bytes as i32);
            }
            Place::Bytes(known) => {
                for part in known.get(..(bytes as usize).min(known.len())).unwrap_or(&[]).chunks(8)
                {
                    let mut number = [0; 8];
                    number[..part.len()].copy_from_slice(part);
                    self.constant(i64::from_le_bytes(number));
                    self.op(op::PUT, 0, part.len() as u16, 0);
                }
            }
            Place::Pieces(pieces) => {
                let mut left = bytes;
                for piece in pieces {
                    let part = piece.bytes.min(left);
                    left -= part;
                    match &piece.place {
                        Ok(place) if part > 0 => self.image(place, part)?,
                        _ => self.zeros(part),
                    }
                }
            }
        }
        Ok(())
    }

    fn zeros(&mut self, bytes: u64) {
        if bytes > 0 {
            self.op(op::CONSTANT, 0, 0, 0);
        }
        let mut left = bytes;
        while left > 0 {
            let part = left.min(8);
            self.op(op::PUT, 0, part as u16, 0);
            left -= part;
        }
    }
}

fn piece_of(pieces: &[Piece], at: u64, bytes: u64) -> Result<(&Piece, u64), Unreadable> {
    let mut from = 0_u64;
    for piece in pieces {
        let end = from.saturating_add(piece.bytes);
        if from <= at && at < end {
            // A number in two parts is not put together.
            let whole = at.saturating_add(bytes) <= end;
            return if whole { Ok((piece, from)) } else { Err(Unreadable::Location) };
        }
        from = end;
    }
    Err(Unreadable::OptimizedOut)
}

/// Whether the bytes of a place at an offset are known.
pub(super) fn known(base: Base<'_>, at: u64, bytes: u64) -> Result<(), Unreadable> {
    let end = at.saturating_add(bytes);
    match base {
        Base::Slot(_) | Base::Place(Place::Memory(_)) => Ok(()),
        Base::Place(Place::Value(_)) if end <= 8 => Ok(()),
        Base::Place(Place::Value(_)) => Err(Unreadable::OptimizedOut),
        Base::Place(Place::Bytes(known)) if end <= known.len() as u64 => Ok(()),
        Base::Place(Place::Bytes(_)) => Err(Unreadable::OptimizedOut),
        Base::Place(Place::Pieces(pieces)) => {
            let mut from = 0_u64;
            for piece in pieces {
                let to = from.saturating_add(piece.bytes);
                if from < end && at < to {
                    match &piece.place {
                        Err(reason) => return Err(*reason),
                        Ok(place) => {
                            let first = at.max(from) - from;
                            known(Base::Place(place), first, end.min(to) - from - first)?;
                        }
                    }
                }
                from = to;
            }
            if from < end { Err(Unreadable::OptimizedOut) } else { Ok(()) }
        }
    }
}
