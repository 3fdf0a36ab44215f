//! Line tables: from addresses to source positions. Runs a unit's program once for all addresses that are
//! asked for and keeps none of its rows.

use gimli::{IncompleteLineProgram, LineInstruction, LineRow, Reader};

use crate::inspect::address::VirtAddr;

/// Longest header: names of files and directories.
const HEADER_MAX: u64 = 192 << 10;

/// A position by the number of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) file: u64,
    /// 0: of no line.
    pub(super) line: u64,
}

/// Whether a table's header is of a length that is read.
pub(super) fn is_short<R: Reader>(mut table: R) -> gimli::Result<bool> {
    let (_, format) = table.read_initial_length()?;
    if table.read_u16()? >= 5 {
        // The sizes of an address and of a segment's number.
        table.read_u16()?;
    }
    let length = table.read_length(format)?;
    Ok(gimli::ReaderOffset::into_u64(length) <= HEADER_MAX)
}

/// The rows of addresses, which are ascending.
pub(super) fn rows<R: Reader>(
    program: &mut IncompleteLineProgram<R>,
    wanted: &[VirtAddr],
) -> Vec<Option<Row>> {
    let mut found = vec![None; wanted.len()];
    // What stands before the damage of a damaged table is good.
    let _ = run(program, wanted, &mut found);
    found
}

fn run<R: Reader>(
    program: &mut IncompleteLineProgram<R>,
    wanted: &[VirtAddr],
    found: &mut [Option<Row>],
) -> gimli::Result<()> {
    let mut instructions = program.header().instructions();
    let mut row = LineRow::new(program.header());
    // The last row, if one of the same sequence precedes. Code that the linker dropped lies at 0.
    let mut last: Option<(u64, Row)> = None;
    let mut is_dropped = false;
    while let Some(instruction) = instructions.next_instruction(program.header())? {
        // Not written by compilers, and each would take memory.
        if matches!(instruction, LineInstruction::DefineFile(_)) {
            continue;
        }
        if !row.execute(instruction, program)? {
            continue;
        }
        let address = row.address();
        match last {
            Some((from, position)) => {
                if !is_dropped && address > from {
                    let first = wanted.partition_point(|at| at.0 < from);
                    let behind = wanted.partition_point(|at| at.0 < address);
                    for slot in found.get_mut(first..behind).unwrap_or_default() {
                        slot.get_or_insert(position);
                    }
                }
            }
            None => is_dropped = address == 0,
        }
        let position =
            Row { file: row.file_index(), line: row.line().map_or(0, std::num::NonZeroU64::get) };
        last = (!row.end_sequence()).then_some((address, position));
        row.reset(program.header());
    }
    Ok(())
}
