//! The encoder against an oracle.
