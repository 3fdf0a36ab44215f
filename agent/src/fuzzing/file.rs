//! Bytes as a file that can be opened by a path, which goes with it. It has no name on any disk.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, memfd_create};

/// A file in memory.
pub(super) struct MemoryFile(File);

impl MemoryFile {
    pub(super) fn of(bytes: &[u8]) -> io::Result<Self> {
        let mut file = File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC)?);
        file.write_all(bytes)?;
        Ok(Self(file))
    }

    /// By this, this process can open it.
    pub(super) fn path(&self) -> PathBuf {
        [DIRECTORY, &self.name()].iter().collect()
    }

    /// Its name below [`DIRECTORY`].
    pub(super) fn name(&self) -> String {
        self.0.as_raw_fd().to_string()
    }
}

/// Where such files are.
pub(super) const DIRECTORY: &str = "/proc/self/fd";
