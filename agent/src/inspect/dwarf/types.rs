//! Types as the debug information gives them, cut loose from the file: a small graph, at most
//! [`TYPES_MAX`] of them for one function. Names nothing of DWARF.

use std::sync::Arc;

/// Most types of one function's graph; what lies farther away is [`Shape::Unknown`].
pub const TYPES_MAX: usize = 200;

/// A type, an index of [`Types`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeNo(pub u32);

/// The types that a function's parameters and results lead to.
#[derive(Clone, Debug, Default)]
pub struct Types {
    pub(super) nodes: Vec<Type>,
}

/// A type.
#[derive(Clone, Debug)]
pub struct Type {
    /// As the debug information gives it; empty if it has none. Namespaces are left out, except in Go.
    pub name: Arc<str>,
    /// Its bytes; 0 if unknown.
    pub size: u64,
    /// What it is.
    pub shape: Shape,
    /// Arguments of its template.
    pub arguments: Vec<TypeNo>,
    /// Go's `reflect.Kind`; 0 in other languages.
    pub go_kind: u8,
    /// How C++ says it is passed.
    pub passing: Passing,
}

/// How a class is passed: what the file says (DWARF's `DW_CC_pass_by_value` and
/// `DW_CC_pass_by_reference`), or what its declarations mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Passing {
    /// It is not said.
    #[default]
    Unknown,
    /// It declares nothing that would make it pass otherwise than its members.
    Plain,
    /// As its bytes.
    Value,
    /// By its address.
    Reference,
}

/// What a type is.
#[derive(Clone, Debug, Default)]
pub enum Shape {
    /// Not known: incomplete, too far away, of a kind that is not shown.
    #[default]
    Unknown,
    /// Nothing: `void`, `()`.
    Void,
    /// An integer.
    Int {
        /// Whether it has a sign.
        signed: bool,
    },
    /// A character: C's `char`s of one byte, Unicode's of two and four.
    Char {
        /// Whether it has a sign; which of C's `char`s.
        signed: bool,
        /// Whether it is a plain `char`, not `signed char` or `unsigned char`.
        plain: bool,
    },
    /// A truth value.
    Bool,
    /// A floating-point number, a complex or decimal one.
    Float,
    /// An address.
    Pointer {
        /// Of what.
        to: TypeNo,
        /// Whether the language writes it as what it refers to (C++'s references).
        reference: bool,
    },
    /// Another name of a type, or the type with qualifiers.
    Alias {
        /// The type.
        to: TypeNo,
        /// Whether it only adds `const` or `volatile`.
        qualifier: bool,
    },
    /// Members side by side.
    Struct {
        /// In the order in which they were declared. Bases of a class come first.
        members: Vec<Member>,
    },
    /// Members in the same place.
    Union {
        /// Its members.
        members: Vec<Member>,
    },
    /// Named numbers.
    Enum {
        /// Whether they have a sign.
        signed: bool,
        /// Number and name.
        names: Vec<(i128, Arc<str>)>,
    },
    /// Rust's enums with values: one of several structs.
    Variants {
        /// The number that says which.
        tag: Option<Member>,
        /// Those there are.
        variants: Vec<Variant>,
    },
    /// Equal elements.
    Array {
        /// Of what.
        of: TypeNo,
        /// How many; `None` if the type does not say.
        count: Option<u64>,
    },
    /// Machine code.
    Code,
}

/// A member of a struct.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name; empty for anonymous ones.
    pub name: Arc<str>,
    /// Bytes from the beginning.
    pub offset: u64,
    /// Its type.
    pub ty: TypeNo,
    /// Of a bit field: the first bit from that of the struct, and how many.
    pub bits: Option<(u64, u8)>,
    /// Whether it is a base class, or Go's embedded field.
    pub embedded: bool,
}

/// One of the structs that an enum may be.
#[derive(Clone, Debug)]
pub struct Variant {
    /// The tags that mean it; `None`: all that mean no other.
    pub tags: Option<(u128, u128)>,
    /// Its name.
    pub name: Arc<str>,
    /// Its struct, and where that begins.
    pub member: Member,
}

impl Types {
    /// Makes a table, for tests and for callers that need types that no file describes.
    pub fn new(nodes: Vec<Type>) -> Self {
        Self { nodes }
    }

    /// A type.
    pub fn get(&self, number: TypeNo) -> &Type {
        static NONE: std::sync::LazyLock<Type> = std::sync::LazyLock::new(Type::unknown);
        self.nodes.get(number.0 as usize).unwrap_or(&NONE)
    }

    /// A type behind its other names and qualifiers.
    pub fn bare(&self, number: TypeNo) -> (TypeNo, &Type) {
        let mut number = number;
        // Names of names of names: a spoiled file has circles.
        for _ in 0..16 {
            match self.get(number).shape {
                Shape::Alias { to, .. } => number = to,
                _ => break,
            }
        }
        (number, self.get(number))
    }

    /// A type's size, also behind other names.
    pub fn size(&self, number: TypeNo) -> u64 {
        let ty = self.bare(number).1;
        match &ty.shape {
            Shape::Array { of, count: Some(count) } if ty.size == 0 => {
                // Arrays of arrays are this deep at most in what is read.
                let one = self.get(self.bare(*of).0).size;
                one.saturating_mul(*count)
            }
            _ => ty.size,
        }
    }
}

impl Type {
    /// A type of which nothing is known.
    pub fn unknown() -> Self {
        Self::new("", 0, Shape::Unknown)
    }

    /// A type with nothing special.
    pub fn new(name: &str, size: u64, shape: Shape) -> Self {
        Self {
            name: name.into(),
            size,
            shape,
            arguments: Vec::new(),
            go_kind: 0,
            passing: Passing::Unknown,
        }
    }
}
