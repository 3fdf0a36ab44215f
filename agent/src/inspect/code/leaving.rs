//! Which instruction tells that a function is about to return where that need not be the return itself:
//! the last that every way there passes once, and that the kernel emulates.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Mnemonic, Register};

use super::entry::reaches;
use super::flow::{Ending, Flow, Next, Step};
use super::kernel::Handling;
use super::program::Binary;
use super::state::number;
use super::{Module, Refusal, site};
use crate::function::site::{Site, SiteKind};
use crate::inspect::address::VirtAddr;
use crate::inspect::symbols::{Function, Index};

/// A place on every way to a function's return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// The instruction.
    pub site: Site,
    /// Registers of the caller's that the function has put onto its stack before anything else, by the
    /// numbers that the processor gives them, each with how far below the slot with the return address.
    pub saved: Vec<(usize, i32)>,
}

/// That place, if there is one.
pub fn place_leaving(
    module: &Module,
    index: &Index,
    function: &Function,
) -> Result<Option<Leaving>, Refusal> {
    let program = Binary::new(module, index);
    let flow = Flow::follow(&program, function.address, function.size, function.language)?;
    if let Some(refusal) = flow.refusal() {
        return Err(refusal);
    }
    let Some((address, pushed)) = choose(&flow) else { return Ok(None) };
    let site = site(&program, &flow, VirtAddr(address), SiteKind::Event, pushed)?;
    Ok(Some(Leaving { site, saved: saved(&flow) }))
}

fn choose(flow: &Flow) -> Option<(u64, i32)> {
    let is_return = |at: u64| {
        let next = flow.steps.get(&at).map(|step| &step.next);
        matches!(next, Some(Next::End(Ending::Return)))
    };
    let is_other_end =
        |step: &Step| matches!(step.next, Next::End(Ending::TailCall) | Next::EndIf(_));
    if flow.steps.values().any(is_other_end) {
        return None;
    }
    let is_passed_once = |at: u64| {
        !reaches(flow, flow.successors(at).collect(), None, |to| to == at)
            && !reaches(flow, vec![flow.entry], Some(at), is_return)
    };
    // A call is emulated as well, but writes onto the stack.
    let is_cheap = |at: &u64| {
        flow.steps.get(at).is_some_and(|step| {
            step.handling == Handling::Emulated
                && matches!(step.next, Next::Follows | Next::Branch(_))
                && step.instruction.mnemonic() != Mnemonic::Push
                && !flow.overlaps(VirtAddr(*at))
        })
    };
    // Of those that every way passes, the last is the nearest.
    let nearest = nearest(flow, is_return);
    let last = nearest.into_iter().filter(is_cheap).find(|at| is_passed_once(*at))?;
    Some((last, flow.pushed(VirtAddr(last))?))
}

/// All instructions from which some are reached, the nearest first.
fn nearest(flow: &Flow, is_end: impl Fn(u64) -> bool) -> Vec<u64> {
    let mut before: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for at in flow.steps.keys() {
        for next in flow.successors(*at) {
            before.entry(next).or_default().push(*at);
        }
    }
    let mut found: Vec<u64> = flow.steps.keys().copied().filter(|at| is_end(*at)).collect();
    let mut seen: BTreeSet<u64> = found.iter().copied().collect();
    let mut next = 0;
    while let Some(at) = found.get(next) {
        let more = before.get(at).into_iter().flatten().copied();
        let more: Vec<u64> = more.filter(|at| seen.insert(*at)).collect();
        found.extend(more);
        next += 1;
    }
    found
}

/// What the first instructions push: a frame pointer may be set in between, and nothing else.
fn saved(flow: &Flow) -> Vec<(usize, i32)> {
    let mut saved: Vec<(usize, i32)> = Vec::new();
    let mut at = flow.entry;
    while let Some(step) = flow.steps.get(&at).filter(|step| step.next == Next::Follows) {
        let instruction = &step.instruction;
        let is_saved = |register| saved.iter().any(|(known, _)| Some(*known) == register);
        match instruction.mnemonic() {
            Mnemonic::Push => {
                let register = number(instruction.op0_register());
                let below = flow.pushed(VirtAddr(at)).and_then(|bytes| bytes.checked_add(8));
                match (register, below) {
                    (Some(known), Some(below)) if !is_saved(register) => saved.push((known, below)),
                    _ => break,
                }
            }
            Mnemonic::Mov
                if instruction.op0_register() == Register::RBP
                    && instruction.op1_register() == Register::RSP
                    && is_saved(number(Register::RBP)) => {}
            _ => break,
        }
        at = instruction.next_ip();
        if flow.is_target(at) {
            break;
        }
    }
    saved
}
