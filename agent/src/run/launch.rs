//! Starting a program that waits until it is traced: `remora exec`.
//!
//! The child is this very binary (`remora hold`), which waits for one byte on an inherited pipe and
//! then becomes the program. So the process id is known, and selected, before the program's first
//! instruction.
#![expect(unsafe_code, reason = "hands a descriptor over an exec and sends signals")]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use super::inherited;
use crate::inspect::regular;

/// A program that was started.
pub(super) struct Launched {
    child: Child,
    go: Option<PipeWriter>,
    /// It was interrupted by the terminal.
    pub(super) told: bool,
    command: Vec<OsString>,
    /// How it ended, once it has.
    status: Option<ExitStatus>,
}

impl Launched {
    /// Starts `command`, held before its first instruction.
    pub(super) fn hold(command: &[OsString]) -> io::Result<Self> {
        if !program(command).is_some_and(|program| program.exists()) {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        let (wait, go) = io::pipe()?;
        let fd = wait.as_raw_fd();
        let mut hold = Command::new("/proc/self/exe");
        hold.arg0("remora").arg("hold").arg(fd.to_string()).arg("--").args(command);
        let keep = move || {
            // SAFETY: a plain syscall on an integer.
            if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        };
        // SAFETY: the closure only calls fcntl, which is async-signal-safe.
        unsafe { hold.pre_exec(keep) };
        inherited::pass_on(&mut hold);
        let child = hold.spawn()?;
        let command = command.to_vec();
        Ok(Self { child, go: Some(go), told: false, command, status: None })
    }

    /// Its process id, the same before and after it becomes the program.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file of the program that it will become.
    pub(super) fn program(&self) -> Option<PathBuf> {
        program(&self.command)
    }

    /// What it was asked to become, word by word.
    pub(super) fn args(&self) -> Vec<String> {
        self.command.iter().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    /// Lets it become the program.
    pub(super) fn go(&mut self) -> io::Result<()> {
        match self.go.take() {
            Some(mut go) => go.write_all(b"!"),
            None => Ok(()),
        }
    }

    /// How it ended; `None` while it runs.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status)
    }

    /// Whether it has not been seen to end.
    pub(super) fn is_running(&self) -> bool {
        self.status.is_none()
    }

    /// Passes a signal on to it.
    pub(super) fn signal(&self, number: i32) {
        if self.status.is_none() {
            // SAFETY: a plain syscall. The child is not reaped, so the id is still its own.
            unsafe { libc::kill(self.child.id() as libc::pid_t, number) };
        }
    }
}

/// How many interpreters may interpret each other, and how long a script's first line is at most
/// (execve(2)).
const INTERPRETERS_MAX: usize = 5;
const FIRST_LINE_MAX: u64 = 255;

/// What a script's first line names.
fn interpreter(script: &Path) -> Option<PathBuf> {
    let mut line = Vec::new();
    regular::open(script).ok()??.take(FIRST_LINE_MAX).read_to_end(&mut line).ok()?;
    let line = line.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = line.split(|byte| *byte == b' ' || *byte == b'\t');
    let name = words.find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(name)))
}

/// Where execvp(3) of musl looks if the environment says nothing.
const DEFAULT_PATH: &str = "/usr/local/bin:/bin:/usr/bin";

/// The file of the program that a command runs, as execvp(3) finds it: of a script, its interpreter's.
fn program(command: &[OsString]) -> Option<PathBuf> {
    let command = command.first()?;
    let name = Path::new(command);
    let is_path = name.components().count() > 1 || command.as_bytes().contains(&b'/');
    let mut program = if is_path {
        name.to_owned()
    } else {
        let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        let mut files = std::env::split_paths(&path).map(|folder| folder.join(name));
        files.find(|file| file.is_file())?
    };
    for _ in 0..INTERPRETERS_MAX {
        match interpreter(&program) {
            Some(interpreter) => program = interpreter,
            None => break,
        }
    }
    Some(program)
}

/// The held side: waits for the byte on `fd`, then becomes `command`. Returns only on failure.
pub fn become_program(fd: i32, command: &[OsString]) -> io::Error {
    let Some((program, args)) = command.split_first() else {
        return io::Error::from(io::ErrorKind::InvalidInput);
    };
    // SAFETY: `hold` passed this descriptor to this process alone.
    let mut wait = unsafe { File::from_raw_fd(fd) };
    let mut byte = [0];
    match wait.read(&mut byte) {
        Ok(1) => {}
        // The agent ended before it let go.
        Ok(_) => return io::Error::from(io::ErrorKind::BrokenPipe),
        Err(error) => return error,
    }
    drop(wait);
    let mut command = Command::new(program);
    inherited::pass_on(command.args(args));
    command.exec()
}
