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
use crate::function::plan::{Code, Planned};
use crate::function::site::SiteKind;
use crate::inspect::demangle::Language;
use crate::inspect::runtime::Goroutines;
use crate::pipeline::Step;
use crate::probe::function::{Need, Point, SitesNo, TaskSource};
use crate::run::exceptions::Cold;
use crate::run::planner::Found;
use crate::run::{exceptions, tracepoints};

/// What is probed of a file, by number.
pub(super) struct Numbered {
    pub(super) found: Arc<Found>,
    pub(super) numbers: Range<u32>,
    pub(super) sites: SitesNo,
}

impl Numbered {
    /// Which of its numbers are tracepoints'.
    pub(super) fn tracepoints(&self) -> Range<u32> {
        let count = self.found.tracepoints.len() as u32;
        self.numbers.end.saturating_sub(count)..self.numbers.end
    }

    /// Which of its numbers are hooks'.
    pub(super) fn hooks(&self) -> Range<u32> {
        let end = self.tracepoints().start;
        end.saturating_sub(self.found.hooks.len() as u32)..end
    }

    /// What has a number, if it is one of these.
    pub(super) fn name(&self, FunctionNo(number): FunctionNo) -> Option<&str> {
        let index = number.checked_sub(self.numbers.start)? as usize;
        let functions = self.found.plan.functions.iter().map(|function| function.name.as_str());
        let hooks = self.found.hooks.iter().map(|hook| hook.name.as_str());
        let tracepoints = self.found.tracepoints.iter().map(|found| found.name.as_str());
        functions.chain(hooks).chain(tracepoints).nth(index)
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
        let task = match (function.language, goroutines) {
            (Language::Go, Some(at)) => TaskSource::Goroutine { id_offset: at.goid_offset },
            _ => TaskSource::Thread,
        };
        let number = FunctionNo(number);
        let point = |site, code: &Code| Point {
            site,
            ops: code.ops.clone(),
            function: number,
            semaphore: None,
            task,
        };
        points.push(point(function.placement.entry, &function.entry));
        let ends = function.placement.ends.iter();
        points.extend(ends.map(|end| point(*end, end_code(function, end.kind))));
        if function.pattern.options.rate > 0 {
            rates.push((number, function.pattern.options.rate));
        }
    }
    for (hook, number) in found.hooks.iter().zip(&mut numbers) {
        points.push(exceptions::point(number, hook, goroutines));
        rates.push((FunctionNo(number), exception::RATE_PER_SECOND));
    }
    for (tracepoint, number) in found.tracepoints.iter().zip(&mut numbers) {
        points.extend(tracepoints::points(number, tracepoint));
        rates.push((FunctionNo(number), tracepoints::RATE_PER_SECOND));
    }
    (points, rates)
}

/// Tells the pipeline what the hits of these sites mean, which are those of [`points`].
pub(super) fn announce(
    found: &Found,
    first: u32,
    module: &str,
    sites: &[SiteNo],
    announce: &mut dyn FnMut(&Step<'_>),
) {
    let mut sites = sites.iter().map(|site| site.0);
    let mut numbers = first..;
    for (function, number) in found.plan.functions.iter().zip(&mut numbers) {
        let facts = facts(found, first, number, function, module, &mut sites);
        announce(&Step::Function(Arc::new(facts)));
    }
    for (hook, number) in found.hooks.iter().zip(&mut numbers) {
        let Some(site) = sites.next() else { return };
        let facts = exceptions::facts(number, hook, site, module);
        announce(&Step::Function(Arc::new(facts)));
    }
    for (tracepoint, number) in found.tracepoints.iter().zip(&mut numbers) {
        let own = sites.by_ref().take(tracepoint.places.len());
        let facts = tracepoints::facts(number, tracepoint, own, module);
        announce(&Step::Function(Arc::new(facts)));
    }
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

/// What an end reads: a result is there only at a return.
fn end_code(function: &Planned, kind: SiteKind) -> &Code {
    static NOTHING: Code = Code { ops: Vec::new(), reader: None };
    if kind == SiteKind::Return { &function.end } else { &NOTHING }
}

fn facts(
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
    let entry = function.placement.entry;
    let site = |number, kind, into, code: &Code| SiteFacts {
        number,
        kind,
        into,
        reader: code.reader.clone(),
    };
    told.extend(sites.next().map(|number| site(number, entry.kind, None, &function.entry)));
    for (end, jump) in function.placement.ends.iter().zip(&function.jumps) {
        let into = match end.kind {
            SiteKind::TailCall => jump.and_then(by_address),
            _ => None,
        };
        let code = end_code(function, end.kind);
        told.extend(sites.next().map(|number| site(number, end.kind, into, code)));
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
