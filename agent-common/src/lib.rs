//! The wire types that the kernel half and the user half share.
//!
//! Everything here crosses a ring buffer or a map, so it is plain integers in `repr(C)` structs
//! with explicit padding; sizes are checked at compile time. Nothing here decides anything.
#![no_std]
#![forbid(unsafe_code)]

pub mod function;

/// Version of the event layout; stored in recordings, checked when one is replayed.
pub const WIRE_VERSION: u32 = 1;

/// What an event record is: the first byte of every record.
pub mod kind {
    /// [`Io`](super::Io): bytes moved over a socket.
    pub const IO: u8 = 1;
    /// [`Socket`](super::Socket): what a socket is; precedes its first [`Io`](super::Io).
    pub const SOCKET: u8 = 2;
    /// [`Process`](super::Process): a task forked.
    pub const FORK: u8 = 3;
    /// [`Process`](super::Process): a process replaced its program.
    pub const EXEC: u8 = 4;
    /// [`Process`](super::Process): a process (its last thread) ended.
    pub const EXIT: u8 = 5;
    /// [`Socket`](super::Socket): a socket began to listen.
    pub const LISTEN: u8 = 6;
    /// [`Socket`](super::Socket): a traced socket is closed for good.
    pub const CLOSE: u8 = 7;
    /// [`Socket`](super::Socket): the process will send no more on a traced socket (a FIN is out).
    pub const SHUTDOWN: u8 = 8;
    /// [`Hit`](super::function::Hit): a function probe was hit.
    pub const HIT: u8 = 9;
    /// [`Process`](super::Process): a thread has met a signal that ends its process with an error.
    pub const SIGNAL: u8 = 10;
    /// [`Process`](super::Process): a thread of a process whose functions are probed ended, and others are
    /// still there.
    pub const THREAD_EXIT: u8 = 11;
    /// [`Image`](super::function::Image): the stack of a thread, before the record of what it met.
    pub const IMAGE: u8 = 12;
    /// [`Process`](super::Process): a process is about to be told of that runs a new program; a control
    /// group of it has this name, which may be that of a container.
    pub const CGROUP: u8 = 13;
}

/// In an exit's [`Process::parent_tgid`]: it is not known how the process ended, or the thread alone has.
pub const STATUS_UNKNOWN: u32 = u32::MAX;

/// How many bits of [`Header::cpu`] name the CPU.
pub const SLOT_SHIFT: u32 = 12;

/// The sixteen bytes that begin every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// One of [`kind`].
    pub kind: u8,
    /// Bits whose meaning depends on the kind: [`io_flags`] or [`socket_flags`].
    pub flags: u8,
    /// Who wrote the record: the CPU in the low [`SLOT_SHIFT`] bits, which of the programs above.
    pub cpu: u16,
    /// Counts the records of that program on that CPU, lost ones included; a gap is a loss.
    pub cpu_seq: u32,
    /// `CLOCK_MONOTONIC`, nanoseconds, when the operation returned.
    pub ts_ns: u64,
}

/// Bits of [`Header::flags`] in an [`Io`].
pub mod io_flags {
    /// Set when bytes left the process, clear when they entered it.
    pub const OUTBOUND: u8 = 1;
    /// The payload could not be read (io_uring, sendfile, splice, a page that is gone).
    pub const NO_PAYLOAD: u8 = 1 << 1;
    /// The last [`SUFFIX_BYTES`](super::SUFFIX_BYTES) bytes of the payload are the last bytes of
    /// the operation, not those that follow the prefix.
    pub const SUFFIX: u8 = 1 << 2;
    /// [`Io::tcp_seq`] holds the sequence number behind the operation's last byte.
    pub const TCP_SEQ: u8 = 1 << 3;
    /// The socket was in non-blocking mode; told of inbound operations only.
    pub const NONBLOCKING: u8 = 1 << 4;
    /// The operation ended the stream in its direction (a read returned 0).
    pub const END: u8 = 1 << 5;
    /// The operation failed; [`Io::len`] holds the positive errno.
    pub const ERROR: u8 = 1 << 6;
    /// The connection was over in both directions when the operation returned: only what had come
    /// before can still be read, and no record need follow.
    pub const OVER: u8 = 1 << 7;
}

