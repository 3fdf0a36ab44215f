//! Tests of values.

mod compiled;
mod exact;
mod hostile;
mod tracee;
