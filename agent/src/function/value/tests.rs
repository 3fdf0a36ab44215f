//! Tests of values.

mod exact;
mod tracee;
