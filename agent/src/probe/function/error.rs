//! Why function probes cannot be had.

use std::ffi::NulError;
use std::io;
use std::path::PathBuf;

use crate::probe::object::ObjectError;

/// Why function probes could not be loaded or attached.
#[derive(Debug, thiserror::Error)]
pub enum FunctionError {
    /// The program could not be loaded.
    #[error("cannot load the program of function probes")]
    Object(#[from] ObjectError),
    /// A map could not be read or written.
    #[error("cannot use map `{map}` of function probes")]
    Map {
        /// The map.
        map: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
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
