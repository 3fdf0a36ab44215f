//! A file that processes run code of: which one it is, whether it is still what it was, and what is
//! probed of it.

use std::collections::HashSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Waiting;
use super::lease::Lease;
use super::numbered::Numbered;
use crate::discover::maps::{self, file_name};
use crate::discover::process;
use crate::event::ids::Tgid;
use crate::function::pattern::Called;
use crate::inspect::elf::Module;
use crate::inspect::needed::Needed;
use crate::probe::function::LinkNo;
use crate::run::planner::Found;

/// A file, whatever its name. Another one may have its identity once it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Of what a path leads to.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::from(&metadata))
    }
}

impl From<&Metadata> for FileId {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// What a file's content goes by: it may be written anew when no process runs it, and then a place in it is
/// no instruction any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    bytes: u64,
    modified: (i64, i64),
}

impl Version {
    /// Of what a path leads to.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::from(&metadata))
    }
}

impl From<&Metadata> for Version {
    fn from(metadata: &Metadata) -> Self {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Self { bytes: metadata.size(), modified }
    }
}

/// A file that processes run code of, or did a while ago.
pub(super) struct File {
    pub(super) version: Version,
    pub(super) content: Content,
    /// The processes that run it.
    pub(super) users: HashSet<Tgid>,
    /// What is attached in all of them, if it is, and what keeps the file as it is meanwhile.
    pub(super) everywhere: Option<(LinkNo, Lease)>,
}

/// What is known of a file.
pub(super) enum Content {
    /// It is being looked at, and these processes wait for that.
    Unknown(Vec<Waiting>),
    /// There is nothing to probe, or it cannot be.
    Nothing,
    /// This can be probed.
    Found(Found),
    /// This has numbers and sites.
    Numbered(Numbered),
}

impl File {
    /// What has numbers of it.
    pub(super) fn numbered(&self) -> Option<&Numbered> {
        match &self.content {
            Content::Numbered(numbered) => Some(numbered),
            _ => None,
        }
    }
}

/// A file that a process runs code of.
#[derive(Clone, Debug)]
pub(crate) struct Mapped {
    pub(crate) id: FileId,
    /// How it is opened, whatever has become of its name.
    pub(crate) open: PathBuf,
    /// Its file name.
    pub(crate) name: String,
    /// What else it is called.
    pub(crate) other_names: Vec<String>,
    pub(crate) is_executable: bool,
}

impl Mapped {
    /// How patterns name it.
    pub(crate) fn called(&self) -> Called<'_> {
        let Self { name, other_names, is_executable, .. } = self;
        Called { name, other_names, is_executable: *is_executable }
    }

    /// With what it calls itself.
    pub(crate) fn with_own_name(mut self) -> Self {
        self.add_name(own_name(&self.open));
        self
    }

    /// It has this name, too.
    pub(super) fn add_name(&mut self, name: Option<String>) {
        if let Some(name) = name
            && name != self.name
            && !self.other_names.contains(&name)
        {
            self.other_names.push(name);
        }
    }
}

/// What a file calls itself, if it does.
pub(super) fn own_name(file: &Path) -> Option<String> {
    Needed::by(&Module::open(file).ok()?).name
}

/// The files that a process runs code of, the executable first.
pub(crate) fn mapped(tgid: Tgid) -> Vec<Mapped> {
    let proc = Path::new("/proc");
    let exe = process::directory(proc, tgid).join("exe");
    let mut modules: Vec<Mapped> = Vec::new();
    if let (Some(id), Ok(target)) = (FileId::of(&exe), std::fs::read_link(&exe)) {
        let (name, other_names) = (file_name(&target), Vec::new());
        modules.push(Mapped { id, name, other_names, open: exe, is_executable: true });
    }
    for mapping in maps::of(proc, tgid) {
        let Some(name) = mapping.name().filter(|_| mapping.is_executable) else { continue };
        let open = mapping.file(proc, tgid);
        let Some(id) = FileId::of(&open) else { continue };
        if modules.iter().all(|known| known.id != id) {
            let other_names = Vec::new();
            modules.push(Mapped { id, open, name, other_names, is_executable: false });
        }
    }
    modules
}
