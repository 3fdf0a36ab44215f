//! Probes the functions that the user asks for, in each process as it begins to be traced: which processes
//! run which files, and what is attached where for how long.
//!
//! A file is probed while a process runs it, and no longer: with none, it may be written anew, and a probe
//! would then stand anywhere. What was found in it is remembered for a while, with its numbers.

mod attached;
mod budget;
mod counts;
mod file;
mod foretold;
mod lease;
mod looks;
mod numbered;
mod own_names;
mod ramp;
mod rewritten;
mod spared;
mod tell;
mod wishes;

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use budget::Watch;
use file::{Content, File};
pub(crate) use file::{FileId, Mapped, Version, mapped};
use foretold::Foretold;
use looks::{Look, Looks};
use own_names::OwnNames;
use ramp::Ramp;
use spared::Spared;
use tell::tell_refused;
pub use wishes::Wishes;

use super::exceptions::Cold;
use super::planner::{self, Answer, Planner};
use crate::discover::maps::file_name;
use crate::discover::mover::{Begun, may_move};
use crate::discover::process;
use crate::event::Hit;
use crate::event::ids::{SiteNo, Tgid};
use crate::function::numbers::Numbers;
use crate::function::plan::Refused;
use crate::inspect::regular;
use crate::inspect::runtime::Goroutines;
use crate::pipeline::Step;
use crate::platform::clock::{self, MonoNs};
use crate::probe::function::selftest::{self, SelfTest, SelfTestError};
use crate::probe::function::{FunctionError, FunctionProbes, Limits, LinkNo, SitesNo};
use crate::probe::{Capture, CaptureError, Selection};

/// How many processes are looked at at one time: of the others it is the turn next time.
const LOOKS_MAX: usize = 64;

/// How long there is no look at least and at most. What is not told wakes nobody, but costs.
const REST_MIN_NS: u64 = 20_000_000;
const REST_MAX_NS: u64 = 1_000_000_000;

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
    leaving: HashMap<SitesNo, Range<u32>>,
    /// Hooks of which hits may lack something, by their sites.
    cold: HashMap<SiteNo, (SitesNo, Cold), foldhash::fast::RandomState>,
    /// Processes that are probed.
    processes: HashMap<Tgid, Process>,
    /// What they are going to map.
    foretold: Foretold,
    own_names: OwnNames,
    watch: Watch,
    /// What is not attached as a whole yet.
    ramps: Vec<Ramp>,
}

/// A process that is probed.
struct Process {
    is_followed: bool,
    goroutines: Option<Goroutines>,
    /// It is held, and what is probed is the program that it is about to become.
    is_held: bool,
    spared: Spared,
    /// The files that it was seen to run code of.
    seen: HashSet<FileId>,
    /// What is attached in it alone.
    links: Vec<(FileId, LinkNo)>,
    /// When it is looked at for more files; not while it is held.
    looks: Option<Looks>,
}

