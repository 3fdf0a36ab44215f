//! `.gnu_debugdata`: a small ELF file, packed by xz, with the symbols that `.dynsym` leaves out.

use std::io::Read;

use lzma_rust2::XzReader;
use object::Endianness;
use object::elf::{FileHeader64, SHT_SYMTAB};
use object::read::elf::{FileHeader, SectionHeader};

/// Largest that it unpacks to.
const BYTES_MAX: u64 = 128 << 20;

/// Most memory that unpacking takes beside that: what may be referred to of what was unpacked.
const DICTIONARY_KIB_MAX: u32 = 192 << 10;

/// The symbol table and its strings.
pub(super) fn tables(packed: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let data = unpack(packed, BYTES_MAX)?;
    let data = data.as_slice();
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

/// Bytes that are no more than that; they are counted while they are unpacked, as a few of them may unpack
/// to any number.
fn unpack(packed: &[u8], most: u64) -> Option<Vec<u8>> {
    let mut reader = XzReader::new_mem_limit(packed, false, DICTIONARY_KIB_MAX).take(most + 1);
    let mut unpacked = Vec::new();
    reader.read_to_end(&mut unpacked).ok()?;
    (unpacked.len() as u64 <= most).then_some(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `xz` of 65,536 zeros.
    const ZEROS: [u8; 140] = [
        0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 0, 4, 0xe6, 0xd6, 0xb4, 0x46, 2, 0, 0x21, 1, 0x16, 0, 0,
        0, 0x74, 0x2f, 0xe5, 0xa3, 0xe0, 0xff, 0xff, 0, 0x4c, 0x5d, 0, 0, 0x6f, 0xfd, 0xff, 0xff,
        0xa3, 0xb7, 0xff, 0x47, 0x3e, 0x48, 0x15, 0x72, 0x39, 0x61, 0x51, 0xb8, 0x92, 0x28, 0xe6,
        0xa3, 0x86, 7, 0xf9, 0xee, 0xe4, 0x1e, 0x82, 0xd3, 0x2f, 0xc5, 0x3a, 0x3c, 1, 0x4b, 0xb1,
        0x7e, 0xc9, 0x8a, 0x8a, 0x4d, 0x2f, 0xa3, 0x0d, 0xd9, 0x7f, 0xa6, 0xe3, 0x8c, 0x23, 0x11,
        0x53, 0xe0, 0x59, 0x18, 0xc5, 0x75, 0x8a, 0xe2, 0x77, 0xf8, 0xb6, 0x94, 0x7f, 0x0c, 0x6a,
        0xc0, 0xde, 0x74, 0x49, 0x64, 0x5c, 0x9e, 0x3a, 0xd1, 0, 0, 0x5e, 0x65, 0x4f, 0x49, 0xca,
        9, 0xaf, 0x26, 0, 1, 0x68, 0x80, 0x80, 4, 0, 0, 0x9f, 0xf7, 0x44, 0x7c, 0xb1, 0xc4, 0x67,
        0xfb, 2, 0, 0, 0, 0, 4, 0x59, 0x5a,
    ];

    #[test]
    fn no_more_is_unpacked_than_is_wanted() {
        assert_eq!(unpack(&ZEROS, 1 << 16), Some(vec![0; 1 << 16]));
        assert_eq!(unpack(&ZEROS, (1 << 16) - 1), None);
        for length in 0..ZEROS.len() {
            assert_eq!(unpack(&ZEROS[..length], 1 << 16), None, "{length}");
        }
    }
}
