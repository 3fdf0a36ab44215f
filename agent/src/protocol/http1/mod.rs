//! HTTP/1.0 and HTTP/1.1 (RFC 9112), one connection at a time.
//!
//! A sans-I/O state machine over both directions of a stream. It sees the first bytes of each
//! operation and the true sizes of the rest, so bodies are mostly counted, not read. What it cannot
//! follow it leaves alone: it then waits for bytes at the start of an operation that can only be a
//! request, and makes nothing up meanwhile.

mod chunked;
mod head;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::mem;

use super::{Direction, End, Event, ExchangeNo, Segment};
use chunked::Chunked;
use head::{Framing, HeadBuffer, Scan};

/// Bounds of one connection's memory.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest head that is kept whole; the rest of a longer one is not looked at.
    pub head_bytes: u32,
    /// Most requests without a response; a peer that sends more is not followed.
    pub outstanding: u32,
}

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
    inbound: Half,
    outbound: Half,
    /// Requests whose response is not over, oldest first.
    outstanding: VecDeque<Outstanding>,
    next: ExchangeNo,
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Half {
    phase: Phase,
    /// Bytes of the current body.
    body: u64,
    /// The exchange that the message belongs to.
    exchange: ExchangeNo,
}

impl Half {
    /// Whether bytes that are not there belong to one chunk for certain.
    fn is_within_chunk(&self, bytes: u64) -> bool {
        matches!(&self.phase, Phase::Chunked(chunked) if chunked.has_left(bytes))
    }
}

/// Where one direction stands.
#[derive(Debug, Default)]
enum Phase {
    /// The next byte begins a message.
    #[default]
    Boundary,
    /// In a head that is not complete.
    Head(Box<HeadBuffer>),
    /// In a body of known length.
    Length(u64),
    /// In a chunked body.
    Chunked(Chunked),
    /// In a body that ends with the stream.
    UntilClose,
    /// In a body whose framing was not seen.
    Unframed,
    /// Out of step: only a head at the start of an operation helps.
    Lost,
    /// HTTP is over (101, CONNECT).
    Tunnel,
}

#[derive(Clone, Copy, Debug)]
struct Outstanding {
    exchange: ExchangeNo,
    method: MethodClass,
    responded: bool,
}

/// What a request's method means for the framing of its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MethodClass {
    Head,
    Connect,
    Other,
}

impl MethodClass {
    fn of(method: &str) -> Self {
        match method {
            "HEAD" => Self::Head,
            "CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Request,
    Response,
}

type Sink<'a> = dyn FnMut(Event<'_>) + 'a;

impl Connection {
    /// A connection of which nothing was seen.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes in one operation.
    pub fn feed(&mut self, direction: Direction, segment: Segment<'_>, sink: &mut Sink<'_>) {
        let Segment { prefix, len, suffix } = segment;
        let unseen = len.saturating_sub(prefix.len() as u64);
        self.resynchronise(direction, prefix, sink);
        self.advance_all(direction, prefix, 0, (unseen, suffix), sink);
        if unseen == 0 {
            return self.blind_end(direction, prefix, sink);
        }
        let missing = unseen.saturating_sub(suffix.len() as u64);
        if self.half(direction).is_within_chunk(missing) {
            // Only a part of one chunk is missing: what it says of itself leads on to the last bytes.
            self.skip(direction, missing, &[], sink);
            self.advance_all(direction, suffix, len - suffix.len() as u64, (0, &[]), sink);
        } else {
            self.skip(direction, unseen, suffix, sink);
        }
    }

    /// Handles bytes `offset` bytes into a segment; `behind` is what the segment has behind them.
    fn advance_all(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        mut offset: u64,
        behind: (u64, &[u8]),
        sink: &mut Sink<'_>,
    ) {
        let mut rest = bytes;
        let (unseen, suffix) = behind;
        while !rest.is_empty() {
            let used = self.advance(direction, rest, offset, unseen, suffix, sink);
            rest = rest.get(used..).unwrap_or_default();
            offset += used as u64;
            if used == 0 {
                break;
            }
        }
    }

