//! Units: which code each has, and one of them to be read.

use std::cell::RefCell;
use std::sync::Arc;

use gimli::{
    Abbreviations, AttributeValue, DebugAbbrevOffset, DebugInfoOffset, DebugLineOffset,
    DebugStrOffsetsBase, Dwarf, DwarfFileType, Section, UnitHeader,
};

use super::LinesError;
use super::bytes::Bytes;
use super::file::Files;
use super::rows;
use super::split::Split;
use crate::inspect::address::VirtAddr;
use crate::inspect::dwarf::ranges;
use crate::inspect::dwarf::units::{Tables, table};

/// Most units of a file.
const UNITS_MAX: usize = 1 << 18;

/// Longest table of abbreviations.
const ABBREVIATIONS_MAX: usize = 256 << 10;

pub(super) type Unit = gimli::Unit<Bytes>;

/// Which of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Main,
    Supplement,
    /// That of the other half of the unit that is read.
    Split,
}

/// Which unit has which code.
pub(super) struct Index {
    /// Where each unit is in `.debug_info` of both files, ascending.
    starts: [Vec<u32>; 2],
    /// Where their tables of abbreviations are.
    tables: [Tables; 2],
    ranges: Vec<Range>,
}

/// A run of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Range {
    begin: u64,
    end: u64,
    unit: usize,
}

impl Index {
    /// Takes no more memory than that.
    pub(super) fn read(files: &Files, bytes: u64) -> Result<Self, LinesError> {
        let too_many = |limit| LinesError::TooMany { path: files.path.clone(), limit };
        let of = |part| headers(files.dwarf(part)).ok_or_else(|| too_many(UNITS_MAX));
        let [(own, own_tables), (shared, shared_tables)] = [of(Part::Main)?, of(Part::Supplement)?];
        // Those with the same table one after the other, so that it is read once.
        let mut by_table = own.clone();
        by_table.sort_by_cached_key(|(_, table)| *table);
        let starts = [own, shared].map(|units| units.into_iter().map(|(start, _)| start).collect());
        let mut index = Self { starts, tables: [own_tables, shared_tables], ranges: Vec::new() };
        // A vector grows to twice its size, beside what it was.
        let left = bytes.saturating_sub(index.bytes()) as usize;
        let limit = left / (3 * size_of::<Range>());
        let units = Units::new(files, &index);
        let mut ranges = Vec::new();
        for (start, _) in by_table {
            let unit = start as usize;
            // What stands before the damage of a damaged unit is good.
            let _ = units.ranges(unit, &mut ranges, limit);
            if ranges.len() > limit {
                return Err(too_many(limit));
            }
        }
        ranges.sort_unstable();
        // Between two functions of one unit there is nothing of another's.
        ranges.dedup_by(|next, last| {
            let is_same = next.unit == last.unit;
            if is_same {
                last.end = last.end.max(next.end);
            }
            is_same
        });
        ranges.shrink_to_fit();
        index.ranges = ranges;
        files.forget_pages();
        Ok(index)
    }

    pub(super) fn bytes(&self) -> u64 {
        let starts = self.starts.iter().map(|starts| starts.len() * size_of::<u32>());
        let tables = self.tables.iter().map(Tables::held).sum::<usize>();
        (starts.sum::<usize>() + tables + self.ranges.len() * size_of::<Range>()) as u64
    }

    /// The unit whose code holds an address.
    pub(super) fn unit(&self, address: VirtAddr) -> Option<usize> {
        let after = self.ranges.partition_point(|range| range.begin <= address.0);
        // Units do not overlap in sound files; where they do, a few are tried.
        let near = self.ranges.get(after.saturating_sub(4)..after)?;
        near.iter().rev().find(|range| address.0 < range.end).map(|range| range.unit)
    }
}

