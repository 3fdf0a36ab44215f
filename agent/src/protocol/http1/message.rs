//! What begins a message: whether it is a request's or a response's, and what its head says of what
//! follows.

use std::mem;

use super::chunked::Chunked;
use super::ending::Settled;
use super::framing::{self, Framing};
use super::head::{self, Scan};
use super::order::{Evidence, MethodClass, Outstanding, Role};
use super::{Connection, Direction, End, Event, Phase, Sink};
use crate::protocol::{RequestHead, ResponseHead};

type ShowRequest<'a> = dyn FnMut(RequestHead<'_>, Framing) + 'a;
type ShowResponse<'a> = dyn FnMut(ResponseHead<'_>, Framing) + 'a;

impl Connection {
    /// The first bytes of a message.
    pub(super) fn begin(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        offset: u64,
        sink: &mut Sink<'_>,
    ) -> usize {
        let role = self.role(direction);
        let may_be_request = role != Some(Role::Response) && head::may_be_request(bytes);
        let is_request = may_be_request || role == Some(Role::Request);
        let plausible = if is_request {
            may_be_request
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
        let limit = self.limits.head_bytes as usize;
        if let Some(length) = self.whole_head(direction, bytes, limit, sink) {
            return length;
        }
        if let Scan::Complete(length) = head::scan(bytes, 0, limit)
            && let Some(head) = bytes.get(..length)
        {
            self.head_over(direction, head, false, sink);
            return length;
        }
        self.half(direction).phase = Phase::Head(Box::default());
        self.continue_head(direction, bytes, sink)
    }

    /// An ordinary head, all of which is here, as nearly all are; how long it is. `None`: it is another
    /// one, and nothing was done.
    fn whole_head(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        limit: usize,
        sink: &mut Sink<'_>,
    ) -> Option<usize> {
        let mut length = None;
        if self.role(direction) == Some(Role::Request) {
            let parse = |show: &mut ShowRequest<'_>| {
                length = head::whole_request(bytes, limit, show);
            };
            self.request_head(direction, false, parse, sink);
        } else {
            let parse = |show: &mut ShowResponse<'_>| {
                length = head::whole_response(bytes, limit, show);
            };
            self.response_head(direction, false, parse, sink);
        }
        length
    }

    /// More bytes of a head that was not whole.
    pub(super) fn continue_head(
        &mut self,
        direction: Direction,
        bytes: &[u8],
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
            Scan::Partial => {
                self.half(direction).phase = Phase::Head(buffer);
                bytes.len()
            }
        }
    }

    /// What began like a message is none.
    pub(super) fn reject(&mut self, direction: Direction, bytes: u64, sink: &mut Sink<'_>) {
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

    pub(super) fn unknown(
        &mut self,
        direction: Direction,
        bytes: usize,
        sink: &mut Sink<'_>,
    ) -> usize {
        sink(Event::Unknown { direction, bytes: bytes as u64 });
        // A first message that is not HTTP may be followed by one that is.
        if self.requests.is_some() {
            self.unframe(direction, Phase::Lost, sink);
        }
        bytes
    }

    /// A head is complete, or as complete as it gets.
    pub(super) fn head_over(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        truncated: bool,
        sink: &mut Sink<'_>,
    ) {
        self.half(direction).body = Some(0);
        let understood = match self.role(direction) {
            Some(Role::Request) => {
                let parse =
                    |show: &mut ShowRequest<'_>| head::parse_request(bytes, truncated, show);
                self.request_head(direction, truncated, parse, sink)
            }
            _ => {
                let parse =
                    |show: &mut ShowResponse<'_>| head::parse_response(bytes, truncated, show);
                self.response_head(direction, truncated, parse, sink)
            }
        };
        match self.role(direction) {
            _ if understood => {}
            Some(Role::Request) if truncated => self.unread_head(direction, bytes, sink),
            _ => self.reject(direction, bytes.len() as u64, sink),
        }
    }

    /// Not even the request's first line was seen whole: there was one, and that is all.
    pub(super) fn unread_head(&mut self, direction: Direction, bytes: &[u8], sink: &mut Sink<'_>) {
        let exchange = self.half(direction).exchange;
        let method = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
        if let Some(mine) = self.outstanding.iter_mut().find(|waits| waits.exchange == exchange) {
            mine.method = MethodClass::of(str::from_utf8(method).unwrap_or_default());
        }
        sink(Event::Unknown { direction, bytes: bytes.len() as u64 });
        self.unframe(direction, Phase::Lost, sink);
    }

    /// Takes in the request's head that `parse` shows; whether it shows one.
    fn request_head(
        &mut self,
        direction: Direction,
        truncated: bool,
        parse: impl FnOnce(&mut ShowRequest<'_>),
        sink: &mut Sink<'_>,
    ) -> bool {
        let exchange = self.half(direction).exchange;
        let mut seen = None;
        parse(&mut |head, framing| {
            seen = Some((MethodClass::of(head.method), framing, framing::expects(head.headers)));
            sink(Event::RequestHead { exchange, head });
        });
        let Some((method, framing, expects)) = seen else { return false };
        self.half(direction).body = Some(0);
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

    /// Takes in the response's head that `parse` shows; whether it shows one.
    fn response_head(
        &mut self,
        direction: Direction,
        truncated: bool,
        parse: impl FnOnce(&mut ShowResponse<'_>),
        sink: &mut Sink<'_>,
    ) -> bool {
        let Some(front) = self.outstanding.front_mut() else { return false };
        let Outstanding { exchange, method, .. } = *front;
        let mut seen = None;
        parse(&mut |head, framing| {
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
        self.half(direction).body = Some(0);
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
    pub(super) fn tunnel(&mut self, responses: Direction, truncated: bool, sink: &mut Sink<'_>) {
        let end = if truncated { End::Unseen } else { End::Complete };
        self.body_over(responses, end, sink);
        self.end_request(End::Unseen, responses.opposite(), sink);
        // What was pipelined behind it belongs to the tunnel.
        self.settle_all(Settled::Unseen, sink);
        self.inbound.phase = Phase::Tunnel;
        self.outbound.phase = Phase::Tunnel;
    }
}

fn is_interim(status: u16) -> bool {
    (100..200).contains(&status) && status != 101
}
