//! The instructions that a function reaches from its entry, and how it ends.
//!
//! A call is taken to return. Where that would make the stack pointer differ between two ways to one
//! place, which compilers never do, the call is one that does not return, and all is followed anew.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashSet};
use std::ops::Range;
use std::rc::Rc;

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
};

use super::Refusal;
use super::kernel::{self, Handling};
use super::program::{Program, Whereabouts};
use super::state::{Bound, State};
use crate::inspect::address::VirtAddr;
use crate::inspect::demangle::Language;

/// Most instructions of a function.
pub(super) const INSTRUCTIONS_MAX: usize = 200_000;

/// Most bytes of a function and of each of its pieces.
const BYTES_MAX: u64 = 4 << 20;

/// Most entries of a table of jumps.
const TABLE_MAX: u64 = 4096;

/// Most pieces beside the function's own code.
const PIECES_MAX: usize = 64;

/// How a function ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Return,
    TailCall,
}

/// Where control goes behind an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// To the one that follows.
    Follows,
    /// To the one that follows, once the callee returns.
    Returns,
    /// Nowhere: it traps, or calls what does not return.
    Nothing,
    /// There, or to the one that follows.
    Branch(u64),
    /// To one of these.
    Jump(Vec<u64>),
    /// Out of the function.
    End(Ending),
}

/// An instruction that is reached.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) instruction: Instruction,
    pub(super) handling: Handling,
    pub(super) next: Next,
    /// From the place of the return address to the stack pointer, if known.
    pub(super) stack_pointer: Option<i64>,
    /// Where a call goes on that throws, and the bytes that are off the stack there.
    pub(super) landing_pad: Option<(u64, u64)>,
}

/// The code of a function.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) entry: u64,
    pub(super) steps: BTreeMap<u64, Step>,
    refusal: Option<Refusal>,
}

impl Flow {
    /// Follows a function. What forbids its ends to be probed is for [`Flow::refusal`] to tell.
    pub(super) fn follow(
        program: &impl Program,
        address: VirtAddr,
        size: u64,
        language: Language,
    ) -> Result<Self, Refusal> {
        let mut noreturn = BTreeSet::new();
        loop {
            let mut walk = Walk::new(program, address, size, language, &noreturn)?;
            match walk.run()? {
                Walked::Done => {
                    let Walk { steps, refusal, .. } = walk;
                    return Ok(Self { entry: address.0, steps, refusal });
                }
                Walked::NoReturn(calls) => noreturn.extend(calls),
            }
        }
    }

    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refusal.clone()
    }

    /// The instructions that end the function, by address.
    pub(super) fn endings(&self) -> impl Iterator<Item = (VirtAddr, Ending)> {
        self.steps.iter().filter_map(|(address, step)| match step.next {
            Next::End(ending) => Some((VirtAddr(*address), ending)),
            _ => None,
        })
    }

    pub(super) fn handling(&self, address: VirtAddr) -> Option<Handling> {
        self.steps.get(&address.0).map(|step| step.handling)
    }

    /// Whether another instruction has bytes of the one at an address.
    pub(super) fn overlaps(&self, address: VirtAddr) -> bool {
        let Some(own) = self.steps.get(&address.0) else { return true };
        let end = address.0 + own.instruction.len() as u64;
        let inside = self.steps.range(address.0 + 1..end).next().is_some();
        // No instruction has more than fifteen bytes.
        let mut before = self.steps.range(address.0.saturating_sub(14)..address.0);
        inside || before.any(|(start, step)| start + step.instruction.len() as u64 > address.0)
    }

    /// Whether a jump leads to an address, or what is thrown.
    pub(super) fn is_target(&self, address: u64) -> bool {
        self.steps.values().any(|step| {
            let jumps = match &step.next {
                Next::Branch(target) => *target == address,
                Next::Jump(targets) => targets.contains(&address),
                _ => false,
            };
            jumps || step.landing_pad.is_some_and(|(pad, _)| pad == address)
        })
    }

    /// Where control goes behind an instruction, within the function.
    pub(super) fn successors(&self, address: u64) -> impl Iterator<Item = u64> {
        let step = self.steps.get(&address);
        let behind = step.map(|step| step.instruction.next_ip());
        let (follows, jumps): (_, &[u64]) = match step.map(|step| &step.next) {
            Some(Next::Follows | Next::Returns) => (behind, &[]),
            Some(Next::Branch(target)) => (behind, std::slice::from_ref(target)),
            Some(Next::Jump(targets)) => (None, targets),
            _ => (None, &[]),
        };
        let pad = step.and_then(|step| step.landing_pad).map(|(pad, _)| pad);
        jumps.iter().copied().chain(follows).chain(pad)
    }
}

