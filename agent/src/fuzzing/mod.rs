//! What is fed with hostile input, for fuzzers and for the tests that replay their corpus. Each
//! function takes any bytes; it panics only if a promise of the code behind it is broken.

pub mod wire;
pub mod witness;
