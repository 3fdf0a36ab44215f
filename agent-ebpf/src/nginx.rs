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
    // SAFETY: part of the scratch, alive while the program runs.
    let asked = unsafe { ptr::read_volatile(place) };
    let Some(found) = find(asked, is_typed != 0, scratch) else { return 0 };
    // SAFETY: as above.
    unsafe { ptr::write_volatile(place, found) };
    1
}

/// The connection that is sent to. nginx keeps it at one place as long as it has the socket: where epoll said
/// once is right as long as it has the descriptor that is sent to, which no other one can have.
#[inline(always)]
fn upstream(asked: &Behalf) -> Option<(u64, Connection)> {
    if asked.connection != 0
        && let Some(connection) = user::read::<Connection>(asked.connection)
        && connection.fd == asked.fd
    {
        return Some((asked.connection, connection));
    }
    let file = Found::new(asked.file as *const u8, 0);
    let (fd, told) = descriptor::told_to_epoll(descriptor::watched(file))?;
    let at = told & !INSTANCE;
    let connection: Connection = user::read(at)?;
    if connection.fd == fd { Some((at, connection)) } else { None }
}

#[inline(always)]
fn find(asked: Behalf, is_typed: bool, scratch: &mut Scratch) -> Option<Behalf> {
    let (connection, upstream) = upstream(&asked)?;
    let request: Request = user::read(upstream.data)?;
    if request.signature != SIGNATURE {
        return None;
    }
    let client: Connection = user::read(request.connection)?;
    let file = descriptor::file(client.fd)?;
    let asked_for = Client {
        at: request.connection,
        file: file.address(),
        sock: 0,
        id: 0,
        tgid: asked.tgid,
        fd: client.fd,
    };
    let Client { sock, id: task, .. } = match remembered(&asked_for, is_typed, scratch) {
        Some(client) => client,
        None => proved(asked_for, file, is_typed, scratch)?,
    };
    let mut task_flags = 0;
    let mut task_seq = 0;
    if client.data == upstream.data {
        task_flags |= nginx_flags::CURRENT;
    }
    if let Some(seq) = socket::read_to(Found::new(sock as *const u8, 0)) {
        task_flags |= nginx_flags::SEQ;
        task_seq = seq;
    }
    Some(Behalf { connection, task, task_seq, task_flags: u32::from(task_flags), ..asked })
}

/// The client as it was proved before, if its descriptor leads to the same socket: it is the same file, and not
/// another one in the memory of that, since the socket is still there and has not been closed.
#[inline(always)]
fn remembered(asked_for: &Client, is_typed: bool, scratch: &mut Scratch) -> Option<Client> {
    // SAFETY: a part of this CPU's scratch for this program, alive while the program runs. Volatile, so that it is
    // read as it is compared.
    let known = unsafe { ptr::read_volatile(slot_of(asked_for.at, scratch)) };
    let is_same = known.at == asked_for.at
        && known.file == asked_for.file
        && known.tgid == asked_for.tgid
        && known.fd == asked_for.fd;
    // Only what has a place is known to be still there.
    if !is_typed || !is_same || places::of(known.id).is_none() {
        return None;
    }
    let sock = Found::new(known.sock as *const u8, 0);
    if sock.load::<u64>(offset!(sk_socket)) == 0 { None } else { Some(known) }
}

/// The client, if its connection is where epoll says it is.
#[inline(always)]
fn proved(asked_for: Client, file: Found, is_typed: bool, scratch: &mut Scratch) -> Option<Client> {
    let (fd, told) = descriptor::told_to_epoll(descriptor::watched(file))?;
    if asked_for.fd != fd || told & !INSTANCE != asked_for.at {
        return None;
    }
    // Not asked whether it is a socket: nginx waits for clients on nothing else, and anything else
    // has no id.
    let sock = file.follow(offset!(file_private_data)).follow(offset!(socket_sk));
    let id = sock::id_of(sock, is_typed)?;
    let client = Client { sock: sock.address(), id, ..asked_for };
    // SAFETY: as in `remembered`.
    unsafe { ptr::write_volatile(slot_of(client.at, scratch), client) };
    Some(client)
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
