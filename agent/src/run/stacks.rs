//! From copies of stacks to stacks with names and lines: knows what traced processes have mapped, and keeps
//! the tables of those modules. What a stack needs is read on threads of their own ([`reader`]), once, when a
//! stack needs it for the first time; a stack waits for that, but not for long, and nobody is held up by it.

mod patience;
mod reader;
mod space;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::discover::maps::{self, Inode, Mapping};
use crate::event::ids::Tgid;
use crate::event::image::{self, Image};
use crate::inspect::address::VirtAddr;
use crate::inspect::dwarf::lines;
use crate::platform::clock::{self, MonoNs};
use crate::run::functions::Version;
use crate::stack::{Stack, Taken, python};
use patience::Patience;
use reader::{Answer, Reader};
use space::{File, Key, Tables, View, view};

/// Most bytes of tables that are kept, and most of one module; debug information that is read counts.
const TABLES_MAX: u64 = 128 << 20;

/// Most bytes of source lines that are kept.
const LINES_MAX: usize = 4 << 20;

/// Most files that are kept open.
const FILES_MAX: usize = 256;

/// How long a stack waits for what is being read.
const PATIENCE: Duration = Duration::from_millis(500);

/// How old what is known of a process's memory may be.
const STALE_NS: u64 = 1_000_000_000;

/// How long a process is looked at again and again, and how often.
const YOUNG_NS: u64 = 400_000_000;
const REST_NS: u64 = 50_000_000;

/// A process.
struct Process {
    mappings: Arc<[Mapping]>,
    read: MonoNs,
    /// When it was looked at first.
    began: MonoNs,
}

/// Stacks of traced processes.
pub(super) struct Stacks {
    proc: PathBuf,
    processes: HashMap<Tgid, Process>,
    files: HashMap<Inode, File>,
    /// How many were opened.
    opened: u64,
    reader: Reader,
    /// How many answers were taken.
    answers: u64,
    patience: Patience,
    /// Bytes of debug information that it keeps.
    debug_bytes: u64,
    /// Bytes of lines that the files' tables keep.
    lines_bytes: usize,
    stacks: u64,
    /// Stacks that were told before all that they need was read.
    unread: u64,
}

/// A stack that has come.
pub(super) enum Begun {
    /// As the pipeline takes it.
    Whole(Arc<Taken>),
    /// Something is being read for it.
    Waiting(Waiting),
}

/// A stack for which something is being read.
pub(super) struct Waiting {
    record: Box<[u8]>,
    /// As it was at the last look.
    taken: Taken,
    needs: Needs,
}

impl Waiting {
    /// How many bytes are kept for it.
    pub(super) fn bytes(&self) -> usize {
        self.record.len()
    }

    /// When it waits no more.
    pub(super) fn until(&self) -> Instant {
        self.needs.until
    }

    /// It waits no more.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.needs.until = now;
    }
}

/// What has been done for a stack.
struct Needs {
    /// What its process had mapped when it came: that may have another program by now.
    mappings: Arc<[Mapping]>,
    until: Instant,
    lack: Lack,
    has_asked_lines: bool,
    /// Since when it waits for lines alone, and is the first that waits.
    for_lines: Option<Instant>,
    /// How many answers had come at the last look.
    answers: u64,
}

impl Stacks {
    /// Starts the threads that read files. They end when this is dropped, after the file that each is at.
    pub(super) fn start() -> io::Result<Self> {
        Ok(Self::new(PathBuf::from("/proc"), Reader::start()?))
    }

    fn new(proc: PathBuf, reader: Reader) -> Self {
        Self {
            proc,
            processes: HashMap::new(),
            files: HashMap::new(),
            opened: 0,
            reader,
            answers: 0,
            patience: Patience::new(Instant::now()),
            debug_bytes: 0,
            lines_bytes: 0,
            stacks: 0,
            unread: 0,
        }
    }

