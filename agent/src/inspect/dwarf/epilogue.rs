//! Whether a function's code returns the address of a result that it wrote into memory, or two numbers. Calling
//! conventions say so; LLVM does not keep to them for functions that nothing outside calls, and by which of two
//! conventions a function of Rust's is called is not said.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register,
};

use crate::inspect::address::VirtAddr;

/// Whether what every `ret` leaves in `rax` came there as a whole from a register or from the stack.
/// Reads straight through the code; whatever it does not understand counts against.
pub(super) fn returns_an_address(code: &[u8], address: VirtAddr) -> bool {
    let mut decoder = Decoder::with_ip(64, code, address.0, DecoderOptions::NONE);
    let mut factory = InstructionInfoFactory::new();
    let mut moved = false;
    let mut returns = 0;
    while decoder.can_decode() {
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return false;
        }
        match instruction.flow_control() {
            FlowControl::Return => {
                returns += 1;
                if !moved {
                    return false;
                }
                continue;
            }
            // What is called leaves its own result there.
            FlowControl::Call | FlowControl::IndirectCall => {
                moved = false;
                continue;
            }
            _ => {}
        }
        let whole = instruction.mnemonic() == Mnemonic::Mov
            && instruction.op0_kind() == OpKind::Register
            && instruction.op0_register() == Register::RAX
            && (instruction.op1_kind() == OpKind::Register
                || instruction.op1_kind() == OpKind::Memory
                    && matches!(instruction.memory_base(), Register::RSP | Register::RBP));
        if whole {
            moved = true;
            continue;
        }
        let writes = factory.info(&instruction).used_registers().iter().any(|used| {
            used.register().is_gpr()
                && used.register().full_register() == Register::RAX
                && !matches!(
                    used.access(),
                    OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
                )
        });
        moved &= !writes;
    }
    returns > 0
}

/// Whether some `ret` finds in `rdx` what was put there for nobody but the caller: since the last call, and not
/// used since then. Reads straight through the code.
pub(super) fn returns_two_numbers(code: &[u8], address: VirtAddr) -> bool {
    let mut decoder = Decoder::with_ip(64, code, address.0, DecoderOptions::NONE);
    let mut factory = InstructionInfoFactory::new();
    let mut given = false;
    while decoder.can_decode() {
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return false;
        }
        match instruction.flow_control() {
            FlowControl::Return if given => return true,
            FlowControl::Return | FlowControl::Call | FlowControl::IndirectCall => {
                given = false;
                continue;
            }
            _ => {}
        }
        // Two numbers are put together in one register.
        if matches!(instruction.mnemonic(), Mnemonic::Shl | Mnemonic::Shld | Mnemonic::Rol)
            && instruction.try_immediate(instruction.op_count() - 1).is_ok_and(|bits| bits == 32)
        {
            return false;
        }
        for used in factory.info(&instruction).used_registers() {
            if used.register().is_gpr() && used.register().full_register() == Register::RDX {
                given = matches!(used.access(), OpAccess::Write);
            }
        }
    }
    false
}
