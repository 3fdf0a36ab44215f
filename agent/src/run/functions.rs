//! Probes the functions that the user asks for, in each process as it begins to be traced.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::exceptions::Exceptions;
use crate::event::ids::Tgid;
use crate::function::FunctionNo;
use crate::function::facts::{FunctionFacts, Role, SiteFacts};
use crate::function::pattern::Patterns;
use crate::function::plan::{self, Code, ModulePlan, Place, Planned};
use crate::function::site::SiteKind;
use crate::inspect::demangle::Language;
use crate::inspect::runtime::Goroutines;
use crate::pipeline::Step;
use crate::probe::function::selftest::{self, SelfTest};
use crate::probe::function::{FunctionError, FunctionProbes, Limits, LinkNo, Point, TaskSource};
use crate::probe::{Capture, CaptureError, Selection};

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Which functions.
    pub patterns: Patterns,
    /// What probes may cost a process, nanoseconds a second; 0: anything.
    pub budget_ns: u64,
    /// Whether exceptions are told.
    pub exceptions: bool,
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
}

/// A file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

/// The probed functions.
pub(super) struct Functions {
    wishes: Wishes,
    exceptions: Option<Exceptions>,
    probes: FunctionProbes,
    trust: SelfTest,
    next: u32,
    /// What is probed in each file that was looked at, with the functions' numbers.
    plans: HashMap<FileId, Arc<Numbered>>,
    /// Files that are probed in every process that runs them.
    everywhere: HashSet<FileId>,
    /// What is probed in one process alone.
    links: HashMap<Tgid, Vec<LinkNo>>,
    probed: HashSet<u32>,
}

struct Numbered {
    name: String,
    plan: ModulePlan,
    first: u32,
}

/// A file that a process runs code of.
pub(super) struct Mapped {
    pub(super) id: FileId,
    /// How it is opened, whatever has become of its name.
    pub(super) open: PathBuf,
    pub(super) name: String,
    pub(super) is_executable: bool,
}

impl Functions {
    /// Loads what probes need; `None` if nothing is asked for.
    pub(super) fn start(wishes: Wishes, capture: &Capture) -> Result<Option<Self>, FunctionsError> {
        if wishes.patterns.is_empty() && !wishes.exceptions {
            return Ok(None);
        }
        let trust = selftest::run().unwrap_or_else(|error| {
            tracing::warn!(%error, "function probes could not be tried; assuming that they are dear");
            SelfTest::ASSUMED
        });
        tracing::info!(?trust, "function probes tried");
        let mut probes = FunctionProbes::load(capture, Limits::default(), &trust)?;
        probes.set_default_budget(wishes.budget_ns)?;
        Ok(Some(Self {
            exceptions: wishes.exceptions.then(Exceptions::default),
            wishes,
            probes,
            trust,
            next: 0,
            plans: HashMap::new(),
            everywhere: HashSet::new(),
            links: HashMap::new(),
            probed: HashSet::new(),
        }))
    }

    /// How many functions are probed.
    pub(super) fn len(&self) -> usize {
        self.probed.len()
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
        let Ok(metadata) = std::fs::metadata(program) else { return Ok(()) };
        let goroutines = crate::inspect::runtime::go(program).and_then(|go| go.goroutines);
        let module = Mapped {
            id: FileId { device: metadata.dev(), inode: metadata.ino() },
            open: program.to_owned(),
            name: file_name(program),
            is_executable: true,
        };
        selection.select_next_functions(tgid.0)?;
        self.module(&module, Path::new("/"), None, goroutines, announce)
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
        let root = PathBuf::from(format!("/proc/{}/root", tgid.0));
        for module in mapped(tgid) {
            let alone = !(module.is_executable && is_followed) && self.trust.sees_threads;
            let scope = alone.then_some(tgid);
            self.module(&module, &root, scope, goroutines, announce)?;
        }
        Ok(selection.select_functions(tgid.0)?)
    }

    /// A process has ended, or its program has.
    pub(super) fn forget(&mut self, tgid: Tgid) {
        for link in self.links.remove(&tgid).unwrap_or_default() {
            self.probes.detach(link);
        }
    }

