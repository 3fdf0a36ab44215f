//! The edge to the kernel: the only place that names aya's parser. Loads the eBPF objects, attaches their
//! programs, hands out the raw records and the maps behind them.

mod bpf;
mod capture;
mod error;
pub mod function;
mod kernel;
mod living;
mod map;
mod object;
mod offsets;
pub mod plan;
mod ring;
mod selection;
mod source;
mod wait;

pub use self::object::ObjectError;
pub use bpf::program::{Refused, Verified};
pub use capture::{Capture, Counters, Options};
pub use error::{AttachError, CaptureError};
pub use ring::Ring;
pub use selection::Selection;
pub use source::Source;
pub use wait::Until;
