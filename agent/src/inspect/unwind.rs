//! What `.eh_frame` and the tables beside it say: where pieces of code begin and end, and where an
//! exception goes on that leaves a call (LSB, "Exception Frames"; Itanium C++ ABI, "Exception Handling
//! Tables"). How a function's caller is found is in [`step`].

pub mod step;

use std::ops::Range;

use gimli::{
    BaseAddresses, CieOrFde, EhFrame, EhFrameOffset, LittleEndian, Pointer, UnwindContext,
    UnwindSection,
};

use super::address::VirtAddr;
use super::elf::{ElfError, Module};

/// A run of code with one description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    start: u64,
    end: u64,
    /// Where its table of calls that are caught is; 0: none are.
    handlers: u64,
    /// Where its description is in the section.
    entry: usize,
}

/// The descriptions of a module.
#[derive(Debug, Default)]
pub struct Unwind {
    frames: Vec<Frame>,
    bytes: Vec<u8>,
    bases: BaseAddresses,
}

/// Most descriptions that are kept, and most calls of one.
const FRAMES_MAX: usize = 1 << 22;
const CALLS_MAX: usize = 1 << 16;

/// Most bytes of a table of calls.
const TABLE_MAX: usize = 1 << 20;

impl Unwind {
    /// Reads a module's descriptions; damage ends the reading, and what was read counts.
    pub fn read(module: &Module) -> Result<Self, ElfError> {
        let Some(section) = module.section(".eh_frame") else { return Ok(Self::default()) };
        let bytes = module.section_bytes(section)?;
        let text = module.section(".text").map(|text| text.address);
        Ok(Self::of(bytes, section.address, text))
    }

    /// The descriptions of a section at an address, and where the code begins.
    pub(crate) fn of(bytes: Vec<u8>, address: VirtAddr, text: Option<VirtAddr>) -> Self {
        let bases = BaseAddresses::default().set_eh_frame(address.0);
        let bases = match text {
            Some(text) => bases.set_text(text.0),
            None => bases,
        };
        let table = EhFrame::new(&bytes, LittleEndian);
        let mut entries = table.entries(&bases);
        let mut frames = Vec::new();
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(partial) = entry else { continue };
            let Ok(fde) = partial.parse(EhFrame::cie_from_offset) else { continue };
            if frames.len() == FRAMES_MAX {
                break;
            }
            let handlers = match fde.lsda() {
                Some(Pointer::Direct(address)) => address,
                Some(Pointer::Indirect(_)) | None => 0,
            };
            let start = fde.initial_address();
            let end = start.saturating_add(fde.len());
            frames.push(Frame { start, end, handlers, entry: fde.offset() });
        }
        frames.sort_unstable_by_key(|frame| frame.start);
        Self { frames, bytes, bases }
    }

    /// Where the descriptions begin to be true.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn starts(&self) -> impl Iterator<Item = VirtAddr> {
        self.frames.iter().map(|frame| VirtAddr(frame.start))
    }

    fn frame(&self, address: VirtAddr) -> Option<&Frame> {
        let behind = self.frames.partition_point(|frame| frame.start <= address.0);
        let frame = self.frames.get(behind.checked_sub(1)?)?;
        (address.0 < frame.end).then_some(frame)
    }

    /// The run of code that an address lies in.
    pub fn range(&self, address: VirtAddr) -> Option<Range<VirtAddr>> {
        self.frame(address).map(|frame| VirtAddr(frame.start)..VirtAddr(frame.end))
    }

    /// The calls that are caught in the run of code that an address lies in.
    pub fn handlers(&self, module: &Module, address: VirtAddr) -> Handlers {
        let Some(frame) = self.frame(address).filter(|frame| frame.handlers != 0) else {
            return Handlers::default();
        };
        let bytes = module.read(VirtAddr(frame.handlers), TABLE_MAX).unwrap_or_default();
        let reader = Reader { bytes: &bytes, address: frame.handlers };
        let mut pushed = Vec::new();
        self.rows(frame, |rows, row| {
            if row.saved_args_size() != 0 {
                pushed.push((rows, row.saved_args_size()));
            }
        });
        Handlers { caught: caught(reader, frame.start), pushed }
    }

    /// Where the place of the return address is at an instruction: a register's number and what is
    /// added to it.
    pub fn return_slot(&self, address: VirtAddr) -> Option<(u16, i64)> {
        let mut found = None;
        self.rows(self.frame(address)?, |rows, row| {
            if rows.contains(&address)
                && let gimli::CfaRule::RegisterAndOffset { register, offset } = row.cfa()
            {
                found = offset.checked_sub(8).map(|offset| (register.0, offset));
            }
        });
        found
    }

    fn rows(&self, frame: &Frame, mut row: impl FnMut(Range<VirtAddr>, &Row)) {
        let table = EhFrame::new(&self.bytes, LittleEndian);
        let entry = EhFrameOffset(frame.entry);
        let fde = table.fde_from_offset(&self.bases, entry, EhFrame::cie_from_offset);
        let Ok(fde) = fde else { return };
        let mut context = UnwindContext::new();
        let Ok(mut rows) = fde.rows(&table, &self.bases, &mut context) else { return };
        while let Ok(Some(found)) = rows.next_row() {
            row(VirtAddr(found.start_address())..VirtAddr(found.end_address()), found);
        }
    }
}

