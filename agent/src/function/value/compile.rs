//! From types and places to bytecode, and to the plan that reads back what it writes. A value's own
//! bytes are one chunk; what they point at are chunks of their own. What does not fit into one hit is
//! left out and marked, the farthest first.

mod special;

use std::sync::Arc;

use agent_common::function::{CHUNKS_MAX, OPS_MAX, compare, op};

use super::emit::{Base, Emitter, LENGTH_SLOT, known};
use super::kinds::{self, Kind};
use super::reader::{RESULT, Reader, Root};
use super::show::{Case, Field, Show};
use super::usdt::Number;
use super::{Compare, CompileError, Compiled, Condition, Name, Options};
use crate::inspect::dwarf::place::{Place, Unreadable};
use crate::inspect::dwarf::types::{Member, Shape, TypeNo, Types, Variant};
use crate::inspect::dwarf::{Described, Language, Parameter};

/// Most bytes of a value that are read in one piece.
const IMAGE_MAX: u64 = 256;
/// Most values of one hit.
const VALUES_MAX: usize = 16;
/// Members and elements within each other that are shown.
const NESTING_MAX: u32 = 6;
/// What an address below this is: none.
const FIRST_ADDRESS: i32 = 4096;
/// Most parts of an array in registers or in place that are shown.
const PARTS_MAX: u64 = 16;

/// Compiles the parameters that an entry's hit tells, or those that were selected.
///
/// # Errors
/// If an option names a value that there is not, or compares what is no number.
pub fn compile(described: &Described, options: &Options) -> Result<Compiled, CompileError> {
    let mut compiler = Compiler::new(described, options);
    for condition in &options.conditions {
        compiler.condition(condition)?;
    }
    let mut wanted = Vec::new();
    if options.select.is_empty() {
        for (number, parameter) in described.parameters.iter().enumerate() {
            let name = match &*parameter.name {
                "" => number.to_string(),
                name => name.to_owned(),
            };
            let place = parameter.place.as_ref().map_err(|reason| *reason);
            let steps = Vec::new();
            wanted.push(Wanted {
                name: format!("remora.arg.{name}"),
                ty: parameter.ty,
                place,
                steps,
            });
        }
    }
    for path in &options.select {
        let mut found = compiler.find(path)?;
        found.name = format!("remora.arg.{path}");
        wanted.push(found);
    }
    Ok(compiler.finish(wanted))
}

/// Compiles what a return's hit tells.
pub fn compile_result(described: &Described, options: &Options) -> Compiled {
    let compiler = Compiler::new(described, options);
    let wanted = described
        .results
        .iter()
        .filter(|result| !matches!(described.types.bare(result.ty).1.shape, Shape::Void))
        .map(|result| Wanted {
            name: RESULT.to_owned(),
            ty: result.ty,
            place: result.place.as_ref().map_err(|reason| *reason),
            steps: Vec::new(),
        })
        .collect();
    let mut compiled = compiler.finish(wanted);
    compiled.reader.fails(described.language, options.negative_fails);
    compiled
}

/// Compiles numbers that have no types, some of them addresses of strings.
pub(super) fn finish_numbers<'n>(
    numbers: impl Iterator<Item = (Arc<str>, &'n Number, bool)>,
    options: &Options,
) -> Compiled {
    let mut out = Emitter::new();
    let mut roots = Vec::new();
    for (name, number, is_text) in numbers {
        let mark = out.mark();
        let shown = untyped(&mut out, number, is_text, options);
        let (chunk, show) = match shown {
            Ok(shown) if out.fits() && roots.len() < VALUES_MAX => shown,
            other => {
                out.back(mark);
                (0, Show::Unavailable(other.err().unwrap_or(Unreadable::Room)))
            }
        };
        roots.push(Root { name: Name(name), chunk, show });
    }
    if !out.ops.is_empty() {
        out.op(op::END, 0, 0, 0);
    }
    Compiled { ops: out.ops, reader: Reader::new(roots) }
}

fn untyped(
    out: &mut Emitter,
    number: &Number,
    is_text: bool,
    options: &Options,
) -> Result<(u16, Show), Unreadable> {
    if !matches!(number.bytes, 1 | 2 | 4 | 8) {
        return Err(Unreadable::Type);
    }
    let base = Base::Place(&number.place);
    let chunk = out.chunk(8);
    out.image(&number.place, number.bytes.into())?;
    if !is_text || number.bytes != 8 {
        return Ok((chunk, Show::Int { bytes: number.bytes, signed: number.signed }));
    }
    let most = i32::from(options.string_bytes);
    let text = out.chunk(most as usize);
    out.number(base, 0, 8)?;
    let jump = out.skip_if(compare::LT, FIRST_ADDRESS);
    out.op(op::STRING, 0, 0, most);
    out.land(jump);
    Ok((chunk, Show::CString { chunk: text }))
}

