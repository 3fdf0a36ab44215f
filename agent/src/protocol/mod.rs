//! Protocol parsers: bytes of one connection in, messages out.
//!
//! Parsers are sans-I/O state machines. They never read a clock, a socket or a file, never panic,
//! and hold no more memory than their bounds say, whatever a peer sends.

pub mod http1;

/// Which way bytes moved, as seen by the process that owns the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Read by the process.
    Inbound,
    /// Written by the process.
    Outbound,
}

impl Direction {
    /// The other way.
    pub fn opposite(self) -> Self {
        match self {
            Self::Inbound => Self::Outbound,
            Self::Outbound => Self::Inbound,
        }
    }
}

/// The bytes of one I/O operation, as far as they were copied.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// The first bytes.
    pub prefix: &'a [u8],
    /// How many bytes the operation moved; never less than `prefix.len()`.
    pub len: u64,
    /// The operation's last bytes where `prefix` is cut and they are known, else empty.
    pub suffix: &'a [u8],
}

/// Numbers the exchanges of one connection, from 0.
pub type ExchangeNo = u32;

/// Why a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its own framing said so.
    Complete,
    /// The stream ended, and by the protocol's rules that ends the message.
    CloseDelimited,
    /// The stream ended or was reset in mid-message.
    Aborted,
    /// Its end was not seen (bytes lost or not copied), or is only likely: it came before this.
    Unseen,
}

/// A parsed request head.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The request target, as sent (origin, absolute, authority or asterisk form); of bytes that are no text,
    /// percent-encoded.
    pub target: &'a str,
    /// Minor version: 0 or 1.
    pub minor_version: u8,
    /// Headers, as sent; empty names do not occur.
    pub headers: &'a [Header<'a>],
    /// Whether the head was cut (longer than the bound, or not copied whole).
    pub truncated: bool,
}

/// A parsed response head.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// The status code.
    pub status: u16,
    /// Minor version: 0 or 1.
    pub minor_version: u8,
    /// Headers, as sent.
    pub headers: &'a [Header<'a>],
    /// Whether the head was cut.
    pub truncated: bool,
}

/// A header field, folded lines joined: its name as sent, its value trimmed.
pub use httparse::Header;

/// What a parser tells about a connection, in order. The caller attaches times: each event belongs
/// to the operation whose segment was being fed.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the variants' docs name their fields")]
pub enum Event<'a> {
    /// The first byte of a request, `offset` bytes into this segment. `direction` tells the role:
    /// inbound requests are served, outbound ones are made.
    RequestStart { exchange: ExchangeNo, direction: Direction, offset: u64 },
    /// The head is complete (or as complete as it will get).
    RequestHead { exchange: ExchangeNo, head: RequestHead<'a> },
    /// The last byte of a request. May come after the exchange's `ResponseEnd` (early response).
    /// The body's size is told where its framing was followed.
    RequestEnd { exchange: ExchangeNo, body_bytes: Option<u64>, end: End },
    /// A 1xx response other than 101.
    Interim { exchange: ExchangeNo, status: u16 },
    /// The final response begins. Told with its head: before that it may be an interim one.
    ResponseStart { exchange: ExchangeNo },
    /// The final response's head.
    ResponseHead { exchange: ExchangeNo, head: ResponseHead<'a> },
    /// Where the response ends will not be seen: it may be over from here on. Its `ResponseEnd`
    /// comes with the next request or the end of the connection.
    ResponseAdrift { exchange: ExchangeNo },
    /// The last byte of the final response, or what ended it. For an upgrade (101) or a CONNECT
    /// that succeeded it follows the head at once. Comes without a `ResponseStart` where the
    /// response was missed, with [`End::Unseen`].
    ResponseEnd { exchange: ExchangeNo, body_bytes: Option<u64>, end: End },
    /// The connection ended before the exchange had a response.
    Abandoned { exchange: ExchangeNo },
    /// What began like a request was none: the exchange never was.
    Mistaken { exchange: ExchangeNo },
    /// A response begins whose request was missed: an exchange that cannot be told. (There may be
    /// more of them than are seen: this is only told of responses that begin an operation.)
    Untold,
    /// Bytes that belong to no message the parser knows.
    Unknown { direction: Direction, bytes: u64 },
}
