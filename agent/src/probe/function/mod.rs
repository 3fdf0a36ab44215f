//! Function probes at the edge to the kernel: loads their program, attaches it to instructions, says
//! what each site reads, and keeps to budgets. What is probed, others decide.
//!
//! The program and its maps are there only while a [`FunctionProbes`] is. Dropping it detaches
//! everything and waits until that is done; if the agent is killed, the kernel does the same.
//!
//! A probe of a process (`tgid` given) is placed into that process alone; children that it forks later
//! inherit the breakpoints and are slowed by them, but not seen: they want links of their own. A probe
//! of all processes is placed into each that maps the file, now or later, and the kernel half leaves at
//! once for those that were not selected: right for a program of which only traced processes run, wrong
//! for a library that many share.

mod attached;
pub mod budget;
mod counters;
pub mod empty;
mod error;
pub(crate) mod exercise;
mod limits;
mod link;
mod loader;
mod point;
pub mod selftest;
mod sites;
mod target;
mod uprobe;

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use agent_common::function::{self as wire, condition, hit_flags};
use agent_common::task_kind;

pub use self::counters::FunctionCounters;
pub use self::error::FunctionError;
pub use self::limits::{Limits, Need};
pub use self::point::{HitCosts, Point, TaskSource};

use self::limits::within;
use self::link::{Closer, Closing};
use self::loader::{Attach, Loaded};
use self::selftest::SelfTest;
use self::sites::{Block, Sites};
use self::target::Target;
use super::bpf;
use super::bpf::program::Verified;
use super::capture::{Capture, Shared};
use crate::event::ids::SiteNo;
use crate::function::FunctionNo;
use crate::function::numbers::Numbers;
use crate::function::site::{Condition, SiteKind};
use crate::platform::cpus;

/// What [`FunctionProbes::attach`] has attached, to be detached together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkNo(u32);

/// Those of a link's probes that were attached in one step. What the kernel half knows a link by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct PartNo(u32);

/// The sites of one file, attached or not, to be freed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SitesNo(u32);

/// What became of points.
#[derive(Debug)]
pub struct Attached {
    /// What to detach.
    pub link: LinkNo,
    /// Their sites, which other links may have, too.
    pub set: SitesNo,
    /// The number of each point's site, in their order, refused ones included.
    pub sites: Vec<SiteNo>,
    /// Points that the kernel refused, by their index, and why. The others are attached.
    pub refused: Vec<(usize, io::Error)>,
}

/// How many numbers are in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    /// Of sites.
    pub sites: u32,
    /// Of links' parts.
    pub links: u32,
}

/// The program, its links and its maps.
#[derive(Debug)]
pub struct FunctionProbes {
    links: HashMap<LinkNo, Link>,
    next_link: u32,
    /// Parts that are being closed.
    closing: HashMap<PartNo, SitesNo>,
    closer: Closer,
    loaded: Loaded,
    shared: Arc<Shared>,
    limits: Limits,
    test: SelfTest,
    numbers: Numbers,
    sites: Sites,
    sets: HashMap<SitesNo, Set>,
    next_set: u32,
    /// Those that nothing hits any more since they were freed.
    freed: Vec<SitesNo>,
    cpus: usize,
}

/// Probes in one file that are detached together, and what is needed to attach them again.
#[derive(Debug)]
struct Link {
    parts: Vec<Part>,
    /// What is not attached yet.
    rest: VecDeque<Place>,
    file: Target,
    tgid: Option<u32>,
    set: SitesNo,
}

/// Probes that were attached in one step.
#[derive(Debug)]
struct Part {
    number: PartNo,
    fds: Vec<OwnedFd>,
    places: Arc<[Place]>,
    /// 0 or 1: see [`wire::cookie`].
    generation: u32,
}

/// Sites that were written together.
#[derive(Debug)]
struct Set {
    block: Block,
    /// Those that are to be attached: not what the kernel refuses, nor what was taken out.
    places: Arc<[Place]>,
    /// How many parts of links have them, those included that are being closed.
    links: u32,
    is_wanted: bool,
}

