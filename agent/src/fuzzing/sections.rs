//! The sections of a program, in a file whose headers are sound: so that what is in sections can grow and
//! shrink, which would break a file.
//!
//! Layout: sections, each behind its number in [`NAMES`], its length (two bytes) and its address (four).
//! [`ASIDE`] in the number puts it into a second file, which has the debug information of the first one;
//! [`PACKED`] says that it is compressed.

use object::elf;

use super::file::MemoryFile;
use super::input::Input;
use super::program::{self, Program};

/// The section is in the second file.
const ASIDE: u8 = 0x80;
/// The section is compressed, and begins with the header that says how.
const PACKED: u8 = 0x40;

const LOADED: u64 = elf::SHF_ALLOC.0;
const CODE: u64 = LOADED | elf::SHF_EXECINSTR.0;
const DATA: u64 = LOADED | elf::SHF_WRITE.0;
const PLAIN: u32 = elf::SHT_PROGBITS.0;

/// Name, type, flags, and the section it refers to.
const NAMES: [(&str, u32, u64, &str); 33] = [
    (".text", PLAIN, CODE, ""),
    (".plt", PLAIN, CODE, ""),
    (".rodata", PLAIN, LOADED, ""),
    (".data", PLAIN, DATA, ""),
    (".symtab", elf::SHT_SYMTAB.0, 0, ".strtab"),
    (".strtab", elf::SHT_STRTAB.0, 0, ""),
    (".dynsym", elf::SHT_DYNSYM.0, LOADED, ".dynstr"),
    (".dynstr", elf::SHT_STRTAB.0, LOADED, ""),
    (".dynamic", elf::SHT_DYNAMIC.0, DATA, ".dynstr"),
    (".rela.plt", elf::SHT_RELA.0, LOADED, ".dynsym"),
    (".rela.dyn", elf::SHT_RELA.0, LOADED, ".dynsym"),
    (".eh_frame", PLAIN, LOADED, ""),
    (".gcc_except_table", PLAIN, LOADED, ""),
    (".note.stapsdt", elf::SHT_NOTE.0, 0, ""),
    (".stapsdt.base", PLAIN, LOADED, ""),
    (".gnu_debugdata", PLAIN, 0, ""),
    (".gnu_debuglink", PLAIN, 0, ""),
    (".gopclntab", PLAIN, LOADED, ""),
    (".go.buildinfo", PLAIN, DATA, ""),
    (".go.module", PLAIN, DATA, ""),
    (".debug_abbrev", PLAIN, 0, ""),
    (".debug_addr", PLAIN, 0, ""),
    (".debug_info", PLAIN, 0, ""),
    (".debug_line", PLAIN, 0, ""),
    (".debug_line_str", PLAIN, 0, ""),
    (".debug_loc", PLAIN, 0, ""),
    (".debug_loclists", PLAIN, 0, ""),
    (".debug_ranges", PLAIN, 0, ""),
    (".debug_rnglists", PLAIN, 0, ""),
    (".debug_str", PLAIN, 0, ""),
    (".debug_str_offsets", PLAIN, 0, ""),
    (".debug_types", PLAIN, 0, ""),
    (".text.unlikely", PLAIN, CODE, ""),
];

/// Most sections of a file.
const SECTIONS_MAX: usize = 64;

pub(super) fn run(bytes: &[u8]) {
    with(bytes, program::check);
}

/// Makes the files of an input; `None`: the system has no more descriptors.
pub(super) fn with<T>(bytes: &[u8], look: impl FnOnce(&Program<'_>) -> T) -> Option<T> {
    let mut input = Input(bytes);
    let (mut own, mut aside) = (Vec::new(), Vec::new());
    while let Some(section) = Section::read(&mut input) {
        let file = if section.number & ASIDE == 0 { &mut own } else { &mut aside };
        if file.len() < SECTIONS_MAX {
            file.push(section);
        }
    }
    let aside =
        (!aside.is_empty()).then(|| MemoryFile::of(&file(&aside, None))).transpose().ok()?;
    let link = aside.as_ref().map(MemoryFile::name);
    let own = MemoryFile::of(&file(&own, link.as_deref())).ok()?;
    let stack = bytes.get(bytes.len() / 2..).unwrap_or_default();
    let aside = aside.as_ref().map(MemoryFile::path);
    Some(look(&Program { path: &own.path(), aside, stack }))
}

struct Section<'a> {
    number: u8,
    address: u32,
    bytes: &'a [u8],
}

