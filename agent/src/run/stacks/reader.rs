//! The threads that read files: one their tables, and one debug information, which may take long.

use std::error::Error;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::TABLES_MAX;
use super::space::{Key, Tables};
use crate::inspect::address::VirtAddr;
use crate::inspect::debug_file::Lookup;
use crate::inspect::dwarf::lines::Lines;
use crate::inspect::elf::Module;
use crate::stack::code::{self, Code, Told};

struct OfTables {
    key: Key,
    name: String,
    module: Module,
    root: PathBuf,
}

struct OfLines {
    key: Key,
    module: Module,
    root: PathBuf,
    addresses: Vec<VirtAddr>,
    /// How many bytes may be used meanwhile.
    room: u64,
}

/// What was found.
pub(super) enum Answer {
    /// The tables of a file.
    Tables { key: Key, tables: Tables },
    /// What debug information says of addresses of a file.
    Lines { key: Key, found: Vec<Told> },
    /// All that is to be told of a file's addresses was told, or that it has no lines; and how many bytes are
    /// kept of debug information.
    NoMoreLines { key: Key, has_lines: bool, kept_bytes: u64 },
}

/// The threads.
pub(super) struct Reader {
    tables: Sender<OfTables>,
    lines: Sender<OfLines>,
    answers: Receiver<Answer>,
    bell: Arc<OwnedFd>,
}

/// Where answers go.
#[derive(Clone)]
struct Tell {
    answers: Sender<Answer>,
    bell: Arc<OwnedFd>,
}

impl Tell {
    /// False: nobody is there any more.
    fn tell(&self, answer: Answer) -> bool {
        let is_told = self.answers.send(answer).is_ok();
        // A counter that is full has been rung.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        is_told
    }
}

/// The threads' ends.
pub(super) struct Ends {
    tables: Receiver<OfTables>,
    lines: Receiver<OfLines>,
    tell: Tell,
}

impl Reader {
    /// Starts them. They end when this is dropped, after the file that each is at.
    pub(super) fn start() -> io::Result<Self> {
        let (reader, Ends { tables, lines, tell }) = Self::connected()?;
        let of_lines = tell.clone();
        spawn("stacks", move || {
            for OfTables { key, name, module, root } in tables {
                let tables = self::tables(&name, module, &root);
                if !tell.tell(Answer::Tables { key, tables }) {
                    return;
                }
            }
        })?;
        spawn("lines", move || {
            let mut debug = Debug::default();
            for OfLines { key, module, root, addresses, room } in lines {
                let tell = &mut |found| {
                    of_lines.tell(Answer::Lines { key, found });
                };
                let has_lines = debug.calls((key, &module, &root), &addresses, room, tell);
                let end = Answer::NoMoreLines { key, has_lines, kept_bytes: debug.bytes() };
                if !of_lines.tell(end) {
                    return;
                }
            }
        })?;
        Ok(reader)
    }

    /// Nobody reads yet.
    pub(super) fn connected() -> io::Result<(Self, Ends)> {
        let (ask_tables, tables) = mpsc::channel();
        let (ask_lines, lines) = mpsc::channel();
        let (tell, answers) = mpsc::channel();
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let tell = Tell { answers: tell, bell: Arc::clone(&bell) };
        let reader = Self { tables: ask_tables, lines: ask_lines, answers, bell };
        Ok((reader, Ends { tables, lines, tell }))
    }

    pub(super) fn ask_tables(&self, key: Key, name: String, module: Module, root: PathBuf) {
        // A thread that has ended says so by answering nothing more.
        let _ = self.tables.send(OfTables { key, name, module, root });
    }

    /// `room`: how many bytes may be used meanwhile.
    pub(super) fn ask_lines(
        &self,
        key: Key,
        module: Module,
        root: PathBuf,
        addresses: Vec<VirtAddr>,
        room: u64,
    ) {
        let _ = self.lines.send(OfLines { key, module, root, addresses, room });
    }

    /// Readable when an answer has come since [`Self::clear`].
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Called before answers are taken, so that none comes unheard.
    pub(super) fn clear(&self) {
        // There was nothing to clear.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }

    /// The next answer; `None` if it takes longer than that.
    pub(super) fn answer(&self, within: Duration) -> Option<Answer> {
        self.answers.recv_timeout(within).ok()
    }
}

#[cfg(test)]
impl Ends {
    /// Reads the tables that are asked for; how many files' that were.
    pub(super) fn read_tables(&self) -> usize {
        let asked = self.tables.try_iter().map(|OfTables { key, name, module, root }| {
            self.tell.tell(Answer::Tables { key, tables: tables(&name, module, &root) })
        });
        asked.count()
    }

    /// Says of the files that are asked about that they have no lines; how many those were.
    pub(super) fn find_no_lines(&self) -> usize {
        let asked = self.lines.try_iter().map(|OfLines { key, .. }| {
            self.tell.tell(Answer::NoMoreLines { key, has_lines: false, kept_bytes: 0 })
        });
        asked.count()
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

fn tables(name: &str, module: Module, root: &Path) -> Tables {
    let bytes = code::bytes(&module);
    if bytes > TABLES_MAX {
        return Tables::None(format!("its tables have {} MiB", bytes >> 20));
    }
    match Code::read(name, module, root) {
        Ok(code) => Tables::Read(Box::new(code), bytes),
        Err(error) => Tables::None(error.to_string()),
    }
}

/// Most bytes of debug information that are kept between two questions.
const KEPT_MAX: u64 = 16 << 20;

/// Files whose debug information is known, the one that was asked last at the end.
#[derive(Default)]
struct Debug {
    files: Vec<(Key, Lines)>,
}

impl Debug {
    fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, lines)| lines.bytes()).sum()
    }

    /// False: there are no lines.
    fn calls(
        &mut self,
        (key, module, root): (Key, &Module, &Path),
        addresses: &[VirtAddr],
        room: u64,
        tell: &mut dyn FnMut(Vec<Told>),
    ) -> bool {
        let known = self.files.iter().position(|(known, _)| *known == key);
        let lines = match known {
            Some(at) => self.files.remove(at).1,
            None => {
                let room = room.saturating_sub(self.bytes());
                match Lines::open(module, Lookup::below(root), room) {
                    Ok(Some(lines)) => lines,
                    Ok(None) => return false,
                    Err(error) => {
                        tracing::debug!(error = &error as &dyn Error, "no source lines");
                        return false;
                    }
                }
            }
        };
        lines.calls(addresses, &mut |calls| {
            tell(calls.into_iter().map(|(address, calls)| (address, calls.into())).collect());
        });
        self.files.push((key, lines));
        while self.bytes() > KEPT_MAX && !self.files.is_empty() {
            self.files.remove(0);
        }
        true
    }
}
