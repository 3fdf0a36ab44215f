//! Which processes are selected, and how that follows fork, exec and exit.

use core::ffi::c_void;
use core::ptr;

use agent_common::function::IMAGE_OF_SIGNAL;
use agent_common::{
    Header, MAYBE_SLOTS, PATH_BYTES, Process, STATUS_UNKNOWN, Selected, changes, counter, kind,
    select,
};
use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_probe_read_kernel_str, bpf_task_pt_regs,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};

use crate::emit::{self, KNOWN_SLOTS, Scratch, Slot};
use crate::offsets::{load, offset};
use crate::registers::Registers;
use crate::{cgroup, image, selections, task};

/// The selected processes, by tgid in the initial pid namespace. Its size is set at load time.
#[map(name = "SELECTED")]
static SELECTED: HashMap<u32, Selected> = HashMap::with_max_entries(16384, 0);

/// Whether a tgid with these low bits was ever selected: for nearly every other process of the host one
/// load answers instead of a lookup. Never cleared; a tgid that comes round costs that lookup again.
#[map(name = "MAYBE")]
static MAYBE: Array<u8> = Array::with_max_entries(MAYBE_SLOTS, 0);

/// Non-zero while a rule may match programs that start: every exec is then told and captured until
/// user space has decided. Overridden at load time.
#[unsafe(no_mangle)]
static RULES: u32 = 0;

/// Bytes copied from operations of a process that no one has decided on. Overridden at load time.
#[unsafe(no_mangle)]
static PAYLOAD_LIMIT: u32 = 4096;

/// The agent's own tgid, never captured. Overridden at load time.
#[unsafe(no_mangle)]
static AGENT_TGID: u32 = 0;

/// Ports whose listeners are to be selected (`--port`).
#[map(name = "PORTS")]
static PORTS: HashMap<u16, u32> = HashMap::with_max_entries(256, 0);

const NOTHING: Selected =
    Selected { bits: 0, payload_limit: 0, lost: 0, goid_offset: 0, g_tls_offset: 0, go_syscall: 0 };

const CAPTURED: u32 = select::TRACED | select::UNDECIDED;

/// Selects a process, before anything can be missed of it. Counts it if there is no room.
#[inline(always)]
fn insert(tgid: u32, entry: &Selected) {
    if let Some(maybe) = MAYBE.get_ptr_mut(tgid & (MAYBE_SLOTS - 1)) {
        // SAFETY: a map value. Nobody writes anything else.
        unsafe { ptr::write_volatile(maybe, 1) };
    }
    if SELECTED.insert(&tgid, entry, 0).is_err() {
        emit::count(counter::NO_SELECTION);
    }
}

/// Says that the selection was changed, after that was done.
#[inline(always)]
fn changed(which: u32) {
    if let Some(count) = selections::counter(which) {
        emit::add_one(count);
    }
}

/// The current process and thread.
#[derive(Clone, Copy)]
pub struct Ids(u64);

