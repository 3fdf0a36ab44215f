//! What `/proc` says about one process, read once, within bounds.

pub(crate) mod text;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use self::text::{Stat, Status, list, value_of};
use crate::event::ids::Tgid;

/// Most bytes read of any file of a process.
const READ_MAX: u64 = 128 << 10;

/// Why nothing is known about a process.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It has exited, or never was.
    #[error("no process {}: it has exited or never existed", tgid.0)]
    Gone {
        /// The process.
        tgid: Tgid,
    },
    /// A kernel thread has no memory and no requests.
    #[error("process {} is a kernel thread and cannot be traced", tgid.0)]
    KernelThread {
        /// The process.
        tgid: Tgid,
    },
    /// The id is that of a thread.
    #[error("{} is a thread of process {}: trace that instead", tid, tgid.0)]
    Thread {
        /// The thread.
        tid: u32,
        /// Its process.
        tgid: Tgid,
    },
    /// `/proc` could not be read.
    #[error("cannot read /proc/{}/{file}", tgid.0)]
    Read {
        /// The process.
        tgid: Tgid,
        /// The file below its directory.
        file: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What is known of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its id in the initial pid namespace.
    pub tgid: Tgid,
    /// Its parent.
    pub parent: Tgid,
    /// When it started, in clock ticks since boot; with the id, its identity.
    pub start_ticks: u64,
    /// Its name (`/proc/PID/comm`).
    pub comm: String,
    /// The executable's path as its own mount namespace names it; empty if unknown.
    pub exe: PathBuf,
    /// Whether the executable's file was removed or replaced.
    pub deleted: bool,
    /// Device and inode of the executable.
    pub exe_id: Option<(u64, u64)>,
    /// Its arguments, bounded, not redacted.
    pub args: Vec<String>,
    /// Real user id; `None` of a process that ended before it could be looked at.
    pub uid: Option<u32>,
    /// Lines of `/proc/PID/cgroup`.
    pub cgroups: Vec<String>,
    /// Its id in its own pid namespace.
    pub inner_pid: u32,
    /// `OTEL_SERVICE_NAME`, if set and not empty.
    pub otel_service_name: Option<String>,
    /// `OTEL_RESOURCE_ATTRIBUTES`, if set and not empty.
    pub otel_resource_attributes: Option<String>,
    /// Its working directory; empty if unknown.
    pub cwd: PathBuf,
}

/// Where `/proc` tells of what a process has: of its memory, its files, its program. That is where it tells
/// of its first thread, or if that has ended and others go on, where it tells of one of those.
pub fn directory(proc: &Path, tgid: Tgid) -> PathBuf {
    let own = proc.join(tgid.0.to_string());
    let has_program = |directory: &Path| std::fs::read_link(directory.join("exe"));
    let ended = has_program(&own).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let threads = ended.then(|| std::fs::read_dir(own.join("task")).ok()).flatten();
    let mut threads = threads.into_iter().flatten().flatten().map(|entry| entry.path());
    threads.find(|thread| has_program(thread).is_ok()).unwrap_or(own)
}

/// Reads what is known of a process.
pub fn read(proc: &Path, tgid: Tgid) -> Result<Facts, ProcessError> {
    // Who it is, its first thread says even when it has ended.
    let before = stat(&proc.join(tgid.0.to_string()), tgid)?;
    let directory = directory(proc, tgid);
    let status = text(&directory, tgid, "status")?;
    let status = Status(&status);
    let owner = status.owner().unwrap_or(tgid);
    if owner != tgid {
        return Err(ProcessError::Thread { tid: tgid.0, tgid: owner });
    }
    // Only kernel threads have no memory map (a zombie has none either, and is gone as well).
    if !status.has_memory() {
        return Err(if before.parent.0 == 2 || tgid.0 == 2 {
            ProcessError::KernelThread { tgid }
        } else {
            ProcessError::Gone { tgid }
        });
    }
    let (uid, inner_pid) = (status.uid(), status.inner_pid().unwrap_or(tgid.0));
    let args = list(&bytes(&directory, "cmdline").unwrap_or_default());
    let cgroup = bytes(&directory, "cgroup").unwrap_or_default();
    let cgroups = String::from_utf8_lossy(&cgroup).lines().map(str::to_owned).collect();
    let environment = bytes(&directory, "environ").unwrap_or_default();
    let cwd = std::fs::read_link(directory.join("cwd")).unwrap_or_default();
    // Last, as it is what goes first when a process exits: what was read before is whole if it is
    // still there.
    let link = match std::fs::read_link(directory.join("exe")) {
        Ok(link) => link,
        Err(_) if !Status(&text(&directory, tgid, "status")?).has_memory() => {
            return Err(ProcessError::Gone { tgid });
        }
        // Not ours to see.
        Err(_) => PathBuf::new(),
    };
    let path = link.to_string_lossy();
    let deleted = path.ends_with(" (deleted)");
    let exe_path = PathBuf::from(path.trim_end_matches(" (deleted)"));
    let exe_id = exe_id(proc, tgid);
    let facts = Facts {
        tgid,
        parent: before.parent,
        start_ticks: before.start_ticks,
        comm: before.comm,
        exe: exe_path,
        deleted,
        exe_id,
        args,
        uid,
        cgroups,
        inner_pid,
        otel_service_name: value_of(&environment, "OTEL_SERVICE_NAME"),
        otel_resource_attributes: value_of(&environment, "OTEL_RESOURCE_ATTRIBUTES"),
        cwd,
    };
    // The id may have become another process while its files were read.
    let after = stat(&proc.join(tgid.0.to_string()), tgid)?;
    if after.start_ticks != facts.start_ticks {
        return read(proc, tgid);
    }
    Ok(facts)
}

