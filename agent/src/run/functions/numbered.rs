//! From what was found in a file to probes and to what the pipeline is told of them. The functions are
//! numbered first, then the hooks, then the tracepoints.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use agent_common::function::Op;

use super::file::FileId;
use crate::event::ids::SiteNo;
use crate::function::FunctionNo;
use crate::function::exception;
use crate::function::facts::{FunctionFacts, Role, SiteFacts};
use crate::function::pattern::Pattern;
use crate::function::plan::Planned;
use crate::inspect::runtime::Goroutines;
use crate::pipeline::Step;
use crate::probe::function::{Need, Point, SitesNo};
use crate::run::exceptions::Cold;
use crate::run::planner::Found;
use crate::run::{exceptions, tracepoints};

/// What is probed of a file, by number.
pub(super) struct Numbered {
    pub(super) numbers: Range<u32>,
    pub(super) sites: SitesNo,
    /// What the pipeline was told, in the order of the numbers.
    facts: Vec<Arc<FunctionFacts>>,
    /// How many of the last ones are tracepoints, and how many before those hooks.
    tracepoints: u32,
    hooks: u32,
    /// Which patterns have asked for them.
    patterns: Vec<Arc<Pattern>>,
}

impl Numbered {
    /// Tells the pipeline what the hits of these sites mean, which are those of [`points`].
    pub(super) fn new(
        found: Found,
        module: &str,
        (numbers, sites, written): (Range<u32>, SitesNo, Vec<SiteNo>),
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Self {
        let facts = facts(&found, numbers.start, module, &written);
        for facts in &facts {
            announce(&Step::Function(Arc::clone(facts)));
        }
        let [tracepoints, hooks] =
            [found.tracepoints.len(), found.hooks.len()].map(|count| count as u32);
        let mut patterns: Vec<Arc<Pattern>> = Vec::new();
        for function in found.plan.functions {
            if patterns.iter().all(|known| !Arc::ptr_eq(known, &function.pattern)) {
                patterns.push(function.pattern);
            }
        }
        Self { numbers, sites, facts, tracepoints, hooks, patterns }
    }

    /// Which of its numbers are tracepoints'.
    pub(super) fn tracepoints(&self) -> Range<u32> {
        self.numbers.end.saturating_sub(self.tracepoints)..self.numbers.end
    }

    /// What its tracepoints are called.
    pub(super) fn tracepoint_names(&self) -> impl Iterator<Item = &str> {
        self.tracepoints().filter_map(|number| self.name(FunctionNo(number)))
    }

    /// The patterns of which something was found.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(|pattern| pattern.text())
    }

    /// Which of its numbers are hooks'.
    pub(super) fn hooks(&self) -> Range<u32> {
        let end = self.tracepoints().start;
        end.saturating_sub(self.hooks)..end
    }

    /// What has a number, if it is one of these.
    pub(super) fn name(&self, FunctionNo(number): FunctionNo) -> Option<&str> {
        let index = number.checked_sub(self.numbers.start)? as usize;
        self.facts.get(index).map(|facts| facts.name.as_str())
    }
}

/// How many numbers it takes.
pub(super) fn count(found: &Found) -> usize {
    found.plan.functions.len() + found.hooks.len() + found.tracepoints.len()
}

/// What all its probes take.
pub(super) fn need<'a>(found: impl Iterator<Item = &'a Found>) -> Need {
    let mut need = Need::default();
    let mut code: HashSet<&[Op]> = HashSet::new();
    for found in found {
        need.functions += count(found);
        for function in &found.plan.functions {
            need.sites += 1 + function.placement.ends.len();
            code.insert(&function.entry.ops);
            code.insert(&function.end.ops);
        }
        need.sites += found.hooks.len();
        code.extend(found.hooks.iter().map(|hook| hook.ops.as_slice()));
        let places = found.tracepoints.iter().flat_map(|tracepoint| &tracepoint.places);
        for place in places {
            need.sites += 1;
            code.insert(&place.code.ops);
        }
    }
    need.ops = code.iter().map(|ops| ops.len()).sum();
    need
}

