//! Which source line an address is of, and which functions were inlined there: what `addr2line -i` says.
//!
//! Memory is bounded, however long a file's debug information is: sections are read by the page, a unit
//! when an address lies in it, and of what is read only the units' addresses are kept. Sections that are
//! packed have to be unpacked whole; if they are too long for that, there are no lines. DWARF 2 to 5, split or
//! not.

mod bytes;
mod calls;
mod file;
mod name;
mod rows;
mod split;
#[cfg(test)]
mod tests;
mod units;

use std::collections::{BTreeMap, BTreeSet};

use crate::inspect::address::VirtAddr;
use crate::inspect::debug_file::Lookup;
use crate::inspect::elf::{ElfError, Module};
use file::Files;
use units::{Index, Units};

/// Most bytes that are held at any time: unpacked sections, units' addresses, and [`READING_BYTES`].
pub const BYTES_MAX: u64 = 48 << 20;

/// Most bytes that are held while units are read: pages of three files, one unit's tables of abbreviations and
/// of files.
const READING_BYTES: u64 = 16 << 20;

/// Why a file's lines are not read.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// A part of a file cannot be read.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// A packed section is damaged, or packed in a way that is not known.
    #[error("{section} of {path} cannot be unpacked", path = path.display())]
    Packed {
        /// The file.
        path: std::path::PathBuf,
        /// The section.
        section: &'static str,
    },
    /// What is packed has too many bytes.
    #[error("{path} has {bytes} bytes of packed debug information, more than {limit}", path = path.display())]
    TooLong {
        /// The file.
        path: std::path::PathBuf,
        /// Its bytes, unpacked.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// There is too much code.
    #[error("the code of {path} is in more than {limit} places", path = path.display())]
    TooMany {
        /// The file.
        path: std::path::PathBuf,
        /// The bound.
        limit: usize,
    },
}

/// A call that an address is in the middle of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The function's name, demangled; empty if nothing says it.
    pub function: String,
    /// The source file; empty if unknown.
    pub file: String,
    /// The line, from 1; 0 if unknown.
    pub line: u32,
    /// Whether the function was inlined into the one that follows.
    pub is_inlined: bool,
}

impl Call {
    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.function.len() + self.file.len()
    }
}

/// The debug information of one program or library.
pub struct Lines {
    files: Files,
    index: Index,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

impl Lines {
    /// Looks where the debug information of a module is, in itself or in a file of its own, and which of its
    /// units has which code; takes no more memory than that. `None`: there is none.
    ///
    /// # Errors
    /// If it cannot be read, or would take too much memory.
    pub fn open(
        module: &Module,
        lookup: Lookup<'_>,
        bytes: u64,
    ) -> Result<Option<Self>, LinesError> {
        let room = bytes.min(BYTES_MAX).saturating_sub(READING_BYTES);
        let Some(files) = Files::open(module, lookup, room)? else { return Ok(None) };
        let index = Index::read(&files, room - files.bytes())?;
        Ok(Some(Self { files, index }))
    }

    /// About how much memory this takes until it is dropped.
    pub fn bytes(&self) -> u64 {
        self.files.bytes() + self.index.bytes()
    }

    /// Tells of each of these addresses which calls it is in the middle of, the innermost first; none where
    /// nothing is known. Address by address as units are read, the shortest first.
    pub fn calls(&self, addresses: &[VirtAddr], tell: &mut dyn FnMut(Vec<(VirtAddr, Vec<Call>)>)) {
        let mut by_unit: BTreeMap<usize, Vec<VirtAddr>> = BTreeMap::new();
        let mut unknown = Vec::new();
        let wanted: BTreeSet<VirtAddr> = addresses.iter().copied().collect();
        for address in wanted {
            match self.index.unit(address) {
                Some(unit) => by_unit.entry(unit).or_default().push(address),
                None => unknown.push((address, Vec::new())),
            }
        }
        if !unknown.is_empty() {
            tell(unknown);
        }
        let units = Units::new(&self.files, &self.index);
        let mut by_unit: Vec<_> = by_unit.into_iter().collect();
        by_unit.sort_by_key(|(unit, _)| units.bytes(*unit));
        for (unit, wanted) in by_unit {
            let calls = calls::of(&units, unit, &wanted);
            tell(wanted.into_iter().zip(calls).collect());
        }
        self.files.forget_pages();
    }
}
