//! Probes the functions that the user asks for, in each process as it begins to be traced: which processes
//! run which files, and what is attached where for how long.
//!
//! A file is probed while a process runs it, and no longer: with none, it may be written anew, and a probe
//! would then stand anywhere. What was found in it is remembered for a while, with its numbers.

mod budget;
mod file;
mod lease;
mod numbered;

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use budget::Watch;
use file::{Content, File};
pub(crate) use file::{FileId, Mapped, Version, mapped};
use lease::Lease;
use numbered::Numbered;

use super::exceptions::Cold;
use super::planner::{self, Answer, Found, Planner};
use super::tracepoints::TracepointGlobs;
use crate::discover::maps::file_name;
use crate::event::Hit;
use crate::event::ids::{SiteNo, Tgid};
use crate::function::FunctionNo;
use crate::function::numbers::Numbers;
use crate::function::pattern::Patterns;
use crate::function::plan::ModulePlan;
use crate::inspect::runtime::Goroutines;
use crate::pipeline::Step;
use crate::platform::clock::{self, MonoNs};
use crate::probe::function::selftest::{self, SelfTest, SelfTestError};
use crate::probe::function::{FunctionError, FunctionProbes, InUse, Limits, LinkNo, Need, SitesNo};
use crate::probe::{Capture, CaptureError, Selection};

/// How many functions a message names.
const NAMED: usize = 5;

/// Most files that are remembered though no process runs them, and most that is probed of all of them.
const RESTING_MAX: usize = 64;
const RESTING_NUMBERS_MAX: u32 = 1 << 14;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Which functions.
    pub patterns: Patterns,
    /// What probes may cost a process, nanoseconds a second; 0: anything.
    pub budget_ns: u64,
    /// Whether exceptions are told.
    pub exceptions: bool,
    /// Which static tracepoints.
    pub tracepoints: TracepointGlobs,
}

impl Wishes {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty() && !self.exceptions && self.tracepoints.is_empty()
    }
}

