//! What Go's table says of one instruction: how much stack its function has there, and the calls that it
//! is in the middle of, those that the compiler has inlined too (`runtime/symtab.go`, `symtabinl.go`).

use super::{Table, u32_at};
use crate::inspect::address::VirtAddr;

/// `internal/abi`: `PCDATA_InlTreeIndex` and `FUNCDATA_InlTree`.
const INLINE_INDEX: usize = 2;
const INLINE_TREE: usize = 3;

/// `internal/abi.FuncFlag`: nobody calls the function; it goes on with another stack.
const OUTERMOST: u8 = 1;
const SWITCHES: u8 = 1 << 1;

/// Bytes of a `runtime.inlinedCall`: what it is of, three that say nothing, the name, where it was inlined,
/// the line where the function begins.
const INLINED_BYTES: u32 = 16;

/// Most calls that are inlined into each other.
const INLINED_MAX: usize = 64;

/// A function, as it is called or inlined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// The file that the instruction is of; empty if unknown.
    pub file: String,
    /// The line; 0 if unknown.
    pub line: u32,
    /// Whether it was inlined into the next one.
    pub is_inlined: bool,
}

/// A function of the table, as its own record describes it (`runtime._func`).
#[derive(Clone, Copy, Debug)]
pub struct Function<'data> {
    table: Table<'data>,
    /// Its first instruction.
    pub address: VirtAddr,
    record: &'data [u8],
}

impl<'data> Table<'data> {
    /// The function that an instruction is of. Tables of Go 1.17 and before are not looked into.
    pub fn function(&self, address: VirtAddr) -> Option<Function<'data>> {
        self.text?;
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.row(middle)?.0 <= address.0 {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let (start, record) = self.row(low.checked_sub(1)?)?;
        // Behind the last function there is one more row with the end of the text.
        let (end, _) = self.row(low)?;
        let record = self.functions.get(usize::try_from(record).ok()?..)?;
        (address.0 < end).then_some(Function { table: *self, address: VirtAddr(start), record })
    }
}

impl Function<'_> {
    fn field(&self, number: usize) -> Option<u32> {
        u32_at(self.record, 4 * number)
    }

    /// Go 1.20 has one word more, with the line where the function begins.
    fn flags_at(&self) -> usize {
        if self.table.has_lines_of_functions { 40 } else { 36 }
    }

    fn flags(&self) -> u8 {
        self.record.get(self.flags_at() + 1).copied().unwrap_or_default()
    }

    /// Its name.
    pub fn name(&self) -> Option<String> {
        self.table.name(self.field(1)?)
    }

    /// Whether nobody has called it.
    pub fn is_outermost(&self) -> bool {
        self.flags() & OUTERMOST != 0
    }

    /// Whether it goes on with another stack, so that what lies above on this one is not its caller's.
    pub fn switches_stacks(&self) -> bool {
        self.flags() & SWITCHES != 0
    }

    /// How far below the slot with its return address the stack pointer is at an instruction.
    pub fn frame(&self, address: VirtAddr) -> Option<u32> {
        self.table.frame(self.field(4)?, self.offset(address)?)
    }

    fn offset(&self, address: VirtAddr) -> Option<u32> {
        u32::try_from(address.0.checked_sub(self.address.0)?).ok()
    }

    /// The calls that an instruction is in the middle of, the innermost first. `words` reads from what the
    /// linker calls `go:func.*`; without it, what is inlined is not known, and then neither are file and
    /// line where something is.
    pub fn calls(
        &self,
        address: VirtAddr,
        words: Option<&dyn Fn(u32) -> Option<[u32; 4]>>,
    ) -> Option<Vec<Call>> {
        let mut calls = Vec::new();
        let mut offset = self.offset(address)?;
        let index_at = |offset| {
            let table = self.pcdata(INLINE_INDEX)?;
            let index = self.table.value(table, offset)?;
            u32::try_from(index).ok()
        };
        let tree = self.funcdata(INLINE_TREE).zip(words);
        let mut is_placed = true;
        while let Some(index) = index_at(offset) {
            let Some((tree, words)) = tree.filter(|_| calls.len() < INLINED_MAX) else {
                is_placed = false;
                break;
            };
            let at = index.checked_mul(INLINED_BYTES)?.checked_add(tree)?;
            let [_, name, parent, _] = words(at)?;
            let (file, line) = self.place(offset)?;
            calls.push(Call { name: self.table.name(name)?, file, line, is_inlined: true });
            offset = parent;
        }
        let place = if is_placed { self.place(offset) } else { None };
        let (file, line) = place.unwrap_or_default();
        calls.push(Call { name: self.name()?, file, line, is_inlined: false });
        Some(calls)
    }

    fn place(&self, offset: u32) -> Option<(String, u32)> {
        let number = u32::try_from(self.table.value(self.field(5)?, offset)?).ok()?;
        let file = self.table.file_of(self.field(8)?, number)?;
        let line = u32::try_from(self.table.value(self.field(6)?, offset)?).ok()?;
        Some((String::from_utf8_lossy(file).into_owned(), line))
    }

    /// The table of values by instruction with a number; `None` if there is none.
    fn pcdata(&self, number: usize) -> Option<u32> {
        let count = self.field(7)? as usize;
        let table = self.field((self.flags_at() + 4) / 4 + number)?;
        (number < count && table != 0).then_some(table)
    }

    /// Where in `go:func.*` the data with a number begins.
    fn funcdata(&self, number: usize) -> Option<u32> {
        let count = *self.record.get(self.flags_at() + 3)?;
        let tables = self.field(7)? as usize;
        let at = self.field((self.flags_at() + 4) / 4 + tables.checked_add(number)?)?;
        (number < usize::from(count) && at != u32::MAX).then_some(at)
    }
}
