//! What a process has mapped, as far as its files were read: where a stack's addresses are, and what should be
//! read to say more of them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::discover::maps::{Inode, Mapping};
use crate::event::ids::Tgid;
use crate::event::image::Image;
use crate::inspect::address::{FileOffset, VirtAddr};
use crate::inspect::elf::{Module, Segment};
use crate::run::functions::Version;
use crate::stack::Stack;
use crate::stack::code::{Asked, Code};
use crate::stack::walk::{Place, Space, walk};

/// A file as it was when it was opened: there may be another one with its identity, or other bytes in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) inode: Inode,
    /// How many were opened before.
    pub(super) opened: u64,
}

/// A file of which code runs.
pub(super) struct File {
    pub(super) key: Key,
    /// `None`: the system does not say.
    pub(super) version: Option<Version>,
    pub(super) name: String,
    segments: Vec<Segment>,
    pub(super) tables: Tables,
    /// The last stack that it was on.
    pub(super) used: u64,
}

pub(super) enum Tables {
    Unread(Box<Module>, PathBuf),
    /// They are being read.
    Asked,
    Read(Box<Code>, u64),
    /// Why there are none.
    None(String),
}

impl File {
    pub(super) fn open(proc: &Path, tgid: Tgid, mapping: &Mapping, opened: u64) -> Self {
        let name = mapping.name().unwrap_or_default();
        let key = Key { inode: mapping.inode, opened };
        let path = mapping.file(proc, tgid);
        match Module::open(&path) {
            Ok(module) => {
                let root = proc.join(tgid.0.to_string()).join("root");
                let version = version(&module);
                let segments = module.segments().to_vec();
                let tables = Tables::Unread(Box::new(module), root);
                Self { key, version, name, segments, tables, used: 0 }
            }
            Err(error) => {
                let (segments, tables) = (Vec::new(), Tables::None(error.to_string()));
                Self { key, version: Version::of(&path), name, segments, tables, used: 0 }
            }
        }
    }

    pub(super) fn code(&mut self) -> Option<&mut Code> {
        match &mut self.tables {
            Tables::Read(code, _) => Some(code),
            _ => None,
        }
    }

    pub(super) fn forget_lines(&mut self) {
        if let Some(code) = self.code() {
            code.forget_lines();
        }
    }

    /// Where code at an offset is loaded, by the file.
    fn address(&self, offset: FileOffset) -> Option<VirtAddr> {
        let within = |segment: &&Segment| {
            segment.executable && offset.0.wrapping_sub(segment.offset.0) < segment.file_size
        };
        let segment = self.segments.iter().find(within)?;
        Some(VirtAddr((offset.0 - segment.offset.0).wrapping_add(segment.address.0)))
    }
}

/// Which bytes an open file has.
pub(super) fn version(module: &Module) -> Option<Version> {
    module.metadata().ok().map(|metadata| Version::from(&metadata))
}

/// A stack by what is known.
#[derive(Default)]
pub(super) struct View {
    pub(super) stack: Stack,
    /// Files that it is in.
    pub(super) used: HashSet<Inode>,
    /// Files of which there are no tables yet.
    pub(super) wanted: HashSet<Inode>,
    /// Addresses of which debug information was not asked.
    pub(super) lines: HashMap<Inode, Vec<VirtAddr>>,
    /// It was asked of some and has not answered.
    pub(super) is_late: bool,
    /// An address was of nothing that is known.
    pub(super) missed: bool,
}

/// Walks a stack of a process that has this mapped.
pub(super) fn view(image: &Image<'_>, mappings: &[Mapping], files: &HashMap<Inode, File>) -> View {
    let seen = Seen { mappings, files, view: RefCell::default() };
    let stack = walk(image, &seen);
    View { stack, ..seen.view.into_inner() }
}

struct Seen<'a> {
    mappings: &'a [Mapping],
    files: &'a HashMap<Inode, File>,
    /// But for the stack.
    view: RefCell<View>,
}

impl Seen<'_> {
    /// The file at an address, and where in it that is.
    fn file(&self, address: u64) -> Option<(Inode, &File, FileOffset)> {
        let holds = |mapping: &&Mapping| mapping.addresses.contains(&address);
        let Some(mapping) = self.mappings.iter().find(holds) else {
            self.view.borrow_mut().missed = true;
            return None;
        };
        let offset = FileOffset((address - mapping.addresses.start).wrapping_add(mapping.offset));
        Some((mapping.inode, self.files.get(&mapping.inode)?, offset))
    }
}

impl Space for Seen<'_> {
    fn code(&self, address: u64) -> Place<'_> {
        let Some((key, file, offset)) = self.file(address) else { return Place::Nothing };
        self.view.borrow_mut().used.insert(key);
        let Some(at) = file.address(offset) else {
            let why = match &file.tables {
                Tables::None(why) => why,
                _ => "its segments are odd",
            };
            return Place::Unread(&file.name, VirtAddr(offset.0), why);
        };
        match &file.tables {
            Tables::Read(code, _) => Place::Code(code, at),
            Tables::None(why) => Place::Unread(&file.name, at, why),
            Tables::Unread(..) | Tables::Asked => {
                self.view.borrow_mut().wanted.insert(key);
                Place::Unread(&file.name, at, "its tables are still being read")
            }
        }
    }

    fn is_at(&self, address: u64) {
        let Some((key, file, offset)) = self.file(address) else { return };
        if let (Some(at), Tables::Read(code, _)) = (file.address(offset), &file.tables) {
            let mut view = self.view.borrow_mut();
            match code.asked(at) {
                Asked::Never => view.lines.entry(key).or_default().push(at),
                Asked::Open => view.is_late = true,
                Asked::Answered => {}
            }
        }
    }
}
