//! What ends a message: its last byte, the stream, the connection, or that nothing more can be seen.

use super::order::Role;
use super::{Connection, Direction, End, Event, Phase, Sink};

/// What becomes of requests that get no response.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// There will be none.
    Abandoned,
    /// It was or will not be seen.
    Unseen,
}

impl Connection {
    /// `until_close` is how a body ends that only the stream's end could end.
    pub(super) fn close_as(&mut self, until_close: End, sink: &mut Sink<'_>) {
        if let Some(requests) = self.requests {
            self.end_request(End::Aborted, requests, sink);
            self.end_responses(requests.opposite(), until_close, sink);
        }
        self.inbound.phase = Phase::Over;
        self.outbound.phase = Phase::Over;
    }

    /// A message's last byte was seen, or what ends it.
    pub(super) fn body_over(&mut self, direction: Direction, end: End, sink: &mut Sink<'_>) {
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
    pub(super) fn end_request(&mut self, end: End, direction: Direction, sink: &mut Sink<'_>) {
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
    pub(super) fn end_responses(
        &mut self,
        direction: Direction,
        until_close: End,
        sink: &mut Sink<'_>,
    ) {
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
