//! Makes [`Types`] of the entries that describe them, nearest first, so that a bound cuts off what is
//! farthest.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use gimli::{AttributeValue, DwAt};

use super::types::{BYTES_MAX, Member, Passing, Shape, TYPES_MAX, Type, TypeNo, Types, Variant};
use super::units::{Attr, Die, Entry, Unit, View};

/// Go's own attribute: `reflect.Kind` of a type.
const DW_AT_GO_KIND: DwAt = DwAt(0x2900);
/// Go's own attribute: whether a field is embedded.
const DW_AT_GO_EMBEDDED: DwAt = DwAt(0x2903);

/// Most members, enumerators or variants that are taken of one type.
const MEMBERS_MAX: usize = 128;

/// Most variants of an enum that is read.
const VARIANTS_MAX: usize = 512;

/// Most dimensions of an array.
const DIMENSIONS_MAX: usize = 8;

/// Types behind more addresses than this are not read; fewer are followed when values are.
const HOPS_MAX: usize = 4;

/// Builds one function's types.
pub(super) struct Resolver<'v, 'a> {
    view: &'v View<'a>,
    known: HashMap<Die, TypeNo>,
    /// What is not read yet, by how many addresses lead there.
    waiting: [VecDeque<(Die, TypeNo)>; HOPS_MAX],
    /// How many lead to what is being read.
    hops: usize,
    read: HashSet<TypeNo>,
    types: Types,
    void: TypeNo,
}

impl<'v, 'a> Resolver<'v, 'a> {
    pub(super) fn new(view: &'v View<'a>) -> Self {
        let types = Types { nodes: vec![Type::new("", 0, Shape::Void)] };
        Self {
            view,
            known: HashMap::new(),
            waiting: Default::default(),
            hops: 0,
            read: HashSet::new(),
            types,
            void: TypeNo(0),
        }
    }

    /// The number of the type that an attribute names; of nothing, if it names none.
    pub(super) fn number(&mut self, from: Die, value: Option<Attr<'a>>) -> TypeNo {
        let Some(value) = value else { return self.void };
        match self.view.follow(from, &value) {
            Some(die) => self.of(die),
            None => self.add(Type::unknown()),
        }
    }

    /// The type that an address leads to.
    fn behind(&mut self, from: Die, value: Option<Attr<'a>>) -> TypeNo {
        self.hops += 1;
        let number = self.number(from, value);
        self.hops -= 1;
        number
    }

    /// The type at an entry.
    fn of(&mut self, die: Die) -> TypeNo {
        let number = match self.known.get(&die) {
            Some(known) if self.read.contains(known) => return *known,
            Some(known) => *known,
            None => {
                let number = self.add(Type::unknown());
                self.known.insert(die, number);
                number
            }
        };
        // Once for each distance: the nearest counts.
        if let Some(waiting) = self.waiting.get_mut(self.hops)
            && !waiting.contains(&(die, number))
        {
            waiting.push_back((die, number));
        }
        number
    }

    fn add(&mut self, ty: Type) -> TypeNo {
        let number = TypeNo(self.types.nodes.len() as u32);
        self.types.nodes.push(ty);
        number
    }

    /// Reads what was asked for and all that leads to.
    pub(super) fn finish(mut self) -> Types {
        for hops in 0..HOPS_MAX {
            while let Some((die, number)) = self.waiting[hops].pop_front()
                && self.read.len() < TYPES_MAX
            {
                self.hops = hops;
                if !self.read.insert(number) {
                    continue;
                }
                if let Some(ty) = self.read(die)
                    && let Some(slot) = self.types.nodes.get_mut(number.0 as usize)
                {
                    *slot = ty;
                }
            }
        }
        self.types.forget_misplaced();
        self.types.forget_endless();
        self.types.forget_impossible();
        self.types
    }

