//! The instructions that a function reaches from its entry, and how it ends.
//!
//! A call is taken to return. Where that would make the stack pointer differ between two ways to one
//! place, which compilers never do, the call is one that does not return, and all is followed anew.

mod tables;
mod walk;
mod ways;

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::Instruction;

use super::Refusal;
use super::kernel::Handling;
use super::program::Program;
use crate::function::site::Condition;
use crate::inspect::address::VirtAddr;
use crate::inspect::demangle::Language;
use walk::{Walk, Walked};

/// Most instructions of a function.
pub(super) const INSTRUCTIONS_MAX: usize = 200_000;

/// How a function ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Return,
    TailCall,
}

/// Where control goes behind an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// To the one that follows.
    Follows,
    /// To the one that follows, once the callee returns.
    Returns,
    /// Nowhere: it traps, or calls what does not return.
    Nothing,
    /// There, or to the one that follows.
    Branch(u64),
    /// To one of these.
    Jump(Vec<u64>),
    /// Out of the function.
    End(Ending),
    /// Out of the function, or to the one that follows.
    EndIf(Ending),
}

/// An instruction that is reached.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) instruction: Instruction,
    pub(super) handling: Handling,
    pub(super) next: Next,
    /// From the place of the return address to the stack pointer, if known.
    pub(super) stack_pointer: Option<i64>,
    /// Where a call goes on that throws, and the bytes that are off the stack there.
    pub(super) landing_pad: Option<(u64, u64)>,
}

/// The code of a function.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) entry: u64,
    pub(super) steps: BTreeMap<u64, Step>,
    refusal: Option<Refusal>,
}

impl Flow {
    /// Follows a function. What forbids its ends to be probed is for [`Flow::refusal`] to tell.
    pub(super) fn follow(
        program: &impl Program,
        address: VirtAddr,
        size: u64,
        language: Language,
    ) -> Result<Self, Refusal> {
        let mut noreturn = BTreeSet::new();
        loop {
            let mut walk = Walk::new(program, address, size, language, &noreturn)?;
            match walk.run()? {
                Walked::Done => {
                    let Walk { steps, refusal, .. } = walk;
                    return Ok(Self { entry: address.0, steps, refusal });
                }
                Walked::NoReturn(calls) => noreturn.extend(calls),
            }
        }
    }

    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refusal.clone()
    }

    /// The instructions that end the function, by address.
    pub(super) fn endings(&self) -> impl Iterator<Item = (VirtAddr, Ending)> {
        self.steps.iter().filter_map(|(address, step)| match step.next {
            Next::End(ending) | Next::EndIf(ending) => Some((VirtAddr(*address), ending)),
            _ => None,
        })
    }

    /// When the jump at an address is taken, if it is a conditional one that leads out of the function.
    pub(super) fn leaves_if(&self, address: VirtAddr) -> Option<Condition> {
        let step = self.steps.get(&address.0)?;
        if !matches!(step.next, Next::EndIf(_)) {
            return None;
        }
        // iced counts them from 1 in the order of their codes, 0 being none.
        (step.instruction.condition_code() as u8).checked_sub(1).and_then(Condition::of_code)
    }

    pub(super) fn handling(&self, address: VirtAddr) -> Option<Handling> {
        self.steps.get(&address.0).map(|step| step.handling)
    }

    /// Whether another instruction has bytes of the one at an address.
    pub(super) fn overlaps(&self, address: VirtAddr) -> bool {
        let Some(own) = self.steps.get(&address.0) else { return true };
        let end = address.0 + own.instruction.len() as u64;
        let inside = self.steps.range(address.0 + 1..end).next().is_some();
        // No instruction has more than fifteen bytes.
        let mut before = self.steps.range(address.0.saturating_sub(14)..address.0);
        inside || before.any(|(start, step)| start + step.instruction.len() as u64 > address.0)
    }

    /// Whether a jump leads to an address, or what is thrown.
    pub(super) fn is_target(&self, address: u64) -> bool {
        self.steps.values().any(|step| {
            let jumps = match &step.next {
                Next::Branch(target) => *target == address,
                Next::Jump(targets) => targets.contains(&address),
                _ => false,
            };
            jumps || step.landing_pad.is_some_and(|(pad, _)| pad == address)
        })
    }

    /// Where control goes behind an instruction, within the function.
    pub(super) fn successors(&self, address: u64) -> impl Iterator<Item = u64> {
        let step = self.steps.get(&address);
        let behind = step.map(|step| step.instruction.next_ip());
        let (follows, jumps): (_, &[u64]) = match step.map(|step| &step.next) {
            Some(Next::Follows | Next::Returns | Next::EndIf(_)) => (behind, &[]),
            Some(Next::Branch(target)) => (behind, std::slice::from_ref(target)),
            Some(Next::Jump(targets)) => (None, targets),
            _ => (None, &[]),
        };
        let pad = step.and_then(|step| step.landing_pad).map(|(pad, _)| pad);
        jumps.iter().copied().chain(follows).chain(pad)
    }
}
