//! Message heads: where they end, what they say.

use std::sync::LazyLock;

use memchr::memmem::{self, Finder};

use super::framing::{Framing, framing, hides_framing, request_framing};
use super::request_line::RequestLine;
use crate::protocol::{Header, RequestHead, ResponseHead};

/// Headers looked at without an allocation; and at all.
const HEADERS: usize = 64;
const HEADERS_MAX: usize = 512;

/// Longest method that is believed (the longest registered one has 17 letters).
const METHOD_BYTES_MAX: usize = 24;

/// Where a head ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// After this many bytes.
    Complete(usize),
    /// Not among these bytes.
    Partial,
    /// Not within the bound.
    TooLong,
}

/// A head that came in pieces.
#[derive(Debug, Default)]
pub(super) struct HeadBuffer {
    bytes: Vec<u8>,
    scanned: usize,
}

impl HeadBuffer {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn extend(&mut self, bytes: &[u8], limit: usize) {
        let room = limit.saturating_add(1).saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    /// Looks for the end, from where the last look stopped.
    pub(super) fn scan(&mut self, limit: usize) -> Scan {
        let scan = scan(&self.bytes, self.scanned, limit);
        // An end may straddle: a line end and the blank line behind it are up to four bytes.
        self.scanned = self.bytes.len().saturating_sub(3);
        scan
    }

