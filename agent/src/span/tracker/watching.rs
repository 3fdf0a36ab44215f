//! Connections of which nobody tells when they are closed, and which ones may be: Unix sockets on which an
//! exchange is open and nothing has moved for a while. Whoever can, asks whether they are still there.

use std::collections::VecDeque;
use std::mem;

use super::Tracker;
use crate::event::ids::SocketId;
use crate::platform::clock::MonoNs;
use crate::span::exchange::SocketKey;
use crate::span::state;

/// How long nothing moves before it is asked, and before it is asked again.
pub const QUIET_NS: u64 = 250_000_000;

/// Most sockets asked for at one time. The others come later.
const QUIET_MAX: usize = 4096;

/// Connections that are watched.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// Since when nothing has moved on them, as far as was looked.
    since: VecDeque<(MonoNs, SocketKey)>,
    /// Those to be asked for.
    quiet: Vec<SocketId>,
}

impl Tracker {
    /// Whether any connection is watched.
    pub fn is_watching(&self) -> bool {
        !self.watched.since.is_empty()
    }

    /// Sockets that may have been closed: asked for once.
    pub fn take_quiet(&mut self) -> Vec<SocketId> {
        mem::take(&mut self.watched.quiet)
    }

    /// An exchange has begun on a socket of which nobody will tell that it is closed.
    pub(super) fn watch(&mut self, key: SocketKey, at: MonoNs) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if !mem::replace(&mut socket.watched, true) {
            self.watched.since.push_back((at, key));
        }
    }

    /// Finds those on which nothing has moved for long enough by `horizon`.
    pub(super) fn look(&mut self, horizon: MonoNs) {
        let until = horizon.before(QUIET_NS);
        while let Some((since, key)) = state::due(&mut self.watched.since, until) {
            let Some(socket) = self.sockets.get_mut(key).filter(|socket| !socket.closed) else {
                continue;
            };
            if socket.open == 0 {
                socket.watched = false;
                continue;
            }
            let moved = socket.last_moved.into_iter().max().unwrap_or_default();
            if moved <= since && self.watched.quiet.len() < QUIET_MAX {
                self.watched.quiet.push(socket.id);
            }
            let next = if moved > since { moved } else { horizon };
            self.watched.since.push_back((next, key));
        }
    }
}
