//! Values that have parts, or that point at others: structs, variants, arrays, pointers.

use std::sync::Arc;

use agent_common::function::{compare, op};

use super::{Compiler, FIRST_ADDRESS, IMAGE_MAX, Level, named};
use crate::function::value::emit::{Base, LENGTH_SLOT, known};
use crate::function::value::show::{Case, Field, Show};
use crate::function::value::{Name, kinds};
use crate::inspect::dwarf::Language;
use crate::inspect::dwarf::place::Unreadable;
use crate::inspect::dwarf::types::{Member, Shape, Type, TypeNo, Variant};

/// Most parts of an array in registers or in place that are shown.
const PARTS_MAX: u64 = 16;

impl Compiler<'_> {
    pub(super) fn members(
        &mut self,
        members: &[Member],
        base: Base<'_>,
        at: u64,
        level: Level,
    ) -> Result<Show, Unreadable> {
        let mut fields = Vec::new();
        let mut cut = false;
        for member in members {
            let from = at.checked_add(member.offset).ok_or(Unreadable::Type)?;
            if from >= IMAGE_MAX {
                cut = true;
                break;
            }
            if member.name.starts_with("_vptr") {
                continue;
            }
            let show = match member.bits {
                Some((first, count)) => {
                    let (signed, names) = match &self.types.bare(member.ty).1.shape {
                        Shape::Int { signed } | Shape::Char { signed, .. } => (*signed, Vec::new()),
                        Shape::Enum { signed, names } => (*signed, named(names)),
                        Shape::Bool => {
                            let names = [(0, "false".into()), (1, "true".into())];
                            (false, names.map(|(bit, name)| (bit, Name(name))).to_vec())
                        }
                        _ => {
                            let show = Show::Unavailable(Unreadable::Type);
                            fields.push(Field { name: field_name(&member.name), at: 0, show });
                            continue;
                        }
                    };
                    let bytes = (u64::from(count) + first % 8).div_ceil(8);
                    let show = match known(base, at.saturating_add(first / 8), bytes) {
                        Ok(()) if count <= 64 => Show::Bits { first, count, signed, names },
                        Ok(()) => Show::Unavailable(Unreadable::Type),
                        Err(reason) => Show::Unavailable(reason),
                    };
                    fields.push(Field { name: field_name(&member.name), at: 0, show });
                    continue;
                }
                None => self.show(member.ty, base, from, level.inner())?,
            };
            // Values without bytes say nothing: markers, allocators.
            if show != Show::Nothing {
                fields.push(Field { name: field_name(&member.name), at: from - at, show });
            }
        }
        Ok(Show::Struct { fields, cut })
    }

    pub(super) fn variants(
        &mut self,
        tag: Option<&Member>,
        variants: &[Variant],
        base: Base<'_>,
        at: u64,
        level: Level,
    ) -> Result<Show, Unreadable> {
        let (tag_at, tag_bytes) = match tag {
            Some(tag) => {
                let at = at.checked_add(tag.offset).ok_or(Unreadable::Type)?;
                let bytes = self.types.size(tag.ty);
                known(base, at, bytes)?;
                (at, u8::try_from(bytes).map_err(|_| Unreadable::Type)?)
            }
            None => (0, 0),
        };
        let narrow = |tags: (u128, u128)| {
            let mask = if tag_bytes >= 8 { u64::MAX } else { (1 << (8 * tag_bytes)) - 1 };
            (tags.0 as u64 & mask, tags.1 as u64 & mask)
        };
        let others: Vec<u64> =
            variants.iter().filter_map(|v| v.tags.map(|tags| narrow(tags).0)).collect();
        let mut cases = Vec::new();
        for variant in variants {
            let from = at.checked_add(variant.member.offset).ok_or(Unreadable::Type)?;
            let tags = variant.tags.map(narrow);
            let mark = self.out.mark();
            let guards = if tag.is_some() {
                self.guards(base, tag_at, tag_bytes, tags, &others)
            } else {
                Vec::new()
            };
            let before = self.out.ops.len();
            let show = self.show(variant.member.ty, base, from, level.inner())?;
            if self.out.ops.len() == before {
                self.out.back(mark);
            } else {
                for guard in guards {
                    self.out.land(guard);
                }
            }
            cases.push(Case {
                tags,
                name: Name(variant.name.clone()),
                at: variant.member.offset,
                show,
            });
        }
        Ok(Show::Variants { tag_at: tag_at - at.min(tag_at), tag_bytes, variants: cases })
    }

    /// Jumps that leave out what belongs to a variant that the value is not. Where a tag does not fit
    /// into an operation nothing is left out: what is read then is not shown.
    fn guards(
        &mut self,
        base: Base<'_>,
        tag_at: u64,
        tag_bytes: u8,
        tags: Option<(u64, u64)>,
        others: &[u64],
    ) -> Vec<usize> {
        let fits = |tag: u64| i32::try_from(tag as i64).ok();
        let mut jumps = Vec::new();
        let mark = self.out.mark();
        if self.out.number(base, tag_at, tag_bytes).is_err() {
            self.out.back(mark);
            return jumps;
        }
        match tags {
            Some((first, last)) => match fits(first) {
                Some(tag) if first == last => jumps.push(self.out.skip_if(compare::NE, tag)),
                _ => self.out.back(mark),
            },
            None if tag_bytes == 8 && others.iter().all(|tag| *tag >> 63 == 1) => {
                jumps.push(self.out.skip_if(compare::LT_SIGNED, 0));
            }
            None => {
                for tag in others.iter().take(4) {
                    if let Some(tag) = fits(*tag) {
                        jumps.push(self.out.skip_if(compare::EQ, tag));
                    }
                }
                if jumps.is_empty() {
                    self.out.back(mark);
                }
            }
        }
        jumps
    }

    pub(super) fn array(
        &mut self,
        of: TypeNo,
        count: Option<u64>,
        base: Base<'_>,
        at: u64,
        level: Level,
    ) -> Result<Show, Unreadable> {
        let stride = self.types.size(of);
        let Some(count) = count else { return Ok(Show::Unavailable(Unreadable::Type)) };
        if stride == 0 || count == 0 {
            return Ok(Show::Nothing);
        }
        let element = self.types.bare(of).1;
        let known = known(base, at, stride.saturating_mul(count));
        if let Err(reason) = known {
            return Ok(Show::Unavailable(reason));
        }
        if kinds::is_plain_char(element) && matches!(self.language, Language::C | Language::Cpp) {
            let bytes = count.min(IMAGE_MAX.saturating_sub(at));
            return Ok(Show::CharArray { bytes: bytes as u32 });
        }
        let shown = count.min(self.options.elements.into()).min(PARTS_MAX);
        let room = IMAGE_MAX.saturating_sub(at) / stride;
        // Elements are shown alike, so nothing of theirs is followed.
        let show = self.show(of, base, at, Level { depth: 0, ..level.inner() }.plain())?;
        Ok(Show::Array {
            count,
            shown: shown.min(room) as u32,
            stride: stride as u32,
            of: Box::new(show),
        })
    }

    pub(super) fn pointer(
        &mut self,
        to: TypeNo,
        reference: bool,
        base: Base<'_>,
        at: u64,
        level: Level,
    ) -> Show {
        let (_, target) = self.types.bare(to);
        let c = matches!(self.language, Language::C | Language::Cpp);
        if c && kinds::is_plain_char(target) && !reference {
            return self.or_address(level, |this| {
                let most = i32::from(this.options.string_bytes);
                let chunk = this.out.chunk(most as usize);
                this.out.number(base, at, 8)?;
                let jump = this.out.skip_if(compare::LT, FIRST_ADDRESS);
                this.out.op(op::STRING, 0, 0, most);
                this.out.land(jump);
                Ok(Show::CString { chunk })
            });
        }
        let bytes = self.types.size(to);
        let followed = !matches!(target.shape, Shape::Unknown | Shape::Void | Shape::Code)
            && bytes > 0
            && !matches!(target.shape, Shape::Float)
            && !matches!(target.shape, Shape::Int { .. } | Shape::Char { .. } if self.is_buffer(target, reference));
        if !followed || level.depth == 0 {
            return Show::Address;
        }
        self.or_address(level, |this| {
            let image = bytes.min(IMAGE_MAX);
            let chunk = this.out.chunk(image as usize);
            this.out.number(base, at, 8)?;
            let jump = this.out.skip_if(compare::LT, FIRST_ADDRESS);
            this.out.op(op::SAVE, level.slot, 0, 0);
            this.out.op(op::COPY, 0, 0, image as i32);
            let show = this.show(to, Base::Slot(level.slot), 0, level.behind())?;
            this.out.land(jump);
            let bytes = image as u32;
            Ok(Show::Pointer { chunk, bytes, reference, to: Box::new(show) })
        })
    }

    /// Whether a pointer to a byte is the address of a buffer and not of one number.
    fn is_buffer(&self, target: &Type, reference: bool) -> bool {
        target.size == 1 && !reference && self.language != Language::Rust
    }

    /// Tries to follow; if there is no room, the address stays.
    pub(super) fn or_address(
        &mut self,
        level: Level,
        follow: impl FnOnce(&mut Self) -> Result<Show, Unreadable>,
    ) -> Show {
        if level.slot >= LENGTH_SLOT || level.plain {
            return Show::Address;
        }
        let mark = self.out.mark();
        match follow(self) {
            Ok(show) if self.out.fits() => show,
            _ => {
                self.out.back(mark);
                Show::Address
            }
        }
    }
}

/// Rust's tuples have members `__0`, `__1`.
fn field_name(name: &Arc<str>) -> Name {
    let positional = name
        .strip_prefix("__")
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
    Name(if positional { "".into() } else { name.clone() })
}
