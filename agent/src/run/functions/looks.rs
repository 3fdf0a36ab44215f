//! When a process is looked at for files that it has begun to run code of. What it has mapped is long to read;
//! how much of it is code is told in a line, so that only a change of that, or a long time, is a reason to.

use crate::platform::clock::MonoNs;

/// How long a process is young: libraries come while a program starts, and seldom later.
const YOUNG_NS: u64 = 1_000_000_000;

/// How often a young one is looked at, and one that is not, if there are few.
const REST_YOUNG_NS: u64 = 50_000_000;
const REST_NS: u64 = 1_000_000_000;

/// So many take one rest, twice as many take two: a look is some ten microseconds.
const FEW: u64 = 64;

/// How often everything is looked at: one library may have come in the place of another of its size.
const WHOLE_NS: u64 = 30_000_000_000;

/// The looks at one process.
#[derive(Debug)]
pub(super) struct Looks {
    began: MonoNs,
    due: MonoNs,
    whole: MonoNs,
    /// How long a look that found nothing is rested after.
    patience_ns: u64,
    /// How much code it had mapped, KiB; `None` if that could not be read.
    code: Option<u64>,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// There is nothing new.
    Nothing,
    /// All that it has mapped.
    Whole,
}

impl Looks {
    /// Of a process that is looked at for the first time now, with so much code.
    pub(super) fn begin(now: MonoNs, code: Option<u64>) -> Self {
        let due = MonoNs(now.0 + REST_YOUNG_NS);
        let (whole, patience_ns) = (MonoNs(now.0 + WHOLE_NS), REST_YOUNG_NS);
        Self { began: now, due, whole, patience_ns, code }
    }

    /// When it is to be looked at next.
    pub(super) fn due(&self) -> MonoNs {
        self.due
    }

    /// It is looked at, as one of `many`, and has so much code.
    pub(super) fn look(&mut self, now: MonoNs, code: Option<u64>, many: usize) -> Look {
        let is_young = now.since(self.began) < YOUNG_NS;
        let rest_ns = REST_NS * (many as u64).div_ceil(FEW).max(1);
        let rest_ns = if is_young { REST_YOUNG_NS } else { rest_ns };
        // At the same moments as the others: many processes are no more wake-ups than one.
        self.due = MonoNs((now.0 / rest_ns + 1) * rest_ns);
        if code == self.code && now < self.whole {
            return Look::Nothing;
        }
        self.code = code;
        self.whole = MonoNs(now.0 + WHOLE_NS);
        Look::Whole
    }

    /// There was no new file: what makes code for itself changes all the time, and is looked at less and
    /// less.
    pub(super) fn found_nothing(&mut self, now: MonoNs) {
        self.patience_ns = (self.patience_ns * 2).min(WHOLE_NS);
        self.due = MonoNs(self.due.0.max(now.0 + self.patience_ns));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn what_has_changed_is_looked_at_and_else_little() {
        let mut looks = Looks::begin(MonoNs(0), Some(100));
        let mut whole = Vec::new();
        let mut glances = 0;
        while looks.due() < MonoNs(40_000 * MS) {
            let now = looks.due();
            // One library at 120 ms, another at seven seconds.
            let code = 100 + u64::from(now.0 > 120 * MS) + u64::from(now.0 > 7_000 * MS);
            glances += 1;
            if looks.look(now, Some(code), 1) == Look::Whole {
                whole.push(now.0 / MS);
            }
        }
        // Within a rest of either, and thirty seconds later.
        assert_eq!(whole, [150, 8_000, 38_000]);
        assert_eq!(glances, 20 + 38);
    }

    #[test]
    fn what_changes_for_nothing_is_looked_at_seldom() {
        let mut looks = Looks::begin(MonoNs(0), Some(0));
        let mut whole = 0;
        while looks.due() < MonoNs(300_000 * MS) {
            let now = looks.due();
            if looks.look(now, Some(now.0), 1) == Look::Whole {
                looks.found_nothing(now);
                whole += 1;
            }
        }
        assert_eq!(whole, 18);
    }

    #[test]
    fn many_are_looked_at_less_often() {
        for (many, rest_s) in [(0, 1), (64, 1), (65, 2), (1000, 16)] {
            let mut looks = Looks::begin(MonoNs(0), Some(1));
            assert_eq!(looks.look(MonoNs(160_000 * MS), Some(1), many), Look::Whole);
            assert_eq!(looks.due(), MonoNs((160_000 / (rest_s * 1000) + 1) * rest_s * 1000 * MS));
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_change() {
        let mut looks = Looks::begin(MonoNs(0), None);
        assert_eq!(looks.look(looks.due(), None, 1), Look::Nothing);
        assert_eq!(looks.look(looks.due(), Some(1), 1), Look::Whole);
    }
}
