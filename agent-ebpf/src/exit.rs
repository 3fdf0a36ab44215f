//! Socket operations as seen from the end of every syscall.

use core::mem::MaybeUninit;
use core::ptr;

use agent_common::counter;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;

use crate::arch::{self, nr};
use crate::emit::Slot;
use crate::operation::{self, Moved, Way};
use crate::process::{self, Ids};
use crate::sock::Found;
use crate::syscall::{self, Buffer, Call};
use crate::{descriptor, emit, payload};

/// Called when a syscall returns `result`, for every syscall of the host: what cannot be a socket
/// operation leaves first, then what another process did.
#[inline(always)]
pub fn on_sys_exit(regs: *const u8, result: i64) {
    // SAFETY: `regs` is the tracepoint's typed argument.
    let number = unsafe { arch::number(regs) };
    // SAFETY: as above.
    let is_compat = unsafe { arch::is_compat(regs) };
    if !is_compat && number == nr::IO_URING_ENTER {
        if result > 0 && selected().is_some() {
            emit::count(counter::IO_URING_UNSEEN);
        }
        return;
    }
    let call = if is_compat {
        // SAFETY: as above.
        unsafe { arch::compat_call(regs, number) }
    } else {
        // SAFETY: as above.
        unsafe { syscall::call(regs, number) }
    };
    let Some(call) = call else { return };
    if !operation::says_something(result as i32, call.flags, call.way) {
        return;
    }
    let Some(me) = selected() else { return };
    let Some(ended) = forget_way(Ended { number, call, result: result as i32, me }) else { return };
    on_call(regs, ended);
}

/// A syscall that may have moved bytes.
#[derive(Clone, Copy)]
struct Ended {
    number: u32,
    call: Call,
    result: i32,
    me: Ids,
}

#[map(name = "ENDED")]
static ENDED: PerCpuArray<MaybeUninit<Ended>> = PerCpuArray::with_max_entries(1, 0);

/// The same, of which the verifier does not know by which of many ways it came: it then goes on
/// once, not once for each syscall and each kind of caller.
#[inline(always)]
fn forget_way(ended: Ended) -> Option<Ended> {
    let place = ENDED.get_ptr_mut(0)?.cast::<Ended>();
    // SAFETY: this CPU's value, which nothing else uses while the program runs.
    unsafe { ptr::write(place, ended) };
    // SAFETY: as above, written just now. Volatile, or nothing would be forgotten.
    Some(unsafe { ptr::read_volatile(place) })
}

#[inline(always)]
fn on_call(regs: *const u8, ended: Ended) {
    let Ended { number, mut call, result, me } = ended;
    let mut descriptor = descriptor::socket(call.fd);
    if descriptor.is_none() && number == nr::SPLICE {
        // SAFETY: `regs` is the tracepoint's typed argument.
        descriptor = descriptor::socket(unsafe { arch::argument(regs, 0) });
        call.way = Way::Inbound;
    }
    let Some(descriptor) = descriptor else { return };
    let mut bytes = result;
    let mut buffer = call.buffer;
    if let Buffer::Messages(messages, _) = buffer {
        buffer = if result == 1 { Buffer::Message(messages) } else { Buffer::Unknown };
        if result > 0 {
            let Some(sum) = payload::moved_by_messages(messages, result as u64) else { return };
            bytes = sum as i32;
        }
    }
    let mut flags = call.flags;
    if descriptor.is_nonblocking && call.way == Way::Inbound {
        flags |= operation::MSG_DONTWAIT;
    }
    // One program for both ways, so one slot.
    let moved = Moved { bytes, flags, way: call.way, slot: Slot::OUTBOUND, me };
    // SAFETY: `regs` is the tracepoint's typed argument.
    let syscall = unsafe { syscall::told(regs, call, buffer) };
    operation::on_io::<Found>(descriptor.sock, moved, |_| syscall);
}

#[inline(always)]
fn selected() -> Option<Ids> {
    process::may_be_selected().filter(|me| process::selected(me.tgid()).is_some())
}
