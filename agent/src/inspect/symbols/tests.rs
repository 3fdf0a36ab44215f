//! Symbols of real files, made here.
