//! Location expressions (DWARF 5, sections 2.5 and 2.6), worked out for one instruction as steps and
//! not as numbers. What is not understood is refused, never approximated.

use gimli::{Encoding, Expression, Operation};

use super::place::{Piece, Place, Step, Unreadable};
use super::sections::Slice;

/// Most operations of an expression; compilers write a dozen.
const OPERATIONS_MAX: usize = 64;
/// Most steps of an address.
const STEPS_MAX: usize = 16;

/// What expressions of one function refer to.
#[derive(Clone, Debug, Default)]
pub(super) struct Frame {
    /// What `DW_OP_fbreg` is relative to.
    pub(super) base: Option<Vec<Step>>,
}

/// Where an expression says that a value lies.
pub(super) fn evaluate(
    expression: Expression<Slice<'_>>,
    encoding: Encoding,
    frame: &Frame,
) -> Result<Place, Unreadable> {
    if expression.0.is_empty() {
        return Err(Unreadable::OptimizedOut);
    }
    let mut stack: Vec<Vec<Step>> = Vec::new();
    let mut pieces: Vec<Piece> = Vec::new();
    // What a simple location description has come to, up to the next piece.
    let mut place: Option<Result<Place, Unreadable>> = None;
    let mut operations = expression.operations(encoding);
    for _ in 0..OPERATIONS_MAX {
        let operation = operations.next().map_err(|_| Unreadable::Location)?;
        let Some(operation) = operation else {
            if pieces.is_empty() {
                return finish(place, &mut stack);
            }
            return Ok(Place::Pieces(pieces));
        };
        match operation {
            Operation::Piece { size_in_bits, bit_offset } => {
                if size_in_bits % 8 != 0 || bit_offset.is_some_and(|bits| bits != 0) {
                    return Err(Unreadable::Location);
                }
                let found = finish(place.take(), &mut stack);
                pieces.push(Piece { bytes: size_in_bits / 8, place: found });
                stack.clear();
            }
            Operation::Register { register } => place = Some(named(register.0)),
            Operation::StackValue => {
                let steps = stack.pop().ok_or(Unreadable::Location)?;
                place = Some(Ok(Place::Value(steps)));
            }
            Operation::ImplicitValue { data } => {
                place = Some(Ok(Place::Bytes(data.slice().to_vec())));
            }
            Operation::ImplicitPointer { .. } => place = Some(Err(Unreadable::OptimizedOut)),
            other => step(other, encoding, frame, &mut stack)?,
        }
    }
    Err(Unreadable::Location)
}

/// A register by its number; the others hold floats and vectors.
fn named(register: u16) -> Result<Place, Unreadable> {
    match register {
        0..=15 => Ok(Place::register(register as u8)),
        17..=32 | 67..=82 | 118..=125 | 33..=40 => Err(Unreadable::Float),
        _ => Err(Unreadable::Location),
    }
}

fn finish(
    place: Option<Result<Place, Unreadable>>,
    stack: &mut Vec<Vec<Step>>,
) -> Result<Place, Unreadable> {
    if let Some(place) = place {
        return place;
    }
    // An empty description says that there is none.
    stack.pop().map(Place::Memory).ok_or(Unreadable::OptimizedOut)
}

/// One operation on the stack.
fn step(
    operation: Operation<Slice<'_>>,
    encoding: Encoding,
    frame: &Frame,
    stack: &mut Vec<Vec<Step>>,
) -> Result<(), Unreadable> {
    match operation {
        Operation::Nop => {}
        Operation::RegisterOffset { register, offset, base_type } => {
            if base_type.0 != 0 || register.0 > 15 {
                return Err(Unreadable::Location);
            }
            stack.push(plus(vec![Step::Register(register.0 as u8)], offset)?);
        }
        Operation::FrameOffset { offset } => {
            let base = frame.base.clone().ok_or(Unreadable::Location)?;
            stack.push(plus(base, offset)?);
        }
        Operation::CallFrameCFA => stack.push(vec![Step::Cfa]),
        Operation::UnsignedConstant { value } => stack.push(vec![Step::Constant(value as i64)]),
        Operation::SignedConstant { value } => stack.push(vec![Step::Constant(value)]),
        Operation::PlusConstant { value } => {
            let top = stack.pop().ok_or(Unreadable::Location)?;
            stack.push(plus(top, value as i64)?);
        }
        Operation::Plus => {
            let (one, other) = (stack.pop(), stack.pop());
            match (one.as_deref(), other.as_deref()) {
                (Some([Step::Constant(value)]), Some(rest))
                | (Some(rest), Some([Step::Constant(value)])) => {
                    let sum = plus(rest.to_vec(), *value)?;
                    stack.push(sum);
                }
                _ => return Err(Unreadable::Location),
            }
        }
        Operation::Minus => {
            let value = constant(stack.pop())?;
            let top = stack.pop().ok_or(Unreadable::Location)?;
            stack.push(plus(top, value.checked_neg().ok_or(Unreadable::Location)?)?);
        }
        Operation::And => {
            let value = constant(stack.pop())?;
            let value = i32::try_from(value).map_err(|_| Unreadable::Location)?;
            push(stack, Step::And(value))?;
        }
        Operation::Shl => push_shift(stack, Step::ShiftLeft)?,
        Operation::Shr => push_shift(stack, Step::ShiftRight)?,
        Operation::Shra => push_shift(stack, Step::ShiftRightSigned)?,
        Operation::Deref { base_type, size, space } => {
            if base_type.0 != 0 || space || !matches!(size, 1 | 2 | 4 | 8) {
                return Err(Unreadable::Location);
            }
            push(stack, Step::Load(size))?;
        }
        // At an entry every register holds what it held when the function was entered; and only
        // entries are asked about.
        Operation::EntryValue { expression } => {
            let mut inner = Expression(expression).operations(encoding);
            match (inner.next(), inner.next()) {
                (Ok(Some(Operation::Register { register })), Ok(None)) if register.0 <= 15 => {
                    stack.push(vec![Step::Register(register.0 as u8)]);
                }
                _ => return Err(Unreadable::Location),
            }
        }
        _ => return Err(Unreadable::Location),
    }
    Ok(())
}

fn constant(steps: Option<Vec<Step>>) -> Result<i64, Unreadable> {
    match steps.as_deref() {
        Some([Step::Constant(value)]) => Ok(*value),
        _ => Err(Unreadable::Location),
    }
}

fn push(stack: &mut [Vec<Step>], step: Step) -> Result<(), Unreadable> {
    let top = stack.last_mut().ok_or(Unreadable::Location)?;
    if top.len() >= STEPS_MAX {
        return Err(Unreadable::Location);
    }
    top.push(step);
    Ok(())
}

fn push_shift(stack: &mut Vec<Vec<Step>>, shift: fn(u8) -> Step) -> Result<(), Unreadable> {
    let bits = constant(stack.pop())?;
    let bits = u8::try_from(bits).ok().filter(|bits| *bits < 64).ok_or(Unreadable::Location)?;
    push(stack, shift(bits))
}

/// Adds to an address, into its last addition if it has one.
pub(super) fn plus(mut steps: Vec<Step>, value: i64) -> Result<Vec<Step>, Unreadable> {
    if let Some(Step::Add(sum) | Step::Constant(sum)) = steps.last_mut() {
        *sum = sum.checked_add(value).ok_or(Unreadable::Location)?;
    } else if value != 0 {
        if steps.len() >= STEPS_MAX {
            return Err(Unreadable::Location);
        }
        steps.push(Step::Add(value));
    }
    Ok(steps)
}
