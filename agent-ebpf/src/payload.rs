//! Copies the first bytes of an operation out of the target's memory, after the call, so that
//! every page it used is there.

use core::ptr;

use aya_ebpf::helpers::generated::bpf_probe_read_user;

use crate::emit::{self, IoVec, PAYLOAD_MAX, Scratch, Slot, VECTORS_AT_ONCE};
use crate::opaque::opaque;
use crate::syscall::Buffer;
use crate::user::{self, Plain};
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

// SAFETY: two words.
unsafe impl Plain for IoVec {}

/// Offset of `msg_iov` in `struct msghdr`; `msg_iovlen` follows (UAPI).
const MSG_IOV: u64 = 16;
/// Size of `struct mmsghdr`, and where its `msg_len` lies (UAPI, 64-bit).
const MMSGHDR_BYTES: u64 = 64;
const MMSGHDR_LEN: u64 = 56;
/// Most messages of one call: `UIO_MAXIOV`.
const MESSAGES_MAX: u32 = 1024;

/// Copies up to `limit` of the operation's `len` bytes into `scratch`.
#[inline(always)]
pub fn copy(slot: Slot, scratch: &mut Scratch, buffer: Buffer, len: u32, limit: u32) -> Copied {
    match buffer {
        Buffer::Flat(base) => flat(scratch, base, len, limit),
        Buffer::Vectors(vectors, count) => vectored(slot, vectors, count, len, limit),
        Buffer::Message(message) => {
            let Some(IoVec { base, len: count }) = user::read(message + MSG_IOV) else {
                return Copied { bytes: 0, suffix: false, readable: false };
            };
            vectored(slot, base, count, len, limit)
        }
        Buffer::Messages(..) | Buffer::Unknown | Buffer::IoUring | Buffer::Compat => {
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

/// Bits of what [`walk`] returns, above the bytes copied.
const SUFFIX: u32 = 1 << 31;
const UNREADABLE: u32 = 1 << 30;

#[inline(always)]
fn vectored(slot: Slot, vectors: u64, count: u64, len: u32, limit: u32) -> Copied {
    let want = len.min(limit).min(PAYLOAD_MAX as u32);
    let result = copy_vectors(slot.index(), vectors, count, len, want);
    let bytes = result & (PAYLOAD_MAX as u32 * 2 - 1);
    let readable = result & UNREADABLE == 0 || bytes > 0;
    Copied { bytes, suffix: result & SUFFIX != 0, readable }
}

/// Walks over `count` vectors at `vectors`. Global, as [`copy_vector`] is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn copy_vectors(slot: u32, vectors: u64, count: u64, len: u32, want: u32) -> u32 {
    let Some(scratch) = emit::scratch_at(slot) else { return UNREADABLE };
    let len = u64::from(len);
    let walk = &mut scratch.walk;
    // Field by field, and no three zeroes in a row: those are filled in by a function that goes byte by
    // byte.
    walk.reached = 0;
    walk.vectors = vectors;
    walk.tail = 0;
    walk.count = count;
    walk.tail_bytes = 0;
    walk.len = len;
    walk.done = 0;
    walk.want = want;
    walk.unreadable = 0;
    walk.seen = 0;
    // A head and a body are two, and spare the calls.
    if step(scratch) && step(scratch) {
        for _ in 2..VECTORS_MAX {
            if copy_vector(slot) == 0 {
                break;
            }
        }
    }
    let walk = &raw const scratch.walk;
    // SAFETY: part of the scratch, alive while the program runs. Volatile, since `copy_vector` writes it.
    let done = unsafe { ptr::read_volatile(&raw const (*walk).done) };
    // SAFETY: as above.
    if unsafe { ptr::read_volatile(&raw const (*walk).unreadable) } != 0 {
        return done | UNREADABLE;
    }
    if len < u64::from(want) + SUFFIX_BYTES as u64 || done != want {
        return done;
    }
    // SAFETY: as above.
    let reached = unsafe { ptr::read_volatile(&raw const (*walk).reached) };
    // SAFETY: as above.
    let tail_bytes = unsafe { ptr::read_volatile(&raw const (*walk).tail_bytes) };
    if reached != len || tail_bytes < SUFFIX_BYTES as u64 {
        return done;
    }
    // SAFETY: as above.
    let tail = unsafe { ptr::read_volatile(&raw const (*walk).tail) };
    scratch.put_word(done, tail);
    (done + SUFFIX_BYTES as u32) | SUFFIX
}

/// Copies what is wanted of the next vector of the walk in this scratch. 0 ends the walk.
///
/// Global, which means that the verifier checks it once and by itself. As a part of its callers it
/// would be checked for every vector and for every way that leads there: Linux 6.1 takes 930,000
/// steps for that, of the million that it allows.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn copy_vector(slot: u32) -> u32 {
    match emit::scratch_at(slot) {
        Some(scratch) => u32::from(step(scratch)),
        None => 0,
    }
}

/// As [`copy_vector`]. False ends the walk.
#[inline(always)]
fn step(scratch: &mut Scratch) -> bool {
    let walk = &raw const scratch.walk;
    // SAFETY: part of the scratch, alive while the program runs. Volatile, so that every step
    // begins with values that the verifier knows nothing about.
    let count = unsafe { ptr::read_volatile(&raw const (*walk).count) };
    // SAFETY: as above.
    let len = unsafe { ptr::read_volatile(&raw const (*walk).len) };
    // SAFETY: as above.
    let reached = unsafe { ptr::read_volatile(&raw const (*walk).reached) };
    if count == 0 || reached >= len {
        return false;
    }
    // SAFETY: as above.
    let want = unsafe { ptr::read_volatile(&raw const (*walk).want) };
    // SAFETY: as above.
    let done = unsafe { ptr::read_volatile(&raw const (*walk).done) };
    // SAFETY: as above.
    let seen = unsafe { ptr::read_volatile(&raw const (*walk).seen) };
    let at = seen as usize & (VECTORS_AT_ONCE - 1);
    if at == 0 && !read_vectors(scratch, count) {
        scratch.walk.unreadable = 1;
        return false;
    }
    // SAFETY: `at` is less than the array's length.
    let vector = unsafe { scratch.walk.read.as_ptr().add(at) };
    // SAFETY: as above. Volatile, since a helper has written it.
    let vector = unsafe { ptr::read_volatile(vector) };
    scratch.walk.seen = seen + 1;
    scratch.walk.count = count - 1;
    let used = vector.len.min(len - reached);
    if used == 0 {
        return true;
    }
    let reached = reached + used;
    scratch.walk.reached = reached;
    if done < want {
        let bytes = used.min(u64::from(want - done)) as u32;
        if !read(scratch, done, vector.base, bytes) {
            scratch.walk.unreadable = 1;
            return false;
        }
        scratch.walk.done = done + bytes;
    }
    if len > u64::from(want) && reached + SUFFIX_BYTES as u64 > len {
        // Keep the last eight bytes across vectors: a chunked body's end is often a vector of its
        // own.
        let last = used.min(SUFFIX_BYTES as u64);
        let mut word = 0u64;
        if !read_word(&mut word, vector.base + used - last, last) {
            scratch.walk.unreadable = 1;
            return false;
        }
        if last == SUFFIX_BYTES as u64 {
            scratch.walk.tail = word;
        } else {
            let tail = scratch.walk.tail >> ((8 * last) & 63);
            scratch.walk.tail = tail | (word << ((64 - 8 * last) & 63));
        }
        scratch.walk.tail_bytes += last;
    }
    true
}

/// Bytes that the first `count` messages of an array of `struct mmsghdr` moved, as the kernel has
/// written it there; `None` if it cannot be read.
#[inline(always)]
pub fn moved_by_messages(messages: u64, count: u64) -> Option<u64> {
    u64::try_from(sum_of_messages(messages, count)).ok()
}

/// As [`moved_by_messages`]; negative if it cannot be read. Global, as [`copy_vector`] is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sum_of_messages(messages: u64, count: u64) -> i64 {
    let mut sum = 0;
    for index in 0..MESSAGES_MAX {
        if u64::from(index) >= count {
            break;
        }
        let bytes = message_bytes(messages + u64::from(index) * MMSGHDR_BYTES);
        if bytes < 0 {
            return bytes;
        }
        sum += bytes;
    }
    sum
}

