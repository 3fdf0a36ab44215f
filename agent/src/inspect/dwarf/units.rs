//! Finding entries of `.debug_info`: the unit of an address, the function in it, what an attribute
//! refers to. Everything found is remembered by its offset, so that a file is walked once.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gimli::{
    Abbreviations, AttributeValue, DebugAbbrev, DebugAbbrevOffset, DebugInfoOffset,
    DebuggingInformationEntry, Dwarf, EntriesRaw, Reader, Section, UnitHeader, UnitOffset,
};

use super::ranges;
use super::sections::{Loaded, Sections, Slice};
use crate::inspect::address::VirtAddr;

/// Most abbreviations tables that are kept: each unit of C has one of its own.
const ABBREVIATIONS_MAX: usize = 512;
/// Most units of a file, and most runs of code of all of them: many may name the same list of such.
const FILE_UNITS_MAX: usize = 1 << 20;
const RANGES_MAX: usize = 1 << 23;
/// Most units that one view keeps open.
const UNITS_MAX: usize = 256;
/// Longest name, and most bytes of all that one view takes: any number of entries may have the same one.
const TEXT_MAX: usize = 16 << 10;
const TEXTS_MAX: usize = 4 << 20;
/// Most bytes of names of a file that are too long, which are looked through to their ends all the same.
const OVERLONG_MAX: usize = 1 << 30;

pub(super) type Entry<'a> = DebuggingInformationEntry<Slice<'a>>;
pub(super) type Unit<'a> = gimli::Unit<Slice<'a>>;
pub(super) type Attr<'a> = AttributeValue<Slice<'a>>;

/// Which of the two files an entry is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Part {
    Main,
    /// What `dwz` shared between files.
    Supplement,
}

/// An entry's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Die {
    pub(super) part: Part,
    /// Offset of the unit in `.debug_info`.
    pub(super) unit: usize,
    /// Offset in the unit.
    pub(super) entry: usize,
}

/// What was found in a file so far.
#[derive(Default)]
pub(super) struct Cache {
    abbreviations: HashMap<(Part, usize), Arc<Abbreviations>>,
    units: [Option<Arc<Units>>; 2],
    ranges: Option<Arc<Vec<Range>>>,
    functions: HashMap<usize, Arc<Vec<(u64, usize)>>>,
    names: HashMap<usize, Arc<HashMap<usize, usize>>>,
    /// Bytes of names that are too long.
    overlong: usize,
}

/// What the headers of a file's units say.
pub(super) struct Units {
    /// Where they begin, ascending.
    starts: Vec<usize>,
    tables: Tables,
}

/// Where tables of abbreviations begin, ascending. None reaches into the next one: each is read once, not
/// again from each of its entries on.
pub(super) struct Tables(Vec<usize>);

impl Tables {
    pub(super) fn new(mut offsets: Vec<usize>) -> Self {
        offsets.sort_unstable();
        offsets.dedup();
        offsets.shrink_to_fit();
        Self(offsets)
    }

    /// Most bytes of the one at an offset.
    pub(super) fn bytes(&self, at: usize) -> usize {
        let next = self.0.partition_point(|table| *table <= at);
        self.0.get(next).map_or(usize::MAX, |next| next - at)
    }

    /// About how much memory they take.
    pub(super) fn held(&self) -> usize {
        self.0.len() * size_of::<usize>()
    }
}

/// The table at an offset of a section, which has at most so many bytes.
pub(super) fn table<R: Reader<Offset = usize>>(
    section: &DebugAbbrev<R>,
    at: usize,
    most: usize,
) -> gimli::Result<Arc<Abbreviations>> {
    let mut bytes = section.reader().clone();
    bytes.skip(at)?;
    bytes.truncate(bytes.len().min(most))?;
    DebugAbbrev::from(bytes).abbreviations(DebugAbbrevOffset(0)).map(Arc::new)
}

/// Addresses of a unit's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Range {
    begin: u64,
    end: u64,
    unit: usize,
}

