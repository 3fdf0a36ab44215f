//! One step outward: from the registers of a function that was called to those of its caller, by the
//! descriptions in `.eh_frame` (LSB, "Exception Frames"; DWARF 5, 6.4). Memory is a copy that somebody
//! hands in; what cannot be read there, or is not described, is an error and never a guess.

use gimli::{
    CfaRule, EhFrame, EhFrameOffset, EvaluationResult, Expression, LittleEndian, Location,
    Register, RegisterRule, UnwindContext, UnwindExpression, UnwindSection, Value,
};

use super::{Row, Unwind};
use crate::inspect::address::VirtAddr;

/// How many registers there are by DWARF's numbers for x86-64, the last of them the address of the next
/// instruction (System V psABI, figure 3.36).
pub const REGISTERS: usize = 17;

const RBX: u16 = 3;
const RBP: u16 = 6;
const RSP: u16 = 7;
const R12: u16 = 12;
const R15: u16 = 15;
const RIP: u16 = 16;

/// Most operations of one expression.
const OPERATIONS_MAX: u32 = 256;

/// What is known of the registers of a function while it calls another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers([Option<u64>; REGISTERS]);

impl Registers {
    /// Of the function that was interrupted: all are known.
    pub fn new(values: [u64; REGISTERS]) -> Self {
        Self(values.map(Some))
    }

    fn get(&self, number: u16) -> Option<u64> {
        self.0.get(usize::from(number)).copied().flatten()
    }

    fn set(&mut self, number: u16, value: Option<u64>) {
        if let Some(register) = self.0.get_mut(usize::from(number)) {
            *register = value;
        }
    }

    /// The address of the next instruction.
    pub fn instruction(&self) -> Option<u64> {
        self.get(RIP)
    }

    /// The stack pointer.
    pub fn stack(&self) -> Option<u64> {
        self.get(RSP)
    }

    /// `rbp`, which some code keeps as its frame pointer.
    pub fn frame(&self) -> Option<u64> {
        self.get(RBP)
    }

    /// What a caller has whose frame pointer, return address and stack are known, and nothing else.
    pub fn of_caller(instruction: u64, stack: u64, frame: Option<u64>) -> Self {
        let mut registers = Self::default();
        registers.set(RIP, Some(instruction));
        registers.set(RSP, Some(stack));
        registers.set(RBP, frame);
        registers
    }
}

/// A copy of a part of a program's memory.
pub trait Memory {
    /// The little-endian number of `bytes` (1 to 8) bytes at an address.
    fn read(&self, address: u64, bytes: u8) -> Option<u64>;
}

/// Who has called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A function, by a call: its registers when that returns.
    Call(Registers),
    /// Whoever a signal has interrupted: its registers then.
    Interrupted(Registers),
    /// Nobody: a thread begins here.
    Nobody,
}

/// Why a step is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// Nothing is said of the code at the address.
    #[error("nothing describes how the code returns")]
    NotDescribed,
    /// What is said makes no sense, or is more than is followed.
    #[error("the description of how the code returns is not understood")]
    NotUnderstood,
    /// It goes on with another stack.
    #[error("another stack is switched to")]
    Switches,
    /// It needs memory that was not copied.
    #[error("the rest of the stack was not copied")]
    NotCopied,
}

impl Unwind {
    /// Steps from the code at `at`, with these registers, to its caller.
    ///
    /// # Errors
    /// If that cannot be told for certain.
    pub fn caller(
        &self,
        at: VirtAddr,
        registers: &Registers,
        memory: &dyn Memory,
    ) -> Result<Caller, StepError> {
        let frame = self.frame(at).ok_or(StepError::NotDescribed)?;
        let table = EhFrame::new(&self.bytes, LittleEndian);
        let entry = EhFrameOffset(frame.entry);
        let fde = table
            .fde_from_offset(&self.bases, entry, EhFrame::cie_from_offset)
            .map_err(|_| StepError::NotUnderstood)?;
        let mut context = UnwindContext::new();
        let row = fde
            .unwind_info_for_address(&table, &self.bases, &mut context, at.0)
            .map_err(|_| StepError::NotUnderstood)?;
        let step = Step { table: &table, encoding: fde.cie().encoding(), registers, memory };
        match step.caller(row)? {
            None => Ok(Caller::Nobody),
            Some(caller) if fde.is_signal_trampoline() => Ok(Caller::Interrupted(caller)),
            Some(caller) => Ok(Caller::Call(caller)),
        }
    }
}

