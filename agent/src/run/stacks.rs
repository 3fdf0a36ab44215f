//! From copies of stacks to stacks with names: knows what traced processes have mapped, and keeps the
//! tables of those modules. What a stack needs is read on a thread of its own, once, when a stack needs it
//! for the first time; a stack waits for that, but not for long.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::discover::maps::{self, Inode, Mapping};
use crate::event::ids::Tgid;
use crate::event::image;
use crate::inspect::address::{FileOffset, VirtAddr};
use crate::inspect::elf::{Module, Segment};
use crate::platform::clock::{self, MonoNs};
use crate::stack::code::{self, Code};
use crate::stack::walk::{Place, Space, walk};
use crate::stack::{Stack, Taken, python};

/// Most bytes of tables that are kept, and most of one module.
const TABLES_MAX: u64 = 128 << 20;

/// Most files that are kept open.
const FILES_MAX: usize = 256;

/// How long a stack waits for tables that are being read.
const PATIENCE: Duration = Duration::from_millis(500);

/// How old what is known of a process's memory may be.
const STALE_NS: u64 = 1_000_000_000;

/// How long a process is looked at again and again, and how often.
const YOUNG_NS: u64 = 400_000_000;
const REST_NS: u64 = 50_000_000;

/// A process.
struct Process {
    mappings: Vec<Mapping>,
    read: MonoNs,
    /// When it was looked at first.
    began: MonoNs,
}

/// A file of which code runs.
struct File {
    name: String,
    segments: Vec<Segment>,
    tables: Tables,
    /// The last stack that it was on.
    used: u64,
}

enum Tables {
    Unread(Box<Module>, PathBuf),
    /// They are being read.
    Asked,
    Read(Box<Code>, u64),
    /// Why there are none.
    None(String),
}

struct Request {
    key: Inode,
    name: String,
    module: Module,
    root: PathBuf,
}

struct Answer {
    key: Inode,
    tables: Tables,
}

/// Stacks of traced processes.
pub(super) struct Stacks {
    processes: HashMap<Tgid, Process>,
    files: HashMap<Inode, File>,
    requests: Sender<Request>,
    answers: Receiver<Answer>,
    stacks: u64,
}