/// A variable of a process's environment as it was when its program began, if it is set and not empty.
pub(crate) fn variable(proc: &Path, tgid: Tgid, name: &str) -> Option<String> {
    value_of(&bytes(&directory(proc, tgid), "environ").ok()?, name)
}

/// How much executable code of files a process has mapped, KiB (proc_pid_status(5): `VmExe`, `VmLib`).
pub(crate) fn code_kib(proc: &Path, tgid: Tgid) -> Option<u64> {
    let status = text(&proc.join(tgid.0.to_string()), tgid, "status").ok()?;
    Status(&status).code_kib()
}

/// The name of what traces a process by ptrace(2), if something does.
pub(crate) fn tracer(proc: &Path, tgid: Tgid) -> Option<String> {
    let status = text(&proc.join(tgid.0.to_string()), tgid, "status").ok()?;
    let tracer = Status(&status).tracer()?;
    // It is a thread's id, which has a directory like a process's.
    let comm = stat(&proc.join(tracer.0.to_string()), tracer).map(|stat| stat.comm);
    Some(comm.unwrap_or_default())
}

/// Whether the CPU keeps a process's return addresses a second time, as far as its first thread tells.
pub(crate) fn has_shadow_stack(proc: &Path, tgid: Tgid) -> bool {
    let status = text(&proc.join(tgid.0.to_string()), tgid, "status");
    status.is_ok_and(|status| Status(&status).has_shadow_stack())
}

/// When the process that has this id now started, in clock ticks since boot; `None` if none has it.
pub fn start_ticks(proc: &Path, tgid: Tgid) -> Option<u64> {
    stat(&proc.join(tgid.0.to_string()), tgid).ok().map(|stat| stat.start_ticks)
}

/// Whether something runs in a process, so that its end is yet to be told: not in one that only waits for its
/// parent to ask how it has ended.
pub(crate) fn runs(proc: &Path, tgid: Tgid) -> bool {
    let directory = proc.join(tgid.0.to_string());
    let runs = |thread: &Path| stat(thread, tgid).is_ok_and(|stat| !stat.is_ending);
    let threads = || std::fs::read_dir(directory.join("task")).into_iter().flatten().flatten();
    runs(&directory) || threads().any(|thread| runs(&thread.path()))
}

/// Device and inode of the program that a process runs now.
pub fn exe_id(proc: &Path, tgid: Tgid) -> Option<(u64, u64)> {
    let exe = directory(proc, tgid).join("exe");
    std::fs::metadata(exe).ok().map(|file| (file.dev(), file.ino()))
}

/// Every process id there is now.
pub fn all(proc: &Path) -> io::Result<Vec<Tgid>> {
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(proc)? {
        let name = entry?.file_name();
        if let Some(id) = name.to_str().and_then(|name| name.parse().ok()) {
            ids.push(Tgid(id));
        }
    }
    Ok(ids)
}

/// `/proc/PID/stat`.
fn stat(directory: &Path, tgid: Tgid) -> Result<Stat, ProcessError> {
    Stat::parse(&text(directory, tgid, "stat")?).ok_or(ProcessError::Gone { tgid })
}

fn text(directory: &Path, tgid: Tgid, file: &'static str) -> Result<String, ProcessError> {
    match bytes(directory, file) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        // A process that dies in mid-read answers ESRCH.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(libc::ESRCH) =>
        {
            Err(ProcessError::Gone { tgid })
        }
        Err(source) => Err(ProcessError::Read { tgid, file, source }),
    }
}

fn bytes(directory: &Path, file: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(directory.join(file))?.take(READ_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_knows_itself() {
        let facts = read(Path::new("/proc"), Tgid(std::process::id())).expect("it is running");
        assert_eq!(Some(facts.exe), std::env::current_exe().ok());
        assert!(!facts.deleted && facts.start_ticks > 0 && !facts.args.is_empty());
    }

    #[test]
    fn what_is_not_a_process_says_why() {
        let proc = Path::new("/proc");
        assert!(matches!(read(proc, Tgid(0x7fff_fff0)), Err(ProcessError::Gone { .. })));
        if std::fs::read_to_string("/proc/2/comm").is_ok_and(|comm| comm == "kthreadd\n") {
            assert!(matches!(read(proc, Tgid(2)), Err(ProcessError::KernelThread { .. })));
        }
    }

    #[test]
    fn a_child_that_is_a_zombie_is_gone() {
        let mut child = std::process::Command::new("true").spawn().expect("true(1) runs");
        let tgid = Tgid(child.id());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            if matches!(read(Path::new("/proc"), tgid), Err(ProcessError::Gone { .. })) {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "true(1) did not end");
            std::thread::yield_now();
        }
        child.wait().expect("it was running");
        assert!(matches!(read(Path::new("/proc"), tgid), Err(ProcessError::Gone { .. })));
    }

    #[test]
    fn nothing_runs_in_what_has_ended_and_was_not_asked_how() {
        let proc = Path::new("/proc");
        assert!(runs(proc, Tgid(std::process::id())));
        let mut command = std::process::Command::new("true");
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("it starts");
        let tgid = Tgid(child.id());
        // Its files are closed when it is about to end.
        let mut output = child.stdout.take().expect("piped");
        std::io::copy(&mut output, &mut std::io::sink()).expect("it ends");
        assert!(start_ticks(proc, tgid).is_some() && !runs(proc, tgid));
        child.wait().expect("it has ended");
        assert!(!runs(proc, tgid));
    }
}
