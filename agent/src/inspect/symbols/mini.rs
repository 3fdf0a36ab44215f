//! `.gnu_debugdata`: a small ELF file, packed by xz, with the symbols that `.dynsym` leaves out.

use std::io::{self, Write};

use object::Endianness;
use object::elf::{FileHeader64, SHT_SYMTAB};
use object::read::elf::{FileHeader, SectionHeader};

/// Largest that it unpacks to.
const BYTES_MAX: usize = 128 << 20;

/// The symbol table and its strings.
pub(super) fn tables(packed: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut out = Bounded(Vec::new());
    lzma_rs::xz_decompress(&mut io::Cursor::new(packed), &mut out).ok()?;
    let data = out.0.as_slice();
    let header = FileHeader64::<Endianness>::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.section_headers(endian, data).ok()?;
    let symbols = sections.iter().find(|section| section.sh_type(endian) == SHT_SYMTAB)?;
    let strings = sections.get(usize::try_from(symbols.sh_link(endian)).ok()?)?;
    let bytes = |section: &object::elf::SectionHeader64<Endianness>| {
        section.data(endian, data).ok().map(<[u8]>::to_owned)
    };
    Some((bytes(symbols)?, bytes(strings)?))
}

/// Takes so many bytes and no more.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
