//! The functions that are inlined at an address, within the one that its code is of.

use gimli::{AttributeValue, DebuggingInformationEntry, Dwarf, UnitOffset};

use super::Call;
use super::bytes::Bytes;
use super::name::name;
use super::rows::{Row, rows};
use super::split::{self, Split};
use super::units::{Part, Unit, Units};
use crate::inspect::address::VirtAddr;
use crate::inspect::dwarf::{ranges, source};

/// Most functions that are inlined into each other.
const DEPTH_MAX: usize = 64;

/// Most runs of code of a unit's functions that are looked at: many may name the same list of such.
const RANGES_MAX: usize = 1 << 22;

/// A function, or one that was inlined, and its code holds the address.
struct Holder {
    depth: isize,
    entry: UnitOffset,
    is_inlined: bool,
    /// Where it was called, if it was inlined.
    called: Row,
}

/// What is known of one address.
#[derive(Default)]
struct Path {
    /// From the function inward.
    holders: Vec<Holder>,
    /// What was read last lies outside of it.
    is_closed: bool,
}

/// The calls at ascending addresses of a unit.
pub(super) fn of(units: &Units<'_>, start: usize, wanted: &[VirtAddr]) -> Vec<Vec<Call>> {
    let Ok(mut unit) = units.with_rows(start) else { return vec![Vec::new(); wanted.len()] };
    let rows = match &mut unit.line_program {
        Some(program) => rows(program, wanted),
        None => vec![None; wanted.len()],
    };
    let mut paths: Vec<Path> = wanted.iter().map(|_| Path::default()).collect();
    let others = split::other(units, &unit);
    let split = others.as_ref().and_then(|other| Split::find(units, &unit, other));
    if split.is_none() && others.is_some_and(|other| !other.is_told) {
        // Lines alone would be those of functions that are not known.
        return vec![Vec::new(); wanted.len()];
    }
    let with_other = split.map(|split| units.with_split(split));
    let halves = with_other.as_ref().unwrap_or(units);
    let half = halves.half(start);
    // What stands before the damage of a damaged unit is good.
    let _ = match half {
        (Part::Main, _) => walk(&units.files.main, &unit, wanted, &mut paths),
        (part, start) => walk_other(halves, (part, start), wanted, &mut paths),
    };
    let calls = |(path, row)| calls(halves, (half, &unit), path, row);
    paths.iter().zip(rows).map(calls).collect()
}

fn walk_other(
    units: &Units<'_>,
    (part, start): (Part, usize),
    wanted: &[VirtAddr],
    paths: &mut [Path],
) -> gimli::Result<()> {
    let (unit, _) = units.unit(part, start)?;
    let dwarf = units.dwarf(part).ok_or(gimli::Error::MissingUnitDie)?;
    walk(dwarf, &unit, wanted, paths)
}

fn calls(
    units: &Units<'_>,
    (half, unit): ((Part, usize), &Unit),
    path: &Path,
    row: Option<Row>,
) -> Vec<Call> {
    let mut position = row;
    let place = |row: Option<Row>| {
        let header = unit.line_program.as_ref().map(|program| program.header());
        let file = header
            .zip(row)
            .and_then(|(header, row)| source::path(&units.files.main, unit, header, row.file));
        let line = row.and_then(|row| u32::try_from(row.line).ok()).unwrap_or_default();
        (file.unwrap_or_default(), line)
    };
    let mut calls = Vec::new();
    for holder in path.holders.iter().rev() {
        let (file, line) = place(position);
        let function = name(units, half, holder.entry).unwrap_or_default();
        calls.push(Call { function, file, line, is_inlined: holder.is_inlined });
        position = Some(holder.called);
    }
    if calls.is_empty() && row.is_some() {
        // Code of no function: written in assembly.
        let (file, line) = place(row);
        calls.push(Call { function: String::new(), file, line, is_inlined: false });
    }
    calls
}

fn walk(
    dwarf: &Dwarf<Bytes>,
    unit: &Unit,
    wanted: &[VirtAddr],
    paths: &mut [Path],
) -> gimli::Result<()> {
    let mut entries = unit.entries_raw(None)?;
    let mut entry = DebuggingInformationEntry::null();
    let mut left = RANGES_MAX;
    while !entries.is_empty() {
        let (depth, offset) = (entries.next_depth(), entries.next_offset());
        let Some(abbreviation) = entries.read_abbreviation()? else { continue };
        let is_inlined = match abbreviation.tag() {
            gimli::DW_TAG_subprogram => false,
            gimli::DW_TAG_inlined_subroutine => true,
            _ => {
                entries.skip_attributes(abbreviation.attributes())?;
                continue;
            }
        };
        entries.read_attributes(abbreviation.attributes(), &mut entry.attrs)?;
        for path in paths.iter_mut() {
            path.is_closed |= path.holders.last().is_some_and(|last| last.depth >= depth);
        }
        // A range of one unit that makes no sense is none of its others.
        let Ok(mut ranges) = ranges::of(dwarf, unit, &entry) else { continue };
        while let Ok(Some(range)) = ranges.next() {
            let Some(still) = left.checked_sub(1) else {
                // What is within these functions is not known.
                paths.fill_with(Path::default);
                return Ok(());
            };
            left = still;
            let first = wanted.partition_point(|at| at.0 < range.begin);
            let behind = wanted.partition_point(|at| at.0 < range.end);
            for path in paths.get_mut(first..behind).unwrap_or_default() {
                path.enter(depth, offset, is_inlined, &entry);
            }
        }
    }
    Ok(())
}

impl Path {
    fn enter(
        &mut self,
        depth: isize,
        entry: UnitOffset,
        is_inlined: bool,
        attributes: &DebuggingInformationEntry<Bytes>,
    ) {
        let is_first = self.holders.is_empty();
        if is_inlined && (is_first || self.is_closed || self.holders.len() >= DEPTH_MAX) {
            return;
        }
        if !is_inlined {
            // A function within a function has code of its own.
            if self.is_closed {
                return;
            }
            self.holders.clear();
        }
        if self.holders.last().is_some_and(|last| last.entry == entry) {
            return;
        }
        let number = |name| match attributes.attr_value(name) {
            Some(AttributeValue::FileIndex(number)) => Some(number),
            value => value?.udata_value(),
        };
        let called = Row {
            file: number(gimli::DW_AT_call_file).unwrap_or(u64::MAX),
            line: number(gimli::DW_AT_call_line).unwrap_or_default(),
        };
        self.holders.push(Holder { depth, entry, is_inlined, called });
    }
}
