//! What is asked for: a probe on one instruction, what it reads and what it costs.

use agent_common::function::Op;

use crate::function::FunctionNo;
use crate::function::plan::{Code, Planned};
use crate::function::site::{CostClass, Site};
use crate::inspect::address::FileOffset;
use crate::inspect::demangle::Language;
use crate::inspect::runtime::Goroutines;

/// What a hit costs the target on this host, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HitCosts {
    /// [`CostClass::Emulated`]
    pub emulated_ns: u32,
    /// [`CostClass::Stepped`]
    pub stepped_ns: u32,
    /// A copy of a whole stack beside that.
    pub image_ns: u32,
}

impl HitCosts {
    /// What is assumed where nothing was measured: a slow virtual machine's, so that budgets err on
    /// the target's side.
    pub const ASSUMED: Self = Self { emulated_ns: 1_000, stepped_ns: 10_000, image_ns: 10_000 };

    /// What a hit of this class costs.
    pub fn of(self, class: CostClass) -> u32 {
        match class {
            CostClass::Emulated => self.emulated_ns,
            CostClass::Stepped => self.stepped_ns,
        }
    }
}

/// How the task of a hit is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskSource {
    /// It is the thread.
    Thread,
    /// It is the goroutine whose `g` is in the register where Go's calling convention has it; its id
    /// lies at this offset.
    Goroutine {
        /// Bytes from the start of `g`.
        id_offset: u32,
    },
}

/// A probe.
#[derive(Clone, Debug)]
pub struct Point {
    /// Where it goes and what it means.
    pub site: Site,
    /// What it reads.
    pub ops: Vec<Op>,
    /// The function that it belongs to.
    pub function: FunctionNo,
    /// For a static tracepoint: where its semaphore lies in the file, a word that the kernel counts up
    /// while the probe is there.
    pub semaphore: Option<FileOffset>,
    /// How the task is found.
    pub task: TaskSource,
}

impl Point {
    /// The probes of a function, under this number: its entry's, then those of its ends in their order.
    pub fn all_of(
        planned: &Planned,
        function: FunctionNo,
        goroutines: Option<Goroutines>,
    ) -> impl Iterator<Item = Self> {
        let task = match (planned.language, goroutines) {
            (Language::Go, Some(at)) => TaskSource::Goroutine { id_offset: at.goid_offset },
            _ => TaskSource::Thread,
        };
        let point = move |site, code: &Code| Self {
            site,
            ops: code.ops.clone(),
            function,
            semaphore: None,
            task,
        };
        planned.placement.sites().map(move |site| point(*site, planned.code(site.kind)))
    }
}
