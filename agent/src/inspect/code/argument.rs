//! Where the first argument of a call that has just returned still is: in what a register or the caller's
//! own frame leads to, which the call has not changed.

use iced_x86::{
    FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};

use super::Module;
use super::flow::{Flow, Step};
use super::program::{Binary, Program};
use crate::inspect::address::VirtAddr;
use crate::inspect::demangle::Language;
use crate::inspect::symbols::Index;

/// Most instructions before the call that are looked at.
const LOOKED_AT: usize = 12;

/// A value that can be had again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What it starts at, by DWARF's numbers.
    pub register: u8,
    /// What is added before each of the pointers that lead from there to it is followed.
    pub offsets: Vec<i32>,
}

/// The first argument of the call that returns to an address, if it is one of this function.
pub fn argument_before(
    module: &Module,
    index: &Index,
    behind: VirtAddr,
    callee: &str,
) -> Option<Kept> {
    let program = Binary::new(module, index);
    let range = index.unwind(module).range(behind)?;
    let size = range.end.0.checked_sub(range.start.0)?;
    let flow = Flow::follow(&program, range.start, size, Language::C).ok()?;
    let mut before = flow.steps.range(..behind.0).rev();
    let (at, call) = before.next()?;
    let is_call = call.instruction.flow_control() == FlowControl::Call
        && call.instruction.next_ip() == behind.0;
    if !is_call || !calls(&program, index, &call.instruction, callee) {
        return None;
    }
    let steps: Vec<(u64, &Step)> = before.take(LOOKED_AT).map(|(at, step)| (*at, step)).collect();
    kept(&flow, *at, &steps)
}

/// Whether a call is one of this function, also through its stub.
fn calls(program: &Binary<'_>, index: &Index, call: &Instruction, callee: &str) -> bool {
    let target = VirtAddr(call.near_branch_target());
    if index.starting_at(target) == Some(callee) {
        return true;
    }
    let bytes = program.read(target, 16);
    let mut decoder = iced_x86::Decoder::with_ip(64, &bytes, target.0, 0);
    let jump = decoder.iter().find(|instruction| instruction.mnemonic() != Mnemonic::Endbr64);
    let slot = jump.filter(|jump| {
        jump.flow_control() == FlowControl::IndirectBranch && jump.is_ip_rel_memory_operand()
    });
    let Some(slot) = slot.map(|jump| VirtAddr(jump.ip_rel_memory_address())) else { return false };
    let own = index.relocated(slot).and_then(|target| index.starting_at(target));
    own.or_else(|| index.imported(slot)) == Some(callee)
}

/// Follows `rdi` back from the instruction at `next`.
fn kept(flow: &Flow, mut next: u64, steps: &[(u64, &Step)]) -> Option<Kept> {
    let mut factory = InstructionInfoFactory::new();
    let (mut wanted, mut offsets, mut changed) = (Register::RDI, Vec::new(), Vec::new());
    for (at, step) in steps {
        if is_kept(wanted, &changed) {
            break;
        }
        let instruction = &step.instruction;
        let is_straight = instruction.next_ip() == next
            && instruction.flow_control() == FlowControl::Next
            && !flow.is_target(next);
        if !is_straight {
            return None;
        }
        next = *at;
        let info = factory.info(instruction);
        let writes = |access| {
            !matches!(
                access,
                OpAccess::None | OpAccess::NoMemAccess | OpAccess::Read | OpAccess::CondRead
            )
        };
        if info.used_memory().iter().any(|memory| writes(memory.access())) {
            return None;
        }
        let written = info.used_registers().iter().filter(|used| writes(used.access()));
        let written: Vec<Register> = written.map(|used| used.register().full_register()).collect();
        if written.contains(&wanted) {
            if instruction.mnemonic() != Mnemonic::Mov || instruction.op0_register() != wanted {
                return None;
            }
            wanted = match instruction.op1_kind() {
                OpKind::Register => instruction.op1_register(),
                OpKind::Memory
                    if instruction.memory_index() == Register::None
                        && instruction.segment_prefix() == Register::None =>
                {
                    let offset = instruction.memory_displacement64().cast_signed();
                    offsets.push(i32::try_from(offset).ok()?);
                    instruction.memory_base()
                }
                _ => return None,
            };
        }
        changed.extend(written);
    }
    offsets.reverse();
    let register = survives(wanted).filter(|_| is_kept(wanted, &changed))?;
    Some(Kept { register, offsets })
}

/// Whether a register is still what it was before those were changed, and the call was made.
fn is_kept(register: Register, changed: &[Register]) -> bool {
    survives(register).is_some() && !changed.contains(&register)
}

/// The number of a register that a call leaves as it was.
fn survives(register: Register) -> Option<u8> {
    Some(match register {
        Register::RBX => 3,
        Register::RBP => 6,
        Register::RSP => 7,
        Register::R12 => 12,
        Register::R13 => 13,
        Register::R14 => 14,
        Register::R15 => 15,
        _ => return None,
    })
}
