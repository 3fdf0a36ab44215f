//! A directory for a test, and programs that run in it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Is removed with what is in it.
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// `name`: no other test's.
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("remora-test-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where a file in it is.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Runs a program in it, which must succeed; what that prints. `None`: there is no such program.
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> Option<String> {
        let Ok(output) = Command::new(program).args(args).current_dir(&self.0).output() else {
            println!("skipped: needs {program}");
            return None;
        };
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {errors}");
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left of it is in nobody's way.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