/// How a way led to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Certain,
    /// Only if the call there returns.
    Behind(u64),
}

/// A run of instructions that is entered at its beginning.
#[derive(Debug)]
struct Block {
    state: State,
    way: Way,
}

/// Which of the calls before two ways is the one that does not return: the one further on in the code,
/// as compilers put what seldom runs at the end.
fn uncertain(one: Way, other: Way) -> Option<u64> {
    match (one, other) {
        (Way::Behind(one), Way::Behind(other)) => Some(one.max(other)),
        (Way::Behind(call), Way::Certain) | (Way::Certain, Way::Behind(call)) => Some(call),
        (Way::Certain, Way::Certain) => None,
    }
}

enum Walked {
    Done,
    NoReturn(Vec<u64>),
}

struct Walk<'a, P> {
    program: &'a P,
    /// The function's own code, then its pieces.
    regions: Vec<(Range<u64>, Vec<u8>)>,
    language: Language,
    noreturn: &'a BTreeSet<u64>,
    found_noreturn: Vec<u64>,
    blocks: BTreeMap<u64, Block>,
    /// Blocks to follow, the last one first, and which of them have not been since.
    waiting: Vec<u64>,
    due: HashSet<u64, foldhash::fast::RandomState>,
    /// What follows calls, lowest address first: what does not return is mostly at the end.
    behind_calls: BinaryHeap<Reverse<(u64, u64)>>,
    states_behind: BTreeMap<u64, State>,
    steps: BTreeMap<u64, Step>,
    info: InstructionInfoFactory,
    /// What a sweep over so many regions saw.
    swept: Option<(usize, Rc<Swept>)>,
    refusal: Option<Refusal>,
}

/// rbx, rbp, r12 to r15 (System V psABI, 3.2.3).
const PRESERVED: [usize; 6] = [3, 5, 12, 13, 14, 15];
/// Go preserves the frame pointer and its `g` (ABIInternal).
const PRESERVED_GO: [usize; 2] = [5, 14];

impl<'a, P: Program> Walk<'a, P> {
    fn new(
        program: &'a P,
        entry: VirtAddr,
        size: u64,
        language: Language,
        noreturn: &'a BTreeSet<u64>,
    ) -> Result<Self, Refusal> {
        let mut walk = Self {
            program,
            regions: Vec::new(),
            language,
            noreturn,
            found_noreturn: Vec::new(),
            blocks: BTreeMap::new(),
            waiting: vec![entry.0],
            due: HashSet::from_iter([entry.0]),
            behind_calls: BinaryHeap::new(),
            states_behind: BTreeMap::new(),
            steps: BTreeMap::new(),
            info: InstructionInfoFactory::new(),
            swept: None,
            refusal: None,
        };
        if size > BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        walk.add_region(entry.0..entry.0.saturating_add(size))?;
        walk.blocks.insert(entry.0, Block { state: State::at_entry(), way: Way::Certain });
        if let Some((address, depth)) = program.recovery(entry)
            && walk.is_inside(address.0)
        {
            walk.edge(address.0, State::with_frame(depth), Way::Certain);
        }
        Ok(walk)
    }

