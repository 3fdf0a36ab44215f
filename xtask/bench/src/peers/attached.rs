//! Tracers that are attached to a server from outside: how each is started, when it is ready, and how
//! many requests its output tells of. What they write goes into files that are removed afterwards.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::load::Client;
use crate::process::memory_mb;
use crate::sys;

/// How long one may take to attach, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// How to use a tool.
pub(super) struct Tool {
    /// The command. `{pid}` and `{port}` are the server's, `{output}` is the file to write into.
    pub(super) words: &'static [&'static str],
    pub(super) environment: &'static [(&'static str, &'static str)],
    pub(super) ready: Ready,
    pub(super) tells: Tells,
}

/// How it is known to be attached.
pub(super) enum Ready {
    /// It says so.
    Says(&'static str),
    /// Its output tells of a request that is made to find out.
    Tells,
}

/// How its output tells of requests.
pub(super) enum Tells {
    /// A line with this for each.
    Lines(&'static str),
    /// In packets, and at its end it says how many passed its filter and how many of them were lost.
    Packets,
}

/// A line for every system call that has to do with the network.
pub(super) const STRACE: Tool = Tool {
    words: &["strace", "-f", "-p", "{pid}", "-e", "trace=network,read,write", "-o", "{output}"],
    environment: &[],
    ready: Ready::Tells,
    tells: Tells::Lines("\"GET /bench "),
};

/// A line for every request: its first bytes, and how long it took until the answer was written.
const REQUESTS: &str = "\
    tracepoint:syscalls:sys_enter_recvfrom /pid == {pid}/ { @buffer[tid] = args->ubuf; }\n\
    tracepoint:syscalls:sys_exit_recvfrom /pid == {pid} && args->ret > 0/ { @began[tid] = nsecs; }\n\
    tracepoint:syscalls:sys_enter_writev /pid == {pid} && @began[tid] > 0/ {\n\
    printf(\"%s %d ns\\n\", str(@buffer[tid], 32), nsecs - @began[tid]); delete(@began[tid]); }";

/// In a mount namespace of its own, where it finds the tracepoints' numbers on any host.
pub(super) const BPFTRACE: Tool = Tool {
    words: &[
        "unshare",
        "--mount",
        "sh",
        "-c",
        "mount -t tracefs tracefs /sys/kernel/tracing && exec bpftrace -B line -e \"$0\"",
        REQUESTS,
    ],
    // As many pages as the agent's ring has.
    environment: &[("BPFTRACE_PERF_RB_PAGES", "4096")],
    ready: Ready::Tells,
    tells: Tells::Lines("GET /bench "),
};

/// Packets both ways, kept nowhere.
pub(super) const TCPDUMP: Tool = Tool {
    words: &["tcpdump", "-i", "lo", "-w", "/dev/null", "port", "{port}"],
    environment: &[],
    ready: Ready::Says("listening on lo"),
    tells: Tells::Packets,
};

/// A tool at work; ended with the value.
pub(super) struct Attached {
    tool: &'static Tool,
    child: Child,
    /// The server's.
    port: u16,
    output: PathBuf,
    said: PathBuf,
    /// What its output told of before it was ready.
    before: u64,
}

impl Attached {
    /// Starts it on a server and waits until it is attached.
    pub(super) fn start(tool: &'static Tool, scratch: &Path, pid: u32, port: u16) -> Result<Self> {
        let (output, said) = (scratch.join("output"), scratch.join("said"));
        let words = tool.words.iter().map(|word| {
            let word = word.replace("{pid}", &pid.to_string()).replace("{port}", &port.to_string());
            word.replace("{output}", &output.display().to_string())
        });
        let words: Vec<String> = words.collect();
        let (program, arguments) = words.split_first().context("a command has a word")?;
        let mut command = Command::new(program);
        command.args(arguments).envs(tool.environment.iter().copied()).stdin(Stdio::null());
        sys::tied(&mut command).stdout(File::create(&output)?).stderr(File::create(&said)?);
        let child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        let mut attached = Self { tool, child, port, output, said, before: 0 };
        let deadline = Instant::now() + PATIENCE;
        while !attached.is_ready()? {
            attached.ensure_running()?;
            ensure!(Instant::now() < deadline, "it does not attach: {}", attached.complaint());
            sys::rest(Duration::from_millis(20));
        }
        if let Tells::Lines(_) = tool.tells {
            // What was asked to find out is no part of what is measured.
            attached.before = attached.settled()?;
        }
        Ok(attached)
    }

    fn is_ready(&self) -> Result<bool> {
        match self.tool.ready {
            Ready::Says(words) => Ok(fs::read_to_string(&self.said)?.contains(words)),
            Ready::Tells => {
                Client::probe(self.port)?;
                Ok(self.told()? > 0)
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory so far.
    pub(super) fn memory_mb(&self) -> Result<f64> {
        Ok(memory_mb(self.child.id())?.1)
    }

    /// That it has not given up.
    fn ensure_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("it ended with {status}: {}", self.complaint()),
            None => Ok(()),
        }
    }

    /// Lines of its output so far that tell of a request.
    fn told(&self) -> Result<u64> {
        let Tells::Lines(mark) = self.tool.tells else { return Ok(0) };
        let output = fs::read(&self.output)?;
        let lines = output.split(|byte| *byte == b'\n');
        let marked = lines.filter(|line| line.windows(mark.len()).any(|w| w == mark.as_bytes()));
        Ok(marked.count() as u64)
    }

    /// As [`Attached::told`], when it no longer changes.
    fn settled(&self) -> Result<u64> {
        let mut before = self.told()?;
        loop {
            sys::rest(Duration::from_millis(200));
            let told = self.told()?;
            if told == before {
                return Ok(told);
            }
            before = told;
        }
    }

    /// Ends it. The share of so many requests that it has told of.
    pub(super) fn stop(mut self, requests: u64) -> Result<f64> {
        self.ensure_running()?;
        sys::interrupt(&self.child).context("cannot interrupt it")?;
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "it does not end");
            sys::rest(Duration::from_millis(5));
        }
        match self.tool.tells {
            Tells::Lines(_) => Ok((self.told()? - self.before) as f64 / requests as f64),
            Tells::Packets => kept(&fs::read_to_string(&self.said)?)
                .with_context(|| format!("it did not say what it lost: {}", self.complaint())),
        }
    }

    /// The end of what it has said.
    fn complaint(&self) -> String {
        let text = fs::read_to_string(&self.said).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(4)..].join(" ")
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // What traces by ptrace lets go when it is asked to.
        sys::end(&mut self.child, PATIENCE);
    }
}

/// The share of the packets that `tcpdump` has not lost, by its last words.
fn kept(said: &str) -> Option<f64> {
    let number = |words: &str| {
        let line = said.lines().find_map(|line| line.strip_suffix(words))?;
        line.trim().parse::<f64>().ok()
    };
    let received = number("packets received by filter")?;
    let dropped = number("packets dropped by kernel")?;
    (received > 0.0).then(|| 1.0 - dropped / received)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_packets_are_read() {
        let said = "tcpdump: listening on lo\n39772 packets captured\n\
            80160 packets received by filter\n20040 packets dropped by kernel\n";
        assert_eq!(kept(said), Some(0.75));
        assert_eq!(kept("tcpdump: lo: no such device"), None);
        assert_eq!(kept("0 packets received by filter\n0 packets dropped by kernel\n"), None);
    }
}
