//! Stacks that wait for the records that they belong to, which come right behind them.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::event::ids::{SiteNo, Tgid, Tid};
use crate::function::exception::Decode;
use crate::function::facts::Role;
use crate::platform::clock::MonoNs;
use crate::stack::{self, Inner, Taken};

/// Most that wait. A record may be lost, and its stack wait for nothing.
const WAITING_MAX: usize = 64;

/// Stacks without their records, the oldest first.
#[derive(Default)]
pub(super) struct Waiting(VecDeque<Arc<Taken>>);

impl Waiting {
    pub(super) fn add(&mut self, taken: &Arc<Taken>) {
        if self.0.len() == WAITING_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Arc::clone(taken));
    }

    /// The stack of what a thread has met at this very moment, as text.
    pub(super) fn take(
        &mut self,
        at: MonoNs,
        (tgid, tid): (Tgid, Tid),
        site: SiteNo,
        inner: Inner,
    ) -> Option<String> {
        let is_it = |taken: &Arc<Taken>| {
            (taken.at, taken.tgid, taken.tid, taken.site) == (at, tgid, tid, site)
        };
        let place = self.0.iter().position(is_it)?;
        let taken = self.0.remove(place)?;
        Some(stack::text(&taken.stack, inner))
    }
}

/// What is innermost on the stacks of a probe.
pub(super) fn inner(role: &Role) -> Inner {
    match role {
        Role::Call { .. } | Role::Event { decode: None, .. } => Inner::Own,
        Role::Event { decode: Some(Decode::RustPanic | Decode::RustPlace), .. } => {
            Inner::RaisingRust
        }
        Role::Event { .. } => Inner::Raising,
    }
}
