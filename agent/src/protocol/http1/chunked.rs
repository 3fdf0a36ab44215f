//! Chunked bodies (RFC 9112, section 7.1), followed by size, with bytes missing.

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
    /// A size was among bytes that were not seen.
    Blind,
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
            match self.phase {
                Phase::Data { left } => {
                    let used = left.min(rest.len() as u64);
                    step.used += used as usize;
                    step.body += used;
                    self.phase = if used == left {
                        Phase::DataEnd
                    } else {
                        Phase::Data { left: left - used }
                    };
                    continue;
                }
                Phase::Blind => {
                    step.body += rest.len() as u64;
                    step.used = bytes.len();
                    return step;
                }
                _ => {}
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
            (phase @ (Phase::Data { .. } | Phase::Blind), _) => phase,
        };
        Next::On
    }

    /// Bytes that were not seen; returns how many of them were content, as far as it is known.
    pub(super) fn skip(&mut self, bytes: u64) -> u64 {
        match self.phase {
            Phase::Data { left } if bytes < left => {
                self.phase = Phase::Data { left: left - bytes };
                bytes
            }
            Phase::Data { left } if bytes == left => {
                self.phase = Phase::DataEnd;
                bytes
            }
            _ => {
                self.phase = Phase::Blind;
                bytes
            }
        }
    }

    /// Whether the chunk has this many bytes left at least.
    pub(super) fn has_left(&self, bytes: u64) -> bool {
        matches!(self.phase, Phase::Data { left } if bytes <= left)
    }

    /// Whether chunks are not followed any more.
    pub(super) fn is_blind(&self) -> bool {
        matches!(self.phase, Phase::Blind)
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

#[cfg(test)]
mod tests {
    use super::super::Connection;
    use crate::protocol::{Direction, Event, Segment};

    /// Each operation is a prefix of four bytes, and the last eight where it is longer than both.
    fn body_bytes(operations: &[&[u8]]) -> Vec<u64> {
        let mut connection = Connection::default();
        let mut sizes = Vec::new();
        let mut sink = |event: Event<'_>| {
            if let Event::ResponseEnd { body_bytes, .. } = event {
                sizes.push(body_bytes);
            }
        };
        let request = b"GET / HTTP/1.1\r\n\r\n";
        let whole = |bytes| Segment { prefix: bytes, len: bytes.len() as u64, suffix: &[] };
        connection.feed(Direction::Inbound, whole(request), &mut sink);
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        connection.feed(Direction::Outbound, whole(head), &mut sink);
        for bytes in operations {
            let cut = bytes.len() >= 12;
            let (prefix, rest) = bytes.split_at(if cut { 4 } else { bytes.len() });
            let suffix = if cut { &rest[rest.len() - 8..] } else { &[] };
            let segment = Segment { prefix, len: bytes.len() as u64, suffix };
            connection.feed(Direction::Outbound, segment, &mut sink);
        }
        sizes
    }

    #[test]
    fn a_chunk_that_was_not_copied_whole_is_followed_to_its_end() {
        let chunk = format!("14\r\n{}\r\n", "x".repeat(20));
        let last = format!("14\r\n{}\r\n0\r\n\r\n", "x".repeat(20));
        assert_eq!(body_bytes(&[chunk.as_bytes(), b"0\r\n\r\n"]), [20]);
        assert_eq!(body_bytes(&[chunk.as_bytes(), b"3\r\nabc\r\n", b"0\r\n\r\n"]), [23]);
        assert_eq!(body_bytes(&[last.as_bytes()]), [20]);
    }

    #[test]
    fn a_size_that_was_not_seen_ends_the_body_all_the_same() {
        let two = format!("2\r\nab\r\n14\r\n{}\r\n", "x".repeat(20));
        assert_eq!(body_bytes(&[two.as_bytes(), b"0\r\n\r\n"]).len(), 1);
    }
}
