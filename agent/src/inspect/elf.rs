//! One executable or library as a file: its segments and sections, its identity, and reads of it.
//!
//! Everything is read with `pread` into memory of our own: a file that is cut or overwritten while it
//! is looked at gives an error, where a mapping would give `SIGBUS`. No read is larger than a bound.
//! Refuses what is not a regular file and not little-endian x86-64 ELF. Symbols, DWARF and machine code
//! are for others.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use object::elf::{self, FileHeader64, ProgramHeader64, SectionHeader64};
use object::read::elf::{FileHeader, NoteIterator, ProgramHeader, SectionHeader};
use object::{Endianness, ReadRef};

use super::address::{FileOffset, VirtAddr};
use super::reads::Reads;
use super::regular;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// It cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A pipe, a device, a directory.
    #[error("{path} is no regular file")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Its headers are not those of an ELF file.
    #[error("{path} is no ELF file, or a damaged one")]
    NotElf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: object::read::Error,
    },
    /// It is for another processor.
    #[error(
        "{path} is for another processor ({machine}): functions can be traced in 64-bit x86 \
         programs only"
    )]
    Machine {
        /// The file.
        path: PathBuf,
        /// Its processor, by ELF's name or number.
        machine: String,
    },
    /// A part cannot be read.
    #[error("cannot read {what} of {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The part.
        what: String,
        /// What the system said; `UnexpectedEof` of a file that was cut.
        #[source]
        source: io::Error,
    },
    /// A part is larger than what is read.
    #[error("{what} of {path} has {bytes} bytes, more than the {limit} that are read")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The part.
        what: String,
        /// Its size.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
}

/// Largest section that is read whole.
const SECTION_MAX: u64 = 512 << 20;

/// Where everything ends: no program's addresses reach up to there (System V psABI, 3.3.2), and no file.
pub(super) const PLACE_MAX: u64 = 1 << 62;

/// Most sections and program headers that are looked at.
const HEADERS_MAX: usize = 1 << 16;

/// Most bytes of headers, sections' names and notes.
const HEADERS_BYTES: u64 = 32 << 20;

/// A section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Its type (`SHT_…`).
    pub kind: u32,
    /// Its flags (`SHF_…`).
    pub flags: u64,
    /// Where it is loaded; 0 if it is not.
    pub address: VirtAddr,
    /// Where it is in the file.
    pub offset: FileOffset,
    /// Bytes in memory, and in the file unless it is `SHT_NOBITS`.
    pub size: u64,
    /// The section it refers to.
    pub link: usize,
}

impl Section {
    /// Whether it holds machine code.
    pub fn is_code(&self) -> bool {
        self.flags & elf::SHF_EXECINSTR.0 != 0
    }

    /// Whether an address lies in it.
    pub fn holds(&self, address: VirtAddr) -> bool {
        let loaded = self.flags & elf::SHF_ALLOC.0 != 0;
        loaded && address.0.wrapping_sub(self.address.0) < self.size
    }
}

/// A part of the file that is loaded (`PT_LOAD`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it is loaded.
    pub address: VirtAddr,
    /// Where it is in the file.
    pub offset: FileOffset,
    /// Bytes in the file.
    pub file_size: u64,
    /// Whether it is mapped executable.
    pub executable: bool,
    /// Whether it is mapped writable.
    pub writable: bool,
}

/// An open executable or library.
#[derive(Debug)]
pub struct Module {
    path: PathBuf,
    /// What the path was a link to: one below `/proc` goes with its process.
    target: Option<PathBuf>,
    file: File,
    segments: Vec<Segment>,
    sections: Vec<Section>,
    build_id: Option<Vec<u8>>,
}

