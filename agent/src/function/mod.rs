//! Functions of running programs: which are meant, where their probes go, what is read there and what
//! that says. Pure: it attaches nothing and reads no process.

pub mod exception;
pub mod facts;
pub mod future;
pub(crate) mod numbers;
pub mod pattern;
pub mod plan;
pub mod site;
pub mod value;

/// A function that is probed; an index of the kernel half's map of budgets. Another one may have its number
/// when no process runs its file any more and its probes are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionNo(pub u32);
