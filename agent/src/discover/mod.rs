//! Processes of this host: what they are, which ones are wanted, what they are called in a trace.
//!
//! Everything here races with the processes themselves: one that is gone, or whose id is another
//! process by now, is an answer, not a failure.

pub mod container;
pub(crate) mod libraries;
pub mod listeners;
pub(crate) mod maps;
pub(crate) mod mover;
pub mod process;
pub mod redact_args;
pub mod resource;
pub mod rules;
pub(crate) mod translator;
