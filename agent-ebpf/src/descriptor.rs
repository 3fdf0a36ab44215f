//! From a file descriptor of the current task to its socket (5.11, for the typed task), for hooks that are
//! not handed the socket; and from a file to what epoll was told of it.

use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_probe_read_kernel};

use crate::offsets::offset;
use crate::sock::{Found, Sock, Typed};

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
    let task = unsafe { bpf_get_current_task_btf() } as *const u8;
    // SAFETY: the running task, typed.
    let table = unsafe { Typed::new(task) }.follow(offset!(task_files)).follow(offset!(files_fdt));
    if fd >= table.load::<u32>(offset!(fdt_max_fds)) {
        return None;
    }
    let files = Found::new(table.load(offset!(fdt_fd)), 0);
    let file = files.follow(fd as usize * size_of::<u64>());
    if file.is_null() { None } else { Some(file) }
}

/// Where the newest of the instances of epoll that watch a file keeps what it knows of it; 0 if none
/// does, or this kernel has that elsewhere (before 5.11).
#[inline(always)]
pub fn watched(file: impl Sock) -> u64 {
    if offset!(file_epoll) == 0 { 0 } else { file.follow(offset!(file_epoll)).load::<u64>(0) }
}

/// `sizeof(struct epitem)`, at most: the kernel does not build with more.
const ITEM_BYTES: usize = 128;

/// The descriptor that epoll watches a file by, and what its user wants to be told with it
/// (`epoll_data`), by what [`watched`] says.
#[inline(always)]
pub fn told_to_epoll(watched: u64) -> Option<(u32, u64)> {
    let data = offset!(epitem_event) + offset!(epoll_event_data);
    let fd = offset!(epitem_fd);
    let last = ITEM_BYTES - size_of::<u64>();
    if watched == 0 || data > last || fd > last {
        return None;
    }
    // All of it at once: a read of the kernel's memory costs much, its length little.
    let mut item = MaybeUninit::<[u64; ITEM_BYTES / size_of::<u64>()]>::uninit();
    let from = (watched - offset!(epitem_link) as u64) as *const _;
    let item = item.as_mut_ptr().cast::<u8>();
    // SAFETY: `item` has that many bytes; the helper fails instead of faulting, and fills it with zeroes then.
    unsafe { bpf_probe_read_kernel(item.cast(), ITEM_BYTES as u32, from) };
    // SAFETY: within the item, by the checks above. A packed word is read by halves.
    let half = |at: usize| u64::from(unsafe { ptr::read_volatile(item.add(at).cast::<u32>()) });
    Some((half(fd) as u32, half(data) | (half(data + size_of::<u32>()) << 32)))
}
