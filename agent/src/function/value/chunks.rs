//! The bytes that one hit holds, in chunks, and numbers in them. A length that lies gives fewer bytes.

use agent_common::function::{Chunk, chunk_status};

use crate::inspect::dwarf::place::Unreadable;

/// Most chunks of one hit.
const CHUNKS_MAX: usize = 128;

/// The chunks of one hit by their number.
pub(super) struct Chunks<'c>(Vec<(Chunk, &'c [u8])>);

impl<'c> Chunks<'c> {
    pub(super) fn split(bytes: &'c [u8]) -> Self {
        let mut found = Vec::new();
        let mut rest = bytes;
        while found.len() < CHUNKS_MAX
            && let Some((head, body)) = rest.split_first_chunk::<8>()
        {
            let [n0, n1, s0, s1, b0, b1, b2, b3] = *head;
            let chunk = Chunk {
                number: u16::from_ne_bytes([n0, n1]),
                status: u16::from_ne_bytes([s0, s1]),
                bytes: u32::from_ne_bytes([b0, b1, b2, b3]),
            };
            let Some(own) = body.get(..chunk.bytes as usize) else { break };
            found.push((chunk, own));
            let padded = (chunk.bytes as usize).next_multiple_of(8);
            rest = body.get(padded..).unwrap_or_default();
        }
        Self(found)
    }

    pub(super) fn get(&self, number: u16) -> Option<(Chunk, &'c [u8])> {
        self.0.iter().find(|(chunk, _)| chunk.number == number).copied()
    }
}

/// A value's bytes as far as they were read.
#[derive(Clone, Copy)]
pub(super) struct Image<'c> {
    pub(super) bytes: &'c [u8],
    /// Why there are no more.
    end: Unreadable,
}

impl<'c> Image<'c> {
    pub(super) fn of(found: Option<(Chunk, &'c [u8])>) -> Self {
        match found {
            None => Self { bytes: &[], end: Unreadable::Room },
            Some((chunk, bytes)) if chunk.status & chunk_status::FAULT != 0 => {
                Self { bytes, end: Unreadable::Fault }
            }
            Some((_, bytes)) => Self { bytes, end: Unreadable::Room },
        }
    }

    pub(super) fn part(&self, at: u64, bytes: u64) -> Result<&'c [u8], Unreadable> {
        let end = at.checked_add(bytes).ok_or(Unreadable::Invalid)?;
        let range = usize::try_from(at).ok().zip(usize::try_from(end).ok());
        range.and_then(|(at, end)| self.bytes.get(at..end)).ok_or(self.end)
    }

    /// A number of at most 8 bytes, zero-extended.
    pub(super) fn number(&self, at: u64, bytes: u8) -> Result<u64, Unreadable> {
        let mut number = [0; 8];
        let part = self.part(at, bytes.min(8).into())?;
        number.get_mut(..part.len()).ok_or(Unreadable::Invalid)?.copy_from_slice(part);
        Ok(u64::from_le_bytes(number))
    }

    pub(super) fn signed(&self, at: u64, bytes: u8) -> Result<i64, Unreadable> {
        let number = self.number(at, bytes)?;
        let above = 64 - 8 * u32::from(bytes.clamp(1, 8));
        Ok((number << above) as i64 >> above)
    }
}
