//! The machine that runs a site's code: see `agent_common::function`. The only file of this object that
//! reads what pointers of the target point at.
//!
//! Its state lies in a map: what the verifier reads back from there it knows nothing about, so that it
//! looks at every op once, and not once for each way that leads there.

use core::ptr;

use agent_common::counter;
use agent_common::function::{
    CHUNKS_MAX, Hit, IMAGE_REGISTERS, Image, OPS_MAX, Op, SLOTS, Site, chunk_status, compare,
    hit_flags, layout, left_out, op, register,
};
use agent_common::kind;
use aya_ebpf::bindings::BPF_F_USER_STACK;
use aya_ebpf::helpers::generated::{
    bpf_get_current_task_btf, bpf_get_task_stack, bpf_probe_read_user, bpf_probe_read_user_str,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};

use crate::budget::Spender;
use crate::chunks::{Machine, Scratch, close, cut, grow, mark, open, room};
use crate::function::{self, Outcome};
use crate::opaque::opaque;
use crate::registers::{self, Registers};
use crate::{atomic, emit, frames, image};

/// Scratches of a CPU: one task can interrupt another in the middle of the program, and be interrupted.
const SCRATCHES: u32 = 4;
/// How many ops run between two looks at the scratch.
const OPS_AT_ONCE: u32 = 8;
/// Reads that fail before the rest is not tried: each costs most of a microsecond.
const FAILURES_MAX: u32 = 2;
/// No program has memory below this (`vm.mmap_min_addr`).
const LOWEST_ADDRESS: u64 = 4096;
const PAGE_BYTES: u64 = 4096;
/// Return addresses copied at most.
const FRAMES_MAX: u64 = 127;

#[map(name = "FUNCTION_SCRATCH")]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(SCRATCHES, 0);

/// The code of all sites.
#[map(name = "CODE")]
pub static CODE: Array<Op> = Array::with_max_entries(1, 0);

/// Runs the site's code and writes the record.
#[inline(always)]
pub fn tell(
    hit: &mut Hit,
    site: &Site,
    registers: Registers,
    spender: &mut Spender,
    count: u32,
) -> Outcome {
    let Some(index) = claim() else {
        emit::count(counter::NO_SCRATCH);
        return Outcome::Lost;
    };
    let Some(scratch) = SCRATCH.get_ptr_mut(index) else { return Outcome::Lost };
    // SAFETY: this CPU's value, which this task has claimed.
    let scratch = unsafe { &mut *scratch };
    let machine = &mut scratch.machine;
    registers.copy_to(&mut machine.registers);
    machine.sp = function::canonical(site, registers);
    machine.accumulator = 0;
    machine.next = site.code;
    machine.left = u32::from(site.ops);
    machine.at = 0;
    machine.open = 0;
    machine.failures = 0;
    machine.skipping = 0;
    machine.dropped = 0;
    machine.image = 0;
    machine.frames = 0;
    machine.cut = 0;
    let mut rounds = 0;
    while rounds < OPS_MAX as u32 / OPS_AT_ONCE {
        if run(index) == 0 {
            break;
        }
        rounds += 1;
    }
    let outcome = finish(scratch, hit, spender, count);
    release(scratch);
    outcome
}

#[inline(always)]
fn finish(scratch: &mut Scratch, hit: &mut Hit, spender: &mut Spender, count: u32) -> Outcome {
    close(scratch);
    // SAFETY: a part of the scratch. Volatile, or the verifier would follow each way here.
    if unsafe { ptr::read_volatile(&raw const scratch.machine.dropped) } != 0 {
        return Outcome::Dropped;
    }
    // SAFETY: as above.
    if unsafe { ptr::read_volatile(&raw const scratch.machine.image) } != 0 {
        hit.stack = tell_stack(scratch, hit, spender, count);
    }
    hit.suppressed = spender.take_suppressed();
    scratch.hit = *hit;
    // SAFETY: as above.
    if unsafe { ptr::read_volatile(&raw const scratch.machine.cut) } != 0 {
        scratch.hit.header.flags |= hit_flags::CUT;
    }
    let mut copied = opaque(u64::from(scratch.machine.at)) & (CHUNKS_MAX as u64 * 2 - 1);
    if copied > CHUNKS_MAX as u64 {
        copied = CHUNKS_MAX as u64;
    }
    scratch.hit.copied = copied as u16;
    let bytes = size_of::<Hit>() as u64 + copied;
    let record = (&raw mut scratch.hit).cast::<u8>();
    // SAFETY: `hit` and the chunks behind it are one map value, longer than `bytes`.
    if unsafe { emit::write(record, bytes, count, false) } { Outcome::Told } else { Outcome::Lost }
}

