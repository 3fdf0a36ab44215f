//! Just enough io_uring to send and receive.
#![expect(unsafe_code, reason = "io_uring is memory shared with the kernel")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

const SETUP_SQPOLL: u32 = 1 << 1;
const ENTER_GETEVENTS: usize = 1;
const ENTER_SQ_WAKEUP: usize = 1 << 1;
const SQ_NEED_WAKEUP: u32 = 1;
/// A flag: done by a worker thread.
pub const ASYNC: u8 = 1 << 4;
const SEND: u8 = 26;
const RECV: u8 = 27;
const OFF_SQES: i64 = 0x1000_0000;

/// `struct io_uring_params`, as far as it is used.
#[repr(C)]
#[derive(Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    rest: [u32; 7],
    /// head, tail, ring_mask, ring_entries, flags, dropped, array
    sq: [u32; 10],
    /// head, tail, ring_mask, ring_entries, overflow, cqes
    cq: [u32; 10],
}

/// `struct io_uring_sqe`, as far as it is used.
#[repr(C)]
struct Entry {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    offset: u64,
    address: u64,
    len: u32,
    message_flags: u32,
    user: u64,
    rest: [u64; 3],
}

/// A ring.
pub struct Ring {
    fd: OwnedFd,
    is_polled: bool,
    rings: usize,
    entries: usize,
    params: Params,
}

impl Ring {
    /// A ring that the kernel polls, or one that is entered. `None` where io_uring is switched off.
    pub fn new(is_polled: bool) -> Option<Self> {
        let flags = if is_polled { SETUP_SQPOLL } else { 0 };
        let mut params = Params { flags, ..Params::default() };
        let at = std::ptr::from_mut(&mut params) as usize;
        let fd = call(libc::SYS_io_uring_setup, [8, at, 0, 0, 0, 0]);
        if fd < 0 {
            return None;
        }
        // SAFETY: a descriptor that was just made and belongs to no one else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let map = |offset: i64| {
            let protection = (libc::PROT_READ | libc::PROT_WRITE) as usize;
            let descriptor = fd.as_raw_fd() as usize;
            let flags = libc::MAP_SHARED as usize;
            done(libc::SYS_mmap, [0, 4096, protection, flags, descriptor, offset as usize])
        };
        let (rings, entries) = (map(0), map(OFF_SQES));
        Some(Self { fd, is_polled, rings, entries, params })
    }

    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the kernel's offset of a word in the ring's memory, which is mapped for good.
        unsafe { AtomicU32::from_ptr((self.rings + offset as usize) as *mut u32) }
    }

    /// Begins to send or receive. The buffer lives until [`Self::result`] has told of it.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn submit(&self, is_send: bool, fd: usize, buffer: &[u8], flags: u8) {
        let tail = self.word(self.params.sq[1]);
        let index = tail.load(Ordering::Acquire) & (self.params.sq_entries - 1);
        let entry = Entry {
            opcode: if is_send { SEND } else { RECV },
            flags,
            ioprio: 0,
            fd: fd as i32,
            offset: 0,
            address: buffer.as_ptr() as u64,
            len: buffer.len() as u32,
            message_flags: 0,
            user: 0,
            rest: [0; 3],
        };
        let to = (self.entries + index as usize * size_of::<Entry>()) as *mut Entry;
        // SAFETY: one of the entries in the mapped array.
        unsafe { to.write(entry) };
        self.word(self.params.sq[6] + 4 * index).store(index, Ordering::Relaxed);
        tail.fetch_add(1, Ordering::Release);
        if !self.is_polled {
            assert_eq!(self.enter(1, 0, 0), 1);
        } else if self.word(self.params.sq[4]).load(Ordering::SeqCst) & SQ_NEED_WAKEUP != 0 {
            assert!(self.enter(1, 0, ENTER_SQ_WAKEUP) >= 0);
        }
    }

    /// Waits for the result of what was begun.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn result(&self) -> i32 {
        let head = self.word(self.params.cq[0]);
        let first = head.load(Ordering::Acquire);
        while self.word(self.params.cq[1]).load(Ordering::Acquire) == first {
            assert!(self.enter(0, 1, ENTER_GETEVENTS) >= 0);
        }
        let index = first & (self.params.cq_entries - 1);
        // A `struct io_uring_cqe` is sixteen bytes; the result follows the eight of the user.
        let result = self.word(self.params.cq[5] + 16 * index + 8).load(Ordering::Relaxed);
        head.store(first.wrapping_add(1), Ordering::Release);
        result as i32
    }

    fn enter(&self, submit: usize, wait: usize, flags: usize) -> i64 {
        let fd = self.fd.as_raw_fd() as usize;
        call(libc::SYS_io_uring_enter, [fd, submit, wait, flags, 0, 0])
    }
}

/// Makes a syscall and gives its result, or the negative errno. Descriptors, sizes and pointers to
/// buffers that live through the call are the caller's duty.
pub fn call(number: libc::c_long, arguments: [usize; 6]) -> i64 {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the caller's promise.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 {
        -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    } else {
        result
    }
}

/// Makes a syscall that succeeds.
///
/// # Panics
/// If it does not.
pub fn done(number: libc::c_long, arguments: [usize; 6]) -> usize {
    let result = call(number, arguments);
    assert!(result >= 0, "syscall {number} failed: {result}");
    result as usize
}
