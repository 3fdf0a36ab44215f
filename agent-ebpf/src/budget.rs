//! Which processes' probes are told, and what these may cost a process: when it is used up, entries of functions are not told any more.
//!
//! A process has a sum of nanoseconds for each window of time. CPUs lease parts of it, so that a hit
//! rarely touches what others do. The return of an entry that was not told is not told either: the
//! process remembers such entries by what tells its open calls apart. It may forget one (its return is
//! then told, and means nothing to user space); it never takes one that was told for one that was not.
//!
//! A task can interrupt another one in the middle of this; what it then changes under the other's hands
//! is by how much a lease is used up.

use core::ptr;

use agent_common::function::{Counts, Function, IMAGE_BUDGET, IMAGE_COSTS_MOST, hit_flags};
use agent_common::{Selected, changes, select};
use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};

use crate::offsets::{load, offset};
use crate::storage::TaskStorage;
use crate::{atomic, emit, selections};

/// Windows are this power of two nanoseconds long: about 134 ms.
const WINDOW_SHIFT: u64 = agent_common::function::BUDGET_WINDOW_SHIFT;
/// And those of a function's own rate: about a second.
const RATE_SHIFT: u64 = agent_common::function::RATE_WINDOW_SHIFT;
/// How many parts a window's budget is leased in. What is left of a lease is lost when another process
/// with the same slot comes: many, so that this is little.
const LEASED_PARTS: u64 = 256;
/// How many times a window's budget is so much that it is not waited for the window's end.
const GROSS: u64 = agent_common::function::BUDGET_GROSS;
/// Entries remembered; a power of two.
const ENTRIES: usize = 256;

/// Processes that a CPU keeps apart; a power of two.
const SLOTS: u32 = 64;

/// What this CPU knows of a process that has hit a probe.
#[repr(C)]
pub struct Known {
    tgid: u64,
    /// It was selected when the selection had changed this often.
    changes: u64,
    /// The window of its lease.
    window: u64,
    /// What is left of the lease, nanoseconds.
    left_ns: u64,
    /// Whether there was nothing more to lease in this window.
    exhausted: u64,
    /// When the window's first hit on this CPU was.
    began_ns: u64,
    /// What was spent beyond all leases, and how much of that is gross.
    over_ns: u64,
    gross_ns: u64,
}

/// A process's state, kept with its first thread. Races lose nothing but precision.
#[repr(C)]
struct Process {
    window: u64,
    /// Nanoseconds a window; 0: no limit.
    limit_ns: u64,
    /// What is not leased.
    left_ns: i64,
    /// What hits have spent in the window before, if that was the last one.
    before_ns: u64,
    /// What copies of stacks have cost in this window.
    images_ns: u64,
    /// Calls whose entries were not told, each at a place that is computed from it.
    entries: [u64; ENTRIES],
}

impl Process {
    /// What was leased in its window.
    #[inline(always)]
    fn spent_ns(&self) -> u64 {
        (self.limit_ns as i64 - self.left_ns) as u64
    }
}

#[map(name = "FUNCTION_KNOWN")]
static KNOWN: PerCpuArray<Known> = PerCpuArray::with_max_entries(SLOTS, 0);

/// The maps of the other object.
#[map(name = "SELECTED")]
static SELECTED: HashMap<u32, Selected> = HashMap::with_max_entries(16384, 0);

/// What is known of a process, if its function probes are to be told.
#[inline(always)]
pub fn known(tgid: u32) -> Option<&'static mut Known> {
    let known = KNOWN.get_ptr_mut(tgid & (SLOTS - 1))?;
    // SAFETY: this CPU's value, alive while the program runs; see the module.
    let known = unsafe { &mut *known };
    let changes = selections::changes([changes::KERNEL, changes::USER])?;
    if known.tgid == u64::from(tgid) && known.changes == changes {
        return Some(known);
    }
    let selected = selected(tgid)?;
    // SAFETY: a value of the map, alive while the program runs.
    if unsafe { (*selected).bits } & select::FUNCTIONS == 0 {
        return None;
    }
    // Windows begin with the machine: none is 0.
    *known = Known {
        tgid: u64::from(tgid),
        changes,
        window: 0,
        left_ns: 0,
        exhausted: 0,
        began_ns: 0,
        over_ns: 0,
        gross_ns: 0,
    };
    Some(known)
}

