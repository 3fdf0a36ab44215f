//! What this process may do.

/// Why tracing is not allowed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("tracing needs root, or the capabilities {missing}: run with sudo, or see `remora doctor`")]
pub struct PrivilegeError {
    missing: String,
}

/// A capability that tracing needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its name.
    pub name: &'static str,
    /// Its number (`linux/capability.h`).
    bit: u32,
    /// What it is for.
    pub purpose: &'static str,
    /// Whether CAP_SYS_ADMIN includes it.
    in_sys_admin: bool,
}

const SYS_ADMIN: u32 = 21;

/// The capabilities that remora uses.
pub const NEEDED: [Capability; 4] = [
    Capability { name: "CAP_BPF", bit: 39, purpose: "load programs and maps", in_sys_admin: true },
    Capability {
        name: "CAP_PERFMON",
        bit: 38,
        purpose: "attach to tracepoints",
        in_sys_admin: true,
    },
    Capability {
        name: "CAP_SYS_PTRACE",
        bit: 19,
        purpose: "look into other users' processes",
        in_sys_admin: false,
    },
    Capability {
        name: "CAP_DAC_READ_SEARCH",
        bit: 2,
        purpose: "read other users' executables",
        in_sys_admin: false,
    },
];

/// The effective capabilities, from `/proc/self/status`; none if that cannot be read.
pub fn effective() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0)
}

impl Capability {
    /// Whether a set of effective capabilities holds it.
    pub fn is_in(&self, effective: u64) -> bool {
        let has = |bit: u32| effective & (1 << bit) != 0;
        has(self.bit) || (self.in_sys_admin && has(SYS_ADMIN))
    }
}

/// Warns whoever may not look into other users' processes that a list has less than there is.
pub fn warn_of_blindness() {
    if NEEDED.iter().any(|needed| needed.name == "CAP_SYS_PTRACE" && !needed.is_in(effective())) {
        tracing::warn!("other users' processes cannot be looked into: run with sudo to see all");
    }
}

/// Whether tracing may begin.
pub fn check() -> Result<(), PrivilegeError> {
    check_set(effective())
}

fn check_set(effective: u64) -> Result<(), PrivilegeError> {
    let missing: Vec<_> = NEEDED
        .iter()
        .filter(|capability| !capability.is_in(effective))
        .map(|capability| capability.name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(PrivilegeError { missing: missing.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(check_set(u64::MAX), Ok(()));
        let told = check_set(1 << SYS_ADMIN | 1 << 19).expect_err("one is missing").to_string();
        assert!(told.contains("CAP_DAC_READ_SEARCH") && !told.contains("CAP_BPF"), "{told}");
        assert!(check_set(0).expect_err("all are missing").to_string().contains("CAP_BPF"));
    }
}
