//! Follows a function block by block, with the stack pointer along, until nothing new is reached.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashSet};
use std::ops::Range;
use std::rc::Rc;

use iced_x86::{Decoder, DecoderOptions, InstructionInfoFactory, Mnemonic};

use super::tables::Swept;
use super::{Ending, INSTRUCTIONS_MAX, Next, Step};
use crate::inspect::address::VirtAddr;
use crate::inspect::code::Refusal;
use crate::inspect::code::kernel;
use crate::inspect::code::program::{Program, Whereabouts};
use crate::inspect::code::state::State;
use crate::inspect::demangle::Language;

/// Most bytes of a function and of each of its pieces.
const BYTES_MAX: u64 = 4 << 20;

/// Most bytes between two functions of which one runs on into the other.
const PADDING_MAX: u64 = 64;

/// Most pieces beside the function's own code.
const PIECES_MAX: usize = 64;

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

pub(super) enum Walked {
    Done,
    NoReturn(Vec<u64>),
}

pub(super) struct Walk<'a, P> {
    pub(super) program: &'a P,
    /// The function's own code, then its pieces.
    pub(super) regions: Vec<(Range<u64>, Vec<u8>)>,
    language: Language,
    pub(super) noreturn: &'a BTreeSet<u64>,
    found_noreturn: Vec<u64>,
    blocks: BTreeMap<u64, Block>,
    /// Blocks to follow, the last one first, and which of them have not been since.
    waiting: Vec<u64>,
    due: HashSet<u64, foldhash::fast::RandomState>,
    /// What follows calls, lowest address first: what does not return is mostly at the end.
    behind_calls: BinaryHeap<Reverse<(u64, u64)>>,
    states_behind: BTreeMap<u64, State>,
    pub(super) steps: BTreeMap<u64, Step>,
    info: InstructionInfoFactory,
    /// What a sweep over so many regions saw.
    pub(super) swept: Option<(usize, Rc<Swept>)>,
    pub(super) refusal: Option<Refusal>,
    /// How many instructions may be looked at yet.
    looks: &'a mut usize,
}

/// rbx, rbp, r12 to r15 (System V psABI, 3.2.3).
const PRESERVED: [usize; 6] = [3, 5, 12, 13, 14, 15];
/// Go preserves the frame pointer and its `g` (ABIInternal).
const PRESERVED_GO: [usize; 2] = [5, 14];

impl<'a, P: Program> Walk<'a, P> {
    pub(super) fn new(
        program: &'a P,
        entry: VirtAddr,
        size: u64,
        language: Language,
        noreturn: &'a BTreeSet<u64>,
        looks: &'a mut usize,
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
            looks,
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

    pub(super) fn add_region(&mut self, range: Range<u64>) -> Result<(), Refusal> {
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

    pub(super) fn is_inside(&self, address: u64) -> bool {
        self.regions.iter().any(|(range, _)| range.contains(&address))
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refusal.get_or_insert(refusal);
    }

    pub(super) fn run(&mut self) -> Result<Walked, Refusal> {
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
        let mut last = None;
        loop {
            if address != start && self.blocks.contains_key(&address) {
                self.edge(address, state, way);
                return Ok(());
            }
            *self.looks = self.looks.checked_sub(1).ok_or(Refusal::Tangled)?;
            let Some((bytes, region_end)) = self.bytes(address) else {
                // Padding behind a call that does not return.
                if !idle_since_call {
                    self.run_on(last, address, &state);
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
            let code = VirtAddr(address)..VirtAddr(instruction.next_ip());
            if self.program.is_written_by_loader(&code) {
                return Err(Refusal::Relocated(code.start));
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
            last = Some(address);
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
                Next::EndIf(_) => state.branch(&instruction, false),
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

    /// The code runs on into what follows it: an end, if a function begins there and the frame is gone.
    fn run_on(&mut self, last: Option<u64>, address: u64, state: &State) {
        let is_end = state.stack_pointer() == Some(0) && self.begins_behind(address);
        match last.and_then(|last| self.steps.get_mut(&last)).filter(|_| is_end) {
            // Whether it jumps there or not, it leaves.
            Some(Step { next: next @ (Next::Follows | Next::EndIf(Ending::TailCall)), .. }) => {
                *next = Next::End(Ending::TailCall);
            }
            _ => self.refuse(Refusal::RunsOn(VirtAddr(address))),
        }
    }

    /// Whether a function begins at an address, or behind the padding there.
    fn begins_behind(&self, address: u64) -> bool {
        let mut at = address;
        while at < address.saturating_add(PADDING_MAX) {
            if matches!(self.program.whereabouts(VirtAddr(at)), Whereabouts::Start) {
                return true;
            }
            let bytes = self.program.read(VirtAddr(at), 15);
            let instruction = Decoder::with_ip(64, &bytes, at, DecoderOptions::NONE).decode();
            if instruction.mnemonic() != Mnemonic::Nop {
                return false;
            }
            at = instruction.next_ip();
        }
        false
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
}
