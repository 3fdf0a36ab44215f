//! Probes in libraries that a program has not mapped yet. A link to a file and a process puts its
//! breakpoints when the process maps the file, so what the loader is going to map can be probed before it
//! does: nothing that a short program does is missed, and nobody is held up. A library that never comes is
//! no harm, one that is not foretold is found when it is there.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::file::{FileId, Mapped, Version};
use super::{Functions, Reach};
use crate::discover::libraries::{self, Program};
use crate::discover::maps::file_name;
use crate::discover::process;
use crate::event::ids::Tgid;
use crate::inspect::regular;
use crate::pipeline::Step;

/// Most programs of which it is remembered what they map.
const PROGRAMS_MAX: usize = 256;

/// What programs map, by their file and the environment's word on it.
#[derive(Default)]
pub(super) struct Foretold(HashMap<(FileId, String), (Version, Vec<PathBuf>)>);

impl Foretold {
    /// The libraries of a program, as it calls them.
    fn of(&mut self, program: Program<'_>) -> Option<&[PathBuf]> {
        let metadata = std::fs::metadata(program.file).ok()?;
        let (id, version) = (FileId::from(&metadata), Version::from(&metadata));
        let key = (id, program.library_path.to_owned());
        if self.0.len() >= PROGRAMS_MAX && !self.0.contains_key(&key) {
            self.0.clear();
        }
        let known = self.0.entry(key).or_insert_with(|| (version, libraries::of(program)));
        if known.0 != version {
            *known = (version, libraries::of(program));
        }
        Some(&known.1)
    }
}

impl Functions {
    /// Probes what the loader of a held process is going to map.
    pub(super) fn foretell_command(
        &mut self,
        tgid: Tgid,
        file: &Path,
        announce: &mut dyn FnMut(&Step<'_>),
    ) {
        // What it calls itself is where links lead to.
        let Ok(path) = file.canonicalize() else { return };
        let library_path = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
        let root = Path::new("/");
        let program = Program { file, path: &path, root, library_path: &library_path };
        self.foretell(tgid, program, announce);
    }

    /// Probes what the loader of a process is about to map.
    pub(super) fn foretell_process(&mut self, tgid: Tgid, announce: &mut dyn FnMut(&Step<'_>)) {
        let proc = Path::new("/proc");
        let directory = proc.join(tgid.0.to_string());
        let (file, root) = (directory.join("exe"), directory.join("root"));
        let Ok(path) = std::fs::read_link(&file) else { return };
        let library_path = process::variable(proc, tgid, "LD_LIBRARY_PATH").unwrap_or_default();
        let (path, root) = (&*path, &*root);
        let program = Program { file: &file, path, root, library_path: &library_path };
        self.foretell(tgid, program, announce);
    }

    fn foretell(&mut self, tgid: Tgid, program: Program<'_>, announce: &mut dyn FnMut(&Step<'_>)) {
        if !self.wishes.concern_libraries() {
            return;
        }
        let libraries = self.foretold.of(program).unwrap_or_default().to_vec();
        for library in libraries {
            let open = program.root.join(library.strip_prefix("/").unwrap_or(&library));
            let Some((id, name)) = named(&open) else { continue };
            let process = self.processes.get(&tgid);
            if process.is_none_or(|process| process.seen.contains(&id)) {
                continue;
            }
            let mut module =
                Mapped { id, open, name, other_names: Vec::new(), is_executable: false };
            module.add_name(Some(file_name(&library)));
            let reach = if self.trust.sees_threads { Reach::Alone } else { Reach::Everywhere };
            self.module(tgid, module, program.root.to_owned(), reach, announce);
        }
    }
}

/// A file, and what a process that maps it will call it: the name that links lead to.
fn named(path: &Path) -> Option<(FileId, String)> {
    let file = regular::open(path).ok()??;
    let id = FileId::from(&file.metadata().ok()?);
    let target = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    Some((id, file_name(&target)))
}
