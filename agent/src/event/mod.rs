//! Raw records from the kernel half, as typed events. Bytes in, events out: a record that is not
//! what it says is an error, never a guess.

pub mod exit;
pub mod ids;
pub mod image;

use std::fmt;

use agent_common::function::{self, hit_flags, left_out};
use agent_common::{
    SLOT_SHIFT, STATUS_UNKNOWN, SUFFIX_BYTES, family, goroutine_flags, io_flags, kind, nginx_flags,
    socket_flags, task_kind,
};

use crate::platform::clock::MonoNs;
use crate::protocol::{Direction, Segment};
use exit::ExitStatus;
use ids::{Address, SiteNo, SocketId, StackPointer, TaskId, Tgid, Tid};

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Bytes moved over a socket, or an attempt failed or found the end.
    Io(Io<'a>),
    /// A socket is about to be used for the first time.
    Socket(Socket),
    /// A process listens.
    Listen(Socket),
    /// The process will send no more on this socket.
    Shutdown {
        /// The socket.
        id: SocketId,
        /// When.
        at: MonoNs,
        /// How far it had come, if it closed the socket.
        last: Last,
    },
    /// The socket is closed in both directions.
    Closed {
        /// The socket.
        id: SocketId,
        /// When.
        at: MonoNs,
        /// Whether its process still has it, and will learn of this by its next operation.
        held: bool,
        /// How far that had come.
        last: Last,
    },
    /// A task started.
    Fork {
        /// When.
        at: MonoNs,
        /// The new task's process; differs from the parent's unless it is a thread.
        tgid: Tgid,
        /// The new task.
        tid: Tid,
        /// The forking process.
        parent_tgid: Tgid,
        /// The forking thread.
        parent_tid: Tid,
    },
    /// A process replaced its program.
    Exec {
        /// When.
        at: MonoNs,
        /// The process.
        tgid: Tgid,
        /// The program's path as given to the kernel, possibly cut.
        path: &'a [u8],
    },
    /// A process is about to be told of that runs a new program.
    Cgroup {
        /// The process.
        tgid: Tgid,
        /// What one of its control groups is called; not its path.
        name: &'a [u8],
    },
    /// A function probe was hit.
    Hit(Hit<'a>),
    /// A thread has met a signal that ends its process with an error.
    Signal {
        /// When.
        at: MonoNs,
        /// In which process.
        tgid: Tgid,
        /// On which thread.
        tid: Tid,
        /// By which task.
        task: TaskId,
        /// The signal's number.
        number: u32,
    },
    /// A process ended.
    Exit {
        /// When.
        at: MonoNs,
        /// The process.
        tgid: Tgid,
        /// Its events that the kernel half lost.
        lost: u64,
        /// How it ended; `None`: that is not known.
        status: Option<ExitStatus>,
    },
    /// A thread ended, and others of its process are still there.
    ThreadExit {
        /// When.
        at: MonoNs,
        /// The process.
        tgid: Tgid,
        /// The thread.
        tid: Tid,
        /// How the process ends, if the thread ends with it.
        status: Option<ExitStatus>,
    },
}

/// How far a process had come with a socket when it closed it, TCP sequence numbers; `None`: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Last {
    /// Behind the last byte that it has read.
    pub read_to: Option<u32>,
    /// Behind the last byte that it has written.
    pub written_to: Option<u32>,
    /// Bytes had been read from the socket since it was there, by this process or another one.
    pub has_read: bool,
    /// Bytes had been written.
    pub has_written: bool,
}

/// An operation on a socket.
#[derive(Clone, Copy, Debug)]
pub struct Io<'a> {
    /// When it returned.
    pub at: MonoNs,
    /// The socket.
    pub socket: SocketId,
    /// Who did it.
    pub tgid: Tgid,
    /// On which thread.
    pub tid: Tid,
    /// As which unit of work.
    pub task: TaskId,
    /// Whether that has not done it itself, but waits for another one that has.
    pub waits: bool,
    /// For which request, where the kernel half has been able to prove that.
    pub behalf: Option<Behalf>,
    /// Which way.
    pub direction: Direction,
    /// Number of the operation on this socket.
    pub op: u32,
    /// TCP sequence number of its first byte.
    pub tcp_seq: Option<u32>,
    /// Of a read how long at least the socket's last data had been there; `u32::MAX` if that is not known.
    pub segment_age_ns: u32,
    /// Whether the socket was in non-blocking mode.
    pub nonblocking: bool,
    /// Whether the connection was over by then, so that nothing need tell of its end.
    pub over: bool,
    /// What came of it.
    pub outcome: Outcome<'a>,
}

