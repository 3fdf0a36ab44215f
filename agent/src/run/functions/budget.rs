//! What probed functions cost their targets, and which of them are detached for it.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::time::Duration;

use super::file::File;
use super::numbered::Numbered;
use super::tell::list;
use super::{Functions, FunctionsError};
use crate::function::FunctionNo;
use crate::platform::clock::{self, MonoNs};
use crate::probe::function::budget::{Look, Spent, Throttle, TooDear};
use crate::probe::function::{FunctionCounters, FunctionError, FunctionProbes};

/// How often costs are looked at, while there are no more than [`LOOKS`] functions.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOKS: u32 = 2000;

/// What is watched.
pub(super) struct Watch {
    /// What probes may cost a process, nanoseconds a second; 0: anything.
    budget_ns: u64,
    throttle: Throttle,
    /// When costs were looked at last.
    looked: MonoNs,
    /// What was probed and is not detached for its cost, and its cost then.
    costs: HashMap<u32, u64>,
    /// What was detached because it costs too much: it does not come back while its file is remembered.
    gone: HashSet<u32>,
    /// How many were, those of forgotten files included.
    detached: u64,
    /// What those of forgotten files have counted.
    forgotten: FunctionCounters,
}

impl Watch {
    pub(super) fn new(budget_ns: u64) -> Self {
        Self {
            budget_ns,
            throttle: Throttle::new(0.0),
            looked: clock::now(),
            costs: HashMap::new(),
            gone: HashSet::new(),
            detached: 0,
            forgotten: FunctionCounters::default(),
        }
    }

    /// How many are watched.
    pub(super) fn len(&self) -> usize {
        self.costs.len()
    }

    /// All of them have numbers below this.
    fn numbers(&self) -> u32 {
        self.costs.keys().chain(&self.gone).max().map_or(0, |last| last + 1)
    }

    /// Whether this one is.
    pub(super) fn has(&self, FunctionNo(number): FunctionNo) -> bool {
        self.costs.contains_key(&number)
    }

    /// Watches these, if they are not yet.
    pub(super) fn add(&mut self, functions: impl Iterator<Item = FunctionNo>) {
        for FunctionNo(number) in functions {
            if !self.gone.contains(&number) {
                self.costs.entry(number).or_insert(0);
            }
        }
    }

    /// Forgets these: others will have their numbers.
    pub(super) fn forget(
        &mut self,
        numbers: Range<u32>,
        probes: &mut FunctionProbes,
    ) -> Result<(), FunctionError> {
        for number in numbers {
            self.costs.remove(&number);
            self.gone.remove(&number);
            self.throttle.forget(FunctionNo(number));
            self.forgotten += probes.reset(FunctionNo(number))?;
        }
        Ok(())
    }
}

impl Functions {
    /// How many functions were detached because they cost too much.
    pub(in crate::run) fn detached(&self) -> u64 {
        self.watch.detached
    }

    /// What the probes of functions have counted so far, those of forgotten files included.
    pub(in crate::run) fn counters(&self) -> Result<FunctionCounters, FunctionsError> {
        let watch = &self.watch;
        let mut sum = watch.forgotten;
        for (number, counters) in (0..).zip(self.probes.all_counters(watch.numbers())?) {
            if watch.costs.contains_key(&number) || watch.gone.contains(&number) {
                sum += counters;
            }
        }
        Ok(sum)
    }

    /// Takes away the probes of functions whose calls cost their targets more than they may.
    pub(in crate::run) fn keep_to_budget(&mut self, now: MonoNs) -> Result<(), FunctionsError> {
        let watch = &mut self.watch;
        if watch.budget_ns == 0 || watch.costs.is_empty() {
            return Ok(());
        }
        let alarm = self.probes.take_alarm()?;
        let look = if alarm.is_some() { Look::Alarmed } else { Look::Due };
        let since = watch.looked.max(alarm.unwrap_or_default());
        let interval = Duration::from_nanos(now.since(since));
        // A look reads what every CPU has counted for every function.
        let rest = LOOK_EVERY * (1 + watch.costs.len() as u32 / LOOKS);
        if look == Look::Due && interval < rest {
            return Ok(());
        }
        watch.looked = now;
        let counters = self.probes.all_counters(watch.numbers())?;
        let mut spent = Vec::with_capacity(watch.costs.len());
        for (number, before) in &mut watch.costs {
            let cost_ns = counters.get(*number as usize).map_or(0, |counters| counters.cost_ns);
            let before = std::mem::replace(before, cost_ns);
            let cost_ns = cost_ns.saturating_sub(before);
            spent.push(Spent { function: FunctionNo(*number), cost_ns });
        }
        if self.processes.is_empty() {
            // It was spent by who has ended.
            return Ok(());
        }
        watch.throttle.limit(watch.budget_ns.saturating_mul(self.processes.len() as u64));
        let dear = watch.throttle.decide(look, interval, &spent);
        if dear.is_empty() {
            return Ok(());
        }
        // The hottest first.
        let gone: Vec<FunctionNo> = dear.iter().map(|dear| dear.function).collect();
        for numbered in self.files.values().filter_map(File::numbered) {
            if gone.iter().all(|FunctionNo(number)| !numbered.numbers.contains(number)) {
                continue;
            }
            if let Err(error) = self.probes.take_out(numbered.sites, &gone) {
                tracing::warn!(%error, "all of these functions are detached, to be within the budget");
            }
        }
        let took = clock::now().since(now);
        let sum: u64 = dear.iter().map(|dear| dear.ns_per_second).sum();
        let hottest = list(dear.iter().filter_map(|dear| self.name(dear.function)));
        tracing::warn!(
            functions = dear.len(),
            took_us = took / 1000,
            "not traced any more, because their probes cost {:.1} % of a CPU (--max-overhead): {hottest}",
            sum as f64 / 1e7,
        );
        for TooDear { function, .. } in dear {
            self.watch.costs.remove(&function.0);
            self.watch.gone.insert(function.0);
            self.watch.detached += 1;
        }
        Ok(())
    }

    fn name(&self, function: FunctionNo) -> Option<&str> {
        let mut numbered = self.files.values().filter_map(File::numbered);
        numbered.find_map(|numbered| Numbered::name(numbered, function))
    }
}