/// A value to be read.
struct Wanted<'d> {
    name: String,
    ty: TypeNo,
    place: Result<&'d Place, Unreadable>,
    /// From the place to the value: offsets, between them addresses that are followed.
    steps: Vec<u64>,
}

struct Compiler<'d> {
    types: &'d Types,
    parameters: &'d [Parameter],
    language: Language,
    go_types: Option<u64>,
    options: &'d Options,
    out: Emitter,
}

impl<'d> Compiler<'d> {
    fn new(described: &'d Described, options: &'d Options) -> Self {
        Self {
            types: &described.types,
            parameters: &described.parameters,
            language: described.language,
            go_types: described.go_types,
            options,
            out: Emitter::new(),
        }
    }

    fn finish(mut self, wanted: Vec<Wanted<'d>>) -> Compiled {
        // Each value's own bytes come before what any points at gets all the room.
        let costs: Vec<(usize, usize)> = wanted.iter().map(|value| self.cost(value)).collect();
        let mut roots = Vec::new();
        for (number, value) in wanted.into_iter().enumerate() {
            let later = costs.iter().take(VALUES_MAX).skip(number + 1);
            let (ops, bytes) = later.fold((1, 0), |sum, cost| (sum.0 + cost.0, sum.1 + cost.1));
            // Later ones do not take it all from the first.
            self.out.keep(ops.min(OPS_MAX * 3 / 4), bytes.min(CHUNKS_MAX * 3 / 4));
            let name = Name(value.name.as_str().into());
            let root = if number >= VALUES_MAX {
                Root { name, chunk: 0, show: Show::Unavailable(Unreadable::Room) }
            } else {
                self.value(name, &value)
            };
            roots.push(root);
        }
        if !self.out.ops.is_empty() {
            self.out.op(op::END, 0, 0, 0);
        }
        Compiled { ops: self.out.ops, reader: Reader::new(roots) }
    }

    /// Operations and bytes that a value needs if nothing is followed.
    fn cost(&self, value: &Wanted<'_>) -> (usize, usize) {
        let parts = match value.place {
            Ok(Place::Pieces(pieces)) => pieces.len() * 3,
            Ok(_) => 5,
            Err(_) => return (0, 0),
        };
        let bytes = self.types.size(value.ty).min(64) as usize;
        ((1 + parts + value.steps.len() * 3).min(24), 8 + bytes.next_multiple_of(8))
    }

    /// One value: its bytes, then what they point at.
    fn value(&mut self, name: Name, value: &Wanted<'_>) -> Root {
        let mark = self.out.mark();
        match self.try_value(value) {
            Ok((chunk, show)) => Root { name, chunk, show },
            Err(reason) => {
                self.out.back(mark);
                Root { name, chunk: 0, show: Show::Unavailable(reason) }
            }
        }
    }

    fn try_value(&mut self, value: &Wanted<'_>) -> Result<(u16, Show), Unreadable> {
        let place = value.place?;
        let bytes = self.types.size(value.ty);
        let bare = self.types.bare(value.ty).1;
        match bare.shape {
            Shape::Unknown | Shape::Code => return Err(Unreadable::Type),
            Shape::Float => return Err(Unreadable::Float),
            _ if bytes == 0 => return Ok((0, Show::Nothing)),
            _ => {}
        }
        let image = bytes.min(IMAGE_MAX);
        let chunk = self.out.chunk(image as usize);
        if value.steps.is_empty() {
            self.out.image(place, image)?;
            self.whole(bytes)?;
            let level = self.level();
            let show = self.show(value.ty, Base::Place(place), 0, level)?;
            return Ok((chunk, show));
        }
        // Followed to where it is; then it is read from there.
        let (last, way) = value.steps.split_last().ok_or(Unreadable::Location)?;
        let Some((first, between)) = way.split_first() else {
            self.part(place, *last, image)?;
            self.whole(bytes)?;
            let level = self.level();
            let show = self.show(value.ty, Base::Place(place), *last, level)?;
            return Ok((chunk, show));
        };
        self.out.number(Base::Place(place), *first, 8)?;
        for at in between {
            self.out.add(*at as i64)?;
            self.out.op(op::LOAD, 0, 8, 0);
        }
        self.out.add(*last as i64)?;
        self.out.op(op::SAVE, 0, 0, 0);
        self.out.op(op::COPY, 0, 0, image as i32);
        self.whole(bytes)?;
        let level = Level { slot: 1, ..self.level() };
        let show = self.show(value.ty, Base::Slot(0), 0, level)?;
        Ok((chunk, show))
    }

