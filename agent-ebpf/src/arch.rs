//! Registers and syscall numbers of the architectures that remora knows.
//!
//! Every `regs` here is a typed `struct pt_regs` pointer, so that the verifier checks each offset;
//! its layout is fixed by the kernel's UAPI.

use crate::offsets::load;

#[cfg(bpf_target_arch = "x86_64")]
pub use x86_64::*;

#[cfg(bpf_target_arch = "aarch64")]
pub use aarch64::*;

#[cfg(bpf_target_arch = "x86_64")]
mod x86_64 {
    use super::load;
    use crate::operation::Way;
    use crate::syscall::{Buffer, Call};

    /// `asm/unistd_64.h`.
    pub mod nr {
        pub const READ: u32 = 0;
        pub const WRITE: u32 = 1;
        pub const READV: u32 = 19;
        pub const WRITEV: u32 = 20;
        pub const SENDFILE: u32 = 40;
        pub const SENDTO: u32 = 44;
        pub const RECVFROM: u32 = 45;
        pub const SENDMSG: u32 = 46;
        pub const RECVMSG: u32 = 47;
        pub const SHUTDOWN: u32 = 48;
        pub const SPLICE: u32 = 275;
        pub const RECVMMSG: u32 = 299;
        pub const SENDMMSG: u32 = 307;
        pub const PREADV2: u32 = 327;
        pub const PWRITEV2: u32 = 328;
        pub const IO_URING_ENTER: u32 = 426;
    }

    /// `asm/unistd_32.h`.
    mod compat {
        pub const READ: u32 = 3;
        pub const WRITE: u32 = 4;
        pub const READV: u32 = 145;
        pub const WRITEV: u32 = 146;
        pub const SENDFILE: u32 = 187;
        pub const SENDFILE64: u32 = 239;
        pub const SENDTO: u32 = 369;
        pub const SENDMSG: u32 = 370;
        pub const RECVFROM: u32 = 371;
        pub const RECVMSG: u32 = 372;
    }

    const ENOSYS: u64 = 38;
    /// Code segment of 64-bit user code (`__USER_CS`).
    const USER_CS_64: u64 = 0x33;
    const AX: usize = 10 * 8;
    const ORIG_AX: usize = 15 * 8;
    const CS: usize = 17 * 8;
    const IP: usize = 16 * 8;
    const R14: usize = 8;
    /// `rdi`, `rsi`, `rdx`, `r10`.
    const ARGUMENTS: [usize; 4] = [14 * 8, 13 * 8, 12 * 8, 7 * 8];
    /// `ebx`, `ecx`, `edx`, `esi`.
    const COMPAT_ARGUMENTS: [usize; 4] = [5 * 8, 11 * 8, 12 * 8, 13 * 8];

    /// The syscall's number.
    ///
    /// # Safety
    /// See the module.
    #[inline(always)]
    pub unsafe fn number(regs: *const u8) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { load::<u64>(regs, ORIG_AX) as u32 }
    }

    /// One of the syscall's first four arguments.
    ///
    /// # Safety
    /// See the module.
    #[inline(always)]
    pub unsafe fn argument(regs: *const u8, index: usize) -> u64 {
        let [first, second, third, fourth] = ARGUMENTS;
        let offset = match index {
            0 => first,
            1 => second,
            2 => third,
            _ => fourth,
        };
        // SAFETY: the caller's promise.
        unsafe { load::<u64>(regs, offset) }
    }

    /// Where the program goes on after the syscall, and the register that Go's functions find the running
    /// goroutine in (`src/cmd/compile/abi-internal.md`).
    ///
    /// # Safety
    /// See the module.
    #[inline(always)]
    pub unsafe fn go_registers(regs: *const u8) -> (u64, u64) {
        // SAFETY: the caller's promise.
        let at = unsafe { load::<u64>(regs, IP) };
        // SAFETY: as above.
        (at, unsafe { load::<u64>(regs, R14) })
    }

    /// Whether a 32-bit program made the syscall.
    ///
    /// # Safety
    /// See the module.
    #[inline(always)]
    pub unsafe fn is_compat(regs: *const u8) -> bool {
        // SAFETY: the caller's promise.
        unsafe { load::<u64>(regs, CS) != USER_CS_64 }
    }

    /// Whether the task is doing the syscall that its registers name.
    ///
    /// The kernel's entry code puts `-ENOSYS` where the result will be. After the syscall the
    /// result is there, so completions of io_uring that run on the way out are told apart; the
    /// worker threads of io_uring have a copy of their creator's registers with 0 there
    /// (`copy_thread`).
    ///
    /// # Safety
    /// See the module.
    #[inline(always)]
    pub unsafe fn is_inside_syscall(_task: *const u8, regs: *const u8) -> bool {
        // SAFETY: the caller's promise.
        unsafe { load::<u64>(regs, AX) == ENOSYS.wrapping_neg() }
    }

    /// As `syscall::call`, for 32-bit programs: no buffers.
    ///
    /// # Safety
    /// See the module.
    #[inline(always)]
    pub unsafe fn compat_call(regs: *const u8, number: u32) -> Option<Call> {
        let [first, _, third, fourth] = COMPAT_ARGUMENTS;
        let (way, flags) = match number {
            compat::READ | compat::READV => (Way::Inbound, None),
            compat::RECVFROM => (Way::Inbound, Some(fourth)),
            compat::RECVMSG => (Way::Inbound, Some(third)),
            compat::WRITE | compat::WRITEV | compat::SENDTO | compat::SENDMSG => {
                (Way::Outbound, None)
            }
            compat::SENDFILE | compat::SENDFILE64 => (Way::Outbound, None),
            _ => return None,
        };
        // SAFETY: the caller's promise.
        let fd = unsafe { load::<u64>(regs, first) };
        let flags = match flags {
            // SAFETY: the caller's promise.
            Some(offset) => unsafe { load::<u64>(regs, offset) as i32 },
            None => 0,
        };
        Some(Call { way, fd, flags, buffer: Buffer::Compat, asks_nothing: false })
    }
}

