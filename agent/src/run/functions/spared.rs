//! What of a process is not probed, because others than it would run into the probes: emulators that read
//! code, and debuggers.

use std::path::Path;

use crate::discover::{process, translator};
use crate::event::ids::Tgid;

/// What is not probed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Spared {
    /// All may be.
    #[default]
    Nothing,
    /// The process runs code by reading it, but its own.
    Libraries,
    /// A debugger holds it: where there is a probe, the kernel takes its breakpoints for that, and it never
    /// stops.
    Everything,
}

/// Tracers that watch system calls alone.
const NO_DEBUGGERS: [&str; 2] = ["strace", "proot"];

impl Spared {
    /// Of a program that begins with these arguments.
    pub(super) fn of_command(executable: &Path, args: &[String]) -> Self {
        match translator::reads_code(executable, args) {
            true => Self::Libraries,
            false => Self::Nothing,
        }
    }

    /// Of a process that is there.
    pub(super) fn of_process(tgid: Tgid) -> Self {
        let proc = Path::new("/proc");
        let tracer = process::tracer(proc, tgid);
        if tracer.is_some_and(|name| !NO_DEBUGGERS.contains(&name.as_str())) {
            return Self::Everything;
        }
        let facts = process::read(proc, tgid);
        facts.map(|facts| Self::of_command(&facts.exe, &facts.args)).unwrap_or_default()
    }

    /// Says what is not probed and why, unless it was so before.
    pub(super) fn say(self, tgid: Tgid, before: Self) {
        match self {
            _ if self == before => {}
            Self::Nothing => {}
            Self::Libraries => tracing::warn!(
                pid = tgid.0,
                "libraries are not probed here: an emulator reads their code, and would take probes for it"
            ),
            Self::Everything => tracing::warn!(
                pid = tgid.0,
                "not probed: a debugger holds it, and would not stop at its breakpoints where probes are"
            ),
        }
    }

    /// Whether a file that the process runs is meant.
    pub(super) fn includes(self, is_executable: bool) -> bool {
        match self {
            Self::Nothing => false,
            Self::Libraries => !is_executable,
            Self::Everything => true,
        }
    }
}