    fn add_region(&mut self, range: Range<u64>) -> Result<(), Refusal> {
        let length = (range.end - range.start).min(BYTES_MAX);
        let length = usize::try_from(length).map_err(|_| Refusal::TooLarge)?;
        let bytes = self.program.read(VirtAddr(range.start), length);
        if bytes.is_empty() || bytes.len() != length {
            return Err(Refusal::Unreadable);
        }
        if self.regions.len() > PIECES_MAX {
            return Err(Refusal::TooLarge);
        }
        self.regions.push((range.start..range.start + length as u64, bytes));
        Ok(())
    }

    fn is_inside(&self, address: u64) -> bool {
        self.regions.iter().any(|(range, _)| range.contains(&address))
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.refusal.get_or_insert(refusal);
    }

    fn run(&mut self) -> Result<Walked, Refusal> {
        loop {
            while let Some(start) = self.waiting.pop() {
                if !self.due.remove(&start) {
                    continue;
                }
                self.block(start)?;
                if self.steps.len() > INSTRUCTIONS_MAX {
                    return Err(Refusal::TooLarge);
                }
                if !self.found_noreturn.is_empty() {
                    return Ok(Walked::NoReturn(std::mem::take(&mut self.found_noreturn)));
                }
            }
            let Some(Reverse((target, call))) = self.behind_calls.pop() else { break };
            if let Some(state) = self.states_behind.remove(&call) {
                self.edge(target, state, Way::Behind(call));
            }
        }
        Ok(Walked::Done)
    }