    pub(super) fn is_plausible(&self, request: bool) -> bool {
        if request { may_be_request(&self.bytes) } else { may_be_response(&self.bytes) }
    }
}

/// Looks for the blank line that ends a head, from `from` on.
pub(super) fn scan(bytes: &[u8], from: usize, limit: usize) -> Scan {
    static BLANK_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n\r\n"));
    let rest = bytes.get(from..).unwrap_or_default();
    let blank = BLANK_LINE.find(rest).map(|at| at + 3);
    // Nearly nobody ends lines without a carriage return.
    let before = rest.get(..blank.unwrap_or(rest.len())).unwrap_or_default();
    let bare = if has_pair(before, |second| second == b'\n') {
        memmem::find(before, b"\n\n").map(|at| at + 2)
    } else {
        None
    };
    match bare.or(blank).map(|length| from + length) {
        Some(length) if length <= limit => Scan::Complete(length),
        Some(_) => Scan::TooLong,
        None if bytes.len() > limit => Scan::TooLong,
        None => Scan::Partial,
    }
}

/// Whether a line feed is followed by such a byte. Without a way out of the loop, so that the
/// compiler makes it one over many bytes at a time.
fn has_pair(bytes: &[u8], is_second: impl Fn(u8) -> bool) -> bool {
    let behind = bytes.get(1..).unwrap_or_default();
    let pairs = bytes.iter().zip(behind);
    pairs.fold(false, |found, (first, second)| found | ((*first == b'\n') & is_second(*second)))
}

/// Blank lines before a message, which RFC 9112, section 2.2 asks to ignore.
pub(super) fn blank_bytes(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()
}

/// Whether these bytes can begin a request. The more there are, the stricter.
pub(super) fn may_be_request(bytes: &[u8]) -> bool {
    let line_end = memchr::memchr(b'\n', bytes.get(..8192).unwrap_or(bytes));
    let line = bytes.get(..line_end.unwrap_or(bytes.len())).unwrap_or_default();
    let method = line.iter().take_while(|byte| is_method_byte(**byte)).count();
    if method == 0 || method > METHOD_BYTES_MAX {
        return false;
    }
    let Some(rest) = line.get(method..) else { return false };
    match rest {
        [] => line_end.is_none(),
        [b' ', target @ ..] => {
            // More than one space is wrong, but taken for one.
            let target = target.trim_ascii_start();
            match line_end {
                None => target.first().is_none_or(|byte| is_target_start(*byte)),
                Some(_) => {
                    target.first().is_some_and(|byte| is_target_start(*byte))
                        && ends_with_version(target)
                }
            }
        }
        _ => false,
    }
}

/// Methods that are believed out of step (RFC 9110 and 5789, WebDAV). None of them is another one's
/// end, so that a method whose first letters were missed is not taken for one.
const KNOWN_METHODS: [&[u8]; 16] = [
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"CONNECT",
    b"OPTIONS",
    b"TRACE",
    b"PATCH",
    b"QUERY",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"REPORT",
];

/// Whether these bytes can only begin a request: a whole request line with a well-known method.
pub(super) fn is_request(bytes: &[u8]) -> bool {
    let is_method = |method: &&[u8]| {
        bytes.strip_prefix(*method).is_some_and(|behind| behind.first() == Some(&b' '))
    };
    // Asked of the first response of every connection.
    !bytes.starts_with(STATUS_LINE)
        && KNOWN_METHODS.iter().any(is_method)
        && memchr::memchr(b'\n', bytes).is_some()
        && may_be_request(bytes)
}

const STATUS_LINE: &[u8] = b"HTTP/1.";

/// Whether these bytes can begin a response.
pub(super) fn may_be_response(bytes: &[u8]) -> bool {
    let shared = bytes.len().min(STATUS_LINE.len());
    bytes.get(..shared) == STATUS_LINE.get(..shared)
}

/// Whether these bytes can only begin a response.
pub(super) fn is_response(bytes: &[u8]) -> bool {
    bytes.starts_with(STATUS_LINE)
        && bytes.get(8) == Some(&b' ')
        && bytes.get(9..12).is_some_and(|code| code.iter().all(u8::is_ascii_digit))
        && !bytes.get(12).is_some_and(u8::is_ascii_digit)
}

/// Whether these bytes can only begin a response that is not an interim one.
pub(super) fn is_final_response(bytes: &[u8]) -> bool {
    is_response(bytes) && bytes.get(9) != Some(&b'1')
}

/// Methods are case-sensitive, and every registered one is upper case; others are believed only in
/// that form, since "hello world" must not begin a request.
fn is_method_byte(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte == b'-' || byte == b'_'
}

/// First byte of any form of request target: origin, asterisk, absolute, authority.
fn is_target_start(byte: u8) -> bool {
    matches!(byte, b'/' | b'*' | b'[' | b'?') || byte.is_ascii_alphanumeric()
}

fn ends_with_version(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
}

/// Shows the request's head that these bytes begin with and says how long it is, if it is an ordinary
/// one: it ends among the first `limit` bytes, and the parser takes every line as it is. It then says
/// what [`parse_request`] would say of the bytes up to where [`scan`] finds its end, without their
/// looking at every byte once more each. `None`: nothing was shown.
pub(super) fn whole_request(
    bytes: &[u8],
    limit: usize,
    show: &mut dyn FnMut(RequestHead<'_>, Framing),
) -> Option<usize> {
    let mut storage = [const { std::mem::MaybeUninit::uninit() }; HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let config = request_config();
    let result = config.parse_request_with_uninit_headers(&mut request, bytes, &mut storage);
    let length = within(result, limit)?;
    let (method, target) = (request.method?, request.path?);
    let minor_version = request.version?;
    let headers: &[Header<'_>] = request.headers;
    let framing = request_framing(headers, minor_version);
    show(RequestHead { method, target, minor_version, headers, truncated: false }, framing);
    Some(length)
}

/// As [`whole_request`], of a response.
pub(super) fn whole_response(
    bytes: &[u8],
    limit: usize,
    show: &mut dyn FnMut(ResponseHead<'_>, Framing),
) -> Option<usize> {
    let mut storage = [const { std::mem::MaybeUninit::uninit() }; HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let config = response_config();
    let result = config.parse_response_with_uninit_headers(&mut response, bytes, &mut storage);
    let length = within(result, limit)?;
    let (status, minor_version) = (response.code?, response.version?);
    let headers: &[Header<'_>] = response.headers;
    let framing = framing(headers, minor_version);
    show(ResponseHead { status, minor_version, headers, truncated: false }, framing);
    Some(length)
}

/// The length of a head that is complete. The parser ends it at the first blank line, and takes no
/// folded line for one.
fn within(result: httparse::Result<usize>, limit: usize) -> Option<usize> {
    match result {
        Ok(httparse::Status::Complete(length)) => Some(length).filter(|length| *length <= limit),
        _ => None,
    }
}

fn request_config() -> httparse::ParserConfig {
    let mut config = httparse::ParserConfig::default();
    config.allow_multiple_spaces_in_request_line_delimiters(true);
    config
}

fn response_config() -> httparse::ParserConfig {
    let mut config = httparse::ParserConfig::default();
    config.allow_spaces_after_header_name_in_responses(true);
    config.allow_multiple_spaces_in_response_status_delimiters(true);
    config
}

/// Parses a request's head and shows it. Shows nothing if it is none.
pub(super) fn parse_request(
    bytes: &[u8],
    truncated: bool,
    show: &mut dyn FnMut(RequestHead<'_>, Framing),
) {
    with_whole_lines(bytes, truncated, &mut |bytes| {
        if parse_whole_request(bytes, truncated, None, show) {
            return;
        }
        let Some(line) = RequestLine::of(bytes) else { return };
        let target = line.text();
        if parse_whole_request(&line.with_plain_target(), truncated, Some(&target), show) {
            return;
        }
        // Of headers that nobody understands, somebody may understand how they frame the body.
        let Ok(method) = str::from_utf8(line.method) else { return };
        let framing = if hides_framing(bytes, &[]) { Framing::Invalid } else { Framing::Absent };
        let minor_version = u8::from(line.version.ends_with(b"1"));
        let head =
            RequestHead { method, target: &target, minor_version, headers: &[], truncated: true };
        show(head, framing);
    });
}

/// Shows a request's head; false if the parser does not take it. `target`: what stands for the one in the
/// head.
fn parse_whole_request(
    bytes: &[u8],
    truncated: bool,
    target: Option<&str>,
    show: &mut dyn FnMut(RequestHead<'_>, Framing),
) -> bool {
    let mut storage = [const { std::mem::MaybeUninit::uninit() }; HEADERS];
    let mut many;
    let mut config = request_config();
    let mut request = httparse::Request::new(&mut []);
    let mut result = config.parse_request_with_uninit_headers(&mut request, bytes, &mut storage);
    let odd = result.is_err();
    if odd {
        many = vec![httparse::EMPTY_HEADER; HEADERS_MAX];
        request = httparse::Request::new(&mut many);
        config.ignore_invalid_headers_in_requests(true);
        result = config.parse_request(&mut request, bytes);
    }
    let too_many = result == Err(httparse::Error::TooManyHeaders);
    if !matches!(result, Ok(httparse::Status::Complete(_))) && !too_many {
        return false;
    }
    let (Some(method), Some(in_head)) = (request.method, request.path) else { return false };
    let target = target.unwrap_or(in_head);
    let minor_version = request.version.unwrap_or(1);
    let headers: &[Header<'_>] = if too_many { &[] } else { request.headers };
    let framing = match odd && hides_framing(bytes, headers) {
        true => Framing::Invalid,
        false => request_framing(headers, minor_version),
    };
    let truncated = truncated || too_many;
    show(RequestHead { method, target, minor_version, headers, truncated }, framing);
    true
}

/// Parses a response's head and shows it. Shows nothing if it is none.
pub(super) fn parse_response(
    bytes: &[u8],
    truncated: bool,
    show: &mut dyn FnMut(ResponseHead<'_>, Framing),
) {
    with_whole_lines(bytes, truncated, &mut |bytes| {
        if parse_whole_response(bytes, truncated, show) || !is_response(bytes) {
            return;
        }
        // Nobody can say what it holds, but what it is. Of its length others may think otherwise.
        let digits = bytes.get(9..12).unwrap_or_default();
        let status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
        let minor_version = u8::from(bytes.get(7) == Some(&b'1'));
        let head = ResponseHead { status, minor_version, headers: &[], truncated: true };
        show(head, Framing::Invalid);
    });
}

/// Shows a response's head; false if the parser does not take it.
fn parse_whole_response(
    bytes: &[u8],
    truncated: bool,
    show: &mut dyn FnMut(ResponseHead<'_>, Framing),
) -> bool {
    let mut storage = [const { std::mem::MaybeUninit::uninit() }; HEADERS];
    let mut many;
    let mut config = response_config();
    let mut response = httparse::Response::new(&mut []);
    let mut result = config.parse_response_with_uninit_headers(&mut response, bytes, &mut storage);
    let odd = result.is_err();
    if odd {
        many = vec![httparse::EMPTY_HEADER; HEADERS_MAX];
        response = httparse::Response::new(&mut many);
        config.ignore_invalid_headers_in_responses(true);
        result = config.parse_response(&mut response, bytes);
    }
    let too_many = result == Err(httparse::Error::TooManyHeaders);
    if !matches!(result, Ok(httparse::Status::Complete(_))) && !too_many {
        return false;
    }
    let Some(status) = response.code else { return false };
    let minor_version = response.version.unwrap_or(1);
    let headers: &[Header<'_>] = if too_many { &[] } else { response.headers };
    let framing = match odd && hides_framing(bytes, headers) {
        true => Framing::Invalid,
        false => framing(headers, minor_version),
    };
    let truncated = truncated || too_many;
    show(ResponseHead { status, minor_version, headers, truncated }, framing);
    true
}

/// Gives the parser lines that it accepts: of a cut head the whole lines and a blank one, and
/// folded lines (RFC 9112, section 5.2) joined.
fn with_whole_lines(bytes: &[u8], truncated: bool, parse: &mut dyn FnMut(&[u8])) {
    let folded = has_pair(bytes, |second| (second == b' ') | (second == b'\t'));
    if !truncated && !folded {
        return parse(bytes);
    }
    let mut whole = bytes.to_vec();
    if truncated {
        whole.truncate(memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1));
        whole.extend_from_slice(b"\r\n");
    }
    for at in 0..whole.len() {
        if let Some([b'\n', b' ' | b'\t']) = whole.get(at..at + 2) {
            if let Some(byte) = whole.get_mut(at) {
                *byte = b' ';
            }
            if let Some(byte @ b'\r') = at.checked_sub(1).and_then(|at| whole.get_mut(at)) {
                *byte = b' ';
            }
        }
    }
    parse(&whole);
}