/// Where units begin, with their tables of abbreviations; `None` if there are too many. Nothing of a section
/// of 4 GiB or more is read.
fn headers(dwarf: Option<&Dwarf<Bytes>>) -> Option<(Vec<(u32, usize)>, Tables)> {
    let mut starts = Vec::new();
    let Some(dwarf) = dwarf else { return Some((starts, Tables::new(Vec::new()))) };
    let mut headers = dwarf.units();
    while let Ok(Some(header)) = headers.next() {
        let start = header.debug_info_offset().and_then(|offset| u32::try_from(offset.0).ok());
        let Some(start) = start else { break };
        if starts.len() >= UNITS_MAX {
            return None;
        }
        starts.push((start, header.debug_abbrev_offset().0));
    }
    let tables = Tables::new(starts.iter().map(|(_, table)| *table).collect());
    Some((starts, tables))
}

impl Files {
    pub(super) fn dwarf(&self, part: Part) -> Option<&Dwarf<Bytes>> {
        match part {
            Part::Main => Some(&self.main),
            Part::Supplement => self.supplement.as_ref(),
            Part::Split => None,
        }
    }
}

/// A table of abbreviations that no other one is known to follow.
pub(super) fn short_table(
    dwarf: &Dwarf<Bytes>,
    at: DebugAbbrevOffset,
) -> gimli::Result<Arc<Abbreviations>> {
    table(&dwarf.debug_abbrev, at.0, ABBREVIATIONS_MAX)
}

/// Units while they are read.
pub(super) struct Units<'a> {
    pub(super) files: &'a Files,
    index: &'a Index,
    /// The last table of abbreviations: those of neighbours are often the same.
    abbreviations: RefCell<Option<(Part, DebugAbbrevOffset, Arc<Abbreviations>)>>,
    split: Option<Split>,
}

impl<'a> Units<'a> {
    pub(super) fn new(files: &'a Files, index: &'a Index) -> Self {
        Self { files, index, abbreviations: RefCell::default(), split: None }
    }

    /// The same, where a unit has another half.
    pub(super) fn with_split(&self, split: Split) -> Self {
        Self { split: Some(split), ..Self::new(self.files, self.index) }
    }

    pub(super) fn dwarf(&self, part: Part) -> Option<&Dwarf<Bytes>> {
        match part {
            Part::Split => self.split.as_ref().map(|split| &split.dwarf),
            _ => self.files.dwarf(part),
        }
    }

    /// Which half of a unit tells of its functions, and where it begins.
    pub(super) fn half(&self, start: usize) -> (Part, usize) {
        self.split.as_ref().map_or((Part::Main, start), |split| (Part::Split, split.start))
    }

    /// The unit with the entry at an offset of `.debug_info`.
    pub(super) fn start(&self, part: Part, offset: usize) -> Option<usize> {
        if part == Part::Split {
            // Another unit's is not looked for.
            let start = self.split.as_ref()?.start;
            let header = self.dwarf(part)?.unit_header(DebugInfoOffset(start)).ok()?;
            let end = start.checked_add(header.length_including_self())?;
            return (start..end).contains(&offset).then_some(start);
        }
        let starts = self.index.starts.get(part as usize)?;
        let after = starts.partition_point(|start| *start as usize <= offset);
        starts.get(after.checked_sub(1)?).map(|start| *start as usize)
    }

    /// How long a unit of the module's own is.
    pub(super) fn bytes(&self, start: usize) -> usize {
        let header = self.files.main.unit_header(DebugInfoOffset(start));
        header.map_or(0, |header| header.length_including_self())
    }

    fn abbreviations(
        &self,
        part: Part,
        header: &UnitHeader<Bytes>,
    ) -> gimli::Result<Arc<Abbreviations>> {
        let at = header.debug_abbrev_offset();
        let mut last = self.abbreviations.borrow_mut();
        if let Some((of, known, table)) = &*last
            && (*of, *known) == (part, at)
        {
            return Ok(Arc::clone(table));
        }
        let dwarf = self.dwarf(part).ok_or(gimli::Error::MissingUnitDie)?;
        let known = self.index.tables.get(part as usize).map(|tables| tables.bytes(at.0));
        let most = known.unwrap_or(ABBREVIATIONS_MAX).min(ABBREVIATIONS_MAX);
        let table = table(&dwarf.debug_abbrev, at.0, most)?;
        *last = Some((part, at, Arc::clone(&table)));
        Ok(table)
    }