/// The request that nginx does something for: one that came by this socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behalf {
    /// The socket.
    pub socket: SocketId,
    /// The TCP sequence number up to which it had been read.
    pub read_to: Option<u32>,
    /// Whether it is what the connection is served with at the moment, not something beside that.
    pub is_current: bool,
}

/// A hit of a function probe.
#[derive(Clone, Copy, Debug)]
pub struct Hit<'a> {
    /// When.
    pub at: MonoNs,
    /// In which process.
    pub tgid: Tgid,
    /// By which task.
    pub task: TaskId,
    /// On which thread.
    pub tid: Tid,
    /// The address of the slot that holds the function's return address.
    pub sp: StackPointer,
    /// The probe.
    pub site: SiteNo,
    /// Hits of the same function that were left out since the last one that was told.
    pub suppressed: u32,
    /// Hits of this thread that were lost since the last one that was told.
    pub lost: u32,
    /// Whether some of what was to be read did not fit.
    pub cut: bool,
    /// Why there is no stack of it, if one was asked for.
    pub stack_left_out: Option<LeftOut>,
    /// What was read: a row of `agent_common::function::Chunk`s.
    pub chunks: &'a [u8],
}

/// Why a stack was not copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// What stacks may cost the process was used up.
    Budget,
    /// So much is not copied a second.
    Rate,
    /// There was no room.
    Room,
}

impl LeftOut {
    fn of(code: u8) -> Option<Self> {
        match code {
            left_out::BUDGET => Some(Self::Budget),
            left_out::RATE => Some(Self::Rate),
            left_out::ROOM => Some(Self::Room),
            _ => None,
        }
    }

    /// As spans say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Rate => "rate",
            Self::Room => "room",
        }
    }
}

/// What came of an operation.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// Bytes moved.
    Moved(Segment<'a>),
    /// The stream's end was read.
    End,
    /// It failed with this errno.
    Failed(u32),
}

/// What a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// When it was told.
    pub at: MonoNs,
    /// Its id.
    pub id: SocketId,
    /// The process that uses it.
    pub tgid: Tgid,
    /// Its network namespace.
    pub netns: u32,
    /// This end.
    pub local: Address,
    /// The other end.
    pub remote: Address,
    /// Who began the connection, where the kernel remembers.
    pub role: Option<Role>,
    /// Whether bytes are known to have moved over it before it was seen.
    pub is_older: bool,
    /// TCP sequence numbers of the first byte to be read and to be written, where they are known.
    pub from: [Option<u32>; 2],
    /// The number of the first operation that is told.
    pub op: u32,
}

/// Which end of a connection a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It came from `accept`.
    Accepted,
    /// It connected. For TCP this is inferred from the absence of a listener's backlog.
    Connected,
}

/// A record that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Shorter than its kind demands.
    Short {
        /// The record's kind.
        kind: u8,
        /// Its length.
        bytes: usize,
    },
    /// A kind that this version does not know.
    UnknownKind(u8),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { kind, bytes } => {
                write!(f, "record of kind {kind} has only {bytes} bytes")
            }
            Self::UnknownKind(kind) => write!(f, "record of unknown kind {kind}"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Where a record stands in the order of its writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The program and the CPU that wrote it: `Header::cpu` of `agent_common`.
    pub cpu: u16,
    /// Its number there; a gap is a loss.
    pub seq: u32,
}

impl Position {
    /// Which program wrote it, and on which CPU. Both are bounded by the field they come from.
    pub fn writer(self) -> (usize, usize) {
        let cpu = self.cpu & ((1 << SLOT_SHIFT) - 1);
        (usize::from(self.cpu >> SLOT_SHIFT), usize::from(cpu))
    }
}

