//! From types and places to bytecode, and to the plan that reads back what it writes. A value's own
//! bytes are one chunk; what they point at are chunks of their own. What does not fit into one hit is
//! left out and marked, the farthest first.

mod numbers;
mod parts;
mod path;
mod special;

use std::sync::Arc;

use agent_common::function::{CHUNKS_MAX, OPS_MAX, op};

pub(super) use self::numbers::finish_numbers;

use super::emit::{Base, Emitter, known};
use super::kinds::{self, Kind};
use super::reader::{RESULT, Reader, Root};
use super::show::Show;
use super::{CompileError, Compiled, Name, Options};
use crate::inspect::dwarf::place::{Place, Unreadable};
use crate::inspect::dwarf::types::{Shape, TypeNo, Types};
use crate::inspect::dwarf::{Described, Language, Parameter};

/// Most bytes of a value that are read in one piece.
const IMAGE_MAX: u64 = 256;
/// Most values of one hit.
const VALUES_MAX: usize = 16;
/// Most members, elements and variants that are looked at for one hit.
const LOOKS_MAX: u32 = 1 << 12;
/// Members and elements within each other that are shown.
const NESTING_MAX: u32 = 6;
/// What an address below this is: none.
const FIRST_ADDRESS: i32 = 4096;

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
    /// How many values may be looked at yet. What is looked at may have been given up for want of room, and
    /// the like of it is tried again.
    looks: u32,
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
            looks: LOOKS_MAX,
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

    /// Whether values of a type are known to have no bytes.
    fn has_no_bytes(&self, ty: TypeNo) -> bool {
        let (number, bare) = self.types.bare(ty);
        self.types.size(number) == 0 && matches!(bare.shape, Shape::Struct { .. } | Shape::Void)
    }

    /// How the value at an offset is shown; writes what it points at.
    fn show(
        &mut self,
        ty: TypeNo,
        base: Base<'_>,
        at: u64,
        level: Level,
    ) -> Result<Show, Unreadable> {
        if level.nesting > NESTING_MAX || self.looks == 0 {
            return Ok(Show::Unavailable(Unreadable::Room));
        }
        self.looks -= 1;
        let (number, bare) = self.types.bare(ty);
        let bytes = self.types.size(number);
        if bytes == 0 {
            return Ok(match bare.shape {
                Shape::Array { of, count: Some(1..) } if !self.has_no_bytes(of) => {
                    Show::Unavailable(Unreadable::Type)
                }
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
            Shape::Enum { signed, names } => {
                scalar(Show::Enum { bytes: width, signed: *signed, names: named(names) })
            }
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
}

/// Names of an enum's numbers. Those of 64 bits without sign are compared as they lie in memory.
fn named(names: &[(i128, Arc<str>)]) -> Vec<(i64, Name)> {
    let narrow = |value: i128| {
        i64::try_from(value).or_else(|_| u64::try_from(value).map(|value| value as i64)).ok()
    };
    names.iter().filter_map(|(value, name)| Some((narrow(*value)?, Name(name.clone())))).collect()
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
