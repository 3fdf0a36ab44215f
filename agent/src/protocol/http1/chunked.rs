//! Chunked bodies (RFC 9112, section 7.1), followed by size, so that bytes of content may be missing.

/// Where in a chunked body the next byte stands.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// In a chunk's size; its value so far and its digits.
    Size { value: u64, digits: u8 },
    /// Behind the size, up to the end of its line.
    Extension { value: u64 },
    /// In a chunk's bytes.
    Data { left: u64 },
    /// In the line end behind a chunk's bytes.
    DataEnd,
    /// In the trailer section; whether the line is empty so far.
    Trailer { empty: bool },
}

impl Default for Phase {
    fn default() -> Self {
        Self::Size { value: 0, digits: 0 }
    }
}

/// What became of some bytes.
#[derive(Default)]
pub(super) struct Step {
    pub(super) used: usize,
    /// Bytes of content among them.
    pub(super) body: u64,
    pub(super) over: bool,
    pub(super) broken: bool,
}

impl Chunked {
    /// Handles bytes up to the end of the body.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Step {
        let mut step = Step::default();
        while let Some(rest) = bytes.get(step.used..)
            && let Some(&byte) = rest.first()
        {
            if let Phase::Data { left } = self.phase {
                let used = left.min(rest.len() as u64);
                step.used += used as usize;
                step.body += used;
                self.phase =
                    if used == left { Phase::DataEnd } else { Phase::Data { left: left - used } };
                continue;
            }
            step.used += 1;
            match self.byte(byte) {
                Next::On => {}
                Next::Over => {
                    step.over = true;
                    return step;
                }
                Next::Broken => {
                    step.used = bytes.len();
                    step.broken = true;
                    return step;
                }
            }
        }
        step
    }

    fn byte(&mut self, byte: u8) -> Next {
        self.phase = match (self.phase, byte) {
            (Phase::Size { value, digits }, _) if byte.is_ascii_hexdigit() && digits < 16 => {
                let digit = (byte as char).to_digit(16).unwrap_or(0);
                Phase::Size { value: (value << 4) | u64::from(digit), digits: digits + 1 }
            }
            (Phase::Size { digits: 0, .. }, _) => return Next::Broken,
            (Phase::Size { value, .. } | Phase::Extension { value }, b'\n') => match value {
                0 => Phase::Trailer { empty: true },
                left => Phase::Data { left },
            },
            (Phase::Size { value, .. }, b'\r' | b';' | b' ' | b'\t') => Phase::Extension { value },
            (Phase::Size { .. }, _) => return Next::Broken,
            (Phase::Extension { value }, _) => Phase::Extension { value },
            (Phase::DataEnd, b'\r') => Phase::DataEnd,
            (Phase::DataEnd, b'\n') => Phase::default(),
            (Phase::DataEnd, _) => return Next::Broken,
            (Phase::Trailer { empty: true }, b'\n') => return Next::Over,
            (Phase::Trailer { .. }, b'\n') => Phase::Trailer { empty: true },
            (Phase::Trailer { empty }, b'\r') => Phase::Trailer { empty },
            (Phase::Trailer { .. }, _) => Phase::Trailer { empty: false },
            (phase @ Phase::Data { .. }, _) => phase,
        };
        Next::On
    }

    /// Bytes that were not seen. False if a size may have been among them: then chunks cannot be
    /// followed any more.
    pub(super) fn skip(&mut self, bytes: u64) -> bool {
        let Phase::Data { left } = self.phase else { return false };
        self.phase = match left.checked_sub(bytes) {
            Some(0) => Phase::DataEnd,
            Some(left) => Phase::Data { left },
            None => return false,
        };
        true
    }
}

enum Next {
    On,
    Over,
    Broken,
}

/// Whether an operation that ends with these bytes may end a chunked body.
pub(super) fn ends_like_last_chunk(tail: &[u8]) -> bool {
    tail == b"0\r\n\r\n" || tail.ends_with(b"\r\n0\r\n\r\n")
}
