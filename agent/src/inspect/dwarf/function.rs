//! One function: its parameters and where they lie at the instruction that is probed, its results,
//! where it is declared.

use std::cell::LazyCell;
use std::ops::Deref;
use std::sync::Arc;

use gimli::{AttributeValue, DwAt};

use super::arguments::{self, Expected};
use super::location::{self, Frame};
use super::place::{Piece, Place, Step, Unreadable};
use super::prologue::{self, Prologue, Source};
use super::resolve::{Resolver, children, number};
use super::types::{Shape, TypeNo, Types};
use super::units::{Attr, Die, Entry, Part, Unit, View};
use super::{
    DescribeError, Described, Language, Parameter, golang, ranges, returns, source, unused,
};
use crate::inspect::address::VirtAddr;

/// Most parameters that are described.
const PARAMETERS_MAX: usize = 64;
/// Most references from an entry to one that says more.
const ORIGINS_MAX: usize = 8;
/// Machine code that is looked at for where arguments are put.
const PROLOGUE_BYTES: usize = 1024;

/// An entry with those that it completes: a concrete function, the abstract one that was inlined
/// elsewhere, the declaration in its class.
struct Chain<'a> {
    links: Vec<(Die, std::rc::Rc<Unit<'a>>, Entry<'a>)>,
}

impl<'a> Chain<'a> {
    fn of(view: &View<'a>, die: Die) -> gimli::Result<Self> {
        let mut links = Vec::new();
        let mut next = Some(die);
        while let Some(die) = next.take()
            && links.len() < ORIGINS_MAX
        {
            let (unit, entry) = match view.entry(die) {
                Ok(found) => found,
                Err(error) if links.is_empty() => return Err(error),
                Err(_) => break,
            };
            next = [gimli::DW_AT_abstract_origin, gimli::DW_AT_specification]
                .into_iter()
                .find_map(|name| view.follow(die, &entry.attr_value(name)?));
            links.push((die, unit, entry));
        }
        Ok(Self { links })
    }

    /// The first value of an attribute, and where it was found.
    fn value(&self, name: DwAt) -> Option<(Die, &Unit<'a>, Attr<'a>)> {
        self.links
            .iter()
            .find_map(|(die, unit, entry)| Some((*die, &**unit, entry.attr_value(name)?)))
    }

    fn text(&self, view: &View<'a>, name: DwAt) -> Option<Arc<str>> {
        let (die, unit, value) = self.value(name)?;
        view.text(die.part, unit, value)
    }

    fn has(&self, name: DwAt) -> bool {
        self.value(name).is_some()
    }
}

