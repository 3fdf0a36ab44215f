//! remora: zero-code tracing for running Linux processes.
//!
//! The library behind the `remora` binary. See ARCHITECTURE.md for the map.

pub mod cli;
pub mod config;
pub mod debuginfod;
pub mod discover;
pub mod event;
pub mod export;
pub mod function;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod inspect;
pub mod pipeline;
pub mod platform;
pub mod probe;
pub mod protocol;
pub mod run;
#[cfg(test)]
mod scratch;
pub mod span;
pub mod stack;
