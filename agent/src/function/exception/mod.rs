//! Where the runtimes of languages raise exceptions, what is read there, and what that says. One file
//! for each runtime. Pure: it attaches nothing and reads no process.
//!
//! One raise is one event: a hook is a place that every raise passes once, and a rethrow does not. What
//! cannot be proved of an exception is left out, so that there may be a type without a message.

mod catch;
mod chunks;
mod code;
mod cold;
mod cpp;
pub(crate) mod data;
mod frames;
mod golang;
mod java;
mod php;
mod python;
mod ruby;
mod rust;
mod seen;
#[cfg(test)]
mod tests;
mod uncaught;
mod v8;
mod wrapped;

use agent_common::function::{OPS_MAX, Op, op};
use serde::{Deserialize, Serialize};

use super::site::{Site, SiteKind};
use crate::inspect::address::FileOffset;
use crate::inspect::code::{Leaving, Refusal, place_entry, place_leaving};
use crate::inspect::elf::Module;
use crate::inspect::symbols::{Function, Index};
use catch::CATCHERS_MAX;
pub use catch::{Catch, Catcher, CatcherKind, Which, catcher, here};
use chunks::Chunks;
pub use cold::{Constants, complete};
pub use golang::goroutine;
pub use seen::{Fate, Passed, Place, Raised, Seen};

/// The event's name that the semantic conventions give an exception.
pub const EVENT: &str = "exception";

/// Events of one hook that are told a second unless said otherwise.
pub const RATE_PER_SECOND: u64 = 200;

/// Most functions of a module that hooks are looked for at: each runtime has a few, and is there once.
const HOOKS_MAX: usize = 64;

/// Longest name of a type that is read.
const NAME_MAX: i32 = 200;

/// Longest path of a source file that is read.
const PATH_MAX: i32 = 200;

/// Longest message that is read, bytes.
const MESSAGE_MAX: i32 = 256;

/// A place where exceptions are raised.
#[derive(Clone, Debug)]
pub struct Hook {
    /// The runtime's function, or its static tracepoint.
    pub name: String,
    /// The probe.
    pub site: Site,
    /// For a static tracepoint: where its semaphore lies in the file.
    pub semaphore: Option<FileOffset>,
    /// What it reads.
    pub ops: Vec<Op>,
    /// What that means.
    pub decode: Decode,
    /// Whether the task is a goroutine.
    pub in_goroutine: bool,
    /// The functions that catch for its runtime, if it tells who catches.
    pub catchers: Vec<Catcher>,
}

/// The hooks of a module.
#[derive(Debug, Default)]
pub struct Hooks {
    /// Those to probe.
    pub hooks: Vec<Hook>,
    /// Those that cannot be probed, and why.
    pub refused: Vec<(String, Refusal)>,
}

/// How the chunks of a hook are read; part of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decode {
    /// `__cxa_throw`
    Cpp,
    /// `__cxa_begin_catch`
    CppCatch,
    /// `__cxa_rethrow`
    CppRethrow,
    /// `rust_panic`, with the payload ready.
    RustPanic,
    /// What is called before it, with the place in the source.
    RustPlace,
    /// What is called by who has caught a panic.
    RustCatch,
    /// `runtime.gopanic`
    GoPanic,
    /// `runtime.throw` and `runtime.fatal`
    GoFatal,
    /// `runtime.recovery`
    GoRecovery,
    /// `runtime.fatalpanic`
    GoUncaught,
    /// The deferred call of `net/http.(*conn).serve`, while a panic is on its way.
    GoServer,
    /// `_PyErr_SetObject`
    Python,
    /// `PyErr_Display` and what threads end with.
    PythonUncaught,
    /// What cannot be raised where it has come about.
    PythonUnraisable,
    /// `zend_throw_exception_internal`
    Php,
    /// `zend_exception_error`
    PhpUncaught,
    /// `ruby:raise`
    Ruby,
    /// `JVM_FillInStackTrace`
    Java,
    /// Where what was made there comes by when it is thrown and when it is handled.
    JavaPassed,
    /// `JavaThread::exit`
    JavaUncaught,
    /// `v8::internal::Isolate::ThrowInternal`
    V8,
    /// `node::errors::TriggerUncaughtException`
    NodeUncaught,
}

