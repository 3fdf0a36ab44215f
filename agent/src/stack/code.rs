//! What is known of one executable or library: how its functions return, and what they are called. Reads
//! its files once; a file that says nothing makes frames without names, or ends a stack.

use std::path::{Path, PathBuf};

use crate::inspect::address::VirtAddr;
use crate::inspect::debug_file::Lookup;
use crate::inspect::demangle;
use crate::inspect::elf::Module;
use crate::inspect::symbols::{Index, SymbolError};

use super::Frame;
use super::go::Go;
use crate::inspect::unwind::step::{Caller, Memory, Registers, StepError};

/// A module.
#[derive(Debug)]
pub struct Code {
    name: String,
    module: Module,
    root: PathBuf,
    index: Index,
    go: Option<Go>,
}

/// Sections that are kept in memory.
const KEPT: [&str; 8] = [
    ".symtab",
    ".strtab",
    ".dynsym",
    ".dynstr",
    ".eh_frame",
    ".gopclntab",
    ".data.rel.ro.gopclntab",
    ".gnu_debugdata",
];

/// About how many bytes a module's [`Code`] takes.
pub fn bytes(module: &Module) -> u64 {
    let kept = |name: &&str| module.section(name).map(|section| section.size);
    KEPT.iter().filter_map(kept).fold(0, u64::saturating_add)
}

impl Code {
    /// Reads a module's tables.
    ///
    /// # Errors
    /// If its files cannot be read.
    pub fn read(name: &str, module: Module, root: &Path) -> Result<Self, SymbolError> {
        let index = Index::read(&module, Lookup::below(root))?;
        index.unwind(&module);
        let go = Go::read(&module, &index);
        Ok(Self { name: name.to_owned(), module, root: root.to_owned(), index, go })
    }

    /// Steps from the code at `at`, with these registers, to its caller.
    ///
    /// # Errors
    /// If that cannot be told for certain.
    pub fn caller(
        &self,
        at: VirtAddr,
        registers: &Registers,
        memory: &dyn Memory,
    ) -> Result<Caller, StepError> {
        let go = self.go.as_ref().and_then(|go| go.caller(at, registers, memory));
        go.unwrap_or_else(|| self.index.unwind(&self.module).caller(at, registers, memory))
    }

    /// Whether an instruction that calls ends right before an address. The file says so, not memory.
    pub fn is_behind_call(&self, address: VirtAddr) -> bool {
        const LONGEST: u64 = 7;
        let Some(from) = address.0.checked_sub(LONGEST) else { return false };
        let Ok(bytes) = self.module.read(VirtAddr(from), LONGEST as usize) else { return false };
        // Intel SDM, "CALL": `E8` and four bytes; `FF /2` with an operand of one to six bytes.
        let is_direct = bytes.get(2) == Some(&0xe8);
        let is_indirect = (0..=5).any(|at| {
            matches!(bytes.get(at..), Some([0xff, operand, rest @ ..])
                if operand >> 3 & 7 == 2 && length(*operand, rest.first()) == rest.len())
        });
        bytes.len() == LONGEST as usize && (is_direct || is_indirect)
    }

    /// The calls that an address is in the middle of, the innermost first; `next` is where it goes on,
    /// which may be behind it.
    pub fn frames(&self, address: VirtAddr, next: VirtAddr) -> Vec<Frame> {
        let go = self.go.as_ref().and_then(|go| go.frames(&self.module, address, next));
        go.unwrap_or_else(|| vec![self.frame(address, next)])
    }

    fn frame(&self, address: VirtAddr, next: VirtAddr) -> Frame {
        let unnamed = Frame { module: self.name.clone(), offset: next.0, ..Frame::default() };
        match self.index.holding(address) {
            Some((linkage, range)) => Frame {
                function: demangle::demangle(linkage).short,
                offset: next.0.saturating_sub(range.start.0),
                ..unnamed
            },
            None => unnamed,
        }
    }

    /// The file, without its tables, and what absolute paths of debug files are meant below.
    pub fn into_parts(self) -> (Module, PathBuf) {
        (self.module, self.root)
    }
}

/// How many bytes an operand takes behind its first (Intel SDM, 2.1.3).
fn length(operand: u8, next: Option<&u8>) -> usize {
    let (mode, base) = (operand >> 6, operand & 7);
    let scaled = usize::from(mode != 3 && base == 4);
    let displaced = match mode {
        0 if base == 5 => 4,
        // Without a base register there is a displacement.
        0 if base == 4 && next.is_some_and(|scale| scale & 7 == 5) => 4,
        1 => 1,
        2 => 4,
        _ => 0,
    };
    scaled + displaced
}
