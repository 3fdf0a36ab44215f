//! Writes records into the ring: sequence numbers, scratch, wake-ups, loss.

use core::arch::asm;
use core::ptr;

use agent_common::{Header, Io, SLOT_SHIFT, Selected, counter};
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{
    bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_ringbuf_discard, bpf_ringbuf_output,
    bpf_ringbuf_query, bpf_ringbuf_reserve,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray, RingBuf};

/// Most payload bytes of one record; a power of two.
pub const PAYLOAD_MAX: usize = 8192;

/// Which program writes. Each has its own sequence and scratch on every CPU, because an interrupt
/// (or on some kernels another task) can run one program in the middle of another; the kernel keeps
/// only the same program from running twice on a CPU.
#[derive(Clone, Copy)]
pub struct Slot(u32);

impl Slot {
    /// Data leaving a socket, however that is seen.
    pub const OUTBOUND: Self = Self(0);
    /// Data entering a process.
    pub const INBOUND: Self = Self(1);
    /// `fexit` on Unix sockets.
    pub const UNIX_OUTBOUND: Self = Self(2);
    /// `fexit` on Unix sockets.
    pub const UNIX_INBOUND: Self = Self(3);
    /// `fexit` on `tcp_sendpage`.
    pub const PAGE_OUTBOUND: Self = Self(4);
    /// `fexit` on `unix_stream_sendpage`.
    pub const UNIX_PAGE_OUTBOUND: Self = Self(5);
    /// TCP states.
    pub const STATE: Self = Self(6);
    /// Forks.
    pub const FORK: Self = Self(7);
    /// Execs.
    pub const EXEC: Self = Self(8);
    /// Exits.
    pub const EXIT: Self = Self(9);
    /// Function probes. Only its place in [`Header::cpu`] and its sum of records are used: one task
    /// can interrupt another one in the middle of this program.
    #[allow(dead_code, reason = "of one of the two objects")]
    pub const FUNCTION: Self = Self(10);
    /// Signals.
    #[allow(dead_code, reason = "of one of the two objects")]
    pub const SIGNAL: Self = Self(11);

    /// Its place in the maps.
    #[inline(always)]
    pub fn index(self) -> u32 {
        self.0
    }
}

/// How many slots there are.
const SLOTS: u32 = 12;
/// How many of them have a scratch. Set at load time to what the source needs.
const SCRATCHES: u32 = 6;

/// An operation's record in the making.
#[repr(C)]
pub struct Scratch {
    /// What the program knows of processes.
    pub known: [Known; KNOWN_SLOTS],
    /// Where the walk over vectors stands; here, because what lies in a map does not make the
    /// verifier tell one iteration from the next.
    pub walk: Walk,
    /// For whom the operation is; here for the same reason.
    pub behalf: Behalf,
    /// What was found of nginx's clients.
    pub clients: [Client; CLIENT_SLOTS],
    /// The record's fixed part.
    pub io: Io,
    /// Its payload; twice the maximum, so that the verifier accepts `offset + length`.
    pub payload: [u8; PAYLOAD_MAX * 2],
}

/// Processes that a program keeps apart on a CPU, by the low bits of their tgids; a power of two.
pub const KNOWN_SLOTS: usize = 8;

/// A selected process, as a program has found it.
#[repr(C)]
pub struct Known {
    /// Its id; 0: nothing was found yet.
    pub tgid: u64,
    /// How often the selection had changed by then.
    pub changes: u64,
    /// What is kept for it, but for its losses.
    pub selected: Selected,
}

/// `struct iovec` (UAPI).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct IoVec {
    /// Where it begins, in user memory.
    pub base: u64,
    /// How long it is.
    pub len: u64,
}

/// How many vectors of an operation are read at once: a read of user memory costs much, its length
/// little. A power of two.
pub const VECTORS_AT_ONCE: usize = 8;

/// A walk over the vectors of an operation.
#[repr(C)]
pub struct Walk {
    /// How far into the operation the vectors seen reach.
    pub reached: u64,
    /// Where the next vectors lie that are to be read.
    pub vectors: u64,
    /// The operation's last bytes as far as seen.
    pub tail: u64,
    /// How many vectors are left to walk over.
    pub count: u64,
    /// How many of the last bytes are real.
    pub tail_bytes: u64,
    /// The operation's bytes.
    pub len: u64,
    /// Bytes copied so far.
    pub done: u32,
    /// Bytes to copy.
    pub want: u32,
    /// Whether user memory could not be read.
    pub unreadable: u32,
    /// How many vectors were walked over.
    pub seen: u32,
    /// Those that were read last.
    pub read: [IoVec; VECTORS_AT_ONCE],
}

