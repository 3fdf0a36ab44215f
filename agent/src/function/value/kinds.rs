//! Types that hold text or elements behind a pointer, recognised by what their debug information
//! says: names of types and members, never sizes alone.

use crate::inspect::dwarf::Language;
use crate::inspect::dwarf::types::{Member, Shape, Type, TypeNo, Types};

/// What a type is to someone who reads values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing special.
    Plain,
    /// Characters, by address and number.
    Text { pointer_at: u64, length_at: u64 },
    /// Elements, by address and number.
    Slice { pointer_at: u64, length_at: u64, of: TypeNo },
    /// Elements between two addresses.
    Span { from_at: u64, to_at: u64, of: TypeNo },
    /// libc++'s string.
    ShortString {
        long_bit_at: u64,
        long_mask: u8,
        data_at: u64,
        size_at: u64,
        inline_at: u64,
        inline_bytes: u32,
        size_shift: u8,
    },
    /// Go's interface; with methods, the first word is a table that holds the type.
    Interface { methods: bool },
}

/// Recognises a type; `ty` is bare.
pub(super) fn of(types: &Types, ty: TypeNo, language: Language) -> Kind {
    let found = match language {
        Language::Go => go(types, ty),
        Language::Rust => rust(types, ty),
        Language::Cpp => cpp(types, ty),
        Language::C | Language::Other => None,
    };
    found.unwrap_or(Kind::Plain)
}

/// A member, also one of a base class or an anonymous member.
fn member<'t>(types: &'t Types, ty: TypeNo, name: &str, depth: u32) -> Option<(u64, &'t Member)> {
    let members = match &types.bare(ty).1.shape {
        Shape::Struct { members } | Shape::Union { members } => members,
        _ => return None,
    };
    if let Some(found) = members.iter().find(|member| &*member.name == name) {
        return Some((found.offset, found));
    }
    if depth == 0 {
        return None;
    }
    members.iter().filter(|member| member.embedded || member.name.is_empty()).find_map(|outer| {
        let (at, found) = member(types, outer.ty, name, depth - 1)?;
        Some((outer.offset.checked_add(at)?, found))
    })
}

/// A member of a member, by their names.
pub(super) fn path(types: &Types, ty: TypeNo, names: &[&str]) -> Option<(u64, TypeNo)> {
    names.iter().try_fold((0_u64, ty), |(at, ty), name| {
        let (offset, found) = member(types, ty, name, 4)?;
        Some((at.checked_add(offset)?, found.ty))
    })
}

fn target(types: &Types, pointer: TypeNo) -> Option<TypeNo> {
    match types.bare(pointer).1.shape {
        Shape::Pointer { to, .. } => Some(to),
        _ => None,
    }
}

fn go(types: &Types, ty: TypeNo) -> Option<Kind> {
    // `reflect.Kind`
    const INTERFACE: u8 = 20;
    const SLICE: u8 = 23;
    const STRING: u8 = 24;
    // The kind of a named type is on its name.
    let bare = types.get(ty);
    match bare.go_kind {
        STRING => {
            let (pointer_at, _) = path(types, ty, &["str"])?;
            let (length_at, _) = path(types, ty, &["len"])?;
            Some(Kind::Text { pointer_at, length_at })
        }
        SLICE => {
            let (pointer_at, array) = path(types, ty, &["array"])?;
            let (length_at, _) = path(types, ty, &["len"])?;
            Some(Kind::Slice { pointer_at, length_at, of: target(types, array)? })
        }
        INTERFACE => Some(Kind::Interface { methods: &*bare.name == "runtime.iface" }),
        _ if &*bare.name == "runtime.iface" => Some(Kind::Interface { methods: true }),
        _ if &*bare.name == "runtime.eface" => Some(Kind::Interface { methods: false }),
        _ => None,
    }
}

fn rust(types: &Types, ty: TypeNo) -> Option<Kind> {
    let bare = types.get(ty);
    let name = &*bare.name;
    if let (Some((pointer_at, pointer)), Some((length_at, _))) =
        (path(types, ty, &["data_ptr"]), path(types, ty, &["length"]))
    {
        let of = target(types, pointer)?;
        if name.ends_with("str") || name.contains("<str") {
            return Some(Kind::Text { pointer_at, length_at });
        }
        return Some(Kind::Slice { pointer_at, length_at, of });
    }
    if name == "String" {
        let (vector_at, vector) = path(types, ty, &["vec"])?;
        let (pointer_at, length_at) = vec(types, vector)?;
        return Some(Kind::Text {
            pointer_at: vector_at + pointer_at,
            length_at: vector_at + length_at,
        });
    }
    if name.starts_with("Vec<") {
        let (pointer_at, length_at) = vec(types, ty)?;
        return Some(Kind::Slice { pointer_at, length_at, of: *bare.arguments.first()? });
    }
    None
}

