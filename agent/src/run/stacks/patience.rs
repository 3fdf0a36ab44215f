//! How long stacks may wait for lines.

use std::time::{Duration, Instant};

/// Of how much time one part may be waited for lines, and how much at once: what came later waits, too, and
/// who has begun meanwhile is probed later.
const SHARE: u32 = 10;
const MOST: Duration = Duration::from_millis(500);

/// What is left to wait.
pub(super) struct Patience {
    left: Duration,
    /// Up to when it was reckoned.
    earned: Instant,
}

impl Patience {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: MOST, earned: now }
    }

    /// What is left by now.
    pub(super) fn earn(&mut self, now: Instant) -> Duration {
        let earned = now.saturating_duration_since(self.earned) / SHARE;
        (self.left, self.earned) = (MOST.min(self.left + earned), now);
        self.left
    }

    pub(super) fn spend(&mut self, waited: Duration) {
        self.left = self.left.saturating_sub(waited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_a_share_of_time() {
        let start = Instant::now();
        let mut patience = Patience::new(start);
        assert_eq!(patience.earn(start), MOST);
        patience.spend(MOST * 2);
        assert_eq!(patience.earn(start), Duration::ZERO);
        assert_eq!(patience.earn(start + Duration::from_secs(1)), Duration::from_millis(100));
        assert_eq!(patience.earn(start + Duration::from_secs(60)), MOST);
    }
}
