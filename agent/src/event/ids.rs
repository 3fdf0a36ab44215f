//! Identities of what events are about.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A process, in the initial pid namespace.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Tgid(pub u32);

/// A thread, in the initial pid namespace.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Tid(pub u32);

/// A socket: unique while the agent runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u64);

/// A probed instruction, numbered while the agent runs.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct SiteNo(pub u32);

/// A place on a stack, which grows downwards: what is called lies lower. For a goroutine, whose stack
/// may move, it is counted from its stack's upper end, wrapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackPointer(pub u64);

/// A unit of work, as the runtime itself tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TaskId {
    /// Its process.
    pub tgid: Tgid,
    /// One of `agent_common::task_kind`.
    pub kind: u8,
    /// The runtime's id, or the thread's.
    pub id: u64,
}

/// One end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An end of a TCP connection. IPv4-mapped addresses are IPv4 here.
    Tcp(SocketAddr),
    /// An end of a Unix stream, by the kernel's identity of it while it lives; 0 is unknown.
    Unix(u64),
}

impl Address {
    /// From an IPv6 address (IPv4 mapped) in network order.
    pub fn tcp(ip: [u8; 16], port: u16) -> Self {
        Self::Tcp(SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), port))
    }

    /// The IP end, if it is one.
    pub fn ip(self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(address),
            Self::Unix(_) => None,
        }
    }

    /// Whether the address means something only inside its network namespace.
    pub fn is_local_to_namespace(self) -> bool {
        match self {
            Self::Tcp(address) => match address.ip() {
                IpAddr::V4(ip) => ip.is_loopback(),
                IpAddr::V6(ip) => ip.is_loopback(),
            },
            Self::Unix(_) => false,
        }
    }
}
