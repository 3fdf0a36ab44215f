//! Why capturing cannot begin or go on.

use std::io;

use super::object::ObjectError;
use crate::platform::btf::BtfError;

/// Why capturing could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The kernel's types are missing or differ.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// The object was refused.
    #[error("cannot load the eBPF programs")]
    Load(#[source] ObjectError),
    /// A program was refused.
    #[error("cannot attach `{program}`")]
    Attach {
        /// The program.
        program: &'static str,
        /// What the kernel said.
        #[source]
        source: AttachError,
    },
    /// A tracepoint is missing.
    #[error("cannot hook tracepoint `{name}`: this kernel has none of this name")]
    Tracepoint {
        /// The tracepoint.
        name: &'static str,
    },
    /// A kernel function is missing or differs from what a program expects.
    #[error("cannot hook kernel function `{name}`: {}", differs(*parameters, *found))]
    Function {
        /// The function.
        name: &'static str,
        /// How many parameters it should have.
        parameters: u32,
        /// How many it has; `None` if the kernel has no such function.
        found: Option<u32>,
    },
    /// A map could not be read or written.
    #[error("cannot use map `{map}`")]
    Map {
        /// The map.
        map: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// None of the capture sources works here.
    #[error("no capture source works on this kernel: see `remora doctor`")]
    NoSource,
    /// Waiting for events failed.
    #[error("cannot wait for events")]
    Wait(#[source] io::Error),
}

/// Why a program is not where it should be.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It was not loaded.
    #[error(transparent)]
    Load(#[from] ObjectError),
    /// It was loaded, but not attached.
    #[error("the kernel refuses the loaded program")]
    Link(#[source] io::Error),
}

/// In what a kernel function is another than is expected.
fn differs(parameters: u32, found: Option<u32>) -> String {
    match found {
        Some(found) => format!("it has {found} parameters on this kernel, not {parameters}"),
        None => "this kernel has none of this name".to_owned(),
    }
}
