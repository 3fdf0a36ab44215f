//! Names of source files, as line tables have them.

use std::path::PathBuf;

use gimli::{AttributeValue, Dwarf, LineProgramHeader, Reader, ReaderOffset, Unit};

/// Longest part of a path (`PATH_MAX`).
const PATH_MAX: u64 = 4096;

/// The path of a file of a unit, below the directory in which it was compiled.
pub(super) fn path<R: Reader>(
    dwarf: &Dwarf<R>,
    unit: &Unit<R>,
    header: &LineProgramHeader<R>,
    file: u64,
) -> Option<String> {
    let owned = |text: &R| {
        let is_path = text.len().into_u64() <= PATH_MAX;
        is_path.then(|| text.to_string_lossy().ok().map(std::borrow::Cow::into_owned)).flatten()
    };
    let text = |value: AttributeValue<R>| owned(&dwarf.attr_string(unit, value).ok()?);
    let file = header.file(file)?;
    let mut path = PathBuf::new();
    path.extend(unit.comp_dir.as_ref().and_then(owned));
    path.extend(file.directory(header).and_then(text));
    path.push(text(file.path_name())?);
    Some(path.to_string_lossy().into_owned())
}
