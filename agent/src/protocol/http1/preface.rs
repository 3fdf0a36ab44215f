//! What a proxy may say of its client before the first request of a connection: the PROXY protocol, version
//! 1 (a line) and 2 (binary), as HAProxy's `proxy-protocol.txt` describes them. Only finds its end.

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of the signature that are blank lines, if nothing else of it follows.
const BLANK: u8 = 4;
/// Signature, version and command, family, two bytes of length.
const HEADER_BYTES: u8 = 16;
/// Longest line of version 1, its end included.
const LINE_MAX: u8 = 107;
/// What lines of version 1 begin with. (`PROXY` alone may be a request's method.)
const LINES: [&[u8]; 3] = [b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN"];

/// How far a preface was seen.
#[derive(Debug)]
pub(super) enum Preface {
    /// This many bytes of a line.
    Line(u8),
    /// This many bytes of a binary one's header, and the length that it says so far.
    Header(u8, u16),
    /// This many bytes of a binary one are to come.
    Rest(u16),
}

/// What some bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of them belong to it.
    All,
    /// It ended behind this many of them.
    End(usize),
    /// It is none: what was seen before was blank lines.
    Blank,
    /// It is none, and this many bytes were seen before.
    Other(u64),
}

impl Preface {
    /// Whether a connection that begins with these bytes may begin with one.
    pub(super) fn begin(bytes: &[u8]) -> Option<Self> {
        match bytes.first()? {
            b'P' if LINES.iter().any(|line| bytes.starts_with(line)) => Some(Self::Line(0)),
            b'\r' => {
                let shared = bytes.len().min(SIGNATURE.len());
                (bytes.get(..shared) == SIGNATURE.get(..shared)).then_some(Self::Header(0, 0))
            }
            _ => None,
        }
    }

    /// Takes in bytes, at least one.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Part {
        for (at, byte) in bytes.iter().enumerate() {
            let over = match self {
                Self::Line(seen) if *seen >= LINE_MAX => return Part::Other(u64::from(*seen)),
                Self::Line(seen) => {
                    *seen += 1;
                    *byte == b'\n'
                }
                Self::Header(seen, length) => {
                    match SIGNATURE.get(usize::from(*seen)) {
                        Some(expected) if expected != byte => {
                            let before = u64::from(*seen).saturating_sub(at as u64);
                            return if *seen > BLANK { Part::Other(before) } else { Part::Blank };
                        }
                        // Of version, command and family nothing depends.
                        _ => *length = (*length << 8) | u16::from(*byte),
                    }
                    *seen += 1;
                    let (seen, length) = (*seen, *length);
                    if seen == HEADER_BYTES {
                        *self = Self::Rest(length);
                    }
                    seen == HEADER_BYTES && length == 0
                }
                Self::Rest(left) => {
                    *left = left.saturating_sub(1);
                    *left == 0
                }
            };
            if over {
                return Part::End(at + 1);
            }
        }
        Part::All
    }
}
