//! Request lines that servers answer, with 400 or with what was asked for, but that the parser of heads does
//! not take: targets with blanks, control characters or bytes that are no UTF-8, blanks behind the version.

use std::fmt::Write as _;

/// A line's parts.
pub(super) struct RequestLine<'a> {
    pub(super) method: &'a [u8],
    pub(super) target: &'a [u8],
    pub(super) version: &'a [u8],
    /// What is behind it, from the end of the line on.
    pub(super) rest: &'a [u8],
}

impl<'a> RequestLine<'a> {
    /// The line that a head begins with, at the first blank and the last one: what is between is the target.
    pub(super) fn of(head: &'a [u8]) -> Option<Self> {
        let end = memchr::memchr(b'\n', head)?;
        let (line, rest) = head.split_at_checked(end)?;
        let line = line.trim_ascii_end();
        let (method, behind) = line.split_at_checked(memchr::memchr(b' ', line)?)?;
        let (target, version) =
            behind.split_at_checked(memchr::memrchr2(b' ', b'\t', behind)? + 1)?;
        let target = target.trim_ascii();
        let known = matches!(version, b"HTTP/1.0" | b"HTTP/1.1");
        (known && !target.is_empty()).then_some(Self { method, target, version, rest })
    }

    /// The target as text: what is none is percent-encoded (RFC 3986, section 2.1), as are control characters.
    pub(super) fn text(&self) -> String {
        let mut text = String::with_capacity(self.target.len());
        let escape = |text: &mut String, byte: u8| {
            // A string takes all.
            let _ = write!(text, "%{byte:02X}");
        };
        for chunk in self.target.utf8_chunks() {
            for letter in chunk.valid().chars() {
                match u8::try_from(letter) {
                    Ok(byte) if byte.is_ascii_control() => escape(&mut text, byte),
                    _ => text.push(letter),
                }
            }
            for byte in chunk.invalid() {
                escape(&mut text, *byte);
            }
        }
        text
    }

    /// The head with a target that every parser takes.
    pub(super) fn with_plain_target(&self) -> Vec<u8> {
        [self.method, b" / ", self.version, b"\r", self.rest].concat()
    }
}