impl Process {
    fn new(is_followed: bool, goroutines: Option<Goroutines>, looks: Option<Looks>) -> Self {
        let (seen, links) = (HashSet::new(), Vec::new());
        let (is_held, spared) = (false, Spared::default());
        Self { is_followed, goroutines, is_held, spared, seen, links, looks }
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
    /// Into every process that maps it: few do that are not traced, and none of those moves it.
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
            foretold: Foretold::default(),
            own_names: OwnNames::default(),
            ramps: Vec::new(),
        }))
    }

    /// Probes the program that a held process is about to become.
    pub(super) fn command(
        &mut self,
        program: &Path,
        args: &[String],
        tgid: Tgid,
        selection: &mut Selection,
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Result<(), FunctionsError> {
        let Some(id) = FileId::of(program) else { return Ok(()) };
        let goroutines = crate::inspect::runtime::go(program).and_then(|go| go.goroutines);
        let (open, name) = (program.to_owned(), file_name(program));
        let module = Mapped { id, open, name, other_names: Vec::new(), is_executable: true };
        // What it runs until then is none of its own.
        let mut process = Process { is_held: true, ..Process::new(true, goroutines, None) };
        let executable = program.canonicalize().unwrap_or_else(|_| program.to_owned());
        process.spared = Spared::of_command(&Begun {
            executable: &executable,
            args,
            variable: &|name| std::env::var(name).ok(),
            root: Path::new("/"),
        });
        process.spared.say(tgid, Spared::Nothing);
        self.processes.insert(tgid, process);
        selection.select_next_functions(tgid.0)?;
        let reach = if may_move(&executable) { Reach::Alone } else { Reach::Everywhere };
        self.module(tgid, module, PathBuf::from("/"), reach, announce);
        self.foretell_command(tgid, program, announce);
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
        // Before what it has mapped is: what comes between the two is noticed.
        let code = process::code_kib(Path::new("/proc"), tgid);
        let looks = Looks::begin(clock::now(), code);
        let mut process = Process::new(is_followed, goroutines, Some(looks));
        let before = self.processes.get(&tgid).map(|process| process.spared).unwrap_or_default();
        process.spared = Spared::of_process(tgid);
        process.spared.say(tgid, before);
        let mut before = self.processes.remove(&tgid);
        if let Some(held) = before.take_if(|before| before.is_held) {
            (process.seen, process.links) = (held.seen, held.links);
        }
        self.processes.insert(tgid, process);
        // A program that it was before has taken its probes along.
        if let Some(before) = &before {
            self.detach(&before.links);
        }
        self.modules(tgid, announce);
        selection.confirm_functions(tgid.0)?;
        self.foretell_process(tgid, announce);
        if let Some(before) = before {
            self.leave(tgid, before.seen);
        }
        Ok(())
    }

    /// Probes the files that processes have begun to run code of since they were looked at last.
    pub(super) fn look_again(&mut self, now: MonoNs, announce: &mut dyn FnMut(&Step<'_>)) {
        let is_due = |looks: &Looks| looks.due() <= now;
        let many = self.processes.len();
        let mut changed = Vec::new();
        let due = self.processes.iter_mut().filter_map(|(tgid, process)| {
            process.looks.as_mut().filter(|looks| is_due(looks)).map(|looks| (*tgid, looks))
        });
        for (tgid, looks) in due.take(LOOKS_MAX) {
            let code = process::code_kib(Path::new("/proc"), tgid);
            if looks.look(now, code, many) == Look::Whole {
                changed.push(tgid);
            }
        }
        for tgid in changed {
            let found = self.modules(tgid, announce);
            let looks = self.processes.get_mut(&tgid).and_then(|process| process.looks.as_mut());
            if let Some(looks) = looks.filter(|_| found == 0) {
                looks.found_nothing(now);
            }
        }
    }

    /// How long nobody needs to be looked at, at most a second.
    pub(super) fn until_next_look(&self, now: MonoNs) -> Duration {
        let due = self.processes.values().filter_map(|process| process.looks.as_ref());
        let first = due.map(Looks::due).min().map(|due| due.since(now));
        let rest_ns = first.unwrap_or(REST_MAX_NS).clamp(REST_MIN_NS, REST_MAX_NS);
        let rest = Duration::from_nanos(rest_ns);
        self.until_next_step().map_or(rest, |step| step.min(rest))
    }

    /// Probes the files that a process runs code of and was not seen to before; how many there are.
    fn modules(&mut self, tgid: Tgid, announce: &mut dyn FnMut(&Step<'_>)) -> usize {
        let root = PathBuf::from(format!("/proc/{}/root", tgid.0));
        let mut found = 0;
        for module in mapped(tgid) {
            let Some(process) = self.processes.get(&tgid) else { return found };
            if process.seen.contains(&module.id) {
                continue;
            }
            let name = Path::new(&module.name);
            let is_shared = module.is_executable && process.is_followed && !may_move(name);
            let everywhere = is_shared || !self.trust.sees_threads;
            let reach = if everywhere { Reach::Everywhere } else { Reach::Alone };
            self.module(tgid, module, root.clone(), reach, announce);
            found += 1;
        }
        found
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

    /// Probes a file in a process, at once if it is known what there is in it.
    fn module(
        &mut self,
        tgid: Tgid,
        mut module: Mapped,
        root: PathBuf,
        reach: Reach,
        announce: &mut dyn FnMut(&Step<'_>),
    ) {
        if self.wishes.patterns.name_modules() {
            module.add_name(self.own_names.of(&module));
        }
        let Some(process) = self.processes.get_mut(&tgid) else { return };
        process.seen.insert(module.id);
        let goroutines = process.goroutines;
        if !planner::concern(&self.wishes, &module) {
            return;
        }
        if process.spared.includes(module.is_executable) {
            return;
        }
        // Its process may have ended.
        let Ok(open) = regular::must_open(&module.open) else { return };
        let Ok(metadata) = open.metadata() else { return };
        if FileId::from(&metadata) != module.id {
            // It has another program since it was looked at, or something else in the same place.
            process.seen.remove(&module.id);
            return;
        }
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
            File { version, content, users: HashSet::new(), everywhere: None }
        });
        if file.users.is_empty() {
            self.resting.retain(|resting| *resting != module.id);
        }
        file.users.insert(tgid);
        match &mut file.content {
            Content::Unknown(waiting) => waiting.push(Waiting { tgid, module, reach }),
            Content::Nothing => {}
            Content::Found(_) | Content::Numbered(_) => {
                self.attach(tgid, &module, reach, announce);
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
            Ok(found) => found,
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
        for Refused { name, reason } in &found.unseen {
            tracing::warn!(
                module = module.name,
                function = name,
                reason,
                "exceptions are not seen here"
            );
        }
        file.content = match numbered::count(&found) {
            0 => Content::Nothing,
            _ => Content::Found(found),
        };
        for Waiting { tgid, module, reach } in waiting {
            let process = self.processes.get(&tgid);
            if process.is_some_and(|process| process.seen.contains(&module.id)) {
                self.attach(tgid, &module, reach, announce);
            }
        }
    }

    /// A hit's record with what it lacks, if it lacks something that can be read now.
    pub(super) fn complete(&self, record: &[u8], hit: &Hit<'_>) -> Option<Vec<u8>> {
        let (_, cold) = self.cold.get(&hit.site)?;
        cold.complete(record, hit)
    }
}
