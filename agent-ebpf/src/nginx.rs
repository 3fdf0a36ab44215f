//! For which of its requests nginx sends something to another server.
//!
//! A worker of nginx's is one thread that serves many requests at once, so the thread says nothing. But
//! nginx tells epoll, with every descriptor, the address of what it keeps of that connection, and of a
//! connection to another server it keeps the request that it was made for:
//!
//! ```text
//! socket ─ file ─ epoll's item ─► ngx_connection_t ─► ngx_http_request_t ─► ngx_connection_t ─► client's socket
//! ```
//!
//! Nothing of this is believed unless it fits at every step: each connection has the very descriptor
//! that epoll knows it by, the request has its signature, and the client's connection is where epoll
//! says it is. What does not fit stays unproved, and is counted.
//!
//! What was proved of a connection is remembered, and holds as long as nginx cannot have given up its socket.

use core::ptr;

use agent_common::{counter, nginx_flags, task_kind};

use crate::emit::{self, Behalf, CLIENT_SLOTS, Client, Scratch, Slot};
use crate::offsets::offset;
use crate::sock::{self, Found, Sock, State};
use crate::syscall::NO_DESCRIPTOR;
use crate::user::{self, Plain};
use crate::{descriptor, places, socket};

/// The beginning of `ngx_connection_t` (`src/core/ngx_connection.h`), as it was in every version.
#[repr(C)]
#[derive(Clone, Copy)]
struct Connection {
    /// Of a connection to another server: the request. Of a client's: the request whose turn it is.
    data: u64,
    read: u64,
    write: u64,
    fd: u32,
    pad: u32,
}

/// The beginning of `ngx_http_request_t` (`src/http/ngx_http_request.h`), as it was in every version.
#[repr(C)]
#[derive(Clone, Copy)]
struct Request {
    signature: u32,
    pad: u32,
    /// The client's.
    connection: u64,
}

/// `NGX_HTTP_MODULE`, "HTTP", which begins every request.
const SIGNATURE: u32 = 0x5054_5448;

/// nginx keeps a bit of its own in the lowest one of what it tells epoll (`src/event/modules/`).
const INSTANCE: u64 = 1;

/// For which request the operation on `fd` is, as the kind, the number, the flags and the position of a task.
/// If that is not proved, for none that is known; `None` where this kernel does not let it be proved.
#[inline(always)]
pub fn behalf<S: Sock>(
    sock: S,
    state: &mut State,
    (tgid, fd): (u32, u32),
    slot: Slot,
    scratch: &mut Scratch,
) -> Option<(u8, u64, u8, u32)> {
    let file = sock.follow(offset!(sk_socket)).load::<u64>(offset!(socket_file));
    // What is not used has no descriptor either.
    let connection = if fd == NO_DESCRIPTOR { 0 } else { state.connection };
    let asked = Behalf { file, connection, task: 0, task_seq: 0, task_flags: 0, fd, tgid };
    let place = &raw mut scratch.behalf;
    // SAFETY: part of the scratch, alive while the program runs. Volatile, here and below, since the
    // global function finds it by itself.
    unsafe { ptr::write_volatile(place, asked) };
    if nginx_request(slot.index(), u32::from(S::IS_TYPED)) == 0 {
        emit::count(counter::NGINX_UNPROVED);
        let is_provable = offset!(file_epoll) != 0;
        return is_provable.then_some((task_kind::NGINX_REQUEST, 0, 0, 0));
    }
    // SAFETY: as above.
    let found = unsafe { ptr::read_volatile(place) };
    state.connection = found.connection;
    Some((task_kind::NGINX_REQUEST, found.task, found.task_flags as u8, found.task_seq))
}

/// Fills in the rest of what this scratch says about an operation; 0 if it cannot be proved. Global,
/// which means that the verifier checks it once and by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn nginx_request(slot: u32, is_typed: u32) -> u32 {
    let Some(scratch) = emit::scratch_at(slot) else { return 0 };
    let place = &raw mut scratch.behalf;
    u32::from(find(place, is_typed != 0, scratch).is_some())
}

/// Reads a field of what is in the scratch where it is needed: a copy of it takes room on the stack, of which
/// [`nginx_request`] and its caller have no more than 512 bytes.
macro_rules! field {
    ($place:ident, $field:ident) => {
        // SAFETY: `$place` is part of this CPU's scratch for this program, alive while the program runs.
        unsafe { ptr::read_volatile(&raw const (*$place).$field) }
    };
    ($place:ident, $field:ident = $value:expr) => {{
        let value = $value;
        // SAFETY: as above.
        unsafe { ptr::write_volatile(&raw mut (*$place).$field, value) }
    }};
}

