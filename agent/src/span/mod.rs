//! Spans: what they are, how they are put together and who their parents are.

pub mod attributes;
pub mod model;