    /// Bytes of a direction were missed; `None` if it is not known how many.
    pub fn gap(&mut self, direction: Direction, bytes: Option<u64>, sink: &mut Sink<'_>) {
        match bytes {
            Some(bytes) => self.skip(direction, bytes, &[], sink),
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
        self.half(direction).phase = Phase::Lost;
    }

    /// The connection is gone.
    pub fn close(&mut self, sink: &mut Sink<'_>) {
        if let Some(requests) = self.requests {
            self.end_request(End::Aborted, requests, sink);
            self.end_responses(requests.opposite(), End::Aborted, sink);
        }
        self.inbound.phase = Phase::Lost;
        self.outbound.phase = Phase::Lost;
    }

    fn half(&mut self, direction: Direction) -> &mut Half {
        match direction {
            Direction::Inbound => &mut self.inbound,
            Direction::Outbound => &mut self.outbound,
        }
    }

    fn role(&self, direction: Direction) -> Option<Role> {
        let requests = self.requests?;
        Some(if requests == direction { Role::Request } else { Role::Response })
    }

    /// At the start of an operation: bytes that can only be a message put a lost direction back in
    /// step, and tell which way requests go.
    fn resynchronise(&mut self, direction: Direction, bytes: &[u8], sink: &mut Sink<'_>) {
        let lost = matches!(self.half(direction).phase, Phase::Lost | Phase::Unframed);
        let opposite = self.half(direction.opposite());
        let other_lost = matches!(opposite.phase, Phase::Lost | Phase::Boundary | Phase::Unframed);
        match self.role(direction) {
            // The other direction may have looked like requests by accident.
            Some(Role::Response) if lost && other_lost && head::is_request(bytes) => {
                self.close(sink);
                self.requests = Some(direction);
                self.half(direction).phase = Phase::Boundary;
            }
            Some(Role::Request) if lost && head::is_request(bytes) => {
                self.end_request(End::Unseen, direction, sink);
                self.half(direction).phase = Phase::Boundary;
            }
            Some(Role::Response) if lost && head::is_response(bytes) => {
                self.settle_front(sink);
                if !self.outstanding.is_empty() {
                    self.half(direction).phase = Phase::Boundary;
                }
            }
            _ => {}
        }
    }

    /// Handles the first bytes of `bytes` and says how many; all of them unless a message ended.
    fn advance(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        offset: u64,
        unseen: u64,
        suffix: &[u8],
        sink: &mut Sink<'_>,
    ) -> usize {
        let half = self.half(direction);
        match &mut half.phase {
            Phase::Boundary => {
                let blank = head::blank_bytes(bytes);
                if blank > 0 {
                    return blank;
                }
                self.begin(direction, bytes, offset, unseen, suffix, sink)
            }
            Phase::Head(_) => self.continue_head(direction, bytes, unseen, suffix, sink),
            Phase::Length(left) => {
                let used = (bytes.len() as u64).min(*left);
                *left -= used;
                half.body += used;
                if *left == 0 {
                    self.body_over(direction, End::Complete, sink);
                }
                used as usize
            }
            Phase::Chunked(chunked) => {
                let step = chunked.advance(bytes);
                half.body += step.body;
                if step.over {
                    self.body_over(direction, End::Complete, sink);
                } else if step.broken {
                    self.lose(direction, sink);
                }
                step.used
            }
            Phase::UntilClose | Phase::Unframed => {
                half.body += bytes.len() as u64;
                bytes.len()
            }
            Phase::Lost | Phase::Tunnel => {
                sink(Event::Unknown { direction, bytes: bytes.len() as u64 });
                bytes.len()
            }
        }
    }

    /// The first bytes of a message.
    fn begin(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        offset: u64,
        unseen: u64,
        suffix: &[u8],
        sink: &mut Sink<'_>,
    ) -> usize {
        let is_request = match self.role(direction) {
            Some(role) => role == Role::Request,
            None => head::may_be_request(bytes),
        };
        let plausible = if is_request {
            head::may_be_request(bytes) && self.outstanding.len() < self.limits.outstanding as usize
        } else {
            head::may_be_response(bytes) && self.outstanding.front().is_some()
        };
        if !plausible {
            if is_request && self.requests.is_some() {
                self.settle_all(sink);
            }
            return self.unknown(direction, bytes.len(), sink);
        }
        if is_request {
            self.requests = Some(direction);
            // What the response side missed will not come any more.
            if matches!(self.half(direction.opposite()).phase, Phase::Lost | Phase::Unframed) {
                self.settle_all(sink);
                self.half(direction.opposite()).phase = Phase::Boundary;
            }
            let exchange = self.next;
            self.next = self.next.wrapping_add(1);
            self.half(direction).exchange = exchange;
            self.outstanding.push_back(Outstanding {
                exchange,
                method: MethodClass::Other,
                responded: false,
            });
            sink(Event::RequestStart { exchange, direction, offset });
        } else if let Some(front) = self.outstanding.front() {
            let exchange = front.exchange;
            self.half(direction).exchange = exchange;
        }
        if let Scan::Complete(length) = head::scan(bytes, 0, self.limits.head_bytes as usize)
            && let Some(head) = bytes.get(..length)
        {
            self.head_over(direction, head, false, sink);
            return length;
        }
        self.half(direction).phase = Phase::Head(Box::default());
        self.continue_head(direction, bytes, unseen, suffix, sink)
    }

    /// More bytes of a head that was not whole.
    fn continue_head(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        unseen: u64,
        suffix: &[u8],
        sink: &mut Sink<'_>,
    ) -> usize {
        let limit = self.limits.head_bytes as usize;
        let Phase::Head(mut buffer) = mem::take(&mut self.half(direction).phase) else { return 0 };
        let is_request = self.role(direction) == Some(Role::Request);
        let before = buffer.len();
        buffer.extend(bytes, limit);
        match buffer.scan(limit) {
            Scan::Complete(length) => {
                let head = buffer.bytes().get(..length).unwrap_or_default();
                self.head_over(direction, head, false, sink);
                length.saturating_sub(before)
            }
            Scan::TooLong => {
                self.head_over(direction, buffer.bytes(), true, sink);
                bytes.len()
            }
            Scan::Partial if !buffer.is_plausible(is_request) => {
                self.reject(direction, buffer.len() as u64, sink);
                bytes.len()
            }
            Scan::Partial if unseen > 0 => {
                // The rest of the head was not copied. Its end may still show.
                let at_end = suffix.ends_with(b"\r\n\r\n");
                self.head_over(direction, buffer.bytes(), true, sink);
                if at_end && is_request {
                    self.bodiless(direction, sink);
                }
                bytes.len()
            }
            Scan::Partial => {
                self.half(direction).phase = Phase::Head(buffer);
                bytes.len()
            }
        }
    }

    /// What began like a message is none.
    fn reject(&mut self, direction: Direction, bytes: u64, sink: &mut Sink<'_>) {
        if self.role(direction) == Some(Role::Request) {
            let exchange = self.half(direction).exchange;
            self.outstanding.retain(|outstanding| outstanding.exchange != exchange);
            sink(Event::Abandoned { exchange });
            if self.next == 1 {
                // Nothing else has ever looked like HTTP here.
                self.requests = None;
                self.next = 0;
            }
        }
        self.half(direction).phase = Phase::Lost;
        sink(Event::Unknown { direction, bytes });
    }

    fn unknown(&mut self, direction: Direction, bytes: usize, sink: &mut Sink<'_>) -> usize {
        // A first message that is not HTTP may be followed by one that is.
        self.half(direction).phase =
            if self.requests.is_none() { Phase::Boundary } else { Phase::Lost };
        sink(Event::Unknown { direction, bytes: bytes as u64 });
        bytes
    }

    /// A head is complete, or as complete as it gets.
    fn head_over(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        truncated: bool,
        sink: &mut Sink<'_>,
    ) {
        self.half(direction).body = 0;
        let understood = match self.role(direction) {
            Some(Role::Request) => self.request_head(direction, bytes, truncated, sink),
            _ => self.response_head(direction, bytes, truncated, sink),
        };
        if !understood {
            self.reject(direction, bytes.len() as u64, sink);
        }
    }

    fn request_head(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        truncated: bool,
        sink: &mut Sink<'_>,
    ) -> bool {
        let exchange = self.half(direction).exchange;
        let mut seen = None;
        head::parse_request(bytes, truncated, &mut |head, framing| {
            seen = Some((MethodClass::of(head.method), framing));
            sink(Event::RequestHead { exchange, head });
        });
        let Some((method, framing)) = seen else { return false };
        if let Some(last) = self.outstanding.back_mut() {
            last.method = method;
        }
        let phase = match framing {
            Framing::Length(0) => Phase::Boundary,
            Framing::Length(length) => Phase::Length(length),
            Framing::Chunked => Phase::Chunked(Chunked::default()),
            Framing::Absent if truncated => Phase::Unframed,
            Framing::Absent => Phase::Boundary,
            Framing::UntilClose | Framing::Invalid => Phase::Unframed,
        };
        let over = matches!(phase, Phase::Boundary);
        self.half(direction).phase = phase;
        if over {
            sink(Event::RequestEnd { exchange, body_bytes: 0, end: End::Complete });
        }
        true
    }

    fn response_head(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        truncated: bool,
        sink: &mut Sink<'_>,
    ) -> bool {
        let Some(front) = self.outstanding.front_mut() else { return false };
        let Outstanding { exchange, method, .. } = *front;
        let mut seen = None;
        head::parse_response(bytes, truncated, &mut |head, framing| {
            seen = Some((head.status, framing));
            if is_interim(head.status) {
                sink(Event::Interim { exchange, status: head.status });
                return;
            }
            front.responded = true;
            // A head in one piece starts and ends with the same operation; one in pieces was
            // started by its first.
            sink(Event::ResponseStart { exchange, offset: 0 });
            sink(Event::ResponseHead { exchange, head });
        });
        let Some((status, framing)) = seen else { return false };
        if is_interim(status) {
            self.half(direction).phase = Phase::Boundary;
            return true;
        }
        let tunnel =
            status == 101 || (method == MethodClass::Connect && (200..300).contains(&status));
        if tunnel {
            self.body_over(direction, End::Complete, sink);
            self.end_request(End::Complete, direction.opposite(), sink);
            self.inbound.phase = Phase::Tunnel;
            self.outbound.phase = Phase::Tunnel;
            return true;
        }
        let bodiless = method == MethodClass::Head || status == 204 || status == 304;
        let phase = match framing {
            _ if bodiless => Phase::Length(0),
            Framing::Length(length) => Phase::Length(length),
            Framing::Chunked => Phase::Chunked(Chunked::default()),
            Framing::Absent if truncated => Phase::Unframed,
            Framing::Absent | Framing::UntilClose => Phase::UntilClose,
            Framing::Invalid => Phase::Unframed,
        };
        let over = matches!(phase, Phase::Length(0));
        self.half(direction).phase = phase;
        if over {
            self.body_over(direction, End::Complete, sink);
        }
        true
    }

    /// A request whose head was cut ends where the head ends.
    fn bodiless(&mut self, direction: Direction, sink: &mut Sink<'_>) {
        if matches!(self.half(direction).phase, Phase::Unframed) {
            self.end_request(End::Unseen, direction, sink);
            self.half(direction).phase = Phase::Boundary;
        }
    }

    /// A message's last byte was seen.
    fn body_over(&mut self, direction: Direction, end: End, sink: &mut Sink<'_>) {
        let role = self.role(direction);
        let half = self.half(direction);
        half.phase = Phase::Boundary;
        let (exchange, body_bytes) = (half.exchange, half.body);
        half.body = 0;
        match role {
            Some(Role::Request) => sink(Event::RequestEnd { exchange, body_bytes, end }),
            _ => {
                self.outstanding.pop_front();
                sink(Event::ResponseEnd { exchange, body_bytes, end });
            }
        }
    }

    /// Bytes that were not copied, or missed.
    fn skip(&mut self, direction: Direction, bytes: u64, suffix: &[u8], sink: &mut Sink<'_>) {
        let half = self.half(direction);
        match &mut half.phase {
            Phase::Length(left) if bytes <= *left => {
                *left -= bytes;
                half.body += bytes;
                if *left == 0 {
                    self.body_over(direction, End::Complete, sink);
                }
            }
            Phase::Length(left) => {
                // The message ended among them and another began.
                half.body += *left;
                self.body_over(direction, End::Unseen, sink);
                self.lose(direction, sink);
            }
            Phase::Chunked(chunked) => {
                half.body += chunked.skip(bytes);
                self.blind_end(direction, suffix, sink);
            }
            Phase::UntilClose | Phase::Unframed => half.body += bytes,
            Phase::Lost | Phase::Tunnel => sink(Event::Unknown { direction, bytes }),
            Phase::Boundary | Phase::Head(_) => {
                self.lose(direction, sink);
                sink(Event::Unknown { direction, bytes });
            }
        }
    }

    /// A chunked body whose chunks are not followed any more ends with an operation that ends like
    /// a last chunk.
    fn blind_end(&mut self, direction: Direction, tail: &[u8], sink: &mut Sink<'_>) {
        if let Phase::Chunked(chunked) = &self.half(direction).phase
            && chunked.is_blind()
            && chunked::ends_like_last_chunk(tail)
        {
            self.body_over(direction, End::Complete, sink);
        }
    }

    /// The direction is out of step.
    fn lose(&mut self, direction: Direction, sink: &mut Sink<'_>) {
        let phase = mem::replace(&mut self.half(direction).phase, Phase::Lost);
        match (self.role(direction), phase) {
            (Some(Role::Request), Phase::Head(buffer)) => {
                // As much of the head as was seen.
                self.head_over(direction, buffer.bytes(), true, sink);
                self.half(direction).phase = Phase::Lost;
            }
            (Some(Role::Request), Phase::Length(_) | Phase::Chunked(_)) => {
                let half = self.half(direction);
                let (exchange, body_bytes) = (half.exchange, half.body);
                sink(Event::RequestEnd { exchange, body_bytes, end: End::Unseen });
            }
            (Some(Role::Response), Phase::Head(buffer)) => {
                self.head_over(direction, buffer.bytes(), true, sink);
                self.half(direction).phase = Phase::Lost;
            }
            (_, Phase::Tunnel) => self.half(direction).phase = Phase::Tunnel,
            _ => {}
        }
    }

    /// Ends the request that is being read or written, if there is one.
    fn end_request(&mut self, end: End, direction: Direction, sink: &mut Sink<'_>) {
        let half = self.half(direction);
        let (exchange, body_bytes) = (half.exchange, half.body);
        match half.phase {
            Phase::Head(_) => {
                let Phase::Head(buffer) = mem::replace(&mut half.phase, Phase::Lost) else {
                    return;
                };
                self.head_over(direction, buffer.bytes(), true, sink);
                self.half(direction).phase = Phase::Lost;
                sink(Event::RequestEnd { exchange, body_bytes: 0, end });
            }
            Phase::Length(_) | Phase::Chunked(_) => {
                sink(Event::RequestEnd { exchange, body_bytes, end });
            }
            Phase::Unframed | Phase::UntilClose => {
                sink(Event::RequestEnd { exchange, body_bytes, end: End::Unseen });
            }
            Phase::Boundary | Phase::Lost | Phase::Tunnel => {}
        }
    }

    /// The response direction will bring nothing more.
    fn end_responses(&mut self, direction: Direction, end: End, sink: &mut Sink<'_>) {
        let half = self.half(direction);
        let how = match &half.phase {
            Phase::UntilClose => Some(end),
            Phase::Length(_) => Some(End::Aborted),
            Phase::Chunked(chunked) if chunked.is_blind() => Some(End::Unseen),
            Phase::Chunked(_) => Some(End::Aborted),
            Phase::Unframed => Some(End::Unseen),
            Phase::Boundary | Phase::Head(_) | Phase::Lost | Phase::Tunnel => None,
        };
        if let Some(how) = how {
            self.body_over(direction, how, sink);
        }
        self.settle_all(sink);
    }

    /// The response under way, if any, ended unseen.
    fn settle_front(&mut self, sink: &mut Sink<'_>) {
        if self.outstanding.front().is_some_and(|front| front.responded)
            && let Some(front) = self.outstanding.pop_front()
        {
            let (exchange, end) = (front.exchange, End::Unseen);
            let body_bytes =
                self.requests.map_or(0, |requests| self.half(requests.opposite()).body);
            sink(Event::ResponseEnd { exchange, body_bytes, end });
        }
    }

    /// No outstanding request will get a response any more.
    fn settle_all(&mut self, sink: &mut Sink<'_>) {
        self.settle_front(sink);
        while let Some(Outstanding { exchange, .. }) = self.outstanding.pop_front() {
            sink(Event::Abandoned { exchange });
        }
    }
}

fn is_interim(status: u16) -> bool {
    (100..200).contains(&status) && status != 101
}
