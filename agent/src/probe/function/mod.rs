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
mod sites;
mod uprobe;

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_common::function::cookie::{GENERATION_SHIFT, LINK_SHIFT, SILENT};
use agent_common::function::site_number::PLACE_BITS;
use agent_common::function::{
    self as wire, BUDGET_WINDOW_SHIFT, Counts, RATE_WINDOW_SHIFT, hit_flags,
};
use agent_common::task_kind;

pub use self::error::FunctionError;
pub use self::point::{HitCosts, Point, TaskSource};

use self::link::{Closer, Closing, Linked, Places};
use self::loader::{Attach, Loaded};
use self::selftest::SelfTest;
use self::sites::{Block, Sites};
use super::bpf;
use super::bpf::program::Verified;
use super::capture::{Capture, Shared};
use crate::event::ids::SiteNo;
use crate::function::FunctionNo;
use crate::function::numbers::Numbers;
use crate::function::site::SiteKind;
use crate::platform::cpus;

/// Sizes of maps, which the kernel fills with zeroes at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most sites.
    pub sites: u32,
    /// Most ops of all sites together, the same code counted once.
    pub ops: u32,
    /// Most functions: each takes 40 bytes for every CPU that the host may have.
    pub functions: u32,
    /// Most links.
    pub links: u32,
}

impl Limits {
    /// What most need.
    pub const USUAL: Self =
        Self { sites: 1 << 17, ops: 1 << 18, functions: 1 << 14, links: 1 << 16 };
    /// The largest. Sites are numbered so far.
    pub const MOST: Self =
        Self { sites: 1 << PLACE_BITS, ops: 1 << 22, functions: 1 << 18, links: 1 << 16 };

    /// No less than these, and with room for so much more as there is need for, if that is not too much.
    #[must_use]
    pub fn with_room(self, need: Need) -> Self {
        let room = |is: u32, need: usize, most: u32| {
            let need = u32::try_from(need).unwrap_or(most).min(most);
            is.max(need.next_power_of_two())
        };
        Self {
            sites: room(self.sites, need.sites, Self::MOST.sites),
            ops: room(self.ops, need.ops, Self::MOST.ops),
            functions: room(self.functions, need.functions, Self::MOST.functions),
            links: self.links,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::USUAL
    }
}

/// What points take of [`Limits`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// How many there are.
    pub sites: usize,
    /// Their ops, the same code counted once.
    pub ops: usize,
    /// Their functions.
    pub functions: usize,
}

/// What [`FunctionProbes::attach`] has attached, to be detached together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkNo(u32);

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
    /// Of links.
    pub links: u32,
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
    /// Links that are being closed.
    closing: HashMap<LinkNo, SitesNo>,
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

