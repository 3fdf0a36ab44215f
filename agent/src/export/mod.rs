//! Getting finished spans out: encoders, senders, files and the terminal.
//!
//! Each destination has its own bounded queue, its own retries and its own counters, so that a
//! dead one hurts no other. Nothing here knows where spans come from.
