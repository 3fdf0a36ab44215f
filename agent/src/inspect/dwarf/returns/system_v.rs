//! The convention of C and C++: System V psABI, 3.2.3, with what the C++ ABI adds to it.

use std::ops::RangeInclusive;

use super::{RESULTS, in_memory};
use crate::inspect::dwarf::Language;
use crate::inspect::dwarf::place::{Piece, Place, Unreadable};
use crate::inspect::dwarf::types::{DEPTH_MAX, ELEMENTS_MAX, Passing, Shape, TypeNo, Types};

/// Where a result of this type is.
pub(super) fn place(types: &Types, ty: TypeNo, language: Language) -> Result<Place, Unreadable> {
    let (_, bare) = types.bare(ty);
    let bytes = types.size(ty);
    match bare.shape {
        Shape::Void => return Err(Unreadable::Type),
        Shape::Float => return Err(Unreadable::Float),
        Shape::Struct { .. } | Shape::Union { .. } if language == Language::Cpp => {
            match passing(types, ty, 0) {
                Passing::Reference => return Ok(in_memory()),
                Passing::Unknown if bytes <= 16 => return Err(Unreadable::Convention),
                Passing::Unknown | Passing::Plain | Passing::Value => {}
            }
        }
        _ => {}
    }
    if bytes == 0 {
        return Err(Unreadable::Type);
    }
    if bytes > 16 {
        // The widest registers have 32 and 64.
        let is_doubtful = matches!(bytes, 32 | 64) && holds_vector(types, ty, 0);
        return if is_doubtful { Err(Unreadable::Convention) } else { Ok(in_memory()) };
    }
    let mut classes = [Class::None; 2];
    classify(types, ty, 0, &mut classes, 0)?;
    if classes.contains(&Class::Memory) {
        return Ok(in_memory());
    }
    let mut registers = RESULTS.into_iter();
    let mut pieces = Vec::new();
    for (at, class) in (0..bytes).step_by(8).zip(classes) {
        let place = match class {
            Class::Integer => registers.next().map(Place::register).ok_or(Unreadable::Convention),
            Class::Float => Err(Unreadable::Float),
            Class::Vector | Class::Memory => Err(Unreadable::Convention),
            Class::None => Err(Unreadable::OptimizedOut),
        };
        pieces.push(Piece { bytes: (bytes - at).min(8), place });
    }
    match pieces.as_slice() {
        [only] => only.place.clone(),
        _ => Ok(Place::Pieces(pieces)),
    }
}

/// How a class of C++ is passed: as it says, or as its members are (Itanium C++ ABI, 3.1.2.3).
pub(in crate::inspect::dwarf) fn passing(types: &Types, ty: TypeNo, depth: u32) -> Passing {
    let (_, bare) = types.bare(ty);
    let members = match &bare.shape {
        Shape::Struct { members } | Shape::Union { members } => members,
        Shape::Array { of, .. } if depth < DEPTH_MAX => return passing(types, *of, depth + 1),
        Shape::Unknown => return Passing::Unknown,
        _ => return Passing::Value,
    };
    if bare.passing != Passing::Plain || depth >= DEPTH_MAX {
        return bare.passing;
    }
    let mut all = Passing::Value;
    for member in members {
        match passing(types, member.ty, depth + 1) {
            Passing::Value | Passing::Plain => {}
            Passing::Reference => return Passing::Reference,
            Passing::Unknown => all = Passing::Unknown,
        }
    }
    all
}

/// Whether a type is a vector or has one in it.
fn holds_vector(types: &Types, ty: TypeNo, depth: u32) -> bool {
    let (_, bare) = types.bare(ty);
    let holds = |ty| depth < DEPTH_MAX && holds_vector(types, ty, depth + 1);
    match &bare.shape {
        _ if bare.is_vector => true,
        Shape::Struct { members } | Shape::Union { members } => {
            members.iter().any(|member| holds(member.ty))
        }
        Shape::Array { of, .. } => holds(*of),
        _ => false,
    }
}

/// The classes that matter.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::inspect::dwarf) enum Class {
    None,
    Integer,
    Float,
    Vector,
    /// All of the value is in memory.
    Memory,
}

impl Class {
    /// In which of them what is of both is.
    fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Memory, _) | (_, Self::Memory) => Self::Memory,
            (Self::Integer, _) | (_, Self::Integer) => Self::Integer,
            (_, other) => other,
        }
    }
}

pub(in crate::inspect::dwarf) fn classify(
    types: &Types,
    ty: TypeNo,
    at: u64,
    classes: &mut [Class; 2],
    depth: u32,
) -> Result<(), Unreadable> {
    if depth > DEPTH_MAX {
        return Err(Unreadable::Type);
    }
    let bytes = types.size(ty);
    let mut is = |class: Class| {
        // What is not aligned brings all that it is in into memory.
        let is_aligned = !bytes.is_power_of_two() || bytes > 16 || at.is_multiple_of(bytes);
        let class = if is_aligned { class } else { Class::Memory };
        mark(classes, at / 8..=at.saturating_add(bytes.max(1) - 1) / 8, class)
    };
    let bare = types.bare(ty).1;
    match &bare.shape {
        Shape::Int { .. }
        | Shape::Char { .. }
        | Shape::Bool
        | Shape::Pointer { .. }
        | Shape::Enum { .. } => is(Class::Integer),
        // `long double` is not in a vector register, but as unreadable.
        Shape::Float => is(Class::Float),
        Shape::Struct { members } | Shape::Union { members } => {
            members.iter().try_for_each(|member| match member.bits {
                None => classify(types, member.ty, at + member.offset, classes, depth + 1),
                Some((first, bits)) => {
                    let first = at.saturating_mul(8).saturating_add(first);
                    let last = first.saturating_add(u64::from(bits.max(1)) - 1);
                    mark(classes, first / 64..=last / 64, Class::Integer)
                }
            })
        }
        Shape::Array { .. } if bare.is_vector => is(Class::Vector),
        Shape::Array { of, count: Some(count) } if *count <= ELEMENTS_MAX => {
            let stride = types.size(*of);
            (0..*count).try_for_each(|n| {
                let at = n.checked_mul(stride).and_then(|from| at.checked_add(from));
                classify(types, *of, at.ok_or(Unreadable::Type)?, classes, depth + 1)
            })
        }
        _ => Err(Unreadable::Type),
    }
}

/// Some eightbytes have this class besides what they have.
fn mark(
    classes: &mut [Class; 2],
    eightbytes: RangeInclusive<u64>,
    class: Class,
) -> Result<(), Unreadable> {
    for number in eightbytes {
        let slot = classes.get_mut(number as usize).ok_or(Unreadable::Type)?;
        *slot = slot.with(class);
    }
    Ok(())
}
