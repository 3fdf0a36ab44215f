//! Where the runtimes of languages raise exceptions, what is read there, and what that says. One file
//! for each runtime. Pure: it attaches nothing and reads no process.
//!
//! One raise is one event: a hook is a place that every raise passes once, and a rethrow does not. What
//! cannot be proved of an exception is left out, so that there may be a type without a message.

mod chunks;
mod code;
mod cpp;
mod data;
mod golang;
mod java;
mod php;
mod python;
mod ruby;
mod rust;
#[cfg(test)]
mod tests;
mod v8;

use agent_common::function::{OPS_MAX, Op, op};
use serde::{Deserialize, Serialize};

use super::site::{Site, SiteKind};
use crate::inspect::address::FileOffset;
use crate::inspect::code::{Refusal, place_entry};
use crate::inspect::elf::Module;
use crate::inspect::symbols::{Function, Index};
use crate::span::redact;
use chunks::Chunks;

/// The event's name that the semantic conventions give an exception.
pub const EVENT: &str = "exception";

/// Events of one hook that are told a second unless said otherwise.
pub const RATE_PER_SECOND: u64 = 200;

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
    /// What the hook reads of the file and the program may never have touched. A probe reads only what is
    /// in memory.
    pub untouched: Option<Untouched>,
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Untouched {
    /// Where it begins.
    pub offset: FileOffset,
    /// How much it is.
    pub bytes: u64,
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
    /// `runtime.gopanic`
    GoPanic,
    /// `runtime.throw` and `runtime.fatal`
    GoFatal,
    /// `_PyErr_SetObject`
    Python,
    /// `zend_throw_exception_internal`
    Php,
    /// `ruby:raise`
    Ruby,
    /// `JVM_FillInStackTrace`
    Java,
    /// `v8::internal::Isolate::ThrowInternal`
    V8,
}

/// What a hit of a hook says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// An exception was raised.
    Raised(Raised),
    /// The same task will raise an exception next, and where that comes from if it is known.
    Place(Option<Place>),
    /// An exception was raised, unless the task has said no [`Seen::Place`] before: then it is an old
    /// one that goes on.
    RaisedIfPlaced(Raised),
    /// How the language ends a loop, and no exception to a person.
    ControlFlow,
    /// One is caught by whoever has called this.
    Caught,
    /// The one that was caught last goes on.
    GoesOn,
}

/// An exception.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raised {
    /// `exception.type`
    pub name: String,
    /// `exception.message`, redacted.
    pub message: Option<String>,
    /// Where it was raised.
    pub place: Option<Place>,
}

/// A place in source code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as the compiler was told.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
}

impl Raised {
    fn new(name: impl Into<String>, message: Option<String>) -> Self {
        Self { name: name.into(), message: message.map(|text| clean(&text)), place: None }
    }
}

/// A message without the secrets of URLs and the like in it.
fn clean(text: &str) -> String {
    let word = |piece: &str| {
        let word = piece.trim_end();
        let blank = piece.get(word.len()..).unwrap_or_default();
        let word =
            if word.contains("://") { redact::url(word) } else { redact::query(word).into() };
        word + blank
    };
    let words: String = text.split_inclusive(char::is_whitespace).map(word).collect();
    // Then what stands behind a name and a colon.
    redact::value("", &words).into_owned()
}

/// The hooks of a module: its runtime's, or none.
pub fn hooks(module: &Module, index: &Index) -> Hooks {
    let mut found = Hooks::default();
    for function in index.functions(|name| kind(name).is_some()) {
        let Some(kind) = kind(&function.name) else { continue };
        let site = match place_entry(module, index, &function) {
            Ok(site) => Site { kind: SiteKind::Event, ..site },
            Err(refusal) => {
                found.refused.push((function.name, refusal));
                continue;
            }
        };
        let seen = Surroundings { module, index, site };
        let code = code(kind, &function, seen).filter(|(ops, _)| ops.len() < OPS_MAX);
        if let Some((mut ops, decode)) = code {
            if has_native_stack(decode) {
                // First, because a read that fails leaves out what follows.
                ops.insert(0, Op { code: op::IMAGE, ..Op::default() });
            }
            let in_goroutine = matches!(decode, Decode::GoPanic | Decode::GoFatal);
            let untouched = if decode == Decode::GoPanic { golang::names(module) } else { None };
            let (name, semaphore) = (function.name, None);
            let hook = Hook { name, site, semaphore, ops, decode, in_goroutine, untouched };
            found.hooks.push(hook);
        }
    }
    found.hooks.extend(ruby::hooks(module));
    found
}

/// Whether the stack of an exception is the machine's own.
fn has_native_stack(decode: Decode) -> bool {
    matches!(decode, Decode::Cpp | Decode::RustPanic | Decode::GoPanic | Decode::GoFatal)
}

/// What the code of a hook may depend on.
#[derive(Clone, Copy)]
struct Surroundings<'a> {
    module: &'a Module,
    index: &'a Index,
    site: Site,
}

/// The runtimes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cpp,
    Rust,
    Go,
    Python,
    Php,
    Java,
    V8,
}

/// Whose hook a function is, by its name.
fn kind(name: &str) -> Option<Kind> {
    let kinds = [
        (cpp::is_hook as fn(&str) -> bool, Kind::Cpp),
        (rust::is_hook, Kind::Rust),
        (golang::is_hook, Kind::Go),
        (python::is_hook, Kind::Python),
        (php::is_hook, Kind::Php),
        (java::is_hook, Kind::Java),
        (v8::is_hook, Kind::V8),
    ];
    kinds.iter().find(|(is_hook, _)| is_hook(name)).map(|(_, kind)| *kind)
}

fn code(kind: Kind, function: &Function, seen: Surroundings<'_>) -> Option<(Vec<Op>, Decode)> {
    match kind {
        Kind::Cpp => Some(cpp::code(&function.name)),
        Kind::Rust => Some(rust::code(&function.name)),
        Kind::Go => Some(golang::code(&function.name, seen)),
        Kind::Python => python::code(function, seen),
        Kind::Php => Some(php::code()),
        Kind::Java => java::code(seen),
        Kind::V8 => Some(v8::code(seen)),
    }
}

/// Reads what a hit of a hook has copied. Whatever the bytes are, it ends, and takes no more memory than
/// they do.
pub fn decode(decode: Decode, chunks: &[u8]) -> Option<Seen> {
    let chunks = Chunks(chunks);
    match decode {
        Decode::Cpp => cpp::decode(chunks),
        Decode::CppCatch => Some(Seen::Caught),
        Decode::CppRethrow => Some(Seen::GoesOn),
        Decode::RustPanic => rust::decode_panic(chunks),
        Decode::RustPlace => rust::decode_place(chunks),
        Decode::GoPanic => golang::decode_panic(chunks),
        Decode::GoFatal => golang::decode_fatal(chunks),
        Decode::Python => python::decode(chunks),
        Decode::Php => php::decode(chunks),
        Decode::Ruby => ruby::decode(chunks),
        Decode::Java => java::decode(chunks),
        Decode::V8 => v8::decode(chunks),
    }
}
