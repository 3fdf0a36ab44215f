//! Who ends an exception's way: a function of the program that catches it, or the one with which its
//! runtime takes what nobody has caught. Which one it is tells the address that a hook was called from.

use agent_common::function::register;
use serde::{Deserialize, Serialize};

use super::chunks::Chunks;
use super::code::Code;
use super::{Runtime, cpp, rust};
use crate::inspect::address::VirtAddr;

/// The exception as an object: the number of its chunk in the code of every hook that tells it.
const OBJECT: u16 = 40;
/// Where the hook was called from, and where it is.
const CALLER: u16 = 41;
const HERE: u16 = 42;

/// Most catchers of a module. Where there are more, nothing is said of who catches.
pub(super) const CATCHERS_MAX: usize = 4096;

/// What a hit of a hook says of the end of an exception's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Catch {
    /// The exception.
    pub which: Which,
    /// Where whoever catches it was, counted from the hook's own probe.
    pub caller: Option<i64>,
    /// The goroutine, if the hook is hit by another one.
    pub goroutine: Option<u64>,
    /// Where the return address of the catching function lies, as hits of its goroutine have it.
    pub frame: Option<u64>,
}

/// Which of the exceptions of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one that is this object.
    Object(u64),
    /// The one that is this object, or that was made of one of these.
    Made {
        /// The exception itself.
        exception: u64,
        /// What it may have been made of.
        of: [Option<u64>; 2],
    },
    /// The latest that is on its way.
    Latest,
    /// Not known.
    Unknown,
}

/// A function that catches for a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catcher {
    /// Where it begins, counted from the hook's own probe.
    pub start: i64,
    /// How long it is.
    pub bytes: u64,
    /// What it catches for.
    pub kind: CatcherKind,
}

/// What a function of a runtime catches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatcherKind {
    /// What nobody has caught: it ends a process, a thread or a task.
    Last,
    /// What has left the handler of a request.
    Handler,
    /// Its caller: who that is, is not known.
    Caller,
    /// Its caller, as its own hook tells.
    Told,
}

impl Which {
    /// The object that a hook's code has told.
    pub(super) fn told(chunks: Chunks<'_>) -> Self {
        object(chunks).map_or(Self::Unknown, Self::Object)
    }
}

impl Catch {
    /// Of whom nothing but the exception is known.
    pub(super) fn of(which: Which) -> Self {
        Self { which, caller: None, goroutine: None, frame: None }
    }
}

/// Who catches, by the table of a hook. `None`: that cannot be told.
pub fn catcher(catchers: &[Catcher], caller: Option<i64>) -> Option<Option<CatcherKind>> {
    let Some(caller) = caller else { return catchers.is_empty().then_some(None) };
    // A call that does not return may be the last instruction.
    let holds = |catcher: &&Catcher| {
        let within = caller.checked_sub(1).and_then(|at| at.checked_sub(catcher.start));
        within.is_some_and(|within| u64::try_from(within).is_ok_and(|at| at < catcher.bytes))
    };
    Some(catchers.iter().find(holds).map(|catcher| catcher.kind))
}

/// Tells the exception, which a register points at.
pub(super) fn tell_object(code: &mut Code, register: u8) {
    code.chunk(OBJECT).register(register).put(8);
}

/// Tells the exception, where a register points at what points at it.
pub(super) fn tell_object_at(code: &mut Code, register: u8) {
    code.chunk(OBJECT).register(register).follow(0).put(8);
}

/// Tells the exception that a slot points at.
pub(super) fn tell_slot(code: &mut Code, slot: u8) {
    code.chunk(OBJECT).recall(slot).put(8);
}

/// Tells the exception as the sum of a slot and a register.
pub(super) fn tell_sum(code: &mut Code, slot: u8, register: u8) {
    code.chunk(OBJECT).register(register).add_slot(slot).put(8);
}

/// The exception.
pub(super) fn object(chunks: Chunks<'_>) -> Option<u64> {
    chunks.number(OBJECT)
}

/// Tells where the hook was called from.
pub(super) fn tell_caller(code: &mut Code) {
    code.chunk(CALLER).stack_pointer().follow(0).put(8);
    tell_here(code);
}

/// Tells where the hook is.
pub(super) fn tell_here(code: &mut Code) {
    code.chunk(HERE).register(register::RIP).put(8);
}