/// The probes of all that was found, numbered from `first` on, and how many hits of each are told a second
/// if that is limited.
pub(super) fn points(
    found: &Found,
    first: u32,
    goroutines: Option<Goroutines>,
) -> (Vec<Point>, Vec<(FunctionNo, u64)>) {
    let mut points = Vec::new();
    let mut rates = Vec::new();
    let mut numbers = first..;
    for (function, number) in found.plan.functions.iter().zip(&mut numbers) {
        let number = FunctionNo(number);
        points.extend(Point::all_of(function, number, goroutines));
        if function.pattern.options.rate > 0 {
            rates.push((number, function.pattern.options.rate));
        }
    }
    let first_hook = first + found.plan.functions.len() as u32;
    for (hook, number) in found.hooks.iter().zip(&mut numbers) {
        let counts = hook.decode.counts_with();
        let with = found.hooks.iter().position(|other| counts == Some(other.decode));
        let counted = with.map_or(number, |with| first_hook + with as u32);
        points.push(exceptions::point(counted, hook, goroutines));
        rates.push((FunctionNo(number), exception::RATE_PER_SECOND));
    }
    for (tracepoint, number) in found.tracepoints.iter().zip(&mut numbers) {
        points.extend(tracepoints::points(number, tracepoint));
        rates.push((FunctionNo(number), tracepoints::RATE_PER_SECOND));
    }
    (points, rates)
}

/// What the hits of these sites mean, which are those of [`points`].
fn facts(found: &Found, first: u32, module: &str, sites: &[SiteNo]) -> Vec<Arc<FunctionFacts>> {
    let mut sites = sites.iter().map(|site| site.0);
    let mut numbers = first..;
    let mut facts = Vec::with_capacity(count(found));
    for (function, number) in found.plan.functions.iter().zip(&mut numbers) {
        facts.push(Arc::new(call(found, first, number, function, module, &mut sites)));
    }
    for (hook, number) in found.hooks.iter().zip(&mut numbers) {
        let Some(site) = sites.next() else { return facts };
        facts.push(Arc::new(exceptions::facts(number, hook, site, module)));
    }
    for (tracepoint, number) in found.tracepoints.iter().zip(&mut numbers) {
        let own = sites.by_ref().take(tracepoint.places.len());
        facts.push(Arc::new(tracepoints::facts(number, tracepoint, own, module)));
    }
    facts
}

/// The hooks of which hits may lack something, by the sites that [`points`] has got.
pub(super) fn cold(
    found: &Found,
    id: FileId,
    of: SitesNo,
    sites: &[SiteNo],
) -> impl Iterator<Item = (SiteNo, (SitesNo, Cold))> {
    let functions = found.plan.functions.iter();
    let before: usize = functions.map(|function| 1 + function.placement.ends.len()).sum();
    let hooks = sites.iter().skip(before).zip(&found.hooks);
    hooks.filter_map(move |(site, hook)| {
        let cold = Cold::of(hook, found.module.as_ref()?, id)?;
        Some((*site, (of, cold)))
    })
}

fn call(
    found: &Found,
    first: u32,
    number: u32,
    function: &Planned,
    module: &str,
    sites: &mut impl Iterator<Item = u32>,
) -> FunctionFacts {
    // They are in the order of their addresses.
    let by_address = |address| {
        let functions = &found.plan.functions;
        let index = functions.binary_search_by_key(&address, |other| other.address).ok()?;
        Some(first + index as u32)
    };
    let options = &function.pattern.options;
    let mut told = Vec::with_capacity(1 + function.placement.ends.len());
    for ((site, jump), number) in function.placement.sites().zip(&function.jumps).zip(sites) {
        let into = jump.filter(|_| site.kind.is_tail_call()).and_then(by_address);
        let reader = function.code(site.kind).reader.clone();
        told.push(SiteFacts { number, kind: site.kind, into, reader });
    }
    FunctionFacts {
        number,
        name: function.name.clone(),
        module: module.to_owned(),
        source: function.source.clone(),
        role: Role::Call {
            min_ns: u64::try_from(options.min.as_nanos()).unwrap_or(u64::MAX),
            in_request: options.in_request,
        },
        sites: told,
    }
}
