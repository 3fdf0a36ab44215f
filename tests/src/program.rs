//! Programs under test: unmodified ones that are installed, and scripts in `tests/programs`.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};

use crate::{DEADLINE, Scratch, until};

/// A running program; ended with the value.
pub struct Program {
    child: Child,
    lines: Receiver<String>,
}

impl Program {
    /// Starts it and collects the lines of its standard output.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        Self::start_with(command, Stdio::null())
    }

    /// As [`start`](Self::start), for a program that is [told](Self::tell) what to do.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start_told(command: &mut Command) -> Self {
        Self::start_with(command, Stdio::piped())
    }

    fn start_with(command: &mut Command, stdin: Stdio) -> Self {
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let (send, lines) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if send.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Self { child, lines }
    }

    /// Starts it and has it write all its output into a file.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn logged(command: &mut Command, file: &Path) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(file);
        let log = log.expect("the directory is ours");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("another descriptor"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child, lines: mpsc::channel().1 }
    }

    /// Sends it a signal and waits for its end.
    ///
    /// # Panics
    /// If kill(1) cannot be run, or it does not end.
    pub fn stop(mut self, signal: &str) -> ExitStatus {
        let status = Command::new("kill").args(["-s", signal, &self.pid().to_string()]).status();
        assert!(status.expect("kill(1) is there").success());
        until("the program's end", || self.child.try_wait().ok().flatten())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints.
    ///
    /// # Panics
    /// If none comes.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("the program prints a line")
    }

    /// Waits for a line that contains `text`; gives what follows that in the line.
    ///
    /// # Panics
    /// If none comes.
    pub fn line_after(&self, text: &str) -> String {
        loop {
            if let Some((_, rest)) = self.line().split_once(text) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Writes a line to its standard input.
    ///
    /// # Panics
    /// If it was not started by [`start_told`](Self::start_told), or has ended.
    pub fn tell(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("it was started to be told");
        writeln!(stdin, "{line}").expect("it listens");
    }

    /// Kills it; the lines that it had printed and that were not taken.
    pub fn rest(mut self) -> Vec<String> {
        self.kill();
        self.lines.iter().collect()
    }

    /// Kills it with all its descendants, which might go on without it, and waits for it.
    pub fn kill(&mut self) {
        let family = match self.child.try_wait() {
            Ok(None) => tree(self.pid()),
            _ => Vec::new(),
        };
        // Ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let orphans = family.iter().skip(1).map(u32::to_string);
        let orphans: Vec<String> = orphans.collect();
        if !orphans.is_empty() {
            let mut kill = Command::new("kill");
            let _ = kill.arg("-KILL").args(orphans).stderr(Stdio::null()).status();
        }
    }

    /// Waits until it ends by itself; its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        until("the program's end", || self.child.try_wait().ok().flatten()).code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that was free a moment ago, and that no one gets by chance.
pub fn free_port() -> u16 {
    own_port()
}

/// A port outside the range that the kernel takes for connections, so that it stays free between two
/// starts of a server.
///
/// # Panics
/// If there is none.
pub fn own_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        let number = NEXT.fetch_add(1, Ordering::Relaxed) + 61 * std::process::id();
        let port = 10_000 + (number % 20_000) as u16;
        // Not by listening there: a program that another test starts at this moment has a copy of every
        // socket until it execs, and the port would be taken for as long.
        let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        if refused.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused) {
            return port;
        }
    }
    panic!("no port of a thousand is free");
}

/// A process and all its descendants.
pub fn tree(pid: u32) -> Vec<u32> {
    let mut pids = vec![pid];
    let mut next = 0;
    while let Some(pid) = pids.get(next).copied() {
        next += 1;
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
        for thread in threads.flatten() {
            let children = std::fs::read_to_string(thread.path().join("children"));
            let children = children.unwrap_or_default();
            pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    pids
}

/// Waits until something listens on a port.
pub fn listening(port: u16) {
    until("a listener", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
}

/// The folder of the scripts.
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("programs")
}

/// A Python script of `tests/programs`, ready when it has printed its first line.
pub fn python(script: &str, args: &[&str]) -> (Program, String) {
    let mut command = Command::new("python3");
    command.arg(scripts().join(script)).args(args);
    let program = Program::start(&mut command);
    let line = program.line();
    (program, line)
}

/// An HTTP server of `tests/programs/service.py` that asks `backends` for each request; its port.
pub fn service(name: &str, backends: &[u16]) -> (Program, u16) {
    start_service(&mut Command::new("python3"), name, backends)
}

/// As [`service`], with its name as `OTEL_SERVICE_NAME`.
pub fn named_service(name: &str, backends: &[u16]) -> (Program, u16) {
    start_service(Command::new("python3").env("OTEL_SERVICE_NAME", name), name, backends)
}

fn start_service(python: &mut Command, name: &str, backends: &[u16]) -> (Program, u16) {
    python.arg(scripts().join("service.py")).arg(name);
    let program = Program::start(python.args(backends.iter().map(u16::to_string)));
    let port = program.line().parse().expect("it prints its port");
    (program, port)
}

/// An nginx that passes everything on to `backend`; its port.
pub fn nginx(scratch: &Scratch, backend: u16, more: &str) -> (Program, u16) {
    let port = free_port();
    let at = scratch.path().display();
    let configuration = format!(
        "daemon off; master_process off; pid {at}/nginx.pid; error_log {at}/nginx.log;\n\
         events {{}}\n\
         http {{\n access_log off;\n client_body_temp_path {at}/1; proxy_temp_path {at}/2;\n\
         fastcgi_temp_path {at}/3; uwsgi_temp_path {at}/4; scgi_temp_path {at}/5;\n\
         server {{ listen 127.0.0.1:{port}; {more}\n\
         location / {{ proxy_pass http://127.0.0.1:{backend}; }} }} }}\n"
    );
    let file = scratch.write("nginx.conf", &configuration);
    let mut command = Command::new("nginx");
    command.arg("-e").arg(scratch.file("nginx.log")).arg("-c").arg(file);
    let program = Program::start(&mut command);
    listening(port);
    (program, port)
}