/// Where the hook's probe is in memory, if its hits tell.
pub fn here(chunks: &[u8]) -> Option<u64> {
    Chunks(chunks).number(HERE)
}

/// Where the hook was called from.
pub(super) fn caller(chunks: Chunks<'_>) -> Option<i64> {
    from_here(chunks, chunks.number(CALLER)?)
}

/// An address, counted from the hook's own probe.
pub(super) fn from_here(chunks: Chunks<'_>, address: u64) -> Option<i64> {
    Some(address.wrapping_sub(chunks.number(HERE)?).cast_signed())
}

/// Whether a function catches for a runtime, by its name.
pub(super) fn kind(name: &str) -> Option<(Runtime, CatcherKind)> {
    match name {
        "__cxa_throw" | "__cxa_rethrow" | "__clang_call_terminate" => {
            return Some((Runtime::Cpp, CatcherKind::Last));
        }
        name if rust::is_catch(name) => return Some((Runtime::Rust, CatcherKind::Told)),
        name if cpp::terminates(name) => return Some((Runtime::Cpp, CatcherKind::Last)),
        "net/http.(*conn).serve" => return Some((Runtime::Go, CatcherKind::Handler)),
        _ => {}
    }
    let last = ["std::rt::lang_start", "std::thread::lifecycle::spawn_unchecked"];
    let of_thread = "std::thread::Builder::spawn_unchecked";
    let of_task = "tokio::runtime::task::harness::";
    if name.starts_with(last[0]) || name.contains(last[1]) || name.contains(of_thread) {
        return Some((Runtime::Rust, CatcherKind::Last));
    }
    if name.contains(of_task) && name.ends_with("::poll") {
        return Some((Runtime::Rust, CatcherKind::Last));
    }
    // Not inlined, it is called by whoever catches; and the closure that a thread begins with may have
    // the thread's own catching in it, as it may have its user's.
    let inner = ["catch_unwind", "std::panicking::", "vtable.shim", "shim:vtable"];
    let is_inner = inner.iter().any(|part| name.contains(part));
    is_inner.then_some((Runtime::Rust, CatcherKind::Caller))
}

/// A function that catches, as seen from a hook's probe.
pub(super) fn seen_from(hook: VirtAddr, at: VirtAddr, bytes: u64, kind: CatcherKind) -> Catcher {
    Catcher { start: at.0.wrapping_sub(hook.0).cast_signed(), bytes, kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_catches_is_told_by_where_it_was_called_from() {
        let catcher_at = |start, kind| Catcher { start, bytes: 0x10, kind };
        let table =
            [catcher_at(-0x100, CatcherKind::Last), catcher_at(0x100, CatcherKind::Handler)];
        for (caller, expected) in [
            (Some(-0xf8), Some(Some(CatcherKind::Last))),
            // Its last instruction is the call.
            (Some(-0xf0), Some(Some(CatcherKind::Last))),
            (Some(-0x100), Some(None)),
            (Some(0x108), Some(Some(CatcherKind::Handler))),
            (Some(8), Some(None)),
            (None, None),
        ] {
            assert_eq!(catcher(&table, caller), expected, "{caller:x?}");
        }
        assert_eq!(catcher(&[], None), Some(None));
    }

    #[test]
    fn catchers_by_name() {
        for (name, expected) in [
            ("net/http.(*conn).serve", Some(CatcherKind::Handler)),
            ("net/http.(*conn).serve.func1", None),
            ("__cxa_throw", Some(CatcherKind::Last)),
            ("__cxa_begin_catch", None),
            ("std::rt::lang_start_internal", Some(CatcherKind::Last)),
            ("std::thread::lifecycle::spawn_unchecked::{{closure}}", Some(CatcherKind::Last)),
            ("tokio::runtime::task::harness::Harness<T,S>::poll", Some(CatcherKind::Last)),
            ("tokio::runtime::task::harness::Harness<T,S>::complete", None),
            ("core::ops::function::FnOnce::call_once{{vtable.shim}}", Some(CatcherKind::Caller)),
            ("std::panicking::catch_unwind::cleanup", Some(CatcherKind::Told)),
            ("std::panicking::catch_unwind::do_catch", Some(CatcherKind::Caller)),
            ("app::handle", None),
        ] {
            assert_eq!(kind(name).map(|(_, kind)| kind), expected, "{name}");
        }
    }
}
