//! The file that a link's probes are in, for as long as the link is there. Functions are taken out of a link
//! by making it anew, and what a path below `/proc/PID` has led to then may be another file: its process has
//! another program, or is another process.

use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::FunctionError;

/// A file by itself, whatever leads to it. It is not open for reading: a lease on it ends when others say.
#[derive(Debug)]
pub(super) struct Target {
    file: File,
    /// What leads to it while this is there.
    path: CString,
}

impl Target {
    pub(super) fn of(file: &File) -> Result<Self, FunctionError> {
        let path = link_to(file);
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(libc::O_PATH).open(&path);
        let file = file.map_err(|source| FunctionError::Attach { path: path.into(), source })?;
        let path = CString::new(link_to(&file)).map_err(FunctionError::Path)?;
        Ok(Self { file, path })
    }

    /// What leads to it.
    pub(super) fn path(&self) -> &CStr {
        &self.path
    }

    /// What it is called, for messages.
    pub(super) fn name(&self) -> PathBuf {
        std::fs::read_link(link_to(&self.file)).unwrap_or_default()
    }
}

fn link_to(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}
