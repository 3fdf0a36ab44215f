//! What is attached where, under which numbers: the probes of a file come when a process runs it, and go
//! with the last one.

use std::collections::{BTreeSet, HashSet};
use std::iter;
use std::ops::Range;
use std::path::Path;

use super::file::{Content, File, FileId, Mapped, Version};
use super::lease::Lease;
use super::numbered::{self, Numbered};
use super::tell::list;
use super::{Functions, Reach, Spared, rewritten};
use crate::discover::process;
use crate::event::ids::{SiteNo, Tgid};
use crate::function::FunctionNo;
use crate::function::numbers::Numbers;
use crate::inspect::regular;
use crate::inspect::runtime::Goroutines;
use crate::pipeline::Step;
use crate::platform::clock;
use crate::probe::function::{FunctionError, Need, SitesNo};
use crate::run::planner::Found;

/// Most files that are remembered though no process runs them, and most that is probed of all of them.
const RESTING_MAX: usize = 64;
const RESTING_NUMBERS_MAX: u32 = 1 << 14;

impl Functions {
    /// Attaches what was found in a file for a process that runs it. That it cannot be is no reason to end
    /// all: the process may be gone, or there are too many.
    pub(super) fn attach(
        &mut self,
        tgid: Tgid,
        module: &Mapped,
        reach: Reach,
        announce: &mut dyn FnMut(&Step<'_>),
    ) {
        let name = &module.name;
        let Some(file) = self.files.get(&module.id) else { return };
        if file.everywhere.is_some() || matches!(file.content, Content::Nothing) {
            return;
        }
        // Gone with its process.
        let Ok(open) = regular::must_open(&module.open) else { return };
        let others = if reach == Reach::Everywhere { others(tgid, module) } else { Vec::new() };
        let reach = if self.harms(&others) { Reach::Alone } else { reach };
        // Before it is compared: from here on it stays as it is.
        let lease = match reach {
            Reach::Everywhere => open.try_clone().and_then(Lease::take),
            Reach::Alone => Err(std::io::ErrorKind::Unsupported.into()),
        };
        let now = open.metadata().map(|now| (FileId::from(&now), Version::from(&now)));
        match now {
            Ok((id, version)) if id == module.id && version == file.version => {}
            // Its process has another program by now, or is another one.
            Ok((id, _)) if id != module.id => return,
            _ => {
                tracing::warn!(module = name, "not probed: the file has changed while it runs");
                return;
            }
        }
        let goroutines = self.processes.get(&tgid).and_then(|process| process.goroutines);
        let sites = match self.sites(module, goroutines, announce) {
            Ok(Some(sites)) => sites,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(module = name, %error, "functions are not probed");
                return;
            }
        };
        let (lease, scope) = match lease {
            Ok(lease) => {
                // What is told of all is not to be told of some twice.
                self.detach_alone(module.id);
                (Some(lease), None)
            }
            // On these kernels every probe is one of all processes.
            Err(error) if !self.trust.sees_threads => {
                tracing::warn!(
                    module = name,
                    %error,
                    "not probed: the file may be written while it is, or another process may not have probes"
                );
                return;
            }
            Err(error) => {
                tracing::debug!(module = name, %error, "each process has probes of its own");
                (None, Some(tgid.0))
            }
        };
        let others = if scope.is_none() { others.as_slice() } else { &[] };
        if let Err(error) = self.spare_rewritten(tgid, others, module, sites) {
            tracing::warn!(module = name, %error, "functions are not probed");
            return;
        }
        let attached = self.probes.begin(sites, &open, scope).and_then(|link| {
            let begun = self.begin_ramp(link, name, tgid, clock::now());
            begun.map(|()| link).inspect_err(|_| self.probes.detach(link))
        });
        let link = match attached {
            Ok(link) => link,
            Err(error) => {
                tracing::warn!(module = name, %error, "functions are not probed");
                return;
            }
        };
        match (lease, self.processes.get_mut(&tgid), self.files.get_mut(&module.id)) {
            (Some(lease), _, Some(file)) => file.everywhere = Some((link, lease)),
            (None, Some(process), _) => process.links.push((module.id, link)),
            // Not reached: both are there above.
            _ => self.probes.detach(link),
        }
        tracing::info!(module = name, pid = tgid.0, "functions are probed");
    }

    /// Whether probes in all who run an executable would be in processes that are not to have any.
    fn harms(&self, others: &[Tgid]) -> bool {
        others.iter().any(|other| {
            let known = self.processes.get(other).map(|process| process.spared);
            known.unwrap_or_else(|| Spared::of_process(*other)).includes(true)
        })
    }

    /// Takes out the functions that a process has changed which is about to have probes, or one of others.
    fn spare_rewritten(
        &mut self,
        tgid: Tgid,
        others: &[Tgid],
        module: &Mapped,
        sites: SitesNo,
    ) -> Result<(), FunctionError> {
        let places = self.probes.places(sites);
        let proc = Path::new("/proc");
        let concerned = iter::once(&tgid).chain(others);
        let of_one = |tgid: &Tgid| rewritten::functions(proc, *tgid, module, &places);
        let changed: HashSet<FunctionNo> = concerned.flat_map(of_one).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let numbered = self.files.get(&module.id).and_then(File::numbered);
        let sorted: BTreeSet<FunctionNo> = changed.iter().copied().collect();
        let names = sorted.into_iter().filter_map(|function| numbered?.name(function));
        tracing::warn!(
            module = module.name,
            pid = tgid.0,
            functions = changed.len(),
            "not probed, because in memory they are not what they are in the file: {}",
            list(names)
        );
        let changed: Vec<FunctionNo> = changed.into_iter().collect();
        self.probes.take_out(sites, &changed)
    }

