//! Which syscall the current task is in, and where its buffer lies. x86-64 only; another
//! architecture is another `cfg` of the three functions at the bottom.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};

use crate::offsets::{load, offset};
use crate::operation::Way;

/// Where the bytes of the current operation are.
#[derive(Clone, Copy)]
pub enum Buffer {
    /// One buffer at this user address.
    Flat(u64),
    /// An array of this many `struct iovec` at this user address.
    Vectors(u64, u64),
    /// A `struct msghdr` at this user address.
    Message(u64),
    /// Not in this task's memory, or not to be told.
    Unknown,
    /// As `Unknown`, because io_uring did it.
    IoUring,
    /// As `Unknown`, because a 32-bit program did it.
    Compat,
}

/// The syscall's number and its buffer.
pub struct Syscall {
    /// The number on this architecture.
    pub number: u32,
    /// Where its bytes are.
    pub buffer: Buffer,
}

/// `struct pt_regs` of x86-64 as the kernel's UAPI fixes it: eight-byte registers in this order.
mod reg {
    pub const DX: usize = 12 * 8;
    pub const SI: usize = 13 * 8;
    pub const ORIG_AX: usize = 15 * 8;
    pub const CS: usize = 17 * 8;
}

/// Code segment of 64-bit user code (`__USER_CS`).
const USER_CS_64: u64 = 0x33;

mod nr {
    pub const READ: u32 = 0;
    pub const WRITE: u32 = 1;
    pub const READV: u32 = 19;
    pub const WRITEV: u32 = 20;
    pub const SENDTO: u32 = 44;
    pub const RECVFROM: u32 = 45;
    pub const SENDMSG: u32 = 46;
    pub const RECVMSG: u32 = 47;
    pub const PREADV2: u32 = 327;
    pub const PWRITEV2: u32 = 328;
    pub const IO_URING_ENTER: u32 = 426;
}

/// Reads the current task's registers as they were at the syscall's entry.
#[inline(always)]
pub fn current(way: Way) -> Syscall {
    // SAFETY: takes no arguments; returns the running task.
    let task = unsafe { bpf_get_current_task_btf() };
    // SAFETY: `task` is the running task; its registers are saved while it is in the kernel.
    let regs = unsafe { bpf_task_pt_regs(task) } as *const u8;
    // SAFETY: `regs` is typed `struct pt_regs` for the verifier; each offset is one of its fields.
    let number = unsafe { load::<u64>(regs, reg::ORIG_AX) } as u32;
    // SAFETY: as above.
    let cs = unsafe { load::<u64>(regs, reg::CS) };
    if cs != USER_CS_64 {
        return Syscall { number, buffer: Buffer::Compat };
    }
    // A completion of io_uring can run as task work inside any syscall, whose registers then say
    // nothing about it. `task_struct.io_uring` is set for every task that has used it.
    let io_uring = offset!(task_io_uring);
    if number == nr::IO_URING_ENTER {
        return Syscall { number, buffer: Buffer::IoUring };
    }
    if io_uring != 0 {
        // SAFETY: the field's offset comes from BTF; the verifier checks it.
        let context = unsafe { load::<u64>(task as *const u8, io_uring) };
        if context != 0 {
            return Syscall { number, buffer: Buffer::IoUring };
        }
    }
    // SAFETY: as above.
    let second = unsafe { load::<u64>(regs, reg::SI) };
    // SAFETY: as above.
    let third = unsafe { load::<u64>(regs, reg::DX) };
    let buffer = match (way, number) {
        (Way::Inbound, nr::READ | nr::RECVFROM) | (Way::Outbound, nr::WRITE | nr::SENDTO) => {
            Buffer::Flat(second)
        }
        (Way::Inbound, nr::READV | nr::PREADV2) | (Way::Outbound, nr::WRITEV | nr::PWRITEV2) => {
            Buffer::Vectors(second, third)
        }
        (Way::Inbound, nr::RECVMSG) | (Way::Outbound, nr::SENDMSG) => Buffer::Message(second),
        _ => Buffer::Unknown,
    };
    Syscall { number, buffer }
}