/// For which request of nginx's an operation is. In a map, since a global function takes only numbers.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Behalf {
    /// The file of the socket that is sent to.
    pub file: u64,
    /// Where nginx keeps what it knows of that connection; 0 if that is still to be found.
    pub connection: u64,
    /// The id of the socket that the request came by.
    pub task: u64,
    /// The position to which nginx has read from that.
    pub task_seq: u32,
    /// `agent_common::nginx_flags`.
    pub task_flags: u32,
    /// The descriptor that is sent to.
    pub fd: u32,
    /// The process.
    pub tgid: u32,
}

/// Clients of nginx's that a program remembers on a CPU, by where nginx keeps their connections; a power of two.
pub const CLIENT_SLOTS: usize = 256;

/// A client of nginx's, whose socket was found.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Client {
    /// Where nginx keeps what it knows of the connection; 0: nobody was found yet.
    pub at: u64,
    /// The file that nginx has the socket by.
    pub file: u64,
    /// The socket.
    pub sock: u64,
    /// Its id.
    pub id: u64,
    /// The process.
    pub tgid: u32,
    /// The descriptor.
    pub fd: u32,
}

impl Scratch {
    /// The first payload byte, of whatever operation was the last to have any.
    #[allow(dead_code, reason = "of one of the two objects")]
    #[inline(always)]
    pub fn first_byte(&self) -> u8 {
        // SAFETY: a reference to the first of many bytes. Volatile, since a helper has written them.
        unsafe { ptr::read_volatile(self.payload.as_ptr()) }
    }

    /// Puts eight bytes behind the first `at` payload bytes.
    #[inline(always)]
    pub fn put_word(&mut self, at: u32, word: u64) {
        let at = (at as usize) & (PAYLOAD_MAX * 2 - 1);
        if at <= PAYLOAD_MAX {
            // SAFETY: at most PAYLOAD_MAX + 8 bytes into a buffer of twice PAYLOAD_MAX.
            let to = unsafe { self.payload.as_mut_ptr().add(at) };
            // SAFETY: as above; alignment is not assumed.
            unsafe { ptr::write_unaligned(to.cast::<u64>(), word) };
        }
    }
}

/// The ring that user space drains. Its size is set at load time.
#[map(name = "EVENTS")]
static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

#[map(name = "SCRATCH")]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(SCRATCHES, 0);

/// Records of each slot so far, lost ones included.
#[map(name = "SEQUENCES")]
static SEQUENCES: PerCpuArray<u64> = PerCpuArray::with_max_entries(SLOTS, 0);

/// Counted by reason: see [`counter`].
#[map(name = "COUNTERS")]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);

/// One word: 1 while the reader sleeps and wants to be woken by the next record.
#[map(name = "READER_ASLEEP")]
static READER_ASLEEP: Array<u32> = Array::with_max_entries(1, 0);

/// Fill of the ring, in bytes, at which the reader is woken. Overridden at load time.
#[unsafe(no_mangle)]
static WAKE_BYTES: u64 = 4 << 20;

/// How many records of a slot and CPU pass between two looks at the fill.
const FILL_CHECK_EVERY: u32 = 64;

/// This CPU's scratch for a program.
#[inline(always)]
pub fn scratch(slot: Slot) -> Option<&'static mut Scratch> {
    scratch_at(slot.0)
}

/// As [`scratch`], by [`Slot::index`].
#[inline(always)]
pub fn scratch_at(index: u32) -> Option<&'static mut Scratch> {
    let scratch = SCRATCH.get_ptr_mut(index)?;
    // SAFETY: the pointer is this CPU's value for this program; the kernel does not run a program
    // twice at one time on a CPU, so nothing else uses it.
    Some(unsafe { &mut *scratch })
}

/// Adds one to a counter.
#[inline(always)]
pub fn count(which: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(which) {
        add_one(value);
    }
}

/// Adds one to a word that others may add to.
#[inline(always)]
pub fn add_one(value: *mut u64) {
    add(value.cast(), 1);
}

