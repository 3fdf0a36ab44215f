//! The convention of Rust, as far as every version since 1.73 does the same with the layouts that debug
//! information tells.

use super::{Facts, RESULTS, in_memory, in_registers, join, version};
use crate::inspect::dwarf::epilogue;
use crate::inspect::dwarf::place::{Place, Unreadable};
use crate::inspect::dwarf::types::{DEPTH_MAX, Member, Shape, TypeNo, Types, Variant};

/// The last version of rustc whose convention was looked at.
const RUSTC_KNOWN: (u32, u32) = (1, 95);

/// One number of a Rust value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::inspect::dwarf) struct Scalar {
    at: u64,
    bytes: u64,
    pub(in crate::inspect::dwarf) float: bool,
}

/// How rustc sees a value (`BackendRepr`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::inspect::dwarf) enum Repr {
    Nothing,
    One(Scalar),
    Two(Scalar, Scalar),
    Memory { floats: bool },
}

/// Where a result of this type is.
pub(super) fn place(
    types: &Types,
    ty: TypeNo,
    producer: &str,
    facts: &Facts<'_>,
) -> Result<Place, Unreadable> {
    let bytes = types.size(ty);
    if bytes > 16 {
        return Ok(in_memory());
    }
    let register_of = |scalar: Scalar, number: usize| {
        if scalar.float { Err(Unreadable::Float) } else { Ok(Place::register(RESULTS[number])) }
    };
    match repr(types, ty, 0)? {
        Repr::Nothing => Ok(Place::Bytes(Vec::new())),
        Repr::One(scalar) if scalar.float => Err(Unreadable::Float),
        Repr::One(_) => Ok(in_registers(bytes)),
        Repr::Two(first, second) => {
            if first.bytes > 8 || second.bytes > 8 {
                return Err(Unreadable::Convention);
            }
            // C's convention (`extern "C"`, which is not said) packs what has eight bytes into one register.
            // For structs the code is no proof: their fields may be one number for another reason.
            if second.at < 8 {
                let (_, bare) = types.bare(ty);
                let named =
                    matches!(bare.shape, Shape::Struct { .. }) && !bare.name.starts_with('(');
                if named || first.float || second.float || !returns_two_numbers(facts) {
                    return Err(Unreadable::Convention);
                }
            }
            let after = usize::from(!first.float);
            join(
                [
                    (first.at, first.bytes, register_of(first, 0)),
                    (second.at, second.bytes, register_of(second, after)),
                ]
                .into_iter(),
            )
        }
        Repr::Memory { floats: true } => Err(Unreadable::Convention),
        Repr::Memory { .. } if bytes <= 8 => Ok(in_registers(bytes)),
        // That these may come in two registers has been proposed; it is not so up to this version. By C's
        // convention they do.
        Repr::Memory { .. }
            if version(producer, "rustc version ") <= Some(RUSTC_KNOWN)
                && !returns_two_numbers(facts)
                && returns_an_address(facts) =>
        {
            Ok(in_memory())
        }
        Repr::Memory { .. } => Err(Unreadable::Convention),
    }
}

/// Whether the function's code says that an address comes back.
fn returns_an_address(facts: &Facts<'_>) -> bool {
    let (code, address) = (facts.body)();
    epilogue::returns_an_address(&code, address)
}

/// Whether the function's code says that two numbers come back, one in each register.
fn returns_two_numbers(facts: &Facts<'_>) -> bool {
    let (code, address) = (facts.body)();
    epilogue::returns_two_numbers(&code, address)
}

pub(in crate::inspect::dwarf) fn repr(
    types: &Types,
    ty: TypeNo,
    depth: u32,
) -> Result<Repr, Unreadable> {
    if depth > DEPTH_MAX {
        return Err(Unreadable::Type);
    }
    let (_, bare) = types.bare(ty);
    let bytes = types.size(ty);
    let scalar = |float| Repr::One(Scalar { at: 0, bytes, float });
    Ok(match &bare.shape {
        Shape::Void => Repr::Nothing,
        Shape::Int { .. }
        | Shape::Char { .. }
        | Shape::Bool
        | Shape::Enum { .. }
        | Shape::Pointer { .. } => scalar(false),
        Shape::Float => scalar(true),
        Shape::Struct { members } => fields(types, members.iter(), bytes, depth)?,
        Shape::Array { count: Some(0), .. } => Repr::Nothing,
        Shape::Array { of, .. } => match repr(types, *of, depth + 1)? {
            Repr::Nothing => Repr::Nothing,
            other => Repr::Memory { floats: has_floats(other) },
        },
        Shape::Variants { tag, variants } => {
            enumeration(types, tag.as_ref(), variants, bytes, depth)?
        }
        _ => return Err(Unreadable::Convention),
    })
}

