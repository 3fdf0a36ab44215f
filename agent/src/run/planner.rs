//! Looks for functions in files, on a thread of its own: a large program takes seconds, and records are
//! to be drained meanwhile.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use super::exceptions;
use super::functions::{FileId, Mapped};
use crate::function::exception::Hook;
use crate::function::pattern::Patterns;
use crate::function::plan::{self, ModulePlan, Place, PlanError};

/// The thread, and what it has not yet answered.
pub(super) struct Planner {
    requests: Sender<Request>,
    answers: Receiver<Answer>,
    pending: HashSet<FileId>,
}

struct Request {
    module: Mapped,
    root: PathBuf,
    knows_goroutines: bool,
}

/// What was found in a file.
pub(super) struct Answer {
    pub(super) module: Mapped,
    pub(super) plan: Result<ModulePlan, PlanError>,
    /// Where its exceptions are raised, if that is asked for.
    pub(super) hooks: Vec<Hook>,
}

impl Planner {
    /// Starts the thread. It ends when the planner is dropped, after the file that it is at.
    pub(super) fn start(patterns: Patterns, exceptions: bool) -> io::Result<Self> {
        let (requests, asked) = mpsc::channel::<Request>();
        let (answer, answers) = mpsc::channel();
        let work = move || {
            for Request { module, root, knows_goroutines } in asked {
                let place = Place {
                    file: &module.open,
                    name: &module.name,
                    is_executable: module.is_executable,
                    root: &root,
                    knows_goroutines,
                };
                let plan = plan::plan(&place, &patterns);
                let looks = exceptions && exceptions::concern(&module);
                let hooks = if looks { exceptions::hooks(&place) } else { Vec::new() };
                if answer.send(Answer { module, plan, hooks }).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("planner".to_owned()).spawn(work)?;
        Ok(Self { requests, answers, pending: HashSet::new() })
    }

    /// Asks for the functions of a file, once.
    pub(super) fn ask(&mut self, module: &Mapped, root: PathBuf, knows_goroutines: bool) {
        if self.pending.insert(module.id) {
            let request = Request { module: module.clone(), root, knows_goroutines };
            // A thread that has ended says so by answering nothing more.
            let _ = self.requests.send(request);
        }
    }

    /// An answer that is there.
    pub(super) fn answer(&mut self) -> Option<Answer> {
        let answer = self.answers.try_recv().ok()?;
        self.pending.remove(&answer.module.id);
        Some(answer)
    }

    /// The next answer, waited for; `None` when nothing is asked.
    pub(super) fn wait(&mut self) -> Option<Answer> {
        if self.pending.is_empty() {
            return None;
        }
        let answer = self.answers.recv().ok()?;
        self.pending.remove(&answer.module.id);
        Some(answer)
    }
}