    fn read(&mut self, die: Die) -> Option<Type> {
        let (unit, entry) = self.view.entry(die).ok()?;
        let mut ty = Type::unknown();
        if let Some(name) = entry.attr_value(gimli::DW_AT_name) {
            ty.name = self.view.text(die.part, &unit, name)?;
        }
        let size = number(&entry, gimli::DW_AT_byte_size);
        ty.size = size.filter(|size| *size <= BYTES_MAX).unwrap_or(0);
        ty.go_kind = number(&entry, DW_AT_GO_KIND).unwrap_or(0) as u8;
        ty.passing = match entry.attr_value(gimli::DW_AT_calling_convention) {
            Some(AttributeValue::CallingConvention(gimli::DW_CC_pass_by_reference)) => {
                Passing::Reference
            }
            Some(AttributeValue::CallingConvention(gimli::DW_CC_pass_by_value)) => Passing::Value,
            _ => Passing::Unknown,
        };
        ty.shape = self.shape(die, &unit, &entry, &mut ty)?;
        Some(ty)
    }

    fn shape(
        &mut self,
        die: Die,
        unit: &Unit<'a>,
        entry: &Entry<'a>,
        ty: &mut Type,
    ) -> Option<Shape> {
        let to = entry.attr_value(gimli::DW_AT_type);
        Some(match entry.tag() {
            gimli::DW_TAG_base_type => base(entry, &ty.name),
            gimli::DW_TAG_unspecified_type => {
                // C++'s nullptr_t is a pointer; Rust's never type and the like have no values.
                if &*ty.name == "decltype(nullptr)" { Shape::Unknown } else { Shape::Void }
            }
            gimli::DW_TAG_pointer_type => {
                ty.size = 8;
                Shape::Pointer { to: self.behind(die, to), reference: false }
            }
            gimli::DW_TAG_reference_type | gimli::DW_TAG_rvalue_reference_type => {
                ty.size = 8;
                Shape::Pointer { to: self.behind(die, to), reference: true }
            }
            gimli::DW_TAG_typedef => Shape::Alias { to: self.number(die, to), qualifier: false },
            gimli::DW_TAG_const_type
            | gimli::DW_TAG_volatile_type
            | gimli::DW_TAG_restrict_type
            | gimli::DW_TAG_atomic_type => {
                let word = match entry.tag() {
                    gimli::DW_TAG_const_type => "const",
                    gimli::DW_TAG_volatile_type => "volatile",
                    gimli::DW_TAG_restrict_type => "restrict",
                    _ => "_Atomic",
                };
                ty.name = word.into();
                Shape::Alias { to: self.number(die, to), qualifier: true }
            }
            gimli::DW_TAG_subroutine_type => Shape::Code,
            gimli::DW_TAG_enumeration_type => self.enumeration(die, unit, to),
            gimli::DW_TAG_array_type => {
                ty.is_vector = entry.has_attr(gimli::DW_AT_GNU_vector);
                self.array(die, to)?
            }
            gimli::DW_TAG_structure_type | gimli::DW_TAG_class_type => {
                if entry.has_attr(gimli::DW_AT_declaration) {
                    // It may be described in another unit; it is not looked for.
                    return Some(Shape::Unknown);
                }
                self.members(die, unit, ty)?
            }
            gimli::DW_TAG_union_type => {
                if entry.has_attr(gimli::DW_AT_declaration) {
                    return Some(Shape::Unknown);
                }
                match self.members(die, unit, ty)? {
                    Shape::Struct { members } => Shape::Union { members },
                    other => other,
                }
            }
            _ => Shape::Unknown,
        })
    }

