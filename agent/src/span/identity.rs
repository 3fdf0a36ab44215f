//! Trace and span ids. Random for the world, reproducible for a replay.

use super::model::{SpanId, TraceId};

/// Where ids come from.
pub(super) struct IdSource {
    random: fastrand::Rng,
}

impl IdSource {
    /// The same seed gives the same ids.
    pub(super) fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed) }
    }

    /// A new span id, never zero.
    pub(super) fn span(&mut self) -> SpanId {
        SpanId(self.nonzero().to_be_bytes())
    }

    /// A new trace id, never zero.
    pub(super) fn trace(&mut self) -> TraceId {
        let mut id = [0; 16];
        let (high, low) = id.split_at_mut(8);
        high.copy_from_slice(&self.nonzero().to_be_bytes());
        low.copy_from_slice(&self.nonzero().to_be_bytes());
        TraceId(id)
    }

    fn nonzero(&mut self) -> u64 {
        self.random.u64(1..)
    }
}
