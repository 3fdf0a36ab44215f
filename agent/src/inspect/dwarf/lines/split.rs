//! The other half of a unit that was split when it was compiled (`-gsplit-dwarf`): what says which functions
//! are where lies in a file of its own (`.dwo`), or with others in a package (`.dwp`). It must bear the
//! number that the half in the program names; of a unit whose other half is not there, nothing is told.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use gimli::{
    AttributeValue, DebugAddrBase, DebugRngListsBase, Dwarf, DwarfPackage, DwoId, Reader,
    SectionId, UnitType,
};

use super::bytes::Bytes;
use super::file::{Files, Sections, load_split};
use super::units::{Unit, Units};
use crate::inspect::elf::Module;

/// What is read of it; of a package a unit's part is made out in the others as well.
pub(super) const WANTED: [SectionId; 13] = [
    SectionId::DebugAbbrev,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
    SectionId::DebugCuIndex,
    SectionId::DebugTuIndex,
    SectionId::DebugLoc,
    SectionId::DebugLocLists,
    SectionId::DebugMacinfo,
    SectionId::DebugMacro,
    SectionId::DebugTypes,
];

/// Most units that are looked at for the one with the number: types have some of their own.
const UNITS_MAX: usize = 1 << 16;

/// Longest name.
const NAME_MAX: usize = 4096;

/// The other half, and what it has of the first.
pub(super) struct Split {
    pub(super) dwarf: Dwarf<Bytes>,
    pub(super) start: usize,
    pub(super) low_pc: u64,
    pub(super) addr_base: DebugAddrBase,
    pub(super) rnglists_base: DebugRngListsBase<usize>,
}

/// What a half says of the other one.
pub(super) struct Other {
    name: PathBuf,
    id: DwoId,
    /// Whether it tells itself what is inlined, as much as there is to know of it.
    pub(super) is_told: bool,
}

/// What a unit of the module's own says of its other half, if it has one.
pub(super) fn other(units: &Units<'_>, unit: &Unit) -> Option<Other> {
    let root = unit.entry(unit.header.root_offset()).ok()?;
    let attribute =
        |names: [gimli::DwAt; 2]| names.into_iter().find_map(|name| root.attr_value(name));
    let name = attribute([gimli::DW_AT_dwo_name, gimli::DW_AT_GNU_dwo_name])?;
    let name = path(&units.files.main.attr_string(unit, name).ok()?)?;
    let id = match (unit.header.type_(), root.attr_value(gimli::DW_AT_GNU_dwo_id)) {
        (UnitType::Skeleton(id), _) | (_, Some(AttributeValue::DwoId(id))) => id,
        _ => return None,
    };
    let directory = unit.comp_dir.as_ref().and_then(path).unwrap_or_default();
    Some(Other { name: directory.join(name), id, is_told: root.has_children() })
}

fn path(text: &Bytes) -> Option<PathBuf> {
    let bytes = text.clone().first(NAME_MAX);
    Some(Path::new(OsStr::from_bytes(&bytes.to_slice().ok()?)).to_owned())
}

impl Split {
    /// Looks where it may be.
    pub(super) fn find(units: &Units<'_>, unit: &Unit, other: &Other) -> Option<Self> {
        let files = units.files;
        let mut packages = files.paths.iter().map(|program| beside(program, ".dwp"));
        let dwarf = packages.find_map(|package| packaged(files, &package, other.id));
        let dwarf = dwarf.or_else(|| {
            let own = other.name.file_name()?;
            let compiled = std::iter::once(files.root.join(below(&other.name)));
            let near = files.paths.iter().filter_map(|program| Some(program.parent()?.join(own)));
            compiled.chain(near).find_map(|at| single(files, &at, other.id))
        });
        let (dwarf, start) = dwarf?;
        let Unit { low_pc, addr_base, rnglists_base, .. } = *unit;
        Some(Self { dwarf, start, low_pc, addr_base, rnglists_base })
    }
}

/// A path as it is meant below a root, which it does not leave.
fn below(path: &Path) -> PathBuf {
    let mut inner = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inner.push(name),
            Component::ParentDir => {
                inner.pop();
            }
            _ => {}
        }
    }
    inner
}

/// The name of a file with more behind it.
fn beside(program: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(program);
    name.push(ending);
    name.into()
}

/// The half with a number in a file of its own, and where it begins there.
fn single(files: &Files, at: &Path, id: DwoId) -> Option<(Dwarf<Bytes>, usize)> {
    let sections = load_split(Module::open(at).ok()?)?;
    let found: Result<_, Infallible> = Dwarf::load(|id| Ok(section(&sections, id)));
    let mut dwarf = found.ok()?;
    dwarf.make_dwo(&files.main);
    let start = start(&dwarf, id)?;
    Some((dwarf, start))
}

/// That in a package.
fn packaged(files: &Files, at: &Path, id: DwoId) -> Option<(Dwarf<Bytes>, usize)> {
    let sections = load_split(Module::open(at).ok()?)?;
    let load = |id| Ok::<_, gimli::Error>(section(&sections, id));
    let package = DwarfPackage::load(load, Bytes::none()).ok()?;
    let dwarf = package.find_cu(id, &files.main).ok()??;
    let start = start(&dwarf, id)?;
    Some((dwarf, start))
}

fn section(sections: &Sections, id: SectionId) -> Bytes {
    let found = sections.iter().find(|(known, _)| *known == id);
    found.map_or_else(Bytes::none, |(_, own)| own.clone())
}

/// Where the unit with a number begins.
fn start(dwarf: &Dwarf<Bytes>, id: DwoId) -> Option<usize> {
    let mut headers = dwarf.units();
    for _ in 0..UNITS_MAX {
        let header = headers.next().ok()??;
        let start = header.debug_info_offset()?.0;
        match header.type_() {
            UnitType::SplitCompilation(own) if own == id => return Some(start),
            // Before DWARF 5 the unit's first entry says it.
            UnitType::Compilation if header.version() < 5 => {
                let table = header.debug_abbrev_offset();
                let table = super::units::short_table(dwarf, table).ok()?;
                let mut entries = header.entries_raw(&table, None).ok()?;
                let mut entry = gimli::DebuggingInformationEntry::null();
                let abbreviation = entries.read_abbreviation().ok()??;
                entries.read_attributes(abbreviation.attributes(), &mut entry.attrs).ok()?;
                let own = entry.attr_value(gimli::DW_AT_GNU_dwo_id);
                if matches!(own, Some(AttributeValue::DwoId(own)) if own == id) {
                    return Some(start);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_their_root() {
        for (path, expected) in [
            ("/build/a/../b.dwo", "build/b.dwo"),
            ("../../../etc/b.dwo", "etc/b.dwo"),
            ("/../..", ""),
            ("./a//b.dwo", "a/b.dwo"),
        ] {
            assert_eq!(below(Path::new(path)), Path::new(expected));
        }
    }
}