/// Describes the function that begins at an address, for a probe at `pc`.
pub(super) fn describe(
    view: &View<'_>,
    address: VirtAddr,
    pc: VirtAddr,
) -> Result<Described, DescribeError> {
    let Some(die) = view.function_at(address) else {
        let split = |unit: usize| view.unit(Part::Main, unit).is_ok_and(|unit| is_split(&unit));
        return Err(if view.units_at(address).into_iter().any(split) {
            DescribeError::Split { address }
        } else {
            DescribeError::NoFunction { address }
        });
    };
    let damaged = |source| DescribeError::Damaged { address, source };
    let (unit, entry) = view.entry(die).map_err(damaged)?;
    let chain = Chain::of(view, die).map_err(damaged)?;
    let about = about(view, &unit);
    let code = view.loaded.code.at(address, PROLOGUE_BYTES);
    let prologue = prologue::read(&code, address);
    let frame = Frame { base: frame_base(&unit, &entry, &prologue) };
    let site = Site { view, unit: &unit, pc, frame, prologue, about: &about, die };
    let altered = view.loaded.symbols.clones.binary_search(&address).is_ok() || is_nocall(&entry);
    let optimized = is_optimized(&about);

    let mut resolver = Resolver::new(view);
    let mut parameters = Vec::new();
    let mut results = Vec::new();
    for (child, at) in parameters_of(view, &chain, die) {
        if parameters.len() + results.len() >= PARAMETERS_MAX {
            break;
        }
        let chain = match Chain::of(view, at) {
            Ok(chain) => chain,
            Err(_) => continue,
        };
        let name = chain.text(view, gimli::DW_AT_name).unwrap_or_else(|| Arc::from(""));
        // Go's dictionaries of generic functions are no parameters of the program's.
        if name.starts_with('.') {
            continue;
        }
        let ty = match chain.value(gimli::DW_AT_type) {
            Some((from, _, value)) => resolver.number(from, Some(value)),
            None => resolver.number(at, None),
        };
        if about.language == Language::Go
            && number(&child, gimli::DW_AT_variable_parameter) == Some(1)
            || matches!(
                child.attr_value(gimli::DW_AT_variable_parameter),
                Some(AttributeValue::Flag(true))
            )
        {
            // Go's compiler lists the results of a function with deferred calls twice (1.26), and of others
            // those that it keeps on the heap.
            let again = results.iter().any(|(known, _): &(Arc<str>, _)| *known == name);
            if !again || matches!(&*name, "" | "_") {
                results.push((name, ty));
            }
        } else {
            parameters.push((name, ty, child));
        }
    }
    if about.language != Language::Go
        && let Some((from, _, value)) = chain.value(gimli::DW_AT_type)
    {
        results.push((Arc::from(""), resolver.number(from, Some(value))));
    }
    let types = resolver.finish();

    let external = chain.has(gimli::DW_AT_external)
        && view.loaded.symbols.global.binary_search(&address).is_ok();
    let code = LazyCell::new(|| body(view, &unit, &entry, address));
    let body = || (code.clone(), address);
    // What every parameter is held against, in Go's own code.
    let kept = match about.language {
        Language::Go if !parameters.is_empty() => unused::kept_by_go(&code, address),
        _ => None,
    };
    let facts = returns::Facts { altered, external, body: &body };
    let (results, hidden) = returns::places(&types, &results, &about, facts);
    let order: Vec<TypeNo> = parameters.iter().map(|(_, ty, _)| *ty).collect();
    let expected = arguments::registers(&types, &order, about.language, hidden);
    let convention = (about.language, about.is_gcc());
    let parameters = parameters
        .into_iter()
        .zip(expected)
        .map(|((name, ty, child), expected)| Parameter {
            name,
            ty,
            place: site
                .place(&child, &types, ty, expected, optimized)
                .and_then(|place| arguments::believable(&types, ty, convention, place))
                .and_then(|place| match about.language {
                    Language::Go => golang::kept(place, kept.as_deref()),
                    _ => site.given(&types, ty, place, (&code, address)),
                }),
        })
        .collect();
    Ok(Described {
        language: about.language,
        name: name(view, &chain),
        file: file(view, &chain),
        line: chain.value(gimli::DW_AT_decl_line).and_then(|(_, _, value)| value.udata_value()),
        parameters,
        results,
        types,
        altered,
        go_types: view.loaded.symbols.go_types,
    })
}

/// The parameters of the concrete function, completed by those of the abstract one that it leaves
/// out because no code needs them.
fn parameters_of<'a>(view: &View<'a>, chain: &Chain<'a>, die: Die) -> Vec<(Entry<'a>, Die)> {
    let of = |die: Die, unit: &Unit<'a>| -> Vec<(Entry<'a>, Die)> {
        children(unit, die.entry)
            .filter(|child| child.tag() == gimli::DW_TAG_formal_parameter)
            .map(|child| {
                let at = Die { entry: child.offset().0, ..die };
                (child, at)
            })
            .take(PARAMETERS_MAX)
            .collect()
    };
    let mut lists = chain.links.iter().map(|(die, unit, _)| of(*die, unit));
    let concrete = lists.next().unwrap_or_default();
    let Some(declared) = lists.find(|list| !list.is_empty()) else { return concrete };
    if concrete.len() >= declared.len() {
        return concrete;
    }
    if concrete.is_empty() {
        return declared;
    }
    // By what each refers to.
    let origin = |child: &Entry<'a>| {
        child.attr_value(gimli::DW_AT_abstract_origin).and_then(|to| view.follow(die, &to))
    };
    declared
        .into_iter()
        .map(|(child, at)| {
            let found = concrete.iter().find(|(concrete, _)| origin(concrete) == Some(at));
            found.cloned().unwrap_or((child, at))
        })
        .collect()
}