/// A file's debug information while it is being read.
pub(super) struct View<'a> {
    dwarf: Dwarf<Slice<'a>>,
    supplement: Option<Dwarf<Slice<'a>>>,
    cache: &'a Mutex<Cache>,
    open: RefCell<HashMap<(Part, usize), Rc<Unit<'a>>>>,
    /// Bytes of names.
    texts: Cell<usize>,
    pub(super) loaded: &'a Loaded,
}

fn dwarf_of(sections: &Sections) -> Dwarf<Slice<'_>> {
    let load = |id| Ok::<_, std::convert::Infallible>(sections.slice(id));
    match Dwarf::load(load) {
        Ok(dwarf) => dwarf,
        Err(never) => match never {},
    }
}

impl<'a> View<'a> {
    pub(super) fn new(loaded: &'a Loaded, cache: &'a Mutex<Cache>) -> Self {
        let mut dwarf = dwarf_of(&loaded.sections);
        let supplement = loaded.supplement.as_ref().map(dwarf_of);
        if let Some(sections) = &loaded.supplement {
            dwarf.set_sup(dwarf_of(sections));
        }
        Self { dwarf, supplement, cache, open: RefCell::default(), texts: Cell::new(0), loaded }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sections that an entry's attributes refer to.
    pub(super) fn dwarf(&self, part: Part) -> Option<&Dwarf<Slice<'a>>> {
        match part {
            Part::Main => Some(&self.dwarf),
            Part::Supplement => self.supplement.as_ref(),
        }
    }

    fn abbreviations(
        &self,
        part: Part,
        header: &UnitHeader<Slice<'a>>,
    ) -> gimli::Result<Arc<Abbreviations>> {
        let key = (part, header.debug_abbrev_offset().0);
        if let Some(known) = self.cache().abbreviations.get(&key) {
            return Ok(Arc::clone(known));
        }
        let dwarf = self.dwarf(part).ok_or(gimli::Error::MissingUnitDie)?;
        let most = self.units(part).map_or(usize::MAX, |units| units.tables.bytes(key.1));
        let read = table(&dwarf.debug_abbrev, key.1, most)?;
        let mut cache = self.cache();
        if cache.abbreviations.len() >= ABBREVIATIONS_MAX {
            cache.abbreviations.clear();
        }
        cache.abbreviations.insert(key, Arc::clone(&read));
        Ok(read)
    }

