//! A whole file, which claims to be a program.

use super::file::MemoryFile;
use super::program::{self, Program};

pub(super) fn run(bytes: &[u8]) {
    // The system has no more descriptors: there is nothing to find out.
    let Ok(file) = MemoryFile::of(bytes) else { return };
    let stack = bytes.get(bytes.len() / 2..).unwrap_or_default();
    program::check(&Program { path: &file.path(), aside: None, stack });
}
