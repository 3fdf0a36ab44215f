//! Numbers that have no types, as static tracepoints tell them: some are addresses of strings.

use std::sync::Arc;

use agent_common::function::{compare, op};

use super::{FIRST_ADDRESS, VALUES_MAX};
use crate::function::value::emit::{Base, Emitter};
use crate::function::value::reader::{Reader, Root};
use crate::function::value::show::Show;
use crate::function::value::usdt::Number;
use crate::function::value::{Compiled, Name, Options};
use crate::inspect::dwarf::place::Unreadable;

/// Compiles numbers that have no types, some of them addresses of strings.
pub(in crate::function::value) fn finish_numbers<'n>(
    numbers: impl Iterator<Item = (Arc<str>, &'n Number, bool)>,
    options: &Options,
) -> Compiled {
    let mut out = Emitter::new();
    let mut roots = Vec::new();
    for (name, number, is_text) in numbers {
        let mark = out.mark();
        let shown = untyped(&mut out, number, is_text, options);
        let (chunk, show) = match shown {
            Ok(shown) if out.fits() && roots.len() < VALUES_MAX => shown,
            other => {
                out.back(mark);
                (0, Show::Unavailable(other.err().unwrap_or(Unreadable::Room)))
            }
        };
        roots.push(Root { name: Name(name), chunk, show });
    }
    if !out.ops.is_empty() {
        out.op(op::END, 0, 0, 0);
    }
    Compiled { ops: out.ops, reader: Reader::new(roots) }
}

fn untyped(
    out: &mut Emitter,
    number: &Number,
    is_text: bool,
    options: &Options,
) -> Result<(u16, Show), Unreadable> {
    if !matches!(number.bytes, 1 | 2 | 4 | 8) {
        return Err(Unreadable::Type);
    }
    let base = Base::Place(&number.place);
    let chunk = out.chunk(8);
    out.image(&number.place, number.bytes.into())?;
    if !is_text || number.bytes != 8 {
        return Ok((chunk, Show::Int { bytes: number.bytes, signed: number.signed }));
    }
    let most = i32::from(options.string_bytes);
    let text = out.chunk(most as usize);
    out.number(base, 0, 8)?;
    let jump = out.skip_if(compare::LT, FIRST_ADDRESS);
    out.op(op::STRING, 0, 0, most);
    out.land(jump);
    Ok((chunk, Show::CString { chunk: text }))
}
