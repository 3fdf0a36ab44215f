//! OTLP 1.11: encoders for its two forms, a sender for its two transports.

pub mod config;
pub mod encode;
pub mod json;
pub(crate) mod send;
mod wire;
