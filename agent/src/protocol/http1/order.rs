//! Which response answers which request: the requests that wait, which way they go, and what may
//! still be believed once something was missed.
//!
//! Responses come in the order of their requests and name none of them. A request that was missed
//! therefore shifts every later answer by one, unless the sender waits for each answer, as nearly
//! all do. So a connection that was seen to pipeline is given up at its first loss.

use super::ending::Settled;
use super::head;
use super::missing::Missing;
use super::{Connection, Phase, Sink};
use crate::protocol::{Direction, End, Event, ExchangeNo};

/// Fewer bytes hold no response.
const SHORTEST_RESPONSE: &[u8] = b"HTTP/1.1 200\r\n\r\n";

/// A request whose response is not over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outstanding {
    pub(super) exchange: ExchangeNo,
    pub(super) method: MethodClass,
    pub(super) responded: bool,
}

/// What a request's method means for the framing of its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MethodClass {
    Head,
    Connect,
    Other,
}

impl MethodClass {
    pub(super) fn of(method: &str) -> Self {
        match method {
            "HEAD" => Self::Head,
            "CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }
}

/// How sure it is which way requests go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Evidence {
    /// Not known.
    #[default]
    None,
    /// Something looked like a request.
    Requests,
    /// A response came the other way, or it was known from the beginning.
    Proved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Request,
    Response,
}

impl Connection {
    pub(super) fn role(&self, direction: Direction) -> Option<Role> {
        let requests = self.requests?;
        Some(if requests == direction { Role::Request } else { Role::Response })
    }

    /// At the start of an operation: bytes that can only be a message put a lost direction back in
    /// step, and tell which way requests go.
    pub(super) fn resynchronise(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        sink: &mut Sink<'_>,
    ) {
        let phase = &self.half(direction).phase;
        let (is_lost, out_of_step) = (matches!(phase, Phase::Lost), phase.is_out_of_step());
        let idle = is_lost || matches!(phase, Phase::Boundary);
        match self.role(direction) {
            None if is_lost && head::is_request(bytes) => {
                self.half(direction).phase = Phase::Boundary;
            }
            // Nobody sends a request behind one that waits for its answer: this is its body.
            Some(Role::Request) if out_of_step && self.awaits_answer() => {}
            Some(Role::Request) if out_of_step && head::is_request(bytes) => {
                self.end_request(End::Unseen, direction, sink);
                self.half(direction).phase = Phase::Boundary;
            }
            // The other direction looked like requests by accident.
            Some(Role::Response)
                if idle && self.evidence < Evidence::Proved && head::is_request(bytes) =>
            {
                while let Some(outstanding) = self.outstanding.pop_front() {
                    sink(Event::Mistaken { exchange: outstanding.exchange });
                }
                self.requests = Some(direction);
                self.half(direction).phase = Phase::Boundary;
                self.half(direction.opposite()).phase = Phase::Lost;
            }
            // With several that wait, `unframe` has given up.
            Some(Role::Response)
                if is_lost
                    && head::is_response(bytes)
                    && self.outstanding.front().is_some_and(|front| !front.responded) =>
            {
                self.half(direction).phase = Phase::Boundary;
            }
            _ => {}
        }
    }

    /// Whether an operation begins with a response to a request that was missed.
    pub(super) fn is_untold(&self, direction: Direction, bytes: &[u8]) -> bool {
        let (requests, responses) = match direction {
            Direction::Inbound => (&self.outbound.phase, &self.inbound.phase),
            Direction::Outbound => (&self.inbound.phase, &self.outbound.phase),
        };
        let missed = requests.is_out_of_step() || matches!(requests, Phase::GivenUp);
        let between = matches!(responses, Phase::Boundary | Phase::Lost | Phase::GivenUp);
        // The request of an answer that was under way when the connection was first seen is older.
        self.next > 0
            && missed
            && between
            && self.role(direction) == Some(Role::Response)
            && self.outstanding.is_empty()
            && head::is_final_response(bytes)
    }