/// When a record was written.
pub fn time(record: &[u8]) -> Option<MonoNs> {
    record.first_chunk::<16>().map(|header| MonoNs(u64_at(header, 8)))
}

/// The record of a process's end, number `seq` of those that the agent has to write itself because there
/// was no room for the kernel half's.
pub fn exit(tgid: Tgid, at: MonoNs, seq: u32) -> Vec<u8> {
    let mut record = vec![kind::EXIT, 0];
    record.extend_from_slice(&(AGENT_SLOT << SLOT_SHIFT).to_ne_bytes());
    record.extend_from_slice(&seq.to_ne_bytes());
    record.extend_from_slice(&at.0.to_ne_bytes());
    // The thread; nothing of how it ended, nothing that was lost, no time of its start.
    for word in [tgid.0, tgid.0, STATUS_UNKNOWN, 0, 0, 0] {
        record.extend_from_slice(&word.to_ne_bytes());
    }
    record
}

/// The record of the close of a socket, of which the kernel half can tell nothing; `seq` as for [`exit`].
pub fn close(id: SocketId, at: MonoNs, seq: u32) -> Vec<u8> {
    let mut record = vec![kind::CLOSE, 0];
    record.extend_from_slice(&(AGENT_SLOT << SLOT_SHIFT).to_ne_bytes());
    record.extend_from_slice(&seq.to_ne_bytes());
    record.extend_from_slice(&at.0.to_ne_bytes());
    record.extend_from_slice(&id.0.to_ne_bytes());
    // What a socket is was told before.
    record.resize(size_of::<agent_common::Socket>(), 0);
    record
}

/// The record of a hit with more chunks, which go before its own; `None` if it is none, or would be too
/// long.
pub fn with_chunks(record: &[u8], more: &[u8]) -> Option<Vec<u8>> {
    let (head, own) = record.split_at_checked(size_of::<function::Hit>())?;
    let is_hit = head.first() == Some(&kind::HIT);
    let at = std::mem::offset_of!(function::Hit, copied);
    let copied = u16::from_ne_bytes(*head.get(at..)?.first_chunk()?);
    let whole = u16::try_from(more.len()).ok()?.checked_add(copied).filter(|_| is_hit)?;
    let mut longer = [head, more, own].concat();
    longer.get_mut(at..at + 2)?.copy_from_slice(&whole.to_ne_bytes());
    Some(longer)
}

/// The number of a writer that no program of the kernel half has (`emit::Slot` there).
const AGENT_SLOT: u16 = 15;

/// Reads one record. Layouts: `agent_common`.
pub fn decode(record: &[u8]) -> Result<(Position, Event<'_>), DecodeError> {
    let kind = record.first().copied().unwrap_or(0);
    let short = DecodeError::Short { kind, bytes: record.len() };
    let (header, body) = record.split_first_chunk::<16>().ok_or(short)?;
    let flags = header[1];
    let position = Position { cpu: u16_at(header, 2), seq: u32_at(header, 4) };
    let at = MonoNs(u64_at(header, 8));
    // Put together where it is returned: events are large, and most records are operations.
    match kind {
        kind::IO => io(position, at, flags, body).ok_or(short),
        kind::SOCKET => Ok((position, Event::Socket(socket(at, flags, body).ok_or(short)?))),
        kind::LISTEN => Ok((position, Event::Listen(socket(at, flags, body).ok_or(short)?))),
        kind::SHUTDOWN => {
            let (id, last) = end(flags, body).ok_or(short)?;
            Ok((position, Event::Shutdown { id, at, last }))
        }
        kind::CLOSE => {
            let (id, last) = end(flags, body).ok_or(short)?;
            let held = flags & socket_flags::HELD != 0;
            Ok((position, Event::Closed { id, at, held, last }))
        }
        kind::HIT => Ok((position, Event::Hit(hit(at, flags, body).ok_or(short)?))),
        kind::FORK | kind::EXEC | kind::EXIT | kind::THREAD_EXIT | kind::SIGNAL | kind::CGROUP => {
            Ok((position, process(kind, at, body).ok_or(short)?))
        }
        other => Err(DecodeError::UnknownKind(other)),
    }
}

