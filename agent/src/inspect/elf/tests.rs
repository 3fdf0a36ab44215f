//! Real files and damaged ones.