impl Stacks {
    /// Starts the thread that reads tables. It ends when this is dropped, after the file that it is at.
    pub(super) fn start() -> io::Result<Self> {
        let (requests, asked) = mpsc::channel::<Request>();
        let (answer, answers) = mpsc::channel();
        let work = move || {
            for Request { key, name, module, root } in asked {
                let bytes = code::bytes(&module);
                let tables = if bytes > TABLES_MAX {
                    Tables::None(format!("its tables have {} MiB", bytes >> 20))
                } else {
                    match Code::read(&name, module, &root) {
                        Ok(code) => Tables::Read(Box::new(code), bytes),
                        Err(error) => Tables::None(error.to_string()),
                    }
                };
                if answer.send(Answer { key, tables }).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("stacks".to_owned()).spawn(work)?;
        Ok(Self { processes: HashMap::new(), files: HashMap::new(), requests, answers, stacks: 0 })
    }

    /// Looks at what a process has mapped.
    pub(super) fn look(&mut self, tgid: Tgid) {
        let proc = Path::new("/proc");
        let mut mappings = maps::of(proc, tgid);
        mappings.retain(|mapping| mapping.is_executable && mapping.path.is_some());
        for mapping in &mappings {
            if self.files.len() < FILES_MAX && !self.files.contains_key(&mapping.inode) {
                self.files.insert(mapping.inode, File::open(proc, tgid, mapping));
            }
        }
        // One that has ended has none, and what it did before is still to be told.
        if !mappings.is_empty() {
            let read = clock::now();
            let began = self.processes.get(&tgid).map_or(read, |process| process.began);
            self.processes.insert(tgid, Process { mappings, read, began });
        }
    }

    /// Looks at those again that have begun a moment ago: libraries come while a program starts, and it may
    /// end before it is asked for them.
    pub(super) fn look_again(&mut self, now: MonoNs) {
        let is_due = |process: &Process| {
            now.since(process.began) < YOUNG_NS && now.since(process.read) > REST_NS
        };
        let due = self.processes.iter().filter(|(_, process)| is_due(process));
        for tgid in due.map(|(tgid, _)| *tgid).collect::<Vec<_>>() {
            self.look(tgid);
        }
    }

    /// A process has ended, or its program has.
    pub(super) fn forget(&mut self, tgid: Tgid) {
        self.processes.remove(&tgid);
        if self.files.len() == FILES_MAX {
            let mappings = self.processes.values().flat_map(|process| &process.mappings);
            let used: HashSet<Inode> = mappings.map(|mapping| mapping.inode).collect();
            self.files.retain(|key, _| used.contains(key));
        }
    }

    /// The stack that a record holds, as the pipeline takes it.
    pub(super) fn taken(&mut self, record: &[u8]) -> Option<Arc<Taken>> {
        let image = image::decode(record)?;
        if image.is_interpreted() {
            let stack = python::stack(image.stack, image.flags, image.written);
            let image::Image { at, tgid, tid, site, .. } = image;
            return Some(Arc::new(Taken { at, tgid, tid, site, stack }));
        }
        self.stacks += 1;
        let is_stale = |process: &Process| clock::now().since(process.read) > STALE_NS;
        if self.processes.get(&image.tgid).is_none_or(is_stale) {
            self.look(image.tgid);
        }
        let deadline = Instant::now() + PATIENCE;
        let mut has_looked = false;
        let stack = loop {
            let View { stack, wanted, missed } = self.view(&image);
            if missed && !has_looked {
                // A library may have come since.
                self.look(image.tgid);
                has_looked = true;
            } else if wanted.is_empty() || !self.read(&wanted, deadline) {
                break stack;
            }
        };
        let image::Image { at, tgid, tid, site, .. } = image;
        Some(Arc::new(Taken { at, tgid, tid, site, stack }))
    }

    /// The stack by what is known, and the files of which more should be.
    fn view(&self, image: &image::Image<'_>) -> View {
        let known = self.processes.get(&image.tgid);
        let mappings = known.map_or(&[][..], |process| &process.mappings);
        let (wanted, missed) = (RefCell::default(), Cell::default());
        let seen = Seen { mappings, files: &self.files, wanted, missed };
        let stack = walk(image, &seen);
        View { stack, wanted: seen.wanted.into_inner(), missed: seen.missed.get() }
    }

    /// Reads the tables of files. False if that takes too long.
    fn read(&mut self, wanted: &HashSet<Inode>, deadline: Instant) -> bool {
        for key in wanted {
            let Some(file) = self.files.get_mut(key) else { continue };
            file.used = self.stacks;
            match std::mem::replace(&mut file.tables, Tables::Asked) {
                Tables::Unread(module, root) => {
                    let (key, name) = (*key, file.name.clone());
                    // A thread that has ended says so by answering nothing more.
                    let _ = self.requests.send(Request { key, name, module: *module, root });
                }
                other => file.tables = other,
            }
        }
        let is_asked = |files: &HashMap<Inode, File>| {
            let tables = |key| files.get(key).map(|file| &file.tables);
            wanted.iter().any(|key| matches!(tables(key), Some(Tables::Asked)))
        };
        while is_asked(&self.files) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(Answer { key, tables }) = self.answers.recv_timeout(left) else { return false };
            if let Tables::Read(_, bytes) = &tables {
                self.make_room(*bytes);
            }
            if let Some(file) = self.files.get_mut(&key) {
                file.tables = tables;
            }
        }
        true
    }

    /// Lets go of the tables that were not used for longest, until there is room for more.
    fn make_room(&mut self, wanted: u64) {
        loop {
            let read = self.files.values_mut().filter_map(|file| match file.tables {
                Tables::Read(_, bytes) => Some((file.used, bytes, file)),
                _ => None,
            });
            let mut read: Vec<_> = read.collect();
            let sum: u64 = read.iter().map(|(_, bytes, _)| bytes).sum();
            read.sort_by_key(|(used, ..)| std::cmp::Reverse(*used));
            let Some((.., file)) = read.pop().filter(|_| sum + wanted > TABLES_MAX) else { return };
            if let Tables::Read(code, _) = std::mem::replace(&mut file.tables, Tables::Asked) {
                let (module, root) = code.into_parts();
                file.tables = Tables::Unread(Box::new(module), root);
            }
        }
    }
}

struct View {
    stack: Stack,
    wanted: HashSet<Inode>,
    /// An address was of nothing that is known.
    missed: bool,
}

/// What a process has mapped, by what is known.
struct Seen<'a> {
    mappings: &'a [Mapping],
    files: &'a HashMap<Inode, File>,
    wanted: RefCell<HashSet<Inode>>,
    missed: Cell<bool>,
}

impl Space for Seen<'_> {
    fn code(&self, address: u64) -> Place<'_> {
        let holds = |mapping: &&Mapping| mapping.addresses.contains(&address);
        let Some(mapping) = self.mappings.iter().find(holds) else {
            self.missed.set(true);
            return Place::Nothing;
        };
        let offset = FileOffset((address - mapping.addresses.start).wrapping_add(mapping.offset));
        let Some(file) = self.files.get(&mapping.inode) else { return Place::Nothing };
        let within = |segment: &&Segment| {
            segment.executable && offset.0.wrapping_sub(segment.offset.0) < segment.file_size
        };
        let Some(segment) = file.segments.iter().find(within) else {
            let why = match &file.tables {
                Tables::None(why) => why,
                _ => "its segments are odd",
            };
            return Place::Unread(&file.name, VirtAddr(offset.0), why);
        };
        let at = VirtAddr((offset.0 - segment.offset.0).wrapping_add(segment.address.0));
        match &file.tables {
            Tables::Read(code, _) => Place::Code(code, at),
            Tables::None(why) => Place::Unread(&file.name, at, why),
            Tables::Unread(..) | Tables::Asked => {
                self.wanted.borrow_mut().insert(mapping.inode);
                Place::Unread(&file.name, at, "its tables are still being read")
            }
        }
    }
}

impl File {
    fn open(proc: &Path, tgid: Tgid, mapping: &Mapping) -> Self {
        let name = mapping.name().unwrap_or_default();
        let (segments, tables) = match Module::open(&mapping.file(proc, tgid)) {
            Ok(module) => {
                let root = proc.join(tgid.0.to_string()).join("root");
                (module.segments().to_vec(), Tables::Unread(Box::new(module), root))
            }
            Err(error) => (Vec::new(), Tables::None(error.to_string())),
        };
        Self { name, segments, tables, used: 0 }
    }
}
