//! The files that hold debug information, and their sections.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use gimli::{Dwarf, SectionId};
use object::CompressedData;
use object::elf::{ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD, SHF_COMPRESSED};

use super::bytes::{Bytes, Source};
use super::{LinesError, split};
use crate::inspect::address::FileOffset;
use crate::inspect::debug_file::{self, Lookup};
use crate::inspect::elf::{Module, Section};
use crate::inspect::reads::can_be_packed;

/// What is read. Where values lie is not.
const WANTED: [SectionId; 9] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
];

/// The sections of a module's debug information, and of what `dwz` has shared between several.
pub(super) struct Files {
    pub(super) path: PathBuf,
    /// What the program and its debug file are called.
    pub(super) paths: Vec<PathBuf>,
    /// What absolute paths are meant below.
    pub(super) root: PathBuf,
    pub(super) main: Dwarf<Bytes>,
    pub(super) supplement: Option<Dwarf<Bytes>>,
    sources: Vec<Rc<Source>>,
    unpacked: Unpacked,
}

/// Bytes of sections that had to be unpacked.
struct Unpacked {
    bytes: u64,
    limit: u64,
}

impl Files {
    /// Unpacks no more bytes than that.
    pub(super) fn open(
        module: &Module,
        lookup: Lookup<'_>,
        limit: u64,
    ) -> Result<Option<Self>, LinesError> {
        let has = |module: &Module| {
            module.section(SectionId::DebugInfo.name()).is_some_and(|section| section.size > 0)
        };
        let debug = if has(module) {
            Some(module.again()?)
        } else {
            debug_file::find(module, lookup).map(|(_, debug)| debug).filter(has)
        };
        let Some(debug) = debug else { return Ok(None) };
        let shared = shared(&debug, lookup);
        let path = debug.path().to_owned();
        let mut paths = vec![module.path().to_owned(), module.own_path().to_owned(), path.clone()];
        paths.dedup();
        let (mut unpacked, mut sources) = (Unpacked { bytes: 0, limit }, Vec::new());
        let mut load = |module| load(module, &names(), &mut unpacked, &mut sources);
        let mut main = dwarf(&load(debug)?);
        let shared = shared.map(load).transpose()?;
        let supplement = shared.as_ref().map(dwarf);
        if let Some(sections) = &shared {
            main.set_sup(dwarf(sections));
        }
        let root = lookup.root.to_owned();
        Ok(Some(Self { path, paths, root, main, supplement, sources, unpacked }))
    }

    /// Bytes that are held, without pages.
    pub(super) fn bytes(&self) -> u64 {
        self.unpacked.bytes
    }

    /// Lets go of the pages of files.
    pub(super) fn forget_pages(&self) {
        self.sources.iter().for_each(|source| source.forget_pages());
    }
}

pub(super) type Sections = Vec<(SectionId, Bytes)>;

/// Most bytes of a split unit's file that are unpacked.
const SPLIT_MAX: u64 = 4 << 20;

/// The sections of a split unit's file, or of a package.
pub(super) fn load_split(module: Module) -> Option<Sections> {
    let name = |id: &SectionId| Some((*id, id.dwo_name()?));
    let names: Vec<_> = split::WANTED.iter().filter_map(name).collect();
    let mut unpacked = Unpacked { bytes: 0, limit: SPLIT_MAX };
    load(module, &names, &mut unpacked, &mut Vec::new()).ok()
}

fn names() -> Vec<(SectionId, &'static str)> {
    WANTED.map(|id| (id, id.name())).into()
}

fn dwarf(sections: &Sections) -> Dwarf<Bytes> {
    let load = |id| {
        let found = sections.iter().find(|(known, _)| *known == id);
        Ok::<_, std::convert::Infallible>(found.map_or_else(Bytes::none, |(_, own)| own.clone()))
    };
    match Dwarf::load(load) {
        Ok(dwarf) => dwarf,
        Err(never) => match never {},
    }
}

fn load(
    module: Module,
    names: &[(SectionId, &'static str)],
    unpacked: &mut Unpacked,
    sources: &mut Vec<Rc<Source>>,
) -> Result<Sections, LinesError> {
    let mut plain = Vec::new();
    let mut sections = Vec::new();
    for (id, name) in names.iter().copied() {
        let Some(section) = module.section(name) else { continue };
        if section.flags & SHF_COMPRESSED.0 == 0 {
            plain.push((id, section.offset, section.size));
            continue;
        }
        let bytes = unpack(&module, section, name, unpacked)?;
        let length = bytes.len() as u64;
        sections.push((id, Bytes::new(&Rc::new(Source::Bytes(bytes.into())), 0, length)));
    }
    let source = Rc::new(Source::of(module));
    sources.push(Rc::clone(&source));
    let plain = plain.into_iter().map(|(id, at, size)| (id, Bytes::new(&source, at.0, size)));
    sections.extend(plain);
    Ok(sections)
}

/// Bytes before the packed ones (`Elf64_Chdr`).
const HEAD: u64 = 24;

fn unpack(
    module: &Module,
    section: &Section,
    name: &'static str,
    unpacked: &mut Unpacked,
) -> Result<Vec<u8>, LinesError> {
    let path = || module.path().to_owned();
    let damaged = || LinesError::Packed { path: path(), section: name };
    let what = || name.to_owned();
    let Some(packed_size) = section.size.checked_sub(HEAD) else { return Err(damaged()) };
    let head = module.read_at(section.offset, HEAD, what)?;
    let kind = head.first_chunk().map(|kind| u32::from_le_bytes(*kind));
    let size = head.get(8..16).and_then(|size| size.first_chunk());
    let (Some(kind), Some(size)) = (kind, size) else { return Err(damaged()) };
    let size = u64::from_le_bytes(*size);
    let format = match kind {
        kind if kind == ELFCOMPRESS_ZLIB.0 => object::CompressionFormat::Zlib,
        kind if kind == ELFCOMPRESS_ZSTD.0 => object::CompressionFormat::Zstandard,
        _ => return Err(damaged()),
    };
    // The packed bytes are there meanwhile.
    let (bytes, limit) = (unpacked.bytes.saturating_add(size), unpacked.limit);
    let most = bytes.saturating_add(section.size);
    if !can_be_packed(size, packed_size) {
        return Err(damaged());
    }
    if most > limit {
        return Err(LinesError::TooLong { path: path(), bytes: most, limit });
    }
    unpacked.bytes = bytes;
    let packed = FileOffset(section.offset.0.saturating_add(HEAD));
    let packed = module.read_at(packed, packed_size, what)?;
    let packed = CompressedData { format, data: &packed, uncompressed_size: size };
    let bytes = packed.decompress().map_err(|_| damaged())?.into_owned();
    if bytes.len() as u64 == size { Ok(bytes) } else { Err(damaged()) }
}

/// What `.gnu_debugaltlink` names: a file, and which build of it.
fn shared(debug: &Module, lookup: Lookup<'_>) -> Option<Module> {
    const LINK_MAX: u64 = 8 << 10;
    let section = debug.section(".gnu_debugaltlink").filter(|section| section.size <= LINK_MAX)?;
    let bytes = debug.section_bytes(section).ok()?;
    let end = memchr::memchr(0, &bytes)?;
    let (name, id) = (bytes.get(..end)?, bytes.get(end + 1..)?);
    let name = Path::new(OsStr::from_bytes(name));
    let found = debug_file::supplement(debug.path(), name, id, lookup)?;
    Module::open(&found).ok()
}
