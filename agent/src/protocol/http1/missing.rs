//! Bytes that are not there: how far framing leads past them, and what is not known behind them.

use std::mem;

use super::order::Role;
use super::{Connection, Direction, End, Event, Phase, Sink, chunked};

/// Why bytes are not there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// The operation that moved them is the one being fed, but they were not copied.
    Uncopied,
    /// Their operation was missed.
    Missed,
}

impl Connection {
    /// Bytes that are not there.
    pub(super) fn skip(
        &mut self,
        direction: Direction,
        bytes: u64,
        why: Missing,
        sink: &mut Sink<'_>,
    ) {
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
            Phase::Boundary | Phase::Preface(_) => {
                self.next_unseen(direction, bytes, why, sink);
            }
            Phase::Head(_) => self.cut_head(direction, sink),
        }
    }

    /// A message began, and perhaps ended, among bytes that are not there.
    pub(super) fn next_unseen(
        &mut self,
        direction: Direction,
        bytes: u64,
        why: Missing,
        sink: &mut Sink<'_>,
    ) {
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
    pub(super) fn lose(&mut self, direction: Direction, sink: &mut Sink<'_>) {
        let half = self.half(direction);
        half.body = None;
        match half.phase {
            Phase::Boundary | Phase::Preface(_) => self.unframe(direction, Phase::Lost, sink),
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
    pub(super) fn cut_head(&mut self, direction: Direction, sink: &mut Sink<'_>) {
        if let Phase::Head(buffer) = mem::replace(&mut self.half(direction).phase, Phase::Lost) {
            self.head_over(direction, buffer.bytes(), true, sink);
        }
    }

    /// An operation that ends with `tail` is over. Where framing is not followed, that may be the
    /// end of a message, though not for certain.
    pub(super) fn operation_over(
        &mut self,
        direction: Direction,
        tail: &[u8],
        sink: &mut Sink<'_>,
    ) {
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
}
