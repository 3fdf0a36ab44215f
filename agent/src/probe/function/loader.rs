//! Loads the program for function probes beside the capture programs, with which it shares maps.

use std::os::fd::{AsFd, OwnedFd};

use super::link;
use crate::probe::bpf::program::Kind;
use crate::probe::capture::Shared;
use crate::probe::object::{Aligned, Maps, Object, ObjectError, Wishes, bytes_of_words};

/// The object, built by `cargo xtask build`.
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("REMORA_FUNCTIONS_OBJECT")));

/// The program's name.
pub(super) const PROGRAM: &str = "function_hit";

/// How a program for uprobes is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attach {
    /// Many at once (Linux 6.6).
    Multi,
    /// One by one.
    Perf,
}

/// The program and its maps.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) program: OwnedFd,
    pub(super) attach: Attach,
    pub(super) maps: Maps,
}

/// Loads the program for links of many places, or for single ones where the kernel has no such links.
/// `entries` says how large maps are; of those in `shared` none are made.
pub(super) fn load(
    shared: &Shared,
    entries: &[(&'static str, u32)],
) -> Result<Loaded, ObjectError> {
    let wake_bytes = shared.wake_bytes.to_ne_bytes();
    let offsets = bytes_of_words(&shared.offsets);
    let globals = [("OFFSETS", &offsets[..]), ("WAKE_BYTES", &wake_bytes)];
    let wishes = Wishes { globals: &globals, entries, shared: &shared.maps };
    let object = Object::load(&OBJECT.0, &wishes)?;
    // Before Linux 6.6 there is no such way to attach. Some kernels load the program all the same.
    let (program, attach) = match object.program(PROGRAM, Kind::UprobeMulti) {
        Ok(program) if link::takes_multi(program.as_fd()) => (program, Attach::Multi),
        first => match (object.program(PROGRAM, Kind::Uprobe), first) {
            (Ok(program), _) => (program, Attach::Perf),
            (Err(_), Err(error)) | (Err(error), Ok(_)) => return Err(error),
        },
    };
    Ok(Loaded { program, attach, maps: object.maps })
}
