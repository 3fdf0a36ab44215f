//! Types of made-up programs in C and C++, and how values are written and told.

use std::fmt::Write as _;
use std::rc::Rc;

use super::expected::Expected;

/// A type, with a name that is one word or several before what has it.
pub(super) struct Type {
    pub(super) name: String,
    pub(super) shape: Shape,
}

pub(super) enum Shape {
    Int {
        bits: u32,
        signed: bool,
    },
    Char,
    Bool,
    Enum {
        names: Vec<(String, i128)>,
        bits: u32,
        signed: bool,
    },
    /// Anything that is no whole number; how one is written.
    Float(&'static str),
    /// An address that is not followed.
    Address,
    /// Addresses of functions.
    Code,
    CString,
    Pointer(Rc<Type>),
    Struct(Vec<Member>),
    Union(Vec<Member>),
    Vector(Rc<Type>, usize),
    /// An array with a name; a member only.
    Row(Rc<Type>, usize),
    /// C++: passed by its address, since it has a destructor.
    StdString,
    View,
    Elements(Rc<Type>),
    Reference(Rc<Type>),
}

pub(super) struct Member {
    pub(super) name: String,
    pub(super) ty: Rc<Type>,
    /// Of a bit field: how many.
    pub(super) bits: Option<u32>,
    /// Of an array: how many.
    pub(super) count: Option<usize>,
}

pub(super) fn bare(ty: &Rc<Type>) -> &Rc<Type> {
    match &ty.shape {
        Shape::Reference(to) => to,
        _ => ty,
    }
}

/// How a value is used: as a number, if it fits into a register.
pub(super) fn use_of(ty: &Type) -> &'static str {
    match &ty.shape {
        Shape::Int { bits: 8..=64, .. } | Shape::Char | Shape::Bool | Shape::Enum { .. } => {
            "USE_NUMBER"
        }
        Shape::Address | Shape::Code | Shape::CString | Shape::Pointer(_) => "USE_NUMBER",
        _ => "USE",
    }
}

/// Whether a value can be written where it is given.
pub(super) fn is_small(ty: &Type) -> bool {
    matches!(ty.shape, Shape::Int { .. } | Shape::Char | Shape::Bool | Shape::Enum { .. })
}

pub(super) fn members_text(members: &[Member]) -> String {
    let mut text = String::new();
    for member in members {
        let _ = write!(text, "{} {}", member.ty.name, member.name);
        let _ = match (member.bits, member.count) {
            (Some(bits), _) => write!(text, " : {bits}; "),
            (_, Some(count)) => write!(text, "[{count}]; "),
            _ => write!(text, "; "),
        };
    }
    text
}

pub(super) fn index(bits: u32) -> usize {
    bits.trailing_zeros() as usize - 3
}

/// An integer as C writes it.
pub(super) fn integer(number: i128, bits: u32, signed: bool) -> String {
    match (bits, signed) {
        (128, _) => {
            let (high, low) = ((number >> 64) as u64, number as u64);
            let word = if signed { "__int128" } else { "unsigned __int128" };
            format!("({word})((unsigned __int128){high:#x}ULL << 64 | {low:#x}ULL)")
        }
        (64, true) if number == i128::from(i64::MIN) => "(-9223372036854775807LL - 1)".to_owned(),
        (64, true) => format!("{number}LL"),
        (64, false) => format!("{number}ULL"),
        (32, true) if number == i128::from(i32::MIN) => "(-2147483647 - 1)".to_owned(),
        (32, false) => format!("{number}U"),
        _ => number.to_string(),
    }
}

/// What is told of an element: nothing is followed from within a list.
pub(super) fn plain(told: Expected) -> Expected {
    match told {
        Expected::Behind(_) | Expected::Text(_) => Expected::Address,
        other => other,
    }
}

/// A `char` as it is told.
pub(super) fn character(number: i128) -> String {
    match u8::try_from(number) {
        Ok(byte) if byte.is_ascii_graphic() || byte == b' ' => format!("{:?}", char::from(byte)),
        _ => number.to_string(),
    }
}
