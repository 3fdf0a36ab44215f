//! Which addresses the code of an entry has.

use gimli::{AttributeValue, DebuggingInformationEntry, Dwarf, Error, RangeIter, Reader, Unit};

/// The ranges of an entry. What would reach beyond all addresses is refused before the sum is made, which is
/// not done where entries are read.
pub(super) fn of<R: Reader>(
    dwarf: &Dwarf<R>,
    unit: &Unit<R>,
    entry: &DebuggingInformationEntry<R>,
) -> gimli::Result<RangeIter<R>> {
    // A spoiled entry may have either more than once.
    let (mut low, mut bytes) = (0_u64, 0_u64);
    for attribute in entry.attrs() {
        match (attribute.name(), attribute.value()) {
            (gimli::DW_AT_low_pc, value) => {
                low = low.max(dwarf.attr_address(unit, value)?.unwrap_or_default());
            }
            (gimli::DW_AT_high_pc, AttributeValue::Udata(length)) => bytes = bytes.max(length),
            _ => {}
        }
    }
    low.checked_add(bytes).ok_or(Error::AddressOverflow)?;
    dwarf.die_ranges(unit, entry)
}

/// Those of a unit's own entry.
pub(super) fn of_unit<R: Reader>(dwarf: &Dwarf<R>, unit: &Unit<R>) -> gimli::Result<RangeIter<R>> {
    of(dwarf, unit, &unit.entry(unit.header.root_offset())?)
}