/// What is kept for a process that was selected.
#[inline(always)]
pub fn selected(tgid: u32) -> Option<*mut Selected> {
    SELECTED.get_ptr_mut(tgid)
}

#[btf_map(name = "FUNCTION_PROCESSES")]
static PROCESSES: TaskStorage<Process> = TaskStorage::new();

/// Nanoseconds a window by tgid; that of 0 is for all others.
#[map(name = "FUNCTION_BUDGETS")]
static BUDGETS: HashMap<u32, u64> = HashMap::with_max_entries(1024, 0);

/// One word: when a process began to spend so much more than its budget that the reader was woken for
/// it; 0 once that has been looked at.
#[map(name = "FUNCTION_ALARM")]
static ALARM: Array<u64> = Array::with_max_entries(1, 0);

/// By number of the function.
#[map(name = "FUNCTIONS")]
static FUNCTIONS: Array<Function> = Array::with_max_entries(1, 0);

/// What a copy of a stack costs as measured at start, nanoseconds; 0: it was not.
#[map(name = "FUNCTION_IMAGE_COST")]
static IMAGE_COST: Array<u64> = Array::with_max_entries(1, 0);

/// A hit, as its budget sees it.
pub struct Spender {
    tgid: u32,
    known: &'static mut Known,
    /// Its function's state.
    function: *mut Function,
    /// What is counted of that on this CPU.
    counts: *mut Counts,
    /// What tells the open calls of this function and process apart.
    call: u64,
}

impl Spender {
    /// The running process, of which this is known, in this call of a function: its number, and what is
    /// counted of it on this CPU.
    #[inline(always)]
    pub fn new(
        tgid: u32,
        known: &'static mut Known,
        (function, counts): (u32, *mut Counts),
        call: u64,
    ) -> Option<Self> {
        let state = FUNCTIONS.get_ptr_mut(function)?;
        let call = call ^ (u64::from(function) << 48);
        Some(Self { tgid, known, function: state, counts, call })
    }

    /// Spends `cost_ns` for a hit of a site of this kind. False if the hit is not to be told.
    #[inline(always)]
    pub fn spend(&mut self, flags: u8, cost_ns: u32, now_ns: u64) -> bool {
        let afforded = self.afford(u64::from(cost_ns), now_ns);
        if flags == hit_flags::NOTHING {
            return false;
        }
        let told = if flags & hit_flags::ENTRY != 0 {
            let told = afforded && self.is_within_rate(now_ns);
            self.remember(told);
            told
        } else if flags & hit_flags::EVENT != 0 {
            self.is_within_rate(now_ns)
        } else {
            // The return of an entry that was told is told whatever it costs.
            return !self.was_suppressed();
        };
        if !told {
            // SAFETY: a map value, alive while the program runs.
            emit::add_one(unsafe { &raw mut (*self.function).suppressed });
        }
        told
    }

    #[inline(always)]
    fn afford(&mut self, cost_ns: u64, now_ns: u64) -> bool {
        let known = &mut *self.known;
        let window = now_ns >> WINDOW_SHIFT;
        if known.window == window {
            if known.left_ns >= cost_ns {
                known.left_ns -= cost_ns;
                return true;
            }
            if known.exhausted != 0 {
                self.overdraw(cost_ns);
                return false;
            }
        }
        self.lease(cost_ns, window, now_ns)
    }