/// The hooks of a module: its runtime's, or none.
pub fn hooks(module: &Module, index: &Index) -> Hooks {
    let mut found = Hooks::default();
    let mut functions = index.functions(|name| kind(name).is_some() || catch::kind(name).is_some());
    if functions.iter().any(|function| uncaught::is_hook(&function.name)) {
        functions.extend(python::unnamed(module, index));
        functions.extend(uncaught::methods(module, index));
    }
    let is_java = functions.iter().any(|function| java::is_hook(&function.name));
    let java = is_java.then(|| java::Tables::read(module, index)).flatten();
    let of_hooks = functions.iter().filter_map(|function| Some((function, kind(&function.name)?)));
    for (function, kind) in of_hooks.take(HOOKS_MAX) {
        let Leaving { site, saved } = match leaving(module, index, function) {
            Ok(place) => place,
            Err(refusal) => {
                found.refused.push((function.name.clone(), refusal));
                continue;
            }
        };
        let seen = Surroundings { module, index, site, saved: &saved, java: java.as_ref() };
        found.hooks.extend(hook(kind, function, seen, &functions));
    }
    found.hooks.extend(ruby::hooks(module, index));
    found
}

/// Where a function is a hook: where it is entered, or about to return, with what it has saved by then.
fn leaving(module: &Module, index: &Index, function: &Function) -> Result<Leaving, Refusal> {
    if java::is_hook_at_end(&function.name) {
        return place_leaving(module, index, function)?.ok_or(Refusal::Short);
    }
    Ok(Leaving { site: place_entry(module, index, function)?, saved: Vec::new() })
}

fn hook(
    kind: Runtime,
    function: &Function,
    seen: Surroundings<'_>,
    functions: &[Function],
) -> Option<Hook> {
    let Surroundings { module, index, site, .. } = seen;
    let (mut ops, decode) = code(kind, function, seen).filter(|(ops, _)| ops.len() < OPS_MAX)?;
    if has_native_stack(decode) {
        // First, because a read that fails leaves out what follows.
        ops.insert(0, Op { code: op::IMAGE, ..Op::default() });
    }
    if decode == Decode::Python
        && let Some(frames) = frames::code(module, index)
        && ops.len() + frames.len() <= OPS_MAX
    {
        ops.splice(0..0, frames);
    }
    let in_goroutine =
        matches!(decode, Decode::GoPanic | Decode::GoFatal | Decode::GoUncaught | Decode::GoServer);
    let catchers =
        if decode.catches() { catchers(kind, site, module, functions) } else { Vec::new() };
    if catchers.len() > CATCHERS_MAX {
        return None;
    }
    let (name, semaphore) = (function.name.clone(), None);
    let site = Site { kind: SiteKind::Event, ..site };
    Some(Hook { name, site, semaphore, ops, decode, in_goroutine, catchers })
}

/// Whether the stack of an exception is the machine's own.
fn has_native_stack(decode: Decode) -> bool {
    matches!(decode, Decode::Cpp | Decode::RustPanic | Decode::GoPanic | Decode::GoFatal)
}

/// Those of a module's functions that catch for a runtime, as its hook sees them.
fn catchers(runtime: Runtime, hook: Site, module: &Module, functions: &[Function]) -> Vec<Catcher> {
    let of = |function: &Function| {
        let (of, kind) = catch::kind(&function.name)?;
        (of == runtime)
            .then(|| catch::seen_from(hook.address, function.address, function.size, kind))
    };
    let mut catchers: Vec<_> = functions.iter().filter_map(of).collect();
    if runtime == Runtime::Cpp && !functions.iter().any(|function| cpp::terminates(&function.name))
    {
        // It is there and has no name: whatever of the module catches may be it.
        let code = module.sections().iter().filter(|section| section.is_code());
        catchers.extend(code.map(|section| {
            let kind = CatcherKind::Caller;
            catch::seen_from(hook.address, section.address, section.size, kind)
        }));
    }
    catchers
}