/// Writes an image of the stack, if there is to be one more; else says why not.
#[inline(always)]
fn tell_stack(scratch: &mut Scratch, hit: &Hit, spender: &mut Spender, count: u32) -> u8 {
    if !spender.affords_image() {
        emit::count(counter::NO_IMAGE);
        emit::count(counter::NO_IMAGE_BUDGET);
        return left_out::BUDGET;
    }
    let index = match image::claim(hit.header.ts_ns) {
        Ok(index) => index,
        Err(why) => return why,
    };
    let begun_ns = emit::now_ns();
    let Some(image) = image::head(index) else { return left_out::ROOM };
    let Image { header, tgid, tid, site, registers, written, .. } = image;
    *header = hit.header;
    header.kind = kind::IMAGE;
    (*tgid, *tid, *site, *written) = (hit.tgid, hit.tid, hit.site, 0);
    let mut number = 0;
    while number < IMAGE_REGISTERS {
        registers[number] = scratch.machine.registers[number];
        number += 1;
    }
    // SAFETY: a part of the scratch. Volatile, as above.
    let first = unsafe { ptr::read_volatile(&raw const scratch.machine.frames) };
    let is_written = if first == 0 {
        image::write_image(index, registers[register::RSP as usize], count)
    } else {
        frames::write_frames(index, first, scratch.machine.layout, count)
    };
    spender.spend_on_image(emit::now_ns() - begun_ns);
    if is_written != 0 { left_out::NOT } else { left_out::ROOM }
}

/// A scratch of this CPU that no other task is in the middle of using.
#[inline(always)]
fn claim() -> Option<u32> {
    let mut index = 0;
    while index < SCRATCHES {
        let scratch = SCRATCH.get_ptr_mut(index)?;
        // SAFETY: a word of the map's value, alive while the program runs.
        if atomic::swap(unsafe { &raw mut (*scratch).busy }, 1) == 0 {
            return Some(index);
        }
        index += 1;
    }
    None
}

#[inline(always)]
fn release(scratch: &mut Scratch) {
    // SAFETY: as in `claim`. Volatile, since others read it.
    unsafe { ptr::write_volatile(&raw mut scratch.busy, 0) };
}

/// Runs the next [`OPS_AT_ONCE`] ops in this scratch. 0 ends the code.
///
/// Global, which means that the verifier checks it once and by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn run(index: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(index) else { return 0 };
    // SAFETY: this CPU's value, which the caller has claimed.
    let scratch = unsafe { &mut *scratch };
    let mut count = 0;
    while count < OPS_AT_ONCE {
        if !step(scratch) {
            return 0;
        }
        count += 1;
    }
    1
}

