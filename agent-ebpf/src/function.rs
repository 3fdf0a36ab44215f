//! One hit of a function probe: filter, budget, identify, read, emit.

use core::ffi::c_void;
use core::ptr;

use agent_common::function::{Counts, Hit, Site, cookie, hit_flags, left_out, site_number};
use agent_common::{kind, task_kind};
use aya_ebpf::helpers::generated::{
    bpf_get_attach_cookie, bpf_get_current_pid_tgid, bpf_probe_read_user,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};

use crate::budget::{self, Spender};
use crate::emit::{self, Slot};
use crate::registers::Registers;
use crate::{interpret, lost};

/// What each probe stands for, by the number in its cookie.
#[map(name = "SITES")]
static SITES: Array<Site> = Array::with_max_entries(1, 0);

/// Which of a link's generations is told: while a link is replaced, each hit comes from the old one and
/// from the new one.
#[map(name = "FUNCTION_LINKS")]
static LINKS: Array<u32> = Array::with_max_entries(1, 0);

/// By number of the function.
#[map(name = "FUNCTION_COUNTS")]
static COUNTS: PerCpuArray<Counts> = PerCpuArray::with_max_entries(1, 0);

/// Called for every hit by whatever process.
#[inline(always)]
pub fn on_hit(ctx: *mut c_void) {
    // SAFETY: takes no arguments.
    let pid_tgid = unsafe { bpf_get_current_pid_tgid() };
    let tgid = (pid_tgid >> 32) as u32;
    let Some(known) = budget::known(tgid) else { return };
    // SAFETY: the program's context.
    let cookie = unsafe { bpf_get_attach_cookie(ctx) };
    let number = cookie as u32;
    let Some(site) = SITES.get(number & site_number::PLACE_MASK) else { return };
    let Some(live) = LINKS.get_ptr((cookie >> cookie::LINK_SHIFT) as u32 & cookie::LINK_MASK)
    else {
        return;
    };
    // SAFETY: a map value, alive while the program runs. Volatile, since user space writes it.
    if unsafe { ptr::read_volatile(live) } != (cookie >> cookie::GENERATION_SHIFT) as u32 {
        return;
    }
    let Some(counts) = COUNTS.get_ptr_mut(site.function) else { return };
    // SAFETY: this CPU's value. A task that interrupts this one here takes away one hit's cost.
    unsafe { (*counts).cost_ns += u64::from(site.cost_ns) };
    let registers = Registers::new(ctx);
    // A jump that is not taken ends nothing: the hit has cost what it costs, and that is all.
    let flags = if registers.meet(site.condition) { site.flags } else { hit_flags::NOTHING };
    let task = Task::of(site, registers);
    let sp = canonical(site, registers).wrapping_sub(task.stack_end);
    let now_ns = emit::now_ns();
    // No two open calls of a process have the same: a goroutine's stack has less than 4 GiB.
    let call = sp ^ task.id.rotate_left(32);
    let Some(mut spender) = Spender::new(tgid, known, (site.function, counts), call) else {
        return;
    };
    if !spender.spend(flags, site.cost_ns, now_ns) {
        if flags & (hit_flags::ENTRY | hit_flags::EVENT) != 0 {
            // SAFETY: a map value, alive while the program runs.
            emit::add_one(unsafe { &raw mut (*counts).suppressed });
        }
        return;
    }
    let (header, count) = emit::header_unnumbered(Slot::FUNCTION, kind::HIT, site.flags, now_ns);
    let mut hit = Hit {
        header,
        tgid,
        tid: pid_tgid as u32,
        task: task.id,
        sp,
        site: number,
        suppressed: 0,
        copied: 0,
        task_kind: task.kind,
        stack: left_out::NOT,
        lost: lost::of(pid_tgid),
    };
    let outcome = if site.ops == 0 {
        hit.suppressed = spender.take_suppressed();
        let record = (&raw mut hit).cast::<u8>();
        // SAFETY: `hit` is a whole record, on the stack.
        let is_told = unsafe { emit::write(record, size_of::<Hit>() as u64, count, false) };
        if is_told { Outcome::Told } else { Outcome::Lost }
    } else {
        interpret::tell(&mut hit, site, registers, &mut spender, count)
    };
    match outcome {
        Outcome::Told => {
            if hit.lost != 0 {
                lost::forget(pid_tgid);
            }
            // SAFETY: a map value, alive while the program runs.
            emit::add_one(unsafe { &raw mut (*counts).told });
        }
        Outcome::Dropped => {
            spender.give_back();
            // SAFETY: as above.
            emit::add_one(unsafe { &raw mut (*counts).dropped });
        }
        Outcome::Lost => {
            spender.put_back_suppressed(hit.suppressed);
            lost::add(pid_tgid, tgid);
            // SAFETY: as above.
            emit::add_one(unsafe { &raw mut (*counts).lost });
        }
    }
}

/// What became of a hit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its record is in the ring.
    Told,
    /// Its code did not want it.
    Dropped,
    /// There was no room.
    Lost,
}

/// The address of the slot that holds the function's return address.
#[inline(always)]
pub fn canonical(site: &Site, registers: Registers) -> u64 {
    registers.stack_pointer().wrapping_add_signed(i64::from(site.sp_adjust))
}

/// The unit of work that hit a site.
struct Task {
    id: u64,
    kind: u8,
    /// The upper end of its stack if that may move to another place while calls are open, else 0.
    stack_end: u64,
}

impl Task {
    #[inline(always)]
    fn of(site: &Site, registers: Registers) -> Self {
        let thread = Self { id: 0, kind: task_kind::THREAD, stack_end: 0 };
        if site.task_kind != task_kind::GOROUTINE {
            return thread;
        }
        let g = registers.goroutine();
        let Some(id) = word(g.wrapping_add(u64::from(site.task_offset))) else { return thread };
        let Some(stack_end) = word(g.wrapping_add(G_STACK_END)) else { return thread };
        if id == 0 { thread } else { Self { id, kind: task_kind::GOROUTINE, stack_end } }
    }
}

/// `g.stack.hi`: the stack's bounds come first in `g` (Go's `runtime/runtime2.go`).
const G_STACK_END: u64 = 8;

/// Eight bytes of the process's memory.
#[inline(always)]
fn word(address: u64) -> Option<u64> {
    let mut word = 0u64;
    let to = (&raw mut word).cast();
    // SAFETY: `word` is eight bytes; the helper checks the user address.
    let result = unsafe { bpf_probe_read_user(to, size_of::<u64>() as u32, address as *const _) };
    if result == 0 { Some(word) } else { None }
}