#[inline(always)]
fn io(position: Position, at: MonoNs, flags: u8, body: &[u8]) -> Option<(Position, Event<'_>)> {
    let (fixed, payload) = body.split_first_chunk::<48>()?;
    let (tgid, tid) = (Tgid(u32_at(fixed, 8)), Tid(u32_at(fixed, 12)));
    let thread = TaskId { tgid, kind: task_kind::THREAD, id: u64::from(tid.0) };
    let (task, behalf) = match fixed[42] {
        task_kind::THREAD => (thread, None),
        task_kind::NGINX_REQUEST => (thread, Some(behalf(fixed))),
        kind => (TaskId { tgid, kind, id: u64_at(fixed, 16) }, None),
    };
    let waits = task.kind == task_kind::GOROUTINE && fixed[43] & goroutine_flags::CALLER != 0;
    let len = u32_at(fixed, 24);
    let copied = usize::from(u16_at(fixed, 40));
    let outcome = if flags & io_flags::ERROR != 0 {
        Outcome::Failed(len)
    } else if flags & io_flags::END != 0 {
        Outcome::End
    } else {
        let payload = payload.get(..copied)?;
        let suffix = if flags & io_flags::SUFFIX != 0 { SUFFIX_BYTES } else { 0 };
        let (prefix, suffix) = payload.split_at_checked(copied.checked_sub(suffix)?)?;
        Outcome::Moved(Segment { prefix, len: u64::from(len).max(copied as u64), suffix })
    };
    let moved = if matches!(outcome, Outcome::Moved(_)) { len } else { 0 };
    let behind = u32_at(fixed, 32);
    let io = Io {
        at,
        socket: SocketId(u64_at(fixed, 0)),
        tgid,
        tid,
        task,
        waits,
        behalf,
        direction: if flags & io_flags::OUTBOUND != 0 {
            Direction::Outbound
        } else {
            Direction::Inbound
        },
        op: u32_at(fixed, 28),
        tcp_seq: (flags & io_flags::TCP_SEQ != 0).then(|| behind.wrapping_sub(moved)),
        segment_age_ns: u32_at(fixed, 36),
        nonblocking: flags & io_flags::NONBLOCKING != 0,
        over: flags & io_flags::OVER != 0,
        outcome,
    };
    Some((position, Event::Io(io)))
}

fn behalf(fixed: &[u8; 48]) -> Behalf {
    let flags = fixed[43];
    Behalf {
        socket: SocketId(u64_at(fixed, 16)),
        read_to: (flags & nginx_flags::SEQ != 0).then(|| u32_at(fixed, 44)),
        is_current: flags & nginx_flags::CURRENT != 0,
    }
}

fn hit(at: MonoNs, flags: u8, body: &[u8]) -> Option<Hit<'_>> {
    let (fixed, chunks) = body.split_first_chunk::<40>()?;
    let (tgid, tid) = (Tgid(u32_at(fixed, 0)), u32_at(fixed, 4));
    let task = match (fixed[34], u64_at(fixed, 8)) {
        // A thread that runs no task of its runtime's at the moment.
        (_, 0) => TaskId { tgid, kind: task_kind::THREAD, id: u64::from(tid) },
        (kind, id) => TaskId { tgid, kind, id },
    };
    Some(Hit {
        at,
        tgid,
        task,
        tid: Tid(tid),
        sp: StackPointer(u64_at(fixed, 16)),
        site: SiteNo(u32_at(fixed, 24)),
        suppressed: u32_at(fixed, 28),
        lost: u32_at(fixed, 36),
        cut: flags & hit_flags::CUT != 0,
        stack_left_out: LeftOut::of(fixed[35]),
        chunks: chunks.get(..usize::from(u16_at(fixed, 32)))?,
    })
}

