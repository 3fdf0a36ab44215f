//! Where a function's results are when it returns. The file does not say; the calling convention
//! does: System V's for C and C++, ABIInternal for Go, and for Rust what rustc does with the layouts
//! for which every version since 1.73 does the same. In doubt a result is refused.

use std::ops::RangeInclusive;
use std::sync::Arc;

use agent_common::function::register;

use super::epilogue;
use super::function::About;
use super::place::{Piece, Place, Step, Unreadable};
use super::types::{DEPTH_MAX, ELEMENTS_MAX, Member, Passing, Shape, TypeNo, Types, Variant};
use super::{Language, Parameter};
use crate::inspect::address::VirtAddr;

/// The last version of rustc whose convention was looked at.
const RUSTC_KNOWN: (u32, u32) = (1, 95);

/// What decides whether the convention holds.
#[derive(Clone, Copy)]
pub(super) struct Facts<'f> {
    /// The optimiser changed the signature.
    pub(super) altered: bool,
    /// Other objects may call the function.
    pub(super) external: bool,
    /// The function's machine code.
    pub(super) body: &'f dyn Fn() -> (Vec<u8>, VirtAddr),
}

/// Places the results of a function; and whether its first argument is the address of the result.
pub(super) fn places(
    types: &Types,
    results: &[(Arc<str>, TypeNo)],
    about: &About,
    facts: Facts<'_>,
) -> (Vec<Parameter>, bool) {
    if facts.altered {
        return (all(results, |_| Err(Unreadable::Altered)), false);
    }
    let mut placed = by_convention(types, results, about, &facts);
    let gcc = about.producer.starts_with("GNU");
    let hidden = matches!(placed.as_slice(), [Parameter { place: Ok(Place::Memory(_)), .. }]);
    if hidden && !facts.external && !gcc {
        let (code, address) = (facts.body)();
        if !epilogue::returns_an_address(&code, address) {
            placed.iter_mut().for_each(|result| result.place = Err(Unreadable::Convention));
        }
    }
    (placed, hidden)
}

fn by_convention(
    types: &Types,
    results: &[(Arc<str>, TypeNo)],
    about: &About,
    facts: &Facts<'_>,
) -> Vec<Parameter> {
    match about.language {
        Language::C | Language::Cpp if is_plain_compiler(&about.producer, facts) => {
            all(results, |ty| system_v(types, ty, about.language))
        }
        Language::Rust if version(&about.producer, "rustc version ") >= Some((1, 73)) => {
            all(results, |ty| rust(types, ty, &about.producer))
        }
        Language::Go if about.producer.contains("regabi") => go(types, results),
        _ => all(results, |_| Err(Unreadable::Convention)),
    }
}

fn all(
    results: &[(Arc<str>, TypeNo)],
    place: impl Fn(TypeNo) -> Result<Place, Unreadable>,
) -> Vec<Parameter> {
    results
        .iter()
        .map(|(name, ty)| Parameter { name: Arc::clone(name), ty: *ty, place: place(*ty) })
        .collect()
}

/// Whether a compiler keeps to the convention, or says where it does not: GCC by a symbol's suffix,
/// LLVM since version 17 by an attribute.
fn is_plain_compiler(producer: &str, facts: &Facts<'_>) -> bool {
    producer.starts_with("GNU")
        || facts.external
        || version(producer, "clang version ") >= Some((17, 0))
}