/// A function's machine code, as long as its debug information says.
fn body<'a>(view: &View<'a>, unit: &Unit<'a>, entry: &Entry<'a>, address: VirtAddr) -> Vec<u8> {
    const BODY_BYTES_MAX: u64 = 1 << 16;
    let dwarf = view.dwarf(Part::Main);
    let ranges = dwarf.and_then(|dwarf| ranges::of(dwarf, unit, entry).ok());
    let first = ranges.and_then(|mut ranges| ranges.next().ok()?);
    match first {
        Some(range) if range.begin == address.0 => match range.end.checked_sub(range.begin) {
            Some(bytes) if bytes <= BODY_BYTES_MAX => view.loaded.code.at(address, bytes as usize),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// What is the same for a whole unit.
pub(super) struct About {
    pub(super) language: Language,
    pub(super) producer: Arc<str>,
}

impl About {
    /// Whether GCC has compiled it.
    fn is_gcc(&self) -> bool {
        self.producer.starts_with("GNU")
    }
}

fn about<'a>(view: &View<'a>, unit: &Unit<'a>) -> About {
    let root = unit.entry(unit.header.root_offset()).ok();
    let language = root.as_ref().and_then(|root| root.attr_value(gimli::DW_AT_language)).map_or(
        Language::Other,
        |value| match value {
            AttributeValue::Language(language) => Language::of(language),
            _ => Language::Other,
        },
    );
    let producer = root
        .and_then(|root| root.attr_value(gimli::DW_AT_producer))
        .and_then(|value| view.text(Part::Main, unit, value))
        .unwrap_or_else(|| Arc::from(""));
    About { language, producer }
}

/// Whether the unit only says that another file has the rest.
fn is_split(unit: &Unit<'_>) -> bool {
    let Ok(root) = unit.entry(unit.header.root_offset()) else { return false };
    root.has_attr(gimli::DW_AT_dwo_name) || root.has_attr(gimli::DW_AT_GNU_dwo_name)
}

/// Whether LLVM marks the function as one that is not called as its type says, since it took away parameters or
/// the result, or by another convention than the platform's.
fn is_nocall(entry: &Entry<'_>) -> bool {
    match entry.attr_value(gimli::DW_AT_calling_convention) {
        Some(AttributeValue::CallingConvention(convention)) => convention != gimli::DW_CC_normal,
        _ => false,
    }
}

/// Whether the compiler may have optimised. Only GCC names its options.
fn is_optimized(about: &About) -> bool {
    if about.is_gcc() {
        let mut words = about.producer.split(' ');
        return words.any(|word| word.starts_with("-O") && word != "-O0");
    }
    // Go's places in the frame hold from the entry on, or it lists where they do.
    about.language != Language::Go
}

fn frame_base(unit: &Unit<'_>, entry: &Entry<'_>, prologue: &Prologue) -> Option<Vec<Step>> {
    let Some(AttributeValue::Exprloc(expression)) = entry.attr_value(gimli::DW_AT_frame_base)
    else {
        return None;
    };
    let bare = Frame::default();
    let steps = match location::evaluate(expression, unit.encoding(), &bare).ok()? {
        Place::Value(steps) | Place::Memory(steps) => steps,
        _ => return None,
    };
    match steps.as_slice() {
        [Step::Cfa, ..] => Some(steps),
        // LLVM's frame base is the register as it is in the function's body: where the first
        // instructions will have brought it.
        [Step::Register(agent_common::function::register::RBP)] => {
            location::plus(vec![Step::Cfa], prologue.frame?).ok()
        }
        [Step::Register(agent_common::function::register::RSP)] => {
            location::plus(vec![Step::Cfa], prologue.stack?).ok()
        }
        _ => None,
    }
}

/// What is needed to place a parameter.
struct Site<'s, 'a> {
    view: &'s View<'a>,
    unit: &'s Unit<'a>,
    pc: VirtAddr,
    frame: Frame,
    prologue: Prologue,
    about: &'s About,
    die: Die,
}

impl<'a> Site<'_, 'a> {
    fn place(
        &self,
        child: &Entry<'a>,
        types: &Types,
        ty: TypeNo,
        expected: Expected,
        optimized: bool,
    ) -> Result<Place, Unreadable> {
        if matches!(types.bare(ty).1.shape, Shape::Float) {
            return Err(Unreadable::Float);
        }
        if let Some(value) = child.attr_value(gimli::DW_AT_const_value) {
            return constant(&value).ok_or(Unreadable::Location);
        }
        let Some(location) = child.attr_value(gimli::DW_AT_location) else {
            return Err(Unreadable::OptimizedOut);
        };
        let encoding = self.unit.encoding();
        let stored = optimized.then_some(expected);
        if let AttributeValue::Exprloc(expression) = location {
            // A description for the whole function is true of its body; of its entry only if it does
            // not name a place that the first instructions fill.
            let place = location::evaluate(expression, encoding, &self.frame)?;
            if !self.is_from_the_entry_on(&place, expected) {
                return Err(Unreadable::NotStored);
            }
            return self.at_entry(place, types.size(ty), stored);
        }
        let dwarf = self.view.dwarf(self.die.part).ok_or(Unreadable::Location)?;
        let list = dwarf.attr_locations(self.unit, location).map_err(|_| Unreadable::Location)?;
        let mut list = list.ok_or(Unreadable::Location)?;
        let mut later = None;
        while let Some(entry) = list.next().map_err(|_| Unreadable::Location)? {
            if entry.range.begin <= self.pc.0 && self.pc.0 < entry.range.end {
                let place = location::evaluate(entry.data, encoding, &self.frame)?;
                // What the function itself puts there later, its entry's own value being of no use, may be said to
                // hold from the entry on.
                if matches!(&place, Place::Bytes(_))
                    || matches!(&place, Place::Value(steps) if matches!(steps.first(), Some(Step::Constant(_))))
                {
                    return Err(Unreadable::NoLocation);
                }
                return match self.about.language {
                    Language::Go => golang::place(types, ty, place),
                    _ => Ok(place),
                };
            }
            if entry.range.begin > self.pc.0 && later.is_none() {
                later = location::evaluate(entry.data, encoding, &self.frame)
                    .ok()
                    .and_then(|place| self.in_body(place));
            }
        }
        // Code that was not optimised keeps an argument where it is put first.
        match later {
            Some(place) => self.at_entry(place, types.size(ty), stored),
            _ => Err(Unreadable::NoLocation),
        }
    }

    /// Whether the registers of a place that is said to be the value's in the whole function are so from its
    /// first instruction on. Compilers name one that is filled a few instructions later: GCC if it does not
    /// follow variables (`-fno-var-tracking`, `register` without optimisation), LLVM for what comes in on the
    /// stack. The convention says otherwise, or, of LLVM, that no instruction fills it.
    fn is_from_the_entry_on(&self, place: &Place, expected: Expected) -> bool {
        let mut used = place.registers().peekable();
        if used.peek().is_none() || expected.is_by(place) {
            return true;
        }
        !self.about.is_gcc() && used.all(|register| !self.prologue.writes(register))
    }

    /// Refuses what callers leave out because the function does not need it, though it is described all the same:
    /// LLVM's an argument on the stack; everybody's an object that is given by its address.
    fn given(
        &self,
        types: &Types,
        ty: TypeNo,
        place: Place,
        (code, address): (&impl Deref<Target = Vec<u8>>, VirtAddr),
    ) -> Result<Place, Unreadable> {
        let is_given = match &place {
            Place::Memory(steps) => match *steps.as_slice() {
                [Step::Cfa] | [Step::Cfa, Step::Add(0..)] if !self.about.is_gcc() => {
                    let at = if let Some(Step::Add(at)) = steps.get(1) { *at } else { 0 };
                    let range = at..at.saturating_add_unsigned(types.size(ty));
                    self.prologue.is_used(code, address, &range)
                }
                [Step::Register(number)] | [Step::Register(number), Step::Add(_)] => {
                    !unused::is_spoilt(code, address, number)
                }
                _ => true,
            },
            _ => true,
        };
        if is_given { Ok(place) } else { Err(Unreadable::OptimizedOut) }
    }

    /// A place relative to a register of the function's body, relative to the frame.
    fn in_body(&self, place: Place) -> Option<Place> {
        use agent_common::function::register;
        let Place::Memory(mut steps) = place else { return None };
        let base = match steps.first()? {
            Step::Register(register::RSP) => self.prologue.stack?,
            Step::Register(register::RBP) => self.prologue.frame?,
            _ => return None,
        };
        let (from, used) = match steps.get(1) {
            Some(Step::Add(by)) => (base.checked_add(*by)?, 2),
            _ => (base, 1),
        };
        steps.splice(..used, [Step::Cfa, Step::Add(from)]);
        Some(Place::Memory(steps))
    }

    /// Turns places in the frame into what will be stored there.
    fn at_entry(
        &self,
        place: Place,
        bytes: u64,
        optimized: Option<Expected>,
    ) -> Result<Place, Unreadable> {
        Ok(match place {
            Place::Memory(steps) => self.memory_at_entry(steps, bytes, optimized)?,
            Place::Value(mut steps) => {
                self.replace(&mut steps, optimized)?;
                Place::Value(steps)
            }
            Place::Pieces(pieces) => Place::Pieces(
                pieces
                    .into_iter()
                    .map(|piece| Piece {
                        bytes: piece.bytes,
                        place: piece
                            .place
                            .and_then(|place| self.at_entry(place, piece.bytes, optimized)),
                    })
                    .collect(),
            ),
            other @ Place::Bytes(_) => other,
        })
    }

    fn memory_at_entry(
        &self,
        mut steps: Vec<Step>,
        bytes: u64,
        optimized: Option<Expected>,
    ) -> Result<Place, Unreadable> {
        let at = match steps.as_slice() {
            [Step::Cfa] => 0,
            [Step::Cfa, Step::Add(at)] => *at,
            _ => {
                self.replace(&mut steps, optimized)?;
                return Ok(Place::Memory(steps));
            }
        };
        if let Some(found) = self.stored(at, bytes)
            && optimized.is_none_or(|expected| expected.is(&found))
        {
            return Ok(found);
        }
        // The caller wrote what lies above the return address.
        if at >= 0
            && !(self.about.language == Language::Go
                && self.prologue.stores.iter().any(|store| store.at == at))
        {
            return Ok(Place::Memory(steps));
        }
        Err(Unreadable::NotStored)
    }

    /// What is stored into a place.
    fn stored(&self, at: i64, bytes: u64) -> Option<Place> {
        if bytes == 0 || bytes > 64 {
            return None;
        }
        let mut pieces = Vec::new();
        let mut done = 0;
        while done < bytes {
            match self.prologue.stored(at.checked_add(done as i64)?) {
                Some(store) => {
                    let part = u64::from(store.bytes).min(bytes - done);
                    pieces.push(Piece { bytes: part, place: Ok(place_of(store.from)) });
                    done += part;
                }
                // Padding, or a vector register, which is not followed.
                None => {
                    done += 1;
                    match pieces.last_mut() {
                        Some(Piece { bytes, place: Err(_) }) => *bytes += 1,
                        _ => pieces.push(Piece { bytes: 1, place: Err(Unreadable::NotStored) }),
                    }
                }
            }
        }
        match pieces.as_slice() {
            [Piece { place, .. }] => place.clone().ok(),
            _ => pieces.iter().any(|piece| piece.place.is_ok()).then_some(Place::Pieces(pieces)),
        }
    }

    /// An address that is itself kept in the frame.
    fn replace(
        &self,
        steps: &mut Vec<Step>,
        optimized: Option<Expected>,
    ) -> Result<(), Unreadable> {
        let (at, used, load) = match steps.as_slice() {
            [Step::Cfa, Step::Load(load), ..] => (0, 2, *load),
            [Step::Cfa, Step::Add(at), Step::Load(load), ..] => (*at, 3, *load),
            _ => return Ok(()),
        };
        match self.prologue.stored(at) {
            Some(store)
                if load == 8
                    && store.bytes == 8
                    && optimized.is_none_or(|expected| expected.is(&place_of(store.from))) =>
            {
                let address = match store.from {
                    Source::Register(number) => vec![Step::Register(number)],
                    Source::Caller(at) => vec![Step::Cfa, Step::Add(at), Step::Load(8)],
                };
                steps.splice(..used, address);
                Ok(())
            }
            None if at >= 0 => Ok(()),
            _ => Err(Unreadable::NotStored),
        }
    }
}

/// Where an argument comes in.
fn place_of(source: Source) -> Place {
    match source {
        Source::Register(number) => Place::register(number),
        Source::Caller(at) => Place::Memory(vec![Step::Cfa, Step::Add(at)]),
    }
}

fn constant(value: &Attr<'_>) -> Option<Place> {
    Some(match value {
        AttributeValue::Block(bytes) => Place::Bytes(bytes.slice().to_vec()),
        AttributeValue::String(text) => Place::Bytes(text.slice().to_vec()),
        AttributeValue::Sdata(value) => Place::Bytes(value.to_le_bytes().to_vec()),
        other => Place::Bytes(other.udata_value()?.to_le_bytes().to_vec()),
    })
}

/// The function's name with what it is in.
fn name<'a>(view: &View<'a>, chain: &Chain<'a>) -> Arc<str> {
    let Some(own) = chain.text(view, gimli::DW_AT_name) else { return Arc::from("") };
    let Some((mut at, _, _)) = chain.links.last().map(|(die, unit, entry)| (*die, unit, entry))
    else {
        return own;
    };
    let mut parts = vec![own];
    for _ in 0..16 {
        let Some(parent) = view.parent(at) else { break };
        let Ok((unit, entry)) = view.entry(parent) else { break };
        if entry.tag() == gimli::DW_TAG_subprogram {
            break;
        }
        let part = entry.attr_value(gimli::DW_AT_name);
        let part = part.and_then(|part| view.text(parent.part, &unit, part));
        parts.extend(part);
        at = parent;
    }
    parts.reverse();
    parts.join("::").into()
}

/// The file in which the function is declared.
fn file<'a>(view: &View<'a>, chain: &Chain<'a>) -> Option<Arc<str>> {
    let (die, unit, value) = chain.value(gimli::DW_AT_decl_file)?;
    let AttributeValue::FileIndex(index) = value else { return None };
    let header = unit.line_program.as_ref()?.header();
    source::path(view.dwarf(die.part)?, unit, header, index).map(Into::into)
}
