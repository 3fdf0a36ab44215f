//! Why function probes cannot be had.

use std::ffi::NulError;
use std::io;
use std::path::PathBuf;

/// Why function probes could not be loaded or attached.
#[derive(Debug, thiserror::Error)]
pub enum FunctionError {
    /// The binary was built by plain `cargo build`.
    #[error("this binary holds no eBPF object: build it with `cargo xtask build`")]
    NoObject,
    /// The kernel takes no types, or the object has none.
    #[error("the kernel takes no types (BTF) of programs")]
    NoTypes,
    /// The kernel refused the object's types.
    #[error("cannot load the types of the function probes' program")]
    Types(#[source] io::Error),
    /// The object does not fit the loader.
    #[error("cannot read the eBPF object of function probes")]
    Parse(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A map could not be made, read or written.
    #[error("cannot use map `{map}` of function probes")]
    Map {
        /// The map.
        map: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel refused the program.
    #[error("cannot load the program of function probes: {log}")]
    Program {
        /// What the kernel said.
        #[source]
        source: io::Error,
        /// What its verifier said.
        log: String,
    },
    /// No thread for detaching.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// A path that no kernel takes.
    #[error("cannot probe a file whose name has a zero byte")]
    Path(#[source] NulError),
    /// The kernel took no probe in this file.
    #[error("cannot probe functions of {}", path.display())]
    Attach {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A map of fixed size is full.
    #[error("too many {what}: {wanted} are wanted, {most} fit; ask for fewer functions")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there would be.
        wanted: usize,
        /// How many fit.
        most: usize,
    },
}
