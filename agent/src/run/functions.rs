//! Probes the functions that the user asks for, in each process as it begins to be traced.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::exceptions;
use super::planner::{Answer, Planner};
use super::tracepoints::{TracepointGlobs, Tracepoints};
use crate::event::ids::Tgid;
use crate::function::FunctionNo;
use crate::function::exception::{Hook, RATE_PER_SECOND};
use crate::function::facts::{FunctionFacts, Role, SiteFacts};
use crate::function::pattern::Patterns;
use crate::function::plan::{Code, ModulePlan, Planned};
use crate::function::site::SiteKind;
use crate::inspect::runtime::Goroutines;
use crate::pipeline::Step;
use crate::platform::clock::{self, MonoNs};
use crate::probe::function::budget::{Look, Spent, Throttle, TooDear};
use crate::probe::function::selftest::{self, SelfTest, SelfTestError};
use crate::probe::function::{
    FunctionCounters, FunctionError, FunctionProbes, Limits, LinkNo, Point,
};
use crate::probe::{Capture, CaptureError, Selection};

/// How often costs are looked at, while there are no more than [`LOOKS`] functions.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOKS: u32 = 2000;

/// How many functions a message names.
const NAMED: usize = 5;

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

/// A file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Of what a path leads to.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// The probed functions.
pub(super) struct Functions {
    wishes: Wishes,
    tracepoints: Tracepoints,
    probes: FunctionProbes,
    trust: SelfTest,
    next: u32,
    /// What is probed in each file that was looked at, with the functions' numbers.
    plans: HashMap<FileId, Arc<Numbered>>,
    planner: Planner,
    /// Processes that wait until it is known what there is in a file.
    waiting: Vec<Waiting>,
    /// Files that are probed in every process that runs them.
    everywhere: HashMap<FileId, LinkNo>,
    /// What is probed in one process alone.
    links: HashMap<Tgid, Vec<LinkNo>>,
    /// A link of such a process by its file: others get the same probes, under the same numbers, of which
    /// there are only so many.
    models: HashMap<FileId, LinkNo>,
    probed: HashSet<u32>,
    /// Processes that are probed.
    processes: HashMap<Tgid, Process>,
    throttle: Throttle,
    /// When costs were looked at last, and what they were then.
    looked: MonoNs,
    costs: HashMap<u32, u64>,
    /// Functions that were detached because they cost too much. They do not come back.
    gone: HashSet<u32>,
}

/// A process that is probed.
struct Process {
    is_followed: bool,
    goroutines: Option<Goroutines>,
    /// The files that it was seen to run code of.
    seen: HashSet<FileId>,
    /// When it is looked for more of them, and how often that has been done.
    due: MonoNs,
    looks: usize,
}

