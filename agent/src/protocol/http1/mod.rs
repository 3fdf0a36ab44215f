//! HTTP/1.0 and HTTP/1.1 (RFC 9112), one connection at a time.
//!
//! A sans-I/O state machine over both directions of a stream. It sees the first and last bytes of
//! each operation and the true sizes of the rest, so bodies are mostly counted, not read. What it
//! cannot follow it leaves alone: it then waits for bytes at the start of an operation that can only
//! be a request, and makes nothing up meanwhile.

mod chunked;
mod ending;
mod framing;
mod head;
mod message;
mod missing;
mod order;
mod preface;
mod request_line;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::mem;

use super::{Direction, End, Event, ExchangeNo, Segment};
use chunked::Chunked;
use ending::Settled;
use head::HeadBuffer;
use missing::Missing;
use order::{Evidence, Outstanding, Role};
use preface::{Part, Preface};

/// Bounds of one connection's memory.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest head that is kept whole; the rest of a longer one is not looked at.
    pub head_bytes: u32,
    /// Most requests without a response; of a peer that sends more, later ones are not followed.
    pub outstanding: u32,
}

/// At most so many requests without a response are few.
const FEW: usize = 8;

impl Default for Limits {
    fn default() -> Self {
        Self { head_bytes: 16 << 10, outstanding: 128 }
    }
}

/// What the parser knows of one connection.
#[derive(Debug, Default)]
pub struct Connection {
    limits: Limits,
    /// The direction that requests take, once one was seen.
    requests: Option<Direction>,
    evidence: Evidence,
    /// A request was seen to begin before the one before it was answered: what is missed on such a
    /// connection spoils the order of everything behind it.
    pipelines: bool,
    inbound: Half,
    outbound: Half,
    /// Requests whose response is not over, oldest first.
    outstanding: VecDeque<Outstanding>,
    next: ExchangeNo,
}

/// One direction of a connection.
#[derive(Debug)]
struct Half {
    phase: Phase,
    /// Bytes of the current body; `None` once they cannot be told from its framing.
    body: Option<u64>,
    /// The exchange that the message belongs to.
    exchange: ExchangeNo,
    /// A request's body that is held back for a 100 (Continue).
    held_back: bool,
}

impl Default for Half {
    fn default() -> Self {
        Self { phase: Phase::Boundary, body: Some(0), exchange: 0, held_back: false }
    }
}

/// Where one direction stands.
#[derive(Debug, Default)]
enum Phase {
    /// The next byte begins a message.
    #[default]
    Boundary,
    /// In what a proxy says before the first message.
    Preface(Preface),
    /// In a head that is not complete.
    Head(Box<HeadBuffer>),
    /// In a body of known length.
    Length(u64),
    /// In a chunked body.
    Chunked(Chunked),
    /// In a chunked body whose chunks are not followed any more.
    Blind,
    /// In a body that ends with the stream.
    UntilClose,
    /// In a message whose framing was not seen; whether what was seen announces no body.
    Unframed { bodiless: bool },
    /// Out of step: only a head at the start of an operation helps.
    Lost,
    /// Messages cannot be told apart any more.
    GivenUp,
    /// HTTP is over (101, CONNECT).
    Tunnel,
    /// The stream has ended.
    Over,
}

impl Phase {
    /// Whether it is not known where the next message begins.
    fn is_out_of_step(&self) -> bool {
        matches!(self, Self::Blind | Self::Unframed { .. } | Self::Lost)
    }
}

type Sink<'a> = dyn FnMut(Event<'_>) + 'a;

impl Connection {
    /// A connection that is about to begin.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// A connection that has been used before, and which way its requests go if that is known.
    pub fn older(limits: Limits, requests: Option<Direction>) -> Self {
        let mut connection = Self { limits, requests, ..Self::default() };
        connection.inbound.phase = Phase::Lost;
        connection.outbound.phase = Phase::Lost;
        if requests.is_some() {
            connection.evidence = Evidence::Proved;
        }
        connection
    }