    /// Counts what is spent though there is no budget for it. The reader, which looks at costs now and
    /// then, is told at once when that is gross.
    #[inline(always)]
    fn overdraw(&mut self, cost_ns: u64) {
        let known = &mut *self.known;
        let before = known.over_ns;
        known.over_ns = before + cost_ns;
        if before < known.gross_ns && before + cost_ns >= known.gross_ns {
            let Some(alarm) = ALARM.get_ptr_mut(0) else { return };
            // SAFETY: a map value, alive while the program runs. Volatile, since user space writes it, too.
            unsafe { ptr::write_volatile(alarm, known.began_ns) };
            emit::wake_reader();
        }
    }

    #[inline(always)]
    fn lease(&mut self, cost_ns: u64, window: u64, now_ns: u64) -> bool {
        let Some(process) = process() else { return true };
        if process.window != window {
            let is_next = process.window.wrapping_add(1) == window;
            process.before_ns = if is_next { process.spent_ns() } else { 0 };
            process.images_ns = 0;
            let limit = BUDGETS.get_ptr(self.tgid).or_else(|| BUDGETS.get_ptr(0));
            // SAFETY: a map value, alive while the program runs.
            let limit_ns = limit.map_or(0, |limit| unsafe { ptr::read_volatile(limit) });
            process.limit_ns = limit_ns;
            process.left_ns = limit_ns as i64;
            process.window = window;
        }
        let lease = &mut *self.known;
        if lease.window != window {
            lease.window = window;
            lease.began_ns = now_ns;
            lease.over_ns = 0;
            // The budget itself is spent before.
            lease.gross_ns = process.limit_ns * (GROSS - 1);
        }
        lease.exhausted = 0;
        if process.limit_ns == 0 {
            lease.left_ns = u64::MAX >> 1;
            return true;
        }
        if process.left_ns <= 0 {
            lease.left_ns = 0;
            lease.exhausted = 1;
            return false;
        }
        let mut leased_ns = process.limit_ns / LEASED_PARTS;
        if leased_ns < cost_ns {
            leased_ns = cost_ns;
        }
        emit::add(&raw mut process.left_ns, leased_ns.wrapping_neg());
        lease.left_ns = leased_ns - cost_ns;
        true
    }

    /// Whether there is budget for the copy of a stack. To be asked after [`spend`](Self::spend).
    ///
    /// Stacks get what hits leave of a part of the budget, by what these have cost in the window before and
    /// in this one: they go first, and bring nobody above the limit who would be below it without them.
    #[inline(always)]
    pub fn affords_image(&mut self) -> bool {
        let Some(process) = process() else { return true };
        let (before_ns, spent_ns) = (process.before_ns, process.spent_ns());
        let hits_ns = if before_ns > spent_ns { before_ns } else { spent_ns };
        let wanted_ns = hits_ns + process.images_ns + image_cost_ns();
        process.limit_ns == 0 || wanted_ns <= process.limit_ns / IMAGE_BUDGET.1 * IMAGE_BUDGET.0
    }

    /// Spends what a copy has cost.
    #[inline(always)]
    pub fn spend_on_image(&mut self, elapsed_ns: u64) {
        let most_ns = image_cost_ns() * IMAGE_COSTS_MOST;
        let cost_ns = if most_ns != 0 && elapsed_ns > most_ns { most_ns } else { elapsed_ns };
        // SAFETY: this CPU's value, alive while the program runs. A task that interrupts this one here
        // takes away one cost.
        unsafe { (*self.counts).cost_ns += cost_ns };
        if let Some(process) = process() {
            emit::add((&raw mut process.images_ns).cast(), cost_ns);
        }
    }

    /// Whether the function's own rate leaves room for one more.
    #[inline(always)]
    fn is_within_rate(&mut self, now_ns: u64) -> bool {
        // SAFETY: a map value, alive while the program runs.
        let function = unsafe { &mut *self.function };
        if function.limit == 0 {
            return true;
        }
        let window = now_ns >> RATE_SHIFT;
        if function.window != window {
            function.window = window;
            function.used = 0;
        }
        atomic::fetch_add_one(&raw mut function.used) < function.limit
    }