impl Ids {
    /// The process, in the initial pid namespace.
    #[inline(always)]
    pub fn tgid(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The thread, in the initial pid namespace.
    #[inline(always)]
    pub fn tid(self) -> u32 {
        self.0 as u32
    }
}

/// The current process, if it may be selected: what every process of the host pays for.
#[inline(always)]
pub fn may_be_selected() -> Option<Ids> {
    // SAFETY: takes no arguments.
    let me = Ids(unsafe { bpf_get_current_pid_tgid() });
    let maybe = MAYBE.get_ptr(me.tgid() & (MAYBE_SLOTS - 1))?;
    // SAFETY: a map value. Volatile, since user space writes it too.
    if unsafe { ptr::read_volatile(maybe) } != 0 { Some(me) } else { None }
}

/// What is kept for `tgid`, if its traffic is to be captured.
#[inline(always)]
pub fn selected(tgid: u32) -> Option<*mut Selected> {
    let selected = SELECTED.get_ptr_mut(&tgid)?;
    // SAFETY: a value of the map, alive while the program runs.
    if unsafe { (*selected).bits } & CAPTURED != 0 { Some(selected) } else { None }
}

/// As [`selected`]: what this program has found on this CPU before, if nothing has changed since.
#[inline(always)]
pub fn known(scratch: &mut Scratch, tgid: u32) -> Option<&Selected> {
    let changes = selections::changes([changes::KERNEL, changes::USER, changes::PROGRAMS])?;
    let known = scratch.known.as_mut_ptr();
    // SAFETY: the place is less than the array's length.
    let known = unsafe { known.add(tgid as usize & (KNOWN_SLOTS - 1)) };
    // SAFETY: a part of this CPU's scratch for this program, alive while the program runs.
    let known = unsafe { &mut *known };
    if known.tgid != u64::from(tgid) || known.changes != changes {
        let selected = selected(tgid)?;
        // SAFETY: a value of the map, alive while the program runs.
        known.selected = unsafe { ptr::read(selected) };
        known.tgid = u64::from(tgid);
        known.changes = changes;
    }
    Some(&known.selected)
}

/// Counts a lost record for the process it belonged to.
#[inline(always)]
pub fn lost(tgid: u32) {
    if let Some(selected) = SELECTED.get_ptr_mut(&tgid) {
        emit::lost(selected);
    }
}

/// Whether it is to be told that this process listens on this port. Selects it if a rule names the
/// port, so that its first request is seen.
#[inline(always)]
pub fn listens(tgid: u32, port: u16) -> bool {
    if let Some(entry) = SELECTED.get_ptr_mut(&tgid) {
        // SAFETY: a value of the map, alive while the program runs.
        let bits = unsafe { &mut (*entry).bits };
        if *bits & CAPTURED != 0 {
            return true;
        }
        if PORTS.get_ptr(&port).is_none() {
            return false;
        }
        *bits = select::UNDECIDED | select::FOLLOW;
        return true;
    }
    if PORTS.get_ptr(&port).is_none() {
        return false;
    }
    // SAFETY: a static that lives as long as the program.
    let payload_limit = unsafe { ptr::read_volatile(&raw const PAYLOAD_LIMIT) };
    let bits = select::UNDECIDED | select::FOLLOW;
    let entry = Selected { bits, payload_limit, ..NOTHING };
    insert(tgid, &entry);
    true
}

/// `sched_process_fork(parent, child)`.
#[inline(always)]
pub fn on_fork(parent: *const u8, child: *const u8) {
    // SAFETY: typed task pointers from the tracepoint; the verifier checks every offset.
    let parent_tgid = unsafe { load::<u32>(parent, offset!(task_tgid)) };
    // SAFETY: as above.
    let tgid = unsafe { load::<u32>(child, offset!(task_tgid)) };
    if tgid != parent_tgid && SELECTED.get_ptr(&tgid).is_some() {
        // A selection that arrived after its process was gone must not catch the next one with the
        // same id.
        let _ = SELECTED.remove(&tgid);
        changed(changes::KERNEL);
    }
    let Some(entry) = SELECTED.get_ptr_mut(&parent_tgid) else { return };
    // SAFETY: a value of the map, copied before the map changes.
    let parent_entry = unsafe { ptr::read(entry) };
    let bits = parent_entry.bits;
    if tgid != parent_tgid && bits & select::FOLLOW != 0 {
        let child = Selected { lost: 0, ..parent_entry };
        insert(tgid, &child);
    }
    if bits & CAPTURED == 0 {
        return;
    }
    // SAFETY: as above.
    let parent_tid = unsafe { load::<u32>(parent, offset!(task_pid)) };
    // SAFETY: as above.
    let tid = unsafe { load::<u32>(child, offset!(task_pid)) };
    // SAFETY: as above.
    let start_ns = unsafe { load::<u64>(child, offset!(task_start_boottime)) };
    tell(Slot::FORK, kind::FORK, [tgid, tid, parent_tgid, parent_tid], start_ns, ptr::null());
}

/// `sched_process_exec(task, old_pid, binprm)`.
#[inline(always)]
pub fn on_exec(task: *const u8, binprm: *const u8) {
    // SAFETY: typed task pointer from the tracepoint; the verifier checks every offset.
    let tgid = unsafe { load::<u32>(task, offset!(task_tgid)) };
    let known = SELECTED.get_ptr_mut(&tgid);
    // SAFETY: a static that lives as long as the program.
    let rules = unsafe { ptr::read_volatile(&raw const RULES) };
    // SAFETY: as above.
    let agent = unsafe { ptr::read_volatile(&raw const AGENT_TGID) };
    match known {
        None if rules == 0 || tgid == agent => return,
        None => {
            // SAFETY: a static that lives as long as the program.
            let payload_limit = unsafe { ptr::read_volatile(&raw const PAYLOAD_LIMIT) };
            let bits = select::UNDECIDED;
            insert(tgid, &Selected { bits, payload_limit, ..NOTHING });
        }
        Some(entry) => {
            // SAFETY: as above; another program has other tasks.
            unsafe { (*entry).goid_offset = 0 };
            // SAFETY: as above.
            let bits = unsafe { &mut (*entry).bits };
            if *bits & select::IGNORED != 0 {
                if rules == 0 {
                    return;
                }
                *bits = select::UNDECIDED;
            }
            // They were those of another program.
            let next = *bits & select::FUNCTIONS_NEXT != 0;
            let had = *bits & select::FUNCTIONS != 0;
            *bits &= !(select::FUNCTIONS | select::FUNCTIONS_NEXT | select::NGINX);
            if next {
                *bits |= select::FUNCTIONS;
            } else if had {
                changed(changes::KERNEL);
            }
            changed(changes::PROGRAMS);
        }
    }
    // SAFETY: typed task pointer; the leader carries the process's start.
    let start_ns = unsafe { load::<u64>(task, offset!(task_start_boottime)) };
    // SAFETY: typed binprm pointer from the tracepoint.
    let path = unsafe { load::<*const u8>(binprm, offset!(binprm_filename)) };
    cgroup::tell(task, tgid);
    tell(Slot::EXEC, kind::EXEC, [tgid, tgid, 0, 0], start_ns, path);
}

/// `signal_struct.flags`: the whole process ends (`include/linux/sched/signal.h`).
const SIGNAL_GROUP_EXIT: u32 = 4;

/// `sched_process_exit(task)`: called for every thread; the last one is the process's end.
#[inline(always)]
pub fn on_exit(task: *const u8) {
    // SAFETY: typed task pointer from the tracepoint; the verifier checks every offset.
    let tgid = unsafe { load::<u32>(task, offset!(task_tgid)) };
    let Some(entry) = SELECTED.get_ptr_mut(&tgid) else { return };
    // SAFETY: as above; `signal` is set while the task exits.
    let signal = unsafe { load::<*const u8>(task, offset!(task_signal)) };
    // SAFETY: typed pointer loaded from the task.
    let ends_whole = unsafe { load::<u32>(signal, offset!(signal_flags)) } & SIGNAL_GROUP_EXIT != 0;
    // SAFETY: a value of the map, copied before the map changes.
    let Selected { bits, lost, .. } = unsafe { ptr::read(entry) };
    // SAFETY: as above.
    let tid = unsafe { load::<u32>(task, offset!(task_pid)) };
    // SAFETY: typed pointer loaded from the task.
    if unsafe { load::<u32>(signal, offset!(signal_live)) } != 0 {
        if bits & select::FUNCTIONS != 0 && bits & CAPTURED != 0 {
            let status = if ends_whole { status(task, signal, true) } else { STATUS_UNKNOWN };
            tell(Slot::EXIT, kind::THREAD_EXIT, [tgid, tid, status, 0], 0, ptr::null());
        }
        return;
    }
    let _ = SELECTED.remove(&tgid);
    // Its id will be another's.
    changed(if bits & select::FUNCTIONS != 0 { changes::KERNEL } else { changes::PROGRAMS });
    if bits & CAPTURED == 0 {
        return;
    }
    let lost = if lost > u64::from(u32::MAX) { u32::MAX } else { lost as u32 };
    let status = status(task, signal, ends_whole);
    tell(Slot::EXIT, kind::EXIT, [tgid, tid, status, lost], 0, ptr::null());
}

/// How the process of a task ends, as wait(2) will tell it: all of it at once, or as its first thread has
/// ended (`wait_task_zombie` of `kernel/exit.c`).
#[inline(always)]
fn status(task: *const u8, signal: *const u8, ends_whole: bool) -> u32 {
    if ends_whole {
        // SAFETY: typed pointer loaded from the task.
        return unsafe { load::<u32>(signal, offset!(signal_exit_code)) };
    }
    // SAFETY: typed task pointer from the tracepoint; the leader is there as long as its threads are.
    let leader = unsafe { load::<*const u8>(task, offset!(task_group_leader)) };
    // SAFETY: typed pointer loaded from the task.
    unsafe { load::<u32>(leader, offset!(task_exit_code)) }
}

/// Signals of which the default action is to end the process and to dump its memory (signal(7)): errors
/// of the program, which its own thread meets.
const ERRORS: u64 = mask(&[3, 4, 5, 6, 7, 8, 11, 24, 25, 31]);

const fn mask(numbers: &[u32]) -> u64 {
    let mut mask = 0;
    let mut index = 0;
    while index < numbers.len() {
        mask |= 1 << numbers[index];
        index += 1;
    }
    mask
}

/// `signal_deliver(number, info, action)`, on the thread that the signal is delivered to.
#[inline(always)]
pub fn on_signal(number: u32, action: *const u8, stack: Stack) {
    if number > 31 || ERRORS & (1 << number) == 0 {
        return;
    }
    // SAFETY: takes no arguments.
    let pid_tgid = unsafe { bpf_get_current_pid_tgid() };
    let tgid = (pid_tgid >> 32) as u32;
    let Some(selected) = selected(tgid) else { return };
    // SAFETY: typed pointer from the tracepoint; the verifier checks the offset.
    if unsafe { load::<u64>(action, offset!(sigaction_handler)) } != DEFAULT_ACTION {
        return;
    }
    // SAFETY: takes no arguments.
    let running = unsafe { bpf_get_current_task_btf() } as *const u8;
    // SAFETY: a value of the map, alive while the program runs.
    let selected = unsafe { &*selected };
    let (task_kind, task) = task::current(task::g(running, selected), selected);
    let ids = [tgid, pid_tgid as u32, number, u32::from(task_kind)];
    let header = emit::header(Slot::SIGNAL, kind::SIGNAL, 0);
    if let Stack::Told = stack {
        tell_stack(header, [tgid, pid_tgid as u32]);
    }
    tell_at(header, ids, task, ptr::null());
}

/// Whether the stack of a thread that meets a signal is told, too.
#[derive(Clone, Copy)]
pub enum Stack {
    Told,
    Unseen,
}

/// Writes an image of the current thread's stack, as it was when the thread entered the kernel.
#[inline(always)]
fn tell_stack(header: Header, [tgid, tid]: [u32; 2]) {
    let Ok(index) = image::claim(header.ts_ns) else { return };
    let Some(image) = image::head(index) else { return };
    // SAFETY: takes no arguments.
    let task = unsafe { bpf_get_current_task_btf() };
    // SAFETY: a typed task pointer. What comes back is one, too, to `struct pt_regs`.
    let registers = unsafe { bpf_task_pt_regs(task) };
    let registers = Registers::new(registers as *mut c_void);
    registers.copy_to(&mut image.registers);
    image.header = Header { kind: kind::IMAGE, cpu_seq: 0, ..header };
    (image.tgid, image.tid, image.site, image.written) = (tgid, tid, IMAGE_OF_SIGNAL, 0);
    image::write_image(index, registers.stack_pointer(), header.cpu_seq);
}

/// `SIG_DFL`
const DEFAULT_ACTION: u64 = 0;

/// Writes a `Process` record; `path` may be null.
#[inline(always)]
fn tell(slot: Slot, kind: u8, ids: [u32; 4], start_ns: u64, path: *const u8) {
    tell_at(emit::header(slot, kind, 0), ids, start_ns, path);
}

/// As [`tell`], with a header that is there already.
#[inline(always)]
fn tell_at(header: Header, ids: [u32; 4], start_ns: u64, path: *const u8) {
    let [tgid, tid, parent_tgid, parent_tid] = ids;
    let path_bytes = [0; PATH_BYTES];
    let mut process =
        Process { header, tgid, tid, parent_tgid, parent_tid, start_ns, path: path_bytes };
    let mut bytes = (size_of::<Process>() - PATH_BYTES) as u64;
    if !path.is_null() {
        bytes = size_of::<Process>() as u64;
        let to = (&raw mut process.path).cast();
        // SAFETY: `path` is the kernel's string; the helper copies at most PATH_BYTES and fails
        // instead of faulting. On failure the path stays empty.
        unsafe { bpf_probe_read_kernel_str(to, PATH_BYTES as u32, path.cast()) };
    }
    let record = (&raw mut process).cast::<u8>();
    // A starting program waits for a decision, so the reader is woken for it.
    let now = header.kind == kind::EXEC;
    // SAFETY: `record` is a whole `Process`, on the stack.
    unsafe { emit::write(record, bytes, header.cpu_seq, now) };
}
