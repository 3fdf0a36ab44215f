//! From a file descriptor of the current task to its socket, with plain kernel reads (any kernel
//! since 5.8), for hooks that are not handed the socket; and from a file to what epoll was told of it.

use aya_ebpf::helpers::generated::bpf_get_current_task;

use crate::offsets::offset;
use crate::sock::{Found, Sock};

/// What a descriptor leads to.
pub struct Descriptor {
    /// The socket.
    pub sock: Found,
    /// Whether it is in non-blocking mode.
    pub is_nonblocking: bool,
}

/// `S_IFMT` and `S_IFSOCK` of `<linux/stat.h>`.
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;
const O_NONBLOCK: u32 = 0o4000;

/// The socket behind `fd`; `None` if it is anything else.
///
/// Another thread may have closed and reused the descriptor since the syscall did its work: then
/// this is the socket that has it now.
#[inline(always)]
pub fn socket(fd: u64) -> Option<Descriptor> {
    // The kernel's descriptors are 32-bit; a caller may leave rubbish above.
    let file = file(fd as u32)?;
    let inode = file.follow(offset!(file_inode));
    if inode.load::<u16>(offset!(inode_mode)) & S_IFMT != S_IFSOCK {
        return None;
    }
    let number = inode.load::<u64>(offset!(inode_number));
    let socket = file.follow(offset!(file_private_data));
    let sk = socket.load::<u64>(offset!(socket_sk));
    if sk == 0 {
        return None;
    }
    let is_nonblocking = file.load::<u32>(offset!(file_flags)) & O_NONBLOCK != 0;
    Some(Descriptor { sock: Found::new(sk as *const u8, number), is_nonblocking })
}

/// The file behind `fd`.
#[inline(always)]
pub fn file(fd: u32) -> Option<Found> {
    // SAFETY: takes no arguments.
    let task = Found::new(unsafe { bpf_get_current_task() } as *const u8, 0);
    let table = task.follow(offset!(task_files)).follow(offset!(files_fdt));
    if fd >= table.load::<u32>(offset!(fdt_max_fds)) {
        return None;
    }
    let file = table.follow(offset!(fdt_fd)).follow(fd as usize * size_of::<u64>());
    if file.is_null() { None } else { Some(file) }
}

/// The descriptor that epoll watches a file by, and what its user wants to be told with it
/// (`epoll_data`); `None` if it does not, or this kernel keeps that elsewhere (before 5.11). Of several
/// instances of epoll, the one that was told last.
#[inline(always)]
pub fn told_to_epoll(file: Found) -> Option<(u32, u64)> {
    if offset!(file_epoll) == 0 {
        return None;
    }
    let node = file.follow(offset!(file_epoll)).load::<u64>(0);
    if node == 0 {
        return None;
    }
    let item = Found::new((node - offset!(epitem_link) as u64) as *const u8, 0);
    let told = item.load::<u64>(offset!(epitem_event) + offset!(epoll_event_data));
    Some((item.load::<u32>(offset!(epitem_fd)), told))
}