/// Probes in one file that were attached together, and what is needed to attach them again.
#[derive(Debug)]
struct Link {
    fds: Vec<OwnedFd>,
    path: CString,
    tgid: Option<u32>,
    set: SitesNo,
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
    /// How many links have them, those included that are being closed.
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
        Ok(Self {
            links: HashMap::new(),
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
        let (set, sites) = self.write(points)?;
        match self.attach_set(set, file, tgid) {
            Ok((link, refused)) => Ok(Attached { link, set, sites, refused }),
            Err(error) => {
                self.free(set);
                Err(error)
            }
        }
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

    /// Attaches sites that were written; those that the kernel refuses are told once.
    pub fn attach_set(
        &mut self,
        set: SitesNo,
        file: &Path,
        tgid: Option<u32>,
    ) -> Result<(LinkNo, Vec<(usize, io::Error)>), FunctionError> {
        let path = CString::new(file.as_os_str().as_bytes()).map_err(FunctionError::Path)?;
        self.reap();
        let places = self.sets.get(&set).map(|set| Arc::clone(&set.places)).unwrap_or_default();
        self.has_room(places.len())?;
        // Seen by one thread only, a probe would lie; in all processes it slows those that share the file.
        let tgid = if self.test.sees_threads { tgid } else { None };
        let most = self.limits.links as usize;
        let number = self.numbers.take(1).ok_or(FunctionError::TooMany {
            what: "links",
            wanted: most + 1,
            most,
        })?;
        let link = LinkNo(number.start);
        let generation = 0;
        let linked = self
            .set_live(link, generation)
            .and_then(|()| self.link(link, &path, tgid, &places, generation));
        let linked = match linked {
            Ok(linked) => linked,
            Err(error) => {
                self.numbers.give_back(number);
                return Err(error);
            }
        };
        // What was refused once is not tried again.
        let places = if linked.refused.is_empty() {
            places
        } else {
            let refused: HashSet<usize> = linked.refused.iter().map(|(index, _)| *index).collect();
            let stay = places.iter().enumerate().filter(|(index, _)| !refused.contains(index));
            stay.map(|(_, place)| *place).collect()
        };
        if let Some(set) = self.sets.get_mut(&set) {
            set.places = Arc::clone(&places);
            set.links += 1;
        }
        let fds = linked.links;
        self.links.insert(link, Link { fds, path, tgid, set, places, generation });
        Ok((link, linked.refused))
    }

    /// Frees sites when their last link is closed; from then on other sites have their places.
    /// [`take_freed`](Self::take_freed) tells when that is.
    pub fn free(&mut self, set: SitesNo) {
        if let Some(known) = self.sets.get_mut(&set) {
            known.is_wanted = false;
            self.free_unused(set);
        }
    }

    /// Sites that were freed and that nothing hits any more.
    pub fn take_freed(&mut self) -> Vec<SitesNo> {
        self.reap();
        std::mem::take(&mut self.freed)
    }

    /// How many numbers are in use.
    pub fn in_use(&self) -> InUse {
        InUse { sites: self.sites.used(), links: self.numbers.used() }
    }

    /// Takes in which links are closed.
    fn reap(&mut self) {
        while let Some(link) = self.closer.closed() {
            self.gone(link);
        }
    }

    /// Nothing hits the probes of a link any more.
    fn gone(&mut self, link: LinkNo) {
        self.numbers.give_back(link.0..link.0 + 1);
        if let Some(set) = self.closing.remove(&link) {
            if let Some(known) = self.sets.get_mut(&set) {
                known.links -= 1;
            }
            self.free_unused(set);
        }
    }

    fn free_unused(&mut self, set: SitesNo) {
        if let Some(known) = self.sets.get(&set)
            && !known.is_wanted
            && known.links == 0
            && let Some(known) = self.sets.remove(&set)
        {
            self.sites.give_back(known.block);
            self.freed.push(set);
        }
    }

    /// Takes the probes of some functions out of all links of these sites, and of those to come.
    ///
    /// Takes as long as attaching what stays.
    pub fn take_out(
        &mut self,
        set: SitesNo,
        functions: &HashSet<FunctionNo>,
    ) -> Result<(), FunctionError> {
        let Some(known) = self.sets.get_mut(&set) else { return Ok(()) };
        let stays = |place: &&Place| !functions.contains(&place.function);
        known.places = known.places.iter().filter(stays).copied().collect();
        let links =
            self.links.iter().filter(|(_, link)| link.set == set).map(|(number, _)| *number);
        let links: Vec<LinkNo> = links.collect();
        let mut result = Ok(());
        for link in links {
            if let Err(error) = self.detach_functions(link, functions) {
                // Its process may have just ended. If not, no probe is better than one too many.
                self.detach(link);
                result = Err(error);
            }
        }
        result
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
        let places: Arc<[Place]> = known.places.iter().filter(stays).copied().collect();
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
            self.closer.close(Closing { links: old, ..Closing::default() });
        }
        Ok(())
    }

    fn has_room(&self, points: usize) -> Result<(), FunctionError> {
        let Some(most) = self.points_max() else { return Ok(()) };
        let there: usize = self.links.values().map(|link| link.places.len()).sum();
        within("probes (this kernel attaches them one by one)", there + points, most)
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

    /// Detaches what one [`attach`](Self::attach) has attached, soon: a thread does it. Nothing more of it
    /// is told from here on.
    pub fn detach(&mut self, link: LinkNo) {
        self.detach_before(link, None);
    }

    /// As [`detach`](Self::detach); `behind` is closed when the probes are gone.
    pub fn detach_before(&mut self, link: LinkNo, behind: Option<OwnedFd>) {
        if let Some(known) = self.links.remove(&link) {
            if let Err(error) = self.set_live(link, SILENT) {
                tracing::warn!(%error, "what is detached is told until it is gone");
            }
            self.closing.insert(link, known.set);
            self.closer.close(Closing { links: known.fds, last_of: Some(link), behind });
        }
    }

    /// Waits until everything that was detached is gone.
    pub fn wait_for_detached(&mut self) {
        while !self.closing.is_empty() {
            match self.closer.wait() {
                Some(link) => self.gone(link),
                // The thread is gone, and what it had with it.
                None => return,
            }
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
            cost_ns: self.test.costs.of(point.site.cost),
        }
    }
}

impl Drop for FunctionProbes {
    fn drop(&mut self) {
        // Dropped next, the closer waits until all of them are closed.
        for (_, link) in self.links.drain() {
            self.closer.close(Closing { links: link.fds, ..Closing::default() });
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