/// Why functions cannot be probed.
#[derive(Debug, thiserror::Error)]
pub enum FunctionsError {
    /// The kernel does not take the probes.
    #[error(transparent)]
    Probe(#[from] FunctionError),
    /// The kernel half did not take a selection.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// This kernel's probes change what programs do.
    #[error("functions are not probed on this kernel: a trial on a child of our own went wrong")]
    Forbidden(#[source] SelfTestError),
    /// No thread to look for functions.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

/// The probed functions.
pub(super) struct Functions {
    wishes: Wishes,
    probes: FunctionProbes,
    trust: SelfTest,
    planner: Planner,
    files: HashMap<FileId, File>,
    /// Files that lost their last process and are not put to rest yet: a child may be about to come.
    left: Vec<FileId>,
    /// Files without a process, the one longest so first.
    resting: VecDeque<FileId>,
    /// Of functions, hooks and tracepoints.
    numbers: Numbers,
    /// Numbers that are free when the probes of these sites are gone.
    leaving: HashMap<SitesNo, std::ops::Range<u32>>,
    /// Hooks of which hits may lack something, by their sites.
    cold: HashMap<SiteNo, (SitesNo, Cold), foldhash::fast::RandomState>,
    /// Processes that are probed.
    processes: HashMap<Tgid, Process>,
    watch: Watch,
}

/// A process that is probed.
struct Process {
    is_followed: bool,
    goroutines: Option<Goroutines>,
    /// The files that it was seen to run code of.
    seen: HashSet<FileId>,
    /// What is attached in it alone.
    links: Vec<(FileId, LinkNo)>,
    /// When it is looked for more files, and how often that has been done.
    due: MonoNs,
    looks: usize,
}

impl Process {
    fn new(is_followed: bool, goroutines: Option<Goroutines>) -> Self {
        let (seen, links) = (HashSet::new(), Vec::new());
        let mut process =
            Self { is_followed, goroutines, seen, links, due: clock::now(), looks: 0 };
        process.rest(clock::now());
        process
    }

    /// Libraries come while a program starts, and seldom later.
    fn rest(&mut self, now: MonoNs) {
        const RESTS_MS: [u64; 4] = [200, 1_000, 5_000, 30_000];
        let rest = RESTS_MS.get(self.looks).or(RESTS_MS.last()).copied().unwrap_or_default();
        self.due = MonoNs(now.0 + rest * 1_000_000);
        self.looks += 1;
    }
}

/// A process that is probed in a file when it is known what there is in it.
struct Waiting {
    tgid: Tgid,
    module: Mapped,
    reach: Reach,
}

/// Where the probes of a file go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Into every process that maps it: few do that are not traced.
    Everywhere,
    /// Into one process.
    Alone,
}

impl Functions {
    /// Loads what probes need; `None` if nothing is asked for.
    pub(super) fn start(wishes: Wishes, capture: &Capture) -> Result<Option<Self>, FunctionsError> {
        if wishes.is_empty() {
            return Ok(None);
        }
        let trust = match selftest::run_beside(capture) {
            Ok(trust) => trust,
            Err(error) if error.forbids() => return Err(FunctionsError::Forbidden(error)),
            Err(error) => {
                tracing::warn!(%error, "function probes could not be tried; assuming that they are dear");
                SelfTest::ASSUMED
            }
        };
        tracing::info!(?trust, "function probes tried");
        let limits = Limits::default();
        let mut probes = FunctionProbes::load(capture, limits, &trust)?;
        probes.set_default_budget(wishes.budget_ns)?;
        let planner = Planner::start(wishes.clone()).map_err(FunctionsError::Thread)?;
        Ok(Some(Self {
            watch: Watch::new(wishes.budget_ns),
            wishes,
            probes,
            trust,
            planner,
            files: HashMap::new(),
            left: Vec::new(),
            resting: VecDeque::new(),
            numbers: Numbers::below(limits.functions),
            leaving: HashMap::new(),
            cold: HashMap::default(),
            processes: HashMap::new(),
        }))
    }

    /// How many functions are probed, those of remembered files included.
    pub(super) fn len(&self) -> usize {
        self.watch.len() - self.tracepoints() - self.exceptions()
    }

    /// At how many places exceptions are watched; `None` if that is not asked for.
    pub(super) fn hooks(&self) -> Option<usize> {
        self.wishes.exceptions.then(|| self.exceptions())
    }

    fn exceptions(&self) -> usize {
        let numbered = self.files.values().filter_map(|file| file.numbered.as_ref());
        let hooks = numbered.flat_map(Numbered::hooks);
        hooks.filter(|number| self.watch.has(FunctionNo(*number))).count()
    }

    /// How many static tracepoints are probed.
    pub(super) fn tracepoints(&self) -> usize {
        let numbered = self.files.values().filter_map(|file| file.numbered.as_ref());
        let tracepoints = numbered.flat_map(Numbered::tracepoints);
        tracepoints.filter(|number| self.watch.has(FunctionNo(*number))).count()
    }

    /// How many numbers are in use: functions', sites' and links'.
    pub(super) fn in_use(&self) -> (u32, InUse) {
        (self.numbers.used(), self.probes.in_use())
    }

    /// Patterns of which nothing was found.
    pub(super) fn unmatched(&self) -> Vec<&str> {
        let found = self.files.values().filter_map(|file| match &file.content {
            Content::Found(found) => Some(&found.plan.functions),
            _ => None,
        });
        let found: HashSet<&str> =
            found.flatten().map(|function| function.pattern.text()).collect();
        self.wishes.patterns.texts().filter(|text| !found.contains(text)).collect()
    }

    /// Probes the program that a held process is about to become.
    pub(super) fn command(
        &mut self,
        program: &Path,
        tgid: Tgid,
        selection: &mut Selection,
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Result<(), FunctionsError> {
        let Some(id) = FileId::of(program) else { return Ok(()) };
        let goroutines = crate::inspect::runtime::go(program).and_then(|go| go.goroutines);
        let module =
            Mapped { id, open: program.to_owned(), name: file_name(program), is_executable: true };
        // What it runs until then is none of its own.
        let process = Process { due: MonoNs(u64::MAX), ..Process::new(true, goroutines) };
        self.processes.insert(tgid, process);
        selection.select_next_functions(tgid.0)?;
        self.module(tgid, module, PathBuf::from("/"), Reach::Everywhere, announce);
        self.wait(announce);
        Ok(())
    }

    /// Probes a process that has begun to be traced.
    pub(super) fn process(
        &mut self,
        tgid: Tgid,
        is_followed: bool,
        goroutines: Option<Goroutines>,
        selection: &mut Selection,
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Result<(), FunctionsError> {
        // A program that it was before has taken its probes along.
        let before = self.processes.insert(tgid, Process::new(is_followed, goroutines));
        if let Some(before) = &before {
            self.detach(&before.links);
        }
        self.modules(tgid, announce);
        if let Some(before) = before {
            self.leave(tgid, before.seen);
        }
        Ok(selection.select_functions(tgid.0)?)
    }

    /// Probes the files that processes have begun to run code of since they were looked at last.
    pub(super) fn look_again(&mut self, now: MonoNs, announce: &mut dyn FnMut(&Step<'_>)) {
        let due = self.processes.iter().filter(|(_, process)| process.due <= now);
        let due: Vec<Tgid> = due.map(|(tgid, _)| *tgid).collect();
        for tgid in due {
            if let Some(process) = self.processes.get_mut(&tgid) {
                process.rest(now);
            }
            self.modules(tgid, announce);
        }
    }

    /// Probes the files that a process runs code of and was not seen to before.
    fn modules(&mut self, tgid: Tgid, announce: &mut dyn FnMut(&Step<'_>)) {
        let root = PathBuf::from(format!("/proc/{}/root", tgid.0));
        for module in mapped(tgid) {
            let Some(process) = self.processes.get(&tgid) else { return };
            if process.seen.contains(&module.id) {
                continue;
            }
            let everywhere =
                module.is_executable && process.is_followed || !self.trust.sees_threads;
            let reach = if everywhere { Reach::Everywhere } else { Reach::Alone };
            self.module(tgid, module, root.clone(), reach, announce);
        }
    }

    /// A process has ended.
    pub(super) fn forget(&mut self, tgid: Tgid) {
        if let Some(process) = self.processes.remove(&tgid) {
            self.detach(&process.links);
            self.leave(tgid, process.seen);
        }
    }

    fn detach(&mut self, links: &[(FileId, LinkNo)]) {
        for (_, link) in links {
            self.probes.detach(*link);
        }
    }

    /// A process does not run these files any more, but for those that it was seen to run since.
    fn leave(&mut self, tgid: Tgid, files: HashSet<FileId>) {
        let process = self.processes.get(&tgid);
        for id in files {
            if process.is_some_and(|process| process.seen.contains(&id)) {
                continue;
            }
            if let Some(file) = self.files.get_mut(&id)
                && file.users.remove(&tgid)
                && file.users.is_empty()
            {
                self.left.push(id);
            }
        }
    }

    /// Probes what has been found meanwhile, and takes the probes away that nobody runs into any more.
    pub(super) fn go_on(&mut self, announce: &mut dyn FnMut(&Step<'_>)) {
        while let Some(answer) = self.planner.answer() {
            self.found(answer, announce);
        }
        for id in std::mem::take(&mut self.left) {
            self.rest(id);
        }
        self.give_back_numbers();
    }

    /// Probes everything that was asked for up to here.
    pub(super) fn wait(&mut self, announce: &mut dyn FnMut(&Step<'_>)) {
        let mut answers = Vec::new();
        while let Some(answer) = self.planner.wait() {
            answers.push(answer);
        }
        let found = answers.iter().filter_map(|answer| answer.found.as_ref().ok());
        self.grow(numbered::need(found));
        for answer in answers {
            self.found(answer, announce);
        }
    }

    /// Makes room for so much, if nothing is numbered yet; whether it did.
    fn grow(&mut self, need: Need) -> bool {
        let limits = self.probes.limits().with_room(need);
        if self.numbers.used() > 0 {
            return false;
        }
        let grown = self.probes.grow(limits).and_then(|grown| {
            self.probes.set_default_budget(self.wishes.budget_ns)?;
            Ok(grown)
        });
        match grown {
            Ok(true) => {
                tracing::info!(?limits, "room for more functions");
                self.numbers = Numbers::below(limits.functions);
                true
            }
            Ok(false) => false,
            Err(error) => {
                tracing::warn!(%error, "no room for more functions");
                false
            }
        }
    }

    /// Probes a file in a process, at once if it is known what there is in it.
    fn module(
        &mut self,
        tgid: Tgid,
        module: Mapped,
        root: PathBuf,
        reach: Reach,
        announce: &mut dyn FnMut(&Step<'_>),
    ) {
        let Some(process) = self.processes.get_mut(&tgid) else { return };
        process.seen.insert(module.id);
        let goroutines = process.goroutines;
        if !planner::concern(&self.wishes, &module) {
            return;
        }
        // Its process may have ended.
        let Ok(open) = std::fs::File::open(&module.open) else { return };
        let Ok(metadata) = open.metadata() else { return };
        let version = Version::from(&metadata);
        let known = self.files.get(&module.id);
        if known.is_some_and(|file| file.users.is_empty() && file.version != version) {
            // It is another one by now. As long as one probe of the old one is there, the kernel would go on
            // with the old one's instructions.
            self.drop_file(module.id);
            self.probes.wait_for_detached();
        }
        let file = self.files.entry(module.id).or_insert_with(|| {
            self.planner.ask(&module, open, version, root, goroutines.is_some());
            let content = Content::Unknown(Vec::new());
            File { version, content, numbered: None, users: HashSet::new(), everywhere: None }
        });
        if file.users.is_empty() {
            self.resting.retain(|resting| *resting != module.id);
        }
        file.users.insert(tgid);
        match &mut file.content {
            Content::Unknown(waiting) => waiting.push(Waiting { tgid, module, reach }),
            Content::Nothing => {}
            Content::Found(found) => {
                let found = Arc::clone(found);
                self.attach(&found, tgid, &module, reach, announce);
            }
        }
    }

    /// What there is in a file is known: probes it wherever that was waited for.
    fn found(
        &mut self,
        Answer { module, version, found }: Answer,
        announce: &mut dyn FnMut(&Step<'_>),
    ) {
        let Some(file) = self.files.get_mut(&module.id) else { return };
        let Content::Unknown(waiting) = &mut file.content else { return };
        if file.version != version {
            // What has the file's identity by now was asked about, too.
            return;
        }
        let waiting = std::mem::take(waiting);
        let found = match found {
            Ok(found) => Arc::new(found),
            Err(error) => {
                tracing::warn!(module = module.name, %error, "cannot look for functions");
                file.content = Content::Nothing;
                return;
            }
        };
        if let Some(error) = &found.unlisted {
            tracing::warn!(module = module.name, %error, "cannot look for functions");
        }
        tell_refused(&module, &found.plan);
        file.content = match numbered::count(&found) {
            0 => Content::Nothing,
            _ => Content::Found(Arc::clone(&found)),
        };
        for Waiting { tgid, module, reach } in waiting {
            let process = self.processes.get(&tgid);
            if process.is_some_and(|process| process.seen.contains(&module.id)) {
                self.attach(&found, tgid, &module, reach, announce);
            }
        }
    }

    /// Attaches what was found in a file for a process that runs it. That it cannot be is no reason to end
    /// all: the process may be gone, or there are too many.
    fn attach(
        &mut self,
        found: &Arc<Found>,
        tgid: Tgid,
        module: &Mapped,
        reach: Reach,
        announce: &mut dyn FnMut(&Step<'_>),
    ) {
        let name = &module.name;
        let Some(file) = self.files.get(&module.id) else { return };
        if file.everywhere.is_some() || numbered::count(found) == 0 {
            return;
        }
        if Version::of(&module.open) != Some(file.version) {
            // Unless it is only gone with its process.
            if module.open.exists() {
                tracing::warn!(module = name, "not probed: the file has changed while it runs");
            }
            return;
        }
        let goroutines = self.processes.get(&tgid).and_then(|process| process.goroutines);
        let sites = match self.sites(found, module, goroutines, announce) {
            Ok(sites) => sites,
            Err(error) => {
                tracing::warn!(module = name, %error, "functions are not probed");
                return;
            }
        };
        let lease = match reach {
            Reach::Everywhere => std::fs::File::open(&module.open).and_then(Lease::take),
            Reach::Alone => Err(std::io::ErrorKind::Unsupported.into()),
        };
        let (lease, scope) = match lease {
            Ok(lease) => {
                // What is told of all is not to be told of some twice.
                self.detach_alone(module.id);
                (Some(lease), None)
            }
            // On these kernels every probe is one of all processes.
            Err(error) if !self.trust.sees_threads => {
                tracing::warn!(module = name, %error, "not probed: the file may be written while it is");
                return;
            }
            Err(error) => {
                tracing::debug!(module = name, %error, "each process has probes of its own");
                (None, Some(tgid.0))
            }
        };
        let (link, refused) = match self.probes.attach_set(sites, &module.open, scope) {
            Ok(attached) => attached,
            Err(error) => {
                tracing::warn!(module = name, %error, "functions are not probed");
                return;
            }
        };
        for (index, error) in refused {
            tracing::warn!(module = name, probe = index, %error, "the kernel refuses a probe");
        }
        let numbered = self.files.get(&module.id).and_then(|file| file.numbered.as_ref());
        if let Some(numbered) = numbered {
            self.watch.add(numbered.numbers.clone());
        }
        match (lease, self.processes.get_mut(&tgid), self.files.get_mut(&module.id)) {
            (Some(lease), _, Some(file)) => file.everywhere = Some((link, lease)),
            (None, Some(process), _) => process.links.push((module.id, link)),
            // Not reached: both are there above.
            _ => self.probes.detach(link),
        }
        tracing::info!(
            module = name,
            pid = tgid.0,
            functions = found.plan.functions.len(),
            "functions are probed"
        );
    }

    fn detach_alone(&mut self, id: FileId) {
        for process in self.processes.values_mut() {
            for (_, link) in process.links.extract_if(.., |(file, _)| *file == id) {
                self.probes.detach(link);
            }
        }
    }

    /// The sites of a file, which have their numbers from when they are attached first until the file is
    /// forgotten.
    fn sites(
        &mut self,
        found: &Arc<Found>,
        module: &Mapped,
        goroutines: Option<Goroutines>,
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Result<SitesNo, FunctionError> {
        let numbered = self.files.get(&module.id).and_then(|file| file.numbered.as_ref());
        if let Some(numbered) = numbered {
            return Ok(numbered.sites);
        }
        let (numbers, sites, written) = loop {
            self.give_back_numbers();
            let error = match self.number(found, goroutines) {
                Ok(numbered) => break numbered,
                Err(error) => error,
            };
            // A file that nobody runs makes room.
            match self.resting.front().copied() {
                Some(oldest) => self.drop_file(oldest),
                None if self.grow(numbered::need(std::iter::once(&**found))) => {}
                None => return Err(error),
            }
        };
        numbered::announce(found, numbers.start, &module.name, &written, announce);
        self.cold.extend(numbered::cold(found, module.id, sites, &written));
        if let Some(file) = self.files.get_mut(&module.id) {
            file.numbered = Some(Numbered { found: Arc::clone(found), numbers, sites });
        }
        Ok(sites)
    }

    fn number(
        &mut self,
        found: &Found,
        goroutines: Option<Goroutines>,
    ) -> Result<(std::ops::Range<u32>, SitesNo, Vec<SiteNo>), FunctionError> {
        let count = numbered::count(found);
        let numbers = self.numbers.take(count).ok_or_else(|| FunctionError::TooMany {
            what: "functions",
            wanted: self.numbers.used() as usize + count,
            most: self.numbers.most() as usize,
        })?;
        let (points, rates) = numbered::points(found, numbers.start, goroutines);
        let written = self.probes.write(&points).and_then(|(sites, written)| {
            for (number, rate) in rates {
                if let Err(error) = self.probes.set_rate(number, rate) {
                    self.probes.free(sites);
                    return Err(error);
                }
            }
            Ok((numbers.clone(), sites, written))
        });
        if written.is_err() {
            self.numbers.give_back(numbers);
        }
        written
    }

    /// Takes the probes of a file away, unless a process runs it.
    fn rest(&mut self, id: FileId) {
        let Some(file) = self.files.get_mut(&id).filter(|file| file.users.is_empty()) else {
            return;
        };
        if let Some((link, lease)) = file.everywhere.take() {
            self.probes.detach_before(link, Some(lease.into_file().into()));
        }
        self.resting.retain(|resting| *resting != id);
        self.resting.push_back(id);
        let numbers = |id: &FileId| {
            let numbered = self.files.get(id).and_then(|file| file.numbered.as_ref());
            numbered.map_or(0, |numbered| numbered.numbers.len() as u32)
        };
        let mut sum: u32 = self.resting.iter().map(numbers).sum();
        let mut excess = 0;
        for (index, resting) in self.resting.iter().enumerate() {
            if sum <= RESTING_NUMBERS_MAX && self.resting.len() - index <= RESTING_MAX {
                break;
            }
            sum -= numbers(resting);
            excess = index + 1;
        }
        let oldest: Vec<FileId> = self.resting.iter().take(excess).copied().collect();
        oldest.into_iter().for_each(|id| self.drop_file(id));
    }

    /// A hit's record with what it lacks, if it lacks something that can be read now.
    pub(super) fn complete(&self, record: &[u8], hit: &Hit<'_>) -> Option<Vec<u8>> {
        let (_, cold) = self.cold.get(&hit.site)?;
        cold.complete(record, hit)
    }

    /// Takes the probes out of the files that somebody wants to write: no process runs them any more, though
    /// that may not have been told yet.
    pub(super) fn give_up_leases(&mut self) {
        for file in self.files.values_mut() {
            if let Some((link, lease)) = file.everywhere.take_if(|(_, lease)| lease.is_wanted()) {
                self.probes.detach_before(link, Some(lease.into_file().into()));
            }
        }
    }

    /// Forgets a file that no process runs.
    fn drop_file(&mut self, id: FileId) {
        self.resting.retain(|resting| *resting != id);
        let Some(file) = self.files.remove(&id) else { return };
        if let Some((link, lease)) = file.everywhere {
            self.probes.detach_before(link, Some(lease.into_file().into()));
        }
        if let Some(numbered) = file.numbered {
            self.cold.retain(|_, (sites, _)| *sites != numbered.sites);
            self.leaving.insert(numbered.sites, numbered.numbers);
            self.probes.free(numbered.sites);
        }
    }

    /// Numbers of which the last probe is gone may be given to others.
    fn give_back_numbers(&mut self) {
        for sites in self.probes.take_freed() {
            let Some(numbers) = self.leaving.remove(&sites) else { continue };
            if let Err(error) = self.watch.forget(numbers.clone(), &mut self.probes) {
                tracing::warn!(%error, "numbers of functions are not used again");
                continue;
            }
            self.numbers.give_back(numbers);
        }
    }
}

/// Says which functions match but are not probed.
fn tell_refused(module: &Mapped, plan: &ModulePlan) {
    for refused in &plan.refused {
        let (function, reason) = (&refused.name, &refused.reason);
        tracing::info!(module = module.name, %function, %reason, "function is not probed");
    }
    if !plan.refused.is_empty() {
        tracing::warn!(
            module = module.name,
            functions = plan.refused.len(),
            "not probed (`remora functions` says why): {}",
            list(plan.refused.iter().map(|refused| refused.name.as_str()))
        );
    }
}

/// The first of some names, and how many there are beyond.
fn list<'a>(mut names: impl Iterator<Item = &'a str>) -> String {
    let mut text = names.by_ref().take(NAMED).collect::<Vec<_>>().join(", ");
    let more = names.count();
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}