/// The connection that is sent to, and the request that it is for. nginx keeps it at one place as long as it has
/// the socket: where epoll said once is right as long as it has the descriptor that is sent to, which no other one
/// can have.
#[inline(always)]
fn upstream(place: *const Behalf) -> Option<(u64, u64)> {
    let (mut at, mut fd) = (field!(place, connection), field!(place, fd));
    let mut is_remembered = at != 0;
    // Twice by one read, which has its room on the stack once.
    for _ in 0..2 {
        if !is_remembered {
            let file = Found::new(field!(place, file) as *const u8, 0);
            let (known_as, told) = descriptor::told_to_epoll(descriptor::watched(file))?;
            (at, fd) = (told & !INSTANCE, known_as);
        }
        if let Some(connection) = user::read::<Connection>(at)
            && connection.fd == fd
        {
            return Some((at, connection.data));
        }
        if !is_remembered {
            return None;
        }
        is_remembered = false;
    }
    None
}

#[inline(always)]
fn find(place: *mut Behalf, is_typed: bool, scratch: &mut Scratch) -> Option<()> {
    let (connection, upstream) = upstream(place)?;
    field!(place, connection = connection);
    let request: Request = user::read(upstream)?;
    if request.signature != SIGNATURE {
        return None;
    }
    let at = request.connection;
    let client: Connection = user::read(at)?;
    let file = descriptor::file(client.fd)?;
    let is_current = client.data == upstream;
    let task_flags = if is_current { u32::from(nginx_flags::CURRENT) } else { 0 };
    field!(place, task_flags = task_flags);
    let known = slot_of(at, scratch);
    let whose = (field!(place, tgid), client.fd);
    let (sock, task) = match remembered(known, at, file, whose, is_typed) {
        Some(known) => known,
        None => proved(known, at, file, whose, is_typed)?,
    };
    field!(place, task = task);
    if let Some(seq) = socket::read_to(Found::new(sock as *const u8, 0)) {
        field!(place, task_seq = seq);
        field!(place, task_flags = field!(place, task_flags) | u32::from(nginx_flags::SEQ));
    }
    Some(())
}

/// The client as it was proved before, if its descriptor leads to the same socket: it is the same file, and not
/// another one in the memory of that, since the socket is still there and has not been closed.
#[inline(always)]
fn remembered(
    place: *const Client,
    at: u64,
    file: Found,
    whose: (u32, u32),
    is_typed: bool,
) -> Option<(u64, u64)> {
    let is_same = field!(place, at) == at
        && field!(place, file) == file.address()
        && field!(place, tgid) == whose.0
        && field!(place, fd) == whose.1;
    let (sock, id) = (field!(place, sock), field!(place, id));
    // Only what has a place is known to be still there.
    if !is_typed || !is_same || places::of(id).is_none() {
        return None;
    }
    let is_there = Found::new(sock as *const u8, 0).load::<u64>(offset!(sk_socket)) != 0;
    if is_there { Some((sock, id)) } else { None }
}

/// The client, if its connection is where epoll says it is.
#[inline(always)]
fn proved(
    place: *mut Client,
    at: u64,
    file: Found,
    whose: (u32, u32),
    is_typed: bool,
) -> Option<(u64, u64)> {
    let (fd, told) = descriptor::told_to_epoll(descriptor::watched(file))?;
    if whose.1 != fd || told & !INSTANCE != at {
        return None;
    }
    let from = file.address();
    // Not asked whether it is a socket: nginx waits for clients on nothing else, and anything else
    // has no id.
    let sock = file.follow(offset!(file_private_data)).follow(offset!(socket_sk));
    let id = sock::id_of(sock, is_typed)?;
    field!(place, at = at);
    field!(place, file = from);
    field!(place, sock = sock.address());
    field!(place, id = id);
    field!(place, tgid = whose.0);
    field!(place, fd = whose.1);
    Some((sock.address(), id))
}

/// Where the client is remembered whose connection is kept there.
#[inline(always)]
fn slot_of(at: u64, scratch: &mut Scratch) -> *mut Client {
    // nginx has them in an array, so the low bits of where it has them are much alike.
    let hash = at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    // SAFETY: less than the array's length.
    unsafe { scratch.clients.as_mut_ptr().add(hash as usize & (CLIENT_SLOTS - 1)) }
}

// SAFETY: three words and two of half the size.
unsafe impl Plain for Connection {}
// SAFETY: two integers of half a word, and a word.
unsafe impl Plain for Request {}

const _: () = assert!(size_of::<Connection>() == 32 && size_of::<Request>() == 16);
