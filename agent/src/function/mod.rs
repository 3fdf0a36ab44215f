//! Functions of running programs: which are meant, where their probes go, what is read there and what
//! that says. Pure: it attaches nothing and reads no process.

pub mod exception;
pub mod facts;
pub mod future;
pub mod pattern;
pub mod plan;
pub mod site;
pub mod value;

/// A function that is probed, numbered from 0 in the order in which they were chosen; an index of the
/// kernel half's map of budgets. Never used twice while the agent runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionNo(pub u32);
