//! Where control goes behind an instruction.

use iced_x86::{FlowControl, Instruction, Mnemonic};

use super::walk::Walk;
use super::{Ending, Next, Step};
use crate::inspect::address::VirtAddr;
use crate::inspect::code::Refusal;
use crate::inspect::code::program::{Program, Whereabouts};
use crate::inspect::code::state::State;

impl<P: Program> Walk<'_, P> {
    pub(super) fn next(&mut self, step: &mut Step, state: &State) -> Result<Next, Refusal> {
        let instruction = &step.instruction;
        let address = VirtAddr(instruction.ip());
        Ok(match instruction.flow_control() {
            FlowControl::Next => match instruction.mnemonic() {
                Mnemonic::Hlt | Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 => Next::Nothing,
                _ => Next::Follows,
            },
            FlowControl::Call | FlowControl::IndirectCall => {
                // A system call is one to iced, and goes on.
                if instruction.mnemonic() != Mnemonic::Call {
                    return Ok(Next::Follows);
                }
                step.landing_pad = self.landing_pad(address)?;
                if self.noreturn.contains(&address.0) { Next::Nothing } else { Next::Returns }
            }
            FlowControl::ConditionalBranch => self.branch(instruction, state)?,
            FlowControl::UnconditionalBranch => {
                let target = instruction.near_branch_target();
                if self.is_inside(target) {
                    return Ok(Next::Jump(vec![target]));
                }
                self.leave(address, VirtAddr(target), state)?
            }
            FlowControl::IndirectBranch => self.computed(instruction, state)?,
            FlowControl::Return => self.end(address, Ending::Return, state),
            FlowControl::Interrupt | FlowControl::Exception | FlowControl::XbeginXabortXend => {
                match instruction.mnemonic() {
                    Mnemonic::Int | Mnemonic::Xend | Mnemonic::Xabort => Next::Follows,
                    // Where it goes on when the transaction is aborted.
                    Mnemonic::Xbegin => self.branch(instruction, state)?,
                    _ => Next::Nothing,
                }
            }
        })
    }

    /// A jump that may be taken or not.
    fn branch(&mut self, instruction: &Instruction, state: &State) -> Result<Next, Refusal> {
        let (from, target) = (VirtAddr(instruction.ip()), instruction.near_branch_target());
        if self.is_inside(target) {
            return Ok(Next::Branch(target));
        }
        let ending = match self.program.whereabouts(VirtAddr(target)) {
            Whereabouts::Piece(range) | Whereabouts::Unnamed(range) => {
                self.add_region(range.start.0..range.end.0)?;
                return Ok(Next::Branch(target));
            }
            Whereabouts::ReturnThunk => Ending::Return,
            Whereabouts::Start | Whereabouts::Midst => Ending::TailCall,
            Whereabouts::Nowhere => {
                self.refuse(Refusal::SharedCode(from));
                Ending::TailCall
            }
        };
        if !instruction.is_jcc_short_or_near() {
            self.refuse(Refusal::ConditionalEnd(from));
        }
        self.end(from, ending, state);
        Ok(Next::EndIf(ending))
    }

    /// Where a call goes on that throws; it may be in a piece of the function.
    fn landing_pad(&mut self, call: VirtAddr) -> Result<Option<(u64, u64)>, Refusal> {
        let Some((pad, popped)) = self.program.landing_pad(call) else { return Ok(None) };
        if !self.is_inside(pad.0) {
            match self.program.whereabouts(pad) {
                Whereabouts::Piece(range) | Whereabouts::Unnamed(range) => {
                    self.add_region(range.start.0..range.end.0)?;
                }
                _ => return Ok(None),
            }
        }
        Ok(Some((pad.0, popped)))
    }

    /// A jump out of what is known of the function.
    fn leave(&mut self, from: VirtAddr, target: VirtAddr, state: &State) -> Result<Next, Refusal> {
        let whereabouts = self.program.whereabouts(target);
        let at_return = state.stack_pointer() == Some(0);
        Ok(match whereabouts {
            Whereabouts::Piece(range) => {
                self.add_region(range.start.0..range.end.0)?;
                Next::Jump(vec![target.0])
            }
            Whereabouts::Unnamed(range) if state.stack_pointer().is_some_and(|sp| sp != 0) => {
                self.add_region(range.start.0..range.end.0)?;
                Next::Jump(vec![target.0])
            }
            Whereabouts::ReturnThunk => self.end(from, Ending::Return, state),
            Whereabouts::Start | Whereabouts::Unnamed(_) => self.end(from, Ending::TailCall, state),
            Whereabouts::Midst if at_return => self.end(from, Ending::TailCall, state),
            Whereabouts::Midst | Whereabouts::Nowhere => {
                self.refuse(Refusal::SharedCode(from));
                Next::Nothing
            }
        })
    }

    pub(super) fn end(&mut self, address: VirtAddr, ending: Ending, state: &State) -> Next {
        match (state.stack_pointer(), ending) {
            (Some(0), _) => {}
            (Some(_), Ending::TailCall) => self.refuse(Refusal::SharedCode(address)),
            _ => self.refuse(Refusal::StackUnknown(address)),
        }
        Next::End(ending)
    }
}