/// Runs one op. False ends the code.
#[inline(always)]
fn step(scratch: &mut Scratch) -> bool {
    let machine = &mut scratch.machine;
    // SAFETY: a part of the scratch. Volatile, so that every step begins with values that the verifier
    // knows nothing about.
    let (next, left) =
        unsafe { (ptr::read_volatile(&machine.next), ptr::read_volatile(&machine.left)) };
    if left == 0 {
        return false;
    }
    let Some(&Op { code, a, b, imm }) = CODE.get(next) else { return false };
    machine.next = next.wrapping_add(1);
    machine.left = left - 1;
    if code == op::CHUNK {
        return open(scratch, imm as u16);
    }
    if code == op::END {
        return false;
    }
    if machine.skipping != 0 {
        return true;
    }
    let wide = i64::from(imm) as u64;
    let b = u64::from(b);
    match code {
        op::PUT => append_accumulator(scratch, b),
        op::REGISTER => {
            machine.accumulator = machine.registers[(a as usize) & (registers::COUNT - 1)];
        }
        op::LOAD => load(scratch, b, wide),
        op::SAVE => machine.slots[(a as usize) & (SLOTS - 1)] = machine.accumulator,
        op::RECALL => machine.accumulator = machine.slots[(a as usize) & (SLOTS - 1)],
        op::ADD => machine.accumulator = machine.accumulator.wrapping_add(wide),
        op::STACK_POINTER => machine.accumulator = machine.sp,
        op::CONSTANT => machine.accumulator = wide,
        op::AND => machine.accumulator &= wide,
        op::ADD_SLOT => {
            let slot = machine.slots[(a as usize) & (SLOTS - 1)];
            machine.accumulator = machine.accumulator.wrapping_add(slot);
        }
        op::SHIFT => machine.accumulator = shift(machine.accumulator, a, imm as u32),
        op::SKIP => skip(machine, b as u32),
        op::SKIP_IF => {
            if holds(machine.accumulator, a, wide) {
                skip(machine, b as u32);
            }
        }
        op::COPY => copy(scratch, wide, 0),
        op::COPY_COUNTED => {
            let count = machine.slots[(a as usize) & (SLOTS - 1)];
            copy_counted(scratch, count, b, wide);
        }
        op::STRING => string(scratch, wide),
        op::STACK => stack(scratch, wide),
        op::IMAGE => machine.image = 1,
        op::FRAMES => {
            machine.image = 1;
            machine.frames = machine.accumulator;
            machine.layout = machine.next;
            skip(machine, layout::COUNT as u32 / 2);
        }
        op::DROP => {
            machine.dropped = 1;
            return false;
        }
        // An op that a later user half knows.
        _ => {
            machine.cut = 1;
            return false;
        }
    }
    true
}

#[inline(always)]
fn skip(machine: &mut Machine, ops: u32) {
    if ops < machine.left {
        machine.left -= ops;
        machine.next = machine.next.wrapping_add(ops);
    } else {
        machine.left = 0;
    }
}

#[inline(always)]
fn shift(value: u64, how: u8, bits: u32) -> u64 {
    let bits = bits & 63;
    match how {
        0 => value << bits,
        1 => value >> bits,
        _ => ((value as i64) >> bits) as u64,
    }
}

#[inline(always)]
fn holds(value: u64, comparison: u8, with: u64) -> bool {
    match comparison {
        compare::EQ => value == with,
        compare::NE => value != with,
        compare::LT => value < with,
        compare::LE => value <= with,
        compare::LT_SIGNED => (value as i64) < with as i64,
        compare::LE_SIGNED => (value as i64) <= with as i64,
        compare::GT => value > with,
        compare::GE => value >= with,
        compare::GT_SIGNED => (value as i64) > with as i64,
        compare::GE_SIGNED => (value as i64) >= with as i64,
        _ => false,
    }
}

/// A read has failed: the chunk ends here.
#[inline(always)]
fn fault(scratch: &mut Scratch) {
    mark(scratch, chunk_status::FAULT);
    scratch.machine.skipping = 1;
    scratch.machine.accumulator = 0;
}

/// Whether `address` is worth a try.
#[inline(always)]
fn is_readable(machine: &Machine, address: u64) -> bool {
    address >= LOWEST_ADDRESS && machine.failures < FAILURES_MAX
}

#[inline(always)]
fn append_accumulator(scratch: &mut Scratch, bytes: u64) {
    let Some((to, room)) = room(scratch) else { return };
    // SAFETY: up to seven bytes more than half of the buffer.
    unsafe { ptr::write_unaligned(to.cast::<u64>(), scratch.machine.accumulator) };
    let bytes = if bytes > 8 { 8 } else { bytes };
    if bytes > room {
        cut(scratch);
        return;
    }
    grow(scratch, bytes);
}

#[inline(always)]
fn load(scratch: &mut Scratch, bytes: u64, offset: u64) {
    let machine = &mut scratch.machine;
    let from = machine.accumulator.wrapping_add(offset);
    let bytes = (opaque(bytes) & 15) as u32;
    if bytes > 8 || !is_readable(machine, from) {
        fault(scratch);
        return;
    }
    machine.accumulator = 0;
    let to = (&raw mut machine.accumulator).cast();
    // SAFETY: the accumulator holds eight bytes and `bytes` is no more; the helper checks the address.
    if unsafe { bpf_probe_read_user(to, bytes, from as *const _) } != 0 {
        machine.failures += 1;
        fault(scratch);
    }
}

