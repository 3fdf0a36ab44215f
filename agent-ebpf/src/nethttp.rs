//! For which goroutine the client of Go's `net/http` writes a request.
//!
//! Each of its connections has a goroutine of its own that writes, and another one that reads. Who calls
//! has handed its request to the first one, has told the second one the channel to answer on, and waits
//! there. While the request is written, and until the answer has been read, all are to be found:
//!
//! ```text
//! g ─ end of its stack ─► persistConn ─► reqch ─► requestAndChan ─► its channel ─► who waits there
//! ```
//!
//! Nothing of this is believed unless it fits: the connection has the very descriptor that is written to,
//! and the channels are what `roundTrip` makes (`src/net/http/transport.go`). The structures are those
//! of Go 1.21 to 1.26; of what changed between them, the size of what a channel holds tells which it is.

use agent_common::Selected;

use crate::user::{self, Plain};

/// Where a goroutine keeps the upper end of its stack (`stack.hi` of `g`, `src/runtime/runtime2.go`).
const STACK_END: u64 = 8;

/// How far below that the receiver of `readLoop` or `writeLoop` lies: the runtime leaves 32 bytes (`newproc1`), then
/// come the return address to `goexit` and the frame of the wrapper that the compiler makes of a `go`
/// statement with a method: its caller's frame pointer, and one word, where the method spills its argument.
const RECEIVER: u64 = 56;

/// Where `persistConn` has what is used of it.
const CONNECTION: u64 = 80;

/// `persistConn`, from `conn` to `reqch`.
#[repr(C)]
#[derive(Clone, Copy)]
struct PersistConn {
    conn_type: u64,
    conn: u64,
    tls_state: u64,
    reader: u64,
    writer: u64,
    written: u64,
    reqch: u64,
}

/// Where a `netFD`, which a `TCPConn` or a `UnixConn` points at, has its descriptor.
const DESCRIPTOR: u64 = 16;

/// The beginning of `hchan` (`src/runtime/chan.go`).
#[repr(C)]
#[derive(Clone, Copy)]
struct Channel {
    held: u64,
    room: u64,
    buffer: u64,
    element_bytes: u16,
    pad: [u16; 3],
}

/// Bytes of a `requestAndChan` until Go 1.22, and where it has the channel; where a channel has those who
/// wait to receive.
const OLD: (u16, u64, u64) = (48, 16, 56);
/// The same since Go 1.23.
const NEW: (u16, u64, u64) = (40, 8, 64);

/// Bytes of a `responseAndError`, which the caller waits for.
const ANSWER_BYTES: u16 = 24;

/// For whom a goroutine uses a descriptor.
pub enum Caller {
    /// For itself, as far as is known.
    Itself,
    /// For another one that waits for the answer, by its id.
    Other(u64),
    /// For another one that is about to wait.
    Unknown,
}

/// For whom the goroutine at `g` uses `fd`.
#[inline(always)]
pub fn caller(g: u64, selected: &Selected, fd: u32) -> Caller {
    match waits_for(g, selected.goid_offset, fd) {
        0 => Caller::Itself,
        UNKNOWN => Caller::Unknown,
        goid => Caller::Other(goid),
    }
}

/// No goroutine has this id.
const UNKNOWN: u64 = u64::MAX;

/// The id of the goroutine that the one at `g` uses `fd` for; 0 if that is no goroutine of the client's,
/// [`UNKNOWN`] if it is, and nobody waits. Global, which means that the verifier checks it once and by
/// itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn waits_for(g: u64, goid_offset: u32, fd: u32) -> u64 {
    match requests(g, fd) {
        Some(requests) => waiting(requests, goid_offset).unwrap_or(UNKNOWN),
        None => 0,
    }
}

/// Where the requests are told to the goroutine that reads from `fd`, if the one at `g` is that, or the
/// one that writes to it.
#[inline(always)]
fn requests(g: u64, fd: u32) -> Option<u64> {
    let stack_end = word(g.wrapping_add(STACK_END))?;
    let connection: PersistConn =
        user::read(word(stack_end.wrapping_sub(RECEIVER))?.wrapping_add(CONNECTION))?;
    let descriptor = word(word(connection.conn)?.wrapping_add(DESCRIPTOR))?;
    if descriptor == u64::from(fd) { Some(connection.reqch) } else { None }
}

/// The id of the goroutine that waits for the answer to the request that was told last.
#[inline(always)]
fn waiting(requests: u64, goid_offset: u32) -> Option<u64> {
    let told: Channel = user::read(requests)?;
    let (_, channel_at, receivers_at) = match told.element_bytes {
        bytes if bytes == OLD.0 => OLD,
        bytes if bytes == NEW.0 => NEW,
        _ => return None,
    };
    if (told.held, told.room) != (1, 1) {
        return None;
    }
    let answer_at = word(told.buffer.wrapping_add(channel_at))?;
    let answer: Channel = user::read(answer_at)?;
    if (answer.room, answer.element_bytes) != (0, ANSWER_BYTES) {
        return None;
    }
    let waiting = word(answer_at.wrapping_add(receivers_at))?;
    let caller = word(waiting)?;
    let goid = word(caller.wrapping_add(u64::from(goid_offset)))?;
    // Who has stopped waiting meanwhile has taken itself out first.
    let still = word(answer_at.wrapping_add(receivers_at))?;
    if still == waiting { Some(goid) } else { None }
}

/// Eight bytes of the process's memory.
#[inline(always)]
fn word(from: u64) -> Option<u64> {
    user::read(from)
}

// SAFETY: seven words.
unsafe impl Plain for PersistConn {}
// SAFETY: three words and one of four short ones.
unsafe impl Plain for Channel {}

const _: () = assert!(size_of::<PersistConn>() == 56 && size_of::<Channel>() == 32);
