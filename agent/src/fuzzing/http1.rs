//! One connection: operations, cut or whole, and everything else that can become of it.
//!
//! Layout: how it begins (one byte); then steps of one byte: the direction in bit 0, what happens
//! in the others; an operation is followed by its length and by how much of it is copied (two bytes
//! each), then its bytes.

use super::Witness;
use super::input::Input;
use crate::protocol::http1::{Connection, Limits};
use crate::protocol::{Direction, Event, Segment};

/// Small enough to be reached.
const LIMITS: Limits = Limits { head_bytes: 1024, outstanding: 8 };

/// Twice the bounds, since vectors double; both directions.
const HELD_BYTES_MAX: usize = 2 * 2 * (LIMITS.head_bytes as usize + 1) + 2 * 8 * 16;

pub(super) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut connection = match input.byte().unwrap_or(0) {
        1 => Connection::older(LIMITS, None),
        2 => Connection::older(LIMITS, Some(Direction::Inbound)),
        3 => Connection::older(LIMITS, Some(Direction::Outbound)),
        _ => Connection::new(LIMITS),
    };
    let mut witness = Witness::default();
    while let Some(step) = input.byte() {
        let mut sink = |event: Event<'_>| witness.see(&event);
        let direction = if step & 1 == 0 { Direction::Inbound } else { Direction::Outbound };
        match step >> 1 {
            1 => connection.gap(direction, None, &mut sink),
            2 => {
                let bytes = input.short().unwrap_or(0);
                connection.gap(direction, Some(bytes.into()), &mut sink);
            }
            3 => connection.gap(direction, Some(u64::MAX), &mut sink),
            4 => connection.end(direction, &mut sink),
            5 => connection.break_off(direction, &mut sink),
            6 => connection.close(&mut sink),
            7 => connection.vanish(&mut sink),
            8 => connection.lose_sight(&mut sink),
            _ => {
                let (len, copied) = (input.short().unwrap_or(0), input.short().unwrap_or(0));
                let bytes = input.up_to(len.into());
                connection.feed(direction, segment(bytes, copied.into()), &mut sink);
            }
        }
        assert!(connection.held_bytes() <= HELD_BYTES_MAX, "{connection:?}");
    }
    connection.close(&mut |event| witness.see(&event));
    witness.at_the_end();
}

/// An operation as the kernel half copies it.
fn segment(bytes: &[u8], copied: usize) -> Segment<'_> {
    let (prefix, rest) = bytes.split_at(copied.min(bytes.len()));
    let suffix = rest.len().checked_sub(agent_common::SUFFIX_BYTES);
    let suffix = suffix.and_then(|at| rest.get(at..)).unwrap_or_default();
    Segment { prefix, len: bytes.len() as u64, suffix }
}
