//! What a virtual machine starts from: an archive of files that the kernel unpacks into memory
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`). Programs come with the libraries
//! that they need.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::output;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// An archive in the making.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    count: u32,
    directories: BTreeSet<PathBuf>,
    libraries: BTreeSet<PathBuf>,
}

impl Archive {
    /// Adds a directory and those that it lies in.
    pub(super) fn directory(&mut self, path: &str) {
        let path = Path::new(path);
        let mut missing: Vec<&Path> =
            path.ancestors().filter(|one| one.parent().is_some()).collect();
        missing.reverse();
        for one in missing {
            if self.directories.insert(one.to_owned()) {
                self.entry(one, DIRECTORY, &[]);
            }
        }
    }

    /// Adds a file that can be run.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        self.directory_of(path);
        self.entry(Path::new(path), PROGRAM, content);
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.directory_of(path);
        self.entry(Path::new(path), LINK, target.as_bytes());
    }

    /// Adds a program of this machine, without its symbols, and the libraries that it needs.
    pub(super) fn program(&mut self, path: &str, from: &Path) -> Result<()> {
        let stripped = std::env::temp_dir().join(format!("remora-strip-{}", std::process::id()));
        let strip = output(Command::new("strip").arg("-o").arg(&stripped).arg(from)).is_some();
        let content = std::fs::read(if strip { &stripped } else { from });
        if strip {
            std::fs::remove_file(&stripped).context("cannot remove a temporary file")?;
        }
        let content = content.with_context(|| format!("cannot read {}", from.display()))?;
        self.file(path, &content);
        for library in libraries(from) {
            if self.libraries.insert(library.clone()) {
                let content = std::fs::read(&library)
                    .with_context(|| format!("cannot read {}", library.display()))?;
                self.file(&library.to_string_lossy(), &content);
            }
        }
        Ok(())
    }

    /// The archive with its end.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry(Path::new("/TRAILER!!!"), 0, &[]);
        self.bytes
    }

    fn directory_of(&mut self, path: &str) {
        if let Some((directory, _)) = path.rsplit_once('/') {
            self.directory(directory);
        }
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) {
        let name = path.to_string_lossy();
        let name = name.trim_start_matches('/');
        self.count += 1;
        let (links, size, name_bytes) = (1, content.len() as u32, name.len() as u32 + 1);
        let words = [self.count, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_bytes, 0];
        self.bytes.extend_from_slice(b"070701");
        for word in words {
            self.bytes.extend_from_slice(format!("{word:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    /// Every part begins at a multiple of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The libraries that a program is linked to, its interpreter among them; none if it is static.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let list = output(Command::new("ldd").arg(program)).unwrap_or_default();
    let mut found = Vec::new();
    for line in list.lines() {
        // `libc.so.6 => /lib/…/libc.so.6 (0x…)` or `/lib64/ld-linux-x86-64.so.2 (0x…)`
        let path = line.split_whitespace().find(|word| word.starts_with('/'));
        found.extend(path.map(PathBuf::from));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_holds_what_was_put_in() {
        let mut archive = Archive::default();
        archive.file("/a/b/init", b"#!/bin/sh\n");
        archive.link("/a/b/sh", "busybox");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).expect("nothing binary was put in");
        let entries: Vec<&str> = text.split("070701").skip(1).collect();
        let names: Vec<&str> = entries.iter().map(name).collect();
        assert_eq!(names, ["a", "a/b", "a/b/init", "a/b/sh", "TRAILER!!!"]);
        assert!(entries[2].contains("#!/bin/sh\n"));
        assert_eq!(&entries[3][8..16], format!("{LINK:08x}"));
        assert_eq!(&entries[2][48..56], format!("{:08x}", 10));
    }

    fn name<'a>(entry: &&'a str) -> &'a str {
        entry[104..].split('\0').next().unwrap_or_default()
    }

    #[test]
    fn a_program_brings_its_libraries() {
        let me = std::env::current_exe().expect("it is running");
        assert!(libraries(&me).iter().any(|path| path.to_string_lossy().contains("libc.so")));
    }
}