/// Where a probe is.
#[derive(Clone, Copy, Debug)]
struct Place {
    site: SiteNo,
    function: FunctionNo,
    offset: u64,
    /// 0: none.
    semaphore: u64,
}

const SITES: &str = "SITES";
const LINKS: &str = "FUNCTION_LINKS";
const CODE: &str = "CODE";
const FUNCTIONS: &str = "FUNCTIONS";
const COUNTS: &str = "FUNCTION_COUNTS";
const IMAGE_COST: &str = "FUNCTION_IMAGE_COST";

impl FunctionProbes {
    /// Loads the program beside the capture programs: its records come out of `capture`'s ring, and
    /// `capture`'s selection says whose hits are told
    /// ([`Selection::select_functions`](super::Selection::select_functions)).
    pub fn load(capture: &Capture, limits: Limits, test: &SelfTest) -> Result<Self, FunctionError> {
        Self::load_with(capture.shared(), &[], limits, test)
    }

    /// As [`load`](Self::load), with sizes for the maps that nobody else has.
    fn load_with(
        shared: &Arc<Shared>,
        own: &[(&'static str, u32)],
        limits: Limits,
        test: &SelfTest,
    ) -> Result<Self, FunctionError> {
        let mut entries = vec![
            (SITES, limits.sites),
            (CODE, limits.ops),
            (FUNCTIONS, limits.functions),
            (COUNTS, limits.functions),
            (LINKS, limits.links),
        ];
        entries.extend_from_slice(own);
        let loaded = loader::load(shared, &entries)?;
        let cpus = cpus::possible().map_err(|source| unusable(COUNTS, source))?;
        let cost_ns = u64::from(test.costs.image_ns);
        bpf::update(loaded.maps.fd(IMAGE_COST)?, &0u32, &[cost_ns])
            .map_err(|source| unusable(IMAGE_COST, source))?;
        Ok(Self {
            links: HashMap::new(),
            next_link: 0,
            closing: HashMap::new(),
            closer: Closer::start().map_err(FunctionError::Thread)?,
            loaded,
            shared: Arc::clone(shared),
            limits,
            test: *test,
            numbers: Numbers::below(limits.links),
            sites: Sites::new(limits.sites, limits.ops),
            sets: HashMap::new(),
            next_set: 0,
            freed: Vec::new(),
            cpus,
        })
    }

    /// Loads it again with larger maps, if nothing is in use. Budgets are to be set again.
    pub fn grow(&mut self, limits: Limits) -> Result<bool, FunctionError> {
        self.reap();
        if limits == self.limits || !self.sets.is_empty() || !self.closing.is_empty() {
            return Ok(false);
        }
        let mut grown = Self::load_with(&self.shared, &[], limits, &self.test)?;
        // What was numbered before may still be told of.
        grown.sites = std::mem::replace(&mut self.sites, Sites::new(0, 0)).grown(limits);
        *self = grown;
        Ok(true)
    }

    /// What fits.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// What the kernel has made of the program.
    pub fn verified(&self) -> Verified {
        Verified::of(loader::PROGRAM, self.loaded.program.as_fd())
    }

    /// Most points that can be attached at a time; `None` if there is no bound but [`Limits`]. Kernels
    /// before 6.6 attach each on its own, and take a tenth of a second to detach it.
    pub fn points_max(&self) -> Option<usize> {
        match self.loaded.attach {
            Attach::Multi => None,
            Attach::Perf => Some(link::PERF_MAX),
        }
    }

    /// Attaches probes to a file, in one process or in all that map it. Those that the kernel refuses
    /// are told, the rest is attached. Nothing is told of a hit until its process is selected.
    ///
    /// `file` is anything that can be opened here: `/proc/PID/exe`, a file of `/proc/PID/map_files`, a
    /// path below the process's root. The kernel keeps to the file, not the path.
    pub fn attach(
        &mut self,
        file: &Path,
        tgid: Option<u32>,
        points: &[Point],
    ) -> Result<Attached, FunctionError> {
        let opened = File::open(file)
            .map_err(|source| FunctionError::Attach { path: file.to_owned(), source })?;
        let (set, sites) = self.write(points)?;
        let attached = self.begin(set, &opened, tgid).and_then(|link| {
            let step = self.go_on(link, usize::MAX).inspect_err(|_| self.detach(link))?;
            Ok((link, step.refused))
        });
        let (link, refused) = attached.inspect_err(|_| self.free(set))?;
        let refused = refused.into_iter().filter_map(|(refused, _, error)| {
            sites.iter().position(|site| *site == refused).map(|index| (index, error))
        });
        let refused = refused.collect();
        Ok(Attached { link, set, sites, refused })
    }

    /// Writes the sites of points, to be attached: the number of each, in their order.
    pub fn write(&mut self, points: &[Point]) -> Result<(SitesNo, Vec<SiteNo>), FunctionError> {
        let functions = points.iter().map(|point| point.function.0 as usize + 1).max().unwrap_or(0);
        within("functions", functions, self.limits.functions as usize)?;
        let taken = self.sites.take(points.iter().map(|point| point.ops.as_slice()))?;
        let keys: Vec<u32> = taken.block.places.clone().collect();
        let numbers: Vec<SiteNo> = keys.iter().map(|place| self.sites.number(*place)).collect();
        let sites = points.iter().zip(&taken.code).map(|(point, at)| self.site(point, *at));
        let sites: Vec<wire::Site> = sites.collect();
        let code_at = taken.fresh.iter().flat_map(|(at, ops)| (*at..).take(ops.len())).collect();
        let code: Vec<wire::Op> =
            taken.fresh.iter().flat_map(|(_, ops)| ops.iter().copied()).collect();
        let written = self
            .write_array(CODE, code_at, &code)
            .and_then(|()| self.write_array(SITES, keys, &sites));
        if let Err(error) = written {
            self.sites.give_back(taken.block);
            return Err(error);
        }
        let places = points.iter().zip(&numbers).map(|(point, site)| Place {
            site: *site,
            function: point.function,
            offset: point.site.offset.0,
            semaphore: point.semaphore.map_or(0, |offset| offset.0),
        });
        let number = SitesNo(self.next_set);
        self.next_set = self.next_set.wrapping_add(1);
        let set = Set { block: taken.block, places: places.collect(), links: 0, is_wanted: true };
        self.sets.insert(number, set);
        Ok((number, numbers))
    }

    fn write_array<V: bpf::Plain>(
        &self,
        map: &'static str,
        keys: Vec<u32>,
        values: &[V],
    ) -> Result<(), FunctionError> {
        let written = bpf::update_array(self.loaded.maps.fd(map)?, &keys, values);
        written.map_err(|source| unusable(map, source))
    }

    fn site(&self, point: &Point, code: u32) -> wire::Site {
        let flags = match point.site.kind {
            // The kernel half is to tell of it or not as of an entry; there is no end to wait for.
            SiteKind::Entry | SiteKind::EntryAndReturn | SiteKind::EntryAndTailCall => {
                hit_flags::ENTRY
            }
            SiteKind::Return => hit_flags::RETURN,
            SiteKind::TailCall => hit_flags::TAIL_CALL,
            SiteKind::Event => hit_flags::EVENT,
        };
        let (task_kind, task_offset) = match point.task {
            TaskSource::Thread => (task_kind::THREAD, 0),
            TaskSource::Goroutine { id_offset } => (task_kind::GOROUTINE, id_offset),
        };
        wire::Site {
            code,
            // Checked to be at most OPS_MAX.
            ops: point.ops.len() as u8,
            condition: point.site.jumps_if.map_or(condition::ALWAYS, Condition::wire),
            flags,
            task_kind,
            sp_adjust: point.site.sp_adjust,
            function: point.function.0,
            task_offset,
            cost_ns: self.test.costs.of(point.site.cost),
        }
    }
}

impl Drop for FunctionProbes {
    fn drop(&mut self) {
        // Dropped next, the closer waits until all of them are closed.
        for part in self.links.drain().flat_map(|(_, link)| link.parts) {
            self.closer.close(Closing { links: part.fds, ..Closing::default() });
        }
    }
}

fn unusable(map: &'static str, source: io::Error) -> FunctionError {
    FunctionError::Map { map: map.to_owned(), source }
}