    /// Becomes another connection; keeps the memory.
    pub fn begin_anew(&mut self, other: Self) {
        let mut outstanding = mem::take(&mut self.outstanding);
        outstanding.clear();
        *self = Self { outstanding, ..other };
    }

    /// Whether few requests have ever waited on it at one time.
    pub fn is_small(&self) -> bool {
        self.outstanding.capacity() <= FEW
    }

    /// Takes in one operation.
    pub fn feed(&mut self, direction: Direction, segment: Segment<'_>, sink: &mut Sink<'_>) {
        let Segment { prefix, len, suffix } = segment;
        let uncopied = len.saturating_sub((prefix.len() + suffix.len()) as u64);
        if self.is_untold(direction, prefix) {
            sink(Event::Untold);
        }
        self.resynchronise(direction, prefix, sink);
        self.read(direction, prefix, 0, sink);
        if uncopied > 0 {
            self.skip(direction, uncopied, Missing::Uncopied, sink);
        }
        self.read(direction, suffix, prefix.len() as u64 + uncopied, sink);
        let whole = uncopied == 0 && suffix.is_empty();
        self.operation_over(direction, if whole { prefix } else { suffix }, sink);
    }

    /// Bytes of a direction were missed; `None` if it is not known how many.
    pub fn gap(&mut self, direction: Direction, bytes: Option<u64>, sink: &mut Sink<'_>) {
        match bytes {
            Some(0) => {}
            Some(bytes) => self.skip(direction, bytes, Missing::Missed, sink),
            None => self.lose(direction, sink),
        }
    }

    /// The stream ended in this direction.
    pub fn end(&mut self, direction: Direction, sink: &mut Sink<'_>) {
        match self.role(direction) {
            Some(Role::Request) => self.end_request(End::Aborted, direction, sink),
            Some(Role::Response) => self.end_responses(direction, End::CloseDelimited, sink),
            None => {}
        }
        self.half(direction).phase = Phase::Over;
    }

    /// The connection is gone.
    pub fn close(&mut self, sink: &mut Sink<'_>) {
        // Whoever has closed it himself may have had all that he wanted.
        let closed_here = matches!(self.outbound.phase, Phase::Over);
        self.close_as(if closed_here { End::Unseen } else { End::Aborted }, sink);
    }

    /// The connection was found closed, some time after that had happened. Who has closed it may have handed
    /// it to somebody before who is not seen.
    pub fn found_closed(&mut self, sink: &mut Sink<'_>) {
        if let Some(requests) = self.requests {
            self.end_request(End::Unseen, requests, sink);
            if self.outstanding.front().is_some_and(|front| !front.responded) {
                self.settle_all(Settled::Unseen, sink);
            }
            let until_close = match requests {
                Direction::Inbound => End::CloseDelimited,
                // It may have had all that it wanted.
                Direction::Outbound => End::Unseen,
            };
            self.end_responses(requests.opposite(), until_close, sink);
        }
        self.inbound.phase = Phase::Over;
        self.outbound.phase = Phase::Over;
    }

    /// The connection is gone, and it is not known since when.
    pub fn vanish(&mut self, sink: &mut Sink<'_>) {
        self.close_as(End::Unseen, sink);
    }

    /// An operation found the stream broken in this direction.
    pub fn break_off(&mut self, direction: Direction, sink: &mut Sink<'_>) {
        match self.role(direction) {
            Some(Role::Request) => self.end_request(End::Aborted, direction, sink),
            Some(Role::Response) => self.end_responses(direction, End::Aborted, sink),
            None => {}
        }
        self.half(direction).phase = Phase::Over;
    }

    /// Nothing more will be seen of the connection, whether it goes on or not.
    pub fn lose_sight(&mut self, sink: &mut Sink<'_>) {
        if let Some(requests) = self.requests {
            self.end_request(End::Unseen, requests, sink);
            self.settle_all(Settled::Unseen, sink);
        }
        self.inbound.phase = Phase::Over;
        self.outbound.phase = Phase::Over;
    }

