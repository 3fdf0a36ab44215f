//! The sections of a file that hold debug information, and the files that hold it for another.
//! Reads files; knows nothing of what the sections say.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use gimli::{EndianSlice, LittleEndian, SectionId};
use object::{CompressedData, Object, ObjectSection, ObjectSegment, ObjectSymbol};

use crate::inspect::address::VirtAddr;
use crate::inspect::debug_file::{self, DebugFile, Lookup};
use crate::inspect::elf::Module;
use crate::inspect::reads::{Reads, can_be_packed};
use crate::inspect::regular;

/// What a section is read through.
pub(super) type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Longest section, unpacked. A file can claim any size.
const SECTION_BYTES_MAX: u64 = 1 << 30;

/// Most bytes of all sections of a program, unpacked.
const BYTES_MAX: u64 = 2 << 30;

/// Most bytes of a file's headers and symbols.
const SYMBOLS_BYTES_MAX: u64 = 1 << 30;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there, or may not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no ELF file, or a damaged one.
    #[error("{} is not an executable that can be read", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: object::Error,
    },
    /// A section is longer than any that makes sense.
    #[error("{}: section {section} is too long", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The section.
        section: &'static str,
    },
    /// All of it is.
    #[error("{}: there is too much debug information", path.display())]
    TooMuch {
        /// The file.
        path: PathBuf,
    },
}

/// The debug sections of one file, unpacked.
#[derive(Default)]
pub(super) struct Sections {
    held: Vec<(SectionId, Vec<u8>)>,
}

impl Sections {
    /// A section's bytes; none if there is no such section.
    pub(super) fn slice(&self, id: SectionId) -> Slice<'_> {
        let found = self.held.iter().find(|(held, _)| *held == id);
        EndianSlice::new(found.map_or(&[], |(_, bytes)| bytes), LittleEndian)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slice(SectionId::DebugInfo).is_empty()
    }

    /// The sections, to be spoiled.
    #[cfg(test)]
    pub(super) fn bytes_mut(&mut self) -> &mut Vec<(SectionId, Vec<u8>)> {
        &mut self.held
    }
}

/// Sections that are used. Line tables are, for the names of files.
const WANTED: [SectionId; 12] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugLoc,
    SectionId::DebugLocLists,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
    SectionId::DebugTypes,
];

/// Everything that is taken from the files of one program or library.
pub(super) struct Loaded {
    pub(super) sections: Sections,
    /// What `.gnu_debugaltlink` names.
    pub(super) supplement: Option<Sections>,
    pub(super) code: Code,
    pub(super) symbols: Symbols,
}

/// What symbols tell that debug information does not.
#[derive(Default)]
pub(super) struct Symbols {
    /// Functions that the optimiser made of others, by their symbol's suffix.
    pub(super) clones: Vec<VirtAddr>,
    /// Functions that other objects may call.
    pub(super) global: Vec<VirtAddr>,
    /// Where Go's runtime keeps its types, if the program does not move in memory.
    pub(super) go_types: Option<u64>,
}

/// Loads what is said about a program: in itself, or in the file that distributions put aside.
pub(super) fn load(path: &Path, lookup: Lookup<'_>) -> Result<Loaded, FileError> {
    let mut room = BYTES_MAX;
    let file = open(path)?;
    let reads = Reads::up_to(SYMBOLS_BYTES_MAX, &file);
    let elf = parse(path, &reads)?;
    let code = Code::of(&elf, open(path)?);
    let mut sections = read(path, &file, &elf, &mut room)?;
    let mut symbols = Symbols::default();
    symbols.read(&elf);
    let mut supplement = supplement_of(path, &elf, lookup, &mut room)?;
    if sections.is_empty()
        && let Ok(module) = Module::open(path)
        && let Some((DebugFile { path: aside }, _)) = debug_file::find(&module, lookup)
    {
        let file = open(&aside)?;
        let reads = Reads::up_to(SYMBOLS_BYTES_MAX, &file);
        let elf = parse(&aside, &reads)?;
        sections = read(&aside, &file, &elf, &mut room)?;
        supplement = supplement_of(&aside, &elf, lookup, &mut room)?;
        symbols.read(&elf);
    }
    symbols.clones.sort_unstable();
    symbols.global.sort_unstable();
    if elf.kind() == object::ObjectKind::Dynamic {
        symbols.go_types = None;
    }
    Ok(Loaded { sections, supplement, code, symbols })
}

fn open(path: &Path) -> Result<File, FileError> {
    regular::must_open(path).map_err(|source| FileError::Read { path: path.to_owned(), source })
}