/// Bytes that one message moved; negative if that cannot be read. Global, as [`copy_vector`] is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn message_bytes(message: u64) -> i64 {
    user::read::<u32>(message + MMSGHDR_LEN).map_or(-1, i64::from)
}

/// Reads `bytes` from user memory to `scratch.payload[at..]`.
#[inline(always)]
fn read(scratch: &mut Scratch, at: u32, from: u64, bytes: u32) -> bool {
    let at = opaque(u64::from(at)) as usize & (PAYLOAD_MAX * 2 - 1);
    let bytes = opaque(u64::from(bytes)) as u32 & (PAYLOAD_MAX as u32 * 2 - 1);
    if at > PAYLOAD_MAX || bytes > PAYLOAD_MAX as u32 {
        return false;
    }
    // SAFETY: `at` is at most PAYLOAD_MAX, half of the buffer.
    let to = unsafe { scratch.payload.as_mut_ptr().add(at) };
    // SAFETY: `to` has PAYLOAD_MAX bytes behind it and `bytes` is no more; the helper checks the
    // user address and fails instead of faulting.
    unsafe { bpf_probe_read_user(to.cast(), bytes, from as *const _) == 0 }
}

/// Reads as many of `count` vectors as are read at once.
#[inline(always)]
fn read_vectors(scratch: &mut Scratch, count: u64) -> bool {
    let mut some = VECTORS_AT_ONCE as u64;
    if count < some {
        some = count;
    }
    let bytes = opaque(some * size_of::<IoVec>() as u64) as u32 & (VECTORS_BYTES * 2 - 1);
    if bytes > VECTORS_BYTES {
        return false;
    }
    let from = scratch.walk.vectors;
    scratch.walk.vectors = from + u64::from(VECTORS_BYTES);
    let to = scratch.walk.read.as_mut_ptr();
    // SAFETY: `to` has that many bytes; the helper checks the user address.
    unsafe { bpf_probe_read_user(to.cast(), bytes, from as *const _) == 0 }
}

const VECTORS_BYTES: u32 = (VECTORS_AT_ONCE * size_of::<IoVec>()) as u32;

#[inline(always)]
fn read_word(word: &mut u64, from: u64, bytes: u64) -> bool {
    let bytes = (bytes & 15) as u32;
    if bytes > SUFFIX_BYTES as u32 {
        return false;
    }
    // SAFETY: `word` holds eight bytes and `bytes` is no more; the helper checks the user address.
    unsafe { bpf_probe_read_user((&raw mut *word).cast(), bytes, from as *const _) == 0 }
}
