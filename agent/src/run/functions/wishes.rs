//! What the user asks for.

use std::sync::Arc;

use crate::debuginfod::Debuginfod;
use crate::function::pattern::Patterns;
use crate::run::tracepoints::TracepointGlobs;

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
    /// Who is asked for debug files that are not here.
    pub debuginfod: Option<Arc<Debuginfod>>,
}

impl Wishes {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty() && !self.exceptions && self.tracepoints.is_empty()
    }

    /// Whether something may be asked for in a library.
    pub(super) fn concern_libraries(&self) -> bool {
        self.patterns.name_modules() || self.exceptions || !self.tracepoints.is_empty()
    }
}
