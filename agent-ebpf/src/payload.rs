//! Copies the first bytes of an operation out of the target's memory, after the call, so that
//! every page it used is there. The only file that reads user memory.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_user};

use crate::emit::{self, PAYLOAD_MAX, Scratch};
use crate::syscall::Buffer;
use agent_common::SUFFIX_BYTES;

/// Vectors looked at in one operation; a head spread over more is cut.
const VECTORS_MAX: u32 = 64;

/// What was copied.
pub struct Copied {
    /// Bytes in the scratch buffer, suffix included.
    pub bytes: u32,
    /// Whether the last [`SUFFIX_BYTES`] are the operation's last bytes.
    pub suffix: bool,
    /// Whether user memory could be read.
    pub readable: bool,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct IoVec {
    base: u64,
    len: u64,
}

/// Offset of `msg_iov` in `struct msghdr`; `msg_iovlen` follows (UAPI).
const MSG_IOV: u64 = 16;

/// Copies up to `limit` of the operation's `len` bytes into `scratch`.
#[inline(always)]
pub fn copy(scratch: &mut Scratch, buffer: Buffer, len: u32, limit: u32) -> Copied {
    match buffer {
        Buffer::Flat(base) => flat(scratch, base, len, limit),
        Buffer::Vectors(vectors, count) => vectored(vectors, count, len, limit),
        Buffer::Message(message) => {
            let mut header = IoVec { base: 0, len: 0 };
            if !read_vector(&mut header, message + MSG_IOV) {
                return Copied { bytes: 0, suffix: false, readable: false };
            }
            vectored(header.base, header.len, len, limit)
        }
        Buffer::Unknown | Buffer::IoUring | Buffer::Compat => {
            Copied { bytes: 0, suffix: false, readable: false }
        }
    }
}

#[inline(always)]
fn flat(scratch: &mut Scratch, base: u64, len: u32, limit: u32) -> Copied {
    let bytes = len.min(limit).min(PAYLOAD_MAX as u32);
    if !read(scratch, 0, base, bytes) {
        return Copied { bytes: 0, suffix: false, readable: false };
    }
    if len >= bytes + SUFFIX_BYTES as u32
        && read(scratch, bytes, base + u64::from(len) - SUFFIX_BYTES as u64, SUFFIX_BYTES as u32)
    {
        return Copied { bytes: bytes + SUFFIX_BYTES as u32, suffix: true, readable: true };
    }
    Copied { bytes, suffix: false, readable: true }
}

/// A walk over vectors, one step a vector.
struct Walk {
    vectors: u64,
    count: u64,
    len: u64,
    /// Bytes to copy, and copied so far.
    want: u32,
    done: u32,
    /// How far into the operation the vectors seen reach.
    reached: u64,
    /// The operation's last bytes as far as seen, and how many of them are real.
    tail: u64,
    tail_bytes: u64,
    unreadable: u64,
}

fn vectored(vectors: u64, count: u64, len: u32, limit: u32) -> Copied {
    let want = len.min(limit).min(PAYLOAD_MAX as u32);
    let mut walk = Walk {
        vectors,
        count,
        len: u64::from(len),
        want,
        done: 0,
        reached: 0,
        tail: 0,
        tail_bytes: 0,
        unreadable: 0,
    };
    let context = (&raw mut walk).cast();
    // SAFETY: `step` has the signature that bpf_loop calls (index, context); the context outlives
    // the call. A loop of our own would multiply the verifier's states.
    unsafe { bpf_loop(VECTORS_MAX, step as *const () as *mut c_void, context, 0) };
    let done = walk.done;
    if walk.unreadable != 0 {
        return Copied { bytes: done, suffix: false, readable: done > 0 };
    }
    let whole_tail = walk.reached == walk.len && walk.tail_bytes >= SUFFIX_BYTES as u64;
    if len >= want + SUFFIX_BYTES as u32 && done == want && whole_tail {
        if let Some(scratch) = emit::scratch() {
            scratch.put_word(done, walk.tail);
            return Copied { bytes: done + SUFFIX_BYTES as u32, suffix: true, readable: true };
        }
    }
    Copied { bytes: done, suffix: false, readable: true }
}

/// Copies what is wanted of vector `index`. 0 goes on, 1 stops.
extern "C" fn step(index: u64, context: *mut c_void) -> i64 {
    // SAFETY: `vectored` passes a `Walk` that outlives the loop.
    let walk = unsafe { &mut *context.cast::<Walk>() };
    if index >= walk.count || walk.reached >= walk.len {
        return 1;
    }
    let mut vector = IoVec { base: 0, len: 0 };
    if !read_vector(&mut vector, walk.vectors + index * size_of::<IoVec>() as u64) {
        walk.unreadable = 1;
        return 1;
    }
    let used = vector.len.min(walk.len - walk.reached);
    if used == 0 {
        return 0;
    }
    walk.reached += used;
    if walk.done < walk.want {
        let bytes = used.min(u64::from(walk.want - walk.done)) as u32;
        let Some(scratch) = emit::scratch() else { return 1 };
        if !read(scratch, walk.done, vector.base, bytes) {
            walk.unreadable = 1;
            return 1;
        }
        walk.done += bytes;
    }
    if walk.len > u64::from(walk.want) {
        // Keep the last eight bytes across vectors: a chunked body's end is often a vector of its
        // own.
        let last = used.min(SUFFIX_BYTES as u64);
        let mut word = 0u64;
        if !read_word(&mut word, vector.base + used - last, last) {
            walk.unreadable = 1;
            return 1;
        }
        if last == SUFFIX_BYTES as u64 {
            walk.tail = word;
        } else {
            walk.tail = (walk.tail >> ((8 * last) & 63)) | (word << ((64 - 8 * last) & 63));
        }
        walk.tail_bytes += last;
    }
    0
}

/// Reads `bytes` from user memory to `scratch.payload[at..]`.
#[inline(always)]
fn read(scratch: &mut Scratch, at: u32, from: u64, bytes: u32) -> bool {
    let at = (at as usize) & (PAYLOAD_MAX * 2 - 1);
    let bytes = bytes & (PAYLOAD_MAX as u32 * 2 - 1);
    if at > PAYLOAD_MAX || bytes > PAYLOAD_MAX as u32 {
        return false;
    }
    // SAFETY: `at` is at most PAYLOAD_MAX, half of the buffer.
    let to = unsafe { scratch.payload.as_mut_ptr().add(at) };
    // SAFETY: `to` has PAYLOAD_MAX bytes behind it and `bytes` is no more; the helper checks the
    // user address and fails instead of faulting.
    unsafe { bpf_probe_read_user(to.cast(), bytes, from as *const _) == 0 }
}

#[inline(always)]
fn read_vector(vector: &mut IoVec, from: u64) -> bool {
    let size = size_of::<IoVec>() as u32;
    // SAFETY: `vector` is exactly `size` bytes; the helper checks the user address.
    unsafe { bpf_probe_read_user((&raw mut *vector).cast(), size, from as *const _) == 0 }
}

#[inline(always)]
fn read_word(word: &mut u64, from: u64, bytes: u64) -> bool {
    let bytes = (bytes & 15) as u32;
    if bytes > SUFFIX_BYTES as u32 {
        return false;
    }
    // SAFETY: `word` holds eight bytes and `bytes` is no more; the helper checks the user address.
    unsafe { bpf_probe_read_user((&raw mut *word).cast(), bytes, from as *const _) == 0 }
}
