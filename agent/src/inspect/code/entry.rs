//! Which instruction tells that a function was entered.
//!
//! One that every call passes exactly once, before it has changed an argument: the first that the
//! kernel emulates, else the first at all.

use std::collections::BTreeSet;

use iced_x86::{FlowControl, InstructionInfoFactory, Mnemonic, OpAccess, Register};

use super::Refusal;
use super::flow::{Ending, Flow, Next, Step};
use super::kernel::Handling;
use super::state::number;
use crate::inspect::address::VirtAddr;
use crate::inspect::demangle::Language;

/// How many instructions are looked at.
const LOOKED_AT: usize = 12;

/// Chooses an instruction that is not in `taken`; tells its address and the bytes on the stack below
/// the return address.
pub(super) fn choose(
    flow: &Flow,
    language: Language,
    taken: &[VirtAddr],
) -> Result<(VirtAddr, i32), Refusal> {
    let candidates = candidates(flow, language);
    let straight = straight(flow, &candidates);
    let is_passed_once =
        |flow: &Flow, address: u64| straight.contains(&address) || is_passed_once(flow, address);
    let good = |address: &u64, step: &Step, wanted: Handling| {
        step.handling == wanted
            && !taken.contains(&VirtAddr(*address))
            && !flow.overlaps(VirtAddr(*address))
            && is_passed_once(flow, *address)
    };
    let found = candidates
        .iter()
        .find(|(address, step, _)| good(address, step, Handling::Emulated))
        .or_else(|| {
            // Behind a landing mark for indirect branches rather than on it.
            let mark = |step: &Step| step.instruction.mnemonic() == Mnemonic::Endbr64;
            let stepped =
                |(address, step, _): &&(u64, &Step, i32)| good(address, step, Handling::Stepped);
            let unmarked = candidates.iter().filter(|(_, step, _)| !mark(step)).find(stepped);
            unmarked.or_else(|| candidates.iter().find(stepped))
        });
    if let Some((address, _, pushed)) = found {
        return Ok((VirtAddr(*address), *pushed));
    }
    Err(match candidates.first() {
        None => Refusal::Unreadable,
        Some((first, ..))
            if candidates.iter().all(|(address, ..)| taken.contains(&VirtAddr(*address))) =>
        {
            let _ = first;
            Refusal::Short
        }
        Some((first, step, _))
            if step.handling == Handling::Refused && is_passed_once(flow, *first) =>
        {
            Refusal::Instruction(VirtAddr(*first))
        }
        Some((first, ..)) if flow.overlaps(VirtAddr(*first)) => Refusal::Overlap(VirtAddr(*first)),
        Some((first, ..)) if is_passed_once(flow, *first) => Refusal::Short,
        Some(_) => Refusal::EntryInLoop,
    })
}

/// Where a function ends that does nothing before: a probe there tells of both. A landing mark for
/// indirect branches is nothing.
pub(super) fn ends_at_once(flow: &Flow) -> Option<(VirtAddr, Ending)> {
    let first = flow.steps.get(&flow.entry)?;
    let last = match first.instruction.mnemonic() {
        Mnemonic::Endbr64 => first.instruction.next_ip(),
        _ => flow.entry,
    };
    match flow.steps.get(&last)?.next {
        Next::End(ending) => Some((VirtAddr(last), ending)),
        _ => None,
    }
}

/// The first instructions, as long as no argument has changed.
fn candidates(flow: &Flow, language: Language) -> Vec<(u64, &Step, i32)> {
    let mut found = Vec::new();
    let mut info = InstructionInfoFactory::new();
    let mut address = flow.entry;
    while found.len() < LOOKED_AT {
        let Some(step) = flow.steps.get(&address) else { break };
        let Some(pushed) = step.stack_pointer.and_then(|sp| i32::try_from(-sp).ok()) else { break };
        found.push((address, step, pushed));
        if !matches!(step.next, Next::Follows | Next::Branch(_))
            || changes_arguments(step, language, &mut info)
        {
            break;
        }
        address = step.instruction.next_ip();
    }
    found
}