    /// The unit at an offset, without its line table, and where that is.
    pub(super) fn unit(
        &self,
        part: Part,
        start: usize,
    ) -> gimli::Result<(Unit, Option<DebugLineOffset>)> {
        let dwarf = self.dwarf(part).ok_or(gimli::Error::MissingUnitDie)?;
        let header = dwarf.unit_header(DebugInfoOffset(start))?;
        let encoding = header.encoding();
        let kind = if part == Part::Split { DwarfFileType::Dwo } else { DwarfFileType::Main };
        let mut unit = Unit {
            abbreviations: self.abbreviations(part, &header)?,
            name: None,
            comp_dir: None,
            low_pc: 0,
            str_offsets_base: DebugStrOffsetsBase::default_for_encoding_and_file(encoding, kind),
            addr_base: gimli::DebugAddrBase(0),
            loclists_base: gimli::DebugLocListsBase(0),
            rnglists_base: gimli::DebugRngListsBase::default_for_encoding_and_file(encoding, kind),
            line_program: None,
            dwo_id: None,
            header,
        };
        let root = unit.entry(unit.header.root_offset())?;
        for attribute in root.attrs() {
            match (attribute.name(), attribute.value()) {
                (_, AttributeValue::DebugStrOffsetsBase(base)) => unit.str_offsets_base = base,
                (_, AttributeValue::DebugAddrBase(base)) => unit.addr_base = base,
                (_, AttributeValue::DebugRngListsBase(base)) => unit.rnglists_base = base,
                _ => {}
            }
        }
        // What the other attributes say counts from there.
        let text = |name| dwarf.attr_string(&unit, root.attr_value(name)?).ok();
        let (name, directory) = (text(gimli::DW_AT_name), text(gimli::DW_AT_comp_dir));
        let low = match root.attr_value(gimli::DW_AT_low_pc) {
            Some(value) => dwarf.attr_address(&unit, value)?.unwrap_or_default(),
            None => 0,
        };
        let table = match root.attr_value(gimli::DW_AT_stmt_list) {
            Some(AttributeValue::DebugLineRef(offset)) => Some(offset),
            _ => None,
        };
        (unit.name, unit.comp_dir, unit.low_pc) = (name, directory, low);
        if let (Part::Split, Some(split)) = (part, &self.split) {
            (unit.low_pc, unit.addr_base) = (split.low_pc, split.addr_base);
            if encoding.version < 5 {
                unit.rnglists_base = split.rnglists_base;
            }
        }
        Ok((unit, table))
    }

    fn ranges(&self, start: usize, found: &mut Vec<Range>, limit: usize) -> gimli::Result<()> {
        let (unit, _) = self.unit(Part::Main, start)?;
        let mut ranges = ranges::of_unit(&self.files.main, &unit)?;
        while let Some(range) = ranges.next()? {
            // Code that the linker dropped lies at 0 or at the end.
            if range.begin != 0 && range.begin < range.end && found.len() <= limit {
                found.push(Range { begin: range.begin, end: range.end, unit: start });
            }
        }
        Ok(())
    }

    /// A unit of the module's own with its line table.
    pub(super) fn with_rows(&self, start: usize) -> gimli::Result<Unit> {
        let (mut unit, table) = self.unit(Part::Main, start)?;
        let lines = &self.files.main.debug_line;
        if let Some(offset) = table {
            let mut bytes = lines.reader().clone();
            gimli::Reader::skip(&mut bytes, offset.0)?;
            if rows::is_short(bytes)? {
                let (directory, name) = (unit.comp_dir.clone(), unit.name.clone());
                let size = unit.header.address_size();
                unit.line_program = lines.program(offset, size, directory, name).ok();
            }
        }
        Ok(unit)
    }
}