    /// Whether the newest request has no whole response yet although responses are in step.
    pub(super) fn awaits_answer(&mut self) -> bool {
        let Some(requests) = self.requests else { return false };
        let newest = self.half(requests).exchange;
        let waits = self.outstanding.iter().any(|outstanding| outstanding.exchange == newest);
        waits && !self.half(requests.opposite()).phase.is_out_of_step()
    }

    /// A request begins: its number, or `None` if too many wait already.
    pub(super) fn take_number(
        &mut self,
        direction: Direction,
        sink: &mut Sink<'_>,
    ) -> Option<ExchangeNo> {
        self.requests = Some(direction);
        // What the response side missed will not come any more.
        if self.half(direction.opposite()).phase.is_out_of_step() {
            self.settle_all(Settled::Unseen, sink);
            self.half(direction.opposite()).phase = Phase::Boundary;
        }
        if self.outstanding.len() >= self.limits.outstanding as usize {
            return None;
        }
        self.pipelines |= self.outstanding.iter().any(|outstanding| !outstanding.responded);
        let exchange = self.next;
        self.next = self.next.wrapping_add(1);
        self.half(direction).exchange = exchange;
        let (method, responded) = (MethodClass::Other, false);
        self.outstanding.push_back(Outstanding { exchange, method, responded });
        Some(exchange)
    }

    /// A direction enters a phase that is out of step. Whole messages may be missed from here on;
    /// where several are under way, none of the answers can be told from another any more.
    pub(super) fn unframe(&mut self, direction: Direction, phase: Phase, sink: &mut Sink<'_>) {
        debug_assert!(phase.is_out_of_step(), "only phases that are out of step");
        self.half(direction).phase = phase;
        let opposite = &self.half(direction.opposite()).phase;
        let (both, given_up) = (opposite.is_out_of_step(), matches!(opposite, Phase::GivenUp));
        let hopeless = match self.role(direction) {
            Some(Role::Request) => self.pipelines,
            Some(Role::Response) => self.outstanding.len() > 1 || given_up,
            None => false,
        };
        if hopeless && let Some(requests) = self.requests {
            self.end_request(End::Unseen, requests, sink);
            self.half(requests).phase = Phase::GivenUp;
            // The next answers are those to the requests that were seen before.
            if requests != direction || both {
                self.settle_all(Settled::Unseen, sink);
                self.half(requests.opposite()).phase = Phase::GivenUp;
            }
            return;
        }
        // With a request missed and a response missed, the next response may answer neither.
        let Some(front) = self.outstanding.front() else { return };
        if both && !front.responded {
            self.settle_all(Settled::Unseen, sink);
        } else if self.role(direction) == Some(Role::Response) {
            sink(Event::ResponseAdrift { exchange: front.exchange });
        }
    }

    /// Bytes were missed in which the next answer may have been. What is seen next may answer a
    /// request that was missed as well, which may come to light only later.
    pub(super) fn answer_missed(
        &mut self,
        direction: Direction,
        bytes: u64,
        why: Missing,
        sink: &mut Sink<'_>,
    ) {
        if self.role(direction) == Some(Role::Response)
            && why == Missing::Missed
            && bytes >= SHORTEST_RESPONSE.len() as u64
            && self.outstanding.front().is_some_and(|front| !front.responded)
        {
            self.settle_all(Settled::Unseen, sink);
        }
    }

    /// No outstanding request will get a response any more.
    pub(super) fn settle_all(&mut self, how: Settled, sink: &mut Sink<'_>) {
        while let Some(Outstanding { exchange, responded, .. }) = self.outstanding.pop_front() {
            // What had begun to be answered was not abandoned.
            if responded || how == Settled::Unseen {
                sink(Event::ResponseEnd { exchange, body_bytes: None, end: End::Unseen });
            } else {
                sink(Event::Abandoned { exchange });
            }
        }
    }
}
