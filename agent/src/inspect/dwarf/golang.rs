//! What Go's compiler (1.26 and before) says of arguments that is not so: it lists the registers of a struct
//! without the holes between its members, and puts what it will move to the heap there from the entry on.

use super::place::{Piece, Place, Step, Unreadable};
use super::types::{DEPTH_MAX, Shape, TypeNo, Types};

/// Most numbers of a struct in registers; there are 9 and 15 of those.
const PARTS_MAX: usize = 32;

/// The place of an argument at the entry, as it is meant.
pub(super) fn place(types: &Types, ty: TypeNo, place: Place) -> Result<Place, Unreadable> {
    let place = match place {
        Place::Pieces(pieces) => laid_out(types, ty, pieces)?,
        other => other,
    };
    if is_filled_later(&place) { Err(Unreadable::NotStored) } else { Ok(place) }
}

/// Without what a function loses that begins anew, because its stack was too small or another goroutine was to
/// run: it keeps what it needs, and the entry is seen behind that. `kept`: the registers that it keeps; `None`: it
/// does not begin anew.
pub(super) fn kept(place: Place, kept: Option<&[u8]>) -> Result<Place, Unreadable> {
    let Some(kept) = kept else { return Ok(place) };
    let is_lost = |place: &Place| match place {
        Place::Value(steps) | Place::Memory(steps) => {
            matches!(steps.first(), Some(Step::Register(number)) if !kept.contains(number))
        }
        Place::Bytes(_) | Place::Pieces(_) => false,
    };
    if is_lost(&place) {
        return Err(Unreadable::OptimizedOut);
    }
    let Place::Pieces(pieces) = place else { return Ok(place) };
    let known = |piece: Piece| Piece {
        place: piece.place.and_then(|place| {
            if is_lost(&place) { Err(Unreadable::OptimizedOut) } else { Ok(place) }
        }),
        ..piece
    };
    Ok(Place::Pieces(pieces.into_iter().map(known).collect()))
}

/// Whether a place is in the function's own frame: nothing is there at the entry.
fn is_filled_later(place: &Place) -> bool {
    match place {
        Place::Value(steps) | Place::Memory(steps) => {
            matches!(steps.as_slice(), [Step::Cfa, Step::Add(at), ..] if *at < 0)
        }
        Place::Bytes(_) => false,
        Place::Pieces(pieces) => {
            pieces.iter().filter_map(|piece| piece.place.as_ref().ok()).any(is_filled_later)
        }
    }
}

/// Pieces with the holes between them that the type has.
fn laid_out(types: &Types, ty: TypeNo, pieces: Vec<Piece>) -> Result<Place, Unreadable> {
    let whole: u64 = pieces.iter().map(|piece| piece.bytes).sum();
    if whole == types.size(ty) {
        return Ok(Place::Pieces(pieces));
    }
    let mut parts = Vec::new();
    numbers(types, ty, 0, &mut parts, 0)?;
    let fit = parts.len() == pieces.len()
        && parts.iter().zip(&pieces).all(|((_, bytes), piece)| *bytes == piece.bytes);
    if !fit {
        return Err(Unreadable::Location);
    }
    let mut out = Vec::new();
    let mut end = 0;
    for ((at, bytes), piece) in parts.into_iter().zip(pieces) {
        if at > end {
            out.push(Piece { bytes: at - end, place: Err(Unreadable::OptimizedOut) });
        }
        out.push(piece);
        end = at + bytes;
    }
    Ok(Place::Pieces(out))
}

/// Where the numbers of a type begin, and how many bytes each has.
fn numbers(
    types: &Types,
    ty: TypeNo,
    at: u64,
    parts: &mut Vec<(u64, u64)>,
    depth: u32,
) -> Result<(), Unreadable> {
    let (number, bare) = types.bare(ty);
    if depth > DEPTH_MAX || parts.len() > PARTS_MAX {
        return Err(Unreadable::Location);
    }
    match &bare.shape {
        Shape::Struct { members } => {
            let mut end = at;
            for member in members {
                let from = at.checked_add(member.offset).ok_or(Unreadable::Type)?;
                if from < end {
                    return Err(Unreadable::Type);
                }
                numbers(types, member.ty, from, parts, depth + 1)?;
                end = from.saturating_add(types.size(member.ty));
            }
            Ok(())
        }
        Shape::Array { count: Some(0), .. } => Ok(()),
        Shape::Array { of, count: Some(1) } => numbers(types, *of, at, parts, depth + 1),
        Shape::Array { .. } | Shape::Union { .. } | Shape::Variants { .. } | Shape::Unknown => {
            Err(Unreadable::Location)
        }
        _ => {
            let bytes = if matches!(bare.shape, Shape::Code) { 8 } else { types.size(number) };
            parts.push((at, bytes));
            Ok(())
        }
    }
}
