//! The copy of a thread's stack that precedes what the thread has met. It is no event of the pipeline's:
//! it is made a stack of named functions of before, by who knows what the process has mapped.

use agent_common::function::{IMAGE_REGISTERS, image_flags};
use agent_common::kind;

use super::ids::{SiteNo, Tgid, Tid};
use super::{u32_at, u64_at};
use crate::platform::clock::MonoNs;

/// A copy of the near part of a thread's stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image<'a> {
    /// When: the same as of the record that follows.
    pub at: MonoNs,
    /// The process.
    pub tgid: Tgid,
    /// The thread.
    pub tid: Tid,
    /// The probe that was hit.
    pub site: SiteNo,
    /// By DWARF's numbers.
    pub registers: [u64; IMAGE_REGISTERS],
    /// The stack from the stack pointer on, or an interpreter's frames.
    pub stack: &'a [u8],
    /// Bits of `agent_common::function::image_flags`.
    pub flags: u32,
    /// How an interpreter's frames are written, as the site's code calls it.
    pub written: u32,
}

impl Image<'_> {
    /// Whether what follows could not be read.
    pub fn is_faulted(&self) -> bool {
        self.flags & image_flags::FAULT != 0
    }

    /// Whether it holds the frames of an interpreter.
    pub fn is_interpreted(&self) -> bool {
        self.flags & image_flags::INTERPRETED != 0
    }
}

/// Whether a record is one.
pub fn is_image(record: &[u8]) -> bool {
    record.first() == Some(&kind::IMAGE)
}

/// Reads one.
pub fn decode(record: &[u8]) -> Option<Image<'_>> {
    const FIXED: usize = size_of::<agent_common::function::Image>();
    let (fixed, stack) = record.split_first_chunk::<FIXED>()?;
    if !is_image(fixed) {
        return None;
    }
    let copied = usize::try_from(u32_at(fixed, 28)).ok()?;
    let mut registers = [0; IMAGE_REGISTERS];
    for (register, word) in registers.iter_mut().zip(fixed.get(40..)?.as_chunks::<8>().0) {
        *register = u64::from_ne_bytes(*word);
    }
    Some(Image {
        at: MonoNs(u64_at(fixed, 8)),
        tgid: Tgid(u32_at(fixed, 16)),
        tid: Tid(u32_at(fixed, 20)),
        site: SiteNo(u32_at(fixed, 24)),
        registers,
        stack: stack.get(..copied)?,
        flags: u32_at(fixed, 32),
        written: u32_at(fixed, 36),
    })
}