    /// The bytes of a member of a value that lies in place.
    fn part(&mut self, place: &Place, at: u64, bytes: u64) -> Result<(), Unreadable> {
        if self.out.address(Base::Place(place), at).is_ok() {
            self.out.op(op::COPY, 0, 0, bytes as i32);
            return Ok(());
        }
        let mut done = 0;
        while done < bytes {
            let left = bytes - done;
            let part = if left >= 8 { 8 } else { 1 << left.ilog2() };
            self.out.number(Base::Place(place), at + done, part as u8)?;
            self.out.op(op::PUT, 0, part as u16, 0);
            done += part;
        }
        Ok(())
    }

    fn level(&self) -> Level {
        Level { depth: self.options.depth, slot: 0, nesting: 0, plain: false }
    }

    fn whole(&self, bytes: u64) -> Result<(), Unreadable> {
        if self.out.fits() && bytes > 0 { Ok(()) } else { Err(Unreadable::Room) }
    }

    /// Follows a path to its value.
    fn find(&self, path: &str) -> Result<Wanted<'d>, CompileError> {
        let missing = || CompileError::NoSuchValue { path: path.to_owned() };
        // The longest parameter that fits: names hold no dots, but Go's results may.
        let mut words = path.split('.');
        let name = words.next().ok_or_else(missing)?;
        let parameters = self.parameters;
        let parameter = parameters.iter().find(|p| &*p.name == name).ok_or_else(missing)?;
        let mut ty = parameter.ty;
        let mut steps = Vec::new();
        for word in words {
            if steps.is_empty() {
                steps.push(0);
            }
            let mut pointers = 0;
            while let Shape::Pointer { to, .. } = self.types.bare(ty).1.shape
                && pointers < 4
            {
                ty = to;
                pointers += 1;
            }
            steps.extend(std::iter::repeat_n(0, pointers));
            let (at, found) = kinds::path(self.types, ty, &[word]).ok_or_else(missing)?;
            ty = found;
            if let Some(last) = steps.last_mut() {
                *last += at;
            }
        }
        let place = parameter.place.as_ref().map_err(|reason| *reason);
        Ok(Wanted { name: path.to_owned(), ty, place, steps })
    }

    /// Drops the hit unless a value compares as asked.
    fn condition(&mut self, condition: &Condition) -> Result<(), CompileError> {
        let value = self.find(&condition.path)?;
        let not = |reason| CompileError::NotComparable { path: condition.path.clone(), reason };
        let (_, bare) = self.types.bare(value.ty);
        let signed = match bare.shape {
            Shape::Int { signed } | Shape::Char { signed, .. } | Shape::Enum { signed, .. } => {
                signed
            }
            Shape::Bool | Shape::Pointer { .. } => false,
            Shape::Float => return Err(not(Unreadable::Float)),
            _ => return Err(not(Unreadable::Type)),
        };
        let bytes = u8::try_from(self.types.size(value.ty)).map_err(|_| not(Unreadable::Type))?;
        let place = value.place.map_err(not)?;
        let mut steps = value.steps.iter();
        let first = steps.next().copied().unwrap_or(0);
        let followed = value.steps.len() > 1;
        self.out
            .number(Base::Place(place), first, if followed { 8 } else { bytes })
            .map_err(not)?;
        while let Some(at) = steps.next() {
            self.out.add(*at as i64).map_err(not)?;
            let last = steps.len() == 0;
            self.out.op(op::LOAD, 0, if last { bytes.into() } else { 8 }, 0);
        }
        if signed && bytes < 8 {
            let above = 64 - 8 * i32::from(bytes);
            self.out.op(op::SHIFT, 0, 0, above);
            self.out.op(op::SHIFT, 2, 0, above);
        }
        let how = match (condition.compare, signed) {
            (Compare::Equal, _) => compare::EQ,
            (Compare::NotEqual, _) => compare::NE,
            (Compare::Less, true) => compare::LT_SIGNED,
            (Compare::Less, false) => compare::LT,
            (Compare::LessOrEqual, true) => compare::LE_SIGNED,
            (Compare::LessOrEqual, false) => compare::LE,
            (Compare::Greater, true) => compare::GT_SIGNED,
            (Compare::Greater, false) => compare::GT,
            (Compare::GreaterOrEqual, true) => compare::GE_SIGNED,
            (Compare::GreaterOrEqual, false) => compare::GE,
        };
        if !signed && condition.number < 0 {
            return Err(not(Unreadable::Type));
        }
        let jump = self.out.skip_if(how, condition.number);
        self.out.op(op::DROP, 0, 0, 0);
        self.out.land(jump);
        Ok(())
    }

    /// How the value at an offset is shown; writes what it points at.
    fn show(
        &mut self,
        ty: TypeNo,
        base: Base<'_>,
        at: u64,
        level: Level,
    ) -> Result<Show, Unreadable> {
        if level.nesting > NESTING_MAX {
            return Ok(Show::Unavailable(Unreadable::Room));
        }
        let (number, bare) = self.types.bare(ty);
        let bytes = self.types.size(number);
        if bytes == 0 {
            return Ok(match bare.shape {
                Shape::Struct { .. } | Shape::Void | Shape::Array { .. } => Show::Nothing,
                _ => Show::Unavailable(Unreadable::Type),
            });
        }
        match kinds::of(self.types, number, self.language) {
            Kind::Plain => {}
            kind => return Ok(self.special(kind, bytes, base, at, level)),
        }
        let whole = known(base, at, bytes);
        let scalar = |show: Show| match whole {
            Ok(()) => show,
            Err(reason) => Show::Unavailable(reason),
        };
        let width = u8::try_from(bytes).unwrap_or(0);
        Ok(match &bare.shape {
            Shape::Unknown | Shape::Void | Shape::Code => Show::Unavailable(Unreadable::Type),
            Shape::Float => Show::Unavailable(Unreadable::Float),
            Shape::Int { signed } => scalar(Show::Int { bytes: width, signed: *signed }),
            Shape::Char { signed, plain: false } => {
                scalar(Show::Int { bytes: width, signed: *signed })
            }
            Shape::Char { .. } => scalar(Show::Char { bytes: width }),
            Shape::Bool => scalar(Show::Bool),
            Shape::Enum { signed, names } => scalar(Show::Enum {
                bytes: width,
                signed: *signed,
                names: names
                    .iter()
                    .filter_map(|(value, name)| {
                        // Numbers of 64 bits without sign are compared as they lie in memory.
                        let value = i64::try_from(*value)
                            .or_else(|_| u64::try_from(*value).map(|value| value as i64));
                        Some((value.ok()?, Name(name.clone())))
                    })
                    .collect(),
            }),
            Shape::Pointer { to, reference } => match whole {
                Ok(()) => {
                    // Rust writes what is borrowed or boxed like a value.
                    let like_a_value = self.language == Language::Rust
                        && !bare.name.starts_with('*')
                        && !bare.name.is_empty();
                    self.pointer(*to, *reference || like_a_value, base, at, level)
                }
                Err(reason) => Show::Unavailable(reason),
            },
            Shape::Alias { .. } => Show::Unavailable(Unreadable::Type),
            Shape::Array { of, count } => self.array(*of, *count, base, at, level)?,
            Shape::Struct { members } => self.members(members, base, at, level)?,
            // Which member of a union holds is not said.
            Shape::Union { .. } => Show::Unavailable(Unreadable::Type),
            Shape::Variants { tag, variants } => {
                self.variants(tag.as_ref(), variants, base, at, level)?
            }
        })
    }

    fn members(
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
                    let signed =
                        matches!(self.types.bare(member.ty).1.shape, Shape::Int { signed: true });
                    let bytes = (u64::from(count) + first % 8).div_ceil(8);
                    let show = match known(base, at.saturating_add(first / 8), bytes) {
                        Ok(()) if count <= 64 => Show::Bits { first, count, signed },
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

    fn variants(
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

    fn array(
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

    fn pointer(
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
    fn is_buffer(&self, target: &crate::inspect::dwarf::types::Type, reference: bool) -> bool {
        target.size == 1 && !reference && self.language != Language::Rust
    }

    /// Tries to follow; if there is no room, the address stays.
    fn or_address(
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
fn field_name(name: &std::sync::Arc<str>) -> Name {
    let positional = name
        .strip_prefix("__")
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
    Name(if positional { "".into() } else { name.clone() })
}

/// How deep a value lies.
#[derive(Clone, Copy, Debug)]
struct Level {
    /// Pointers that may still be followed.
    depth: u8,
    /// The slot for the address of the next object.
    slot: u8,
    /// Values within values.
    nesting: u32,
    /// Nothing is followed: many values are shown alike.
    plain: bool,
}

impl Level {
    fn inner(self) -> Self {
        Self { nesting: self.nesting + 1, ..self }
    }

    fn behind(self) -> Self {
        Self { depth: self.depth - 1, slot: self.slot + 1, nesting: self.nesting + 1, ..self }
    }

    fn plain(self) -> Self {
        Self { plain: true, ..self }
    }
}