impl Process {
    fn new(is_followed: bool, goroutines: Option<Goroutines>) -> Self {
        let mut process =
            Self { is_followed, goroutines, seen: HashSet::new(), due: clock::now(), looks: 0 };
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

/// A process that waits for what there is in a file.
struct Waiting {
    module: Mapped,
    scope: Option<Tgid>,
    goroutines: Option<Goroutines>,
}

struct Numbered {
    name: String,
    plan: ModulePlan,
    /// Where its exceptions are raised.
    hooks: Vec<Hook>,
    first: u32,
}

impl Numbered {
    fn functions(&self) -> impl Iterator<Item = (u32, &Planned)> {
        (self.first..).zip(&self.plan.functions)
    }

    /// They are numbered behind the functions.
    fn hooks(&self) -> impl Iterator<Item = (u32, &Hook)> {
        (self.first + self.plan.functions.len() as u32..).zip(&self.hooks)
    }

    fn numbers(&self) -> std::ops::Range<u32> {
        self.first..self.first + (self.plan.functions.len() + self.hooks.len()) as u32
    }
}

/// A file that a process runs code of.
#[derive(Clone)]
pub(crate) struct Mapped {
    pub(super) id: FileId,
    /// How it is opened, whatever has become of its name.
    pub(crate) open: PathBuf,
    /// Its file name.
    pub(crate) name: String,
    pub(crate) is_executable: bool,
}

impl Functions {
    /// Loads what probes need; `None` if nothing is asked for.
    pub(super) fn start(wishes: Wishes, capture: &Capture) -> Result<Option<Self>, FunctionsError> {
        if wishes.patterns.is_empty() && !wishes.exceptions && wishes.tracepoints.is_empty() {
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
        let mut probes = FunctionProbes::load(capture, Limits::default(), &trust)?;
        probes.set_default_budget(wishes.budget_ns)?;
        let planner = Planner::start(wishes.patterns.clone(), wishes.exceptions);
        let planner = planner.map_err(FunctionsError::Thread)?;
        Ok(Some(Self {
            tracepoints: Tracepoints::new(wishes.tracepoints.clone()),
            wishes,
            planner,
            waiting: Vec::new(),
            probes,
            trust,
            next: 0,
            plans: HashMap::new(),
            everywhere: HashMap::new(),
            links: HashMap::new(),
            models: HashMap::new(),
            probed: HashSet::new(),
            processes: HashMap::new(),
            throttle: Throttle::new(0.0),
            looked: clock::now(),
            costs: HashMap::new(),
            gone: HashSet::new(),
        }))
    }

    /// How many functions are probed.
    pub(super) fn len(&self) -> usize {
        self.probed.len()
    }

    /// How many static tracepoints are probed.
    pub(super) fn tracepoints(&self) -> usize {
        self.tracepoints.probed
    }

    /// Patterns of which nothing was found.
    pub(super) fn unmatched(&self) -> Vec<&str> {
        let found: HashSet<&str> = self
            .plans
            .values()
            .flat_map(|numbered| &numbered.plan.functions)
            .map(|function| function.pattern.text())
            .collect();
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
        self.module(module, PathBuf::from("/"), None, goroutines, announce)?;
        self.wait(announce)
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
        self.forget(tgid);
        self.processes.insert(tgid, Process::new(is_followed, goroutines));
        self.modules(tgid, announce)?;
        Ok(selection.select_functions(tgid.0)?)
    }

    /// Probes the files that processes have begun to run code of since they were looked at last.
    pub(super) fn look_again(
        &mut self,
        now: MonoNs,
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Result<(), FunctionsError> {
        let due = self.processes.iter().filter(|(_, process)| process.due <= now);
        let due: Vec<Tgid> = due.map(|(tgid, _)| *tgid).collect();
        for tgid in due {
            if let Some(process) = self.processes.get_mut(&tgid) {
                process.rest(now);
            }
            self.modules(tgid, announce)?;
        }
        Ok(())
    }

    /// Probes the files that a process runs code of and was not seen to before.
    fn modules(
        &mut self,
        tgid: Tgid,
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Result<(), FunctionsError> {
        let root = PathBuf::from(format!("/proc/{}/root", tgid.0));
        for module in mapped(tgid) {
            let Some(process) = self.processes.get_mut(&tgid) else { return Ok(()) };
            if !process.seen.insert(module.id) {
                continue;
            }
            let goroutines = process.goroutines;
            let alone = !(module.is_executable && process.is_followed) && self.trust.sees_threads;
            let scope = alone.then_some(tgid);
            self.module(module, root.clone(), scope, goroutines, announce)?;
        }
        Ok(())
    }

    /// A process has ended, or its program has.
    pub(super) fn forget(&mut self, tgid: Tgid) {
        self.processes.remove(&tgid);
        self.waiting.retain(|waiting| waiting.scope != Some(tgid));
        for link in self.links.remove(&tgid).unwrap_or_default() {
            self.probes.detach(link);
        }
    }

    /// How many functions were detached because they cost too much.
    pub(super) fn detached(&self) -> u64 {
        self.gone.len() as u64
    }

    /// Takes away the probes of functions whose calls cost their targets more than they may.
    pub(super) fn keep_to_budget(&mut self, now: MonoNs) -> Result<(), FunctionsError> {
        if self.wishes.budget_ns == 0 || self.probed.is_empty() {
            return Ok(());
        }
        let alarm = self.probes.take_alarm()?;
        let since = self.looked.max(alarm.unwrap_or_default());
        let interval = Duration::from_nanos(now.since(since));
        // A look reads what every CPU has counted for every function.
        let rest = LOOK_EVERY * (1 + self.probed.len() as u32 / LOOKS);
        let look = if alarm.is_some() { Look::Alarmed } else { Look::Due };
        if look == Look::Due && interval < rest {
            return Ok(());
        }
        self.looked = now;
        let counters = self.probes.all_counters(self.next)?;
        let mut spent = Vec::with_capacity(self.probed.len());
        for number in &self.probed {
            let cost_ns = counters.get(*number as usize).map_or(0, |counters| counters.cost_ns);
            let before = self.costs.insert(*number, cost_ns).unwrap_or(0);
            let cost_ns = cost_ns.saturating_sub(before);
            spent.push(Spent { function: FunctionNo(*number), cost_ns });
        }
        if self.processes.is_empty() {
            // It was spent by who has ended.
            return Ok(());
        }
        self.throttle.limit(self.wishes.budget_ns.saturating_mul(self.processes.len() as u64));
        let dear = self.throttle.decide(look, interval, &spent);
        if dear.is_empty() {
            return Ok(());
        }
        let gone: HashSet<FunctionNo> = dear.iter().map(|dear| dear.function).collect();
        for link in self.everywhere.values().chain(self.links.values().flatten()) {
            if let Err(error) = self.probes.detach_functions(*link, &gone) {
                // Its process may have just ended. If not, no probe is better than one too many.
                tracing::warn!(%error, "all of these functions are detached, to be within the budget");
                self.probes.detach(*link);
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
            self.probed.remove(&function.0);
            self.gone.insert(function.0);
        }
        Ok(())
    }

    /// What all probes have counted so far, those that were detached included.
    pub(super) fn counters(&self) -> Result<FunctionCounters, FunctionsError> {
        let mut sum = FunctionCounters::default();
        for (number, counters) in (0..).zip(self.probes.all_counters(self.next)?) {
            if self.probed.contains(&number) || self.gone.contains(&number) {
                sum += counters;
            }
        }
        Ok(sum)
    }

    fn name(&self, FunctionNo(number): FunctionNo) -> Option<&str> {
        self.plans.values().find_map(|numbered| {
            let index = number.checked_sub(numbered.first)?;
            Some(numbered.plan.functions.get(index as usize)?.name.as_str())
        })
    }

    /// Probes what has been found meanwhile.
    pub(super) fn go_on(
        &mut self,
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Result<(), FunctionsError> {
        while let Some(answer) = self.planner.answer() {
            self.found(answer, announce)?;
        }
        Ok(())
    }

    /// Probes everything that was asked for up to here.
    pub(super) fn wait(
        &mut self,
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Result<(), FunctionsError> {
        while let Some(answer) = self.planner.wait() {
            self.found(answer, announce)?;
        }
        Ok(())
    }

    /// Probes a file in a process, at once if it is known what there is in it.
    fn module(
        &mut self,
        module: Mapped,
        root: PathBuf,
        scope: Option<Tgid>,
        goroutines: Option<Goroutines>,
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Result<(), FunctionsError> {
        let link =
            self.tracepoints.attach(&module, scope, &mut self.next, &mut self.probes, announce);
        if let (Some(link), Some(tgid)) = (link, scope) {
            self.links.entry(tgid).or_default().push(link);
        }
        let has_functions = self.wishes.patterns.concern(&module.name, module.is_executable);
        let has_hooks = self.wishes.exceptions && exceptions::concern(&module);
        if !has_functions && !has_hooks {
            return Ok(());
        }
        match self.plans.get(&module.id) {
            Some(numbered) => {
                let numbered = Arc::clone(numbered);
                self.attach(&numbered, &module, scope, goroutines, announce)
            }
            None => {
                self.planner.ask(&module, root, goroutines.is_some());
                self.waiting.push(Waiting { module, scope, goroutines });
                Ok(())
            }
        }
    }

    /// What there is in a file is known: probes it wherever that was waited for.
    fn found(
        &mut self,
        Answer { module, plan, hooks }: Answer,
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Result<(), FunctionsError> {
        let id = module.id;
        let waiting = self.waiting.extract_if(.., |waiting| waiting.module.id == id);
        let waiting: Vec<Waiting> = waiting.collect();
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => {
                tracing::warn!(module = module.name, %error, "cannot look for functions");
                return Ok(());
            }
        };
        tell_refused(&module, &plan);
        let first = self.next;
        let numbered = Arc::new(Numbered { name: module.name, plan, hooks, first });
        self.next = numbered.numbers().end;
        self.plans.insert(id, Arc::clone(&numbered));
        for Waiting { module, scope, goroutines } in waiting {
            self.attach(&numbered, &module, scope, goroutines, announce)?;
        }
        Ok(())
    }

    fn attach(
        &mut self,
        numbered: &Numbered,
        module: &Mapped,
        scope: Option<Tgid>,
        goroutines: Option<Goroutines>,
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Result<(), FunctionsError> {
        if self.everywhere.contains_key(&module.id) {
            return Ok(());
        }
        if let Some(tgid) = scope
            && let Some(model) = self.models.get(&module.id)
        {
            // Gone, or its file cannot be reached any more: a new one is made.
            if let Ok(Some(link)) = self.probes.attach_to(*model, tgid.0) {
                self.links.entry(tgid).or_default().push(link);
                exceptions::touch(tgid, module, &numbered.hooks);
                return Ok(());
            }
            self.models.remove(&module.id);
        }
        let functions = || numbered.functions().filter(|(number, _)| !self.gone.contains(number));
        let mut points = Vec::new();
        for (number, function) in functions() {
            points.extend(Point::all_of(function, FunctionNo(number), goroutines));
        }
        let hooks = || numbered.hooks().filter(|(number, _)| !self.gone.contains(number));
        points.extend(hooks().map(|(number, hook)| exceptions::point(number, hook, goroutines)));
        if points.is_empty() {
            return Ok(());
        }
        let attached = match self.probes.attach(&module.open, scope.map(|tgid| tgid.0), &points) {
            Ok(attached) => attached,
            // The process may be gone, or there are too many: no reason to end all.
            Err(error) => {
                tracing::warn!(module = module.name, %error, "functions are not probed");
                return Ok(());
            }
        };
        for (index, error) in &attached.refused {
            let point = points.get(*index);
            tracing::warn!(module = module.name, ?point, %error, "the kernel refuses a probe");
        }
        if let Some(tgid) = scope {
            exceptions::touch(tgid, module, &numbered.hooks);
        }
        let mut sites = attached.sites.iter();
        for (number, function) in functions() {
            let options = &function.pattern.options;
            if options.rate > 0 {
                self.probes.set_rate(FunctionNo(number), options.rate)?;
            }
            let facts = facts(numbered, number, function, sites.by_ref().map(|site| site.0));
            announce(&Step::Function(Arc::new(facts)));
        }
        for ((number, hook), site) in hooks().zip(sites) {
            self.probes.set_rate(FunctionNo(number), RATE_PER_SECOND)?;
            let facts = exceptions::facts(number, hook, site.0, &numbered.name);
            announce(&Step::Function(Arc::new(facts)));
        }
        self.probed.extend(numbered.numbers());
        self.probed.retain(|number| !self.gone.contains(number));
        tracing::info!(
            module = module.name,
            functions = functions().count(),
            "functions are probed"
        );
        match scope {
            Some(tgid) => {
                self.links.entry(tgid).or_default().push(attached.link);
                self.models.insert(module.id, attached.link);
            }
            None => {
                self.everywhere.insert(module.id, attached.link);
            }
        }
        Ok(())
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

fn facts(
    numbered: &Numbered,
    number: u32,
    function: &Planned,
    mut sites: impl Iterator<Item = u32>,
) -> FunctionFacts {
    let by_address = |address| {
        let found = numbered.plan.functions.iter().position(|other| other.address == address)?;
        Some(numbered.first + found as u32)
    };
    let options = &function.pattern.options;
    let mut told = Vec::new();
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
        let code = function.end_code(end.kind);
        told.extend(sites.next().map(|number| site(number, end.kind, into, code)));
    }
    FunctionFacts {
        number,
        name: function.name.clone(),
        module: numbered.name.clone(),
        source: function.source.clone(),
        role: Role::Call {
            min_ns: u64::try_from(options.min.as_nanos()).unwrap_or(u64::MAX),
            in_request: options.in_request,
        },
        sites: told,
    }
}

/// The files that a process runs code of, the executable first.
pub(crate) fn mapped(tgid: Tgid) -> Vec<Mapped> {
    let proc = PathBuf::from(format!("/proc/{}", tgid.0));
    let exe = proc.join("exe");
    let mut modules = Vec::new();
    if let (Some(id), Ok(target)) = (FileId::of(&exe), std::fs::read_link(&exe)) {
        let name = file_name(&target);
        modules.push(Mapped { id, open: exe, name, is_executable: true });
    }
    let maps = std::fs::read(proc.join("maps")).unwrap_or_default();
    for line in String::from_utf8_lossy(&maps).lines() {
        // address perms offset dev inode path
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some(flags)) = (fields.next(), fields.next()) else { continue };
        let path = fields.nth(3).filter(|path| path.starts_with('/'));
        let Some(path) = path.filter(|_| flags.contains('x')) else { continue };
        let open = proc.join("map_files").join(range);
        let Some(id) = FileId::of(&open) else { continue };
        if modules.iter().all(|known| known.id != id) {
            let name = file_name(Path::new(path));
            modules.push(Mapped { id, open, name, is_executable: false });
        }
    }
    modules
}

/// The file name of a path; without what the kernel says of a file that is gone.
fn file_name(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    name.strip_suffix(" (deleted)").unwrap_or(&name).to_owned()
}