    /// Gives back what a hit has taken of its function's rate that is not told because its code has
    /// dropped it.
    #[inline(always)]
    pub fn give_back(&mut self) {
        // SAFETY: a map value, alive while the program runs.
        let used = unsafe { &raw mut (*self.function).used };
        // SAFETY: as above. Volatile, since others write it; at 0 another window has begun.
        if unsafe { ptr::read_volatile(used) } != 0 {
            emit::add(used.cast(), 1u64.wrapping_neg());
        }
    }

    /// Hits of this function that were not told since this was last asked.
    #[inline(always)]
    pub fn take_suppressed(&mut self) -> u32 {
        // SAFETY: a map value, alive while the program runs.
        let suppressed = unsafe { &raw mut (*self.function).suppressed };
        // SAFETY: as above. Volatile, since others write it.
        if unsafe { ptr::read_volatile(suppressed) } == 0 {
            return 0;
        }
        let taken = atomic::swap(suppressed, 0);
        if taken > u64::from(u32::MAX) { u32::MAX } else { taken as u32 }
    }

    /// Gives back what [`take_suppressed`](Self::take_suppressed) took, for a record that was lost.
    #[inline(always)]
    pub fn put_back_suppressed(&mut self, taken: u32) {
        if taken != 0 {
            // SAFETY: a map value, alive while the program runs.
            emit::add(unsafe { &raw mut (*self.function).suppressed }.cast(), u64::from(taken));
        }
    }

    /// Remembers whether the entry of this call was told.
    #[inline(always)]
    fn remember(&mut self, told: bool) {
        // SAFETY: a map value, alive while the program runs.
        let suppresses = unsafe { &raw mut (*self.function).suppresses };
        if told {
            self.forget();
            return;
        }
        // SAFETY: as above. Volatile, since others read it.
        unsafe { ptr::write_volatile(suppresses, 1) };
        if let Some(entry) = self.entry() {
            // SAFETY: a part of a map value, alive while the program runs.
            unsafe { ptr::write_volatile(entry, self.call) };
        }
    }

    /// Whether the entry of this call was not told; forgets it.
    #[inline(always)]
    fn was_suppressed(&mut self) -> bool {
        self.forget()
    }

    /// Forgets this call as one that was not told. False if it was not remembered as such.
    #[inline(always)]
    fn forget(&mut self) -> bool {
        // SAFETY: a map value, alive while the program runs. Volatile, since others write it.
        if unsafe { ptr::read_volatile(&raw const (*self.function).suppresses) } == 0 {
            return false;
        }
        let Some(entry) = self.entry() else { return false };
        // SAFETY: a part of a map value, alive while the program runs.
        if unsafe { ptr::read_volatile(entry) } != self.call {
            return false;
        }
        // SAFETY: as above.
        unsafe { ptr::write_volatile(entry, 0) };
        true
    }

    /// Where this call is remembered.
    #[inline(always)]
    fn entry(&mut self) -> Option<*mut u64> {
        let process = process()?;
        let place = (self.call.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize & (ENTRIES - 1);
        // SAFETY: the mask keeps it within the array, which the verifier sees.
        Some(unsafe { process.entries.as_mut_ptr().add(place) })
    }
}

#[inline(always)]
fn image_cost_ns() -> u64 {
    match IMAGE_COST.get_ptr(0) {
        // SAFETY: a map value, alive while the program runs. Volatile, since user space writes it.
        Some(cost) => unsafe { ptr::read_volatile(cost) },
        None => 0,
    }
}

/// The running process's state.
#[inline(always)]
fn process() -> Option<&'static mut Process> {
    // SAFETY: takes no arguments.
    let task = unsafe { bpf_get_current_task_btf() };
    // SAFETY: a typed task pointer; the verifier checks the offset.
    let leader = unsafe { load::<*mut task_struct>(task.cast(), offset!(task_group_leader)) };
    let process = PROCESSES.of(leader)?;
    // SAFETY: the map's value, alive while the program runs.
    Some(unsafe { &mut *process })
}
