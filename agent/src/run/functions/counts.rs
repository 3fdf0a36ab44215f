//! How much is probed, and what of that which was asked for is not there.

use std::collections::HashSet;

use super::Functions;
use super::file::File;
use super::numbered::Numbered;
use crate::function::FunctionNo;
use crate::probe::function::InUse;

impl Functions {
    /// How many functions are probed, those of remembered files included.
    pub(in crate::run) fn len(&self) -> usize {
        self.watch.len() - self.tracepoints() - self.exceptions()
    }

    /// At how many places exceptions are watched; `None` if that is not asked for.
    pub(in crate::run) fn hooks(&self) -> Option<usize> {
        self.wishes.exceptions.then(|| self.exceptions())
    }

    fn exceptions(&self) -> usize {
        let numbered = self.files.values().filter_map(File::numbered);
        let hooks = numbered.flat_map(Numbered::hooks);
        hooks.filter(|number| self.watch.has(FunctionNo(*number))).count()
    }

    /// How many static tracepoints are probed.
    pub(in crate::run) fn tracepoints(&self) -> usize {
        let numbered = self.files.values().filter_map(File::numbered);
        let tracepoints = numbered.flat_map(Numbered::tracepoints);
        tracepoints.filter(|number| self.watch.has(FunctionNo(*number))).count()
    }

    /// How many numbers are in use: functions', sites' and links'.
    pub(in crate::run) fn in_use(&self) -> (u32, InUse) {
        (self.numbers.used(), self.probes.in_use())
    }

    /// Tracepoints that were asked for and not found.
    pub(in crate::run) fn unmatched_tracepoints(&self) -> Vec<&str> {
        let numbered = self.files.values().filter_map(File::numbered);
        let found: Vec<&str> = numbered.flat_map(Numbered::tracepoint_names).collect();
        self.wishes.tracepoints.unmatched(&found).collect()
    }

    /// Patterns of which nothing was found.
    pub(in crate::run) fn unmatched(&self) -> Vec<&str> {
        let numbered = self.files.values().filter_map(File::numbered);
        let found: HashSet<&str> = numbered.flat_map(Numbered::patterns).collect();
        self.wishes.patterns.texts().filter(|text| !found.contains(text)).collect()
    }
}
