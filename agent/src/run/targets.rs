//! Which processes are traced at the moment, and why: decides on the ones that are there at the
//! start and on those that events tell of.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::discover::listeners;
use crate::discover::process::{self, Facts, ProcessError};
use crate::discover::resource::{self, Host};
use crate::discover::rules::Rules;
use crate::event::Event;
use crate::event::ids::{Address, Tgid};
use crate::inspect::runtime::{self, Goroutines, Tasks};
use crate::pipeline::Step;
use crate::probe::{CaptureError, Selection};
use crate::span::model::Resource;

/// Why tracing cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// A process that was asked for by its id cannot be traced.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It is the agent itself.
    #[error("process {} is this agent, which never traces itself", tgid.0)]
    Myself {
        /// The process.
        tgid: Tgid,
    },
    /// The kernel half did not take a selection.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The list of processes could not be read.
    #[error("cannot list the processes in /proc")]
    List(#[source] std::io::Error),
}

/// Most processes of which control groups are remembered until their program is told of, and most groups of
/// each.
const CGROUPS_MAX: usize = 1 << 12;
const CGROUPS_EACH_MAX: usize = 8;

/// Why a process is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It, or an ancestor, was named: a new program in it is traced too.
    Named,
    /// Its program matches; another program would be asked about again.
    Program,
}

struct Target {
    facts: Facts,
    why: Why,
    follow: bool,
    goroutines: Option<Goroutines>,
}

/// The traced processes.
pub(super) struct Targets {
    rules: Rules,
    /// Whether children of processes named by id are traced.
    follow: bool,
    payload_limit: u32,
    proc: PathBuf,
    host: Host,
    traced: HashMap<Tgid, Target>,
    /// Control groups of processes of which a new program is about to be told, the innermost first.
    cgroups: HashMap<Tgid, Vec<String>>,
    /// How many were traced until now.
    seen: u64,
}

impl Targets {
    /// Nothing is selected yet.
    pub(super) fn new(rules: Rules, follow: bool, payload_limit: u32) -> Self {
        Self {
            rules,
            follow,
            payload_limit,
            proc: PathBuf::from("/proc"),
            host: Host::read(),
            traced: HashMap::new(),
            cgroups: HashMap::new(),
            seen: 0,
        }
    }

