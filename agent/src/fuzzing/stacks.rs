//! What walks stacks: the same bytes as the frames of an interpreter, as a section that says how functions
//! return with a stack to walk by it, and as Go's table.

use crate::event::ids::{SiteNo, Tgid, Tid};
use crate::event::image::Image;
use crate::inspect::address::VirtAddr;
use crate::inspect::gopclntab::Table;
use crate::inspect::unwind::Unwind;
use crate::inspect::unwind::step::{Caller, Registers};
use crate::platform::clock::MonoNs;
use crate::stack::{FRAMES_MAX, Inner, python, text};

/// Steps of one walk, and walks.
const STEPS_MAX: usize = FRAMES_MAX;
const WALKS_MAX: usize = 16;

pub(super) fn run(bytes: &[u8]) {
    for written in 0..4 {
        let _ = text(&python::stack(bytes, 0, written), Inner::Own);
    }
    by_descriptions(bytes);
    by_table(bytes);
}

fn by_descriptions(bytes: &[u8]) {
    let unwind = Unwind::of(bytes.to_owned(), VirtAddr(0), None);
    for start in unwind.starts().take(WALKS_MAX) {
        let stack_pointer = 0x7000_0000;
        let mut registers = [stack_pointer; 17];
        registers[16] = start.0;
        let image = Image {
            at: MonoNs(0),
            tgid: Tgid(1),
            tid: Tid(1),
            site: SiteNo(0),
            registers,
            stack: bytes,
            flags: 0,
            written: 0,
        };
        let mut registers = Registers::new(registers);
        for _ in 0..STEPS_MAX {
            let Some(at) = registers.instruction() else { break };
            registers = match unwind.caller(VirtAddr(at), &registers, &image) {
                Ok(Caller::Call(caller) | Caller::Interrupted(caller)) => caller,
                Ok(Caller::Nobody) | Err(_) => break,
            };
        }
    }
}

fn by_table(bytes: &[u8]) {
    let Ok(table) = Table::parse(bytes, VirtAddr(0x40_0000)) else { return };
    for entry in table.entries().take(WALKS_MAX) {
        let Some(function) = table.function(entry.address) else { continue };
        let words = |offset: u32| {
            let words = bytes.get(usize::try_from(offset).ok()?..)?.as_chunks::<4>().0;
            let mut found = [0; 4];
            for (word, bytes) in found.iter_mut().zip(words.get(..4)?) {
                *word = u32::from_le_bytes(*bytes);
            }
            Some(found)
        };
        for inside in [0, 1, 1 << 8] {
            let at = VirtAddr(entry.address.0.wrapping_add(inside));
            let _ = (function.frame(at), function.calls(at, Some(&words)));
            let _ = function.calls(at, None);
        }
    }
}
