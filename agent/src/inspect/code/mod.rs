//! Where the probes of a function go, by its machine code.
//!
//! The code is followed from the entry, both ways at each branch; what is not reached is not probed, so
//! that data between the code never is. The stack pointer is followed along, so that each end of the
//! function is known to stand at its return address. What cannot be proved is a [`Refusal`].

mod argument;
mod entry;
mod flow;
mod kernel;
mod leaving;
mod program;
mod state;
mod tail;

use iced_x86::{Decoder, DecoderOptions};

use super::address::VirtAddr;
use super::demangle::{Language, Variant};
use super::elf::Module;
use super::symbols::{Function, Index};
use crate::function::site::{CostClass, Placement, Site, SiteKind};
use flow::{Ending, Flow};
use kernel::Handling;

pub use argument::{Kept, argument_before};
pub use leaving::{Leaving, place_leaving};
pub use program::{Binary, Program, Whereabouts};
pub use tail::{TailCall, tail_calls};

/// Why a function is not probed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The symbol is that of what chooses a function at load time.
    #[error("it is chosen at load time (IFUNC): trace what it resolves to")]
    Resolver,
    /// Its bytes are not in the file.
    #[error("its code cannot be read from the file")]
    Unreadable,
    /// The code does not decode.
    #[error("the bytes at {:#x} are no instruction", .0.0)]
    Undecodable(VirtAddr),
    /// What is in the file is not what runs: a probe would have the kernel run the former.
    #[error("the loader writes into the instruction at {:#x}", .0.0)]
    Relocated(VirtAddr),
    /// More code than is looked at.
    #[error("it has more than {} instructions", flow::INSTRUCTIONS_MAX)]
    TooLarge,
    /// Its ways are too many.
    #[error("following its code takes more than {} steps", flow::LOOKS_MAX)]
    Tangled,
    /// The code runs on into what follows it, and that is no function or the frame still stands.
    #[error("its code runs on into what follows it at {:#x}", .0.0)]
    RunsOn(VirtAddr),
    /// A jump whose destinations are not known.
    #[error("the jump at {:#x} goes where no table tells", .0.0)]
    UnresolvedJump(VirtAddr),
    /// A branch into another function that asks a register (`jrcxz`, `loop`): a probe asks the flags alone.
    #[error("it may end at the conditional jump at {:#x}", .0.0)]
    ConditionalEnd(VirtAddr),
    /// A jump into the midst or to the start of other code while the frame still stands.
    #[error("it jumps into other code at {:#x} with its frame standing", .0.0)]
    SharedCode(VirtAddr),
    /// It is not proved that the stack pointer is at the return address.
    #[error("the stack pointer is not known at the end at {:#x}", .0.0)]
    StackUnknown(VirtAddr),
    /// The kernel puts no probe on the instruction.
    #[error("the kernel refuses a probe on the instruction at {:#x}", .0.0)]
    Instruction(VirtAddr),
    /// Two paths read the same bytes as different instructions.
    #[error("the instruction at {:#x} overlaps another", .0.0)]
    Overlap(VirtAddr),
    /// Every call would be counted more than once.
    #[error("its first instructions are within a loop")]
    EntryInLoop,
    /// There is no instruction for the entry beside those of the ends.
    #[error("it is shorter than its probes")]
    Short,
    /// More ends than are probed.
    #[error("it has more than {ENDS_MAX} ends")]
    Ends,
}

/// Most ends that are probed of one function.
pub const ENDS_MAX: usize = 1024;

/// All the probes of a function.
pub fn place(module: &Module, index: &Index, function: &Function) -> Result<Placement, Refusal> {
    if function.variant == Variant::Resolver {
        return Err(Refusal::Resolver);
    }
    place_in(&Binary::new(module, index), function.address, function.size, function.language)
}

/// The probe of a function's entry alone, where it is not asked when it ends.
pub fn place_entry(module: &Module, index: &Index, function: &Function) -> Result<Site, Refusal> {
    if function.variant == Variant::Resolver {
        return Err(Refusal::Resolver);
    }
    let program = Binary::new(module, index);
    let flow = Flow::follow(&program, function.address, function.size, function.language)?;
    entry(&program, &flow, function.language, &[])
}

/// All the probes of the function at an address of a program.
pub fn place_in(
    program: &impl Program,
    address: VirtAddr,
    size: u64,
    language: Language,
) -> Result<Placement, Refusal> {
    let flow = Flow::follow(program, address, size, language)?;
    if let Some(refusal) = flow.refusal() {
        return Err(refusal);
    }
    let ends: Vec<_> = flow.endings().collect();
    if ends.len() > ENDS_MAX {
        return Err(Refusal::Ends);
    }
    if let Some((address, ending)) = entry::ends_at_once(&flow) {
        let kind = match ending {
            Ending::Return => SiteKind::EntryAndReturn,
            Ending::TailCall => SiteKind::EntryAndTailCall,
        };
        let entry = site(program, &flow, address, kind, 0)?;
        return Ok(Placement { entry, ends: Vec::new() });
    }
    let taken: Vec<_> = ends.iter().map(|(address, _)| *address).collect();
    let entry = entry(program, &flow, language, &taken)?;
    let ends = ends.into_iter().map(|(address, ending)| {
        let kind = match ending {
            Ending::Return => SiteKind::Return,
            Ending::TailCall => SiteKind::TailCall,
        };
        // Something is left to be popped where it runs on into what follows.
        let pushed = flow.pushed(address).ok_or(Refusal::StackUnknown(address))?;
        site(program, &flow, address, kind, pushed)
    });
    Ok(Placement { entry, ends: ends.collect::<Result<_, _>>()? })
}

/// How many bytes the instruction has that these begin with.
pub fn instruction_length(bytes: &[u8]) -> Option<usize> {
    let instruction = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
    (!instruction.is_invalid()).then(|| instruction.len())
}

fn entry(
    program: &impl Program,
    flow: &Flow,
    language: Language,
    taken: &[VirtAddr],
) -> Result<Site, Refusal> {
    let (address, pushed) = entry::choose(flow, language, taken)?;
    site(program, flow, address, SiteKind::Entry, pushed)
}

fn site(
    program: &impl Program,
    flow: &Flow,
    address: VirtAddr,
    kind: SiteKind,
    sp_adjust: i32,
) -> Result<Site, Refusal> {
    let cost = match flow.handling(address) {
        Some(Handling::Emulated) => CostClass::Emulated,
        Some(Handling::Stepped) => CostClass::Stepped,
        Some(Handling::Refused) | None => return Err(Refusal::Instruction(address)),
    };
    if flow.overlaps(address) {
        return Err(Refusal::Overlap(address));
    }
    let offset = program.offset(address).ok_or(Refusal::Unreadable)?;
    // A call is entered whether it jumps there or not.
    let jumps_if = if kind.is_entry() { None } else { flow.leaves_if(address) };
    Ok(Site { address, offset, kind, jumps_if, sp_adjust, cost })
}

#[cfg(test)]
mod tests;
