//! Code that a process has changed in its memory: under a probe the kernel runs what the file has there, so
//! none goes where the two differ.
//!
//! Looked at when probes come. What is changed under a probe that stands is not noticed.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::file::{FileId, Mapped};
use crate::discover::maps::{self, Mapping};
use crate::discover::process;
use crate::event::ids::Tgid;
use crate::function::FunctionNo;
use crate::inspect::code;

/// Bytes of a page, of whatever size it is mapped in (x86-64).
const PAGE: u64 = 4096;

/// Most bytes of an instruction.
const INSTRUCTION_MAX: u64 = 15;

/// A breakpoint: this tracer's or another's.
const INT3: u8 = 0xcc;

/// The functions with a probe where a process has other code than the file, of those that have probes at
/// these offsets of it.
///
/// What of the process cannot be read counts as changed, unless it is gone.
pub(super) fn functions(
    proc: &Path,
    tgid: Tgid,
    module: &Mapped,
    places: &[(FunctionNo, u64)],
) -> HashSet<FunctionNo> {
    let mut changed = HashSet::new();
    let mappings = maps::of(proc, tgid).into_iter().filter(|mapping| {
        mapping.is_executable && FileId::of(&mapping.file(proc, tgid)) == Some(module.id)
    });
    let mut texts = None;
    for mapping in mappings {
        let own = own_pages(proc, tgid, &mapping);
        if own.is_empty() {
            continue;
        }
        let texts = texts.get_or_insert_with(|| Texts {
            file: File::open(&module.open).ok(),
            memory: File::open(process::directory(proc, tgid).join("mem")).ok(),
        });
        let mut here = HashSet::new();
        for (function, offset) in places {
            let Some(address) = address_of(&mapping, *offset) else { continue };
            let around = around(address, &mapping.addresses);
            let mut pages = around.start / PAGE..=(around.end - 1) / PAGE;
            if pages.any(|page| own.contains(&page)) && texts.differ(address, *offset, around) {
                here.insert(*function);
            }
        }
        // It may have ended, or become another program.
        if !here.is_empty() && maps::of(proc, tgid).contains(&mapping) {
            changed.extend(here);
        }
    }
    changed
}

/// What is in the file, and what a process has of it.
struct Texts {
    file: Option<File>,
    memory: Option<File>,
}

impl Texts {
    fn differ(&self, address: u64, offset: u64, around: Range<u64>) -> bool {
        let before = address - around.start;
        let bytes = usize::try_from(around.end - around.start).unwrap_or_default();
        let read = |file: &Option<File>, at| {
            let mut text = vec![0; bytes];
            file.as_ref()?.read_exact_at(&mut text, at).ok().map(|()| text)
        };
        let texts = (read(&self.file, offset - before), read(&self.memory, around.start));
        let (Some(file), Some(memory)) = texts else { return true };
        differ(&file, &memory, usize::try_from(before).unwrap_or_default())
    }
}

/// Where an offset of its file is mapped, if it is.
fn address_of(mapping: &Mapping, offset: u64) -> Option<u64> {
    let address = mapping.addresses.start.checked_add(offset.checked_sub(mapping.offset)?)?;
    mapping.addresses.contains(&address).then_some(address)
}

/// What is compared for a probe: its instruction may begin elsewhere, if what is before it was changed.
fn around(address: u64, within: &Range<u64>) -> Range<u64> {
    let start = address.saturating_sub(INSTRUCTION_MAX).max(within.start);
    start..address.saturating_add(INSTRUCTION_MAX).min(within.end)
}

/// Whether an instruction and what is around it are not those of the file. Breakpoints may be there.
fn differ(file: &[u8], memory: &[u8], instruction: usize) -> bool {
    let code = file.get(instruction..).unwrap_or_default();
    let Some(length) = code::instruction_length(code) else { return true };
    let operands = instruction + 1..instruction + length;
    let mut pairs = file.iter().zip(memory).enumerate();
    file.len() != memory.len()
        || pairs.any(|(at, (file, memory))| {
            file != memory && (*memory != INT3 || operands.contains(&at))
        })
}

/// The pages that a process has of its own in place of its file's, by number; all that it may have if
/// that cannot be read.
fn own_pages(proc: &Path, tgid: Tgid, mapping: &Mapping) -> HashSet<u64> {
    let pages = mapping.addresses.start / PAGE..mapping.addresses.end / PAGE;
    let read = || {
        let pagemap = File::open(process::directory(proc, tgid).join("pagemap"))?;
        let count = usize::try_from(pages.end - pages.start).unwrap_or_default();
        let mut entries = vec![0; count * 8];
        pagemap.read_exact_at(&mut entries, pages.start * 8)?;
        io::Result::Ok(entries)
    };
    match read() {
        Ok(entries) => {
            let entries = entries.as_chunks().0.iter().map(|entry| u64::from_le_bytes(*entry));
            pages.zip(entries).filter(|(_, entry)| is_own(*entry)).map(|(page, _)| page).collect()
        }
        Err(_) => pages.collect(),
    }
}

/// Whether a page is not its file's, by its entry (`Documentation/admin-guide/mm/pagemap.rst`): it is there
/// or was put aside, and belongs to no file.
fn is_own(entry: u64) -> bool {
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    const OF_FILE: u64 = 1 << 61;
    entry & (PRESENT | SWAPPED) != 0 && entry & OF_FILE == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_changed_is_told_from_breakpoints() {
        // nop; mov $1,%eax; ret
        let file = [0x90, 0xb8, 1, 0, 0, 0, 0xc3];
        let with = |changes: &[(usize, u8)]| {
            let mut memory = file;
            for (at, byte) in changes {
                memory[*at] = *byte;
            }
            memory
        };
        for (changes, expected) in [
            (&[][..], false),
            (&[(1, INT3)], false),
            (&[(0, INT3), (1, INT3), (6, INT3)], false),
            (&[(1, 0xb9)], true),
            (&[(2, 5)], true),
            // As an operand it is no breakpoint.
            (&[(2, INT3)], true),
            (&[(0, 0xf3)], true),
            (&[(6, 0x90)], true),
        ] {
            assert_eq!(differ(&file, &with(changes), 1), expected, "{changes:?}");
        }
        assert!(differ(&file, &file[..6], 1));
        // Nothing that is an instruction.
        assert!(differ(&[0x06; 4], &[0x06; 4], 0));
    }

    #[test]
    fn own_pages_are_told_from_those_of_files() {
        for (entry, expected) in [
            (0, false),
            (1 << 63 | 1 << 61, false),
            (1 << 63 | 0x1234, true),
            (1 << 62, true),
            (1 << 62 | 1 << 61, false),
            // Written to, but not there.
            (1 << 55, false),
        ] {
            assert_eq!(is_own(entry), expected, "{entry:x}");
        }
    }

    #[test]
    fn what_is_compared_lies_within_the_mapping() {
        for (address, expected) in
            [(0x1000, 0x1000..0x100f), (0x1800, 0x17f1..0x180f), (0x1fff, 0x1ff0..0x2000)]
        {
            assert_eq!(around(address, &(0x1000..0x2000)), expected, "{address:x}");
        }
    }
}
