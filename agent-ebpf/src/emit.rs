//! Writes records into the ring: per-CPU scratch, sequence numbers, wake-ups, loss.

use core::ptr;

use agent_common::{Header, Io, Process, Selected, Socket, counter};
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{
    bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_ringbuf_output, bpf_ringbuf_query,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray, RingBuf};

/// Most payload bytes of one record; a power of two.
pub const PAYLOAD_MAX: usize = 8192;

/// A record in the making. One per CPU: programs on tracepoints run with preemption off.
#[repr(C)]
pub struct Scratch {
    /// Records of this CPU so far, lost ones included.
    pub seq: u32,
    pad: u32,
    /// The record's fixed part.
    pub io: Io,
    /// Its payload; twice the maximum, so that the verifier accepts `offset + length`.
    pub payload: [u8; PAYLOAD_MAX * 2],
}

impl Scratch {
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

/// A small record (a process or a socket) in the making.
#[repr(C)]
pub struct Notice {
    /// For [`Process`] records.
    pub process: Process,
    /// For [`Socket`] records.
    pub socket: Socket,
}

/// The ring that user space drains. Its size is set at load time.
#[map(name = "EVENTS")]
static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

#[map(name = "SCRATCH")]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

#[map(name = "NOTICE")]
static NOTICE: PerCpuArray<Notice> = PerCpuArray::with_max_entries(1, 0);

/// Counted by reason: see [`counter`].
#[map(name = "COUNTERS")]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);

/// One word: 1 while the reader sleeps and wants to be woken by the next record.
#[map(name = "READER_ASLEEP")]
static READER_ASLEEP: Array<u32> = Array::with_max_entries(1, 0);

/// Fill of the ring, in bytes, at which the reader is woken. Overridden at load time.
#[unsafe(no_mangle)]
static WAKE_BYTES: u64 = 4 << 20;

/// How many records of a CPU pass between two looks at the fill.
const FILL_CHECK_EVERY: u32 = 64;

/// This CPU's scratch.
#[inline(always)]
pub fn scratch() -> Option<&'static mut Scratch> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the pointer is this CPU's value; nothing else runs on it until the program ends.
    Some(unsafe { &mut *scratch })
}

/// This CPU's notice.
#[inline(always)]
pub fn notice() -> Option<&'static mut Notice> {
    let notice = NOTICE.get_ptr_mut(0)?;
    // SAFETY: the pointer is this CPU's value; nothing else runs on it until the program ends.
    Some(unsafe { &mut *notice })
}

/// Adds one to a counter.
#[inline(always)]
pub fn count(which: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(which) {
        // SAFETY: this CPU's value.
        unsafe { *value += 1 };
    }
}

/// The header of the next record of this CPU.
#[inline(always)]
pub fn header(kind: u8, flags: u8) -> Header {
    let mut cpu_seq = 0;
    if let Some(scratch) = scratch() {
        cpu_seq = scratch.seq;
        scratch.seq = cpu_seq.wrapping_add(1);
    }
    // SAFETY: takes no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() } as u16;
    // SAFETY: takes no arguments.
    let ts_ns = unsafe { bpf_ktime_get_ns() };
    Header { kind, flags, cpu, cpu_seq, ts_ns }
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
    count(if result == 0 { counter::EVENTS } else { counter::RING_FULL });
    result == 0
}

/// Counts a lost record for the process it belonged to.
#[inline(always)]
pub fn lost(selected: *mut Selected) {
    // SAFETY: a value of the map of selected processes, alive while the program runs.
    let lost = unsafe { &raw mut (*selected).lost };
    // SAFETY: as above. A race between CPUs may lose a count; COUNTERS has the exact sum.
    unsafe { *lost += 1 };
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
    let ring = (&raw const EVENTS).cast_mut().cast();
    // SAFETY: a static that lives as long as the program.
    let mark = unsafe { ptr::read_volatile(&raw const WAKE_BYTES) };
    // SAFETY: `ring` is the ring map.
    unsafe { bpf_ringbuf_query(ring, u64::from(BPF_RB_AVAIL_DATA)) >= mark }
}