    fn detach_alone(&mut self, id: FileId) {
        for process in self.processes.values_mut() {
            for (_, link) in process.links.extract_if(.., |(file, _)| *file == id) {
                self.probes.detach(link);
            }
        }
    }

    /// The sites of a file in which there is something to probe. They have their numbers from when they are attached first until the file is
    /// forgotten.
    fn sites(
        &mut self,
        module: &Mapped,
        goroutines: Option<Goroutines>,
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Result<Option<SitesNo>, FunctionError> {
        let file = self.files.get_mut(&module.id);
        // Taken out: what is numbered is not needed any more.
        let found = match file.map(|file| std::mem::replace(&mut file.content, Content::Nothing)) {
            Some(Content::Found(found)) => found,
            Some(content) => {
                let sites = match &content {
                    Content::Numbered(numbered) => Some(numbered.sites),
                    _ => None,
                };
                self.set(module.id, content);
                return Ok(sites);
            }
            None => return Ok(None),
        };
        let numbered = loop {
            self.give_back_numbers();
            let error = match self.number(&found, goroutines) {
                Ok(numbered) => break numbered,
                Err(error) => error,
            };
            // A file that nobody runs makes room.
            match self.resting.front().copied() {
                Some(oldest) => self.drop_file(oldest),
                None if self.grow(numbered::need(std::iter::once(&found))) => {}
                None => {
                    self.set(module.id, Content::Found(found));
                    return Err(error);
                }
            }
        };
        let (_, sites, written) = &numbered;
        self.cold.extend(numbered::cold(&found, module.id, *sites, written));
        let sites = *sites;
        let numbered = Numbered::new(found, &module.name, numbered, announce);
        self.set(module.id, Content::Numbered(numbered));
        Ok(Some(sites))
    }

    fn set(&mut self, id: FileId, content: Content) {
        if let Some(file) = self.files.get_mut(&id) {
            file.content = content;
        }
    }

    fn number(
        &mut self,
        found: &Found,
        goroutines: Option<Goroutines>,
    ) -> Result<(Range<u32>, SitesNo, Vec<SiteNo>), FunctionError> {
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
    pub(super) fn rest(&mut self, id: FileId) {
        let Some(file) = self.files.get_mut(&id).filter(|file| file.users.is_empty()) else {
            return;
        };
        if let Some((link, lease)) = file.everywhere.take() {
            self.probes.detach_before(link, Some(lease.into_file().into()));
        }
        self.resting.retain(|resting| *resting != id);
        self.resting.push_back(id);
        let numbers = |id: &FileId| {
            let numbered = self.files.get(id).and_then(File::numbered);
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

    /// Takes the probes out of the files that somebody wants to write: no process runs them any more, though
    /// that may not have been told yet.
    pub(in crate::run) fn give_up_leases(&mut self) {
        for file in self.files.values_mut() {
            if let Some((link, lease)) = file.everywhere.take_if(|(_, lease)| lease.is_wanted()) {
                self.probes.detach_before(link, Some(lease.into_file().into()));
            }
        }
    }

    /// Forgets a file that no process runs.
    pub(super) fn drop_file(&mut self, id: FileId) {
        self.resting.retain(|resting| *resting != id);
        let Some(file) = self.files.remove(&id) else { return };
        if let Some((link, lease)) = file.everywhere {
            self.probes.detach_before(link, Some(lease.into_file().into()));
        }
        if let Content::Numbered(numbered) = file.content {
            self.cold.retain(|_, (sites, _)| *sites != numbered.sites);
            self.leaving.insert(numbered.sites, numbered.numbers);
            self.probes.free(numbered.sites);
        }
    }

    /// Numbers of which the last probe is gone may be given to others.
    pub(super) fn give_back_numbers(&mut self) {
        for sites in self.probes.take_freed() {
            let Some(numbers) = self.leaving.remove(&sites) else { continue };
            if let Err(error) = self.watch.forget(numbers.clone(), &mut self.probes) {
                tracing::warn!(%error, "numbers of functions are not used again");
                continue;
            }
            self.numbers.give_back(numbers);
        }
    }

    /// Makes room for so much, if nothing is numbered yet; whether it did.
    pub(super) fn grow(&mut self, need: Need) -> bool {
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
}

/// Who else runs an executable, traced or not: probes in all of its processes are in these, too.
fn others(tgid: Tgid, module: &Mapped) -> Vec<Tgid> {
    if !module.is_executable {
        return Vec::new();
    }
    let proc = Path::new("/proc");
    let runs = |other: &Tgid| {
        let exe = process::directory(proc, *other).join("exe");
        *other != tgid && FileId::of(&exe) == Some(module.id)
    };
    process::all(proc).unwrap_or_default().into_iter().filter(runs).collect()
}