fn socket(at: MonoNs, flags: u8, body: &[u8]) -> Option<Socket> {
    let (fixed, from) = body.split_first_chunk::<56>()?;
    // Recordings of before there was one end here.
    let from = from.first_chunk::<8>();
    let op = from.filter(|_| u16_at(fixed, 52) == family::UNIX).map_or(0, |from| u32_at(from, 0));
    let from = from.filter(|_| flags & socket_flags::FROM != 0);
    let local = ip_at(fixed, 16);
    let remote = ip_at(fixed, 32);
    let (local, remote) = match u16_at(fixed, 52) {
        family::UNIX => (Address::Unix(u64_at(fixed, 16)), Address::Unix(u64_at(fixed, 32))),
        _ => (Address::tcp(local, u16_at(fixed, 48)), Address::tcp(remote, u16_at(fixed, 50))),
    };
    Some(Socket {
        at,
        id: SocketId(u64_at(fixed, 0)),
        tgid: Tgid(u32_at(fixed, 8)),
        netns: u32_at(fixed, 12),
        local,
        remote,
        role: role(flags),
        is_older: flags & socket_flags::OLDER != 0,
        from: from.map_or([None; 2], |from| [0, 4].map(|at| Some(u32_at(from, at)))),
        op,
    })
}

/// A socket's end: how far its process had come stands where another record of it has the process and the
/// namespace.
fn end(flags: u8, body: &[u8]) -> Option<(SocketId, Last)> {
    let fixed = body.first_chunk::<56>()?;
    let told = |flag, position| (flags & flag != 0).then_some(position);
    let last = Last {
        read_to: told(socket_flags::READ_TO, u32_at(fixed, 8)),
        written_to: told(socket_flags::WRITTEN_TO, u32_at(fixed, 12)),
        has_read: flags & socket_flags::READ != 0,
        has_written: flags & socket_flags::WRITTEN != 0,
    };
    Some((SocketId(u64_at(fixed, 0)), last))
}

fn role(flags: u8) -> Option<Role> {
    if flags & socket_flags::ACCEPTED != 0 {
        Some(Role::Accepted)
    } else if flags & socket_flags::CONNECTED != 0 {
        Some(Role::Connected)
    } else {
        None
    }
}

fn process(kind: u8, at: MonoNs, body: &[u8]) -> Option<Event<'_>> {
    let (fixed, path) = body.split_first_chunk::<24>()?;
    let tgid = Tgid(u32_at(fixed, 0));
    Some(match kind {
        kind::FORK => Event::Fork {
            at,
            tgid,
            tid: Tid(u32_at(fixed, 4)),
            parent_tgid: Tgid(u32_at(fixed, 8)),
            parent_tid: Tid(u32_at(fixed, 12)),
        },
        kind::EXEC => {
            let end = memchr::memchr(0, path).unwrap_or(path.len());
            Event::Exec { at, tgid, path: path.get(..end)? }
        }
        kind::CGROUP => {
            let end = memchr::memchr(0, path).unwrap_or(path.len());
            Event::Cgroup { tgid, name: path.get(..end)? }
        }
        kind::SIGNAL => {
            let task = match (u32_at(fixed, 12) as u8, u64_at(fixed, 16)) {
                (_, 0) => {
                    let id = u64::from(u32_at(fixed, 4));
                    TaskId { tgid, kind: task_kind::THREAD, id }
                }
                (kind, id) => TaskId { tgid, kind, id },
            };
            Event::Signal { at, tgid, tid: Tid(u32_at(fixed, 4)), task, number: u32_at(fixed, 8) }
        }
        kind::THREAD_EXIT => {
            let status = ExitStatus::told(u32_at(fixed, 8));
            Event::ThreadExit { at, tgid, tid: Tid(u32_at(fixed, 4)), status }
        }
        _ => {
            let status = ExitStatus::told(u32_at(fixed, 8));
            Event::Exit { at, tgid, lost: u64::from(u32_at(fixed, 12)), status }
        }
    })
}

// The offsets below are constants within arrays of known size, so that every check folds away.

#[inline(always)]
fn u16_at<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

#[inline(always)]
fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | (u32::from(u16_at(bytes, at + 2)) << 16)
}

#[inline(always)]
fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | (u64::from(u32_at(bytes, at + 4)) << 32)
}

#[inline(always)]
fn ip_at<const N: usize>(bytes: &[u8; N], at: usize) -> [u8; 16] {
    let mut ip = [0; 16];
    ip.copy_from_slice(&bytes[at..at + 16]);
    ip
}

#[cfg(test)]
mod tests;
