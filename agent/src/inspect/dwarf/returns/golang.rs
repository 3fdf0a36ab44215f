//! The convention of Go: `cmd/compile/abi-internal.md`, "Function call argument and result passing".

use std::sync::Arc;

use agent_common::function::register;

use super::join;
use crate::inspect::dwarf::Parameter;
use crate::inspect::dwarf::place::{Place, Unreadable};
use crate::inspect::dwarf::types::{DEPTH_MAX, Shape, TypeNo, Types};

/// Places results, one after the other.
pub(super) fn places(types: &Types, results: &[(Arc<str>, TypeNo)]) -> Vec<Parameter> {
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
