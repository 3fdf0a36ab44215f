//! What a span is, in OpenTelemetry's terms. Owns the data, refuses to know where it goes.

use std::fmt;
use std::sync::Arc;

use super::attributes::Attributes;

/// A W3C trace id; all zero is invalid.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId(pub [u8; 16]);

/// A W3C span id; all zero is invalid.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(pub [u8; 8]);

macro_rules! hex_id {
    ($name:ident) => {
        impl $name {
            /// Whether any bit is set, as W3C Trace Context demands.
            pub fn is_valid(&self) -> bool {
                self.0.iter().any(|byte| *byte != 0)
            }
        }
        impl fmt::Display for $name {
            /// Lower-case hexadecimal.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}
hex_id!(TraceId);
hex_id!(SpanId);

/// Nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnixNs(pub u64);

/// `SpanKind` of the OpenTelemetry specification; the numbers are OTLP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Work inside a process.
    Internal = 1,
    /// A request served.
    Server = 2,
    /// A request made.
    Client = 3,
    /// A message sent.
    Producer = 4,
    /// A message received or processed.
    Consumer = 5,
}

/// How a parent was found. Published as `remora.parent.method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// The same thread was serving the parent.
    Thread,
    /// The same goroutine was serving the parent.
    Goroutine,
    /// The thread runs one request at a time to where it waits, and this one's was the last socket that
    /// it used.
    Resume,
    /// nginx itself keeps the request that it has made the call for.
    NginxRequest,
    /// The parent's call was open on the same stack.
    Stack,
    /// The same bytes of the same TCP stream, by socket pair and sequence number.
    TcpSeq,
    /// The two ends of one TCP connection, of which one has no sequence numbers that are known.
    TcpPeer,
    /// The two ends of one Unix stream.
    UnixPeer,
    /// A trace header in the traffic.
    Header,
}

impl Method {
    /// The attribute's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Thread => "thread",
            Self::Goroutine => "goroutine",
            Self::Resume => "resume",
            Self::NginxRequest => "nginx_request",
            Self::Stack => "stack",
            Self::TcpSeq => "tcp_seq",
            Self::TcpPeer => "tcp_peer",
            Self::UnixPeer => "unix_peer",
            Self::Header => "header",
        }
    }
}

impl Method {
    /// Whether the answer to a request proves what was done for it: its reader has written it, and has
    /// served nothing else meanwhile. A thread is free to if its socket does not block.
    pub(super) fn is_proved_by_answer(self, nonblocking: bool) -> bool {
        match self {
            Self::Thread => !nonblocking,
            Self::Goroutine => true,
            _ => false,
        }
    }

    /// Whether parent and child are of one process.
    pub(super) fn is_within_process(self) -> bool {
        matches!(
            self,
            Self::Thread | Self::Goroutine | Self::Resume | Self::NginxRequest | Self::Stack
        )
    }

    /// Whether the parent's task is what it was found by.
    pub(super) fn is_by_task(self) -> bool {
        matches!(self, Self::Thread | Self::Goroutine)
    }
}

/// How sure a parent is. Published as `remora.parent.confidence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Confidence {
    /// Proved by an identity that the program itself uses.
    Exact,
    /// Follows from what was seen, without such a proof.
    Inferred,
}

impl Confidence {
    /// The attribute's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Inferred => "inferred",
        }
    }
}

/// A parent link and how it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The parent's id.
    pub span_id: SpanId,
    /// How it was found.
    pub method: Method,
    /// How sure it is.
    pub confidence: Confidence,
    /// Whether the parent is in another process (OTLP's `is_remote` flag).
    pub remote: bool,
}

impl Parent {
    /// Adds how it was found to its child's attributes.
    pub fn describe(&self, attributes: &mut Attributes) {
        attributes.text("remora.parent.method", self.method.as_str());
        attributes.text("remora.parent.confidence", self.confidence.as_str());
    }

    /// Whether only the traffic names it: its span may be made by anybody, anywhere.
    pub fn is_told(&self) -> bool {
        self.method == Method::Header
    }
}

/// `Status` of the OpenTelemetry specification; the numbers are OTLP's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StatusCode {
    /// Nothing is known to have failed.
    #[default]
    Unset = 0,
    /// Said to be good by the application.
    Ok = 1,
    /// Failed.
    Error = 2,
}

/// Something that happened at one moment of a span.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanEvent {
    /// Its name.
    pub name: String,
    /// When.
    pub time: UnixNs,
    /// What else is known.
    pub attributes: Attributes,
}

/// A span that this one relates to without being its child.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// The other span's trace.
    pub trace_id: TraceId,
    /// The other span.
    pub span_id: SpanId,
    /// W3C `tracestate` of the other span; empty if none.
    pub trace_state: String,
    /// What else is known.
    pub attributes: Attributes,
}

/// Who made the spans: one per process image, shared by all its spans.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Resource attributes by the semantic conventions, `service.name` always among them.
    pub attributes: Attributes,
    /// `service.name` again, for those who only need that.
    pub service_name: String,
}

/// A finished span.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The process that it happened in.
    pub resource: Arc<Resource>,
    /// The trace it belongs to.
    pub trace_id: TraceId,
    /// Its own id.
    pub span_id: SpanId,
    /// Its parent; `None` is a root.
    pub parent: Option<Parent>,
    /// W3C `tracestate`, as it came with the request; empty if none.
    pub trace_state: String,
    /// W3C trace flags (bits 0–7).
    pub trace_flags: u8,
    /// What it is.
    pub kind: Kind,
    /// Its name by the semantic conventions: low cardinality, never a raw path.
    pub name: Name,
    /// First edge.
    pub start: UnixNs,
    /// Last edge; never before `start`.
    pub end: UnixNs,
    /// Attributes by the semantic conventions, and remora's own.
    pub attributes: Attributes,
    /// Events in the order they happened.
    pub events: Vec<SpanEvent>,
    /// Links.
    pub links: Vec<Link>,
    /// Outcome.
    pub status: StatusCode,
    /// Why it failed; empty unless `status` is `Error`, and then usually too.
    pub status_message: String,
}

/// A span's name: nearly always one of a few constants.
pub type Name = std::borrow::Cow<'static, str>;

impl Span {
    /// OTLP's `flags` field: the W3C flags, bit 8 "has is_remote", bit 9 "is_remote".
    pub fn otlp_flags(&self) -> u32 {
        let remote = match self.parent {
            Some(parent) => 0x100 | (u32::from(parent.remote) << 9),
            None => 0x100,
        };
        u32::from(self.trace_flags) | remote
    }
}
