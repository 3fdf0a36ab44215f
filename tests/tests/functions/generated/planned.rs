//! A program that was made up: its text, and what its functions are given and give back.
//!
//! Every function takes its arguments from a table, of which each call uses the next row, and writes into a
//! log that it was entered and left. So the log says which values each call had.

use super::expected::Expected;

/// Rows of each table.
pub(crate) const ROWS: usize = 8;

/// A made-up program.
pub(crate) struct Planned {
    /// Its text.
    pub(crate) source: String,
    /// Its functions: `g_0`, `g_1` and so on.
    pub(crate) functions: Vec<Function>,
    /// It switches between stacks that could be one.
    pub(crate) stacks_are_close: bool,
}

/// A function of one.
pub(crate) struct Function {
    /// Names of parameters, and their values row by row.
    pub(crate) parameters: Vec<(String, Vec<Expected>)>,
    pub(crate) result: Outcome,
    /// As it is written, for who reads of a lie.
    pub(crate) head: String,
}

/// What a function gives back.
#[derive(Clone)]
pub(crate) enum Outcome {
    Nothing,
    /// Something that is not looked at.
    Unknown,
    /// Row by row.
    Rows(Vec<Expected>),
    /// What it was given.
    Parameter(usize),
    /// What the last that it calls does; it does not log that it is left.
    Callee,
}
