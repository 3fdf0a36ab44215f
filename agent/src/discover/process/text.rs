//! What the files of a process's directory say, as bytes (proc(5)). Whoever made the process has chosen its
//! name, its arguments and its environment: they are any bytes.

use crate::event::ids::Tgid;

/// `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) comm: String,
    pub(crate) parent: Tgid,
    /// Whether the thread is about to end, or has.
    pub(crate) is_ending: bool,
    /// In clock ticks since boot.
    pub(crate) start_ticks: u64,
}

/// `PF_EXITING` of the kernel's `sched.h`: set before anybody is told of the end.
const EXITING: u32 = 1 << 2;

impl Stat {
    /// The name is in parentheses and may hold anything.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once('(')?;
        let (comm, rest) = rest.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let parent = Tgid(fields.nth(1)?.parse().ok()?);
        let flags: u32 = fields.nth(4)?.parse().ok()?;
        let start_ticks = fields.nth(12)?.parse().ok()?;
        let is_ending = flags & EXITING != 0;
        Some(Self { comm: comm.to_owned(), parent, is_ending, start_ticks })
    }
}

/// `/proc/PID/status`: lines of a name, a colon and values. In the process's own name the kernel writes ends
/// of lines otherwise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Status<'a>(pub(crate) &'a str);

impl<'a> Status<'a> {
    fn field(self, name: &str) -> Option<&'a str> {
        let mut lines = self.0.lines();
        lines.find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
    }

    fn kib(self, name: &str) -> Option<u64> {
        self.field(name)?.strip_suffix("kB")?.trim().parse().ok()
    }

    /// The process that a thread is of.
    pub(crate) fn owner(self) -> Option<Tgid> {
        self.field("Tgid")?.parse().ok().map(Tgid)
    }

    /// Whether it has memory of its own.
    pub(crate) fn has_memory(self) -> bool {
        self.field("VmSize").is_some()
    }

    /// Its real user id.
    pub(crate) fn uid(self) -> Option<u32> {
        self.field("Uid")?.split_whitespace().next()?.parse().ok()
    }

    /// Its id in its own pid namespace.
    pub(crate) fn inner_pid(self) -> Option<u32> {
        self.field("NSpid")?.split_whitespace().last()?.parse().ok()
    }

    /// How much executable code of files it has mapped, KiB.
    pub(crate) fn code_kib(self) -> Option<u64> {
        self.kib("VmExe")?.checked_add(self.kib("VmLib")?)
    }

    /// The thread that traces it by ptrace(2), if one does.
    pub(crate) fn tracer(self) -> Option<Tgid> {
        self.field("TracerPid")?.parse().ok().filter(|tracer| *tracer != 0).map(Tgid)
    }

    /// Whether the CPU keeps its return addresses a second time (x86's shadow stack, Linux 6.6).
    pub(crate) fn has_shadow_stack(self) -> bool {
        let features = self.field("x86_Thread_features").unwrap_or_default();
        features.split_whitespace().any(|feature| feature == "shstk")
    }
}

/// A variable of `/proc/PID/environ` that is not empty.
pub(crate) fn value_of(environment: &[u8], name: &str) -> Option<String> {
    environment.split(|byte| *byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        (!value.is_empty()).then(|| String::from_utf8_lossy(value).into_owned())
    })
}

/// Zero-separated strings. A program that writes a title over its arguments fills up with zeros,
/// which are no arguments.
pub(crate) fn list(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (first, rest) = bytes.split_at(end);
    let is_title = first.contains(&b' ') && rest.iter().all(|byte| *byte == 0);
    let bytes = if is_title { first } else { bytes };
    bytes.split(|byte| *byte == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let stat = |comm: &str, state: &str, flags: u32| {
            format!("7 ({comm}) {state} 3 7 7 0 -1 {flags} 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0 1\n")
        };
        for comm in ["sh", "a b", "(sd-pam)", ") S 9 9", "a\nb", ""] {
            for (state, flags, is_ending) in [("S", 4_194_560, false), ("Z", 4_227_084, true)] {
                let (comm, parent, start_ticks) = (comm.to_owned(), Tgid(3), 4711);
                let text = stat(&comm, state, flags);
                let expected = Stat { comm, parent, is_ending, start_ticks };
                assert_eq!(Stat::parse(&text), Some(expected), "{text}");
            }
        }
        let whole = stat("sh", "S", 0);
        for length in 0..whole.find("4711").expect("it is there") {
            assert_eq!(Stat::parse(&whole[..length]), None, "{length}");
        }
    }

    #[test]
    fn fields_are_told_by_their_whole_names() {
        let text = "Name:\tVmSize\nTgid:\t7\nTracerPid:\t0\nUid:\t1\t2\t3\t4\nNSpid:\t7\t1\n\
                    VmExe:\t     12 kB\nVmLib:\t   30 kB\n";
        let status = Status(text);
        assert_eq!((status.owner(), status.uid()), (Some(Tgid(7)), Some(1)));
        assert_eq!((status.inner_pid(), status.code_kib()), (Some(1), Some(42)));
        assert_eq!((status.has_memory(), status.tracer()), (false, None));
        assert_eq!(Status("TracerPid:\t9\n").tracer(), Some(Tgid(9)));
        assert!(Status("x86_Thread_features:\tshstk wrss \n").has_shadow_stack());
        let locked = "x86_Thread_features:\t\nx86_Thread_features_locked:\tshstk \n";
        assert!(!Status(locked).has_shadow_stack() && !status.has_shadow_stack());
        assert_eq!(Status("NStgid:\t9\nVmSizes:\t9 kB\n").owner(), None);
        assert_eq!(Status(&format!("VmExe: {0} kB\nVmLib: {0} kB", u64::MAX)).code_kib(), None);
    }

    #[test]
    fn arguments_are_told_from_titles() {
        for (bytes, args) in [
            (&b""[..], &[][..]),
            (b"nginx\0-g\0daemon off;\0", &["nginx", "-g", "daemon off;"]),
            (b"sh\0-c\0true\0\0", &["sh", "-c", "true", ""]),
            (b"a\0\0", &["a", ""]),
            (b"puma 6.4 [shop]\0\0\0\0", &["puma 6.4 [shop]"]),
            (b"nginx: worker process", &["nginx: worker process"]),
        ] {
            assert_eq!(list(bytes), args);
        }
    }
}
