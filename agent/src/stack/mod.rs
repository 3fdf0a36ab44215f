//! Stacks of calls: from a copy of a thread's memory to named functions, and those as text. Pure, but for
//! the files of modules that [`code`] reads.
//!
//! A stack never lies about who has called: where the next caller is not certain it ends, and says so.

pub mod code;
mod go;
pub mod python;
mod text;
pub mod walk;

use serde::{Deserialize, Serialize};

use crate::event::ids::{SiteNo, Tgid, Tid};
use crate::platform::clock::MonoNs;

pub use text::{Inner, text};

/// Most frames of a stack.
pub const FRAMES_MAX: usize = 64;

/// A stack and what it belongs to; what the pipeline is told before the record itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// When, as the record that follows says.
    pub at: MonoNs,
    /// In which process.
    pub tgid: Tgid,
    /// On which thread.
    pub tid: Tid,
    /// At which probe.
    pub site: SiteNo,
    /// The stack.
    pub stack: Stack,
}

/// A stack of calls, the innermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// At most [`FRAMES_MAX`].
    pub frames: Vec<Frame>,
    /// Why it ends before a thread's beginning.
    pub end: Option<String>,
}

/// A function that has called the one before it, or where that is not known the code that has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Demangled; empty if unknown.
    pub function: String,
    /// How far into the function; if that is unknown, the address in the module, or in memory.
    pub offset: u64,
    /// The file name of the executable or library; empty if unknown.
    pub module: String,
    /// The source file; empty if unknown.
    #[serde(default)]
    pub file: String,
    /// The line, from 1; 0 if unknown.
    #[serde(default)]
    pub line: u32,
    /// It has no frame of its own: its code is part of the next one's.
    #[serde(default)]
    pub is_inlined: bool,
    /// How it is written.
    #[serde(default)]
    pub style: Style,
    /// Only a frame pointer says that it has called the one before it.
    #[serde(default)]
    pub by_frame_pointer: bool,
}

/// How a language writes its stacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// `at NAME (FILE:LINE)`, or where that is unknown `at NAME+OFFSET (MODULE)`
    #[default]
    Native,
    /// The function, and on a line of its own the place.
    Go,
    /// `File "FILE", line LINE, in NAME`, the innermost last.
    Python,
}
