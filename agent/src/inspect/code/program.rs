//! What the follower of code asks about the program that the code is part of.

use crate::inspect::address::{FileOffset, VirtAddr};
use crate::inspect::demangle;
use crate::inspect::elf::Module;
use crate::inspect::symbols::Index;
use crate::inspect::unwind::Handlers;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;

/// A program as far as machine code needs it.
pub trait Program {
    /// At most `length` bytes at an address; fewer where the program ends.
    fn read(&self, address: VirtAddr, length: usize) -> Vec<u8>;
    /// Where code is in the file.
    fn offset(&self, address: VirtAddr) -> Option<FileOffset>;
    /// What an address outside the function is.
    fn whereabouts(&self, address: VirtAddr) -> Whereabouts;
    /// Whether unwind tables describe code from there on, as they do of each function and of each piece.
    fn is_described_from(&self, address: VirtAddr) -> bool;
    /// Whether what lies at an address stays as it is in the file while the program runs.
    fn is_constant(&self, address: VirtAddr) -> bool;
    /// Whether the loader writes into some of these bytes of code.
    fn is_written_by_loader(&self, code: &Range<VirtAddr>) -> bool;
    /// The address in this program that the loader writes into a place.
    fn relocated(&self, slot: VirtAddr) -> Option<VirtAddr>;
    /// Where a Go function goes on after a recovered panic, and how many bytes its frame has there.
    fn recovery(&self, function: VirtAddr) -> Option<(VirtAddr, u32)>;
    /// Where the call at an address goes on when it throws, if it is caught, and by how many bytes the
    /// stack pointer is higher there than at the call.
    fn landing_pad(&self, call: VirtAddr) -> Option<(VirtAddr, u64)>;
}

/// What lies at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// A function starts there.
    Start,
    /// The thunk that some kernels and programs return through: as good as `ret`.
    ReturnThunk,
    /// The seldom used piece of a function.
    Piece(Range<VirtAddr>),
    /// The midst of another function.
    Midst,
    /// Code that no symbol names, up to the next one that a symbol does.
    Unnamed(Range<VirtAddr>),
    /// No code.
    Nowhere,
}

/// A module with its symbols.
#[derive(Debug)]
pub struct Binary<'a> {
    module: &'a Module,
    index: &'a Index,
    /// By the run of code that was asked about.
    handlers: RefCell<HashMap<u64, Handlers>>,
}

impl<'a> Binary<'a> {
    /// A module with its symbols.
    pub fn new(module: &'a Module, index: &'a Index) -> Self {
        Self { module, index, handlers: RefCell::default() }
    }
}

impl Program for Binary<'_> {
    fn read(&self, address: VirtAddr, length: usize) -> Vec<u8> {
        self.module.read(address, length).unwrap_or_default()
    }

    fn offset(&self, address: VirtAddr) -> Option<FileOffset> {
        self.module.code_offset(address)
    }

    fn whereabouts(&self, address: VirtAddr) -> Whereabouts {
        let code =
            |section: &&crate::inspect::elf::Section| section.is_code() && section.holds(address);
        let Some(section) = self.module.sections().iter().find(code) else {
            return Whereabouts::Nowhere;
        };
        // Stubs of the procedure linkage table have no symbols, but are what is jumped to.
        if section.name.starts_with(".plt") {
            return Whereabouts::Start;
        }
        match self.index.holding(address) {
            Some((name, range)) if demangle::is_cold(name) => Whereabouts::Piece(range),
            Some(("__x86_return_thunk", range)) if range.start == address => {
                Whereabouts::ReturnThunk
            }
            Some((_, range)) if range.start == address => Whereabouts::Start,
            Some(_) => Whereabouts::Midst,
            None => {
                let end = VirtAddr(section.address.0.saturating_add(section.size));
                let end = self.index.next_start(address).min(end);
                let described = self.index.unwind(self.module).range(address);
                let end = described.map_or(end, |described| end.min(described.end));
                Whereabouts::Unnamed(address..end)
            }
        }
    }

    fn is_described_from(&self, address: VirtAddr) -> bool {
        let described = self.index.unwind(self.module).range(address);
        described.is_some_and(|described| described.start == address)
    }

    fn is_constant(&self, address: VirtAddr) -> bool {
        self.module.segment_of(address).is_some_and(|segment| !segment.writable)
    }

    fn is_written_by_loader(&self, code: &Range<VirtAddr>) -> bool {
        self.index.is_written_by_loader(code)
    }

    fn relocated(&self, slot: VirtAddr) -> Option<VirtAddr> {
        self.index.relocated(slot)
    }

    fn recovery(&self, function: VirtAddr) -> Option<(VirtAddr, u32)> {
        self.index.recovery(function)
    }

    fn landing_pad(&self, call: VirtAddr) -> Option<(VirtAddr, u64)> {
        let unwind = self.index.unwind(self.module);
        let start = unwind.range(call)?.start;
        let mut known = self.handlers.borrow_mut();
        let handlers = known.entry(start.0).or_insert_with(|| unwind.handlers(self.module, call));
        handlers.pad(call)
    }
}
