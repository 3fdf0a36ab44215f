//! The edge to the kernel: the only place that names aya. Loads the eBPF object, attaches its
//! programs, hands out the raw records and the maps behind them.

mod capture;
pub mod function;
mod offsets;
pub mod plan;
mod wait;

pub use capture::{Capture, CaptureError, Counters, Options, Ring, Selection, Source, Verified};
pub use wait::Until;
