//! Records that wait because a stack before them does, in the order in which they came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::stacks::{Begun, Stacks, Waiting};
use crate::stack::Taken;

/// Most bytes that wait: with more, the first stack waits no longer.
const BYTES_MAX: usize = 4 << 20;

/// What waits.
#[derive(Default)]
pub(super) struct Held {
    /// A stack that waits, then whatever came behind it.
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Stacks that waited no longer for want of room.
    hurried: u64,
}

enum Entry {
    Record(Box<[u8]>),
    Whole(Arc<Taken>),
    Waiting(Waiting),
}

impl Entry {
    fn bytes(&self) -> usize {
        let more = match self {
            Self::Record(record) => record.len(),
            Self::Whole(taken) => size_of_val(&*taken.stack.frames),
            Self::Waiting(waiting) => waiting.bytes(),
        };
        size_of::<Self>() + more
    }
}

/// What waits no more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Record(Box<[u8]>),
    Stack(Arc<Taken>),
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many records and stacks wait.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes > BYTES_MAX
    }

    /// Stacks that waited no longer for want of room.
    pub(super) fn hurried(&self) -> u64 {
        self.hurried
    }

    /// Until when the first stack waits.
    pub(super) fn until(&self) -> Option<Instant> {
        match self.entries.front()? {
            Entry::Waiting(waiting) => Some(waiting.until()),
            Entry::Record(_) | Entry::Whole(_) => None,
        }
    }

    pub(super) fn push_record(&mut self, record: &[u8]) {
        self.push(Entry::Record(record.into()));
    }

    pub(super) fn push_stack(&mut self, begun: Begun) {
        self.push(match begun {
            Begun::Whole(taken) => Entry::Whole(taken),
            Begun::Waiting(waiting) => Entry::Waiting(waiting),
        });
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
    }

    /// What is to be taken in next, if it need not wait.
    pub(super) fn next(&mut self, stacks: &mut Stacks, now: Instant) -> Option<Next> {
        let is_full = self.is_full();
        let stack = match self.entries.front_mut()? {
            Entry::Waiting(waiting) => {
                if is_full {
                    waiting.hurry(now);
                    self.hurried += 1;
                }
                Some(stacks.go_on(waiting, now)?)
            }
            Entry::Record(_) | Entry::Whole(_) => None,
        };
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.bytes();
        if self.entries.is_empty() {
            // It may have been long once.
            self.entries = VecDeque::new();
        }
        match entry {
            Entry::Record(record) => Some(Next::Record(record)),
            Entry::Whole(taken) => Some(Next::Stack(taken)),
            Entry::Waiting(_) => stack.map(Next::Stack),
        }
    }
}