fn has_floats(repr: Repr) -> bool {
    match repr {
        Repr::Nothing => false,
        Repr::One(scalar) => scalar.float,
        Repr::Two(first, second) => first.float || second.float,
        Repr::Memory { floats } => floats,
    }
}

fn moved(repr: Repr, by: u64) -> Repr {
    let scalar = |scalar: Scalar| Scalar { at: scalar.at + by, ..scalar };
    match repr {
        Repr::One(one) => Repr::One(scalar(one)),
        Repr::Two(first, second) => Repr::Two(scalar(first), scalar(second)),
        other => other,
    }
}

fn fields<'m>(
    types: &Types,
    members: impl Iterator<Item = &'m Member>,
    bytes: u64,
    depth: u32,
) -> Result<Repr, Unreadable> {
    let mut found = Vec::new();
    for member in members {
        let repr = moved(repr(types, member.ty, depth + 1)?, member.offset);
        if types.size(member.ty) > 0 {
            found.push((member.offset, types.size(member.ty), repr));
        }
    }
    found.sort_by_key(|(at, _, _)| *at);
    let floats = found.iter().any(|(_, _, repr)| has_floats(*repr));
    Ok(match found.as_slice() {
        [] => Repr::Nothing,
        [(0, size, repr)] if *size == bytes => *repr,
        [(_, _, Repr::One(first)), (_, _, Repr::One(second))]
            if first.at == 0 && second.at == first.bytes.next_multiple_of(second.bytes.max(1)) =>
        {
            Repr::Two(*first, *second)
        }
        _ => Repr::Memory { floats },
    })
}

fn enumeration(
    types: &Types,
    tag: Option<&Member>,
    variants: &[Variant],
    bytes: u64,
    depth: u32,
) -> Result<Repr, Unreadable> {
    let Some(tag) = tag else {
        // A single variant is that variant.
        let [only] = variants else { return Err(Unreadable::Convention) };
        return repr(types, only.member.ty, depth + 1);
    };
    let members = |variant: &Variant| match &types.bare(variant.member.ty).1.shape {
        Shape::Struct { members } => Ok(members
            .iter()
            .filter(|member| types.size(member.ty) > 0)
            .cloned()
            .collect::<Vec<_>>()),
        _ => Err(Unreadable::Convention),
    };
    let all: Vec<Vec<Member>> = variants.iter().map(members).collect::<Result<_, _>>()?;
    let tag_end = tag.offset.saturating_add(types.size(tag.ty));
    let overlaps = |member: &Member| {
        member.offset < tag_end && tag.offset < member.offset + types.size(member.ty)
    };
    let floats = all.iter().flatten().try_fold(false, |floats, member| {
        Ok::<_, Unreadable>(floats || has_floats(repr(types, member.ty, depth + 1)?))
    })?;
    let mut filled = all.iter().filter(|members| !members.is_empty());
    if all.iter().flatten().any(overlaps) {
        // The tag is one of the values that a field does not take: the enum is passed like the
        // variant with that field if the others are empty.
        let (Some(only), None) = (filled.next(), filled.next()) else {
            return Ok(Repr::Memory { floats });
        };
        return fields(types, only.iter(), bytes, depth);
    }
    let tag_scalar = Scalar { at: tag.offset, bytes: types.size(tag.ty), float: false };
    let mut common: Option<Scalar> = None;
    for members in filled {
        let [only] = members.as_slice() else { return Ok(Repr::Memory { floats }) };
        let Repr::One(scalar) = moved(repr(types, only.ty, depth + 1)?, only.offset) else {
            return Ok(Repr::Memory { floats });
        };
        if common.is_some_and(|common| common != scalar) {
            return Ok(Repr::Memory { floats });
        }
        common = Some(scalar);
    }
    Ok(match common {
        None => Repr::One(tag_scalar),
        Some(value)
            if tag.offset == 0
                && value.at == tag_scalar.bytes.next_multiple_of(value.bytes.max(1)) =>
        {
            Repr::Two(tag_scalar, value)
        }
        Some(_) => Repr::Memory { floats },
    })
}
