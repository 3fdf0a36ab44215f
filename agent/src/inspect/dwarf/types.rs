//! Types as the debug information gives them, cut loose from the file: a small graph, at most
//! [`TYPES_MAX`] of them for one function. Names nothing of DWARF.

use std::collections::HashMap;
use std::sync::Arc;

/// Most types of one function's graph; what lies farther away is [`Shape::Unknown`].
pub const TYPES_MAX: usize = 200;

/// Most bytes of a type, and from the beginning of one to a member: what lies farther away is no sound file's,
/// and sums of such numbers are exact.
pub const BYTES_MAX: u64 = u32::MAX as u64;

/// Most parts of a type: its members, theirs, and so on; of an array up to [`ELEMENTS_MAX`] elements count.
pub const PARTS_MAX: u32 = 1 << 14;

/// Most elements of an array that are looked at one by one.
pub const ELEMENTS_MAX: u64 = 16;

/// Deepest nesting of a type that is looked into.
pub const DEPTH_MAX: u32 = 12;

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
    /// Whether it is an array that has a vector register for itself.
    pub is_vector: bool,
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

    /// Forgets what types are made of that have more than [`PARTS_MAX`] parts: who looks at all of them, as a
    /// calling convention asks, would not come to an end.
    pub(super) fn forget_endless(&mut self) {
        let mut parts = Parts { types: self, known: HashMap::new() };
        let numbers = (0..self.nodes.len() as u32).map(TypeNo);
        let endless: Vec<_> = numbers.filter(|ty| parts.of(*ty, 0) > PARTS_MAX).collect();
        for number in endless {
            if let Some(ty) = self.nodes.get_mut(number.0 as usize) {
                ty.shape = Shape::Unknown;
            }
        }
    }

    /// Forgets what members of a packed struct are that LLVM describes as if they were no bit fields, because
    /// they have as many bits as their type: it leaves out at which bit they begin, and so of the next one.
    /// Those begin within the byte in which a bit field ends.
    pub(super) fn forget_misplaced(&mut self) {
        let mut misplaced = Vec::new();
        for (number, ty) in self.nodes.iter().enumerate() {
            let Shape::Struct { members } = &ty.shape else { continue };
            // In bits: the end of the last member, if the next one cannot begin before it.
            let mut taken = None;
            for (index, member) in members.iter().enumerate() {
                let first = member.offset.saturating_mul(8);
                taken = match member.bits {
                    Some((first, bits)) => Some(first.saturating_add(bits.into())),
                    None if taken.is_some_and(|taken| first < taken) => {
                        misplaced.push((number, index));
                        let bits = self.size(member.ty).saturating_mul(8);
                        // What follows at once, by what is said, is as far off.
                        Some(first.saturating_add(bits).saturating_add(1))
                    }
                    None => None,
                };
            }
        }
        if misplaced.is_empty() {
            return;
        }
        let unknown = TypeNo(self.nodes.len() as u32);
        self.nodes.push(Type::unknown());
        for (number, index) in misplaced {
            if let Shape::Struct { members } = &mut self.nodes[number].shape {
                members[index].ty = unknown;
            }
        }
    }

    /// Forgets the variants of enums that no value can be, because what they hold has none: rustc gives them tags
    /// that others have. What may then be two variants by the same tags is unknown.
    pub(super) fn forget_impossible(&mut self) {
        let is_enum = |ty: &Type| matches!(ty.shape, Shape::Variants { .. });
        let enums = (0..self.nodes.len()).filter(|number| is_enum(&self.nodes[*number]));
        for number in enums.collect::<Vec<_>>() {
            let Shape::Variants { variants, .. } = &self.nodes[number].shape else { continue };
            let can_be: Vec<bool> =
                variants.iter().map(|variant| self.has_values(variant.member.ty, 0)).collect();
            let Shape::Variants { variants, .. } = &mut self.nodes[number].shape else { continue };
            let mut can_be = can_be.into_iter();
            variants.retain(|_| can_be.next().unwrap_or(true));
            if variants.iter().filter(|variant| variant.tags.is_none()).count() > 1 {
                self.nodes[number].shape = Shape::Unknown;
            }
        }
    }

    /// Whether there are values of a type, as far as it is looked into: an enum without variants has none.
    fn has_values(&self, number: TypeNo, depth: u32) -> bool {
        if depth > DEPTH_MAX {
            return true;
        }
        match &self.bare(number).1.shape {
            Shape::Struct { members } => {
                members.iter().all(|member| self.has_values(member.ty, depth + 1))
            }
            Shape::Variants { tag, variants } => tag.is_some() || !variants.is_empty(),
            _ => true,
        }
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
        self.size_within(number, 0)
    }

    /// Arrays say how many they are of what, and that may be arrays.
    fn size_within(&self, number: TypeNo, depth: u32) -> u64 {
        let ty = self.bare(number).1;
        match &ty.shape {
            Shape::Array { of, count: Some(count) } if ty.size == 0 && depth < DEPTH_MAX => {
                self.size_within(*of, depth + 1).saturating_mul(*count).min(BYTES_MAX)
            }
            _ => ty.size,
        }
    }
}

