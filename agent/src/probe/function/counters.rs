//! What probes have counted and cost, and the limits that the kernel half keeps to.

use std::ops::{AddAssign, Range};

use agent_common::function::{self as wire, BUDGET_WINDOW_SHIFT, Counts, RATE_WINDOW_SHIFT};

use super::{COUNTS, FUNCTIONS, FunctionError, FunctionProbes, unusable};
use crate::function::FunctionNo;
use crate::platform::clock::MonoNs;
use crate::probe::bpf;

const BUDGETS: &str = "FUNCTION_BUDGETS";
const ALARM: &str = "FUNCTION_ALARM";

/// What a function's probes have counted since they were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FunctionCounters {
    /// Hits told.
    pub told: u64,
    /// Calls (and events) not told because a budget or rate was used up.
    pub suppressed: u64,
    /// Hits that found no room in the ring.
    pub lost: u64,
    /// Hits that did not meet their condition.
    pub dropped: u64,
    /// What all hits have cost the targets, by what a hit was measured to cost at start.
    pub cost_ns: u64,
}

impl FunctionCounters {
    /// Of all CPUs.
    fn sum(counts: &[Counts]) -> Self {
        let sum = |of: fn(&Counts) -> u64| counts.iter().map(of).sum();
        Self {
            told: sum(|counts| counts.told),
            suppressed: sum(|counts| counts.suppressed),
            lost: sum(|counts| counts.lost),
            dropped: sum(|counts| counts.dropped),
            cost_ns: sum(|counts| counts.cost_ns),
        }
    }
}

impl AddAssign for FunctionCounters {
    fn add_assign(&mut self, other: Self) {
        self.told += other.told;
        self.suppressed += other.suppressed;
        self.lost += other.lost;
        self.dropped += other.dropped;
        self.cost_ns += other.cost_ns;
    }
}

impl FunctionProbes {
    /// What this function's probes have counted.
    pub fn counters(&self, function: FunctionNo) -> Result<FunctionCounters, FunctionError> {
        let mut counts = vec![Counts::default(); self.cpus];
        let map = self.loaded.maps.fd(COUNTS)?;
        bpf::lookup(map, &function.0, &mut counts).map_err(|source| unusable(COUNTS, source))?;
        Ok(FunctionCounters::sum(&counts))
    }

    /// As [`counters`](Self::counters), of the first `count` functions.
    pub fn all_counters(&self, count: u32) -> Result<Vec<FunctionCounters>, FunctionError> {
        self.counters_of(0..count)
    }

    /// What the probes of these have cost the targets.
    pub fn cost_ns(&self, functions: Range<u32>) -> Result<u64, FunctionError> {
        let counters = self.counters_of(functions)?;
        Ok(counters.iter().map(|counters| counters.cost_ns).sum())
    }

    fn counters_of(&self, functions: Range<u32>) -> Result<Vec<FunctionCounters>, FunctionError> {
        /// Functions asked for at a time.
        const STEP: usize = 512;
        let map = self.loaded.maps.fd(COUNTS)?;
        let Range { start, end } = functions;
        let end = end.min(self.limits.functions);
        let count = end.saturating_sub(start);
        let mut all = Vec::with_capacity(count as usize);
        while all.len() < count as usize {
            let first = start + all.len() as u32;
            let step = STEP.min((end - first) as usize);
            let mut counts = vec![Counts::default(); self.cpus * step];
            match bpf::lookup_array(map, first, &mut counts, self.cpus) {
                Ok(()) => all.extend(counts.chunks(self.cpus).map(FunctionCounters::sum)),
                // Older kernels tell of one at a time.
                Err(_) => {
                    let some = (first..end).take(step);
                    let some = some.map(|number| self.counters(FunctionNo(number)));
                    all.extend(some.collect::<Result<Vec<_>, _>>()?);
                }
            }
        }
        Ok(all)
    }

    /// When a process began to spend [so much more](wire::BUDGET_GROSS) than its budget that the kernel
    /// half has woken the reader; once.
    pub fn take_alarm(&mut self) -> Result<Option<MonoNs>, FunctionError> {
        let (map, mut began) = (self.loaded.maps.fd(ALARM)?, [0u64]);
        let taken = bpf::lookup(map, &0u32, &mut began);
        let taken = taken.and_then(|()| match began {
            [0] => Ok(()),
            _ => bpf::update(map, &0u32, &[0u64]),
        });
        taken.map_err(|source| unusable(ALARM, source))?;
        Ok(began.into_iter().find(|began| *began != 0).map(MonoNs))
    }

    /// Limits what hits may cost a process before calls are not told any more; 0 takes the limit away.
    /// What a hit costs by itself is paid all the same: only detaching ends that.
    pub fn set_budget(&mut self, tgid: u32, ns_per_second: u64) -> Result<(), FunctionError> {
        let ns = per_window(ns_per_second, BUDGET_WINDOW_SHIFT);
        let map = self.loaded.maps.fd(BUDGETS)?;
        bpf::update(map, &tgid, &[ns]).map_err(|source| unusable(BUDGETS, source))
    }

    /// As [`set_budget`](Self::set_budget), for every process that has no budget of its own.
    pub fn set_default_budget(&mut self, ns_per_second: u64) -> Result<(), FunctionError> {
        self.set_budget(0, ns_per_second)
    }

    /// Limits how many calls (or events) of a function are told a second; 0 takes the limit away.
    pub fn set_rate(&mut self, function: FunctionNo, per_second: u64) -> Result<(), FunctionError> {
        let limit = per_window(per_second, RATE_WINDOW_SHIFT);
        let state = wire::Function { limit, ..wire::Function::default() };
        let map = self.loaded.maps.fd(FUNCTIONS)?;
        bpf::update(map, &function.0, &[state]).map_err(|source| unusable(FUNCTIONS, source))
    }

    /// Forgets what was counted of a function and what limits it, for another one to have its number:
    /// what was counted.
    pub fn reset(&mut self, function: FunctionNo) -> Result<FunctionCounters, FunctionError> {
        let counted = self.counters(function)?;
        let counts = vec![Counts::default(); self.cpus];
        let map = self.loaded.maps.fd(COUNTS)?;
        bpf::update(map, &function.0, &counts).map_err(|source| unusable(COUNTS, source))?;
        self.set_rate(function, 0)?;
        Ok(counted)
    }
}

/// What a rate a second makes in a window of this power of two nanoseconds: at least 1, unless it is 0.
fn per_window(per_second: u64, shift: u64) -> u64 {
    let scaled = (u128::from(per_second) << shift) / 1_000_000_000;
    u64::try_from(scaled).unwrap_or(u64::MAX).max(u64::from(per_second != 0))
}
