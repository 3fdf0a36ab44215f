//! Numbers of a bounded range that are given out in runs, given back, and given out again. What a number
//! means, and when nothing speaks of it any more, is the business of who takes it.

use std::collections::BTreeMap;
use std::ops::Range;

/// The numbers below a bound that nobody has.
#[derive(Debug)]
pub(crate) struct Numbers {
    most: u32,
    used: u32,
    /// Where runs of free numbers begin, and where they end; no two touch.
    free: BTreeMap<u32, u32>,
}

impl Numbers {
    /// All numbers below `most` are free.
    pub(crate) fn below(most: u32) -> Self {
        Self { most, used: 0, free: BTreeMap::from([(0, most)]) }
    }

    /// How many there are.
    pub(crate) fn most(&self) -> u32 {
        self.most
    }

    /// How many are taken.
    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    /// Takes the lowest free run of `count` numbers; `None` if there is none as long.
    pub(crate) fn take(&mut self, count: usize) -> Option<Range<u32>> {
        let count = u32::try_from(count).ok()?;
        if count == 0 {
            return Some(0..0);
        }
        let (&start, &end) = self.free.iter().find(|(start, end)| *end - *start >= count)?;
        self.free.remove(&start);
        let taken = start..start + count;
        if taken.end < end {
            self.free.insert(taken.end, end);
        }
        self.used += count;
        Some(taken)
    }

    /// Gives back a run that was taken.
    pub(crate) fn give_back(&mut self, run: Range<u32>) {
        if run.is_empty() {
            return;
        }
        self.used = self.used.saturating_sub(run.end - run.start);
        let before = self.free.range(..run.start).next_back().map(|(start, end)| (*start, *end));
        let start = match before {
            Some((start, end)) if end == run.start => start,
            _ => run.start,
        };
        let end = self.free.remove(&run.end).unwrap_or(run.end);
        self.free.insert(start, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_given_back_is_given_out_again() {
        let mut numbers = Numbers::below(10);
        assert_eq!(numbers.take(4), Some(0..4));
        assert_eq!(numbers.take(4), Some(4..8));
        assert_eq!(numbers.take(4), None);
        assert_eq!(numbers.take(2), Some(8..10));
        assert_eq!((numbers.used(), numbers.take(1)), (10, None));
        numbers.give_back(0..4);
        numbers.give_back(8..10);
        assert_eq!(numbers.take(5), None, "no run is as long");
        numbers.give_back(4..8);
        assert_eq!((numbers.used(), numbers.take(10)), (0, Some(0..10)));
    }

    #[test]
    fn none_are_taken_of_an_empty_range() {
        let mut numbers = Numbers::below(0);
        assert_eq!((numbers.take(0), numbers.take(1)), (Some(0..0), None));
        numbers.give_back(0..0);
        assert_eq!(numbers.take(1), None);
    }

    proptest! {
        /// No number is out twice, and at the end all are there again, in one run.
        #[test]
        fn no_number_is_out_twice(acts in prop::collection::vec((0_usize..20, any::<prop::sample::Index>()), 1..200)) {
            let mut numbers = Numbers::below(100);
            let mut out: Vec<Range<u32>> = Vec::new();
            for (count, which) in acts {
                // Every third one gives back.
                if count % 3 == 0 && !out.is_empty() {
                    numbers.give_back(out.swap_remove(which.index(out.len())));
                } else if let Some(run) = numbers.take(count) {
                    prop_assert_eq!(run.len(), count);
                    prop_assert!(run.end <= 100);
                    prop_assert!(out.iter().all(|other| run.is_empty() || other.end <= run.start || run.end <= other.start));
                    out.push(run);
                }
                prop_assert_eq!(numbers.used() as usize, out.iter().map(Range::len).sum::<usize>());
            }
            out.into_iter().for_each(|run| numbers.give_back(run));
            prop_assert_eq!(numbers.take(100), Some(0..100));
        }
    }
}
