//! Reads the chunks that a hook's code has written. Bounded by their bytes; whatever they are, there is
//! an answer.

use agent_common::function::chunk_status;

/// The chunks of a hit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunks<'a>(pub(super) &'a [u8]);

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// Its bytes.
    pub(super) bytes: &'a [u8],
    /// Whether memory that was to be in it could not be read.
    pub(super) faulted: bool,
    /// Whether there was more than was asked for.
    pub(super) cut: bool,
}

impl<'a> Chunks<'a> {
    /// The chunk with a number, if all of it could be read.
    pub(super) fn whole(self, number: u16) -> Option<Piece<'a>> {
        self.piece(number).filter(|piece| !piece.faulted)
    }

    fn piece(self, number: u16) -> Option<Piece<'a>> {
        let mut rest = self.0;
        while let Some((head, behind)) = rest.split_first_chunk::<8>() {
            let [n0, n1, s0, s1, length @ ..] = *head;
            let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
            let bytes = behind.get(..length)?;
            if u16::from_le_bytes([n0, n1]) == number {
                let status = u16::from_le_bytes([s0, s1]);
                let faulted = status & chunk_status::FAULT != 0;
                return Some(Piece { bytes, faulted, cut: status & chunk_status::CUT != 0 });
            }
            rest = behind.get(length.next_multiple_of(8)..)?;
        }
        None
    }

    /// A chunk that is a number of eight bytes.
    pub(super) fn number(self, number: u16) -> Option<u64> {
        Some(u64::from_le_bytes(self.whole(number)?.bytes.try_into().ok()?))
    }

    /// A chunk that is text, and not empty.
    pub(super) fn text(self, number: u16) -> Option<String> {
        self.whole(number)?.text().filter(|text| !text.is_empty())
    }

    /// A chunk that is a name: short, printable, without blanks around it.
    pub(super) fn name(self, number: u16) -> Option<&'a str> {
        let piece = self.whole(number).filter(|piece| !piece.cut)?;
        let name = std::str::from_utf8(piece.bytes).ok()?;
        is_name(name).then_some(name)
    }
}

impl Piece<'_> {
    /// Its text; of a cut one as much as is whole. Nothing if it is no UTF-8.
    pub(super) fn text(self) -> Option<String> {
        match std::str::from_utf8(self.bytes) {
            Ok(text) => Some(text.to_owned()),
            Err(error) if self.cut && error.error_len().is_none() => {
                let whole = self.bytes.get(..error.valid_up_to())?;
                Some(std::str::from_utf8(whole).ok()?.to_owned())
            }
            Err(_) => None,
        }
    }
}

/// Whether this can be the name of a type.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.trim() == name && !name.contains(char::is_control)
}

/// A word of an image of memory.
pub(super) fn word(image: &[u8], number: usize) -> Option<u64> {
    image.as_chunks::<8>().0.get(number).map(|word| u64::from_le_bytes(*word))
}

/// Chunks as the kernel half writes them: number, status, bytes.
pub(super) fn written(chunks: &[(u16, u16, &[u8])]) -> Vec<u8> {
    let mut written = Vec::new();
    for (number, status, bytes) in chunks {
        written.extend_from_slice(&number.to_le_bytes());
        written.extend_from_slice(&status.to_le_bytes());
        written.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        written.extend_from_slice(bytes);
        written.resize(written.len().next_multiple_of(8), 0);
    }
    written
}