/// The places of the address and the length of Rust's `Vec`.
fn vec(types: &Types, ty: TypeNo) -> Option<(u64, u64)> {
    let (length_at, _) = path(types, ty, &["len"])?;
    let pointer = ["buf", "inner", "ptr", "pointer", "pointer"];
    // Before 1.83 there was no `inner`.
    let older = ["buf", "ptr", "pointer", "pointer"];
    let (pointer_at, _) = path(types, ty, &pointer).or_else(|| path(types, ty, &older))?;
    Some((pointer_at, length_at))
}

fn cpp(types: &Types, ty: TypeNo) -> Option<Kind> {
    let bare = types.get(ty);
    let name = &*bare.name;
    if name.starts_with("basic_string<char,") || name == "basic_string<char>" {
        // What `_M_dataplus` holds may be described elsewhere only; its one member is the address.
        if let Some((pointer_at, _)) = path(types, ty, &["_M_dataplus"]) {
            let (length_at, _) = path(types, ty, &["_M_string_length"])?;
            return Some(Kind::Text { pointer_at, length_at });
        }
        return short_string(types, ty);
    }
    if name.starts_with("basic_string_view<char,") {
        let either =
            |one: &str, other: &str| path(types, ty, &[one]).or_else(|| path(types, ty, &[other]));
        let (pointer_at, _) =
            either("_M_str", "__data_").or_else(|| path(types, ty, &["__data"]))?;
        let (length_at, _) =
            either("_M_len", "__size_").or_else(|| path(types, ty, &["__size"]))?;
        return Some(Kind::Text { pointer_at, length_at });
    }
    if name.starts_with("vector<") && !name.starts_with("vector<bool") {
        let (from_at, pointer) =
            path(types, ty, &["_M_impl", "_M_start"]).or_else(|| path(types, ty, &["__begin_"]))?;
        let (to_at, _) =
            path(types, ty, &["_M_impl", "_M_finish"]).or_else(|| path(types, ty, &["__end_"]))?;
        return Some(Kind::Span { from_at, to_at, of: target(types, pointer)? });
    }
    None
}

/// libc++'s string in its default layout: a bit of the first byte says whether it is long.
fn short_string(types: &Types, ty: TypeNo) -> Option<Kind> {
    let (at, rep) = representation(types, ty)?;
    let (long_at, long) = path(types, rep, &["__l"])?;
    let (short_at, short) = path(types, rep, &["__s"])?;
    let (data_at, _) = path(types, long, &["__data_"])?;
    let (size_at, _) = path(types, long, &["__size_"])?;
    let (inline_at, inline) = path(types, short, &["__data_"])?;
    let (small_at, small) = member(types, short, "__size_", 4)?;
    // The bit is the first of the first byte; the length of a short one is in the others.
    let sound = match member(types, long, "__is_long_", 4) {
        Some((_, flag)) => flag.bits == Some((0, 1)) && small.bits == Some((1, 7)),
        // Before version 15 both were numbers of which a bit was taken by hand.
        None => {
            path(types, long, &["__cap_"])?.0 == 0
                && small.bits.is_none()
                && small_at == 0
                && types.size(small.ty) == 1
        }
    };
    if !sound || short_at != 0 {
        return None;
    }
    Some(Kind::ShortString {
        long_bit_at: at,
        long_mask: 1,
        data_at: at + long_at + data_at,
        size_at: at + long_at + size_at,
        inline_at: at + short_at + inline_at,
        inline_bytes: u32::try_from(types.size(inline)).ok()?.min(64),
        size_shift: 1,
    })
}

/// The union of libc++'s string, inside a compressed pair or on its own.
fn representation(types: &Types, ty: TypeNo) -> Option<(u64, TypeNo)> {
    path(types, ty, &["__rep_"]).or_else(|| {
        let (at, pair) = path(types, ty, &["__r_"])?;
        let (value_at, value) = path(types, pair, &["__value_"])?;
        Some((at + value_at, value))
    })
}

/// Whether a type is a byte that may be a character.
pub(super) fn is_plain_char(ty: &Type) -> bool {
    ty.size == 1 && matches!(ty.shape, Shape::Char { plain: true, .. })
}

/// Whether elements of a type are bytes of text in this language.
pub(super) fn is_byte(ty: &Type) -> bool {
    ty.size == 1
        && matches!(ty.shape, Shape::Int { signed: false } | Shape::Char { plain: true, .. })
}
