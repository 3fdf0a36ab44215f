//! How a head says its body is framed (RFC 9112, section 6.3), and where it contradicts itself.

use crate::protocol::Header;

/// How a head says its body is framed (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
    /// A transfer coding other than chunked: up to the end of the stream.
    UntilClose,
    /// Nothing is said.
    Absent,
    /// What is said contradicts itself.
    Invalid,
}

/// As [`framing`]. Where a request has both a length and a coding, servers differ in which they believe, and
/// so in what the next request is.
pub(super) fn request_framing(headers: &[Header<'_>], minor_version: u8) -> Framing {
    let has_length = |header: &Header<'_>| is_named(header, CONTENT_LENGTH);
    match framing(headers, minor_version) {
        Framing::Chunked if headers.iter().any(has_length) => Framing::Invalid,
        framing => framing,
    }
}

/// RFC 9112, section 6.3: a transfer coding wins over a length; lengths must agree; HTTP/1.0 has no
/// transfer codings (section 6.1).
pub(super) fn framing(headers: &[Header<'_>], minor_version: u8) -> Framing {
    let mut length = None;
    let mut coding = None;
    for header in headers {
        // By its length, most are neither.
        if !matches!(header.name.len(), CONTENT_LENGTH_BYTES | TRANSFER_ENCODING_BYTES) {
            continue;
        }
        if is_named(header, CONTENT_LENGTH) {
            for value in header.value.split(|byte| *byte == b',') {
                let Some(value) = parse_length(value) else { return Framing::Invalid };
                if length.is_some_and(|length| length != value) {
                    return Framing::Invalid;
                }
                length = Some(value);
            }
        } else if is_named(header, TRANSFER_ENCODING) {
            let last = header.value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
            coding = Some(last.trim_ascii());
        }
    }
    match (coding, length) {
        (Some(_), _) if minor_version == 0 => Framing::Invalid,
        (Some(coding), _) if coding.eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
        // No coding at all: some take it for nothing, some for an error.
        (Some(coding), _) if coding.is_empty() || coding.eq_ignore_ascii_case(b"identity") => {
            Framing::Invalid
        }
        (Some(_), _) => Framing::UntilClose,
        (None, Some(length)) => Framing::Length(length),
        (None, None) => Framing::Absent,
    }
}

/// Whether a header is called so, in whatever letters.
fn is_named(header: &Header<'_>, name: &str) -> bool {
    header.name == name || header.name.eq_ignore_ascii_case(name)
}

// As nearly everybody writes them.
const CONTENT_LENGTH: &str = "Content-Length";
const TRANSFER_ENCODING: &str = "Transfer-Encoding";
const CONTENT_LENGTH_BYTES: usize = CONTENT_LENGTH.len();
const TRANSFER_ENCODING_BYTES: usize = TRANSFER_ENCODING.len();

/// Whether a line that is no header may still frame the body for somebody ("request smuggling").
pub(super) fn hides_framing(head: &[u8], headers: &[Header<'_>]) -> bool {
    let names = |name: &[u8]| {
        [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|framing| {
            name.windows(framing.len()).any(|part| part.eq_ignore_ascii_case(framing.as_bytes()))
        })
    };
    let lines = head.split(|byte| *byte == b'\n').skip(1);
    let seen = lines.filter(|line| names(line.split(|byte| *byte == b':').next().unwrap_or(line)));
    let understood = headers.iter().filter(|header| names(header.name.as_bytes()));
    seen.count() != understood.count()
}

/// Whether a request's sender may wait for a 100 (Continue) before its body (RFC 9110, 10.1.1).
pub(super) fn expects(headers: &[Header<'_>]) -> bool {
    headers.iter().any(|header| {
        header.name.eq_ignore_ascii_case("expect")
            && header.value.eq_ignore_ascii_case(b"100-continue")
    })
}

fn parse_length(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii();
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}