    fn module(
        &mut self,
        module: &Mapped,
        root: &Path,
        scope: Option<Tgid>,
        goroutines: Option<Goroutines>,
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Result<(), FunctionsError> {
        if let Some(exceptions) = &mut self.exceptions
            && let Some(hooks) = exceptions.hooks(module, root, &mut self.next)
            && let Some(link) = hooks.attach(module, scope, goroutines, &mut self.probes, announce)
            && let Some(tgid) = exceptions.attached(module, scope)
        {
            self.links.entry(tgid).or_default().push(link);
        }
        if self.everywhere.contains(&module.id) {
            return Ok(());
        }
        let Some(numbered) = self.plan(module, root, goroutines) else { return Ok(()) };
        let mut points = Vec::new();
        for (index, function) in numbered.plan.functions.iter().enumerate() {
            let number = FunctionNo(numbered.first + index as u32);
            let task = match (function.language, goroutines) {
                (Language::Go, Some(at)) => TaskSource::Goroutine { id_offset: at.goid_offset },
                _ => TaskSource::Thread,
            };
            let point = |site, code: &Code| Point {
                site,
                ops: code.ops.clone(),
                function: number,
                semaphore: None,
                task,
            };
            points.push(point(function.placement.entry, &function.entry));
            for end in &function.placement.ends {
                points.push(point(*end, end_code(function, end.kind)));
            }
        }
        if points.is_empty() {
            return Ok(());
        }
        let attached = self.probes.attach(&module.open, scope.map(|tgid| tgid.0), &points)?;
        for (index, error) in &attached.refused {
            let point = points.get(*index);
            tracing::warn!(module = module.name, ?point, %error, "the kernel refuses a probe");
        }
        let mut sites = attached.sites.iter();
        for (index, function) in numbered.plan.functions.iter().enumerate() {
            let number = numbered.first + index as u32;
            let options = &function.pattern.options;
            if options.rate > 0 {
                self.probes.set_rate(FunctionNo(number), options.rate)?;
            }
            let facts = facts(&numbered, number, function, sites.by_ref().map(|site| site.0));
            announce(&Step::Function(Arc::new(facts)));
            self.probed.insert(number);
        }
        match scope {
            Some(tgid) => self.links.entry(tgid).or_default().push(attached.link),
            None => {
                self.everywhere.insert(module.id);
            }
        }
        Ok(())
    }

    /// What is to be probed in a file; looked for once.
    fn plan(
        &mut self,
        module: &Mapped,
        root: &Path,
        goroutines: Option<Goroutines>,
    ) -> Option<Arc<Numbered>> {
        if let Some(known) = self.plans.get(&module.id) {
            return Some(Arc::clone(known));
        }
        if !self.wishes.patterns.concern(&module.name, module.is_executable) {
            return None;
        }
        let place = Place {
            file: &module.open,
            name: &module.name,
            is_executable: module.is_executable,
            root,
            knows_goroutines: goroutines.is_some(),
        };
        let plan = plan::plan(&place, &self.wishes.patterns).unwrap_or_else(|error| {
            tracing::warn!(module = module.name, %error, "cannot look for functions");
            ModulePlan::default()
        });
        for refused in &plan.refused {
            let (function, reason) = (&refused.name, &refused.reason);
            tracing::warn!(module = module.name, %function, %reason, "function is not probed");
        }
        let first = self.next;
        self.next += plan.functions.len() as u32;
        let numbered = Arc::new(Numbered { name: module.name.clone(), plan, first });
        self.plans.insert(module.id, Arc::clone(&numbered));
        Some(numbered)
    }
}

/// What an end reads: a result is there only at a return.
fn end_code(function: &Planned, kind: SiteKind) -> &Code {
    static NOTHING: Code = Code { ops: Vec::new(), reader: None };
    if kind == SiteKind::Return { &function.end } else { &NOTHING }
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
        let code = end_code(function, end.kind);
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
fn mapped(tgid: Tgid) -> Vec<Mapped> {
    let proc = PathBuf::from(format!("/proc/{}", tgid.0));
    let exe = proc.join("exe");
    let mut modules = Vec::new();
    if let (Ok(metadata), Ok(target)) = (std::fs::metadata(&exe), std::fs::read_link(&exe)) {
        let id = FileId { device: metadata.dev(), inode: metadata.ino() };
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
        let Ok(metadata) = std::fs::metadata(&open) else { continue };
        let id = FileId { device: metadata.dev(), inode: metadata.ino() };
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
