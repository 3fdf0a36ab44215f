//! Looks for functions in files, on a thread of its own: a large program takes seconds, and records are
//! to be drained meanwhile.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use super::functions::{Mapped, Version};
use super::tracepoints;
use super::{Wishes, exceptions};
use crate::function::exception::{self, Hook, Hooks};
use crate::function::plan::{self, ModulePlan, Place, PlanError, Refused};
use crate::inspect::debug_file::{Lookup, Server};
use crate::inspect::elf::Module;
use crate::inspect::symbols::{Index, SymbolError};

/// The thread, and what it has not yet answered.
pub(super) struct Planner {
    requests: Sender<Request>,
    answers: Receiver<Answer>,
    /// How many questions are not answered.
    pending: usize,
}

struct Request {
    module: Mapped,
    /// Open, so that its process may end.
    file: File,
    version: Version,
    root: PathBuf,
    knows_goroutines: bool,
}

/// What was found in a file.
pub(super) struct Answer {
    pub(super) module: Mapped,
    /// What the file was when it was asked about.
    pub(super) version: Version,
    pub(super) found: Result<Found, PlanError>,
}

/// What is to be probed of a file.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) plan: ModulePlan,
    /// Why its functions cannot be listed, if they were asked for.
    pub(crate) unlisted: Option<SymbolError>,
    /// Where its exceptions are raised, if that is asked for.
    pub(crate) hooks: Vec<Hook>,
    /// Where they are not seen though they are raised there.
    pub(crate) unseen: Vec<Refused>,
    /// The file, if hits of them may lack what is in it.
    pub(crate) module: Option<Arc<Module>>,
    pub(crate) tracepoints: Vec<tracepoints::Found>,
}

impl Found {
    fn hook(&mut self, Hooks { hooks, refused }: Hooks) {
        let refused = refused.into_iter();
        self.hooks = hooks;
        self.unseen =
            refused.map(|(name, why)| Refused { name, reason: why.to_string() }).collect();
    }
}

/// Whether there may be anything in a file that is asked for.
pub(crate) fn concern(wishes: &Wishes, module: &Mapped) -> bool {
    !wishes.tracepoints.is_empty()
        || wishes.patterns.concern(&module.called())
        || wishes.exceptions && exceptions::concern(module)
}

/// Looks for what is asked for in a file.
///
/// # Errors
/// If the file cannot be read. What is wrong with a single function is in the plan.
pub(crate) fn look(
    wishes: &Wishes,
    module: &Mapped,
    root: &Path,
    knows_goroutines: bool,
) -> Result<Found, PlanError> {
    let server = wishes.debuginfod.as_deref().map(|server| server as &dyn Server);
    let lookup = Lookup { root, server };
    let place = Place { file: &module.open, called: module.called(), lookup, knows_goroutines };
    let tracepoints = tracepoints::look(&place, &wishes.tracepoints);
    let mut found = Found { tracepoints, ..Found::default() };
    let lists = wishes.patterns.concern(&place.called);
    let looks = wishes.exceptions && exceptions::concern(module);
    if !lists && !looks {
        return Ok(found);
    }
    let opened = Module::open(place.file)?;
    match Index::read(&opened, lookup) {
        Ok(index) => {
            if lists {
                found.plan = plan::plan_listed(&place, (&opened, &index), &wishes.patterns);
            }
            if looks {
                found.hook(exception::hooks(&opened, &index));
            }
        }
        Err(error) => {
            // What it exports may yet be read, and runtimes export their hooks.
            if let Some(index) = Index::exported(&opened).ok().filter(|_| looks) {
                found.hook(exception::hooks(&opened, &index));
            }
            found.unlisted = lists.then_some(error);
        }
    }
    if found.hooks.iter().any(|hook| hook.decode.reads_constants()) {
        found.module = Some(Arc::new(opened));
    }
    Ok(found)
}

impl Planner {
    /// Starts the thread. It ends when the planner is dropped, after the file that it is at.
    pub(super) fn start(wishes: Wishes) -> io::Result<Self> {
        let (requests, asked) = mpsc::channel::<Request>();
        let (answer, answers) = mpsc::channel();
        let work = move || {
            for Request { module, file, version, root, knows_goroutines } in asked {
                let open = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
                let opened = Mapped { open, ..module.clone() };
                let found = look(&wishes, &opened, &root, knows_goroutines);
                drop(file);
                if answer.send(Answer { module, version, found }).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("planner".to_owned()).spawn(work)?;
        Ok(Self { requests, answers, pending: 0 })
    }

    /// Asks what there is in a file.
    pub(super) fn ask(
        &mut self,
        module: &Mapped,
        file: File,
        version: Version,
        root: PathBuf,
        knows_goroutines: bool,
    ) {
        let request = Request { module: module.clone(), file, version, root, knows_goroutines };
        // A thread that has ended answers nothing more.
        if self.requests.send(request).is_ok() {
            self.pending += 1;
        }
    }

    /// An answer that is there.
    pub(super) fn answer(&mut self) -> Option<Answer> {
        let answer = self.answers.try_recv().ok()?;
        self.pending -= 1;
        Some(answer)
    }

    /// The next answer, waited for; `None` when nothing is asked.
    pub(super) fn wait(&mut self) -> Option<Answer> {
        if self.pending == 0 {
            return None;
        }
        let answer = self.answers.recv().ok()?;
        self.pending -= 1;
        Some(answer)
    }
}
