//! Spans: what they are, how they are put together and who their parents are.

pub mod attributes;
pub mod calls;
mod events;
mod exchange;
mod finish;
pub mod http;
mod identity;
pub mod model;
pub mod propagation;
pub mod redact;
pub mod sampler;
mod sockets;
pub mod standing;
mod state;
mod tasks;
pub mod tracker;
