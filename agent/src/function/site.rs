//! Where the probes of a function go.

use serde::{Deserialize, Serialize};

use crate::inspect::address::{FileOffset, VirtAddr};

/// All the probes of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Where its entry is seen: the first instruction, or a cheaper one that every call passes before
    /// it has changed an argument.
    pub entry: Site,
    /// Everywhere the function ends. Empty if it never returns.
    pub ends: Vec<Site>,
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
    /// Something happened: a static tracepoint, an exception.
    Event,
}

/// How the kernel runs the instruction under a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CostClass {
    /// Emulated by the kernel: well under a microsecond.
    Emulated,
    /// Executed out of line with a debug exception behind it: several times as dear.
    Stepped,
}
