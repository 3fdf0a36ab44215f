//! Which Unix sockets are closed, asked of the kernel half: no hook tells of that.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use super::bpf::program;
use super::error::{AttachError, CaptureError};
use super::kernel::Kernel;
use super::object::Object;
use super::source::{GONE_SOCKETS, Source, UNIX_SOCKETS};
use crate::event::ids::SocketId;

/// Sockets with a state of the kernel half's.
const SOCKETS: &str = "SOCKETS";
const SOCKETS_FOUND: &str = "SOCKETS_FOUND";

/// Asks for the sockets.
#[derive(Debug)]
pub(super) struct Living {
    link: OwnedFd,
    /// Whether those are told that are there; or else those that are not.
    tells_living: bool,
}

impl Living {
    /// Loads what tells them.
    pub(super) fn new(
        object: &Object,
        kernel: &Kernel,
        source: Source,
    ) -> Result<Self, CaptureError> {
        let tells_living = source != Source::SyscallExit;
        let (attachment, map) =
            if tells_living { (&UNIX_SOCKETS, SOCKETS) } else { (&GONE_SOCKETS, SOCKETS_FOUND) };
        let name = attachment.program;
        let refused = |source| CaptureError::Attach { program: name, source };
        let kind = kernel.kind(attachment)?.ok_or(CaptureError::NoSource)?;
        let program = object.program(name, kind).map_err(|error| refused(error.into()))?;
        let map = object.maps.fd(map).map_err(CaptureError::Load)?;
        let link = program::iterate(program.as_fd(), map);
        let link = link.map_err(|error| refused(AttachError::Link(error)))?;
        Ok(Self { link, tells_living })
    }

    /// Those of these Unix sockets that no process has any more.
    pub(super) fn gone(&self, mut sockets: Vec<SocketId>) -> io::Result<Vec<SocketId>> {
        let mut told = Vec::new();
        File::from(program::iteration(self.link.as_fd())?).read_to_end(&mut told)?;
        let (ids, _) = told.as_chunks();
        let told: HashSet<_> = ids.iter().map(|id| SocketId(u64::from_ne_bytes(*id))).collect();
        sockets.retain(|socket| told.contains(socket) != self.tells_living);
        Ok(sockets)
    }
}