type Elf<'a> = object::File<'a, &'a Reads<&'a File>>;

fn parse<'a>(path: &Path, reads: &'a Reads<&'a File>) -> Result<Elf<'a>, FileError> {
    object::File::parse(reads).map_err(|source| FileError::Format { path: path.to_owned(), source })
}

/// Reads the sections, each in one piece and not through what keeps a second copy; no more than there is
/// room for.
fn read(path: &Path, file: &File, elf: &Elf<'_>, room: &mut u64) -> Result<Sections, FileError> {
    let mut held = Vec::new();
    for id in WANTED {
        let format = |source| FileError::Format { path: path.to_owned(), source };
        let Some(section) = elf.section_by_name(id.name()) else { continue };
        let range = section.compressed_file_range().map_err(format)?;
        let is_sound = can_be_packed(range.uncompressed_size, range.compressed_size);
        if !is_sound || range.compressed_size.max(range.uncompressed_size) > SECTION_BYTES_MAX {
            return Err(FileError::TooLong { path: path.to_owned(), section: id.name() });
        }
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        if range.offset.saturating_add(range.compressed_size) > length {
            continue;
        }
        let left = room.checked_sub(range.compressed_size.max(range.uncompressed_size));
        *room = left.ok_or_else(|| FileError::TooMuch { path: path.to_owned() })?;
        let mut bytes = vec![0; range.compressed_size as usize];
        file.read_exact_at(&mut bytes, range.offset)
            .map_err(|source| FileError::Read { path: path.to_owned(), source })?;
        let packed = CompressedData {
            format: range.format,
            data: &bytes,
            uncompressed_size: range.uncompressed_size,
        };
        if let std::borrow::Cow::Owned(unpacked) = packed.decompress().map_err(format)? {
            bytes = unpacked;
        }
        held.push((id, bytes));
    }
    Ok(Sections { held })
}

/// What `dwz` shared between files.
fn supplement_of(
    path: &Path,
    elf: &Elf<'_>,
    lookup: Lookup<'_>,
    room: &mut u64,
) -> Result<Option<Sections>, FileError> {
    let Ok(Some((name, id))) = elf.gnu_debugaltlink() else { return Ok(None) };
    let name = Path::new(OsStr::from_bytes(name));
    let Some(found) = debug_file::supplement(path, name, id, lookup) else { return Ok(None) };
    let file = open(&found)?;
    let reads = Reads::up_to(SYMBOLS_BYTES_MAX, &file);
    let elf = parse(&found, &reads)?;
    read(&found, &file, &elf, room).map(Some)
}

/// Suffixes of the symbols of functions whose signature GCC changed, or took apart.
const CLONES: [&[u8]; 3] = [b".constprop.", b".isra.", b".part."];

impl Symbols {
    fn read(&mut self, elf: &Elf<'_>) {
        for symbol in elf.symbols().chain(elf.dynamic_symbols()) {
            let Ok(name) = symbol.name_bytes() else { continue };
            let address = VirtAddr(symbol.address());
            if symbol.kind() == object::SymbolKind::Text && !symbol.is_undefined() {
                if CLONES.iter().any(|suffix| memchr::memmem::find(name, suffix).is_some()) {
                    self.clones.push(address);
                } else if symbol.is_global() || symbol.is_weak() {
                    self.global.push(address);
                }
            } else if name == b"runtime.types" {
                self.go_types = Some(address.0);
            }
        }
    }
}

/// The machine code of a program, read as needed.
pub(super) struct Code {
    file: File,
    /// Address, offset, bytes.
    segments: Vec<(u64, u64, u64)>,
}

impl Code {
    fn of(elf: &Elf<'_>, file: File) -> Self {
        let segments = elf
            .segments()
            .map(|segment| {
                let (offset, bytes) = segment.file_range();
                (segment.address(), offset, bytes)
            })
            .collect();
        Self { file, segments }
    }

    /// At most `length` bytes at an address.
    pub(super) fn at(&self, address: VirtAddr, length: usize) -> Vec<u8> {
        let segment = self.segments.iter().find(|(start, _, bytes)| {
            address.0.checked_sub(*start).is_some_and(|inside| inside < *bytes)
        });
        let Some((start, offset, bytes)) = segment else { return Vec::new() };
        let inside = address.0 - start;
        let mut code = vec![0; length.min((bytes - inside) as usize)];
        let Some(at) = offset.checked_add(inside) else { return Vec::new() };
        match self.file.read_at(&mut code, at) {
            Ok(read) => code.truncate(read),
            Err(_) => code.clear(),
        }
        code
    }
}
