//! What debug information says about functions: parameters, their types and where they lie at the
//! instruction that is probed; how results come back; where the source is. DWARF 4 and 5 as GCC,
//! LLVM, rustc and Go write it for x86-64. A value's place is given only where the file or the machine
//! code proves it; everything else is refused with its reason. Split debug information (`.dwo`) is
//! not read.

mod arguments;
mod epilogue;
mod function;
mod golang;
pub mod lines;
mod location;
pub mod place;
mod prologue;
mod ranges;
mod resolve;
mod returns;
mod sections;
mod signature;
mod source;
#[cfg(test)]
mod tests;
pub mod types;
mod units;
mod unused;

use std::path::Path;
use std::sync::{Arc, Mutex};

use self::place::{Place, Unreadable};
pub use self::sections::FileError;
use self::sections::Loaded;
use self::types::{TypeNo, Types};
use self::units::{Cache, View};
use crate::inspect::address::VirtAddr;
use crate::inspect::debug_file::Lookup;

/// The debug information of one program or library.
pub struct Debug {
    loaded: Loaded,
    cache: Mutex<Cache>,
}

/// Why a function is not described.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// Nothing describes a function that begins there.
    #[error("no debug information for the function at {:#x}", address.0)]
    NoFunction {
        /// Its first instruction.
        address: VirtAddr,
    },
    /// Another file does.
    #[error("the debug information of the function at {:#x} is in a .dwo file", address.0)]
    Split {
        /// Its first instruction.
        address: VirtAddr,
    },
    /// It makes no sense.
    #[error("the debug information of the function at {:#x} is damaged", address.0)]
    Damaged {
        /// Its first instruction.
        address: VirtAddr,
        /// How.
        #[source]
        source: gimli::Error,
    },
}

/// The language of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// C of any year.
    C,
    /// C++ of any year.
    Cpp,
    /// Rust.
    Rust,
    /// Go.
    Go,
    /// Any other.
    Other,
}

impl Language {
    fn of(language: gimli::DwLang) -> Self {
        match language {
            gimli::DW_LANG_C
            | gimli::DW_LANG_C89
            | gimli::DW_LANG_C99
            | gimli::DW_LANG_C11
            | gimli::DW_LANG_C17 => Self::C,
            gimli::DW_LANG_C_plus_plus
            | gimli::DW_LANG_C_plus_plus_03
            | gimli::DW_LANG_C_plus_plus_11
            | gimli::DW_LANG_C_plus_plus_14
            | gimli::DW_LANG_C_plus_plus_17
            | gimli::DW_LANG_C_plus_plus_20 => Self::Cpp,
            gimli::DW_LANG_Rust => Self::Rust,
            gimli::DW_LANG_Go => Self::Go,
            _ => Self::Other,
        }
    }
}

/// A function as its debug information describes it.
#[derive(Clone, Debug)]
pub struct Described {
    /// Its language.
    pub language: Language,
    /// Its name with namespaces and classes, as the language writes it.
    pub name: Arc<str>,
    /// The file in which it is declared.
    pub file: Option<Arc<str>>,
    /// The line on which it is.
    pub line: Option<u64>,
    /// What it is given, in order.
    pub parameters: Vec<Parameter>,
    /// What it gives back: none, one, or Go's several.
    pub results: Vec<Parameter>,
    /// The types of both.
    pub types: Types,
    /// Whether the optimiser gave it another signature than the source.
    pub altered: bool,
    /// Where Go's runtime keeps its types, if that is the same in every process.
    pub go_types: Option<u64>,
}

/// A parameter or a result.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name; empty if it has none.
    pub name: Arc<str>,
    /// Its type.
    pub ty: TypeNo,
    /// Where it lies: a parameter at the entry's probe, a result at the returns'.
    pub place: Result<Place, Unreadable>,
}

impl Debug {
    /// Opens a program or library. Its debug information may be in another file.
    ///
    /// # Errors
    /// If a file cannot be read or is no executable.
    pub fn open(path: &Path, lookup: Lookup<'_>) -> Result<Self, FileError> {
        Ok(Self { loaded: sections::load(path, lookup)?, cache: Mutex::default() })
    }

    /// Whether there is any debug information.
    pub fn is_empty(&self) -> bool {
        self.loaded.sections.is_empty()
    }

    /// Describes the function whose first instruction is at `address`, for an entry probe at `pc`.
    ///
    /// # Errors
    /// If nothing sound describes it.
    pub fn describe(&self, address: VirtAddr, pc: VirtAddr) -> Result<Described, DescribeError> {
        let view = View::new(&self.loaded, &self.cache);
        function::describe(&view, address, pc)
    }
}