#[cfg(bpf_target_arch = "aarch64")]
mod aarch64 {
    use super::load;
    use crate::offsets::offset;
    use crate::syscall::Call;

    /// `asm-generic/unistd.h`.
    pub mod nr {
        pub const READ: u32 = 63;
        pub const WRITE: u32 = 64;
        pub const READV: u32 = 65;
        pub const WRITEV: u32 = 66;
        pub const SENDFILE: u32 = 71;
        pub const SPLICE: u32 = 76;
        pub const SENDTO: u32 = 206;
        pub const RECVFROM: u32 = 207;
        pub const SHUTDOWN: u32 = 210;
        pub const SENDMSG: u32 = 211;
        pub const RECVMSG: u32 = 212;
        pub const RECVMMSG: u32 = 243;
        pub const SENDMMSG: u32 = 269;
        pub const PREADV2: u32 = 286;
        pub const PWRITEV2: u32 = 287;
        pub const IO_URING_ENTER: u32 = 426;
    }

    /// `struct user_pt_regs` is 31 registers, `sp`, `pc`, `pstate`; the kernel's own fields follow.
    const PSTATE: usize = 33 * 8;
    const ORIG_X0: usize = 34 * 8;
    const SYSCALL: usize = 35 * 8;
    /// `PSR_MODE32_BIT`
    const MODE_32: u64 = 0x10;
    /// `PF_IO_WORKER`
    const IO_WORKER: u32 = 0x10;

    /// The syscall's number.
    ///
    /// # Safety
    /// See the module.
    #[inline(always)]
    pub unsafe fn number(regs: *const u8) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { load::<u32>(regs, SYSCALL) }
    }

    /// One of the syscall's first four arguments. The result overwrites the first register, so the
    /// first argument is read from its copy.
    ///
    /// # Safety
    /// See the module.
    #[inline(always)]
    pub unsafe fn argument(regs: *const u8, index: usize) -> u64 {
        let offset = if index == 0 { ORIG_X0 } else { index * 8 };
        // SAFETY: the caller's promise.
        unsafe { load::<u64>(regs, offset) }
    }

    /// Goroutines are not followed on this architecture.
    ///
    /// # Safety
    /// See the module.
    #[inline(always)]
    pub unsafe fn go_registers(_regs: *const u8) -> (u64, u64) {
        (0, 0)
    }

    /// Whether a 32-bit program made the syscall.
    ///
    /// # Safety
    /// See the module.
    #[inline(always)]
    pub unsafe fn is_compat(regs: *const u8) -> bool {
        // SAFETY: the caller's promise.
        unsafe { load::<u64>(regs, PSTATE) & MODE_32 != 0 }
    }

    /// Whether the task is doing the syscall that its registers name. Nothing in the registers
    /// tells, so a task that has ever used io_uring is never believed.
    ///
    /// # Safety
    /// See the module; `task` is a typed pointer to the running task.
    #[inline(always)]
    pub unsafe fn is_inside_syscall(task: *const u8, _regs: *const u8) -> bool {
        // SAFETY: the caller's promise.
        let flags = unsafe { load::<u32>(task, offset!(task_flags)) };
        let io_uring = offset!(task_io_uring);
        // A kernel without io_uring has no such field.
        // SAFETY: as above.
        let context = if io_uring == 0 { 0 } else { unsafe { load::<u64>(task, io_uring) } };
        flags & IO_WORKER == 0 && context == 0
    }

    /// 32-bit programs are not followed on this architecture.
    ///
    /// # Safety
    /// See the module.
    #[inline(always)]
    pub unsafe fn compat_call(_regs: *const u8, _number: u32) -> Option<Call> {
        None
    }
}
