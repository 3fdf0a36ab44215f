//! Which Unix sockets are still there, or no longer. No hook tells that one is closed, so user space asks now
//! and then.

use core::ffi::c_void;
use core::ptr;

use agent_common::family;
use aya_ebpf::helpers::generated::bpf_seq_write;

use crate::offsets::offset;
use crate::sock::{FoundState, Sock, State, Typed};

/// Words of `struct bpf_iter__bpf_sk_storage_map`, which are the program's arguments: `meta`, `map`, `sk`
/// and `value`; of `struct bpf_iter__bpf_map_elem`: `key` in the place of `sk`.
const META: usize = 0;
const SK: usize = 2;
const KEY: usize = 2;
const VALUE: usize = 3;

/// Hook: `iter/bpf_sk_storage_map` (5.9), run for each socket that has a state when user space reads from it.
/// Hands the reader the id of a Unix socket that a process still has; writes nothing else.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
pub extern "C" fn unix_sockets(ctx: *mut c_void) -> i32 {
    let (sk, value) = (argument(ctx, SK), argument(ctx, VALUE).cast::<State>());
    // Called once more at the end.
    if sk.is_null() || value.is_null() {
        return 0;
    }
    // SAFETY: the program's typed argument.
    let sock = unsafe { Typed::new(sk) };
    if sock.load::<u16>(offset!(skc_family)) != family::UNIX || !sock.has_file() {
        return 0;
    }
    // SAFETY: the socket's value in the map, alive while the program runs.
    tell(ctx, unsafe { (*value).id });
    0
}

/// Hook: `iter/bpf_map_elem` (5.8) over the sockets that were found by their descriptors, run for each when
/// user space reads from it. Hands the reader the ids of those of which that can be said for certain that they
/// are gone: no socket with that inode is where they were.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
pub extern "C" fn gone_sockets(ctx: *mut c_void) -> i32 {
    let (key, value) =
        (argument(ctx, KEY).cast::<u64>(), argument(ctx, VALUE).cast::<FoundState>());
    // Called once more at the end.
    if key.is_null() || value.is_null() {
        return 0;
    }
    // SAFETY: the map's key and value, alive while the program runs.
    let (at, found) = unsafe { (*key, *value) };
    if found.is_gone(at) {
        tell(ctx, found.state.id);
    }
    0
}

/// Hands the reader the id of a socket.
#[inline(always)]
fn tell(ctx: *mut c_void, id: u64) {
    // SAFETY: the program's typed argument; its first field is the file that is read from.
    let reader = unsafe { ptr::read_volatile(argument(ctx, META).cast::<*mut c_void>()) };
    // SAFETY: a typed pointer, and the bytes of an integer on the stack. What does not fit is asked for again.
    unsafe { bpf_seq_write(reader.cast(), (&raw const id).cast(), size_of::<u64>() as u32) };
}

/// A word of the program's arguments.
#[inline(always)]
fn argument(ctx: *mut c_void, index: usize) -> *const u8 {
    // SAFETY: the verifier knows the arguments, of which there are as many. Volatile, so that it is a load from
    // where they lie.
    unsafe { ptr::read_volatile(ctx.cast::<*const u8>().add(index)) }
}
