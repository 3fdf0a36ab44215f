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

pub mod budget;
mod error;
pub(crate) mod exercise;
mod link;
mod loader;
mod point;
pub mod selftest;
mod uprobe;

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use agent_common::function::cookie::{GENERATION_SHIFT, LINK_SHIFT};
use agent_common::function::{
    self as wire, BUDGET_WINDOW_SHIFT, Counts, OPS_MAX, Op, RATE_WINDOW_SHIFT, hit_flags,
};
use agent_common::task_kind;

pub use self::error::FunctionError;
pub use self::point::{HitCosts, Point, TaskSource};

use self::link::{Closer, Linked, Places};
use self::loader::{Attach, Loaded};
use self::selftest::SelfTest;
use super::bpf;
use super::bpf::program::Verified;
use super::capture::{Capture, Shared};
use crate::event::ids::SiteNo;
use crate::function::FunctionNo;
use crate::function::site::SiteKind;
use crate::platform::cpus;

/// Sizes of maps, which the kernel fills with zeroes at start.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most sites, detached ones included.
    pub sites: u32,
    /// Most ops of all sites together, the same code counted once.
    pub ops: u32,
    /// Most functions, detached ones included.
    pub functions: u32,
    /// Most links, detached ones included.
    pub links: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sites: 1 << 17, ops: 1 << 18, functions: 1 << 14, links: 1 << 16 }
    }
}

/// What [`FunctionProbes::attach`] has attached, to be detached together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkNo(u32);

/// What became of points.
#[derive(Debug)]
pub struct Attached {
    /// What to detach.
    pub link: LinkNo,
    /// The number of each point's site, in their order, refused ones included.
    pub sites: Vec<SiteNo>,
    /// Points that the kernel refused, by their index, and why. The others are attached.
    pub refused: Vec<(usize, io::Error)>,
}

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

/// The program, its links and its maps.
#[derive(Debug)]
pub struct FunctionProbes {
    links: HashMap<LinkNo, Link>,
    closer: Closer,
    loaded: Loaded,
    limits: Limits,
    costs: HitCosts,
    sees_threads: bool,
    next_link: u32,
    next_site: usize,
    next_op: usize,
    /// Where code lies that some site has, so that sites that read the same share it.
    code: HashMap<Vec<Op>, u32>,
    cpus: usize,
}

/// Probes in one file that were attached together, and what is needed to attach them again.
#[derive(Debug)]
struct Link {
    fds: Vec<OwnedFd>,
    path: CString,
    tgid: Option<u32>,
    places: Vec<Place>,
    /// 0 or 1: see [`wire::cookie`].
    generation: u32,
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
const BUDGETS: &str = "FUNCTION_BUDGETS";

impl FunctionProbes {
    /// Loads the program beside the capture programs: its records come out of `capture`'s ring, and
    /// `capture`'s selection says whose hits are told
    /// ([`Selection::select_functions`](super::Selection::select_functions)).
    pub fn load(capture: &Capture, limits: Limits, test: &SelfTest) -> Result<Self, FunctionError> {
        Self::load_with(capture.shared(), &[], limits, test)
    }

    /// As [`load`](Self::load), with sizes for the maps that nobody else has.
    fn load_with(
        shared: &Shared,
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
        Ok(Self {
            links: HashMap::new(),
            closer: Closer::start().map_err(FunctionError::Thread)?,
            loaded,
            limits,
            costs: test.costs,
            sees_threads: test.sees_threads,
            next_link: 0,
            next_site: 0,
            next_op: 0,
            code: HashMap::new(),
            cpus,
        })
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
        let path = CString::new(file.as_os_str().as_bytes()).map_err(FunctionError::Path)?;
        self.has_room(points.len())?;
        let first = self.write_sites(points)?;
        let places = points.iter().zip(first..).map(|(point, number)| Place {
            site: SiteNo(number as u32),
            function: point.function,
            offset: point.site.offset.0,
            semaphore: point.semaphore.map_or(0, |offset| offset.0),
        });
        // Seen by one thread only, a probe would lie; in all processes it slows those that share the file.
        let tgid = if self.sees_threads { tgid } else { None };
        let places: Vec<Place> = places.collect();
        let sites = places.iter().map(|place| place.site).collect();
        let (link, refused) = self.attach_link(path, tgid, places)?;
        Ok(Attached { link, sites, refused })
    }

