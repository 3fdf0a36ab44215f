//! Keeps a probed file from being written. While a process runs it the kernel refuses that itself; but when
//! the last one has ended, the file may be written anew before its probes are gone, and the kernel would put
//! breakpoints at the places of the old instructions into whoever runs the new ones.
//!
//! A lease makes who opens the file for writing wait until it is given up: as long as detaching takes, and at
//! most `/proc/sys/fs/lease-break-time`. It goes with its descriptor.
#![expect(unsafe_code, reason = "leases are calls of fcntl(2) without a safe wrapper in std")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// A file that is not written while this is there.
#[derive(Debug)]
pub(super) struct Lease {
    file: File,
}

impl Lease {
    /// Takes it, for as long as the file or a copy of it is open; an error if somebody has the file open for writing, or its file system has no leases.
    pub(super) fn take(file: File) -> io::Result<Self> {
        // SAFETY: a plain syscall on an open descriptor and an integer.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { file })
    }

    /// Whether somebody waits for it to be given up. SIGIO tells when to ask.
    pub(super) fn is_wanted(&self) -> bool {
        // While it is being broken, this is what it is to become.
        // SAFETY: as above.
        let kind = unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_GETLEASE) };
        kind != libc::F_RDLCK
    }

    /// The file, with the lease, which goes when it is closed.
    pub(super) fn into_file(self) -> File {
        self.file
    }
}
