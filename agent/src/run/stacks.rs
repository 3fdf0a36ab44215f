//! From copies of stacks to stacks with names and lines: knows what traced processes have mapped, and keeps
//! the tables of those modules. What a stack needs is read on threads of their own ([`reader`]), once, when a
//! stack needs it for the first time; a stack waits for that, but not for long.

mod reader;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::discover::maps::{self, Inode, Mapping};
use crate::event::ids::Tgid;
use crate::event::image;
use crate::inspect::address::{FileOffset, VirtAddr};
use crate::inspect::dwarf::lines;
use crate::inspect::elf::{Module, Segment};
use crate::platform::clock::{self, MonoNs};
use crate::stack::code::Code;
use crate::stack::walk::{Place, Space, walk};
use crate::stack::{Stack, Taken, python};
use reader::{Answer, Reader};

/// Most bytes of tables that are kept, and most of one module; debug information that is read counts.
const TABLES_MAX: u64 = 128 << 20;

/// Most bytes of source lines that are kept.
const LINES_MAX: usize = 4 << 20;

/// Most files that are kept open.
const FILES_MAX: usize = 256;

/// How long a stack waits for tables that are being read.
const PATIENCE: Duration = Duration::from_millis(500);

/// Of how much time one part may be waited for lines, [`PATIENCE`] at once: nothing is taken from the ring
/// meanwhile.
const LINES_SHARE: u32 = 10;

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

/// Stacks of traced processes.
pub(super) struct Stacks {
    processes: HashMap<Tgid, Process>,
    files: HashMap<Inode, File>,
    reader: Reader,
    /// What the reader has not answered yet of what it was asked about lines.
    late: usize,
    patience: Patience,
    /// Bytes of debug information that it keeps.
    debug_bytes: u64,
    /// Bytes of lines that the files' tables keep.
    lines_bytes: usize,
    stacks: u64,
}

impl Stacks {
    /// Starts the threads that read files. They end when this is dropped, after the file that each is at.
    pub(super) fn start() -> io::Result<Self> {
        Ok(Self {
            processes: HashMap::new(),
            files: HashMap::new(),
            reader: Reader::start()?,
            late: 0,
            patience: Patience { left: PATIENCE, earned: Instant::now() },
            debug_bytes: 0,
            lines_bytes: 0,
            stacks: 0,
        })
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
        // What has come since the last stack.
        while let Some(answer) = self.reader.answer(Duration::ZERO) {
            self.take(answer);
        }
        let (mut has_looked, mut has_asked) = (false, false);
        let stack = loop {
            let View { stack, wanted, lines, missed } = self.view(&image);
            if missed && !has_looked {
                // A library may have come since.
                self.look(image.tgid);
                has_looked = true;
            } else if !wanted.is_empty() {
                if !self.read(&wanted, deadline) {
                    break stack;
                }
            } else if lines.is_empty() || has_asked {
                break stack;
            } else {
                self.ask_lines(lines);
                has_asked = true;
                // What comes in time is shown.
                let began = Instant::now();
                let until = deadline.min(began + self.patience.earn(began));
                self.wait(until, |stacks| stacks.late > 0);
                self.patience.spend(began.elapsed());
            }
        };
        let image::Image { at, tgid, tid, site, .. } = image;
        Some(Arc::new(Taken { at, tgid, tid, site, stack }))
    }

    /// The stack by what is known, and the files of which more should be.
    fn view(&mut self, image: &image::Image<'_>) -> View {
        let known = self.processes.get(&image.tgid);
        let mappings = known.map_or(&[][..], |process| &process.mappings);
        let (used, wanted, lines, missed) = Default::default();
        let seen = Seen { mappings, files: &self.files, used, wanted, lines, missed };
        let stack = walk(image, &seen);
        let Seen { used, wanted, lines, missed, .. } = seen;
        for key in used.into_inner() {
            if let Some(file) = self.files.get_mut(&key) {
                file.used = self.stacks;
            }
        }
        let (wanted, lines) = (wanted.into_inner(), lines.into_inner());
        View { stack, wanted, lines, missed: missed.get() }
    }

    /// Reads the tables of files. False if that takes too long.
    fn read(&mut self, wanted: &HashSet<Inode>, deadline: Instant) -> bool {
        for key in wanted {
            let Some(file) = self.files.get_mut(key) else { continue };
            match std::mem::replace(&mut file.tables, Tables::Asked) {
                Tables::Unread(module, root) => {
                    self.reader.ask_tables(*key, file.name.clone(), *module, root);
                }
                other => file.tables = other,
            }
        }
        self.wait(deadline, |stacks| {
            let tables = |key| stacks.files.get(key).map(|file| &file.tables);
            wanted.iter().any(|key| matches!(tables(key), Some(Tables::Asked)))
        })
    }

    /// Asks what debug information says of addresses.
    fn ask_lines(&mut self, lines: HashMap<Inode, Vec<VirtAddr>>) {
        self.make_room(lines::BYTES_MAX, self.stacks);
        let room = TABLES_MAX.saturating_sub(self.tables_bytes());
        // What most of the stack is of comes first: not all may come in time.
        let mut lines: Vec<_> = lines.into_iter().collect();
        lines.sort_by_key(|(_, addresses)| std::cmp::Reverse(addresses.len()));
        for (key, addresses) in lines {
            let Some(code) = self.files.get_mut(&key).and_then(File::code) else { continue };
            if let Ok((module, root)) = code.ask(&addresses) {
                self.reader.ask_lines(key, module, root, addresses, room);
                self.late += 1;
            }
        }
    }