/// How many of an operation's last bytes are kept when its payload is cut.
pub const SUFFIX_BYTES: usize = 8;

/// How a task's [`Io::task`] is to be read.
pub mod task_kind {
    /// The kernel thread is the task; [`Io::task`](super::Io::task) is 0.
    pub const THREAD: u8 = 0;
    /// A Go goroutine id.
    pub const GOROUTINE: u8 = 1;
    /// A Tokio task id.
    pub const TOKIO: u8 = 2;
    /// A Python context object.
    pub const PYTHON_CONTEXT: u8 = 3;
    /// A Node async id.
    pub const NODE_ASYNC: u8 = 4;
    /// A Java virtual thread.
    pub const VIRTUAL_THREAD: u8 = 5;
    /// The thread is the task, and sends for a request of nginx's: [`Io::task`](super::Io::task) is the
    /// socket that the request came by, or 0 for one that is not known; [`Io::task_flags`](super::Io::task_flags) and
    /// [`Io::task_seq`](super::Io::task_seq) say more.
    pub const NGINX_REQUEST: u8 = 6;
}

/// Bits of [`Io::task_flags`] where [`Io::task_kind`] is [`task_kind::GOROUTINE`].
pub mod goroutine_flags {
    /// It has not done the operation itself: it waits for the client of Go's `net/http`, which has.
    pub const CALLER: u8 = 1;
}

/// Bits of [`Io::task_flags`] where [`Io::task_kind`] is [`task_kind::NGINX_REQUEST`].
pub mod nginx_flags {
    /// It is what its connection is served with at the moment, not something beside that.
    pub const CURRENT: u8 = 1;
    /// [`Io::task_seq`](super::Io::task_seq) is the TCP sequence number up to which nginx has read from
    /// the socket that the request came by.
    pub const SEQ: u8 = 1 << 1;
}

/// One operation on a socket, followed by `copied` payload bytes (and padding to eight).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Io {
    /// Kind [`kind::IO`], flags [`io_flags`].
    pub header: Header,
    /// The socket's id, unique while the agent runs.
    pub socket: u64,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// The runtime's own id of its unit of work, if [`Io::task_kind`] says so.
    pub task: u64,
    /// Bytes that the operation moved.
    pub len: u32,
    /// Number of this operation on this socket, from 0, lost ones included.
    pub op: u32,
    /// TCP sequence number behind the last byte.
    pub tcp_seq: u32,
    /// Of a read how many nanoseconds at least, by the kernel's ticks, the socket's last data had been there, capped
    /// below; `u32::MAX` where that is not known.
    pub segment_age_ns: u32,
    /// Payload bytes that follow.
    pub copied: u16,
    /// One of [`task_kind`].
    pub task_kind: u8,
    /// Depends on the task's kind: [`goroutine_flags`], [`nginx_flags`], or zero.
    pub task_flags: u8,
    /// Depends on the task's kind, or zero.
    pub task_seq: u32,
}

