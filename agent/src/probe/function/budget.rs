//! Which functions are to be detached, so that tracing costs a target no more than it may. Pure: it is
//! given what was spent and says what should go; it attaches and detaches nothing.
//!
//! The kernel half stops telling calls when a budget is used up, but a hit costs by itself: only taking
//! the probe away ends that. What was taken away does not come back.

use std::collections::HashSet;
use std::time::Duration;

use crate::function::FunctionNo;

/// Times its limit that a target may cost before it is acted upon at once; short of that, it must be
/// above the limit twice in a row, so that one busy second costs no function.
const GROSS: u64 = agent_common::function::BUDGET_GROSS;

/// What may stay when something goes, in parts of the limit (numerator, denominator): below it, since what
/// was spent until then is to be made up for, and so that the rest does not go bit by bit.
const STAYS: (u64, u64) = (1, 2);

/// Parts of a second at the least that a target is taken to have had for itself.
const OWN_AT_LEAST: u64 = 50;

/// A few hits in less time are no rate.
const SHORTEST: Duration = Duration::from_millis(10);

/// What the probes of a function have cost in an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// The function.
    pub function: FunctionNo,
    /// By [`FunctionCounters::cost_ns`](super::FunctionCounters::cost_ns).
    pub cost_ns: u64,
}

/// A function that costs too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooDear {
    /// The function.
    pub function: FunctionNo,
    /// What its probes have cost in a second.
    pub ns_per_second: u64,
}

/// Why costs are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It is time to.
    Due,
    /// The kernel half says that a target costs a gross lot.
    Alarmed,
}

/// Keeps one target within its limit.
#[derive(Clone, Debug)]
pub struct Throttle {
    limit_ns_per_second: u64,
    /// Whether the last interval was above the limit.
    was_above: bool,
    /// Functions that were said to go; what they still cost is on its way out.
    gone: HashSet<FunctionNo>,
}

impl Throttle {
    /// A target whose function probes may cost this share of one core (0.02: 2 %).
    pub fn new(share_of_core: f64) -> Self {
        // A float that is too large or no number becomes the nearest that there is.
        let limit_ns_per_second = (share_of_core * 1e9) as u64;
        Self { limit_ns_per_second, was_above: false, gone: HashSet::new() }
    }

    /// Changes the limit: there are more targets, or fewer.
    pub fn limit(&mut self, ns_per_second: u64) {
        self.limit_ns_per_second = ns_per_second;
    }

    /// What the kernel half is given, too, as [`set_budget`](super::FunctionProbes::set_budget): its
    /// limit a second.
    pub fn ns_per_second(&self) -> u64 {
        self.limit_ns_per_second
    }

    /// This function is there no more; its number may be another's.
    pub fn forget(&mut self, function: FunctionNo) {
        self.gone.remove(&function);
    }