    /// Selects every process that is there and wanted. A process named by id must be there.
    pub(super) fn start(
        &mut self,
        selection: &mut Selection,
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Result<(), TargetError> {
        for tgid in self.rules.pids.clone() {
            if tgid.0 == std::process::id() {
                return Err(TargetError::Myself { tgid });
            }
            let facts = process::read(&self.proc, tgid)?;
            self.select(selection, facts, Why::Named, self.follow, announce)?;
            if selection.bits(tgid.0).is_none() {
                return Err(ProcessError::Gone { tgid }.into());
            }
        }
        for port in &self.rules.ports {
            selection.watch_port(*port)?;
        }
        let rules_match = self.rules.matches_new_programs() || !self.rules.ports.is_empty();
        if !rules_match && !self.follow {
            return Ok(());
        }
        // After the named ones were selected, so that a child that is forked meanwhile is followed.
        let all = process::all(&self.proc).map_err(TargetError::List)?;
        if self.follow {
            self.start_descendants(selection, &all, announce)?;
        }
        if !rules_match {
            self.forget_gone(selection);
            return Ok(());
        }
        let listening = match self.rules.ports.is_empty() {
            true => HashMap::new(),
            false => listeners::by_process(&all),
        };
        let (mut seen, mut by_port) = (Vec::new(), HashMap::new());
        for tgid in all {
            // Gone, or a kernel thread: nothing to trace.
            let Ok(facts) = process::read(&self.proc, tgid) else { continue };
            if !self.rules.ports.is_empty() {
                seen.push(facts.clone());
            }
            if tgid.0 == std::process::id() || self.traced.contains_key(&tgid) {
                continue;
            }
            let mine = listening.get(&tgid);
            let is_wanted = |port: &&u16| mine.is_some_and(|mine| mine.contains(*port));
            if let Some(port) = self.rules.ports.iter().find(is_wanted) {
                by_port.insert(tgid, *port);
                self.select(selection, facts, Why::Named, true, announce)?;
            } else if self.rules.wants(&facts) {
                self.select(selection, facts, Why::Program, true, announce)?;
            }
        }
        for facts in listeners::add_workers(&seen, &mut by_port) {
            if facts.tgid.0 != std::process::id() && !self.traced.contains_key(&facts.tgid) {
                self.select(selection, facts.clone(), Why::Named, true, announce)?;
            }
        }
        self.forget_gone(selection);
        Ok(())
    }

    /// Those that the kernel half does not know.
    pub(super) fn gone(&self, selection: &Selection) -> Vec<Tgid> {
        let all = self.traced.keys().copied();
        all.filter(|tgid| selection.bits(tgid.0).is_none()).collect()
    }

    /// Forgets those that have ended before they were selected: no event will tell of it.
    fn forget_gone(&mut self, selection: &Selection) {
        self.traced.retain(|tgid, _| selection.bits(tgid.0).is_some());
    }

    /// Selects the running descendants of the processes selected so far.
    fn start_descendants(
        &mut self,
        selection: &mut Selection,
        all: &[Tgid],
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Result<(), TargetError> {
        let facts = all.iter().filter_map(|tgid| process::read(&self.proc, *tgid).ok());
        let mut children: HashMap<Tgid, Vec<Facts>> = HashMap::new();
        for facts in facts {
            children.entry(facts.parent).or_default().push(facts);
        }
        let mut parents: Vec<Tgid> = self.traced.keys().copied().collect();
        while let Some(parent) = parents.pop() {
            for facts in children.remove(&parent).unwrap_or_default() {
                let tgid = facts.tgid;
                if tgid.0 == std::process::id() || self.traced.contains_key(&tgid) {
                    continue;
                }
                self.select(selection, facts, Why::Named, true, announce)?;
                parents.push(tgid);
            }
        }
        Ok(())
    }

    /// Selects a program that the agent itself has started, with all its descendants.
    pub(super) fn add(
        &mut self,
        selection: &mut Selection,
        tgid: Tgid,
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Result<(), TargetError> {
        let facts = process::read(&self.proc, tgid)?;
        Ok(self.select(selection, facts, Why::Named, true, announce)?)
    }

    /// Takes in what an event tells about processes.
    pub(super) fn event(
        &mut self,
        selection: &mut Selection,
        event: &Event<'_>,
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Result<(), CaptureError> {
        match *event {
            Event::Exec { tgid, path, .. } => self.exec(selection, tgid, path, announce),
            Event::Fork { tgid, parent_tgid, .. } if tgid != parent_tgid => {
                self.fork(tgid, parent_tgid, announce);
                Ok(())
            }
            Event::Listen(ref socket) => {
                let Address::Tcp(local) = socket.local else { return Ok(()) };
                let wanted = self.rules.ports.contains(&local.port());
                if !wanted || self.traced.contains_key(&socket.tgid) {
                    return Ok(());
                }
                let Ok(facts) = process::read(&self.proc, socket.tgid) else { return Ok(()) };
                self.confirm(selection, facts, Why::Named, true, announce)
            }
            Event::Cgroup { tgid, name } => {
                // What follows may have been lost.
                if self.cgroups.len() >= CGROUPS_MAX {
                    self.cgroups.clear();
                }
                let names = self.cgroups.entry(tgid).or_default();
                if names.len() < CGROUPS_EACH_MAX {
                    names.push(String::from_utf8_lossy(name).into_owned());
                }
                Ok(())
            }
            Event::Exit { tgid, .. } => {
                self.traced.remove(&tgid);
                self.cgroups.remove(&tgid);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether the children of a traced process are traced, and where its goroutines are found; `None`
    /// if it is not traced.
    pub(super) fn about(&self, tgid: Tgid) -> Option<(bool, Option<Goroutines>)> {
        self.traced.get(&tgid).map(|target| (target.follow, target.goroutines))
    }

    /// How many processes are traced.
    pub(super) fn len(&self) -> usize {
        self.traced.len()
    }

    /// Whether none is.
    pub(super) fn is_empty(&self) -> bool {
        self.traced.is_empty()
    }

    /// How many were traced until now.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether a process may yet come to be traced by itself.
    pub(super) fn may_grow(&self) -> bool {
        self.rules.matches_new_programs() || !self.rules.ports.is_empty()
    }

    /// The traced processes: id, service name and events lost by the kernel half.
    pub(super) fn losses(&self, selection: &Selection) -> Vec<(Tgid, String, u64)> {
        let lost = |(tgid, target): (&Tgid, &Target)| {
            let lost = selection.lost(tgid.0).filter(|lost| *lost > 0)?;
            Some((*tgid, target.facts.comm.clone(), lost))
        };
        self.traced.iter().filter_map(lost).collect()
    }

    fn exec(
        &mut self,
        selection: &mut Selection,
        tgid: Tgid,
        path: &[u8],
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Result<(), CaptureError> {
        let cgroups = self.cgroups.remove(&tgid).unwrap_or_default();
        let known = self.traced.get(&tgid);
        let named = known.filter(|target| target.why == Why::Named);
        let facts = match process::read(&self.proc, tgid) {
            Ok(facts) => facts,
            // It has ended already; its events may still come.
            Err(_) => brief(tgid, path, cgroups, known.map(|target| &target.facts)),
        };
        let target = match named {
            Some(target) => Some((Why::Named, target.follow)),
            None if self.rules.wants(&facts) => Some((Why::Program, true)),
            None => None,
        };
        if let Some((why, follow)) = target {
            return self.confirm(selection, facts, why, follow, announce);
        }
        self.traced.remove(&tgid);
        selection.ignore(tgid.0)?;
        // Another program may have begun between the look and the verdict. It would be told of soon,
        // but what it does until then would not be captured.
        let is_another =
            facts.exe_id.is_some() && process::exe_id(&self.proc, tgid) != facts.exe_id;
        let Some(facts) = is_another.then(|| process::read(&self.proc, tgid).ok()).flatten() else {
            return Ok(());
        };
        if self.rules.wants(&facts) {
            self.select(selection, facts, Why::Program, true, announce)?;
        }
        Ok(())
    }

    /// A child is traced if the kernel half has selected it, that is if its parent is followed.
    fn fork(&mut self, tgid: Tgid, parent: Tgid, announce: &mut dyn FnMut(&Step<'_>)) {
        let Some(target) = self.traced.get(&parent).filter(|target| target.follow) else { return };
        let (why, follow) = (target.why, target.follow);
        let facts = process::read(&self.proc, tgid).unwrap_or_else(|_| {
            // Until it execs it is what its parent is.
            Facts { tgid, parent, inner_pid: tgid.0, start_ticks: 0, ..target.facts.clone() }
        });
        // The kernel half has selected it when it was forked. Selecting it here could select
        // another process that has its id by now.
        self.announce(facts, why, follow, announce);
    }

    fn select(
        &mut self,
        selection: &mut Selection,
        facts: Facts,
        why: Why,
        follow: bool,
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Result<(), CaptureError> {
        let tgid = facts.tgid;
        selection.select(tgid.0, follow, self.payload_limit)?;
        self.settle(selection, facts, why, follow, announce)?;
        // Its end has been told before it was selected, or may have been.
        if !process::runs(&self.proc, tgid) {
            selection.deselect(tgid.0);
            self.traced.remove(&tgid);
        }
        Ok(())
    }

    /// As [`select`](Self::select), for a process that the kernel half has told of.
    fn confirm(
        &mut self,
        selection: &mut Selection,
        facts: Facts,
        why: Why,
        follow: bool,
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Result<(), CaptureError> {
        selection.confirm(facts.tgid.0, follow, self.payload_limit)?;
        self.settle(selection, facts, why, follow, announce)
    }

    fn settle(
        &mut self,
        selection: &mut Selection,
        facts: Facts,
        why: Why,
        follow: bool,
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Result<(), CaptureError> {
        // It may have ended, and its id be another process's, since the facts were read.
        if process::start_ticks(&self.proc, facts.tgid) != Some(facts.start_ticks) {
            selection.deselect(facts.tgid.0);
        }
        let tgid = facts.tgid;
        // Announced all the same: records of it may be on their way.
        match self.announce(facts, why, follow, announce) {
            Some(tasks) => selection.tasks(tgid.0, tasks),
            None => Ok(()),
        }
    }

    /// Tells the pipeline of a process; returns what the kernel half can find in it.
    fn announce(
        &mut self,
        facts: Facts,
        why: Why,
        follow: bool,
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Option<Tasks> {
        let runtime = runtime::detect(&self.proc, &facts);
        let resource: Resource = resource::resource(&facts, runtime.as_ref(), &self.host);
        let tasks = runtime::tasks(&self.proc, &facts, runtime.as_ref());
        let goroutines = runtime.as_ref().and_then(|runtime| runtime.goroutines);
        let multiplexes_tasks = runtime.is_some_and(|runtime| runtime.multiplexes_tasks);
        let tgid = facts.tgid;
        tracing::info!(
            pid = tgid.0,
            service = %resource.service_name,
            exe = %facts.exe.display(),
            "tracing process"
        );
        announce(&Step::Process { tgid, resource: Arc::new(resource), multiplexes_tasks });
        // Another program in a process that is traced already is no other process.
        let is_new = self.traced.insert(tgid, Target { facts, why, follow, goroutines }).is_none();
        self.seen += u64::from(is_new);
        tasks
    }
}

/// What is known of a program that ended before it could be looked at; its control groups by name.
fn brief(tgid: Tgid, path: &[u8], cgroups: Vec<String>, before: Option<&Facts>) -> Facts {
    let exe = PathBuf::from(String::from_utf8_lossy(path).into_owned());
    let name = Path::file_name(&exe).map(|name| name.to_string_lossy().into_owned());
    Facts {
        tgid,
        parent: before.map_or(Tgid(0), |before| before.parent),
        start_ticks: before.map_or(0, |before| before.start_ticks),
        comm: name.unwrap_or_default(),
        exe,
        deleted: false,
        exe_id: None,
        args: Vec::new(),
        uid: before.and_then(|before| before.uid),
        cgroups: match before {
            Some(before) if cgroups.is_empty() => before.cgroups.clone(),
            // As `/proc/PID/cgroup` has them, but for those around them.
            _ => cgroups.into_iter().map(|name| format!("0::/{name}")).collect(),
        },
        inner_pid: tgid.0,
        otel_service_name: None,
        otel_resource_attributes: None,
        cwd: PathBuf::new(),
    }
}
