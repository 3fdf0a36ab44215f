//! How a process ended.

use agent_common::STATUS_UNKNOWN;

/// As wait(2) tells it: the signal that ended the process in the low seven bits, or the code that it ended
/// with in the second byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus(pub u32);

impl ExitStatus {
    /// Of a record's word.
    pub(super) fn told(word: u32) -> Option<Self> {
        (word != STATUS_UNKNOWN).then_some(Self(word))
    }

    /// Whether it ended by itself and says that all is well.
    pub fn is_success(self) -> bool {
        self.0 & 0xff7f == 0
    }

    /// The signal that ended it.
    pub fn signal(self) -> Option<u32> {
        Some(self.0 & 0x7f).filter(|number| *number != 0)
    }

    /// The code that it ended with, if no signal ended it.
    pub fn code(self) -> Option<u8> {
        self.signal().is_none().then_some((self.0 >> 8) as u8)
    }
}

/// The name of a signal, as signal(7) has it: those that x86-64 and arm64 number alike.
pub fn signal_name(number: u32) -> Option<&'static str> {
    const NAMES: [&str; 31] = [
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    NAMES.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_signals() {
        for (word, success, code, signal) in [
            (0, true, Some(0), None),
            (0x300, false, Some(3), None),
            (0xff00, false, Some(255), None),
            (9, false, None, Some(9)),
            // With its memory written to a file.
            (0x8b, false, None, Some(11)),
        ] {
            let status = ExitStatus::told(word).expect("it is known");
            assert_eq!(status.is_success(), success, "{word:#x}");
            assert_eq!((status.code(), status.signal()), (code, signal), "{word:#x}");
        }
        assert_eq!(ExitStatus::told(STATUS_UNKNOWN), None);
    }

    #[test]
    fn signals_have_their_names() {
        for (number, name) in [(1, "SIGHUP"), (9, "SIGKILL"), (11, "SIGSEGV"), (31, "SIGSYS")] {
            assert_eq!(signal_name(number), Some(name));
        }
        assert_eq!(signal_name(0), None);
        assert_eq!(signal_name(40), None);
    }
}