#[inline(always)]
fn copy_counted(scratch: &mut Scratch, count: u64, size: u64, most: u64) {
    // Neither factor is longer than four bytes where it matters.
    let bytes = if count > most { most + 1 } else { count * size };
    if bytes > most {
        copy(scratch, most, chunk_status::CUT);
    } else {
        copy(scratch, bytes, 0);
    }
}

/// Appends `bytes` from where the accumulator points; the chunk gets `status` besides.
#[inline(always)]
fn copy(scratch: &mut Scratch, bytes: u64, status: u16) {
    mark(scratch, status);
    if bytes == 0 {
        return;
    }
    let from = scratch.machine.accumulator;
    let Some((to, room)) = room(scratch) else { return };
    if !is_readable(&scratch.machine, from) {
        fault(scratch);
        return;
    }
    let mut bytes = bytes;
    if bytes > room {
        bytes = room;
        cut(scratch);
    }
    if read(to, from, bytes) {
        grow(scratch, bytes);
        return;
    }
    scratch.machine.failures += 1;
    // What lies on the first page may be there.
    let near = PAGE_BYTES - (from & (PAGE_BYTES - 1));
    if near < bytes && read(to, from, near) {
        grow(scratch, near);
    }
    fault(scratch);
}

#[inline(always)]
fn string(scratch: &mut Scratch, most: u64) {
    let from = scratch.machine.accumulator;
    let Some((to, room)) = room(scratch) else { return };
    if !is_readable(&scratch.machine, from) {
        fault(scratch);
        return;
    }
    let mut limit = most;
    if limit > room {
        limit = room;
    }
    // One for the zero, and one to see whether there is more.
    let length = read_string(to, from, limit + 2);
    if length > 0 {
        let length = length as u64;
        if length > limit + 1 {
            grow(scratch, limit);
            if limit < most {
                cut(scratch);
            } else {
                mark(scratch, chunk_status::CUT);
            }
        } else {
            grow(scratch, length - 1);
        }
        return;
    }
    scratch.machine.failures += 1;
    // What lies on the first page may be there: without a zero, or all would have been read.
    let near = PAGE_BYTES - (from & (PAGE_BYTES - 1));
    if near <= limit && read(to, from, near) {
        grow(scratch, near);
    }
    fault(scratch);
}

#[inline(always)]
fn stack(scratch: &mut Scratch, most: u64) {
    let Some((to, room)) = room(scratch) else { return };
    let mut frames = if most > FRAMES_MAX { FRAMES_MAX } else { most };
    if frames * 8 > room {
        frames = room / 8;
        cut(scratch);
    }
    let bytes = (opaque(frames * 8) & (CHUNKS_MAX as u64 - 1)) as u32;
    // SAFETY: takes no arguments.
    let task = unsafe { bpf_get_current_task_btf() };
    // SAFETY: `to` has CHUNKS_MAX bytes behind it and `bytes` is less.
    let got = unsafe { bpf_get_task_stack(task, to.cast(), bytes, u64::from(BPF_F_USER_STACK)) };
    if got <= 0 {
        mark(scratch, chunk_status::FAULT);
        return;
    }
    let got = got as u64;
    grow(scratch, if got > u64::from(bytes) { u64::from(bytes) } else { got });
}

/// Reads `bytes`, at most CHUNKS_MAX, to `to`, which has as many bytes behind it.
#[inline(always)]
fn read(to: *mut u8, from: u64, bytes: u64) -> bool {
    let bytes = opaque(bytes) & (CHUNKS_MAX as u64 * 2 - 1);
    if bytes > CHUNKS_MAX as u64 {
        return false;
    }
    // SAFETY: the caller's promise; the helper checks the user address and fails instead of faulting.
    unsafe { bpf_probe_read_user(to.cast(), bytes as u32, from as *const _) == 0 }
}

/// Reads a string with its zero, at most `bytes`, as [`read`] does; how many bytes that were.
#[inline(always)]
fn read_string(to: *mut u8, from: u64, bytes: u64) -> i64 {
    let bytes = opaque(bytes) & (CHUNKS_MAX as u64 * 2 - 1);
    if bytes > CHUNKS_MAX as u64 {
        return -1;
    }
    // SAFETY: as for `read`.
    unsafe { bpf_probe_read_user_str(to.cast(), bytes as u32, from as *const _) }
}