    /// Whether responses are still to be read: they can be when the connection itself is gone.
    pub fn is_to_be_read(&self) -> bool {
        let over = matches!(self.inbound.phase, Phase::Over);
        self.requests == Some(Direction::Outbound) && !self.outstanding.is_empty() && !over
    }

    /// Whether every message that has come in a direction so far is known to have begun.
    pub fn follows(&self, direction: Direction) -> bool {
        let half = match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        };
        match &half.phase {
            Phase::Boundary | Phase::Preface(_) => true,
            Phase::Head(_) | Phase::Length(_) | Phase::Chunked(_) => true,
            // What came before the end may have been out of step.
            Phase::Over | Phase::GivenUp | Phase::Tunnel | Phase::UntilClose => false,
            phase => !phase.is_out_of_step(),
        }
    }

    /// Bytes that peers have made it keep.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn held_bytes(&self) -> usize {
        let head = |half: &Half| match &half.phase {
            Phase::Head(buffer) => buffer.held_bytes(),
            _ => 0,
        };
        let waiting = self.outstanding.capacity() * size_of::<Outstanding>();
        head(&self.inbound) + head(&self.outbound) + waiting
    }

    fn half(&mut self, direction: Direction) -> &mut Half {
        match direction {
            Direction::Inbound => &mut self.inbound,
            Direction::Outbound => &mut self.outbound,
        }
    }

    /// Handles bytes that follow each other, `offset` bytes into their operation.
    fn read(&mut self, direction: Direction, bytes: &[u8], offset: u64, sink: &mut Sink<'_>) {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let used = self.advance(direction, rest, offset + done as u64, sink);
            debug_assert!(used > 0, "every step takes bytes");
            if used == 0 {
                break;
            }
            done += used;
        }
    }

    /// Handles the first of `bytes` and says how many; all of them unless a message ended.
    fn advance(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        offset: u64,
        sink: &mut Sink<'_>,
    ) -> usize {
        let begins = self.requests.is_none();
        let half = self.half(direction);
        match &mut half.phase {
            Phase::Boundary if begins && let Some(preface) = Preface::begin(bytes) => {
                half.phase = Phase::Preface(preface);
                self.advance(direction, bytes, offset, sink)
            }
            Phase::Boundary => match head::blank_bytes(bytes) {
                0 => self.begin(direction, bytes, offset, sink),
                blank => blank,
            },
            Phase::Preface(preface) => match preface.advance(bytes) {
                Part::All => bytes.len(),
                Part::End(used) => {
                    half.phase = Phase::Boundary;
                    used
                }
                Part::Blank => {
                    half.phase = Phase::Boundary;
                    self.advance(direction, bytes, offset, sink)
                }
                Part::Other(before) => {
                    half.phase = Phase::Boundary;
                    sink(Event::Unknown { direction, bytes: before + bytes.len() as u64 });
                    bytes.len()
                }
            },
            Phase::Head(_) => self.continue_head(direction, bytes, sink),
            Phase::Length(left) => {
                let used = (bytes.len() as u64).min(*left);
                *left -= used;
                let over = *left == 0;
                half.count(used);
                if over {
                    self.body_over(direction, End::Complete, sink);
                }
                used as usize
            }
            Phase::Chunked(chunked) => {
                let step = chunked.advance(bytes);
                half.count(step.body);
                if step.over {
                    self.body_over(direction, End::Complete, sink);
                } else if step.broken {
                    self.unframe(direction, Phase::Unframed { bodiless: false }, sink);
                }
                step.used
            }
            Phase::UntilClose | Phase::Unframed { .. } | Phase::Blind => {
                half.held_back = false;
                half.count(bytes.len() as u64);
                bytes.len()
            }
            Phase::Lost | Phase::GivenUp | Phase::Tunnel | Phase::Over => {
                sink(Event::Unknown { direction, bytes: bytes.len() as u64 });
                bytes.len()
            }
        }
    }
}

impl Half {
    fn count(&mut self, bytes: u64) {
        if bytes > 0 {
            self.held_back = false;
        }
        self.body = self.body.map(|body| body.saturating_add(bytes));
    }
}
