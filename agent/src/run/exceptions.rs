//! Probes the places where runtimes raise exceptions, in the modules of each process as it begins to be
//! traced. That there are none to probe, or that one cannot be probed, is no failure.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::functions::{FileId, Mapped};
use crate::event::ids::Tgid;
use crate::function::FunctionNo;
use crate::function::exception::{self, EVENT, Hook, RATE_PER_SECOND};
use crate::function::facts::{FunctionFacts, Role, SiteFacts};
use crate::function::plan::PlanError;
use crate::inspect::elf::Module;
use crate::inspect::runtime::Goroutines;
use crate::inspect::symbols::Index;
use crate::pipeline::Step;
use crate::probe::function::{FunctionError, FunctionProbes, LinkNo, Point, TaskSource};

/// How the names of libraries begin that may have a hook; any executable may.
const LIBRARIES: [&str; 7] =
    ["libstdc++", "libc++", "libpython", "libruby", "libphp", "libnode", "libjvm"];

/// The hooks of the files that were looked at.
#[derive(Default)]
pub(super) struct Exceptions {
    known: HashMap<FileId, Arc<Hooks>>,
    /// Files that are probed in every process that runs them.
    everywhere: HashSet<FileId>,
}

/// The hooks of a file.
pub(super) struct Hooks {
    first: u32,
    hooks: Vec<Hook>,
}

impl Exceptions {
    /// The hooks of a file that are to be probed, numbered from `next` on.
    pub(super) fn hooks(
        &mut self,
        module: &Mapped,
        root: &Path,
        next: &mut u32,
    ) -> Option<Arc<Hooks>> {
        let is_library = LIBRARIES.iter().any(|library| module.name.starts_with(library));
        if self.everywhere.contains(&module.id) || !(module.is_executable || is_library) {
            return None;
        }
        if let Some(known) = self.known.get(&module.id) {
            return Some(Arc::clone(known));
        }
        let hooks = Hooks { first: *next, hooks: look(module, root) };
        *next += hooks.hooks.len() as u32;
        let hooks = Arc::new(hooks);
        self.known.insert(module.id, Arc::clone(&hooks));
        Some(hooks)
    }

    /// The hooks of a file are probed; the process to which that is bound, if it is bound to one.
    pub(super) fn attached(&mut self, module: &Mapped, scope: Option<Tgid>) -> Option<Tgid> {
        if scope.is_none() {
            self.everywhere.insert(module.id);
        }
        scope
    }
}

/// The hooks of a module, as far as it can be read.
fn look(module: &Mapped, root: &Path) -> Vec<Hook> {
    let read = || -> Result<_, PlanError> {
        let file = Module::open(&module.open)?;
        let index = Index::read(&file, root)?;
        Ok(exception::hooks(&file, &index))
    };
    let found = match read() {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!(module = module.name, %error, "no look for exceptions");
            return Vec::new();
        }
    };
    for (function, reason) in &found.refused {
        tracing::warn!(module = module.name, %function, %reason, "exceptions are not seen here");
    }
    found.hooks
}

impl Hooks {
    /// Probes them and announces what their hits mean.
    pub(super) fn attach(
        &self,
        module: &Mapped,
        scope: Option<Tgid>,
        goroutines: Option<Goroutines>,
        probes: &mut FunctionProbes,
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Option<LinkNo> {
        if self.hooks.is_empty() {
            return None;
        }
        let numbered = || (self.first..).zip(&self.hooks);
        let points: Vec<Point> =
            numbered().map(|(number, hook)| point(number, hook, goroutines)).collect();
        let attach = |probes: &mut FunctionProbes| -> Result<_, FunctionError> {
            for (number, _) in numbered() {
                probes.set_rate(FunctionNo(number), RATE_PER_SECOND)?;
            }
            probes.attach(&module.open, scope.map(|tgid| tgid.0), &points)
        };
        let attached = match attach(probes) {
            Ok(attached) => attached,
            Err(error) => {
                tracing::warn!(module = module.name, %error, "exceptions are not seen here");
                return None;
            }
        };
        for (index, error) in &attached.refused {
            let point = points.get(*index);
            tracing::warn!(module = module.name, ?point, %error, "the kernel refuses a probe");
        }
        for ((number, hook), site) in numbered().zip(&attached.sites) {
            let facts = facts(number, hook, site.0, &module.name);
            announce(&Step::Function(Arc::new(facts)));
        }
        Some(attached.link)
    }
}

fn point(number: u32, hook: &Hook, goroutines: Option<Goroutines>) -> Point {
    let task = match goroutines.filter(|_| hook.in_goroutine) {
        Some(at) => TaskSource::Goroutine { id_offset: at.goid_offset },
        None => TaskSource::Thread,
    };
    Point {
        site: hook.site,
        ops: hook.ops.clone(),
        function: FunctionNo(number),
        semaphore: hook.semaphore,
        task,
    }
}

fn facts(number: u32, hook: &Hook, site: u32, module: &str) -> FunctionFacts {
    FunctionFacts {
        number,
        name: hook.name.clone(),
        module: module.to_owned(),
        source: None,
        role: Role::Event { name: EVENT.to_owned(), decode: Some(hook.decode) },
        sites: vec![SiteFacts { number: site, kind: hook.site.kind, into: None, reader: None }],
    }
}
