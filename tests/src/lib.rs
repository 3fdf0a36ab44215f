//! What the scenes share: real programs in a scratch directory, a real remora beside them, and its
//! spans as plain values. Everything that is started is ended, by its own process id.

pub mod agent;
pub mod answer;
pub mod backend;
pub mod certificates;
pub mod compile;
pub mod kernel;
pub mod load;
pub mod oracle;
pub mod program;
pub mod servers;
pub mod sink;
pub mod spans;
pub mod talk;
pub mod uring;
pub mod wire;
pub mod zipkin;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long anything may take before a test fails. Never measured against; only a bound, which an
/// emulated machine on a busy host must not reach either.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Copies a program, over what is there if something is. Another program does it: a descriptor of ours
/// that is open for writing could be inherited by what another test starts meanwhile, and then nobody could
/// run the copy.
///
/// # Panics
/// If it cannot be copied.
pub fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").arg(from).arg(to).status();
    assert!(status.is_ok_and(|status| status.success()), "cp {} {}", from.display(), to.display());
}

/// Waits until `condition` gives something.
///
/// # Panics
/// Fails the test if that takes longer than [`DEADLINE`].
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "waited too long for: {what}");
        // Gives the processor to whoever is waited for.
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Whether this test can do what it has to; says why not.
pub fn is_root() -> bool {
    // The owner of our own entry in /proc.
    use std::os::unix::fs::MetadataExt;
    let root = std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    if !root {
        println!("skipped: needs root");
    }
    root
}

/// Whether everything is to be tested that can be, however long that takes: `cargo xtask test --all`.
pub fn takes_its_time() -> bool {
    std::env::var_os("REMORA_TEST_ALL").is_some()
}

/// A directory of this test's own, removed at its end.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A new one.
    ///
    /// # Panics
    /// If it cannot be created.
    pub fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("remora-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("a new name in the temporary directory");
        Self { path }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file's path in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.file(name);
        std::fs::write(&path, content).expect("the directory is ours");
        path
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}
