//! Whether code needs what a register holds when it is entered. What it does not need, callers may leave out or
//! spoil: the register's debug information is the same.

use std::collections::HashSet;

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register,
};

use super::prologue::dwarf;
use crate::inspect::address::VirtAddr;

/// Most instructions that are looked at.
const INSTRUCTIONS_MAX: usize = 2048;

/// Whether on every way through the code a register, by DWARF's number, is filled before it is read, or not read.
/// Whatever is called may read it, and so may what is jumped to.
pub(super) fn is_spoilt(code: &[u8], address: VirtAddr, register: u8) -> bool {
    let mut factory = InstructionInfoFactory::new();
    let mut seen = HashSet::new();
    let mut ways = vec![address.0];
    while let Some(mut at) = ways.pop() {
        loop {
            if seen.len() >= INSTRUCTIONS_MAX {
                return false;
            }
            if !seen.insert(at) {
                break;
            }
            let from = at.checked_sub(address.0).and_then(|from| usize::try_from(from).ok());
            let Some(rest) = from.and_then(|from| code.get(from..)) else { return false };
            let mut decoder = Decoder::with_ip(64, rest, at, DecoderOptions::NONE);
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                return false;
            }
            let mut is_filled = false;
            for used in factory.info(&instruction).used_registers() {
                let general = used.register().is_gpr();
                if !general || dwarf(used.register().full_register()) != register {
                    continue;
                }
                match used.access() {
                    OpAccess::None | OpAccess::NoMemAccess => {}
                    // What is written in part is kept in part.
                    OpAccess::Write if used.register().size() >= 4 => is_filled = true,
                    _ => return false,
                }
            }
            match instruction.flow_control() {
                FlowControl::Next if is_filled => break,
                FlowControl::Next => at = instruction.next_ip(),
                FlowControl::ConditionalBranch => {
                    ways.push(instruction.near_branch_target());
                    at = instruction.next_ip();
                }
                FlowControl::UnconditionalBranch => at = instruction.near_branch_target(),
                FlowControl::Return | FlowControl::Exception => break,
                _ => return false,
            }
        }
    }
    true
}

/// The registers, by DWARF's number, whose arguments are still there when a function of Go's begins anew, because
/// its stack was too small or somebody else was to run: those that it loads again. `None`: it does not begin anew.
pub(super) fn kept_by_go(code: &[u8], address: VirtAddr) -> Option<Vec<u8>> {
    let mut kept = Vec::new();
    let mut is_loading = false;
    for instruction in Decoder::with_ip(64, code, address.0, DecoderOptions::NONE) {
        match instruction.flow_control() {
            FlowControl::Call => {
                kept.clear();
                is_loading = true;
            }
            FlowControl::UnconditionalBranch
                if is_loading && instruction.near_branch_target() == address.0 =>
            {
                return Some(kept);
            }
            _ if is_loading
                && matches!(instruction.mnemonic(), Mnemonic::Mov | Mnemonic::Movzx)
                && instruction.op0_register().is_gpr()
                && instruction.op1_kind() == OpKind::Memory
                && instruction.memory_base() == Register::RSP =>
            {
                kept.push(dwarf(instruction.op0_register().full_register()));
            }
            // Floats are loaded, too.
            _ if instruction.op0_register().is_xmm() => {}
            _ => is_loading = false,
        }
    }
    None
}
