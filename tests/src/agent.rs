//! A real remora beside the programs.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use crate::spans::{self, Span};
use crate::{DEADLINE, Scratch, until};

/// The binary under test: `REMORA_BIN`, else what `cargo xtask build` left.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("REMORA_BIN") {
        return PathBuf::from(path);
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let candidates = ["release/remora", "debug/remora"].map(|path| target.join(path));
    let found = candidates.iter().find(|path| path.exists());
    found.expect("build remora first: `cargo xtask build --release`").clone()
}

/// A running agent; ended with the value.
pub struct Agent {
    child: Child,
    lines: Receiver<String>,
    log: Vec<String>,
    file: Option<PathBuf>,
}

/// What an agent said and made.
pub struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Every line of standard error.
    pub log: Vec<String>,
    /// Standard output.
    pub stdout: String,
    /// The spans in its file.
    pub spans: Vec<Span>,
}

impl Ended {
    /// The last line's fields.
    ///
    /// # Panics
    /// If the line is missing, as it must not be.
    pub fn done(&self) -> &str {
        let line = self.log.iter().find_map(|line| line.strip_prefix("remora: done "));
        line.unwrap_or_else(|| panic!("no `remora: done` in {:#?}", self.log))
    }

    /// A number of the last line.
    pub fn count(&self, name: &str) -> u64 {
        let field =
            self.done().split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        field.and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// Spans of one service, oldest first.
    pub fn of(&self, service: &str) -> Vec<&Span> {
        self.spans.iter().filter(|span| span.service == service).collect()
    }
}

impl Agent {
    /// Starts `remora run` with a file in `scratch` and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn run(scratch: &Scratch, args: &[&str]) -> Self {
        let file = scratch.file("spans.jsonl");
        let mut command = Command::new(binary());
        command.arg("run").args(args).arg("--file").arg(&file);
        let mut agent = Self::start(&mut command);
        agent.file = Some(file);
        agent.ready();
        agent
    }

    /// Starts any remora command.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stderr = child.stderr.take().expect("it is a pipe");
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines, log: Vec::new(), file: None }
    }

    /// Waits for `remora: ready`.
    ///
    /// # Panics
    /// If it does not come.
    pub fn ready(&mut self) -> String {
        self.logged("remora: ready")
    }

    /// Waits for a line on standard error that has `text`.
    ///
    /// # Panics
    /// If it does not come.
    pub fn logged(&mut self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(DEADLINE);
            let line = line.unwrap_or_else(|_| panic!("no `{text}` in {:#?}", self.log));
            self.log.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The spans in its file by now.
    pub fn spans(&self) -> Vec<Span> {
        self.file.as_deref().map(spans::read).unwrap_or_default()
    }

    /// Waits until its file has `count` spans that are `wanted`.
    pub fn wait_for(&self, count: usize, wanted: impl Fn(&Span) -> bool) -> Vec<Span> {
        until("spans in the file", || {
            let spans: Vec<_> = self.spans().into_iter().filter(|span| wanted(span)).collect();
            (spans.len() >= count).then_some(spans)
        })
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If kill(1) cannot be run.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.expect("kill(1) is there").success());
    }

    /// Interrupts it and takes what it made.
    pub fn stop(self) -> Ended {
        self.signal("INT");
        self.end()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end.
    pub fn end(mut self) -> Ended {
        let mut stdout = self.child.stdout.take();
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(stdout) = &mut stdout {
                // A torn pipe gives what there was.
                let _ = stdout.read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let status = until("the agent's end", || self.child.try_wait().ok().flatten());
        let stdout = reader.join().expect("reading does not panic");
        let mut log = std::mem::take(&mut self.log);
        log.extend(self.lines.iter());
        let spans = self.spans();
        Ended { code: status.code(), log, stdout, spans }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
