//! What of a process is not probed, because others than it would run into the probes: emulators that read
//! code, and debuggers; or because it would take them along, where it moves its code.

use std::path::Path;

use crate::discover::mover::{self, Begun};
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
    /// The process moves its own code.
    Executable,
    /// The CPU checks its returns against a second stack, on which the kernel need not put the address when it
    /// acts a `call` that has a probe.
    Shadowed,
    /// A debugger holds it: where there is a probe, the kernel takes its breakpoints for that, and it never
    /// stops.
    Everything,
}

/// Tracers that watch system calls alone.
const NO_DEBUGGERS: [&str; 2] = ["strace", "proot"];

impl Spared {
    /// Of a program that begins.
    pub(super) fn of_command(begun: &Begun<'_>) -> Self {
        if translator::reads_code(begun.executable, begun.args) {
            Self::Libraries
        } else if mover::moves(begun) {
            Self::Executable
        } else {
            Self::Nothing
        }
    }

    /// Of a process that is there.
    pub(super) fn of_process(tgid: Tgid) -> Self {
        let proc = Path::new("/proc");
        let tracer = process::tracer(proc, tgid);
        if tracer.is_some_and(|name| !NO_DEBUGGERS.contains(&name.as_str())) {
            return Self::Everything;
        }
        if process::has_shadow_stack(proc, tgid) {
            return Self::Shadowed;
        }
        let Ok(facts) = process::read(proc, tgid) else { return Self::default() };
        Self::of_command(&Begun {
            executable: &facts.exe,
            args: &facts.args,
            variable: &|name| process::variable(proc, tgid, name),
            root: &process::directory(proc, tgid).join("root"),
        })
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
            Self::Executable => tracing::warn!(
                pid = tgid.0,
                "its executable is not probed: it moves its own code into large pages, and would end by the \
                 probes that it takes along"
            ),
            Self::Shadowed => tracing::warn!(
                pid = tgid.0,
                "not probed: its returns are checked against a shadow stack, which calls with probes may miss"
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
            Self::Executable => is_executable,
            Self::Shadowed | Self::Everything => true,
        }
    }
}