/// Adds to a word that others may add to.
#[inline(always)]
pub fn add(value: *mut i64, more: u64) {
    // This target's `AtomicU64` cannot add, but the instruction set can.
    // SAFETY: an aligned word of a map value, alive while the program runs.
    unsafe {
        asm!("lock *(u64 *)({value} + 0) += {more}", value = in(reg) value, more = in(reg) more)
    };
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: takes no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// The CPU that the program runs on.
#[inline(always)]
pub fn cpu() -> u32 {
    // SAFETY: takes no arguments.
    (unsafe { bpf_get_smp_processor_id() }) as u32
}

/// The header of the slot's next record on this CPU.
#[inline(always)]
pub fn header(slot: Slot, kind: u8, flags: u8) -> Header {
    let mut cpu_seq = 0;
    if let Some(seq) = SEQUENCES.get_ptr_mut(slot.0) {
        // SAFETY: this CPU's value for this program, see `scratch`.
        let seq = unsafe { &mut *seq };
        cpu_seq = *seq as u32;
        *seq = seq.wrapping_add(1);
    }
    let cpu = (cpu() & ((1 << SLOT_SHIFT) - 1)) | (slot.0 << SLOT_SHIFT);
    Header { kind, flags, cpu: cpu as u16, cpu_seq, ts_ns: now_ns() }
}

/// The header of a record without a number, of a program that can be interrupted by itself; and how many
/// there were on this CPU, from which an interruption may take one away.
#[allow(dead_code, reason = "of one of the two objects")]
#[inline(always)]
pub fn header_unnumbered(slot: Slot, kind: u8, flags: u8, ts_ns: u64) -> (Header, u32) {
    let mut count = 0;
    if let Some(records) = SEQUENCES.get_ptr_mut(slot.0) {
        // SAFETY: this CPU's value, alive while the program runs.
        let records = unsafe { &mut *records };
        count = *records as u32;
        *records = records.wrapping_add(1);
    }
    let cpu = (cpu() & ((1 << SLOT_SHIFT) - 1)) | (slot.0 << SLOT_SHIFT);
    (Header { kind, flags, cpu: cpu as u16, cpu_seq: 0, ts_ns }, count)
}

/// Writes the record that starts at `record`, `bytes` long. False if the ring was full.
///
/// # Safety
/// `bytes` of memory behind `record` are initialised, which the verifier checks.
#[inline(always)]
pub unsafe fn write(record: *mut u8, bytes: u64, seq: u32, now: bool) -> bool {
    let flags = if now || wake(seq) { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
    let ring = (&raw const EVENTS).cast_mut().cast();
    // SAFETY: the caller's promise.
    let result = unsafe { bpf_ringbuf_output(ring, record.cast(), bytes, u64::from(flags)) };
    if result != 0 {
        count(counter::RING_FULL);
    }
    result == 0
}

/// Wakes the reader, without a record.
#[allow(dead_code, reason = "of one of the two objects")]
#[inline(always)]
pub fn wake_reader() {
    let ring = (&raw const EVENTS).cast_mut().cast();
    // SAFETY: `ring` is the ring map.
    let room = unsafe { bpf_ringbuf_reserve(ring, size_of::<u64>() as u64, 0) };
    // A ring without room has woken the reader when it was half full.
    if !room.is_null() {
        // SAFETY: what was reserved. Discarded, it is passed over by the reader.
        unsafe { bpf_ringbuf_discard(room, u64::from(BPF_RB_FORCE_WAKEUP)) };
    }
}

/// Counts a lost record for the process it belonged to.
#[inline(always)]
pub fn lost(selected: *mut Selected) {
    // SAFETY: a value of the map of selected processes, alive while the program runs.
    add_one(unsafe { &raw mut (*selected).lost });
}

/// Whether the reader should be woken: it sleeps, or the ring has filled to the mark.
#[inline(always)]
fn wake(seq: u32) -> bool {
    if let Some(asleep) = READER_ASLEEP.get_ptr_mut(0) {
        // SAFETY: a map value. Volatile, since user space writes it too.
        if unsafe { ptr::read_volatile(asleep) } != 0 {
            // SAFETY: as above. Two CPUs may both see it set: one wake-up too many, no harm.
            unsafe { ptr::write_volatile(asleep, 0) };
            return true;
        }
    }
    if seq % FILL_CHECK_EVERY != 0 {
        return false;
    }
    is_half_full()
}

/// Whether the ring has filled to the mark.
#[inline(always)]
pub fn is_half_full() -> bool {
    let ring = (&raw const EVENTS).cast_mut().cast();
    // SAFETY: a static that lives as long as the program.
    let mark = unsafe { ptr::read_volatile(&raw const WAKE_BYTES) };
    // SAFETY: `ring` is the ring map.
    unsafe { bpf_ringbuf_query(ring, u64::from(BPF_RB_AVAIL_DATA)) >= mark }
}