/// Registers that arguments come in, by their numbers: System V's six (psABI, 3.2.3), and Go's nine
/// with the closure's context and `g` (ABIInternal).
const ARGUMENTS: [usize; 6] = [7, 6, 2, 1, 8, 9];
const ARGUMENTS_GO: [usize; 11] = [0, 3, 1, 7, 6, 8, 9, 10, 11, 2, 14];

fn changes_arguments(step: &Step, language: Language, info: &mut InstructionInfoFactory) -> bool {
    let arguments: &[usize] = if language == Language::Go { &ARGUMENTS_GO } else { &ARGUMENTS };
    let instruction = &step.instruction;
    let flow = instruction.flow_control();
    if !(flow == FlowControl::Next || flow == FlowControl::ConditionalBranch) {
        return true;
    }
    let used = info.info(instruction);
    let writes = |access| {
        matches!(
            access,
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        )
    };
    let register = used.used_registers().iter().any(|used| {
        writes(used.access())
            && number(used.register()).is_some_and(|number| arguments.contains(&number))
    });
    // Into its own frame, by the stack pointer, it may write; anything else may be of an argument.
    let memory = used.used_memory().iter().filter(|used| writes(used.access())).any(|used| {
        let own = used.base() == Register::RSP && used.index() == Register::None;
        let below = step.stack_pointer.is_some_and(|sp| {
            used.displacement().cast_signed().checked_add(sp).is_some_and(|at| at < 0)
        });
        !(own && below)
    });
    register || memory
}

/// The first candidates, as long as there is one way from the entry to them and none back: most functions
/// begin so, and what is to be asked of the others need not be asked.
fn straight(flow: &Flow, candidates: &[(u64, &Step, i32)]) -> Vec<u64> {
    let branch = candidates.iter().position(|(_, step, _)| step.next != Next::Follows);
    let mut straight: Vec<u64> = candidates.iter().map(|(address, ..)| *address).collect();
    straight.truncate(branch.map_or(straight.len(), |branch| branch + 1));
    for address in flow.steps.keys() {
        for to in flow.successors(*address) {
            let Some(at) = straight.iter().position(|candidate| *candidate == to) else { continue };
            let before = at.checked_sub(1).and_then(|before| straight.get(before));
            if before != Some(address) {
                straight.truncate(at);
            }
        }
    }
    straight
}

/// Whether every way through the function passes an instruction, and none passes it again.
fn is_passed_once(flow: &Flow, address: u64) -> bool {
    !reaches(flow, flow.successors(address).collect(), None, |at| at == address)
        && (address == flow.entry
            || !reaches(flow, vec![flow.entry], Some(address), |at| leaves(flow, at)))
}

/// Whether an instruction ends the function, or all.
fn leaves(flow: &Flow, address: u64) -> bool {
    let next = flow.steps.get(&address).map(|step| &step.next);
    match next {
        Some(Next::End(_) | Next::EndIf(_) | Next::Nothing) => true,
        // Behind the last call of a function that does not return there is nothing.
        Some(Next::Returns) => !flow.successors(address).any(|to| flow.steps.contains_key(&to)),
        _ => false,
    }
}

/// Whether some way from `from`, not through `around`, gets to what is looked for.
pub(super) fn reaches(
    flow: &Flow,
    from: Vec<u64>,
    around: Option<u64>,
    mut wanted: impl FnMut(u64) -> bool,
) -> bool {
    let mut waiting = from;
    let mut seen = BTreeSet::new();
    while let Some(address) = waiting.pop() {
        if Some(address) == around || !seen.insert(address) {
            continue;
        }
        if wanted(address) {
            return true;
        }
        waiting.extend(flow.successors(address));
    }
    false
}
