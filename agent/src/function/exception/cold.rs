//! What a hook could not read because its program has never touched it: a probe reads only what is in
//! memory. Names of types do not change, so that they may be read later, from the file that they are in or
//! from the program's memory. What else could not be read stays unread.

use super::chunks::Chunks;
use super::code::Code;
use super::{Decode, cpp, golang};

/// The type of what is raised: the number of its chunk.
const TYPE: u16 = 43;

/// Where constants can be read.
pub trait Constants {
    /// Bytes of the hook's own module, by their distance from its probe.
    fn of_module(&mut self, distance: i64, bytes: &mut [u8]) -> bool;
    /// Bytes of the process that has hit it, if it is still there.
    fn of_process(&mut self, address: u64, bytes: &mut [u8]) -> bool;
}

impl Decode {
    /// Whether what its hook reads may be completed.
    pub fn reads_constants(self) -> bool {
        matches!(self, Self::Cpp | Self::GoPanic)
    }
}

/// The chunks that are missing in those of a hit, to be put before them. `None`: none is, or none can be
/// read.
pub fn complete(decode: Decode, chunks: &[u8], constants: &mut dyn Constants) -> Option<Vec<u8>> {
    let chunks = Chunks(chunks);
    match decode {
        Decode::Cpp => cpp::complete(chunks, constants),
        Decode::GoPanic => golang::complete(chunks, constants),
        _ => None,
    }
}

/// Tells the type, which a register points at.
pub(super) fn tell_type(code: &mut Code, register: u8) {
    code.chunk(TYPE).register(register).put(8);
}

/// The type.
pub(super) fn type_of(chunks: Chunks<'_>) -> Option<u64> {
    chunks.number(TYPE)
}

/// A string that ends with a zero, without it.
pub(super) fn string(most: usize, mut read: impl FnMut(u64, &mut [u8]) -> bool) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        let mut piece = [0; 8];
        let at = text.len() as u64;
        // The last page that is there may end before the piece does.
        let bytes = if read(at, &mut piece) {
            &piece[..]
        } else {
            let [first, ..] = &mut piece;
            if !read(at, std::slice::from_mut(first)) {
                return None;
            }
            &piece[..1]
        };
        match bytes.iter().position(|byte| *byte == 0) {
            Some(end) => text.extend(bytes.iter().take(end)),
            None if text.len() < most => {
                text.extend(bytes);
                continue;
            }
            None => return None,
        }
        return (text.len() <= most).then_some(text);
    }
}