    /// Looks at what a process has mapped.
    pub(super) fn look(&mut self, tgid: Tgid) {
        let mut mappings = maps::of(&self.proc, tgid);
        mappings.retain(|mapping| mapping.is_executable && mapping.path.is_some());
        let mut seen = HashSet::new();
        for mapping in &mappings {
            if seen.insert(mapping.inode) {
                self.look_at_file(tgid, mapping);
            }
        }
        // One that has ended has none, and what it did before is still to be told.
        if !mappings.is_empty() {
            let read = clock::now();
            let began = self.processes.get(&tgid).map_or(read, |process| process.began);
            self.processes.insert(tgid, Process { mappings: mappings.into(), read, began });
        }
    }

    /// Opens a file, unless it is open and has not been written since.
    fn look_at_file(&mut self, tgid: Tgid, mapping: &Mapping) {
        match self.files.get(&mapping.inode) {
            None if self.files.len() == FILES_MAX => return,
            None => {}
            Some(known) => {
                let version = Version::of(&mapping.file(&self.proc, tgid));
                if version.is_none() || version == known.version {
                    return;
                }
            }
        }
        let file = File::open(&self.proc, tgid, mapping, self.opened);
        self.opened += 1;
        self.files.insert(mapping.inode, file);
    }

    /// The file that something was asked of, if it is still what it was then.
    fn file(&mut self, key: Key) -> Option<&mut File> {
        self.files.get_mut(&key.inode).filter(|file| file.key == key)
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
            let mappings = self.processes.values().flat_map(|process| &*process.mappings);
            let used: HashSet<Inode> = mappings.map(|mapping| mapping.inode).collect();
            self.files.retain(|key, _| used.contains(key));
        }
    }

    /// Stacks that were told before all that they need was read.
    pub(super) fn unread(&self) -> u64 {
        self.unread
    }

    /// Readable when something that was asked for has been read.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.reader.fd()
    }

    /// The stack that a record holds.
    pub(super) fn begin(&mut self, record: &[u8]) -> Option<Begun> {
        let image = image::decode(record)?;
        if image.is_interpreted() {
            let stack = python::stack(image.stack, image.flags, image.written);
            return Some(Begun::Whole(Arc::new(taken(&image, stack))));
        }
        self.stacks += 1;
        self.take_answers();
        let is_stale = |process: &Process| clock::now().since(process.read) > STALE_NS;
        if self.processes.get(&image.tgid).is_none_or(is_stale) {
            self.look(image.tgid);
        }
        let mut mappings = self.mappings(image.tgid);
        let mut view = view(&image, &mappings, &self.files);
        if view.missed {
            // A library may have come since.
            self.look(image.tgid);
            mappings = self.mappings(image.tgid);
            view = space::view(&image, &mappings, &self.files);
        }
        let mut needs = Needs {
            mappings,
            until: Instant::now() + PATIENCE,
            lack: Lack::Nothing,
            has_asked_lines: false,
            for_lines: None,
            answers: self.answers,
        };
        needs.lack = self.ask(&view, &mut needs);
        let taken = taken(&image, view.stack);
        Some(match needs.lack {
            Lack::Nothing => Begun::Whole(Arc::new(taken)),
            Lack::Tables | Lack::Lines => {
                Begun::Waiting(Waiting { record: record.into(), taken, needs })
            }
        })
    }

    /// A stack that has waited, if it does no more; asked of the one that has waited longest.
    pub(super) fn go_on(&mut self, waiting: &mut Waiting, now: Instant) -> Option<Arc<Taken>> {
        let Waiting { record, taken, needs } = waiting;
        if needs.answers != self.answers
            && let Some(image) = image::decode(record)
        {
            needs.answers = self.answers;
            let view = view(&image, &needs.mappings, &self.files);
            needs.lack = self.ask(&view, needs);
            taken.stack = view.stack;
        }
        if needs.lack == Lack::Lines && needs.for_lines.is_none() {
            needs.for_lines = Some(now);
            needs.until = needs.until.min(now + self.patience.earn(now));
        }
        if needs.lack != Lack::Nothing && now < needs.until {
            return None;
        }
        if let Some(since) = needs.for_lines {
            self.patience.spend(now.saturating_duration_since(since));
        }
        self.unread += u64::from(needs.lack != Lack::Nothing);
        Some(Arc::new(Taken { stack: std::mem::take(&mut taken.stack), ..*taken }))
    }

    fn mappings(&self, tgid: Tgid) -> Arc<[Mapping]> {
        self.processes.get(&tgid).map(|process| Arc::clone(&process.mappings)).unwrap_or_default()
    }

    /// Asks for what a stack lacks.
    fn ask(&mut self, view: &View, needs: &mut Needs) -> Lack {
        for key in &view.used {
            if let Some(file) = self.files.get_mut(key) {
                file.used = self.stacks;
            }
        }
        if !view.wanted.is_empty() {
            self.ask_tables(&view.wanted);
            return Lack::Tables;
        }
        let mut is_late = view.is_late;
        // Files may not be open to it: once is enough.
        if !view.lines.is_empty() && !needs.has_asked_lines {
            needs.has_asked_lines = true;
            is_late |= self.ask_lines(&view.lines);
        }
        if is_late { Lack::Lines } else { Lack::Nothing }
    }

    fn ask_tables(&mut self, wanted: &HashSet<Inode>) {
        for inode in wanted {
            let Some(file) = self.files.get_mut(inode) else { continue };
            match std::mem::replace(&mut file.tables, Tables::Asked) {
                Tables::Unread(module, root) => {
                    self.reader.ask_tables(file.key, file.name.clone(), *module, root);
                }
                other => file.tables = other,
            }
        }
    }

    /// Asks what debug information says of addresses; whether it can be asked.
    fn ask_lines(&mut self, lines: &HashMap<Inode, Vec<VirtAddr>>) -> bool {
        self.make_room(lines::BYTES_MAX, self.stacks);
        let room = TABLES_MAX.saturating_sub(self.tables_bytes());
        // What most of the stack is of comes first: not all may come in time.
        let mut lines: Vec<_> = lines.iter().collect();
        lines.sort_by_key(|(_, addresses)| std::cmp::Reverse(addresses.len()));
        let mut are_asked = false;
        for (inode, addresses) in lines {
            let Some(file) = self.files.get_mut(inode) else { continue };
            let key = file.key;
            let Some(code) = file.code() else { continue };
            if let Ok((module, root)) = code.ask(addresses) {
                self.reader.ask_lines(key, module, root, addresses.clone(), room);
                are_asked = true;
            }
        }
        are_asked
    }

    /// Takes what has been read.
    pub(super) fn take_answers(&mut self) {
        self.reader.clear();
        while let Some(answer) = self.reader.answer(Duration::ZERO) {
            self.take(answer);
        }
    }

    /// Waits for the next answer and takes it.
    pub(super) fn wait(&mut self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        if let Some(answer) = self.reader.answer(left) {
            self.take(answer);
        }
    }

    fn take(&mut self, answer: Answer) {
        self.answers += 1;
        match answer {
            Answer::Tables { key, tables } => {
                if let Tables::Read(_, bytes) = &tables {
                    self.make_room(*bytes, u64::MAX);
                }
                if let Some(file) = self.file(key) {
                    file.tables = tables;
                }
            }
            Answer::Lines { key, found } => {
                if self.lines_bytes > LINES_MAX {
                    self.lines_bytes = 0;
                    self.files.values_mut().for_each(File::forget_lines);
                }
                if let Some(code) = self.file(key).and_then(File::code) {
                    let told = code.tell(found);
                    self.lines_bytes += told;
                }
            }
            Answer::NoMoreLines { key, has_lines, kept_bytes } => {
                self.debug_bytes = kept_bytes;
                let code = self.file(key).and_then(File::code);
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

/// What a stack lacks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lack {
    Nothing,
    /// Tables of modules.
    Tables,
    /// Source lines alone.
    Lines,
}

fn taken(image: &Image<'_>, stack: Stack) -> Taken {
    let Image { at, tgid, tid, site, .. } = *image;
    Taken { at, tgid, tid, site, stack }
}

#[cfg(test)]
mod tests;