    /// The unit at an offset.
    pub(super) fn unit(&self, part: Part, offset: usize) -> gimli::Result<Rc<Unit<'a>>> {
        if let Some(unit) = self.open.borrow().get(&(part, offset)) {
            return Ok(Rc::clone(unit));
        }
        let dwarf = self.dwarf(part).ok_or(gimli::Error::MissingUnitDie)?;
        let header = dwarf.unit_header(DebugInfoOffset(offset))?;
        let abbreviations = self.abbreviations(part, &header)?;
        let unit = Rc::new(gimli::Unit::new_with_abbreviations(dwarf, header, abbreviations)?);
        let mut open = self.open.borrow_mut();
        if open.len() >= UNITS_MAX {
            open.clear();
        }
        open.insert((part, offset), Rc::clone(&unit));
        Ok(unit)
    }

    /// An entry and its unit.
    pub(super) fn entry(&self, die: Die) -> gimli::Result<(Rc<Unit<'a>>, Entry<'a>)> {
        let unit = self.unit(die.part, die.unit)?;
        let entry = unit.entry(UnitOffset(die.entry))?;
        Ok((unit, entry))
    }

    /// The entry that an attribute refers to.
    pub(super) fn follow(&self, from: Die, value: &Attr<'a>) -> Option<Die> {
        match *value {
            AttributeValue::UnitRef(offset) => Some(Die { entry: offset.0, ..from }),
            AttributeValue::DebugInfoRef(offset) => self.find(from.part, offset.0),
            AttributeValue::DebugInfoRefSup(offset) => self.find(Part::Supplement, offset.0),
            _ => None,
        }
    }

    fn find(&self, part: Part, offset: usize) -> Option<Die> {
        let units = self.units(part)?;
        let at = units.starts.partition_point(|unit| *unit <= offset).checked_sub(1)?;
        let unit = units.starts[at];
        Some(Die { part, unit, entry: offset - unit })
    }

    fn units(&self, part: Part) -> Option<Arc<Units>> {
        if let Some(known) = &self.cache().units[part as usize] {
            return Some(Arc::clone(known));
        }
        let dwarf = self.dwarf(part)?;
        let (mut starts, mut tables) = (Vec::new(), Vec::new());
        let mut headers = dwarf.units();
        while let Ok(Some(header)) = headers.next()
            && starts.len() < FILE_UNITS_MAX
        {
            starts.extend(header.debug_info_offset().map(|offset| offset.0));
            tables.push(header.debug_abbrev_offset().0);
        }
        let found = Arc::new(Units { starts, tables: Tables::new(tables) });
        self.cache().units[part as usize] = Some(Arc::clone(&found));
        Some(found)
    }

    /// Ranges of all units' code, ascending.
    fn ranges(&self) -> Option<Arc<Vec<Range>>> {
        if let Some(known) = &self.cache().ranges {
            return Some(Arc::clone(known));
        }
        let mut found = Vec::new();
        let mut left = RANGES_MAX;
        let mut units = self.units(Part::Main)?.starts.clone();
        // Those with the same table one after the other, so that it is read once.
        units.sort_by_cached_key(|offset| {
            let header = self.dwarf.unit_header(DebugInfoOffset(*offset));
            header.map_or(0, |header| header.debug_abbrev_offset().0)
        });
        for offset in units {
            let Ok(unit) = self.unit(Part::Main, offset) else { continue };
            let Ok(mut ranges) = ranges::of_unit(&self.dwarf, &unit) else { continue };
            while let Ok(Some(range)) = ranges.next()
                && left > 0
            {
                left -= 1;
                // Code that the linker dropped lies at 0 or at the end.
                if range.begin != 0 && range.begin < range.end {
                    found.push(Range { begin: range.begin, end: range.end, unit: offset });
                }
            }
        }
        found.sort_unstable();
        let found = Arc::new(found);
        self.cache().ranges = Some(Arc::clone(&found));
        Some(found)
    }

    /// The units whose code holds an address.
    pub(super) fn units_at(&self, address: VirtAddr) -> Vec<usize> {
        let Some(ranges) = self.ranges() else { return Vec::new() };
        let after = ranges.partition_point(|range| range.begin <= address.0);
        // Ranges of units do not overlap in sound files; where they do, a few are tried.
        let near = &ranges[after.saturating_sub(4)..after];
        let holds = near.iter().rev().filter(|range| address.0 < range.end);
        holds.map(|range| range.unit).collect()
    }

    /// The function that begins at an address.
    pub(super) fn function_at(&self, address: VirtAddr) -> Option<Die> {
        self.units_at(address).into_iter().find_map(|unit| {
            let functions = self.functions(unit)?;
            let at = functions.binary_search_by_key(&address.0, |(start, _)| *start).ok()?;
            Some(Die { part: Part::Main, unit, entry: functions[at].1 })
        })
    }

    /// The functions of a unit by their first address.
    fn functions(&self, offset: usize) -> Option<Arc<Vec<(u64, usize)>>> {
        if let Some(known) = self.cache().functions.get(&offset) {
            return Some(Arc::clone(known));
        }
        let unit = self.unit(Part::Main, offset).ok()?;
        let mut found = Vec::new();
        // What stands before the damage of a damaged unit is good.
        let _ = self.walk_functions(&unit, &mut found);
        found.sort_unstable();
        found.dedup_by_key(|(start, _)| *start);
        let found = Arc::new(found);
        self.cache().functions.insert(offset, Arc::clone(&found));
        Some(found)
    }

    fn walk_functions(&self, unit: &Unit<'a>, found: &mut Vec<(u64, usize)>) -> gimli::Result<()> {
        let mut entries: EntriesRaw<'_, Slice<'a>> = unit.entries_raw(None)?;
        while !entries.is_empty() {
            let offset = entries.next_offset();
            let Some(abbreviation) = entries.read_abbreviation()? else { continue };
            if abbreviation.tag() != gimli::DW_TAG_subprogram {
                entries.skip_attributes(abbreviation.attributes())?;
                continue;
            }
            let mut start = None;
            for specification in abbreviation.attributes() {
                let attribute = entries.read_attribute(*specification)?;
                match attribute.name() {
                    gimli::DW_AT_low_pc => {
                        start = self.dwarf.attr_address(unit, attribute.value())?;
                    }
                    // The hot part comes first.
                    gimli::DW_AT_ranges if start.is_none() => {
                        if let Some(mut ranges) = self.dwarf.attr_ranges(unit, attribute.value())? {
                            start = ranges.next()?.map(|range| range.begin);
                        }
                    }
                    _ => {}
                }
            }
            found.extend(start.filter(|start| *start != 0).map(|start| (start, offset.0)));
        }
        Ok(())
    }

    /// The parents of a unit's namespaces, types and functions: what a name is in.
    pub(super) fn parent(&self, die: Die) -> Option<Die> {
        if die.part != Part::Main {
            return None;
        }
        let known = self.cache().names.get(&die.unit).cloned();
        let parents = match known {
            Some(known) => known,
            None => {
                let unit = self.unit(die.part, die.unit).ok()?;
                let mut found = HashMap::new();
                let _ = walk_parents(&unit, &mut found);
                let found = Arc::new(found);
                let mut cache = self.cache();
                if cache.names.len() >= 64 {
                    cache.names.clear();
                }
                cache.names.insert(die.unit, Arc::clone(&found));
                found
            }
        };
        parents.get(&die.entry).map(|entry| Die { entry: *entry, ..die })
    }

    /// A string attribute; not of one that is too long, or behind too many.
    pub(super) fn text(&self, part: Part, unit: &Unit<'a>, value: Attr<'a>) -> Option<Arc<str>> {
        if self.cache().overlong > OVERLONG_MAX {
            return None;
        }
        let text = self.dwarf(part)?.attr_string(unit, value).ok()?;
        if text.len() > TEXT_MAX {
            self.cache().overlong += text.len();
            return None;
        }
        self.texts.set(self.texts.get() + text.len());
        (self.texts.get() <= TEXTS_MAX).then(|| text.to_string_lossy().into())
    }
}

/// Whether the name of what lies within has this one's before it, which is no function.
pub(super) fn is_scope(tag: gimli::DwTag) -> bool {
    matches!(
        tag,
        gimli::DW_TAG_namespace
            | gimli::DW_TAG_structure_type
            | gimli::DW_TAG_class_type
            | gimli::DW_TAG_union_type
            | gimli::DW_TAG_enumeration_type
    )
}

fn walk_parents(unit: &Unit<'_>, found: &mut HashMap<usize, usize>) -> gimli::Result<()> {
    let mut stack: Vec<(isize, usize)> = Vec::new();
    let mut entries = unit.entries_raw(None)?;
    while !entries.is_empty() {
        let depth = entries.next_depth();
        let offset = entries.next_offset();
        let Some(abbreviation) = entries.read_abbreviation()? else { continue };
        entries.skip_attributes(abbreviation.attributes())?;
        while stack.last().is_some_and(|(above, _)| *above >= depth) {
            stack.pop();
        }
        let tag = abbreviation.tag();
        if is_scope(tag) || tag == gimli::DW_TAG_subprogram {
            if let Some((_, parent)) = stack.last() {
                found.insert(offset.0, *parent);
            }
            stack.push((depth, offset.0));
        }
    }
    Ok(())
}
