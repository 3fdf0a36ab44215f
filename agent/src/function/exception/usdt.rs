//! Static tracepoints that runtimes have for exceptions: `.note.stapsdt` of SystemTap's `sys/sdt.h`.

use agent_common::function::register;

use super::code::Code;
use crate::function::site::{CostClass, Site, SiteKind};
use crate::inspect::address::{FileOffset, VirtAddr};
use crate::inspect::elf::{Module, Section};

/// A static tracepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tracepoint {
    /// The instruction.
    pub(super) site: Site,
    /// Where its semaphore lies in the file: the runtime gathers what it tells only while that is not 0.
    pub(super) semaphore: Option<FileOffset>,
    /// Its arguments.
    pub(super) arguments: Vec<Argument>,
}

/// Where an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Argument {
    /// In a register.
    Register(u8),
    /// In memory, so far from where a register points.
    Memory {
        /// The register.
        base: u8,
        /// The distance.
        offset: i32,
        /// How many bytes.
        bytes: u16,
    },
}

/// The tracepoints with this name.
pub(super) fn find(module: &Module, provider: &str, name: &str) -> Vec<Tracepoint> {
    let Some(section) = module.section(".note.stapsdt") else { return Vec::new() };
    let Ok(notes) = module.section_bytes(section) else { return Vec::new() };
    let base = module.section(".stapsdt.base").map(|base| base.address);
    let mut found = Vec::new();
    let mut rest = notes.as_slice();
    while let Some((note, behind)) = note(rest) {
        rest = behind;
        if note.provider == provider.as_bytes() && note.name == name.as_bytes() {
            found.extend(tracepoint(module, &note, base));
        }
    }
    found
}

struct Note<'a> {
    address: u64,
    base: u64,
    semaphore: u64,
    provider: &'a [u8],
    name: &'a [u8],
    arguments: &'a [u8],
}

/// The first note, and what is behind it.
fn note(notes: &[u8]) -> Option<(Note<'_>, &[u8])> {
    let word = |at: usize| {
        let bytes = notes.get(at..)?.first_chunk()?;
        usize::try_from(u32::from_le_bytes(*bytes)).ok()
    };
    let (name_bytes, bytes) = (word(0)?, word(4)?);
    let from = 12usize.checked_add(name_bytes.checked_next_multiple_of(4)?)?;
    let description = notes.get(from..)?.get(..bytes)?;
    let behind = notes.get(from..)?.get(bytes.next_multiple_of(4)..)?;
    let number =
        |index: usize| Some(u64::from_le_bytes(*description.get(8 * index..)?.first_chunk()?));
    let mut texts = description.get(24..)?.split(|byte| *byte == 0);
    let note = Note {
        address: number(0)?,
        base: number(1)?,
        semaphore: number(2)?,
        provider: texts.next()?,
        name: texts.next()?,
        arguments: texts.next()?,
    };
    Some((note, behind))
}

fn tracepoint(module: &Module, note: &Note<'_>, base: Option<VirtAddr>) -> Option<Tracepoint> {
    // Prelinked since it was written.
    let moved = base.map_or(0, |base| base.0.wrapping_sub(note.base));
    let address = VirtAddr(note.address.wrapping_add(moved));
    // Of several bytes it would not be emulated, or worse.
    if module.read(address, 1).ok()?.first() != Some(&NOP) {
        return None;
    }
    let semaphore = match note.semaphore {
        0 => None,
        semaphore => Some(data_offset(module, VirtAddr(semaphore.wrapping_add(moved)))?),
    };
    let arguments = std::str::from_utf8(note.arguments).ok()?;
    let arguments = arguments.split_ascii_whitespace().map(argument).collect::<Option<_>>()?;
    let site = Site {
        address,
        offset: module.code_offset(address)?,
        kind: SiteKind::Event,
        sp_adjust: 0,
        cost: CostClass::Emulated,
    };
    Some(Tracepoint { site, semaphore, arguments })
}

const NOP: u8 = 0x90;

/// Where data is in the file.
fn data_offset(module: &Module, address: VirtAddr) -> Option<FileOffset> {
    let holds = |section: &&Section| section.holds(address);
    let section = module.sections().iter().find(holds)?;
    Some(FileOffset(address.0 - section.address.0 + section.offset.0))
}

/// An argument, as `8@%rax` or `-4@100(%rsp)`: its size and where it is.
fn argument(text: &str) -> Option<Argument> {
    let (size, place) = text.split_once('@')?;
    let bytes = size.trim_start_matches('-').parse().ok()?;
    if let Some(name) = place.strip_prefix('%') {
        return number(name).map(Argument::Register);
    }
    let (offset, base) = place.strip_suffix(')')?.split_once("(%")?;
    let offset = if offset.is_empty() { 0 } else { offset.parse().ok()? };
    Some(Argument::Memory { base: number(base)?, offset, bytes })
}

/// DWARF's number of a whole register.
fn number(name: &str) -> Option<u8> {
    const NAMES: [(&str, u8); 8] = [
        ("rax", register::RAX),
        ("rdx", register::RDX),
        ("rcx", register::RCX),
        ("rbx", register::RBX),
        ("rsi", register::RSI),
        ("rdi", register::RDI),
        ("rbp", register::RBP),
        ("rsp", register::RSP),
    ];
    let known = NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    known.or_else(|| name.strip_prefix('r')?.parse().ok().filter(|number| (8..16).contains(number)))
}

impl Argument {
    /// Puts it into the accumulator.
    pub(super) fn load(self, code: &mut Code) {
        match self {
            Self::Register(register) => {
                code.register(register);
            }
            Self::Memory { base, offset, bytes } => {
                code.register(base).load(offset, bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        for (text, expected) in [
            ("8@%rax", Some(Argument::Register(register::RAX))),
            ("8@%r12", Some(Argument::Register(12))),
            ("-4@100(%rsp)", Some(Argument::Memory { base: 7, offset: 100, bytes: 4 })),
            ("8@-8(%rbp)", Some(Argument::Memory { base: 6, offset: -8, bytes: 8 })),
            ("8@(%rdi)", Some(Argument::Memory { base: 5, offset: 0, bytes: 8 })),
            ("4@%eax", None),
            ("8@8(%rax,%rbx,2)", None),
            ("8@$7", None),
            ("", None),
        ] {
            assert_eq!(argument(text), expected, "{text}");
        }
    }

    #[test]
    fn damaged_notes_end() {
        let mut notes = Vec::new();
        notes.extend_from_slice(&8u32.to_le_bytes());
        notes.extend_from_slice(&40u32.to_le_bytes());
        notes.extend_from_slice(&3u32.to_le_bytes());
        notes.extend_from_slice(b"stapsdt\0");
        for word in [0x10u64, 0x20, 0x30] {
            notes.extend_from_slice(&word.to_le_bytes());
        }
        notes.extend_from_slice(b"ruby\0raise\08@%rax\0\0");
        let whole = note(&notes).map(|(note, _)| (note.address, note.name.to_owned()));
        assert_eq!(whole, Some((0x10, b"raise".to_vec())));
        for length in 0..notes.len() - 4 {
            assert!(note(&notes[..length]).is_none(), "{length}");
        }
        notes[0] = 0xff;
        notes[3] = 0xff;
        assert!(note(&notes).is_none());
    }
}
