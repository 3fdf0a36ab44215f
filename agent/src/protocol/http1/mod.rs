//! HTTP/1.0 and HTTP/1.1 (RFC 9112), one connection at a time.
//!
//! A sans-I/O state machine over both directions of a stream. It sees the first and last bytes of
//! each operation and the true sizes of the rest, so bodies are mostly counted, not read. What it
//! cannot follow it leaves alone: it then waits for bytes at the start of an operation that can only
//! be a request, and makes nothing up meanwhile.

mod chunked;
mod head;
mod order;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::mem;

use super::{Direction, End, Event, ExchangeNo, Segment};
use chunked::Chunked;
use head::{Framing, HeadBuffer, Scan};
use order::{Evidence, MethodClass, Outstanding, Role};

/// Bounds of one connection's memory.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest head that is kept whole; the rest of a longer one is not looked at.
    pub head_bytes: u32,
    /// Most requests without a response; of a peer that sends more, later ones are not followed.
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

/// Why bytes are not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// The operation that moved them is the one being fed, but they were not copied.
    Uncopied,
    /// Their operation was missed.
    Missed,
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

    /// `until_close` is how a body ends that only the stream's end could end.
    fn close_as(&mut self, until_close: End, sink: &mut Sink<'_>) {
        if let Some(requests) = self.requests {
            self.end_request(End::Aborted, requests, sink);
            self.end_responses(requests.opposite(), until_close, sink);
        }
        self.inbound.phase = Phase::Over;
        self.outbound.phase = Phase::Over;
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
        let half = self.half(direction);
        match &mut half.phase {
            Phase::Boundary => match head::blank_bytes(bytes) {
                0 => self.begin(direction, bytes, offset, sink),
                blank => blank,
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

    /// The first bytes of a message.
    fn begin(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        offset: u64,
        sink: &mut Sink<'_>,
    ) -> usize {
        let is_request = match self.role(direction) {
            Some(role) => role == Role::Request,
            None => head::may_be_request(bytes),
        };
        let plausible = if is_request {
            head::may_be_request(bytes)
        } else {
            head::may_be_response(bytes) && !self.outstanding.is_empty()
        };
        if !plausible {
            return self.unknown(direction, bytes.len(), sink);
        }
        if is_request {
            let Some(exchange) = self.take_number(direction, sink) else {
                // Its responses would be taken for those of later requests.
                self.half(direction).phase = Phase::GivenUp;
                sink(Event::Unknown { direction, bytes: bytes.len() as u64 });
                return bytes.len();
            };
            sink(Event::RequestStart { exchange, direction, offset });
        } else if let Some(front) = self.outstanding.front() {
            self.half(direction).exchange = front.exchange;
        }
        if let Scan::Complete(length) = head::scan(bytes, 0, self.limits.head_bytes as usize)
            && let Some(head) = bytes.get(..length)
        {
            self.head_over(direction, head, false, sink);
            return length;
        }
        self.half(direction).phase = Phase::Head(Box::default());
        self.continue_head(direction, bytes, sink)
    }

    /// More bytes of a head that was not whole.
    fn continue_head(&mut self, direction: Direction, bytes: &[u8], sink: &mut Sink<'_>) -> usize {
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
            // What has been answered was a request, though nobody knows which.
            let is_mine = |waits: &Outstanding| waits.exchange == exchange && !waits.responded;
            if self.outstanding.iter().any(is_mine) {
                self.outstanding.retain(|outstanding| !is_mine(outstanding));
                sink(Event::Mistaken { exchange });
            }
            // What began to answer it answers nothing.
            let responses = self.half(direction.opposite());
            if responses.exchange == exchange && matches!(responses.phase, Phase::Head(_)) {
                responses.phase = Phase::Lost;
            }
            if self.evidence == Evidence::None {
                // Nothing else has ever looked like HTTP here.
                self.requests = None;
            }
        }
        sink(Event::Unknown { direction, bytes });
        self.unframe(direction, Phase::Lost, sink);
    }

    fn unknown(&mut self, direction: Direction, bytes: usize, sink: &mut Sink<'_>) -> usize {
        sink(Event::Unknown { direction, bytes: bytes as u64 });
        // A first message that is not HTTP may be followed by one that is.
        if self.requests.is_some() {
            self.unframe(direction, Phase::Lost, sink);
        }
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
        self.half(direction).body = Some(0);
        let understood = match self.role(direction) {
            Some(Role::Request) => self.request_head(direction, bytes, truncated, sink),
            _ => self.response_head(direction, bytes, truncated, sink),
        };
        match self.role(direction) {
            _ if understood => {}
            Some(Role::Request) if truncated => self.unread_head(direction, bytes, sink),
            _ => self.reject(direction, bytes.len() as u64, sink),
        }
    }

    /// Not even the request's first line was seen whole: there was one, and that is all.
    fn unread_head(&mut self, direction: Direction, bytes: &[u8], sink: &mut Sink<'_>) {
        let exchange = self.half(direction).exchange;
        let method = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
        if let Some(mine) = self.outstanding.iter_mut().find(|waits| waits.exchange == exchange) {
            mine.method = MethodClass::of(str::from_utf8(method).unwrap_or_default());
        }
        sink(Event::Unknown { direction, bytes: bytes.len() as u64 });
        self.unframe(direction, Phase::Lost, sink);
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
            seen = Some((MethodClass::of(head.method), framing, head::expects(head.headers)));
            sink(Event::RequestHead { exchange, head });
        });
        let Some((method, framing, expects)) = seen else { return false };
        self.evidence = self.evidence.max(Evidence::Requests);
        let mut newest_first = self.outstanding.iter_mut().rev();
        if let Some(mine) = newest_first.find(|outstanding| outstanding.exchange == exchange) {
            mine.method = method;
        }
        let phase = match framing {
            // What was not seen may say otherwise.
            framing if truncated => Phase::Unframed { bodiless: framing == Framing::Absent },
            Framing::Length(0) | Framing::Absent => Phase::Boundary,
            Framing::Length(length) => Phase::Length(length),
            Framing::Chunked => Phase::Chunked(Chunked::default()),
            Framing::UntilClose | Framing::Invalid => Phase::Unframed { bodiless: false },
        };
        match phase {
            Phase::Boundary => self.body_over(direction, End::Complete, sink),
            Phase::Unframed { .. } => self.unframe(direction, phase, sink),
            phase => {
                let half = self.half(direction);
                half.held_back = expects;
                half.phase = phase;
            }
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
            sink(Event::ResponseStart { exchange });
            sink(Event::ResponseHead { exchange, head });
        });
        let Some((status, framing)) = seen else { return false };
        self.evidence = Evidence::Proved;
        if is_interim(status) {
            self.half(direction.opposite()).held_back &= status != 100;
            match truncated {
                true => self.unframe(direction, Phase::Lost, sink),
                false => self.half(direction).phase = Phase::Boundary,
            }
            return true;
        }
        let is_success = (200..300).contains(&status);
        if status == 101 || (method == MethodClass::Connect && is_success) {
            self.tunnel(direction, truncated, sink);
            return true;
        }
        let bodiless = method == MethodClass::Head || status == 204 || status == 304;
        let phase = match framing {
            _ if truncated => Phase::Unframed { bodiless },
            _ if bodiless => Phase::Length(0),
            Framing::Length(length) => Phase::Length(length),
            Framing::Chunked => Phase::Chunked(Chunked::default()),
            Framing::Absent | Framing::UntilClose => Phase::UntilClose,
            Framing::Invalid => Phase::Unframed { bodiless: false },
        };
        match phase {
            Phase::Length(0) => self.body_over(direction, End::Complete, sink),
            Phase::Unframed { .. } => self.unframe(direction, phase, sink),
            phase => self.half(direction).phase = phase,
        }
        true
    }

    /// HTTP ends with this response's head.
    fn tunnel(&mut self, responses: Direction, truncated: bool, sink: &mut Sink<'_>) {
        let end = if truncated { End::Unseen } else { End::Complete };
        self.body_over(responses, end, sink);
        self.end_request(End::Unseen, responses.opposite(), sink);
        // What was pipelined behind it belongs to the tunnel.
        self.settle_all(Settled::Unseen, sink);
        self.inbound.phase = Phase::Tunnel;
        self.outbound.phase = Phase::Tunnel;
    }

    /// An operation that ends with `tail` is over. Where framing is not followed, that may be the
    /// end of a message, though not for certain.
    fn operation_over(&mut self, direction: Direction, tail: &[u8], sink: &mut Sink<'_>) {
        let over = match self.half(direction).phase {
            Phase::Blind => chunked::ends_like_last_chunk(tail),
            Phase::Unframed { bodiless: true } => tail.ends_with(b"\r\n\r\n"),
            _ => false,
        };
        if over {
            self.body_over(direction, End::Unseen, sink);
            self.half(direction).phase = Phase::Lost;
        }
    }

    /// Bytes that are not there.
    fn skip(&mut self, direction: Direction, bytes: u64, why: Missing, sink: &mut Sink<'_>) {
        let end = if why == Missing::Uncopied { End::Complete } else { End::Unseen };
        let half = self.half(direction);
        match &mut half.phase {
            Phase::Length(left) => {
                let used = bytes.min(*left);
                *left -= used;
                let over = *left == 0;
                half.count(used);
                if over {
                    self.body_over(direction, end, sink);
                }
                if bytes > used {
                    self.next_unseen(direction, bytes - used, why, sink);
                }
            }
            Phase::Chunked(chunked) => {
                let followed = chunked.skip(bytes);
                half.count(bytes);
                if !followed {
                    self.unframe(direction, Phase::Blind, sink);
                }
            }
            Phase::UntilClose | Phase::Unframed { .. } | Phase::Blind => {
                half.held_back = false;
                half.count(bytes);
            }
            Phase::Lost | Phase::GivenUp | Phase::Tunnel | Phase::Over => {
                sink(Event::Unknown { direction, bytes });
                self.answer_missed(direction, bytes, why, sink);
            }
            Phase::Boundary => self.next_unseen(direction, bytes, why, sink),
            Phase::Head(_) => self.cut_head(direction, sink),
        }
    }

    /// A message began, and perhaps ended, among bytes that are not there.
    fn next_unseen(&mut self, direction: Direction, bytes: u64, why: Missing, sink: &mut Sink<'_>) {
        sink(Event::Unknown { direction, bytes });
        // In one operation with a request that waits for its answer, and longer than the line end
        // that may follow a body: another request. (Where an operation was missed, so may the
        // answer have been.)
        if self.role(direction) == Some(Role::Request)
            && why == Missing::Uncopied
            && bytes > 2
            && self.awaits_answer()
        {
            self.pipelines = true;
        }
        self.unframe(direction, Phase::Lost, sink);
        self.answer_missed(direction, bytes, why, sink);
    }

    /// An unknown number of bytes is not there.
    fn lose(&mut self, direction: Direction, sink: &mut Sink<'_>) {
        let half = self.half(direction);
        half.body = None;
        match half.phase {
            Phase::Boundary => self.unframe(direction, Phase::Lost, sink),
            Phase::Head(_) => self.cut_head(direction, sink),
            Phase::Length(_) | Phase::Chunked(_) => {
                self.unframe(direction, Phase::Unframed { bodiless: false }, sink);
            }
            Phase::UntilClose
            | Phase::Blind
            | Phase::Unframed { .. }
            | Phase::Lost
            | Phase::GivenUp
            | Phase::Tunnel
            | Phase::Over => {}
        }
    }

    /// The rest of a head is not there.
    fn cut_head(&mut self, direction: Direction, sink: &mut Sink<'_>) {
        if let Phase::Head(buffer) = mem::replace(&mut self.half(direction).phase, Phase::Lost) {
            self.head_over(direction, buffer.bytes(), true, sink);
        }
    }

    /// A message's last byte was seen, or what ends it.
    fn body_over(&mut self, direction: Direction, end: End, sink: &mut Sink<'_>) {
        let role = self.role(direction);
        let half = self.half(direction);
        let framed = matches!(
            half.phase,
            Phase::Boundary
                | Phase::Head(_)
                | Phase::Length(_)
                | Phase::Chunked(_)
                | Phase::UntilClose
        );
        let body_bytes = half.body.filter(|_| framed);
        half.phase = Phase::Boundary;
        half.body = Some(0);
        let exchange = half.exchange;
        if role == Some(Role::Request) {
            half.held_back = false;
            return sink(Event::RequestEnd { exchange, body_bytes, end });
        }
        self.outstanding.pop_front();
        sink(Event::ResponseEnd { exchange, body_bytes, end });
        let requests = self.half(direction.opposite());
        if requests.held_back && requests.exchange == exchange {
            // Answered without the body, which may or may not be sent now (RFC 9110, 10.1.1).
            requests.held_back = false;
            self.unframe(direction.opposite(), Phase::Unframed { bodiless: false }, sink);
        }
    }

    /// Ends the request that is being read or written, if there is one.
    fn end_request(&mut self, end: End, direction: Direction, sink: &mut Sink<'_>) {
        if matches!(self.half(direction).phase, Phase::Head(_)) {
            self.cut_head(direction, sink);
            if matches!(self.half(direction).phase, Phase::Unframed { .. }) {
                self.body_over(direction, end, sink);
            }
            return;
        }
        match self.half(direction).phase {
            Phase::Length(_) | Phase::Chunked(_) => {
                if end == End::Unseen {
                    // More of it may follow.
                    self.half(direction).body = None;
                }
                self.body_over(direction, end, sink);
            }
            Phase::Unframed { .. } | Phase::Blind | Phase::UntilClose => {
                self.body_over(direction, End::Unseen, sink);
            }
            _ => {}
        }
    }

    /// The response direction will bring nothing more; `until_close` is how a body ends that only
    /// this could end.
    fn end_responses(&mut self, direction: Direction, until_close: End, sink: &mut Sink<'_>) {
        let cut = matches!(self.half(direction).phase, Phase::Head(_));
        if cut {
            self.cut_head(direction, sink);
        }
        let out_of_step = self.half(direction).phase.is_out_of_step() && !cut;
        let how = match &self.half(direction).phase {
            Phase::UntilClose => Some(until_close),
            Phase::Length(_) | Phase::Chunked(_) => Some(End::Aborted),
            Phase::Unframed { .. } if cut => Some(End::Aborted),
            Phase::Unframed { .. } | Phase::Blind => Some(End::Unseen),
            _ => None,
        };
        if let Some(how) = how {
            self.body_over(direction, how, sink);
        }
        self.settle_all(if out_of_step { Settled::Unseen } else { Settled::Abandoned }, sink);
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

/// What becomes of requests that get no response.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Settled {
    /// There will be none.
    Abandoned,
    /// It was or will not be seen.
    Unseen,
}

fn is_interim(status: u16) -> bool {
    (100..200).contains(&status) && status != 101
}