    /// Follows the instructions from the beginning of a block to its end.
    fn block(&mut self, start: u64) -> Result<(), Refusal> {
        let Some(block) = self.blocks.get(&start) else { return Ok(()) };
        let mut state = block.state.clone();
        let way = block.way;
        let mut address = start;
        let mut idle_since_call = way != Way::Certain;
        loop {
            if address != start && self.blocks.contains_key(&address) {
                self.edge(address, state, way);
                return Ok(());
            }
            let Some((bytes, region_end)) = self.bytes(address) else {
                // Padding behind a call that does not return.
                if !idle_since_call {
                    self.refuse(Refusal::RunsOn(VirtAddr(address)));
                }
                return Ok(());
            };
            let mut decoder = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE);
            let instruction = decoder.decode();
            if instruction.is_invalid() || instruction.next_ip() > region_end {
                // A byte run that decodes to nothing is no code: something was misread.
                self.refuse(Refusal::Undecodable(VirtAddr(address)));
                return Ok(());
            }
            let handling = kernel::handling(bytes.get(..instruction.len()).unwrap_or_default());
            idle_since_call &= instruction.mnemonic() == Mnemonic::Nop;
            let stack_pointer = state.stack_pointer();
            let mut step = Step {
                instruction,
                handling,
                next: Next::Follows,
                stack_pointer,
                landing_pad: None,
            };
            step.next = self.next(&mut step, &state)?;
            let next = step.next.clone();
            let landing_pad = step.landing_pad;
            self.steps.insert(address, step);
            if let Some((pad, popped)) = landing_pad {
                let mut caught = state.clone();
                caught.call(address, self.preserved());
                caught.pop(popped);
                // With a frame pointer GCC does not care what it says of the stack pointer.
                let known = self.blocks.get(&pad).map(|block| block.state.stack_pointer());
                if known.is_some_and(|known| known != caught.stack_pointer()) {
                    caught.forget_stack_pointer(pad);
                }
                self.edge(pad, caught, way);
            }
            match next {
                Next::Follows => state.step(&instruction, &mut self.info),
                Next::Returns => {
                    state.call(address, self.preserved());
                    let target = instruction.next_ip();
                    if self.is_inside(target) {
                        self.states_behind.insert(address, state);
                        self.behind_calls.push(Reverse((target, address)));
                    }
                    return Ok(());
                }
                Next::Branch(target) => {
                    let mut taken = state.clone();
                    taken.branch(&instruction, true);
                    self.edge(target, taken, way);
                    state.branch(&instruction, false);
                }
                Next::Jump(targets) => {
                    for target in targets {
                        self.edge(target, state.clone(), way);
                    }
                    return Ok(());
                }
                Next::Nothing | Next::End(_) => return Ok(()),
            }
            address = instruction.next_ip();
        }
    }

    fn preserved(&self) -> &'static [usize] {
        if self.language == Language::Go { &PRESERVED_GO } else { &PRESERVED }
    }

    /// The bytes from an address to the end of its region.
    fn bytes(&self, address: u64) -> Option<(&[u8], u64)> {
        let (range, bytes) = self.regions.iter().find(|(range, _)| range.contains(&address))?;
        let skipped = usize::try_from(address - range.start).ok()?;
        // The longest instruction has fifteen bytes.
        let rest = bytes.get(skipped..)?;
        Some((rest.get(..15).unwrap_or(rest), range.end))
    }

    /// A way to the beginning of a block.
    fn edge(&mut self, target: u64, state: State, way: Way) {
        if let Some(block) = self.blocks.get_mut(&target) {
            let conflict = match (block.state.stack_pointer(), state.stack_pointer()) {
                (Some(a), Some(b)) => a != b,
                _ => false,
            };
            if conflict && let Some(call) = uncertain(block.way, way) {
                let direct = way == Way::Behind(call)
                    && self.steps.get(&call).is_some_and(|s| s.instruction.next_ip() == target);
                match self.steps.get_mut(&call) {
                    // Nothing was followed behind it yet.
                    Some(step) if direct => step.next = Next::Nothing,
                    _ => self.found_noreturn.push(call),
                }
                return;
            }
            if way == Way::Certain {
                block.way = Way::Certain;
            }
            if block.state.join(&state, target) {
                self.wait(target);
            }
            return;
        }
        // A block that ran through here ends here.
        if self.steps.contains_key(&target)
            && let Some((&start, _)) = self.blocks.range(..target).next_back()
        {
            self.wait(start);
        }
        self.blocks.insert(target, Block { state, way });
        self.wait(target);
    }

    fn wait(&mut self, start: u64) {
        self.due.insert(start);
        self.waiting.push(start);
    }

    fn next(&mut self, step: &mut Step, state: &State) -> Result<Next, Refusal> {
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
            FlowControl::ConditionalBranch => {
                let target = instruction.near_branch_target();
                if self.is_inside(target) {
                    return Ok(Next::Branch(target));
                }
                match self.program.whereabouts(VirtAddr(target)) {
                    Whereabouts::Piece(range) | Whereabouts::Unnamed(range) => {
                        self.add_region(range.start.0..range.end.0)?;
                        Next::Branch(target)
                    }
                    _ => {
                        self.refuse(Refusal::ConditionalEnd(address));
                        Next::Follows
                    }
                }
            }
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
                    Mnemonic::Xbegin => Next::Follows,
                    _ => Next::Nothing,
                }
            }
        })
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

    fn end(&mut self, address: VirtAddr, ending: Ending, state: &State) -> Next {
        match (state.stack_pointer(), ending) {
            (Some(0), _) => {}
            (Some(_), Ending::TailCall) => self.refuse(Refusal::SharedCode(address)),
            _ => self.refuse(Refusal::StackUnknown(address)),
        }
        Next::End(ending)
    }

    /// A jump through a register or memory: by a table of the function's own, or a tail call.
    fn computed(&mut self, jump: &Instruction, state: &State) -> Result<Next, Refusal> {
        let address = VirtAddr(jump.ip());
        let Some((table, base, most)) = state.jump_table(jump) else {
            if state.stack_pointer() == Some(0) && state.is_pointer(jump) {
                return Ok(self.end(address, Ending::TailCall, state));
            }
            self.refuse(Refusal::UnresolvedJump(address));
            return Ok(Next::Nothing);
        };
        let targets = match most {
            Some(Bound { most, is_exact }) if u64::from(most) < TABLE_MAX => {
                self.targets(table, base, u64::from(most) + 1, is_exact)
            }
            _ => self.targets(table, base, TABLE_MAX, false),
        };
        if targets.is_empty() {
            self.refuse(Refusal::UnresolvedJump(address));
            return Ok(Next::Nothing);
        }
        let inside = targets.iter().filter(|target| self.is_inside(**target)).count();
        if inside == targets.len() && inside > 0 {
            let unique: BTreeSet<_> = targets.into_iter().collect();
            return Ok(Next::Jump(unique.into_iter().collect()));
        }
        let starts = |target: &u64| {
            matches!(self.program.whereabouts(VirtAddr(*target)), Whereabouts::Start)
        };
        if inside == 0 && state.stack_pointer() == Some(0) && targets.iter().all(starts) {
            return Ok(self.end(address, Ending::TailCall, state));
        }
        // Some of a bounded table lead into pieces.
        let mut all = BTreeSet::new();
        for target in targets {
            if !self.is_inside(target) {
                match self.program.whereabouts(VirtAddr(target)) {
                    Whereabouts::Piece(range) => self.add_region(range.start.0..range.end.0)?,
                    _ => {
                        self.refuse(Refusal::UnresolvedJump(address));
                        return Ok(Next::Nothing);
                    }
                }
            }
            all.insert(target);
        }
        Ok(Next::Jump(all.into_iter().collect()))
    }

    /// Reads a table. Of one whose size is not known, as far as it leads to instructions of this
    /// function, by a sweep over the function's own code.
    fn targets(&mut self, table: u64, base: Option<u64>, count: u64, bounded: bool) -> Vec<u64> {
        let size = if base.is_some() { 4 } else { 8 };
        let bytes = usize::try_from(count * size).unwrap_or_default();
        let bytes = self.program.read(VirtAddr(table), bytes);
        let swept = match &self.swept {
            Some((regions, swept)) if *regions == self.regions.len() => Rc::clone(swept),
            _ => Rc::new(self.sweep()),
        };
        self.swept = Some((self.regions.len(), Rc::clone(&swept)));
        let mut targets = Vec::new();
        for number in 0..count {
            let at = usize::try_from(number * size).unwrap_or(usize::MAX);
            let slot = VirtAddr(table.wrapping_add(number * size));
            let rest = bytes.get(at..).unwrap_or_default();
            let target = match base {
                Some(base) => rest
                    .first_chunk()
                    .filter(|_| self.program.is_constant(slot))
                    .map(|bytes| base.wrapping_add_signed(i32::from_le_bytes(*bytes).into())),
                None => self.program.relocated(slot).map(|target| target.0).or_else(|| {
                    let bytes = rest.first_chunk().filter(|_| self.program.is_constant(slot));
                    bytes.map(|bytes| u64::from_le_bytes(*bytes))
                }),
            };
            // Where another table begins this one has ended.
            let goes_on = number == 0 || swept.addresses.binary_search(&slot.0).is_err();
            // A table that leads into the midst of an instruction was misread.
            let fits = |target: u64| {
                swept.starts.binary_search(&target).is_ok() || (bounded && !self.is_inside(target))
            };
            match target.filter(|_| bounded || goes_on) {
                Some(target) if fits(target) => targets.push(target),
                _ if bounded => return Vec::new(),
                _ => break,
            }
        }
        targets
    }

    /// Reads all of the function's own code one instruction after the other.
    fn sweep(&self) -> Swept {
        let mut swept = Swept::default();
        for (range, bytes) in &self.regions {
            let decoder = Decoder::with_ip(64, bytes, range.start, DecoderOptions::NONE);
            for instruction in decoder.into_iter().filter(|instruction| !instruction.is_invalid()) {
                swept.starts.push(instruction.ip());
                if instruction.mnemonic() == Mnemonic::Lea && instruction.is_ip_rel_memory_operand()
                {
                    swept.addresses.push(instruction.ip_rel_memory_address());
                }
            }
        }
        swept.starts.sort_unstable();
        swept.addresses.sort_unstable();
        swept
    }
}

/// What is seen in code without following it.
#[derive(Debug, Default)]
struct Swept {
    /// Where instructions begin, in order.
    starts: Vec<u64>,
    /// Addresses that it makes, in order.
    addresses: Vec<u64>,
}