impl Decode {
    /// Every one.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) const ALL: [Self; 22] = [
        Self::Cpp,
        Self::CppCatch,
        Self::CppRethrow,
        Self::RustPanic,
        Self::RustPlace,
        Self::RustCatch,
        Self::GoPanic,
        Self::GoFatal,
        Self::GoRecovery,
        Self::GoUncaught,
        Self::GoServer,
        Self::Python,
        Self::PythonUncaught,
        Self::PythonUnraisable,
        Self::Php,
        Self::PhpUncaught,
        Self::Ruby,
        Self::Java,
        Self::V8,
        Self::NodeUncaught,
        Self::JavaPassed,
        Self::JavaUncaught,
    ];

    /// Whose hook it is.
    pub fn runtime(self) -> Runtime {
        match self {
            Self::Cpp | Self::CppCatch | Self::CppRethrow => Runtime::Cpp,
            Self::RustPanic | Self::RustPlace | Self::RustCatch => Runtime::Rust,
            Self::GoPanic
            | Self::GoFatal
            | Self::GoRecovery
            | Self::GoUncaught
            | Self::GoServer => Runtime::Go,
            Self::Python | Self::PythonUncaught | Self::PythonUnraisable => Runtime::Python,
            Self::Php | Self::PhpUncaught => Runtime::Php,
            Self::Ruby => Runtime::Ruby,
            Self::Java | Self::JavaPassed | Self::JavaUncaught => Runtime::Java,
            Self::V8 | Self::NodeUncaught => Runtime::V8,
        }
    }

    /// The hook with which it shares how many hits are told, so that each tells what was left out of both.
    pub(crate) fn counts_with(self) -> Option<Self> {
        matches!(self, Self::PythonUncaught | Self::PythonUnraisable).then_some(Self::Python)
    }

    /// Whether the hook tells who catches an exception.
    fn catches(self) -> bool {
        matches!(self, Self::CppCatch | Self::RustCatch | Self::GoRecovery | Self::GoServer)
    }
}

/// What the code of a hook may depend on.
#[derive(Clone, Copy)]
struct Surroundings<'a> {
    module: &'a Module,
    index: &'a Index,
    site: Site,
    /// Registers that its function has saved there.
    saved: &'a [(usize, i32)],
    java: Option<&'a java::Tables>,
}

/// The runtimes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum Runtime {
    Cpp,
    Rust,
    Go,
    Python,
    Php,
    Ruby,
    Java,
    V8,
}

/// Whose hook a function is, by its name.
fn kind(name: &str) -> Option<Runtime> {
    let kinds = [
        (cpp::is_hook as fn(&str) -> bool, Runtime::Cpp),
        (rust::is_hook, Runtime::Rust),
        (golang::is_hook, Runtime::Go),
        (python::is_hook, Runtime::Python),
        (uncaught::is_hook, Runtime::Python),
        (php::is_hook, Runtime::Php),
        (java::is_hook, Runtime::Java),
        (v8::is_hook, Runtime::V8),
    ];
    kinds.iter().find(|(is_hook, _)| is_hook(name)).map(|(_, kind)| *kind)
}

fn code(kind: Runtime, function: &Function, seen: Surroundings<'_>) -> Option<(Vec<Op>, Decode)> {
    match kind {
        Runtime::Cpp => Some(cpp::code(&function.name)),
        Runtime::Rust => Some(rust::code(&function.name)),
        Runtime::Go => Some(golang::code(&function.name, seen)),
        Runtime::Python if uncaught::is_hook(&function.name) => uncaught::code(function, seen),
        Runtime::Python => python::code(function, seen),
        Runtime::Php => Some(php::code(&function.name)),
        Runtime::Java => java::code(&function.name, seen),
        Runtime::V8 => Some(v8::code(&function.name, seen)),
        Runtime::Ruby => None,
    }
}

/// Reads what a hit of a hook has copied. Whatever the bytes are, it ends, and takes no more memory than
/// they do.
pub fn decode(decode: Decode, chunks: &[u8]) -> Option<Seen> {
    let chunks = Chunks(chunks);
    match decode {
        Decode::Cpp => cpp::decode(chunks),
        Decode::CppCatch => Some(cpp::decode_catch(chunks)),
        Decode::CppRethrow => Some(Seen::GoesOn),
        Decode::RustPanic => rust::decode_panic(chunks),
        Decode::RustPlace => rust::decode_place(chunks),
        Decode::RustCatch => Some(rust::decode_catch(chunks)),
        Decode::GoPanic => golang::decode_panic(chunks),
        Decode::GoFatal => golang::decode_fatal(chunks),
        Decode::GoRecovery => Some(golang::decode_recovery(chunks)),
        Decode::GoServer => golang::decode_server(chunks),
        Decode::GoUncaught => Some(Seen::Uncaught(Which::Latest)),
        Decode::Python => python::decode(chunks),
        Decode::PythonUncaught => Some(uncaught::decode(chunks)),
        Decode::PythonUnraisable => Some(uncaught::decode_unraisable(chunks)),
        Decode::Php => php::decode(chunks),
        Decode::PhpUncaught => Some(php::decode_uncaught(chunks)),
        Decode::Ruby => ruby::decode(chunks),
        Decode::Java => java::decode(chunks),
        Decode::JavaPassed => Some(java::decode_passed(chunks)),
        Decode::JavaUncaught => Some(java::decode_uncaught(chunks)),
        Decode::V8 => v8::decode(chunks),
        Decode::NodeUncaught => Some(Seen::Uncaught(Which::told(chunks))),
    }
}
