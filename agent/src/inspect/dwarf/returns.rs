//! Where a function's results are when it returns. The file does not say; the calling convention
//! does: System V's for C and C++, ABIInternal for Go, and for Rust what rustc does with the layouts
//! for which every version since 1.73 does the same. In doubt a result is refused.

mod golang;
mod rust;
mod system_v;

use std::sync::Arc;

use agent_common::function::register;

use super::epilogue;
use super::function::About;
use super::place::{Piece, Place, Step, Unreadable};
use super::types::{TypeNo, Types};
use super::{Language, Parameter};
use crate::inspect::address::VirtAddr;
pub(super) use rust::{Repr, repr};
pub(super) use system_v::{Class, classify, passing};

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
            all(results, |ty| system_v::place(types, ty, about.language))
        }
        Language::Rust if version(&about.producer, "rustc version ") >= Some((1, 73)) => {
            all(results, |ty| rust::place(types, ty, &about.producer, facts))
        }
        Language::Go if about.producer.contains("regabi") => golang::places(types, results),
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