/// How many parts types have, by number and by how deep in another type each is.
struct Parts<'t> {
    types: &'t Types,
    known: HashMap<(TypeNo, u32), u32>,
}

impl Parts<'_> {
    /// More than [`PARTS_MAX`] are not counted.
    fn of(&mut self, number: TypeNo, depth: u32) -> u32 {
        let (number, bare) = self.types.bare(number);
        let inner: Vec<(TypeNo, u32)> = match &bare.shape {
            Shape::Struct { members } | Shape::Union { members } => {
                members.iter().map(|member| (member.ty, 1)).collect()
            }
            Shape::Variants { tag, variants } => {
                let members = variants.iter().map(|variant| &variant.member).chain(tag);
                members.map(|member| (member.ty, 1)).collect()
            }
            Shape::Array { of, count } => {
                vec![(*of, count.unwrap_or(1).min(ELEMENTS_MAX) as u32)]
            }
            _ => return 1,
        };
        if depth > DEPTH_MAX {
            return 1;
        }
        if let Some(known) = self.known.get(&(number, depth)) {
            return *known;
        }
        let mut parts = 1_u32;
        for (ty, times) in inner {
            parts = parts.saturating_add(self.of(ty, depth + 1).saturating_mul(times));
        }
        let parts = parts.min(PARTS_MAX + 1);
        self.known.insert((number, depth), parts);
        parts
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
            is_vector: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A struct of so many members of the type with the next number, and so on.
    fn nested(levels: u32, members: usize) -> Types {
        let nest = |number: u32| {
            let member = Member {
                name: "".into(),
                offset: 0,
                ty: TypeNo(number + 1),
                bits: None,
                embedded: false,
            };
            Type::new("nest", 8, Shape::Struct { members: vec![member; members] })
        };
        let last = Type::new("int", 4, Shape::Int { signed: true });
        Types::new((0..levels).map(nest).chain([last]).collect())
    }

    fn is_known(types: &Types, number: u32) -> bool {
        !matches!(types.get(TypeNo(number)).shape, Shape::Unknown)
    }

    #[test]
    fn variants_that_nothing_can_be_are_none() {
        let member =
            |ty| Member { name: "".into(), offset: 0, ty: TypeNo(ty), bits: None, embedded: false };
        let variant = |ty: u32, tag: Option<u128>| Variant {
            tags: tag.map(|tag| (tag, tag)),
            name: ty.to_string().into(),
            member: member(ty),
        };
        let made = |variants| Type::new("", 4, Shape::Variants { tag: Some(member(0)), variants });
        let int = Type::new("int", 4, Shape::Int { signed: true });
        let never = Type::new("never", 0, Shape::Variants { tag: None, variants: Vec::new() });
        let holds = Type::new("", 0, Shape::Struct { members: vec![member(0), member(1)] });
        let mut types = Types::new(vec![
            int,
            never,
            holds,
            made(vec![variant(2, Some(0)), variant(0, None), variant(0, Some(1))]),
            made(vec![variant(2, None), variant(0, None)]),
            made(vec![variant(0, None), variant(0, None)]),
        ]);
        types.forget_impossible();
        let left = |number: u32| match &types.get(TypeNo(number)).shape {
            Shape::Variants { variants, .. } => Some(variants.len()),
            _ => None,
        };
        assert_eq!([left(3), left(4), left(5)], [Some(2), Some(1), None]);
    }

    #[test]
    fn what_has_no_end_is_unknown() {
        // 128 members, each with 128, and so on: two levels are few enough.
        let mut types = nested(8, 128);
        types.forget_endless();
        let known: Vec<bool> = (0..9).map(|number| is_known(&types, number)).collect();
        let expected = [false, false, false, false, false, false, false, true, true];
        assert_eq!(known, expected);
        // One member each, however deep.
        let mut types = nested(200, 1);
        types.forget_endless();
        assert!((0..=200).all(|number| is_known(&types, number)));
        // Within itself.
        let member =
            |ty| Member { name: "".into(), offset: 0, ty: TypeNo(ty), bits: None, embedded: false };
        for times in [1, 3] {
            let members = vec![member(0); times];
            let mut types = Types::new(vec![Type::new("self", 8, Shape::Struct { members })]);
            types.forget_endless();
            assert_eq!(is_known(&types, 0), times == 1, "{times}");
        }
        // Elements of elements.
        let array = |of| Type::new("", 0, Shape::Array { of: TypeNo(of), count: Some(1000) });
        let last = Type::new("char", 1, Shape::Char { signed: true, plain: true });
        let mut types = Types::new(vec![array(1), array(2), array(3), array(4), last]);
        types.forget_endless();
        let known: Vec<bool> = (0..5).map(|number| is_known(&types, number)).collect();
        assert_eq!(known, [false, true, true, true, true]);
    }
}
