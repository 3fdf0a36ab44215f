//! Arguments of static tracepoints: each is a number in a register, in memory, or a constant, with a
//! size and a sign but no type.

use std::sync::Arc;

use super::compile::finish_numbers;
use super::{Compiled, Options};
use crate::inspect::dwarf::place::{Place, Step};

/// An argument of a static tracepoint, as its note describes it (`-4@%edi`, `8@-16(%rbp)`, `4@$7`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number {
    /// Its bytes: 1, 2, 4 or 8.
    pub bytes: u8,
    /// Whether it has a sign.
    pub signed: bool,
    /// Where it is.
    pub place: Place,
}

impl Number {
    /// A register, by DWARF's number.
    pub fn register(bytes: u8, signed: bool, register: u8) -> Self {
        Self { bytes, signed, place: Place::register(register) }
    }

    /// Memory at a register and an offset.
    pub fn memory(bytes: u8, signed: bool, register: u8, offset: i64) -> Self {
        let place = Place::Memory(vec![Step::Register(register), Step::Add(offset)]);
        Self { bytes, signed, place }
    }

    /// A constant.
    pub fn constant(bytes: u8, signed: bool, value: i64) -> Self {
        Self { bytes, signed, place: Place::Value(vec![Step::Constant(value)]) }
    }
}

/// Compiles the arguments of a static tracepoint, `remora.arg.0` and so on. `texts` are the numbers of
/// those that are addresses of strings: a note does not say so.
pub fn compile_usdt(arguments: &[Number], texts: &[usize], options: &Options) -> Compiled {
    let named = arguments.iter().enumerate().map(|(number, argument)| {
        let name: Arc<str> = format!("remora.arg.{number}").into();
        (name, argument, texts.contains(&number))
    });
    finish_numbers(named, options)
}
