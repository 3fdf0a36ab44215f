//! What a hit of a probe says about values: parameters and results compiled to the kernel half's
//! bytecode, and what that wrote read back. Pure. A value that cannot be had is [`Value::Unavailable`]
//! with its reason, never a number that looks like one.

mod chunks;
mod compile;
mod emit;
mod interface;
#[cfg(test)]
mod interpret;
mod kinds;
mod reader;
mod show;
#[cfg(test)]
mod tests;
mod text;
pub mod usdt;

use std::fmt;
use std::sync::Arc;

use agent_common::function::Op;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::compile::{compile, compile_result};
pub use self::reader::{Failure, Reader};
use crate::inspect::dwarf::place::Unreadable;

/// A value as it becomes an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number with a sign.
    Int(i64),
    /// A number without.
    Uint(u64),
    /// A truth value.
    Bool(bool),
    /// Text, or anything that has parts, as the language would write it.
    Text(String),
    /// It is not known, and why.
    Unavailable(Unreadable),
}

impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(out),
            Self::Uint(number) => number.fmt(out),
            Self::Bool(truth) => truth.fmt(out),
            Self::Text(text) => text.fmt(out),
            Self::Unavailable(reason) => write!(out, "<{reason}>"),
        }
    }
}

/// What is read, and how much of it.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many pointers are followed, one behind the other.
    pub depth: u8,
    /// Most bytes of a string.
    pub string_bytes: u16,
    /// Most elements of an array, slice or vector.
    pub elements: u16,
    /// Only these: a parameter's name, or one with members (`b.c`). Empty: all parameters.
    pub select: Vec<String>,
    /// Hits that do not fulfil all of these are not told.
    pub conditions: Vec<Condition>,
    /// Whether a negative result means that the function failed, as in C.
    pub negative_fails: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            depth: 2,
            string_bytes: 128,
            elements: 8,
            select: Vec::new(),
            conditions: Vec::new(),
            negative_fails: false,
        }
    }
}

/// A comparison of an argument with a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// A parameter's name, or one with members.
    pub path: String,
    /// How they are compared.
    pub compare: Compare,
    /// With what.
    pub number: i32,
}

/// How a condition compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// Values as bytecode, and what reads back what that writes.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// At most [`OPS_MAX`](agent_common::function::OPS_MAX); empty if nothing is read.
    pub ops: Vec<Op>,
    /// Reads the chunks.
    pub reader: Reader,
}

/// Why an option does not fit a function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// There is no such parameter or member.
    #[error("no parameter or member `{path}`")]
    NoSuchValue {
        /// As it was given.
        path: String,
    },
    /// A condition is about something that is no number, or that cannot be read.
    #[error("`{path}` cannot be compared: {reason}")]
    NotComparable {
        /// As it was given.
        path: String,
        /// Why not.
        reason: Unreadable,
    },
}

/// Text that many values share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name(pub(crate) Arc<str>);

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.into()))
    }
}
