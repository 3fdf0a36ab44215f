//! Names of functions: what the linker calls them, else that of the source with what it is in.

use gimli::{AttributeValue, DwTag, Reader, UnitOffset};

use super::bytes::Bytes;
use super::units::{Part, Unit, Units};
use crate::inspect::demangle;
use crate::inspect::dwarf::Language;
use crate::inspect::dwarf::units::is_scope;

/// Most references from an entry to one that says more.
const ORIGINS_MAX: usize = 8;

/// Longest name.
const NAME_MAX: usize = 4 << 10;

/// Most namespaces and classes that a name is in.
const OUTER_MAX: usize = 16;

/// The name of the function that an entry of a unit is of.
pub(super) fn name(
    units: &Units<'_>,
    (part, start): (Part, usize),
    entry: UnitOffset,
) -> Option<String> {
    let (mut part, mut start, mut entry) = (part, start, entry);
    let mut own = None;
    let mut last = (part, start, entry);
    for _ in 0..ORIGINS_MAX {
        let (unit, _) = units.unit(part, start).ok()?;
        let die = unit.entry(entry).ok()?;
        let text = |name| text(units, part, &unit, die.attr_value(name)?);
        let linkage = text(gimli::DW_AT_linkage_name).or(text(gimli::DW_AT_MIPS_linkage_name));
        if let Some(linkage) = linkage {
            return Some(demangle::demangle(&linkage).short);
        }
        own = own.or_else(|| text(gimli::DW_AT_name));
        last = (part, start, entry);
        let next = [gimli::DW_AT_abstract_origin, gimli::DW_AT_specification]
            .into_iter()
            .find_map(|name| die.attr_value(name));
        let find = |part, offset: usize| {
            let start = units.start(part, offset)?;
            Some((part, start, UnitOffset(offset - start)))
        };
        let next = match next {
            Some(AttributeValue::UnitRef(offset)) => Some((part, start, offset)),
            Some(AttributeValue::DebugInfoRef(offset)) => find(part, offset.0),
            Some(AttributeValue::DebugInfoRefSup(offset)) => find(Part::Supplement, offset.0),
            _ => None,
        };
        let Some(next) = next else { break };
        (part, start, entry) = next;
    }
    let own = own?;
    let (part, start, entry) = last;
    let mut names = outer(units, part, start, entry).unwrap_or_default();
    names.push(own);
    Some(names.join("::"))
}

fn text(
    units: &Units<'_>,
    part: Part,
    unit: &Unit,
    value: AttributeValue<Bytes>,
) -> Option<String> {
    let bytes = units.dwarf(part)?.attr_string(unit, value).ok()?;
    Some(bytes.first(NAME_MAX).to_string_lossy().ok()?.into_owned())
}

/// The names of what an entry is in, the outermost first.
fn outer(units: &Units<'_>, part: Part, start: usize, entry: UnitOffset) -> Option<Vec<String>> {
    let (unit, _) = units.unit(part, start).ok()?;
    let root = unit.entry(unit.header.root_offset()).ok()?;
    let language = root.attr_value(gimli::DW_AT_language);
    if let Some(AttributeValue::Language(language)) = language
        && Language::of(language) == Language::C
    {
        return None;
    }
    let mut around: Vec<(isize, UnitOffset, DwTag)> = Vec::new();
    let mut entries = unit.entries_raw(None).ok()?;
    while !entries.is_empty() && entries.next_offset() < entry {
        let (depth, offset) = (entries.next_depth(), entries.next_offset());
        let Some(abbreviation) = entries.read_abbreviation().ok()? else { continue };
        entries.skip_attributes(abbreviation.attributes()).ok()?;
        while around.last().is_some_and(|(above, ..)| *above >= depth) {
            around.pop();
        }
        if abbreviation.has_children() {
            around.push((depth, offset, abbreviation.tag()));
        }
    }
    let depth = entries.next_depth();
    around.retain(|(above, ..)| *above < depth);
    // What lies in a function is named for itself.
    let from = around.iter().rposition(|(.., tag)| *tag == gimli::DW_TAG_subprogram);
    let around = around.into_iter().skip(from.map_or(0, |from| from + 1));
    let named = around.filter(|(.., tag)| is_scope(*tag)).take(OUTER_MAX);
    let name = |(_, offset, tag)| {
        let name = unit.entry(offset).ok()?.attr_value(gimli::DW_AT_name);
        match name {
            Some(name) => text(units, part, &unit, name),
            // As demanglers write it.
            None if tag == gimli::DW_TAG_namespace => Some("(anonymous namespace)".to_owned()),
            None => None,
        }
    };
    Some(named.filter_map(name).collect())
}
