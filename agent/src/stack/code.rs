//! What is known of one executable or library: how its functions return, and what they are called. Reads
//! its files once; a file that says nothing makes frames without names, or ends a stack. Source lines are
//! told from outside, address by address.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::inspect::address::VirtAddr;
use crate::inspect::debug_file::Lookup;
use crate::inspect::demangle;
use crate::inspect::dwarf::lines::Call;
use crate::inspect::elf::{ElfError, Module};
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
    lines: Lines,
}

/// What debug information says of addresses.
#[derive(Debug)]
enum Lines {
    /// Of these; `None`: they are asked for.
    Of(HashMap<VirtAddr, Option<Box<[Call]>>>),
    /// There is no debug information that can be read.
    None,
}

/// What has become of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nobody has asked.
    Never,
    /// It was asked.
    Open,
    /// There is an answer, or nobody to ask.
    Answered,
}

/// An address, and the calls that it is in the middle of.
pub type Told = (VirtAddr, Box<[Call]>);

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
        let lines = Lines::Of(HashMap::new());
        Ok(Self { name: name.to_owned(), module, root: root.to_owned(), index, go, lines })
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
        go.unwrap_or_else(|| self.native(address, next))
    }

    fn native(&self, address: VirtAddr, next: VirtAddr) -> Vec<Frame> {
        let outer = self.frame(address, next);
        let calls = match &self.lines {
            Lines::Of(known) => known.get(&address).and_then(Option::as_deref),
            Lines::None => None,
        };
        let Some((last, inlined)) = calls.and_then(<[Call]>::split_last) else {
            return vec![outer];
        };
        let inlined = inlined.iter().map(|call| Frame {
            function: call.function.clone(),
            module: self.name.clone(),
            file: call.file.clone(),
            line: call.line,
            is_inlined: true,
            ..Frame::default()
        });
        let (file, line) = (last.file.clone(), last.line);
        // What the linker calls it, if that is known.
        let function = match &*outer.function {
            "" if !file.is_empty() => last.function.clone(),
            name => name.to_owned(),
        };
        inlined.chain([Frame { function, file, line, ..outer }]).collect()
    }

    /// Whether debug information was asked what an address is of.
    pub fn asked(&self, address: VirtAddr) -> Asked {
        let Lines::Of(known) = &self.lines else { return Asked::Answered };
        match known.get(&address) {
            Some(Some(_)) => Asked::Answered,
            Some(None) => Asked::Open,
            None if self.go.as_ref().is_some_and(|go| go.has(address)) => Asked::Answered,
            None => Asked::Never,
        }
    }

    /// Notes that debug information is asked about addresses; who asks it needs the file.
    ///
    /// # Errors
    /// If there are too many open files.
    pub fn ask(&mut self, addresses: &[VirtAddr]) -> Result<(Module, PathBuf), ElfError> {
        let module = self.module.again()?;
        if let Lines::Of(known) = &mut self.lines {
            known.extend(addresses.iter().map(|address| (*address, None)));
        }
        Ok((module, self.root.clone()))
    }

    /// What debug information says. About how much memory that takes.
    pub fn tell(&mut self, told: Vec<Told>) -> usize {
        let Lines::Of(known) = &mut self.lines else { return 0 };
        let bytes = told.iter().flat_map(|(_, calls)| calls).map(Call::bytes).sum::<usize>();
        let bytes = bytes + told.len() * size_of::<(VirtAddr, Option<Box<[Call]>>)>();
        known.extend(told.into_iter().map(|(address, calls)| (address, Some(calls))));
        bytes
    }

    /// There is no debug information.
    pub fn has_no_lines(&mut self) {
        self.lines = Lines::None;
    }

    /// Forgets what debug information has said; it may be asked again.
    pub fn forget_lines(&mut self) {
        if let Lines::Of(known) = &mut self.lines {
            known.retain(|_, calls| calls.is_none());
            known.shrink_to_fit();
        }
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
