//! Many functions are attached step by step: how often each is called is known only once it is probed, and
//! what thousands of hot ones cost until they are let go is more than a budget.
//!
//! A step is made when the one before has shown what it costs: a larger one if that was little, a small
//! one if it was not, and none while it is above the limit. What costs too much goes meanwhile, as always.

use std::ops::Range;
use std::time::Duration;

use super::file::File;
use super::{Functions, FunctionsError};
use crate::event::ids::Tgid;
use crate::platform::clock::{self, MonoNs};
use crate::probe::function::{FunctionError, LinkNo};

/// How many sites there are in a first step: of most programs and patterns there is no second one.
const FIRST: usize = 1 << 11;
/// As many in what a process is about to become: no call of it is missed then.
const FIRST_OF_COMMAND: usize = 1 << 12;
/// The largest step. What is attached in one is attached again without what is let go of it.
const LARGEST: usize = 1 << 13;
/// The smallest, and how many there are at the most if all are small: each is a link, and the links of an agent
/// that is killed are closed one after another, by a grace period each.
const SMALLEST: usize = 1 << 9;
const STEPS_MAX: usize = 1 << 5;

/// How long a step is watched at least, and no longer than that if it is too dear before it is looked at again.
const WATCHED_NS: u64 = 5_000_000;
const WATCHED_MOST_NS: u64 = 10_000_000_000;

/// A link that is not whole yet.
pub(super) struct Ramp {
    link: LinkNo,
    module: String,
    /// For whom it was begun; nothing happens while that is held.
    tgid: Tgid,
    /// The last step was too dear, and the next one waits for that.
    is_dear: bool,
    /// It was said that some of it comes later.
    is_said: bool,
    /// The last step's size and the smallest of this link's.
    size: usize,
    smallest: usize,
    /// What the last step has attached, and how long that took.
    newest: Range<u32>,
    took_ns: u64,
    /// From when on it is watched, and what it had cost by then.
    since: MonoNs,
    cost_ns: u64,
    due: MonoNs,
}

/// What is to be done after a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// A step of so many sites.
    Step(usize),
    /// Looking again after so many nanoseconds.
    Wait(u64),
}

/// What a step has shown.
#[derive(Clone, Copy, Debug)]
struct Shown {
    size: usize,
    /// What its hits have cost, and in which time.
    cost_ns: u64,
    elapsed_ns: u64,
    /// How long it took to attach it. A breakpoint that is set interrupts whoever runs then, so what calls
    /// its functions all the time has paid for that, too.
    took_ns: u64,
}

/// What follows it: pure.
fn next(shown: Shown, smallest: usize, limit_ns_per_second: u64) -> Next {
    let Shown { size, cost_ns, elapsed_ns, took_ns } = shown;
    let (cost, elapsed) = (u128::from(cost_ns), u128::from(elapsed_ns.max(1)));
    let (second, limit) = (1_000_000_000u128, u128::from(limit_ns_per_second.max(1)));
    if cost * second <= limit * elapsed / 2 {
        return Next::Step(size.saturating_mul(2).min(LARGEST));
    }
    if cost * second <= limit * elapsed {
        return Next::Step(smallest);
    }
    // Until it has been paid for.
    let paid = (cost + u128::from(took_ns)) * second / limit;
    let paid = u64::try_from(paid.saturating_sub(elapsed)).unwrap_or(u64::MAX);
    Next::Wait(paid.clamp(WATCHED_NS, WATCHED_MOST_NS))
}

impl Functions {
    /// Attaches the first sites of a link, and goes on with it later if there are more.
    pub(super) fn begin_ramp(
        &mut self,
        link: LinkNo,
        module: &str,
        tgid: Tgid,
        now: MonoNs,
    ) -> Result<(), FunctionError> {
        let size = match (self.wishes.budget_ns, self.is_held(tgid)) {
            (0, _) => usize::MAX,
            (_, true) => FIRST_OF_COMMAND,
            (_, false) => FIRST,
        };
        let smallest = (self.probes.sites_left(link) / STEPS_MAX).max(SMALLEST);
        let mut ramp = Ramp {
            link,
            module: module.to_owned(),
            tgid,
            is_dear: false,
            is_said: false,
            size,
            smallest,
            newest: 0..0,
            took_ns: 0,
            since: now,
            cost_ns: 0,
            due: now,
        };
        self.step(&mut ramp, size, now)?;
        if self.probes.sites_left(link) > 0 {
            // Most is attached before anybody could miss it; what begins now runs without.
            if self.is_held(tgid) {
                self.say(&mut ramp);
            }
            self.ramps.push(ramp);
        }
        Ok(())
    }

    /// Makes the steps that it is time for.
    pub(in crate::run) fn go_up(&mut self, now: MonoNs) -> Result<(), FunctionsError> {
        if self.ramps.is_empty() {
            return Ok(());
        }
        for mut ramp in std::mem::take(&mut self.ramps) {
            if self.probes.sites_left(ramp.link) == 0 {
                // Its process is gone, or its file; or what was left of it costs too much elsewhere.
                continue;
            }
            if ramp.due <= now && !self.is_held(ramp.tgid) {
                self.go_on_with(&mut ramp, now)?;
            }
            if self.probes.sites_left(ramp.link) > 0 {
                self.ramps.push(ramp);
            } else {
                tracing::info!(module = ramp.module, pid = ramp.tgid.0, "all functions are probed");
            }
        }
        Ok(())
    }