/// The version that follows a word.
fn version(producer: &str, word: &str) -> Option<(u32, u32)> {
    let (_, rest) = producer.split_once(word)?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

const RESULTS: [u8; 2] = [register::RAX, register::RDX];

/// A value of at most 16 bytes in `rax` and `rdx`.
fn in_registers(bytes: u64) -> Place {
    if bytes <= 8 {
        return Place::register(register::RAX);
    }
    Place::Pieces(vec![
        Piece { bytes: 8, place: Ok(Place::register(register::RAX)) },
        Piece { bytes: bytes - 8, place: Ok(Place::register(register::RDX)) },
    ])
}

/// A value that the caller made room for; its address comes back.
fn in_memory() -> Place {
    Place::Memory(vec![Step::Register(register::RAX)])
}

/// System V psABI, 3.2.3.
fn system_v(types: &Types, ty: TypeNo, language: Language) -> Result<Place, Unreadable> {
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
pub(super) fn passing(types: &Types, ty: TypeNo, depth: u32) -> Passing {
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
pub(super) enum Class {
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

pub(super) fn classify(
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

/// Go's `cmd/compile/abi-internal.md`, "Function call argument and result passing".
fn go(types: &Types, results: &[(Arc<str>, TypeNo)]) -> Vec<Parameter> {
    const INTEGERS: [u8; 9] = [
        register::RAX,
        register::RBX,
        register::RCX,
        register::RDI,
        register::RSI,
        register::R8,
        register::R8 + 1,
        register::R8 + 2,
        register::R8 + 3,
    ];
    let mut used = Used::default();
    results
        .iter()
        .map(|(name, ty)| {
            let mut parts = Vec::new();
            let mut tried = used;
            let place = match assign(types, *ty, 0, &mut tried, &mut parts, 0) {
                Ok(()) => {
                    used = tried;
                    join(parts.iter().map(|(at, bytes, which)| {
                        let place = match which {
                            Some(number) => Ok(Place::register(INTEGERS[*number])),
                            None => Err(Unreadable::Float),
                        };
                        (*at, *bytes, place)
                    }))
                }
                Err(reason) => Err(reason),
            };
            Parameter { name: Arc::clone(name), ty: *ty, place }
        })
        .collect()
}

/// Registers that results before have taken.
#[derive(Clone, Copy, Default)]
struct Used {
    integers: usize,
    floats: usize,
}

type Part = (u64, u64, Option<usize>);

fn assign(
    types: &Types,
    ty: TypeNo,
    at: u64,
    used: &mut Used,
    parts: &mut Vec<Part>,
    depth: u32,
) -> Result<(), Unreadable> {
    if depth > DEPTH_MAX {
        return Err(Unreadable::Type);
    }
    let (_, bare) = types.bare(ty);
    match &bare.shape {
        Shape::Int { .. }
        | Shape::Char { .. }
        | Shape::Bool
        | Shape::Enum { .. }
        | Shape::Pointer { .. }
        | Shape::Code => {
            if used.integers >= 9 {
                return Err(Unreadable::OnStack);
            }
            let bytes = if matches!(bare.shape, Shape::Code) { 8 } else { bare.size };
            if !matches!(bytes, 1 | 2 | 4 | 8) {
                return Err(Unreadable::Type);
            }
            parts.push((at, bytes, Some(used.integers)));
            used.integers += 1;
        }
        Shape::Float => {
            // Complex numbers take two.
            let count = if bare.go_kind == 15 || bare.go_kind == 16 { 2 } else { 1 };
            used.floats += count;
            if used.floats > 15 {
                return Err(Unreadable::OnStack);
            }
            parts.push((at, bare.size, None));
        }
        Shape::Struct { members } => {
            for member in members {
                let at = at.checked_add(member.offset).ok_or(Unreadable::Type)?;
                assign(types, member.ty, at, used, parts, depth + 1)?;
            }
        }
        Shape::Array { count: Some(0), .. } => {}
        Shape::Array { of, count: Some(1) } => assign(types, *of, at, used, parts, depth + 1)?,
        Shape::Array { count: Some(_), .. } => return Err(Unreadable::OnStack),
        _ => return Err(Unreadable::Type),
    }
    Ok(())
}

/// Parts side by side as one value; holes between them are padding.
fn join(
    parts: impl Iterator<Item = (u64, u64, Result<Place, Unreadable>)>,
) -> Result<Place, Unreadable> {
    let mut parts: Vec<_> = parts.collect();
    parts.sort_by_key(|(at, _, _)| *at);
    if let [(0, _, place)] = parts.as_slice() {
        return place.clone();
    }
    let mut pieces = Vec::new();
    let mut end = 0;
    for (at, bytes, place) in parts {
        if at < end {
            return Err(Unreadable::Type);
        }
        if at > end {
            pieces.push(Piece { bytes: at - end, place: Err(Unreadable::OptimizedOut) });
        }
        pieces.push(Piece { bytes, place });
        end = at + bytes;
    }
    Ok(Place::Pieces(pieces))
}

/// One number of a Rust value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Scalar {
    at: u64,
    bytes: u64,
    pub(super) float: bool,
}

/// How rustc sees a value (`BackendRepr`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Repr {
    Nothing,
    One(Scalar),
    Two(Scalar, Scalar),
    Memory { floats: bool },
}

fn rust(types: &Types, ty: TypeNo, producer: &str) -> Result<Place, Unreadable> {
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
            // A struct of C's layout may be returned by C's convention, which packs it.
            let (_, bare) = types.bare(ty);
            let named = matches!(bare.shape, Shape::Struct { .. }) && !bare.name.starts_with('(');
            if first.bytes > 8 || second.bytes > 8 || (named && second.at < 8) {
                return Err(Unreadable::Convention);
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
        // That these may come in two registers has been proposed; it is not so up to this version.
        Repr::Memory { .. } if version(producer, "rustc version ") <= Some(RUSTC_KNOWN) => {
            Ok(in_memory())
        }
        Repr::Memory { .. } => Err(Unreadable::Convention),
    }
}

pub(super) fn repr(types: &Types, ty: TypeNo, depth: u32) -> Result<Repr, Unreadable> {
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