    fn enumeration(&mut self, die: Die, unit: &Unit<'a>, to: Option<Attr<'a>>) -> Shape {
        let mut names = Vec::new();
        let mut signed = false;
        for child in children(unit, die.entry) {
            if child.tag() != gimli::DW_TAG_enumerator || names.len() >= MEMBERS_MAX {
                continue;
            }
            let name = child.attr_value(gimli::DW_AT_name);
            let name = name.and_then(|name| self.view.text(die.part, unit, name));
            let value = child.attr_value(gimli::DW_AT_const_value);
            let value = match value {
                Some(AttributeValue::Sdata(value)) => Some(i128::from(value)),
                Some(other) => other.udata_value().map(i128::from),
                None => None,
            };
            if let (Some(name), Some(value)) = (name, value) {
                signed |= value < 0;
                names.push((value, name));
            }
        }
        if let Some(to) = to
            && let Some(under) = self.view.follow(die, &to)
            && let Ok((_, under)) = self.view.entry(under)
        {
            signed |= matches!(base(&under, ""), Shape::Int { signed: true });
        }
        Shape::Enum { signed, names }
    }

    fn array(&mut self, die: Die, to: Option<Attr<'a>>) -> Option<Shape> {
        let unit = self.view.unit(die.part, die.unit).ok()?;
        let mut counts = Vec::new();
        for child in children(&unit, die.entry) {
            if child.tag() == gimli::DW_TAG_subrange_type {
                let count = number(&child, gimli::DW_AT_count).or_else(|| {
                    let last = child.attr_value(gimli::DW_AT_upper_bound)?;
                    // C's `[]` has a bound of -1 in some producers' files.
                    last.udata_value().and_then(|last| last.checked_add(1))
                });
                counts.push(count.filter(|count| *count < u64::from(u32::MAX)));
                if counts.len() > DIMENSIONS_MAX {
                    return None;
                }
            }
        }
        let mut of = self.number(die, to);
        // The last of several dimensions varies first: it is that of the inner array.
        let outer = if counts.is_empty() { None } else { counts.remove(0) };
        for count in counts.into_iter().rev() {
            of = self.add(Type::new("", 0, Shape::Array { of, count }));
        }
        Some(Shape::Array { of, count: outer })
    }

    /// The members of a struct, or the variants of one of Rust's enums.
    fn members(&mut self, die: Die, unit: &Unit<'a>, ty: &mut Type) -> Option<Shape> {
        let mut members = Vec::new();
        let said = ty.passing != Passing::Unknown;
        if !said {
            ty.passing = Passing::Plain;
        }
        for child in children(unit, die.entry) {
            match child.tag() {
                gimli::DW_TAG_subprogram if !said && ty.passing != Passing::Reference => {
                    self.special_function(die, unit, &child, ty);
                }
                // A class with a virtual base is made by more than its bytes.
                gimli::DW_TAG_inheritance if child.has_attr(gimli::DW_AT_virtuality) => {
                    ty.passing = if said { ty.passing } else { Passing::Reference };
                }
                gimli::DW_TAG_member | gimli::DW_TAG_inheritance => {
                    // Static members have no place in the struct.
                    if child.has_attr(gimli::DW_AT_external) || members.len() >= MEMBERS_MAX {
                        continue;
                    }
                    let is_virtual = child.tag() == gimli::DW_TAG_inheritance
                        && child.has_attr(gimli::DW_AT_virtuality);
                    match self.member(die, unit, &child) {
                        Some(member) => members.push(member),
                        // Where a virtual base begins is found in the object.
                        None if is_virtual => {}
                        // Without one of its members it would be another type.
                        None => return Some(Shape::Unknown),
                    }
                }
                gimli::DW_TAG_variant_part => {
                    let part = Die { entry: child.offset().0, ..die };
                    return self.variants(part, unit, &child);
                }
                gimli::DW_TAG_template_type_parameter if ty.arguments.len() < 4 => {
                    let to = child.attr_value(gimli::DW_AT_type);
                    let argument = self.number(die, to);
                    ty.arguments.push(argument);
                }
                _ => {}
            }
        }
        Some(Shape::Struct { members })
    }