    /// What should be detached, after an interval in which the target's functions have cost `spent`:
    /// the hottest first, as few as do.
    ///
    /// An alarm's interval is from when the target began to cost what it does.
    pub fn decide(&mut self, look: Look, interval: Duration, spent: &[Spent]) -> Vec<TooDear> {
        let interval_ns = interval.max(SHORTEST).as_nanos();
        let a_second = |cost_ns: u64| {
            u64::try_from(u128::from(cost_ns) * 1_000_000_000 / interval_ns).unwrap_or(u64::MAX)
        };
        let there = spent.iter().filter(|spent| !self.gone.contains(&spent.function));
        let mut there: Vec<TooDear> = there
            .map(|spent| TooDear {
                function: spent.function,
                ns_per_second: a_second(spent.cost_ns),
            })
            .collect();
        let mut sum = there.iter().fold(0u64, |sum, dear| sum.saturating_add(dear.ns_per_second));
        let is_above = sum > self.limit_ns_per_second;
        let is_gross =
            look == Look::Alarmed || sum > self.limit_ns_per_second.saturating_mul(GROSS);
        let acts = is_gross || (is_above && self.was_above);
        self.was_above = is_above && !acts;
        if !acts {
            return Vec::new();
        }
        // Freed of what goes, the target will call the rest more often.
        const SECOND: u64 = 1_000_000_000;
        let own = SECOND.saturating_sub(sum).max(SECOND / OWN_AT_LEAST);
        let stays = self.limit_ns_per_second / STAYS.1 * STAYS.0;
        let stays = (u128::from(stays) * u128::from(own) / u128::from(SECOND)) as u64;
        there.sort_by_key(|dear| (std::cmp::Reverse(dear.ns_per_second), dear.function));
        let mut go = Vec::new();
        for dear in there {
            if sum <= stays {
                break;
            }
            sum = sum.saturating_sub(dear.ns_per_second);
            self.gone.insert(dear.function);
            go.push(dear);
        }
        go
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Functions 0, 1, … that have cost so many milliseconds.
    fn spent(costs_ms: &[u64]) -> Vec<Spent> {
        let numbered = (0..).zip(costs_ms);
        numbered
            .map(|(number, ms)| Spent { function: FunctionNo(number), cost_ns: ms * 1_000_000 })
            .collect()
    }

    fn goes(throttle: &mut Throttle, interval: Duration, costs_ms: &[u64]) -> Vec<u32> {
        let dear = throttle.decide(Look::Due, interval, &spent(costs_ms));
        dear.into_iter().map(|dear| dear.function.0).collect()
    }

    #[test]
    fn what_is_cheap_enough_stays() {
        let mut throttle = Throttle::new(0.02);
        assert_eq!(throttle.ns_per_second(), 20_000_000);
        for _ in 0..10 {
            assert!(goes(&mut throttle, SECOND, &[10, 10, 0]).is_empty());
        }
        assert!(goes(&mut throttle, SECOND, &[]).is_empty());
        assert!(goes(&mut throttle, Duration::from_millis(500), &[5, 5]).is_empty());
    }

    #[test]
    fn one_busy_second_is_forgiven_two_are_not() {
        let mut throttle = Throttle::new(0.02);
        assert!(goes(&mut throttle, SECOND, &[15, 15, 3]).is_empty());
        assert!(goes(&mut throttle, SECOND, &[1, 1, 1]).is_empty());
        assert!(goes(&mut throttle, SECOND, &[15, 15, 3]).is_empty());
        // 33 are too much, 18 still above what may stay.
        assert_eq!(goes(&mut throttle, SECOND, &[15, 15, 3]), [0, 1]);
        assert!(goes(&mut throttle, SECOND, &[0, 0, 3]).is_empty());
    }

    #[test]
    fn what_is_gross_goes_at_once_the_hottest_first() {
        let mut throttle = Throttle::new(0.02);
        assert_eq!(goes(&mut throttle, SECOND, &[1, 700, 1, 90]), [1, 3]);
        // What they cost while they are detached is not held against the others.
        for _ in 0..3 {
            assert!(goes(&mut throttle, SECOND, &[1, 400, 1, 90]).is_empty());
        }
    }

    #[test]
    fn a_number_that_is_used_again_is_another_function() {
        let mut throttle = Throttle::new(0.02);
        assert_eq!(goes(&mut throttle, SECOND, &[700]), [0]);
        assert!(goes(&mut throttle, SECOND, &[700]).is_empty());
        throttle.forget(FunctionNo(0));
        assert_eq!(goes(&mut throttle, SECOND, &[700]), [0]);
    }

    #[test]
    fn an_alarm_is_not_waited_upon() {
        let mut throttle = Throttle::new(0.02);
        // 11 ms of 100: what a window may cost is not so much a second, but the window is not over.
        let spent = spent(&[8, 3, 0]);
        let dear = throttle.decide(Look::Alarmed, Duration::from_millis(150), &spent);
        let gone: Vec<u32> = dear.iter().map(|dear| dear.function.0).collect();
        assert_eq!(gone, [0, 1]);
        // Another CPU tells of the same moment: two hits since then are no reason.
        let hits = [Spent { function: FunctionNo(2), cost_ns: 20_000 }];
        assert!(throttle.decide(Look::Alarmed, Duration::from_micros(500), &hits).is_empty());
        // Nobody has spent anything since.
        assert!(throttle.decide(Look::Alarmed, SECOND, &[]).is_empty());
    }

    #[test]
    fn an_interval_is_taken_as_long_as_it_was() {
        let mut throttle = Throttle::new(0.02);
        // 100 ms a second.
        assert_eq!(goes(&mut throttle, Duration::from_millis(100), &[10]), [0]);
        let mut throttle = Throttle::new(0.02);
        assert!(goes(&mut throttle, Duration::from_secs(10), &[10]).is_empty());
        assert!(!goes(&mut throttle, Duration::ZERO, &[10]).is_empty());
    }

    #[test]
    fn no_limit_lets_everything_go_and_no_number_panics() {
        let mut none = Throttle::new(0.0);
        assert_eq!(goes(&mut none, SECOND, &[1, 0, 2]), [2, 0]);
        let mut wide = Throttle::new(f64::INFINITY);
        assert!(goes(&mut wide, SECOND, &[u64::MAX / 1_000_000, 5]).is_empty());
        assert_eq!(Throttle::new(f64::NAN).ns_per_second(), 0);
    }
}
