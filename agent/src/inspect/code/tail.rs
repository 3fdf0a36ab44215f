//! What a function goes on to at its ends, and with which third argument: enough to find by its callers
//! a function that has no name.

use iced_x86::{FlowControl, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use super::flow::{Flow, Step};
use super::program::Binary;
use super::{Module, Refusal};
use crate::inspect::address::VirtAddr;
use crate::inspect::symbols::{Function, Index};

/// Most instructions before a jump that are looked at.
const LOOKED_AT: usize = 8;

/// A direct jump out of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailCall {
    /// To where.
    pub target: VirtAddr,
    /// Whether the third argument is certainly 0 there.
    pub third_is_zero: bool,
}

/// The direct jumps out of a function, in the order of their addresses.
pub fn tail_calls(
    module: &Module,
    index: &Index,
    function: &Function,
) -> Result<Vec<TailCall>, Refusal> {
    let Function { address, size, language, .. } = function;
    let flow = Flow::follow(&Binary::new(module, index), *address, *size, *language)?;
    let inside = address.0..address.0.saturating_add(*size);
    let call = |(at, step): (&u64, &Step)| {
        let is_jump = step.instruction.flow_control() == FlowControl::UnconditionalBranch;
        let target = step.instruction.near_branch_target();
        (is_jump && !inside.contains(&target))
            .then(|| TailCall { target: VirtAddr(target), third_is_zero: clears_third(&flow, *at) })
    };
    Ok(flow.steps.iter().filter_map(call).collect())
}

/// Whether the last of the instructions before a jump that changes `rdx` clears it, on the only way there.
fn clears_third(flow: &Flow, jump: u64) -> bool {
    let mut factory = InstructionInfoFactory::new();
    let mut at = jump;
    for (before, step) in flow.steps.range(..jump).rev().take(LOOKED_AT) {
        let is_next = step.instruction.next_ip() == at;
        let falls = step.instruction.flow_control() == FlowControl::Next;
        if !is_next || !falls || flow.is_target(at) {
            return false;
        }
        let changes = factory.info(&step.instruction).used_registers().iter().any(|used| {
            let writes = matches!(
                used.access(),
                OpAccess::Write
                    | OpAccess::ReadWrite
                    | OpAccess::CondWrite
                    | OpAccess::ReadCondWrite
            );
            writes && used.register().full_register() == Register::RDX
        });
        if changes {
            let is_third = |operand| {
                step.instruction.op_kind(operand) == OpKind::Register
                    && matches!(
                        step.instruction.op_register(operand),
                        Register::EDX | Register::RDX
                    )
            };
            return step.instruction.mnemonic() == Mnemonic::Xor && is_third(0) && is_third(1);
        }
        at = *before;
    }
    false
}
