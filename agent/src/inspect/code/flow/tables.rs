//! Jumps through a register or memory: by tables of the function's own, or out of it.

use std::collections::BTreeSet;
use std::rc::Rc;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};

use super::walk::Walk;
use super::{Ending, Next};
use crate::inspect::address::VirtAddr;
use crate::inspect::code::Refusal;
use crate::inspect::code::program::{Program, Whereabouts};
use crate::inspect::code::state::{self, Bound, State};

/// Most entries of a table of jumps.
const TABLE_MAX: u64 = 4096;

impl<P: Program> Walk<'_, P> {
    /// A jump through a register or memory: by a table of the function's own, or a tail call.
    pub(super) fn computed(&mut self, jump: &Instruction, state: &State) -> Result<Next, Refusal> {
        let address = VirtAddr(jump.ip());
        let by_table = state.jump_table(jump).or_else(|| self.only_table(jump, state));
        let Some((table, base, most)) = by_table else {
            if state.stack_pointer() == Some(0) && state.is_pointer(jump) {
                return Ok(self.end(address, Ending::TailCall, state));
            }
            self.refuse(Refusal::UnresolvedJump(address));
            return Ok(Next::Nothing);
        };
        let targets = self.bounded(table, base, most);
        if targets.is_empty() {
            let is_plain = base.is_none() && state.stack_pointer() == Some(0);
            if is_plain && self.holds_functions(table) {
                return Ok(self.end(address, Ending::TailCall, state));
            }
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
        // Some of a bounded table lead into pieces. What no symbol names is one if the frame still stands.
        let is_framed = state.stack_pointer().is_some_and(|sp| sp != 0);
        let mut all = BTreeSet::new();
        for target in targets {
            if !self.is_inside(target) {
                match self.program.whereabouts(VirtAddr(target)) {
                    Whereabouts::Piece(range) => self.add_region(range.start.0..range.end.0)?,
                    Whereabouts::Unnamed(range) if is_framed => {
                        self.add_region(range.start.0..range.end.0)?;
                    }
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

    /// The table of a jump whose register is not known to hold one: compilers keep the address in it over
    /// calls, and behind one that does not return, where nobody uses it, there may be something else in it.
    /// If one table alone is ever loaded into that register it is this.
    fn only_table(
        &mut self,
        jump: &Instruction,
        state: &State,
    ) -> Option<(u64, Option<u64>, Option<Bound>)> {
        let (register, most) = state.table_register(jump)?;
        let swept = self.swept();
        let loaded = swept.loaded.iter().filter(|(to, _)| *to == register);
        let loaded: BTreeSet<u64> = loaded.map(|(_, table)| *table).collect();
        let mut tables =
            loaded.into_iter().filter(|table| !self.bounded(*table, Some(*table), most).is_empty());
        let table = tables.next()?;
        tables.next().is_none().then_some((table, Some(table), most))
    }

    /// Reads a table for indices up to a bound.
    fn bounded(&mut self, table: u64, base: Option<u64>, most: Option<Bound>) -> Vec<u64> {
        match most {
            Some(Bound { most, is_exact }) if u64::from(most) < TABLE_MAX => {
                self.targets(table, base, u64::from(most) + 1, is_exact)
            }
            _ => self.targets(table, base, TABLE_MAX, false),
        }
    }

    /// Whether a place holds pointers to functions, as programs make tables of, and none into this one, as
    /// a table of its jumps would. Which index is used is not known, so all that may belong to it is looked
    /// at.
    fn holds_functions(&self, table: u64) -> bool {
        let bytes = usize::try_from(TABLE_MAX * 8).unwrap_or_default();
        let bytes = self.program.read(VirtAddr(table), bytes);
        let (words, _) = bytes.as_chunks::<8>();
        let mut pointers = words.iter().zip((table..).step_by(8)).map(|(word, slot)| {
            let relocated = self.program.relocated(VirtAddr(slot));
            relocated.map_or(u64::from_le_bytes(*word), |target| target.0)
        });
        let is_function = |target: u64| {
            let address = VirtAddr(target);
            !self.is_inside(target)
                && match self.program.whereabouts(address) {
                    Whereabouts::Start => true,
                    // Stripped. Nobody points to pieces.
                    Whereabouts::Unnamed(_) => self.program.is_described_from(address),
                    _ => false,
                }
        };
        pointers.next().is_some_and(is_function) && !pointers.any(|target| self.is_inside(target))
    }

    /// Reads a table. Of one whose size is not known, as far as it leads to instructions of this
    /// function, by a sweep over the function's own code.
    fn targets(&mut self, table: u64, base: Option<u64>, count: u64, bounded: bool) -> Vec<u64> {
        let size = if base.is_some() { 4 } else { 8 };
        let bytes = usize::try_from(count * size).unwrap_or_default();
        let bytes = self.program.read(VirtAddr(table), bytes);
        let swept = self.swept();
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

    fn swept(&mut self) -> Rc<Swept> {
        let swept = match &self.swept {
            Some((regions, swept)) if *regions == self.regions.len() => Rc::clone(swept),
            _ => Rc::new(self.sweep()),
        };
        self.swept = Some((self.regions.len(), Rc::clone(&swept)));
        swept
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
                    let address = instruction.ip_rel_memory_address();
                    swept.addresses.push(address);
                    let register = state::number(instruction.op0_register());
                    swept.loaded.extend(register.map(|register| (register, address)));
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
pub(super) struct Swept {
    /// Where instructions begin, in order.
    starts: Vec<u64>,
    /// Addresses that it makes, in order.
    addresses: Vec<u64>,
    /// Into which register each.
    loaded: Vec<(usize, u64)>,
}