type Row = gimli::UnwindTableRow<usize>;

/// A run of calls whose exceptions go on at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Caught {
    calls: Range<VirtAddr>,
    pad: VirtAddr,
}

/// What is caught in a run of code.
#[derive(Clone, Debug, Default)]
pub struct Handlers {
    caught: Vec<Caught>,
    /// Bytes of arguments on the stack, which are gone where it goes on (`DW_CFA_GNU_args_size`).
    pushed: Vec<(Range<VirtAddr>, u64)>,
}

impl Handlers {
    /// Where a call goes on that throws, and by how much the stack pointer is higher there.
    pub fn pad(&self, call: VirtAddr) -> Option<(VirtAddr, u64)> {
        let caught = self.caught.iter().find(|caught| caught.calls.contains(&call))?;
        let pushed = self.pushed.iter().find(|(calls, _)| calls.contains(&call));
        Some((caught.pad, pushed.map_or(0, |(_, bytes)| *bytes)))
    }
}

fn caught(mut reader: Reader<'_>, start: u64) -> Vec<Caught> {
    let mut found = Vec::new();
    let mut read = || {
        let base = match reader.byte()? {
            OMITTED => start,
            encoding => reader.encoded(encoding)?,
        };
        if reader.byte()? != OMITTED {
            reader.uleb()?;
        }
        let encoding = reader.byte()?;
        let length = usize::try_from(reader.uleb()?).ok()?;
        let mut calls = Reader { bytes: reader.bytes.get(..length)?, address: reader.address };
        while !calls.bytes.is_empty() && found.len() < CALLS_MAX {
            let first = start.wrapping_add(calls.encoded(encoding)?);
            let length = calls.encoded(encoding)?;
            let pad = calls.encoded(encoding)?;
            calls.uleb()?;
            if pad != 0 {
                let calls = VirtAddr(first)..VirtAddr(first.saturating_add(length));
                found.push(Caught { calls, pad: VirtAddr(base.wrapping_add(pad)) });
            }
        }
        Some(())
    };
    // A table that breaks off has said what it said.
    let _ = read();
    found
}

/// `DW_EH_PE_omit`
const OMITTED: u8 = 0xff;

struct Reader<'a> {
    bytes: &'a [u8],
    address: u64,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        self.address = self.address.wrapping_add(N as u64);
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn uleb(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A number by its `DW_EH_PE_…`: how it is written, and what it is relative to.
    fn encoded(&mut self, encoding: u8) -> Option<u64> {
        let here = self.address;
        let value = match encoding & 0x0f {
            0x00 | 0x04 | 0x0c => u64::from_le_bytes(self.take()?),
            0x01 => self.uleb()?,
            0x02 => u16::from_le_bytes(self.take()?).into(),
            0x03 => u32::from_le_bytes(self.take()?).into(),
            0x0a => i64::from(i16::from_le_bytes(self.take()?)).cast_unsigned(),
            0x0b => i64::from(i32::from_le_bytes(self.take()?)).cast_unsigned(),
            _ => return None,
        };
        match encoding & 0xf0 {
            0x00 => Some(value),
            0x10 => Some(here.wrapping_add(value)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Our own descriptions, spoiled: there is always an answer.
    #[test]
    fn spoiled_descriptions_have_an_end() {
        let own = Module::open(std::path::Path::new("/proc/self/exe")).expect("it runs");
        let section = own.section(".eh_frame").expect("Rust unwinds");
        let mut whole = own.section_bytes(section).expect("it is there");
        whole.truncate(4096);
        crate::fuzzing::run("stacks", &whole);
        assert!(Unwind::of(whole.clone(), section.address, None).starts().count() > 10);
        let mut seed = 1u32;
        for _ in 0..2000 {
            let mut spoiled = whole.clone();
            for _ in 0..3 {
                // xorshift32 (Marsaglia, 2003)
                seed ^= seed << 13;
                seed ^= seed >> 17;
                seed ^= seed << 5;
                let at = (seed >> 8) as usize % spoiled.len();
                spoiled[at] = seed as u8;
            }
            crate::fuzzing::run("stacks", &spoiled);
        }
    }

    #[test]
    fn tables_of_calls_are_read() {
        // Bases omitted, numbers as ULEB128: calls 0x10 to 0x15 go on at 0x40, the next nowhere.
        let table = [0xff, 0xff, 0x01, 8, 0x10, 5, 0x40, 1, 0x20, 5, 0, 0];
        let read = |bytes: &[u8]| caught(Reader { bytes, address: 0x9000 }, 0x1000);
        let expected = Caught { calls: VirtAddr(0x1010)..VirtAddr(0x1015), pad: VirtAddr(0x1040) };
        assert_eq!(read(&table), [expected]);
        for length in 0..table.len() {
            assert!(read(&table[..length]).len() <= 1);
        }
        // Landing pads from a base of their own, relative to where it stands.
        let base = 0x0ff0i32.to_le_bytes();
        let mut table = vec![0x1b];
        table.extend(base);
        table.extend([0xff, 0x01, 4, 0x10, 5, 0x40, 1]);
        assert_eq!(read(&table)[0].pad, VirtAddr(0x9001 + 0xff0 + 0x40));
    }
}
