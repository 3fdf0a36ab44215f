//! A real agent beside what is measured.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{Usage, memory_mb};
use crate::sys;

/// How long an agent may take to say what it must.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running agent; ended with the value.
pub(crate) struct Agent {
    child: Child,
    lines: Receiver<(Instant, String)>,
    log: Vec<String>,
    started: Instant,
    ready: Instant,
}

/// What an agent said at its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    pub(crate) spans: u64,
    pub(crate) exported: u64,
    pub(crate) lost: u64,
    /// The whole line.
    pub(crate) line: String,
}

impl Agent {
    /// Starts `remora run` for these processes and waits until it is ready.
    pub(crate) fn start(remora: &Path, pids: &[u32], args: &[String]) -> Result<Self> {
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        let mut command = Command::new(remora);
        command.arg("run").args(["--pid", &pids.join(",")]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", remora.display()))?;
        let stderr = child.stderr.take().context("stderr is a pipe")?;
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(std::io::Result::ok) {
                if send.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        let mut agent = Self { child, lines, log: Vec::new(), started, ready: started };
        agent.ready = agent.said("remora: ready")?.0;
        Ok(agent)
    }

    /// From its start until it said that it is ready.
    pub(crate) fn took(&self) -> Duration {
        self.ready - self.started
    }

    /// When it said that it is ready.
    pub(crate) fn ready_at(&self) -> Instant {
        self.ready
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        Usage::of(self.child.id())
    }

    /// Its memory, and the most so far.
    pub(crate) fn memory_mb(&self) -> Result<(f64, f64)> {
        memory_mb(self.child.id())
    }

    /// Asks it to end and takes what it says.
    pub(crate) fn stop(mut self) -> Result<Done> {
        sys::interrupt(&self.child).context("cannot interrupt the agent")?;
        let line = self.said("remora: done")?.1;
        let status = self.child.wait().context("cannot wait for the agent")?;
        ensure!(status.success(), "the agent ended with {status}: {:#?}", self.log);
        let number = |name: &str| {
            let mut words = line.split(' ');
            let word = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            let word = word.with_context(|| format!("no {name} in {line:?}"))?;
            word.parse::<u64>().with_context(|| format!("{name} in {line:?}"))
        };
        Ok(Done {
            spans: number("spans")?,
            exported: number("exported")?,
            lost: number("lost")?,
            line: line.clone(),
        })
    }

    /// Waits for a line that begins so; when it came.
    fn said(&mut self, beginning: &str) -> Result<(Instant, String)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let Ok((at, line)) = self.lines.recv_timeout(rest) else {
                bail!("the agent did not say `{beginning}`: {:#?}", self.log);
            };
            if line.starts_with(beginning) {
                return Ok((at, line));
            }
            self.log.push(line);
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