    /// A member function of a class: whether it is one that makes the class be passed by its address.
    fn special_function(&self, die: Die, unit: &Unit<'a>, entry: &Entry<'a>, ty: &mut Type) {
        if entry.has_attr(gimli::DW_AT_virtuality) {
            ty.passing = Passing::Reference;
            return;
        }
        let name = entry.attr_value(gimli::DW_AT_name);
        let Some(name) = name.and_then(|name| self.view.text(die.part, unit, name)) else { return };
        // `= default` in the class and `= delete` are said since DWARF 5 only; neither is relied on.
        let class = ty.name.split('<').next().unwrap_or_default();
        let plain = name.split('<').next().unwrap_or_default();
        if plain.strip_prefix('~') == Some(class) {
            let defaulted = entry.has_attr(gimli::DW_AT_defaulted);
            let deleted = entry.has_attr(gimli::DW_AT_deleted);
            ty.passing = if defaulted || deleted || entry.has_attr(gimli::DW_AT_artificial) {
                Passing::Unknown
            } else {
                Passing::Reference
            };
        } else if plain == class && self.takes_itself(die, unit, entry) {
            ty.passing = Passing::Unknown;
        }
    }

    /// Whether a constructor's argument is a reference to an object of the class.
    fn takes_itself(&self, die: Die, unit: &Unit<'a>, entry: &Entry<'a>) -> bool {
        let parameters = children(unit, entry.offset().0)
            .filter(|child| child.tag() == gimli::DW_TAG_formal_parameter)
            .skip(1);
        for parameter in parameters {
            let mut at = Some(Die { entry: parameter.offset().0, ..die });
            // Through the reference and its qualifiers.
            for _ in 0..6 {
                let Some(here) = at else { break };
                if (here.unit, here.entry) == (die.unit, die.entry) {
                    return true;
                }
                let Ok((_, entry)) = self.view.entry(here) else { break };
                at = entry.attr_value(gimli::DW_AT_type).and_then(|to| self.view.follow(here, &to));
            }
        }
        false
    }

    fn member(&mut self, die: Die, unit: &Unit<'a>, entry: &Entry<'a>) -> Option<Member> {
        let name = entry.attr_value(gimli::DW_AT_name);
        let name = name.and_then(|name| self.view.text(die.part, unit, name));
        let inherits = entry.tag() == gimli::DW_TAG_inheritance;
        let virtually = entry.has_attr(gimli::DW_AT_virtuality) && inherits;
        let offset = match entry.attr_value(gimli::DW_AT_data_member_location) {
            _ if virtually => return None,
            Some(AttributeValue::Exprloc(_)) => return None,
            Some(value) => value.udata_value().filter(|offset| *offset <= BYTES_MAX)?,
            None => 0,
        };
        let to = entry.attr_value(gimli::DW_AT_type);
        let bits = match number(entry, gimli::DW_AT_bit_size) {
            Some(count) => Some(bits(entry, offset, count)?),
            None => None,
        };
        let embedded = inherits || number(entry, DW_AT_GO_EMBEDDED) == Some(1);
        Some(Member {
            name: name.unwrap_or_else(|| Arc::from("")),
            offset,
            ty: self.number(die, to),
            bits,
            embedded,
        })
    }

    fn variants(&mut self, part: Die, unit: &Unit<'a>, entry: &Entry<'a>) -> Option<Shape> {
        let mut tag = None;
        if let Some(value) = entry.attr_value(gimli::DW_AT_discr)
            && let Some(die) = self.view.follow(part, &value)
        {
            let (unit, entry) = self.view.entry(die).ok()?;
            tag = self.member(part, &unit, &entry);
        }
        let mut variants = Vec::new();
        for child in children(unit, part.entry) {
            if child.tag() != gimli::DW_TAG_variant {
                continue;
            }
            // One of them may be what all tags mean that mean no other: without all of those it is not known
            // which. Ranges of tags are not among what compilers write.
            if variants.len() >= VARIANTS_MAX || child.has_attr(gimli::DW_AT_discr_list) {
                return Some(Shape::Unknown);
            }
            let tags = match child.attr_value(gimli::DW_AT_discr_value) {
                Some(AttributeValue::Data16(value)) => Some((value, value)),
                Some(AttributeValue::Sdata(value)) => Some((value as u128, value as u128)),
                Some(value) => value.udata_value().map(|value| (value.into(), value.into())),
                None => None,
            };
            let mut inner = children(unit, child.offset().0);
            let member = inner.find(|inner| inner.tag() == gimli::DW_TAG_member);
            let place = Die { entry: child.offset().0, ..part };
            match member.and_then(|member| self.member(place, unit, &member)) {
                Some(member) => {
                    variants.push(Variant { tags, name: Arc::clone(&member.name), member })
                }
                None => return Some(Shape::Unknown),
            }
        }
        Some(Shape::Variants { tag, variants })
    }
}