    /// Takes answers as long as there is something to wait for. False if that takes too long.
    fn wait(&mut self, deadline: Instant, is_needed: impl Fn(&Self) -> bool) -> bool {
        while is_needed(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            // A thread that has ended says so by answering nothing more.
            let Some(answer) = self.reader.answer(left) else { return false };
            self.take(answer);
        }
        true
    }

    fn take(&mut self, answer: Answer) {
        match answer {
            Answer::Tables { key, tables } => {
                if let Tables::Read(_, bytes) = &tables {
                    self.make_room(*bytes, u64::MAX);
                }
                if let Some(file) = self.files.get_mut(&key) {
                    file.tables = tables;
                }
            }
            Answer::Lines { key, found } => {
                if self.lines_bytes > LINES_MAX {
                    self.lines_bytes = 0;
                    self.files.values_mut().for_each(File::forget_lines);
                }
                if let Some(code) = self.files.get_mut(&key).and_then(File::code) {
                    self.lines_bytes += code.tell(found);
                }
            }
            Answer::NoMoreLines { key, has_lines, kept_bytes } => {
                self.late = self.late.saturating_sub(1);
                self.debug_bytes = kept_bytes;
                let code = self.files.get_mut(&key).and_then(File::code);
                if let Some(code) = code.filter(|_| !has_lines) {
                    code.has_no_lines();
                }
            }
        }
    }

    fn tables_bytes(&self) -> u64 {
        let read = self.files.values().map(|file| match &file.tables {
            Tables::Read(_, bytes) => *bytes,
            _ => 0,
        });
        self.debug_bytes + read.sum::<u64>()
    }

    /// Lets go of the tables that were not used for longest, until there is room for more, but not of those
    /// that a later stack than these has used.
    fn make_room(&mut self, wanted: u64, before: u64) {
        while self.tables_bytes() + wanted > TABLES_MAX {
            let old = self
                .files
                .values_mut()
                .filter(|file| matches!(file.tables, Tables::Read(..)) && file.used < before);
            let Some(file) = old.min_by_key(|file| file.used) else { return };
            if let Tables::Read(code, _) = std::mem::replace(&mut file.tables, Tables::Asked) {
                let (module, root) = code.into_parts();
                file.tables = Tables::Unread(Box::new(module), root);
            }
        }
    }
}

/// How long may be waited for lines.
struct Patience {
    left: Duration,
    /// Up to when it was reckoned.
    earned: Instant,
}

impl Patience {
    /// What is left by now.
    fn earn(&mut self, now: Instant) -> Duration {
        let earned = now.saturating_duration_since(self.earned) / LINES_SHARE;
        (self.left, self.earned) = (PATIENCE.min(self.left + earned), now);
        self.left
    }

    fn spend(&mut self, waited: Duration) {
        self.left = self.left.saturating_sub(waited);
    }
}

struct View {
    stack: Stack,
    wanted: HashSet<Inode>,
    /// Addresses of which debug information was not asked.
    lines: HashMap<Inode, Vec<VirtAddr>>,
    /// An address was of nothing that is known.
    missed: bool,
}

/// What a process has mapped, by what is known.
struct Seen<'a> {
    mappings: &'a [Mapping],
    files: &'a HashMap<Inode, File>,
    used: RefCell<HashSet<Inode>>,
    wanted: RefCell<HashSet<Inode>>,
    lines: RefCell<HashMap<Inode, Vec<VirtAddr>>>,
    missed: Cell<bool>,
}

impl Seen<'_> {
    /// The file at an address, and where in it that is.
    fn file(&self, address: u64) -> Option<(Inode, &File, FileOffset)> {
        let holds = |mapping: &&Mapping| mapping.addresses.contains(&address);
        let Some(mapping) = self.mappings.iter().find(holds) else {
            self.missed.set(true);
            return None;
        };
        let offset = FileOffset((address - mapping.addresses.start).wrapping_add(mapping.offset));
        Some((mapping.inode, self.files.get(&mapping.inode)?, offset))
    }
}

impl Space for Seen<'_> {
    fn code(&self, address: u64) -> Place<'_> {
        let Some((key, file, offset)) = self.file(address) else { return Place::Nothing };
        self.used.borrow_mut().insert(key);
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
                self.wanted.borrow_mut().insert(key);
                Place::Unread(&file.name, at, "its tables are still being read")
            }
        }
    }

    fn is_at(&self, address: u64) {
        let Some((key, file, offset)) = self.file(address) else { return };
        if let (Some(at), Tables::Read(code, _)) = (file.address(offset), &file.tables)
            && code.lacks_lines(at)
        {
            self.lines.borrow_mut().entry(key).or_default().push(at);
        }
    }
}

impl File {
    /// Where code at an offset is loaded, by the file.
    fn address(&self, offset: FileOffset) -> Option<VirtAddr> {
        let within = |segment: &&Segment| {
            segment.executable && offset.0.wrapping_sub(segment.offset.0) < segment.file_size
        };
        let segment = self.segments.iter().find(within)?;
        Some(VirtAddr((offset.0 - segment.offset.0).wrapping_add(segment.address.0)))
    }

    fn code(&mut self) -> Option<&mut Code> {
        match &mut self.tables {
            Tables::Read(code, _) => Some(code),
            _ => None,
        }
    }

    fn forget_lines(&mut self) {
        if let Some(code) = self.code() {
            code.forget_lines();
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_a_share_of_time() {
        let start = Instant::now();
        let mut patience = Patience { left: PATIENCE, earned: start };
        assert_eq!(patience.earn(start), PATIENCE);
        patience.spend(PATIENCE * 2);
        assert_eq!(patience.earn(start), Duration::ZERO);
        assert_eq!(patience.earn(start + Duration::from_secs(1)), Duration::from_millis(100));
        assert_eq!(patience.earn(start + Duration::from_secs(60)), PATIENCE);
    }
}