impl<'a> Section<'a> {
    fn read(input: &mut Input<'a>) -> Option<Self> {
        let (number, length) = (input.byte()?, input.short()?);
        let address = u32::from(input.short()?) | u32::from(input.short()?) << 16;
        Some(Self { number, address, bytes: input.up_to(length.into()) })
    }

    fn kind(&self) -> (&'static str, u32, u64, &'static str) {
        let number = usize::from(self.number & !(ASIDE | PACKED));
        NAMES.get(number % NAMES.len()).copied().unwrap_or_default()
    }
}

/// Which build both files are of.
const BUILD: [u8; 8] = *b"one more";

const HEADER: usize = 64;
const SEGMENT: usize = 56;

/// A file with these sections; `link`: with the name of one that has what several share.
fn file(sections: &[Section<'_>], link: Option<&str>) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [4, BUILD.len() as u32, elf::NT_GNU_BUILD_ID.0] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"GNU\0");
    note.extend(BUILD);
    let mut all =
        vec![Header { kind: elf::SHT_NOTE.0, ..Header::new(".note.gnu.build-id", &note) }];
    let link = link.map(|name| [format!("/{name}\0").as_bytes(), &BUILD].concat());
    all.extend(link.as_ref().map(|link| Header::new(".gnu_debugaltlink", link)));
    let first = all.len();
    for section in sections {
        let (name, kind, flags, to) = section.kind();
        let packed = if section.number & PACKED == 0 { 0 } else { elf::SHF_COMPRESSED.0 };
        let to = sections.iter().position(|other| other.kind().0 == to);
        all.push(Header {
            kind,
            flags: flags | packed,
            address: section.address.into(),
            // The first one is nothing.
            link: to.map_or(0, |to| to + first + 1),
            ..Header::new(name, section.bytes)
        });
    }
    write(&all)
}

/// A section and what is said of it.
struct Header<'a> {
    name: &'static str,
    kind: u32,
    flags: u64,
    address: u64,
    link: usize,
    bytes: &'a [u8],
}

impl<'a> Header<'a> {
    fn new(name: &'static str, bytes: &'a [u8]) -> Self {
        Self { name, kind: PLAIN, flags: 0, address: 0, link: 0, bytes }
    }
}

/// Headers, segments, sections, names, and the sections' headers (System V ABI, "Object Files").
fn write(sections: &[Header<'_>]) -> Vec<u8> {
    let loaded = || sections.iter().filter(|section| section.flags & LOADED != 0);
    let mut at = HEADER + SEGMENT * loaded().count();
    let (mut segments, mut headers, mut body) = (Vec::new(), vec![0; HEADER], Vec::new());
    let mut names = vec![0];
    let words = |out: &mut Vec<u8>, words: &[u64]| {
        out.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    };
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    for section in sections {
        let (offset, size) = (at as u64, section.bytes.len() as u64);
        if section.flags & LOADED != 0 {
            let of = |flag: u64, to: u32| if section.flags & flag == 0 { 0 } else { to };
            let write = of(elf::SHF_WRITE.0, elf::PF_W.0);
            let flags = elf::PF_R.0 | write | of(elf::SHF_EXECINSTR.0, elf::PF_X.0);
            let kind = pair(elf::PT_LOAD.0, flags);
            let address = section.address;
            words(&mut segments, &[kind, offset, address, address, size, size, 1]);
        }
        let name = pair(names.len() as u32, section.kind);
        let link = section.link as u64;
        words(&mut headers, &[name, section.flags, section.address, offset, size, link, 1, 0]);
        names.extend(section.name.as_bytes());
        names.push(0);
        body.extend(section.bytes);
        at += section.bytes.len();
    }
    let name = pair(names.len() as u32, elf::SHT_STRTAB.0);
    let own_name = b".shstrtab\0";
    let length = (names.len() + own_name.len()) as u64;
    words(&mut headers, &[name, 0, 0, at as u64, length, 0, 1, 0]);
    names.extend(own_name);
    let table = (at + names.len()) as u64;
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    let numbers = |low: u16, high: u16| u64::from(low) | u64::from(high) << 16;
    let kind = numbers(elf::ET_EXEC.0, elf::EM_X86_64.0) | 1 << 32;
    let sizes = numbers(HEADER as u16, SEGMENT as u16);
    let counts = numbers(loaded().count() as u16, 64);
    let last = numbers(sections.len() as u16 + 2, sections.len() as u16 + 1);
    words(&mut out, &[0, kind, 0, HEADER as u64, table, sizes << 32, counts | last << 32]);
    [out, segments, body, names, headers].concat()
}