impl Module {
    /// Opens a file: a plain path, `/proc/PID/exe`, or one below `/proc/PID/root`.
    pub fn open(path: &Path) -> Result<Self, ElfError> {
        let fail = |source| ElfError::Open { path: path.to_owned(), source };
        let Some(file) = regular::open(path).map_err(fail)? else {
            return Err(ElfError::NotAFile { path: path.to_owned() });
        };
        let headers = Headers::read(&Reads::up_to(HEADERS_BYTES, &file));
        let headers = headers
            .map_err(|source| ElfError::NotElf { path: path.to_owned(), source })?
            .map_err(|machine| ElfError::Machine { path: path.to_owned(), machine })?;
        let Headers { segments, sections, build_id } = headers;
        let target = std::fs::read_link(path).ok();
        Ok(Self { path: path.to_owned(), target, file, segments, sections, build_id })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's own path, as far as that is known.
    pub fn own_path(&self) -> &Path {
        self.target.as_deref().unwrap_or(&self.path)
    }

    /// Whether another one is the very same file.
    pub fn is_same_file(&self, other: &Self) -> bool {
        let id = |module: &Self| module.file.metadata().ok().map(|m| (m.dev(), m.ino()));
        id(self).is_some_and(|own| id(other) == Some(own))
    }

    /// The same open file once more.
    ///
    /// # Errors
    /// If there are too many open files.
    pub fn again(&self) -> Result<Self, ElfError> {
        let file = self
            .file
            .try_clone()
            .map_err(|source| ElfError::Open { path: self.path.clone(), source })?;
        let Self { path, target, segments, sections, build_id, .. } = self;
        Ok(Self {
            path: path.clone(),
            target: target.clone(),
            file,
            segments: segments.clone(),
            sections: sections.clone(),
            build_id: build_id.clone(),
        })
    }

    /// What the system says of the file, at this moment.
    ///
    /// # Errors
    /// If it says nothing.
    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// Bytes of the whole file, at this moment.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn file_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// What the linker called this very build, if it did (`NT_GNU_BUILD_ID`).
    pub fn build_id(&self) -> Option<&[u8]> {
        self.build_id.as_deref()
    }

    /// Its sections.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// A section by its name.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// What is loaded of it.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Where an address is in the file; only of code, which is what probes are for.
    pub fn code_offset(&self, address: VirtAddr) -> Option<FileOffset> {
        let segment = self.segments.iter().find(|s| s.executable && in_file(s, address))?;
        Some(FileOffset(address.0 - segment.address.0 + segment.offset.0))
    }

    /// Where an address is in the file, whatever is there.
    pub fn file_offset(&self, address: VirtAddr) -> Option<FileOffset> {
        let segment = self.segment_of(address)?;
        Some(FileOffset(address.0 - segment.address.0 + segment.offset.0))
    }

    /// Which address of code an offset of the file is loaded at.
    pub fn code_address(&self, offset: FileOffset) -> Option<VirtAddr> {
        let within = |s: &&Segment| offset.0.wrapping_sub(s.offset.0) < s.file_size;
        let segment = self.segments.iter().filter(|s| s.executable).find(within)?;
        Some(VirtAddr(offset.0 - segment.offset.0 + segment.address.0))
    }

    /// The segment that an address is loaded with.
    pub fn segment_of(&self, address: VirtAddr) -> Option<&Segment> {
        self.segments.iter().find(|segment| in_file(segment, address))
    }

    /// At most `length` bytes at an address, as the file has them; fewer at the end of what is loaded.
    pub fn read(&self, address: VirtAddr, length: usize) -> Result<Vec<u8>, ElfError> {
        let Some(segment) = self.segment_of(address) else { return Ok(Vec::new()) };
        let skipped = address.0 - segment.address.0;
        let length = (length as u64).min(segment.file_size - skipped);
        let offset = FileOffset(segment.offset.0 + skipped);
        self.read_at(offset, length, || format!("{length} bytes at {:#x}", address.0))
    }

    /// The bytes of a section; none of one that has none in the file.
    pub fn section_bytes(&self, section: &Section) -> Result<Vec<u8>, ElfError> {
        if section.kind == elf::SHT_NOBITS.0 {
            return Ok(Vec::new());
        }
        self.read_at(section.offset, section.size, || section.name.clone())
    }

    /// A run of bytes of the file.
    pub fn read_at(
        &self,
        offset: FileOffset,
        length: u64,
        what: impl Fn() -> String,
    ) -> Result<Vec<u8>, ElfError> {
        let fail = |source| ElfError::Read { path: self.path.clone(), what: what(), source };
        // Before memory is taken for what is not there.
        let there = self.file.metadata().map_err(fail)?.len();
        if offset.0.checked_add(length).is_none_or(|end| end > there) {
            return Err(fail(io::ErrorKind::UnexpectedEof.into()));
        }
        if length > SECTION_MAX {
            let (what, limit) = (what(), SECTION_MAX);
            return Err(ElfError::TooLarge { path: self.path.clone(), what, bytes: length, limit });
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut bytes, offset.0).map_err(fail)?;
        Ok(bytes)
    }
}

fn in_file(segment: &Segment, address: VirtAddr) -> bool {
    address.0.wrapping_sub(segment.address.0) < segment.file_size
}

/// What the headers say.
struct Headers {
    segments: Vec<Segment>,
    sections: Vec<Section>,
    build_id: Option<Vec<u8>>,
}

impl Headers {
    /// The inner error is the name of another processor.
    fn read<'data, R: ReadRef<'data>>(data: R) -> object::read::Result<Result<Self, String>> {
        let header = match FileHeader64::<Endianness>::parse(data) {
            Ok(header) => header,
            Err(error) => {
                // A 32-bit file is ELF all the same.
                let class = data.read_bytes_at(4, 1).ok().and_then(|class| class.first().copied());
                let magic = data.read_bytes_at(0, 4).unwrap_or_default() == elf::ELFMAG;
                let narrow = magic && class == Some(elf::ELFCLASS32.0);
                return if narrow { Ok(Err("32-bit".to_owned())) } else { Err(error) };
            }
        };
        let endian = header.endian()?;
        let machine = header.e_machine(endian);
        if machine != elf::EM_X86_64 || endian != Endianness::Little {
            return Ok(Err(machine_name(machine)));
        }
        let phnum = usize::try_from(header.phnum(endian, data)?).unwrap_or(usize::MAX);
        let shnum = usize::try_from(header.shnum(endian, data)?).unwrap_or(usize::MAX);
        let (mut segments, mut sections, mut build_id) = (Vec::new(), Vec::new(), None);
        if phnum <= HEADERS_MAX {
            for program in header.program_headers(endian, data)? {
                segments.extend(segment(program, endian));
                if let Ok(Some(notes)) = program.notes(endian, data) {
                    build_id = build_id.or_else(|| find_build_id(notes, endian));
                }
            }
        }
        if shnum <= HEADERS_MAX {
            let table = header.sections(endian, data)?;
            for header in table.iter() {
                let name = table.section_name(endian, header).unwrap_or_default();
                sections.push(section(name, header, endian));
                if let Ok(Some(notes)) = header.notes(endian, data) {
                    build_id = build_id.or_else(|| find_build_id(notes, endian));
                }
            }
        }
        Ok(Ok(Self { segments, sections, build_id }))
    }
}

fn segment(program: &ProgramHeader64<Endianness>, endian: Endianness) -> Option<Segment> {
    let flags = program.p_flags(endian);
    let (address, offset) = (program.p_vaddr(endian), program.p_offset(endian));
    let file_size = program.p_filesz(endian);
    let is_loaded = program.p_type(endian) == elf::PT_LOAD && is_sound(address, offset, file_size);
    is_loaded.then_some(Segment {
        address: VirtAddr(address),
        offset: FileOffset(offset),
        file_size,
        executable: flags.0 & elf::PF_X.0 != 0,
        writable: flags.0 & elf::PF_W.0 != 0,
    })
}

fn section(name: &[u8], header: &SectionHeader64<Endianness>, endian: Endianness) -> Section {
    let (address, offset) = (header.sh_addr(endian), header.sh_offset(endian));
    let size = header.sh_size(endian);
    // Others refer to it by its number.
    let is_sound = is_sound(address, offset, size);
    let (address, offset, size) = if is_sound { (address, offset, size) } else { (0, 0, 0) };
    Section {
        name: String::from_utf8_lossy(name).into_owned(),
        kind: header.sh_type(endian).0,
        flags: header.sh_flags(endian).0,
        address: VirtAddr(address),
        offset: FileOffset(offset),
        size,
        link: usize::try_from(header.sh_link(endian)).unwrap_or(usize::MAX),
    }
}

/// Whether something may lie there, in memory and in the file, so that sums of its places are exact.
fn is_sound(address: u64, offset: u64, size: u64) -> bool {
    [address, offset].iter().all(|at| at.checked_add(size).is_some_and(|end| end <= PLACE_MAX))
}

/// `NT_GNU_BUILD_ID`; in practice 8 to 32 bytes.
fn find_build_id(
    mut notes: NoteIterator<'_, FileHeader64<Endianness>>,
    endian: Endianness,
) -> Option<Vec<u8>> {
    const BYTES_MAX: usize = 64;
    while let Ok(Some(note)) = notes.next() {
        if note.name() == elf::ELF_NOTE_GNU && note.n_type(endian) == elf::NT_GNU_BUILD_ID {
            let id = note.desc();
            return (id.len() <= BYTES_MAX).then(|| id.to_owned());
        }
    }
    None
}

fn machine_name(machine: elf::Machine) -> String {
    let name = match machine {
        elf::EM_386 => "32-bit x86",
        elf::EM_AARCH64 => "AArch64",
        elf::EM_ARM => "ARM",
        elf::EM_RISCV => "RISC-V",
        elf::EM_PPC64 => "PowerPC",
        elf::EM_S390 => "s390",
        elf::EM_X86_64 => "big-endian x86-64",
        other => return format!("ELF machine {}", other.0),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests;
