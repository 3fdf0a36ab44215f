//! Sites in real programs, made here.
