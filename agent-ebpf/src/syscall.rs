//! Which syscall the current task is in, and where its buffer lies. Knows the syscalls that move
//! bytes over sockets; what differs between architectures is in `arch`.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};

use crate::arch::{self, nr};
use crate::operation::Way;

/// Where the bytes of an operation are.
#[derive(Clone, Copy)]
pub enum Buffer {
    /// One buffer at this user address.
    Flat(u64),
    /// An array of this many `struct iovec` at this user address.
    Vectors(u64, u64),
    /// A `struct msghdr` at this user address.
    Message(u64),
    /// An array of this many `struct mmsghdr` at this user address.
    Messages(u64, u64),
    /// Not in this task's memory, or not to be told.
    Unknown,
    /// As `Unknown`, because io_uring did it.
    IoUring,
    /// As `Unknown`, because a 32-bit program did it.
    Compat,
}

/// A syscall that moves bytes.
#[derive(Clone, Copy)]
pub struct Call {
    /// Which way.
    pub way: Way,
    /// The descriptor.
    pub fd: u64,
    /// `MSG_*` of a receiving call.
    pub flags: i32,
    /// Where its bytes are.
    pub buffer: Buffer,
    /// Whether the caller asked for no bytes at all.
    pub asks_nothing: bool,
}

impl Call {
    #[inline(always)]
    fn new(way: Way, fd: u64, buffer: Buffer) -> Self {
        Self { way, fd, flags: 0, buffer, asks_nothing: false }
    }
}

/// No process has so many.
pub const NO_DESCRIPTOR: u32 = u32::MAX;

/// A syscall, as one operation sees it.
pub struct Syscall {
    /// The descriptor that it is about; `NO_DESCRIPTOR` if that is not known.
    pub fd: u32,
    /// Where the operation's bytes are.
    pub buffer: Buffer,
    /// Whether the caller asked for no bytes at all.
    pub asks_nothing: bool,
    /// Where the program goes on after it; 0 if that is not known.
    pub at: u64,
    /// What the register holds that Go keeps its running goroutine in, if this is Go's code.
    pub go_register: u64,
}

/// What the registers say, for the syscalls that move bytes over sockets.
///
/// # Safety
/// `regs` is a typed pointer to the task's saved registers.
#[inline(always)]
pub unsafe fn call(regs: *const u8, number: u32) -> Option<Call> {
    // SAFETY: the caller's promise.
    let argument = |index: usize| unsafe { arch::argument(regs, index) };
    let (first, second, third) = (argument(0), argument(1), argument(2));
    let call = match number {
        nr::READ | nr::RECVFROM => {
            let mut call = Call::new(Way::Inbound, first, Buffer::Flat(second));
            call.asks_nothing = third == 0;
            if number == nr::RECVFROM {
                call.flags = argument(3) as i32;
            }
            call
        }
        nr::WRITE | nr::SENDTO => Call::new(Way::Outbound, first, Buffer::Flat(second)),
        nr::READV | nr::PREADV2 => Call::new(Way::Inbound, first, Buffer::Vectors(second, third)),
        nr::WRITEV | nr::PWRITEV2 => {
            Call::new(Way::Outbound, first, Buffer::Vectors(second, third))
        }
        nr::SENDMSG => Call::new(Way::Outbound, first, Buffer::Message(second)),
        nr::RECVMSG => {
            let mut call = Call::new(Way::Inbound, first, Buffer::Message(second));
            call.flags = third as i32;
            call
        }
        nr::SENDMMSG => Call::new(Way::Outbound, first, Buffer::Messages(second, third)),
        nr::RECVMMSG => {
            let mut call = Call::new(Way::Inbound, first, Buffer::Messages(second, third));
            call.flags = argument(3) as i32;
            call
        }
        nr::SENDFILE => Call::new(Way::Outbound, first, Buffer::Unknown),
        // From the first descriptor into the third; one of them is a pipe.
        nr::SPLICE => Call::new(Way::Outbound, third, Buffer::Unknown),
        _ => return None,
    };
    Some(call)
}

/// Whether the current task's last syscall was shutdown(2).
#[inline(always)]
pub fn is_shutdown() -> bool {
    // SAFETY: takes no arguments; returns the running task.
    let task = unsafe { bpf_get_current_task_btf() };
    // SAFETY: `task` is the running task; its registers are saved while it is in the kernel.
    let regs = unsafe { bpf_task_pt_regs(task) } as *const u8;
    // SAFETY: `regs` is typed `struct pt_regs` for the verifier.
    unsafe { arch::number(regs) == nr::SHUTDOWN }
}

/// The syscall of the running task, a typed pointer, as an operation that went this way sees it in the
/// middle of it.
#[inline(always)]
pub fn current(task: *const u8, way: Way) -> Syscall {
    // SAFETY: `task` is the running task; its registers are saved while it is in the kernel.
    let regs = unsafe { bpf_task_pt_regs(task.cast_mut().cast()) } as *const u8;
    // SAFETY: `regs` is typed `struct pt_regs` for the verifier.
    let number = unsafe { arch::number(regs) };
    let blind =
        |buffer| Syscall { fd: NO_DESCRIPTOR, buffer, asks_nothing: false, at: 0, go_register: 0 };
    // SAFETY: as above.
    if unsafe { arch::is_compat(regs) } {
        return blind(Buffer::Compat);
    }
    // SAFETY: as above, and `task` is the running task.
    if number == nr::IO_URING_ENTER || !unsafe { arch::is_inside_syscall(task, regs) } {
        return blind(Buffer::IoUring);
    }
    // SAFETY: as above.
    let Some(call) = (unsafe { call(regs, number) }) else { return blind(Buffer::Unknown) };
    if call.way != way {
        return blind(Buffer::Unknown);
    }
    let buffer = match call.buffer {
        // Of several messages, nothing tells which one this is.
        Buffer::Messages(messages, 1) => Buffer::Message(messages),
        Buffer::Messages(..) => Buffer::Unknown,
        buffer => buffer,
    };
    // SAFETY: as above.
    unsafe { told(regs, call, buffer) }
}

/// What is told of a call whose bytes are there.
///
/// # Safety
/// As [`call`].
#[inline(always)]
pub unsafe fn told(regs: *const u8, call: Call, buffer: Buffer) -> Syscall {
    // SAFETY: the caller's promise.
    let (at, go_register) = unsafe { arch::go_registers(regs) };
    Syscall { fd: call.fd as u32, buffer, asks_nothing: call.asks_nothing, at, go_register }
}