type Section<'a> = EhFrame<gimli::EndianSlice<'a, LittleEndian>>;

struct Step<'a> {
    table: &'a Section<'a>,
    encoding: gimli::Encoding,
    registers: &'a Registers,
    memory: &'a dyn Memory,
}

impl Step<'_> {
    /// `None`: nobody has called.
    fn caller(&self, row: &Row) -> Result<Option<Registers>, StepError> {
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                let base = self.registers.get(register.0).ok_or(StepError::NotUnderstood)?;
                base.wrapping_add_signed(*offset)
            }
            CfaRule::Expression(expression) => self.evaluate(expression, None)?,
        };
        let mut caller = Registers::default();
        caller.set(RSP, Some(cfa));
        for number in 0..=RIP {
            match row.register(Register(number)) {
                Some(rule) => caller.set(number, self.value(number, &rule, cfa)?),
                // What a function has to leave as it found it (psABI, 3.2.1).
                None if matches!(number, RBX | RBP | R12..=R15) => {
                    caller.set(number, self.registers.get(number));
                }
                None => {}
            }
        }
        Ok(caller.instruction().is_some().then_some(caller))
    }

    fn value(
        &self,
        number: u16,
        rule: &RegisterRule<usize>,
        cfa: u64,
    ) -> Result<Option<u64>, StepError> {
        let read = |address| self.memory.read(address, 8).ok_or(StepError::NotCopied);
        Ok(match rule {
            RegisterRule::Undefined => None,
            RegisterRule::SameValue => self.registers.get(number),
            RegisterRule::Offset(offset) => Some(read(cfa.wrapping_add_signed(*offset))?),
            RegisterRule::ValOffset(offset) => Some(cfa.wrapping_add_signed(*offset)),
            RegisterRule::Register(other) => self.registers.get(other.0),
            RegisterRule::Expression(expression) => {
                Some(read(self.evaluate(expression, Some(cfa))?)?)
            }
            RegisterRule::ValExpression(expression) => Some(self.evaluate(expression, Some(cfa))?),
            RegisterRule::Constant(value) => Some(*value),
            _ => return Err(StepError::NotUnderstood),
        })
    }

    fn evaluate(
        &self,
        expression: &UnwindExpression<usize>,
        initial: Option<u64>,
    ) -> Result<u64, StepError> {
        let expression: Expression<_> =
            expression.get(self.table).map_err(|_| StepError::NotUnderstood)?;
        let mut evaluation = expression.evaluation(self.encoding);
        evaluation.set_max_iterations(OPERATIONS_MAX);
        if let Some(initial) = initial {
            evaluation.set_initial_value(initial);
        }
        let mut result = evaluation.evaluate();
        // Every turn but the last answers a question that an operation has asked.
        for _ in 0..OPERATIONS_MAX {
            result = match result.map_err(|_| StepError::NotUnderstood)? {
                EvaluationResult::Complete => {
                    let [piece] = evaluation.as_result() else { break };
                    return match piece.location {
                        Location::Address { address } => Ok(address),
                        Location::Value { value } => {
                            value.to_u64(u64::MAX).map_err(|_| StepError::NotUnderstood)
                        }
                        _ => break,
                    };
                }
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = self.registers.get(register.0).ok_or(StepError::NotUnderstood)?;
                    evaluation.resume_with_register(Value::Generic(value))
                }
                EvaluationResult::RequiresMemory { address, size, space: None, .. } => {
                    let value = self.memory.read(address, size).ok_or(StepError::NotCopied)?;
                    evaluation.resume_with_memory(Value::Generic(value))
                }
                _ => break,
            };
        }
        Err(StepError::NotUnderstood)
    }
}
