//! Which Unix sockets are still there, asked of the kernel half: no hook tells of their close.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use super::bpf::program;
use super::error::{AttachError, CaptureError};
use super::kernel::Kernel;
use super::object::Object;
use super::source::UNIX_SOCKETS;
use crate::event::ids::SocketId;

/// Sockets with a state of the kernel half's.
const SOCKETS: &str = "SOCKETS";

/// Asks for the sockets.
#[derive(Debug)]
pub(super) struct Living {
    link: OwnedFd,
}

impl Living {
    /// Loads what tells them.
    pub(super) fn new(object: &Object, kernel: &Kernel) -> Result<Self, CaptureError> {
        let name = UNIX_SOCKETS.program;
        let refused = |source| CaptureError::Attach { program: name, source };
        let kind = kernel.kind(&UNIX_SOCKETS)?.ok_or(CaptureError::NoSource)?;
        let program = object.program(name, kind).map_err(|error| refused(error.into()))?;
        let map = object.maps.fd(SOCKETS).map_err(CaptureError::Load)?;
        let link = program::iterate(program.as_fd(), map);
        Ok(Self { link: link.map_err(|error| refused(AttachError::Link(error)))? })
    }

    /// The ids of all Unix sockets that a process still has.
    pub(super) fn unix(&self) -> io::Result<HashSet<SocketId>> {
        let mut ids = Vec::new();
        File::from(program::iteration(self.link.as_fd())?).read_to_end(&mut ids)?;
        let (ids, _) = ids.as_chunks();
        Ok(ids.iter().map(|id| SocketId(u64::from_ne_bytes(*id))).collect())
    }
}
