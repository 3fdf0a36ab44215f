//! What the kernel counts for a process: CPU time, wake-ups, memory.

use std::fs;

use anyhow::{Context, Result};

/// Counts of a process at a moment.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Time on a CPU, of all threads.
    pub(crate) cpu_ns: u64,
    /// How often its threads went to sleep.
    pub(crate) sleeps: u64,
}

impl Usage {
    /// Of a process that runs.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let mut usage = Self::default();
        let tasks = format!("/proc/{pid}/task");
        let entries = fs::read_dir(&tasks).with_context(|| format!("process {pid} is gone"))?;
        for entry in entries {
            let task = entry?.path();
            // A thread may end meanwhile.
            let Ok(schedule) = fs::read_to_string(task.join("schedstat")) else { continue };
            let ran = schedule.split(' ').next().and_then(|word| word.parse::<u64>().ok());
            usage.cpu_ns += ran.context("a schedstat file is not as expected")?;
            let Ok(status) = fs::read_to_string(task.join("status")) else { continue };
            usage.sleeps += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
        }
        Ok(usage)
    }

    /// Of several together.
    pub(crate) fn of_all(pids: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let usage = Self::of(*pid)?;
            sum.cpu_ns += usage.cpu_ns;
            sum.sleeps += usage.sleeps;
        }
        Ok(sum)
    }

    /// What was added since.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            sleeps: self.sleeps.saturating_sub(earlier.sleeps),
        }
    }
}

/// Memory of a process: now, and the most so far.
pub(crate) fn memory_mb(pid: u32) -> Result<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("process is gone")?;
    let mb = |name| field(&status, name).map(|kb| kb as f64 / 1e3 * 1.024);
    let now = mb("VmRSS:").context("no VmRSS")?;
    Ok((now, mb("VmHWM:").context("no VmHWM")?))
}

/// A process and what it has started.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut pids = vec![root];
    let mut next = 0;
    while let Some(pid) = pids.get(next).copied() {
        next += 1;
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    pids
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
