//! What probes may cost a process: when it is used up, entries of functions are not told any more.
//!
//! A process has a sum of nanoseconds for each window of time. Its threads lease parts of it, so that a
//! hit only touches its own thread's state. The return of an entry that was not told is not told either:
//! the process remembers such entries by what tells its open calls apart. It may forget one (its return is then
//! told, and means nothing to user space); it never takes one that was told for one that was not.

use core::ptr;

use agent_common::function::{Function, hit_flags};
use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap};

use crate::offsets::{load, offset};
use crate::storage::TaskStorage;
use crate::{atomic, emit};

/// Windows are this power of two nanoseconds long: about 134 ms.
const WINDOW_SHIFT: u64 = agent_common::function::BUDGET_WINDOW_SHIFT;
/// And those of a function's own rate: about a second.
const RATE_SHIFT: u64 = agent_common::function::RATE_WINDOW_SHIFT;
/// How many parts a window's budget is leased in.
const LEASES: u64 = 64;
/// Entries remembered; a power of two.
const ENTRIES: usize = 256;

/// A thread's state. Nothing but the thread itself uses it, one hit at a time.
#[repr(C)]
pub struct Thread {
    /// The window of its lease.
    window: u64,
    /// What is left of the lease, nanoseconds.
    lease_ns: u64,
    /// Hits told.
    pub told: u32,
    /// Hits that found no room since the last that was told.
    pub lost: u32,
    /// Whether one of its entries was ever not told.
    suppresses: u64,
}

/// A process's state, kept with its first thread. Races lose nothing but precision.
#[repr(C)]
struct Process {
    window: u64,
    /// Nanoseconds a window; 0: no limit.
    limit_ns: u64,
    /// What is not leased.
    left_ns: i64,
    /// Calls whose entries were not told, each at a place that is computed from it.
    entries: [u64; ENTRIES],
}

#[btf_map(name = "FUNCTION_THREADS")]
static THREADS: TaskStorage<Thread> = TaskStorage::new();

#[btf_map(name = "FUNCTION_PROCESSES")]
static PROCESSES: TaskStorage<Process> = TaskStorage::new();

/// Nanoseconds a window by tgid; that of 0 is for all others.
#[map(name = "FUNCTION_BUDGETS")]
static BUDGETS: HashMap<u32, u64> = HashMap::with_max_entries(1024, 0);

/// By number of the function.
#[map(name = "FUNCTIONS")]
static FUNCTIONS: Array<Function> = Array::with_max_entries(1, 0);

/// A hit, as its budget sees it.
pub struct Spender {
    /// The running task.
    task: *mut task_struct,
    /// Its state.
    pub thread: &'static mut Thread,
    /// Its function's state.
    pub function: *mut Function,
}

impl Spender {
    /// The running thread, in function number `function`.
    #[inline(always)]
    pub fn current(function: u32) -> Option<Self> {
        // SAFETY: takes no arguments.
        let task = unsafe { bpf_get_current_task_btf() };
        let thread = THREADS.of(task)?;
        let function = FUNCTIONS.get_ptr_mut(function)?;
        // SAFETY: this thread's value, alive while the program runs; see `Thread`.
        Some(Self { task, thread: unsafe { &mut *thread }, function })
    }

    /// Spends `cost_ns` for a hit of a site of this kind. False if the hit is not to be told.
    #[inline(always)]
    pub fn spend(&mut self, flags: u8, tgid: u32, call: u64, cost_ns: u32, now_ns: u64) -> bool {
        let afforded = self.afford(tgid, u64::from(cost_ns), now_ns);
        let told = if flags & hit_flags::ENTRY != 0 {
            let told = afforded && self.is_within_rate(now_ns);
            self.remember(call, told);
            told
        } else if flags & hit_flags::EVENT != 0 {
            self.is_within_rate(now_ns)
        } else {
            // The return of an entry that was told is told whatever it costs.
            return !self.was_suppressed(call);
        };
        if !told {
            // SAFETY: a map value, alive while the program runs.
            emit::add_one(unsafe { &raw mut (*self.function).suppressed });
        }
        told
    }

    #[inline(always)]
    fn afford(&mut self, tgid: u32, cost_ns: u64, now_ns: u64) -> bool {
        let window = now_ns >> WINDOW_SHIFT;
        let thread = &mut *self.thread;
        if thread.window == window && thread.lease_ns >= cost_ns {
            thread.lease_ns -= cost_ns;
            return true;
        }
        self.lease(tgid, cost_ns, window)
    }

    #[inline(always)]
    fn lease(&mut self, tgid: u32, cost_ns: u64, window: u64) -> bool {
        let Some(process) = self.process() else { return true };
        if process.window != window {
            let limit = BUDGETS.get_ptr(&tgid).or_else(|| BUDGETS.get_ptr(0));
            // SAFETY: a map value, alive while the program runs.
            let limit_ns = limit.map_or(0, |limit| unsafe { ptr::read_volatile(limit) });
            process.limit_ns = limit_ns;
            process.left_ns = limit_ns as i64;
            process.window = window;
        }
        let thread = &mut *self.thread;
        thread.window = window;
        if process.limit_ns == 0 {
            thread.lease_ns = u64::MAX >> 1;
            return true;
        }
        if process.left_ns <= 0 {
            thread.lease_ns = 0;
            return false;
        }
        let mut lease_ns = process.limit_ns / LEASES;
        if lease_ns < cost_ns {
            lease_ns = cost_ns;
        }
        emit::add(&raw mut process.left_ns, lease_ns.wrapping_neg());
        thread.lease_ns = lease_ns - cost_ns;
        true
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
    fn remember(&mut self, call: u64, told: bool) {
        if told {
            if self.thread.suppresses != 0 {
                if let Some(entry) = self.entry(call) {
                    // SAFETY: a part of a map value, alive while the program runs.
                    if unsafe { ptr::read_volatile(entry) } == call {
                        // SAFETY: as above.
                        unsafe { ptr::write_volatile(entry, 0) };
                    }
                }
            }
            return;
        }
        self.thread.suppresses = 1;
        if let Some(entry) = self.entry(call) {
            // SAFETY: as above.
            unsafe { ptr::write_volatile(entry, call) };
        }
    }

    /// Whether the entry of this call was not told.
    #[inline(always)]
    fn was_suppressed(&mut self, call: u64) -> bool {
        if self.thread.suppresses == 0 {
            return false;
        }
        let Some(entry) = self.entry(call) else { return false };
        // SAFETY: a part of a map value, alive while the program runs.
        let was = unsafe { ptr::read_volatile(entry) == call };
        if was {
            // SAFETY: as above.
            unsafe { ptr::write_volatile(entry, 0) };
        }
        was
    }

    #[inline(always)]
    fn entry(&mut self, call: u64) -> Option<*mut u64> {
        let process = self.process()?;
        let place = (call.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize & (ENTRIES - 1);
        // SAFETY: the mask keeps it within the array, which the verifier sees.
        Some(unsafe { process.entries.as_mut_ptr().add(place) })
    }

    #[inline(always)]
    fn process(&mut self) -> Option<&'static mut Process> {
        // SAFETY: a typed task pointer; the verifier checks the offset.
        let leader =
            unsafe { load::<*mut task_struct>(self.task.cast(), offset!(task_group_leader)) };
        let process = PROCESSES.of(leader)?;
        // SAFETY: the map's value, alive while the program runs.
        Some(unsafe { &mut *process })
    }
}
