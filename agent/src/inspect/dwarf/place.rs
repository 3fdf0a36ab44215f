//! Where a value lies at one instruction, cut loose from the file that said so.

use serde::{Deserialize, Serialize};

/// One step towards a number of 64 bits. The first puts a number there, the others change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A register as it is at the instruction, by DWARF's number.
    Register(u8),
    /// The canonical frame address: 8 above the slot that holds the return address.
    Cfa,
    /// A number.
    Constant(i64),
    /// This is added.
    Add(i64),
    /// What it points at, so many bytes (1, 2, 4 or 8), zero-extended.
    Load(u8),
    /// Shifted to the left by so many bits.
    ShiftLeft(u8),
    /// Shifted to the right, filled with zeros.
    ShiftRight(u8),
    /// Shifted to the right, filled with its sign.
    ShiftRightSigned(u8),
    /// And-ed with this.
    And(i32),
}

/// Where a value lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is this number, cut to the value's size.
    Value(Vec<Step>),
    /// It begins at this address.
    Memory(Vec<Step>),
    /// It is known beforehand.
    Bytes(Vec<u8>),
    /// It is in parts, from its first byte on; no part has more than the value.
    Pieces(Vec<Piece>),
}

/// A part of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// How many bytes of the value it is.
    pub bytes: u64,
    /// Where it lies; no pieces of pieces.
    pub place: Result<Place, Unreadable>,
}

impl Place {
    /// A register's value.
    pub fn register(number: u8) -> Self {
        Self::Value(vec![Step::Register(number)])
    }

    /// The registers that it has to do with, one for each part.
    pub(super) fn registers(&self) -> impl Iterator<Item = u8> {
        let parts = match self {
            Self::Pieces(pieces) => pieces.as_slice(),
            _ => &[],
        };
        let parts = parts.iter().filter_map(|piece| piece.place.as_ref().ok());
        std::iter::once(self).chain(parts).filter_map(|place| match place {
            Self::Value(steps) | Self::Memory(steps) => match steps.first() {
                Some(Step::Register(number)) => Some(*number),
                _ => None,
            },
            _ => None,
        })
    }
}

/// Why a value is not read. Never a substitute for it.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    thiserror::Error,
)]
#[serde(rename_all = "snake_case")]
pub enum Unreadable {
    /// Vector registers are not among those the kernel keeps for a probe.
    #[error("floats are not readable")]
    Float,
    /// No code needs it.
    #[error("optimised out")]
    OptimizedOut,
    /// The debug information does not say where it is at this instruction.
    #[error("no location here")]
    NoLocation,
    /// Its home in memory is filled later, and nothing proves where it is before.
    #[error("not stored yet")]
    NotStored,
    /// The debug information describes it in a way that is not understood.
    #[error("location not understood")]
    Location,
    /// It is returned on the stack.
    #[error("returned on the stack")]
    OnStack,
    /// Nothing proves how it is returned.
    #[error("calling convention unknown")]
    Convention,
    /// The compiler made a copy of the function with another signature.
    #[error("altered by the optimiser")]
    Altered,
    /// Its type is incomplete.
    #[error("type unknown")]
    Type,
    /// There is no room for it among what one hit may read.
    #[error("too long")]
    Room,
    /// Its memory could not be read.
    #[error("unreadable memory")]
    Fault,
    /// What was read makes no value of its type.
    #[error("not valid")]
    Invalid,
}
