//! The kernel's clocks, and how its monotonic time maps to wall time.
#![expect(unsafe_code, reason = "clock_gettime is a syscall")]

use serde::{Deserialize, Serialize};

use crate::span::model::UnixNs;

/// Nanoseconds of `CLOCK_MONOTONIC`: the time of every event.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct MonoNs(pub u64);

impl MonoNs {
    /// The end of time, which is after whatever a record may claim.
    pub const MAX: Self = Self(u64::MAX);

    /// The moment this many nanoseconds before. Before the end of time there is no other: whoever
    /// waits for nothing more leaves nothing waiting.
    pub fn before(self, ns: u64) -> Self {
        if self == Self::MAX { self } else { Self(self.0.saturating_sub(ns)) }
    }

    /// So much later.
    #[must_use]
    pub fn after(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }

    /// Nanoseconds since `earlier`; 0 if it is not earlier.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What to add to monotonic time to get wall time. Measured again and again, because wall time is
/// adjusted and monotonic time stands still during suspend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WallOffset {
    /// Nanoseconds.
    pub ns: i64,
}

impl WallOffset {
    /// Reads both clocks; the wall clock between two looks at the monotonic one.
    pub fn measure() -> Self {
        let before = read(libc::CLOCK_MONOTONIC);
        let wall = read(libc::CLOCK_REALTIME);
        let after = read(libc::CLOCK_MONOTONIC);
        let middle = before + (after - before) / 2;
        Self { ns: wall as i64 - middle as i64 }
    }

    /// Wall time of a moment.
    pub fn wall(self, at: MonoNs) -> UnixNs {
        UnixNs(at.0.saturating_add_signed(self.ns))
    }
}

/// Now.
pub fn now() -> MonoNs {
    MonoNs(read(libc::CLOCK_MONOTONIC))
}

/// Now, wall time.
pub fn wall_now() -> UnixNs {
    UnixNs(read(libc::CLOCK_REALTIME))
}

/// How long a tick of the kernel is, nanoseconds: what its coarse clocks can tell apart.
pub fn tick_ns() -> u32 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec. This clock exists on every Linux since 2.6.32.
    unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    // A hundredth of a second at most.
    time.tv_nsec as u32
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec. The two clocks used here exist on every Linux, so the
    // call cannot fail.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