/// A number that an attribute holds.
pub(super) fn number(entry: &Entry<'_>, name: DwAt) -> Option<u64> {
    entry.attr_value(name)?.udata_value()
}

/// A bit field's first bit and bits (DWARF 5's `DW_AT_data_bit_offset`, or DWARF 3's way).
fn bits(entry: &Entry<'_>, offset: u64, count: u64) -> Option<(u64, u8)> {
    let count = u8::try_from(count).ok()?;
    if let Some(first) = number(entry, gimli::DW_AT_data_bit_offset) {
        return Some((first, count));
    }
    // Below zero if the field goes on behind its unit, as it may in a packed struct.
    let from_top = match entry.attr_value(gimli::DW_AT_bit_offset)? {
        AttributeValue::Sdata(value) => value,
        value => value.udata_value()? as i64,
    };
    let unit = number(entry, gimli::DW_AT_byte_size).filter(|bytes| *bytes <= 16)? as i64 * 8;
    let first = unit.checked_sub(from_top)?.checked_sub(count.into())?;
    if first < 0 {
        return None;
    }
    Some((offset.checked_mul(8)?.checked_add_signed(first)?, count))
}

/// The shape of a base type.
fn base(entry: &Entry<'_>, name: &str) -> Shape {
    let encoding = match entry.attr_value(gimli::DW_AT_encoding) {
        Some(AttributeValue::Encoding(encoding)) => encoding,
        _ => return Shape::Unknown,
    };
    match encoding {
        gimli::DW_ATE_boolean => Shape::Bool,
        gimli::DW_ATE_signed => Shape::Int { signed: true },
        gimli::DW_ATE_unsigned if name == "()" => Shape::Void,
        gimli::DW_ATE_unsigned | gimli::DW_ATE_address => Shape::Int { signed: false },
        gimli::DW_ATE_signed_char => Shape::Char { signed: true, plain: name == "char" },
        gimli::DW_ATE_unsigned_char => Shape::Char { signed: false, plain: name == "char" },
        gimli::DW_ATE_UTF | gimli::DW_ATE_UCS | gimli::DW_ATE_ASCII => {
            Shape::Char { signed: false, plain: true }
        }
        gimli::DW_ATE_float
        | gimli::DW_ATE_complex_float
        | gimli::DW_ATE_imaginary_float
        | gimli::DW_ATE_decimal_float => Shape::Float,
        _ => Shape::Unknown,
    }
}

/// The entries directly below one.
pub(super) fn children<'u, 'a>(
    unit: &'u Unit<'a>,
    parent: usize,
) -> impl Iterator<Item = Entry<'a>> + use<'u, 'a> {
    let mut cursor = unit.entries_at_offset(gimli::UnitOffset(parent)).ok();
    // The parent itself comes first; then its first child.
    let depth = cursor.as_mut().and_then(|cursor| {
        let parent = cursor.next_dfs().ok()??;
        parent.has_children().then(|| parent.depth() + 1)
    });
    let mut first = true;
    std::iter::from_fn(move || {
        let (cursor, depth) = (cursor.as_mut()?, depth?);
        let entry = if std::mem::take(&mut first) {
            cursor.next_dfs().ok()??
        } else {
            cursor.next_sibling().ok()??
        };
        (!entry.is_null() && entry.depth() == depth).then(|| entry.clone())
    })
}
