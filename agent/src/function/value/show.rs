//! How bytes of a value become text: a plan that says where the parts lie and in which chunks what
//! they point at. Written into recordings, so it may come from anyone.

use serde::{Deserialize, Serialize};

use super::Name;
use crate::inspect::dwarf::place::Unreadable;

/// How a value that lies at some place in the bytes of a chunk is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Show {
    /// Nothing: a value without bytes.
    Nothing,
    /// It cannot be read.
    Unavailable(Unreadable),
    /// An integer of 1, 2, 4, 8 or 16 bytes.
    Int { bytes: u8, signed: bool },
    /// Some bits of an integer, counted from the beginning; some numbers have names.
    Bits {
        first: u64,
        count: u8,
        signed: bool,
        #[serde(default)]
        names: Vec<(i64, Name)>,
    },
    /// A truth value.
    Bool,
    /// A Unicode character of so many bytes; one byte: C's.
    Char { bytes: u8 },
    /// A named number.
    Enum { bytes: u8, signed: bool, names: Vec<(i64, Name)> },
    /// An address that is not followed.
    Address,
    /// An address, and what is there in a chunk of its own.
    Pointer { chunk: u16, bytes: u32, reference: bool, to: Box<Show> },
    /// An address of a string that ends with a zero.
    CString { chunk: u16 },
    /// Characters in a chunk of their own; their number lies at `length_at`.
    Text { chunk: u16, length_at: u64, length_bytes: u8, shift: u8 },
    /// Elements in a chunk of their own; their number lies at `length_at`.
    Slice { chunk: u16, length_at: u64, stride: u32, of: Box<Show> },
    /// Elements in a chunk of their own, between two addresses.
    Span { chunk: u16, from_at: u64, to_at: u64, stride: u32, of: Box<Show> },
    /// Elements in place; some of them are shown.
    Array { count: u64, shown: u32, stride: u32, of: Box<Show> },
    /// An array of characters in place.
    CharArray { bytes: u32 },
    /// Members side by side.
    Struct { fields: Vec<Field>, cut: bool },
    /// One of several structs.
    Variants { tag_at: u64, tag_bytes: u8, variants: Vec<Case> },
    /// libc++'s string: inside if short, else by address.
    ShortString {
        long_bit_at: u64,
        long_mask: u8,
        size_at: u64,
        size_shift: u8,
        inline_at: u64,
        inline_bytes: u32,
        text: Box<Show>,
    },
    /// Go's interfaces: the type's descriptor and its name in chunks, and the text that the commonest
    /// errors hold.
    Interface { descriptor: u16, name: Option<u16>, message: Option<Message> },
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Field {
    /// Its name; of tuples, empty.
    pub(crate) name: Name,
    /// Where it begins.
    pub(crate) at: u64,
    /// How it is shown.
    pub(crate) show: Show,
}

/// One of the structs that an enum may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Case {
    /// Tags that mean it; `None`: those that mean no other.
    pub(crate) tags: Option<(u64, u64)>,
    /// Its name.
    pub(crate) name: Name,
    /// Where its struct begins.
    pub(crate) at: u64,
    /// Its members.
    pub(crate) show: Show,
}

/// Where the message of an error is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    /// The chunk with the string's address and length.
    pub(crate) header: u16,
    /// The chunk with its characters.
    pub(crate) text: u16,
}
