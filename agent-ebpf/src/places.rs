//! States of TCP sockets, each at a place that its cookie gives. The kernel's storage for a socket is found by
//! three lines of memory that lie apart, which nothing else has brought into the caches; a place is one, and
//! cookies of sockets that were used first one after the other lie side by side.
//!
//! A place belongs to one socket until the kernel destroys that, or to none, and is all zeroes then. A socket
//! whose place another one had when it was seen first has its state in the kernel's storage, for good.

use core::ptr;

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;

use crate::atomic;
use crate::sock::State;

/// How many there are; a power of two. No more than this if the source needs fewer: what is beyond the map's end
/// has no place.
const PLACES_MAX: u32 = 1 << 15;

#[map(name = "PLACES")]
static PLACES: Array<State> = Array::with_max_entries(PLACES_MAX, 0);

#[inline(always)]
fn at(cookie: u64) -> Option<*mut State> {
    PLACES.get_ptr_mut(cookie as u32 & (PLACES_MAX - 1))
}

/// The state of the socket with this cookie, 0 if it has none, if it has a place.
#[inline(always)]
pub fn of(cookie: u64) -> Option<&'static mut State> {
    if cookie == 0 {
        return None;
    }
    let place = at(cookie)?;
    // SAFETY: a map value, alive while the program runs. Volatile, since other CPUs write it.
    if !State::is_of(unsafe { ptr::read_volatile(&raw const (*place).id) }, cookie) {
        return None;
    }
    // SAFETY: as above. It stays the socket's as long as that is there, which lives while the program runs.
    Some(unsafe { &mut *place })
}

/// As [`of`], of a socket that has no state yet: takes the place, if nobody has it.
#[inline(always)]
pub fn take(cookie: u64) -> Option<&'static mut State> {
    let place = at(cookie)?;
    // SAFETY: a field of a map value, alive while the program runs.
    let id = unsafe { &raw mut (*place).id };
    let had = atomic::exchange_if(id, 0, cookie);
    if had != 0 && !State::is_of(had, cookie) {
        return None;
    }
    // SAFETY: as in `of`.
    Some(unsafe { &mut *place })
}

/// Gives back the place of a socket that nobody will use any more, if it has one.
#[inline(always)]
pub fn give_back(cookie: u64) {
    let Some(state) = of(cookie) else { return };
    state.clear();
    // In this order for every CPU: who takes it next finds zeroes.
    atomic::swap(&raw mut state.id, 0);
}
