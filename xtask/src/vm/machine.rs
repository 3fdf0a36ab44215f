//! A virtual machine: starts, writes what it says to a log, ends by itself or at a deadline.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Memory of a machine.
const MEMORY_MIB: u32 = 1024;
/// Processors of a machine: two, so that what happens on one is told beside what happens on another.
const PROCESSORS: u32 = 2;

/// The kernel's own log stays short; a panic ends the machine; a processor that has to wait for this
/// machine's is not stuck.
const PARAMETERS: &str =
    "console=ttyS0 quiet panic=-1 oops=panic nosoftlockup rcupdate.rcu_cpu_stall_suppress=1";

/// The command that runs a machine. Emulated, so that it is the same everywhere.
pub(super) fn command(image: &Path, archive: &Path) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "tcg", "-cpu", "max", "-nodefaults", "-no-user-config"]);
    command.args(["-display", "none", "-serial", "stdio", "-no-reboot"]);
    command.args(["-m", &MEMORY_MIB.to_string(), "-smp", &PROCESSORS.to_string()]);
    command.arg("-kernel").arg(image).arg("-initrd").arg(archive);
    command.args(["-append", PARAMETERS]);
    command
}

/// Runs a machine to its end, or to the deadline; what it said.
pub(super) fn run(command: &mut Command, log: &Path, deadline: Duration) -> Result<String> {
    let end = Instant::now() + deadline;
    let mut file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut machine = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run qemu-system-x86_64")?;
    let console = machine.stdout.take().context("it is a pipe")?;
    let (send, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut console = BufReader::new(console);
        loop {
            let mut line = Vec::new();
            // An error is an end as well.
            if console.read_until(b'\n', &mut line).unwrap_or(0) == 0 || send.send(line).is_err() {
                return;
            }
        }
    });
    let mut text = String::new();
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                let line = String::from_utf8_lossy(&line).replace('\r', "");
                file.write_all(line.as_bytes()).context("cannot write the log")?;
                text.push_str(&line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                machine.kill().context("cannot end qemu-system-x86_64")?;
                text.push_str("vm: deadline\n");
                break;
            }
        }
    }
    machine.wait().context("cannot wait for qemu-system-x86_64")?;
    // It ends with the machine.
    let _ = reader.join();
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_does_not_end_is_ended() {
        let log = std::env::temp_dir().join(format!("remora-machine-{}", std::process::id()));
        let mut endless = Command::new("tail");
        endless.args(["-f", "/dev/null"]);
        let said = run(&mut endless, &log, Duration::from_millis(1)).expect("it runs");
        assert_eq!(said, "vm: deadline\n");
        let said = run(Command::new("echo").arg("vm: done 1"), &log, Duration::from_secs(60));
        assert_eq!(said.expect("it runs"), "vm: done 1\n");
        assert_eq!(std::fs::read_to_string(&log).expect("a log"), "vm: done 1\n");
        std::fs::remove_file(&log).expect("it is there");
    }
}
