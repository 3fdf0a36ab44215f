//! What is done to the agent, and what its targets do to it: kills, stops, floods, storms, strange
//! processes and hostile bytes. The targets must not notice, and what is told must stay true.

mod attach;
mod hostile;
mod kills;
mod storms;

use remora_tests::until;
use remora_tests::wire::get;

/// A value of the agent's own counts; 0 if it is not told.
fn metric(port: u16, name: &str) -> u64 {
    let text = get(port, "/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.trim().parse().expect("a number"))
}

/// Waits until the agent has read all that the kernel half has written, with no traffic meanwhile.
fn drained(metrics: u16) {
    let names = ["remora_kernel_events_total", "remora_events_total"];
    until("an empty ring", || {
        let [written, read] = names.map(|name| metric(metrics, name));
        (written == read).then_some(())
    });
}

/// A field of `/proc/PID/status`.
fn status_of(pid: u32, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// Resident memory of a process, in KiB.
fn resident_kib(pid: u32) -> u64 {
    let text = status_of(pid, "VmRSS");
    text.trim_end_matches(" kB").parse().expect("it runs and has memory")
}
