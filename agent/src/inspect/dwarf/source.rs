//! Names of source files, as line tables have them.

use std::path::PathBuf;

use gimli::{AttributeValue, Dwarf, LineProgramHeader, Reader, Unit};

/// The path of a file of a unit, below the directory in which it was compiled.
pub(super) fn path<R: Reader>(
    dwarf: &Dwarf<R>,
    unit: &Unit<R>,
    header: &LineProgramHeader<R>,
    file: u64,
) -> Option<String> {
    let text = |value: AttributeValue<R>| {
        Some(dwarf.attr_string(unit, value).ok()?.to_string_lossy().ok()?.into_owned())
    };
    let file = header.file(file)?;
    let mut path = PathBuf::new();
    if let Some(directory) = unit.comp_dir.as_ref().and_then(|name| name.to_string_lossy().ok()) {
        path.push(&*directory);
    }
    path.extend(file.directory(header).and_then(text));
    path.push(text(file.path_name())?);
    Some(path.to_string_lossy().into_owned())
}