/// Bits of [`Header::flags`] in a [`Socket`].
pub mod socket_flags {
    /// A peer connected to this socket; it came from `accept`.
    pub const ACCEPTED: u8 = 1;
    /// This side connected. For TCP it is the absence of a listener's backlog, so that a socket
    /// accepted from a `listen(fd, 0)` has this flag too.
    pub const CONNECTED: u8 = 1 << 1;
    /// Bytes had moved over the socket before the agent saw it. Without the flag they may have, for
    /// Unix sockets, or for TCP if they were fewer than five.
    pub const OLDER: u8 = 1 << 2;
    /// In a [`kind::CLOSE`](super::kind::CLOSE): the process still has the socket, and will learn of
    /// its end (a peer's reset, a timeout) by its next operation.
    pub const HELD: u8 = 1 << 3;
    /// In a [`kind::SHUTDOWN`](super::kind::SHUTDOWN) or [`kind::CLOSE`](super::kind::CLOSE): the process
    /// has closed the socket, and [`Socket::tgid`](super::Socket::tgid) says how far it had read.
    pub const READ_TO: u8 = 1 << 4;
    /// In a [`kind::SOCKET`](super::kind::SOCKET): [`Socket::from`](super::Socket::from) is known.
    pub const FROM: u8 = READ_TO;
    /// As [`READ_TO`], and [`Socket::netns`](super::Socket::netns) says how far it had written.
    pub const WRITTEN_TO: u8 = 1 << 5;
    /// As [`READ_TO`]: bytes had been read from the socket since it was there (more than four), whoever
    /// has done that.
    pub const READ: u8 = 1 << 6;
    /// As [`READ`], bytes had been written.
    pub const WRITTEN: u8 = 1 << 7;
}

/// Address families as in `<sys/socket.h>`.
pub mod family {
    /// Unix domain.
    pub const UNIX: u16 = 1;
    /// IPv4.
    pub const INET: u16 = 2;
    /// IPv6.
    pub const INET6: u16 = 10;
}

/// What a socket is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Socket {
    /// Kind [`kind::SOCKET`], [`kind::LISTEN`], [`kind::SHUTDOWN`] or [`kind::CLOSE`], flags [`socket_flags`].
    pub header: Header,
    /// The id that [`Io::socket`] uses.
    pub socket: u64,
    /// Process that was seen using it first. In a [`kind::SHUTDOWN`] or [`kind::CLOSE`], which need none:
    /// TCP sequence number behind the last byte that was read, if flagged so.
    pub tgid: u32,
    /// Network namespace, the inode of `/proc/PID/ns/net`. In a [`kind::SHUTDOWN`] or [`kind::CLOSE`]: as
    /// `tgid`, of the last byte that was written.
    pub netns: u32,
    /// Local IP address as it lies in memory (network order), IPv4 as an IPv4-mapped IPv6 address.
    /// For Unix sockets the first word is the kernel's identity of this end.
    pub local: [u64; 2],
    /// Remote IP address; for Unix sockets the identity of the other end.
    pub remote: [u64; 2],
    /// Local port, host order.
    pub local_port: u16,
    /// Remote port, host order.
    pub remote_port: u16,
    /// One of [`family`].
    pub family: u16,
    /// Reserved, zero.
    pub pad: u16,
    /// TCP sequence numbers of the first byte to be read, and to be written, that this agent tells of, if
    /// flagged so. For Unix sockets the first is the number of the first operation.
    pub from: [u32; 2],
}

/// Longest executable path kept in a [`Process`].
pub const PATH_BYTES: usize = 128;

/// A fork, exec or exit, or a signal that ends a process with an error.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Kind [`kind::FORK`], [`kind::EXEC`], [`kind::EXIT`], [`kind::THREAD_EXIT`], [`kind::SIGNAL`] or
    /// [`kind::CGROUP`].
    pub header: Header,
    /// The process (for a fork: the new task's process).
    pub tgid: u32,
    /// The thread (for a fork: the new task).
    pub tid: u32,
    /// For a fork: the forking process. For a signal: its number. For an exit: how the process ended, as
    /// wait(2) tells it, or [`STATUS_UNKNOWN`]. Else 0.
    pub parent_tgid: u32,
    /// For a fork: the forking thread. For an exit: events of the process that were lost. For a signal:
    /// one of [`task_kind`].
    pub parent_tid: u32,
    /// When the process started, `CLOCK_BOOTTIME`, nanoseconds; with the tgid it is its identity. For a
    /// signal: the runtime's own id of the unit of work.
    pub start_ns: u64,
    /// For an exec: the path as it was given to the kernel. For a control group: its name. Zero-terminated,
    /// cut if longer.
    pub path: [u8; PATH_BYTES],
}

