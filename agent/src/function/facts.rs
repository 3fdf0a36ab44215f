//! What the pipeline is told of a probed function: enough to make spans of its hits, here or in a
//! replay.

use serde::{Deserialize, Serialize};

use super::exception::{Catcher, Decode};
use super::site::SiteKind;
use super::value::Reader;

/// A probed function, or a place where something is noticed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FunctionFacts {
    /// Its number.
    pub number: u32,
    /// Demangled, as `code.function.name` has it.
    pub name: String,
    /// File name of the executable or library.
    pub module: String,
    /// Where its source says it is.
    pub source: Option<SourcePosition>,
    /// What its hits mean.
    pub role: Role,
    /// Its probes.
    pub sites: Vec<SiteFacts>,
}

/// Where something is in source code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePosition {
    /// The file, as the compiler was told.
    pub file: String,
    /// The line, from 1; 0 if unknown.
    pub line: u32,
}

/// What the hits of a function mean.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A call becomes a span.
    Call {
        /// Calls shorter than this are left out, nanoseconds.
        min_ns: u64,
        /// Whether calls outside of requests are left out.
        in_request: bool,
    },
    /// A hit is an event of the span that its task is in the middle of.
    Event {
        /// Its name: `exception` for one.
        name: String,
        /// How what was read at an exception is to be read.
        #[serde(default)]
        decode: Option<Decode>,
        /// Where what it tells of is caught by the runtime itself.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        catchers: Vec<Catcher>,
    },
}

/// A probe of a function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteFacts {
    /// Its number, as hits have it.
    pub number: u32,
    /// What a hit means.
    pub kind: SiteKind,
    /// The probed function that a tail call jumps to, if it is one.
    pub into: Option<u32>,
    /// Reads what a hit holds.
    pub reader: Option<Reader>,
}