    fn go_on_with(&mut self, ramp: &mut Ramp, now: MonoNs) -> Result<(), FunctionsError> {
        let cost_ns = self.probes.cost_ns(ramp.newest.clone())?;
        let shown = Shown {
            size: ramp.size,
            cost_ns: cost_ns.saturating_sub(ramp.cost_ns),
            elapsed_ns: now.since(ramp.since),
            took_ns: ramp.took_ns,
        };
        match next(shown, ramp.smallest, self.wishes.budget_ns) {
            Next::Step(size) => {
                if let Err(error) = self.step(ramp, size, now) {
                    let module = &ramp.module;
                    tracing::warn!(module, %error, "the rest of its functions is not probed");
                    self.probes.stop(ramp.link);
                }
            }
            Next::Wait(ns) => {
                (ramp.is_dear, ramp.size, ramp.took_ns) = (true, ramp.smallest, 0);
                (ramp.since, ramp.cost_ns, ramp.due) = (now, cost_ns, now.after(ns));
                self.say(ramp);
            }
        }
        Ok(())
    }

    /// Attaches the next `size` sites of a link.
    fn step(&mut self, ramp: &mut Ramp, size: usize, now: MonoNs) -> Result<(), FunctionError> {
        let step = self.probes.go_on(ramp.link, size)?;
        for (_, function, error) in &step.refused {
            let mut numbered = self.files.values().filter_map(File::numbered);
            let name = numbered.find_map(|numbered| numbered.name(*function));
            tracing::warn!(module = ramp.module, function = name, %error, "the kernel refuses a probe");
        }
        self.watch.add(step.functions.iter().copied());
        if self.probes.sites_left(ramp.link) == 0 {
            return Ok(());
        }
        let first = step.functions.first().map_or(0, |first| first.0);
        let last = step.functions.last().map_or(0, |last| last.0 + 1);
        ramp.newest = first..last;
        ramp.cost_ns = self.probes.cost_ns(ramp.newest.clone())?;
        let done = clock::now();
        (ramp.is_dear, ramp.size, ramp.took_ns) = (false, size, done.since(now));
        (ramp.since, ramp.due) = (done, done.after(WATCHED_NS));
        Ok(())
    }

    /// How long until the next step may be made, if there is one to make.
    pub(in crate::run) fn until_next_step(&self) -> Option<Duration> {
        let goes_on = |ramp: &&Ramp| !self.is_held(ramp.tgid);
        let due = self.ramps.iter().filter(goes_on).map(|ramp| ramp.due).min()?;
        Some(Duration::from_nanos(due.since(clock::now())))
    }

    /// Whether there is a next step that nothing speaks against so far.
    pub(in crate::run) fn goes_up(&self) -> bool {
        self.ramps.iter().any(|ramp| !ramp.is_dear && !self.is_held(ramp.tgid))
    }

    fn is_held(&self, tgid: Tgid) -> bool {
        self.processes.get(&tgid).is_some_and(|process| process.is_held)
    }

    /// Says once that some of a link's functions are not probed yet.
    fn say(&self, ramp: &mut Ramp) {
        if std::mem::replace(&mut ramp.is_said, true) {
            return;
        }
        tracing::warn!(
            module = ramp.module,
            pid = ramp.tgid.0,
            functions = self.probes.functions_left(ramp.link),
            "probed a little later, step by step, so as to cost no more than --max-overhead \
             (0: all at once)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2 % of a core.
    const LIMIT: u64 = 20_000_000;
    const MS: u64 = 1_000_000;

    fn after(size: usize, cost_ns: u64, elapsed_ns: u64, took_ns: u64) -> Next {
        next(Shown { size, cost_ns, elapsed_ns, took_ns }, SMALLEST, LIMIT)
    }

    #[test]
    fn steps_grow_while_they_cost_little() {
        let mut sizes = vec![FIRST];
        for _ in 0..4 {
            match after(*sizes.last().unwrap_or(&0), 50_000, 5 * MS, 80 * MS) {
                Next::Step(larger) => sizes.push(larger),
                Next::Wait(_) => panic!("half of the limit is little"),
            }
        }
        assert_eq!(sizes, [FIRST, FIRST * 2, LARGEST, LARGEST, LARGEST]);
        assert_eq!(after(usize::MAX, 0, 0, 0), Next::Step(LARGEST));
    }

    #[test]
    fn near_the_limit_they_are_small_and_above_it_there_is_none_until_it_is_paid_for() {
        assert_eq!(after(LARGEST, 100_000, 5 * MS, 0), Next::Step(SMALLEST));
        // 5 ms and 10 for attaching, of 20: at 2 % three quarters of a second, of which 20 ms have passed.
        assert_eq!(after(FIRST, 5 * MS, 20 * MS, 10 * MS), Next::Wait(730 * MS));
        assert_eq!(after(FIRST, 100_001, 5 * MS, 0), Next::Wait(WATCHED_NS));
        assert_eq!(after(FIRST, u64::MAX, 0, u64::MAX), Next::Wait(WATCHED_MOST_NS));
        let shown = Shown { size: 1, cost_ns: 1, elapsed_ns: 0, took_ns: 0 };
        assert_eq!(next(shown, SMALLEST, 0), Next::Wait(999_999_999));
    }
}
