//! What the loader writes into the slots that calls go through.

use std::collections::HashMap;

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
}

/// Most bytes of relocations.
const RELOCATIONS_BYTES_MAX: u64 = 256 << 20;

impl Imports {
    pub(super) fn read(module: &Module, room: &mut Room) -> Result<Self, ElfError> {
        let mut imports =
            Self { names: HashMap::new(), targets: HashMap::new(), strings: Strings(Vec::new()) };
        let Some(dynsym) = module.section(".dynsym") else { return Ok(imports) };
        if let Some(strings) = module.sections().get(dynsym.link) {
            imports.strings = Strings(room.read(module, strings)?);
        }
        let symbols = room.read(module, dynsym)?;
        // What is kept of them takes as much again.
        let mut room = Room::of(RELOCATIONS_BYTES_MAX);
        for section in module.sections().iter().filter(|section| section.kind == elf::SHT_RELA.0) {
            for entry in room.read(module, section)?.as_chunks::<24>().0 {
                imports.add(entry, &symbols);
            }
        }
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

    pub(super) fn name(&self, slot: VirtAddr) -> Option<&str> {
        self.strings.at(*self.names.get(&slot.0)?)
    }

    pub(super) fn target(&self, slot: VirtAddr) -> Option<VirtAddr> {
        self.targets.get(&slot.0).map(|target| VirtAddr(*target))
    }
}
