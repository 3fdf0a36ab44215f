//! What the loader writes: into the slots that calls go through, and where into code.

use std::collections::HashMap;
use std::ops::Range;

use object::elf;

use super::table::{Room, Strings};
use crate::inspect::address::VirtAddr;
use crate::inspect::elf::{ElfError, Module, PLACE_MAX};

/// Functions by the slot of the global offset table that they are called through.
#[derive(Debug)]
pub(super) struct Imports {
    names: HashMap<u64, u32>,
    targets: HashMap<u64, u64>,
    strings: Strings,
    /// Where it writes into code, in order.
    code: Vec<u64>,
}

/// Most bytes that a relocation writes, but for a symbol's copy, which goes into no code.
const WRITTEN_MAX: u64 = 8;

/// Most bytes of relocations.
const RELOCATIONS_BYTES_MAX: u64 = 256 << 20;

impl Imports {
    pub(super) fn read(module: &Module, room: &mut Room) -> Result<Self, ElfError> {
        let mut imports = Self {
            names: HashMap::new(),
            targets: HashMap::new(),
            strings: Strings(Vec::new()),
            code: Vec::new(),
        };
        let Some(dynsym) = module.section(".dynsym") else { return Ok(imports) };
        if let Some(strings) = module.sections().get(dynsym.link) {
            imports.strings = Strings(room.read(module, strings)?);
        }
        let symbols = room.read(module, dynsym)?;
        let is_code =
            |slot: u64| module.segment_of(VirtAddr(slot)).is_some_and(|segment| segment.executable);
        // What is kept of them takes as much again.
        let mut room = Room::of(RELOCATIONS_BYTES_MAX);
        for section in module.sections().iter().filter(|section| section.kind == elf::SHT_RELA.0) {
            // What a linker was asked to leave behind (`--emit-relocs`) no loader looks at.
            let is_loaded = section.flags & elf::SHF_ALLOC.0 != 0;
            for entry in room.read(module, section)?.as_chunks::<24>().0 {
                imports.add(entry, &symbols);
                let slot = entry.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                if is_loaded && is_code(slot) {
                    imports.code.push(slot);
                }
            }
        }
        for section in module.sections().iter().filter(|section| section.kind == elf::SHT_RELR.0) {
            let packed = room.read(module, section)?;
            let words = packed.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
            imports.code.extend(unpacked(words).filter(|slot| is_code(*slot)));
        }
        imports.code.sort_unstable();
        Ok(imports)
    }

    /// An `Elf64_Rela`: offset, info (symbol, type), addend.
    fn add(&mut self, entry: &[u8; 24], symbols: &[u8]) -> Option<()> {
        let word = |at: usize| Some(u64::from_le_bytes(*entry.get(at..)?.first_chunk()?));
        let (slot, info, addend) = (word(0)?, word(8)?, word(16)?);
        match elf::RelocationType((info & 0xffff_ffff) as u32) {
            elf::R_X86_64_RELATIVE => {
                self.lead(slot, addend);
            }
            elf::R_X86_64_JUMP_SLOT | elf::R_X86_64_GLOB_DAT => {
                let at = usize::try_from(info >> 32).ok()?.checked_mul(24)?;
                let symbol = symbols.get(at..)?.first_chunk::<24>()?;
                let value = u64::from_le_bytes(*symbol.get(8..)?.first_chunk()?);
                if value == 0 {
                    self.names.insert(slot, u32::from_le_bytes(*symbol.first_chunk()?));
                } else {
                    self.lead(slot, value);
                }
            }
            _ => {}
        }
        Some(())
    }

    /// To nothing that is no address.
    fn lead(&mut self, slot: u64, target: u64) {
        if target < PLACE_MAX {
            self.targets.insert(slot, target);
        }
    }

    /// Whether the loader writes into some of these bytes of code.
    pub(super) fn writes_into(&self, code: &Range<VirtAddr>) -> bool {
        let from = code.start.0.saturating_sub(WRITTEN_MAX - 1);
        let first = self.code.partition_point(|slot| *slot < from);
        self.code.get(first).is_some_and(|slot| *slot < code.end.0)
    }

    pub(super) fn name(&self, slot: VirtAddr) -> Option<&str> {
        self.strings.at(*self.names.get(&slot.0)?)
    }

    pub(super) fn target(&self, slot: VirtAddr) -> Option<VirtAddr> {
        self.targets.get(&slot.0).map(|target| VirtAddr(*target))
    }
}

/// The places that packed relative relocations are of (`SHT_RELR` of the generic ABI): an even word is one,
/// and each bit of an odd one but its lowest says whether one of the next 63 words is, too.
fn unpacked(words: impl Iterator<Item = u64>) -> impl Iterator<Item = u64> {
    let mut next = 0_u64;
    words.flat_map(move |word| {
        let (first, bits) = match word & 1 {
            0 => (word, 1),
            _ => (next, word >> 1),
        };
        next = first.wrapping_add(if word & 1 == 0 { 8 } else { 63 * 8 });
        (0..63).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| first.wrapping_add(bit * 8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_places_are_unpacked() {
        for (words, expected) in [
            (&[][..], &[][..]),
            (&[0x1000], &[0x1000]),
            // The word behind it, and the one after the next.
            (&[0x1000, 0b1011], &[0x1000, 0x1008, 0x1018]),
            // The last that a bitmap tells of, and the first of the next one.
            (&[0x1000, 1 << 63 | 1, 0b11], &[0x1000, 0x1008 + 62 * 8, 0x1008 + 63 * 8]),
            (&[0x1000, 1, 0x3000, 3], &[0x1000, 0x3000, 0x3008]),
        ] {
            let places: Vec<u64> = unpacked(words.iter().copied()).collect();
            assert_eq!(places, expected, "{words:x?}");
        }
    }

    #[test]
    fn what_is_written_into_is_told_by_any_byte() {
        let imports = Imports {
            names: HashMap::new(),
            targets: HashMap::new(),
            strings: Strings(Vec::new()),
            code: vec![0x100, 0x200],
        };
        for (code, expected) in [
            (0xf0..0x100, false),
            (0xf0..0x101, true),
            (0x107..0x109, true),
            (0x108..0x200, false),
            (0x207..0x300, true),
            (0x208..0x300, false),
        ] {
            let range = VirtAddr(code.start)..VirtAddr(code.end);
            assert_eq!(imports.writes_into(&range), expected, "{code:x?}");
        }
    }
}