    /// Attaches the probes of `link`, with the same sites, to another process: one that the first has
    /// forked, say, which has inherited the breakpoints.
    pub fn attach_to(&mut self, link: LinkNo, tgid: u32) -> Result<Option<LinkNo>, FunctionError> {
        let Some(known) = self.links.get(&link) else { return Ok(None) };
        if known.tgid.is_none() {
            // They are in all processes.
            return Ok(None);
        }
        let (path, places) = (known.path.clone(), known.places.clone());
        self.has_room(places.len())?;
        self.attach_link(path, Some(tgid), places).map(|(link, _)| Some(link))
    }

    /// Takes the probes of some functions out of a link. The others stay as they are: a link without
    /// them is made before this one goes, and each hit is told once.
    ///
    /// Takes as long as attaching what stays.
    pub fn detach_functions(
        &mut self,
        link: LinkNo,
        functions: &HashSet<FunctionNo>,
    ) -> Result<(), FunctionError> {
        let Some(known) = self.links.get(&link) else { return Ok(()) };
        let stays = |place: &&Place| !functions.contains(&place.function);
        let places: Vec<Place> = known.places.iter().filter(stays).copied().collect();
        if places.is_empty() {
            self.detach(link);
            return Ok(());
        }
        if places.len() == known.places.len() {
            return Ok(());
        }
        let generation = known.generation ^ 1;
        let linked = self.link(link, &known.path, known.tgid, &places, generation)?;
        // From here on the new one is told, and the old one is not.
        self.set_live(link, generation)?;
        if let Some(known) = self.links.get_mut(&link) {
            known.places = places;
            known.generation = generation;
            let old = std::mem::replace(&mut known.fds, linked.links);
            self.closer.close(old);
        }
        Ok(())
    }

    fn has_room(&self, points: usize) -> Result<(), FunctionError> {
        let Some(most) = self.points_max() else { return Ok(()) };
        let there: usize = self.links.values().map(|link| link.places.len()).sum();
        within("probes (this kernel attaches them one by one)", there + points, most)
    }

    fn attach_link(
        &mut self,
        path: CString,
        tgid: Option<u32>,
        places: Vec<Place>,
    ) -> Result<(LinkNo, Vec<(usize, io::Error)>), FunctionError> {
        let link = LinkNo(self.next_link);
        within("links", link.0 as usize + 1, self.limits.links as usize)?;
        self.next_link += 1;
        let generation = 0;
        self.set_live(link, generation)?;
        let linked = self.link(link, &path, tgid, &places, generation)?;
        // What was refused once is not tried again.
        let refused: HashSet<usize> = linked.refused.iter().map(|(index, _)| *index).collect();
        let stay = places.into_iter().enumerate().filter(|(index, _)| !refused.contains(index));
        let places = stay.map(|(_, place)| place).collect();
        self.links.insert(link, Link { fds: linked.links, path, tgid, places, generation });
        Ok((link, linked.refused))
    }

    /// Says which generation of a link is told.
    fn set_live(&self, link: LinkNo, generation: u32) -> Result<(), FunctionError> {
        let map = self.loaded.maps.fd(LINKS)?;
        bpf::update(map, &link.0, &[generation]).map_err(|source| unusable(LINKS, source))
    }

    fn link(
        &self,
        link: LinkNo,
        path: &CStr,
        tgid: Option<u32>,
        places: &[Place],
        generation: u32,
    ) -> Result<Linked, FunctionError> {
        let of_link = u64::from(link.0) << LINK_SHIFT | u64::from(generation) << GENERATION_SHIFT;
        let offsets: Vec<u64> = places.iter().map(|place| place.offset).collect();
        let cookies: Vec<u64> =
            places.iter().map(|place| u64::from(place.site.0) | of_link).collect();
        let semaphores: Vec<u64> = if places.iter().any(|place| place.semaphore != 0) {
            places.iter().map(|place| place.semaphore).collect()
        } else {
            Vec::new()
        };
        let (offsets, cookies, semaphores) = (&offsets[..], &cookies[..], &semaphores[..]);
        let places = Places { path, tgid, offsets, cookies, semaphores };
        link::attach(self.loaded.program.as_fd(), self.loaded.attach, places).map_err(|source| {
            let path = PathBuf::from(OsStr::from_bytes(path.to_bytes()));
            FunctionError::Attach { path, source }
        })
    }