/// Bits of a value in the map of selected processes.
pub mod select {
    /// Its socket traffic is captured.
    pub const TRACED: u32 = 1;
    /// Forked children are selected with the same bits.
    pub const FOLLOW: u32 = 1 << 1;
    /// A rule may match: captured until user space has decided.
    pub const UNDECIDED: u32 = 1 << 2;
    /// User space decided against it.
    pub const IGNORED: u32 = 1 << 3;
    /// Its function probes are told.
    pub const FUNCTIONS: u32 = 1 << 4;
    /// Those of the program that it is about to become are: its next exec makes this
    /// [`FUNCTIONS`].
    pub const FUNCTIONS_NEXT: u32 = 1 << 5;
    /// Its program is nginx, until it execs.
    pub const NGINX: u32 = 1 << 6;
}

/// What the kernel keeps for a selected process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// Bits of [`select`].
    pub bits: u32,
    /// Most payload bytes copied from one operation.
    pub payload_limit: u32,
    /// Events of this process that found the ring full.
    pub lost: u64,
    /// Where a goroutine's id lies in the `g` structure of Go's runtime; 0: the program is not Go.
    pub goid_offset: u32,
    /// Where the pointer to the running `g` lies, from the thread's base of thread-local storage.
    pub g_tls_offset: i32,
    /// Where Go's one function for system calls goes on after one, with the pointer to the running `g` in
    /// its register; 0: not known.
    pub go_syscall: u64,
}

/// Words of the map that counts how often the selection has changed: what a program knows of a process
/// holds as long as their sum stays. Each has one kind of writer, so that none takes back what another
/// one has counted.
pub mod changes {
    /// Something was taken away by the kernel half, of what function probes are told of.
    pub const KERNEL: u32 = 0;
    /// Something was changed by user space.
    pub const USER: u32 = 1;
    /// A selected process became another program, or has ended. No matter of function probes, which are
    /// a program's own.
    pub const PROGRAMS: u32 = 2;
    /// How many words there are.
    pub const COUNT: u32 = 3;
}

/// Slots of the map that answers for most processes that they were never selected: a power of two; a
/// process's slot is given by the low bits of its tgid.
pub const MAYBE_SLOTS: u32 = 1 << 16;

/// Reasons why the kernel half dropped or could not complete something: indexes of its counters.
pub mod counter {
    /// Events lost because the ring was full.
    pub const RING_FULL: u32 = 0;
    /// Operations whose payload could not be read.
    pub const UNREADABLE: u32 = 1;
    /// Operations by io_uring, seen with their size only.
    pub const IO_URING: u32 = 2;
    /// Operations of 32-bit programs, seen with their size only.
    pub const COMPAT: u32 = 3;
    /// Sockets for which no storage could be had.
    pub const NO_STORAGE: u32 = 4;
    /// Forked children that found the map of selected processes full.
    pub const NO_SELECTION: u32 = 5;
    /// Calls of `io_uring_enter` while the capture source cannot see what io_uring does.
    pub const IO_URING_UNSEEN: u32 = 6;
    /// Hits of function probes for which no state or scratch could be had.
    pub const NO_SCRATCH: u32 = 7;
    /// Stacks that were not copied: too many, or no room.
    pub const NO_IMAGE: u32 = 8;
    /// What nginx has sent to others, and began like a request, without a proof for which of its own.
    pub const NGINX_UNPROVED: u32 = 9;
    /// What the client of Go's `net/http` has sent while it could not be told for which goroutine.
    pub const GO_UNPROVED: u32 = 10;
    /// Those of [`NO_IMAGE`] for which there was no budget.
    pub const NO_IMAGE_BUDGET: u32 = 11;
    /// How many counters there are.
    pub const COUNT: u32 = 12;
}

const _: () = {
    assert!(size_of::<Header>() == 16);
    assert!(size_of::<Io>() == 64);
    assert!(size_of::<Socket>() == 80);
    assert!(size_of::<Process>() == 40 + PATH_BYTES);
    assert!(size_of::<Selected>() == 32);
    assert!(align_of::<Io>() == 8 && align_of::<Socket>() == 8 && align_of::<Process>() == 8);
};
