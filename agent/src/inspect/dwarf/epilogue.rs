//! Whether a function's code returns the address of a result that it wrote into memory. Calling
//! conventions say so; LLVM does not keep to them for functions that nothing outside calls.

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