    /// Detaches what one [`attach`](Self::attach) has attached, soon: a thread does it.
    pub fn detach(&mut self, link: LinkNo) {
        if let Some(link) = self.links.remove(&link) {
            self.closer.close(link.fds);
        }
    }

    /// What this function's probes have counted.
    pub fn counters(&self, function: FunctionNo) -> Result<FunctionCounters, FunctionError> {
        let mut counts = vec![Counts::default(); self.cpus];
        let map = self.loaded.maps.fd(COUNTS)?;
        bpf::lookup(map, &function.0, &mut counts).map_err(|source| unusable(COUNTS, source))?;
        let sum = |of: fn(&Counts) -> u64| counts.iter().map(of).sum();
        Ok(FunctionCounters {
            told: sum(|counts| counts.told),
            suppressed: sum(|counts| counts.suppressed),
            lost: sum(|counts| counts.lost),
            dropped: sum(|counts| counts.dropped),
            cost_ns: sum(|counts| counts.cost_ns),
        })
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

    /// Writes the sites of points and their code; the first site's number.
    fn write_sites(&mut self, points: &[Point]) -> Result<usize, FunctionError> {
        let first = self.next_site;
        within("probes", first + points.len(), self.limits.sites as usize)?;
        let mut sites = Vec::with_capacity(points.len());
        let mut code = Vec::new();
        let first_op = self.next_op;
        let mut fresh = Vec::new();
        for point in points {
            within("functions", point.function.0 as usize + 1, self.limits.functions as usize)?;
            within("values of one function", point.ops.len(), OPS_MAX)?;
            let at = match self.code.get(&point.ops) {
                _ if point.ops.is_empty() => 0,
                Some(at) => *at,
                None => {
                    let at = (first_op + code.len()) as u32;
                    code.extend_from_slice(&point.ops);
                    self.code.insert(point.ops.clone(), at);
                    fresh.push(&point.ops);
                    at
                }
            };
            sites.push(self.site(point, at));
        }
        let written = within("values", first_op + code.len(), self.limits.ops as usize)
            .and_then(|()| {
                let map = self.loaded.maps.fd(CODE)?;
                bpf::update_array(map, first_op as u32, &code)
                    .map_err(|source| unusable(CODE, source))
            })
            .and_then(|()| {
                let map = self.loaded.maps.fd(SITES)?;
                bpf::update_array(map, first as u32, &sites)
                    .map_err(|source| unusable(SITES, source))
            });
        if let Err(error) = written {
            for ops in fresh {
                self.code.remove(ops);
            }
            return Err(error);
        }
        self.next_op += code.len();
        self.next_site += sites.len();
        Ok(first)
    }

    fn site(&self, point: &Point, code: u32) -> wire::Site {
        let flags = match point.site.kind {
            SiteKind::Entry => hit_flags::ENTRY,
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
            ops: point.ops.len() as u16,
            flags,
            task_kind,
            sp_adjust: point.site.sp_adjust,
            function: point.function.0,
            task_offset,
            cost_ns: self.costs.of(point.site.cost),
        }
    }
}

impl Drop for FunctionProbes {
    fn drop(&mut self) {
        // Dropped next, the closer waits until all of them are closed.
        for (_, link) in self.links.drain() {
            self.closer.close(link.fds);
        }
    }
}

fn unusable(map: &'static str, source: io::Error) -> FunctionError {
    FunctionError::Map { map: map.to_owned(), source }
}

fn within(what: &'static str, wanted: usize, most: usize) -> Result<(), FunctionError> {
    if wanted > most { Err(FunctionError::TooMany { what, wanted, most }) } else { Ok(()) }
}

/// What a rate a second makes in a window of this power of two nanoseconds: at least 1, unless it is 0.
fn per_window(per_second: u64, shift: u64) -> u64 {
    let scaled = (u128::from(per_second) << shift) / 1_000_000_000;
    u64::try_from(scaled).unwrap_or(u64::MAX).max(u64::from(per_second != 0))
}
