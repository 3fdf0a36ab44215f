//! Which registers arguments come in by the calling convention. Never used as where they are: only
//! to check what optimised code seems to prove, which may have put another value into a variable's
//! place before the argument's own was ever stored.

use agent_common::function::register;

use super::Language;
use super::place::{Place, Step, Unreadable};
use super::returns::{Class, Repr, classify, passing, repr};
use super::types::{Passing, Shape, TypeNo, Types};

/// System V psABI, 3.2.3: registers of integer arguments, in order.
const REGISTERS: [u8; 6] =
    [register::RDI, register::RSI, register::RDX, register::RCX, register::R8, register::R8 + 1];

/// Where an argument may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    /// How many registers arguments before it took; `None` if that is not known.
    before: Option<usize>,
}

impl Expected {
    /// Whether a place has the registers that are expected, and nothing else.
    pub(super) fn is(self, place: &Place) -> bool {
        let Some(before) = self.before else { return false };
        let mut next = before;
        let mut register = |place: &Place| match place {
            Place::Value(steps) => match steps.as_slice() {
                [Step::Register(number)] => {
                    let fits = REGISTERS.get(next) == Some(number);
                    next += 1;
                    fits
                }
                _ => false,
            },
            // On the stack, if no register was left.
            Place::Memory(steps) => {
                matches!(steps.first(), Some(Step::Cfa)) && before + 1 >= REGISTERS.len()
            }
            _ => false,
        };
        match place {
            Place::Pieces(pieces) => {
                pieces.iter().all(|piece| piece.place.as_ref().map_or(true, &mut register))
            }
            other => register(other),
        }
    }

    /// Whether a place is that, or begins at the address that is in the register.
    pub(super) fn is_by(self, place: &Place) -> bool {
        match place {
            Place::Value(steps) | Place::Memory(steps) => match steps.first() {
                Some(Step::Register(number)) => self.is(&Place::register(*number)),
                _ => self.is(place),
            },
            _ => self.is(place),
        }
    }
}

/// What is expected of each parameter; `hidden`: the first argument is the result's address.
pub(super) fn registers(
    types: &Types,
    parameters: &[TypeNo],
    language: Language,
    hidden: bool,
) -> Vec<Expected> {
    let mut before = Some(usize::from(hidden));
    parameters
        .iter()
        .map(|ty| {
            let expected = Expected { before };
            // What does not fit goes to the stack as a whole and takes none; Rust's pairs are two.
            let pair =
                language == Language::Rust && matches!(repr(types, *ty, 0), Ok(Repr::Two(..)));
            before = before.zip(taken(types, *ty, language)).map(|(before, own)| {
                let fits = before + own <= REGISTERS.len() || pair;
                if fits { before + own } else { before }
            });
            expected
        })
        .collect()
}

/// How many integer registers a parameter takes.
fn taken(types: &Types, ty: TypeNo, language: Language) -> Option<usize> {
    let bytes = types.size(ty);
    match language {
        Language::Rust => Some(match repr(types, ty, 0).ok()? {
            Repr::Nothing => 0,
            Repr::One(scalar) if scalar.float => 0,
            Repr::One(_) if bytes > 8 => 2,
            Repr::One(_) => 1,
            Repr::Two(first, second) => usize::from(!first.float) + usize::from(!second.float),
            // As a number, or by its address.
            Repr::Memory { floats: false } => 1,
            Repr::Memory { floats: true } => return None,
        }),
        Language::C | Language::Cpp => {
            let shape = &types.bare(ty).1.shape;
            if matches!(shape, Shape::Struct { .. } | Shape::Union { .. })
                && language == Language::Cpp
            {
                match passing(types, ty, 0) {
                    Passing::Reference => return Some(1),
                    Passing::Unknown => return None,
                    Passing::Plain | Passing::Value => {}
                }
            }
            if bytes > 16 {
                return Some(0);
            }
            let mut classes = [Class::None; 2];
            classify(types, ty, 0, &mut classes, 0).ok()?;
            if classes.contains(&Class::Memory) {
                return Some(0);
            }
            Some(classes.iter().filter(|class| matches!(class, Class::Integer)).count())
        }
        Language::Go | Language::Other => None,
    }
}

/// Refuses what debug information is known to say wrongly: where a value is passed by its address and that
/// address is on the stack, LLVM describes the address's place as the value's.
pub(super) fn believable(
    types: &Types,
    ty: TypeNo,
    (language, is_gcc): (Language, bool),
    place: Place,
) -> Result<Place, Unreadable> {
    let is_on_stack = matches!(&place, Place::Memory(steps) if matches!(
        steps.as_slice(),
        [Step::Cfa | Step::Register(register::RSP | register::RBP)]
            | [Step::Cfa | Step::Register(register::RSP | register::RBP), Step::Add(_)]
    ));
    let may_be_an_address = match language {
        Language::Rust => types.size(ty) > 8 && !matches!(repr(types, ty, 0), Ok(Repr::One(_))),
        Language::Cpp => match passing(types, ty, 0) {
            Passing::Reference => true,
            Passing::Unknown => !is_gcc,
            Passing::Plain | Passing::Value => false,
        },
        _ => false,
    };
    if is_on_stack && may_be_an_address { Err(Unreadable::Location) } else { Ok(place) }
}
