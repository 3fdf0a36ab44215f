//! Telling systemd about the agent's state (sd_notify(3)).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `state` to the service manager, if one asked for it.
pub(super) fn tell(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let path = path.as_encoded_bytes();
    let address = match path.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(std::path::Path::new(&*String::from_utf8_lossy(path))),
    };
    let send = || {
        let socket = UnixDatagram::unbound()?;
        socket.send_to_addr(state.as_bytes(), &address?)
    };
    if let Err(error) = send() {
        tracing::warn!(%error, state, "cannot tell the service manager");
    }
}
