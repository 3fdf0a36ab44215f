//! Where the probes of a function go.

use agent_common::function::condition;
use serde::{Deserialize, Serialize};

use crate::inspect::address::{FileOffset, VirtAddr};

/// All the probes of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Where its entry is seen: the first instruction, or a cheaper one that every call passes before
    /// it has changed an argument.
    pub entry: Site,
    /// Everywhere else the function ends. Empty if it never returns, or ends where it begins.
    pub ends: Vec<Site>,
}

impl Placement {
    /// All of them, the entry's first.
    pub fn sites(&self) -> impl Iterator<Item = &Site> {
        std::iter::once(&self.entry).chain(&self.ends)
    }
}

/// One instruction to probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Where it is in the program's address space as linked.
    pub address: VirtAddr,
    /// Where it is in the file.
    pub offset: FileOffset,
    /// What a hit means.
    pub kind: SiteKind,
    /// For an end at a conditional jump: when it jumps. A hit at which it does not means nothing.
    pub jumps_if: Option<Condition>,
    /// Added to `rsp` at this instruction to have the address of the slot that holds the return address.
    pub sp_adjust: i32,
    /// How the kernel runs the instruction that the probe stands on.
    pub cost: CostClass,
}

/// What a hit of a site means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SiteKind {
    /// The function was entered.
    Entry,
    /// The function returns.
    Return,
    /// The function ends by jumping into another one, which returns in its place.
    TailCall,
    /// The function consists of a return: it was entered and returns.
    EntryAndReturn,
    /// The function consists of a jump into another one.
    EntryAndTailCall,
    /// Something happened: a static tracepoint, an exception.
    Event,
}

impl SiteKind {
    /// Whether a hit says that the function was entered.
    pub fn is_entry(self) -> bool {
        matches!(self, Self::Entry | Self::EntryAndReturn | Self::EntryAndTailCall)
    }

    /// Whether it says that the function returns.
    pub fn is_return(self) -> bool {
        matches!(self, Self::Return | Self::EntryAndReturn)
    }

    /// Whether it says that another function runs in its place.
    pub fn is_tail_call(self) -> bool {
        matches!(self, Self::TailCall | Self::EntryAndTailCall)
    }
}

/// The condition of a `Jcc` instruction, by the four bits of its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition(u8);

impl Condition {
    /// The one with this code.
    pub fn of_code(code: u8) -> Option<Self> {
        (code <= condition::CODE_MASK).then_some(Self(code))
    }

    /// As the kernel half is told of it.
    pub fn wire(self) -> u8 {
        condition::JUMPS | self.0
    }
}

/// How the kernel runs the instruction under a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CostClass {
    /// Emulated by the kernel: well under a microsecond.
    Emulated,
    /// Executed out of line with a debug exception behind it: several times as dear.
    Stepped,
}
