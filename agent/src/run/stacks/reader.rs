//! The threads that read files: one their tables, and one debug information, which may take long.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use super::{TABLES_MAX, Tables};
use crate::discover::maps::Inode;
use crate::inspect::address::VirtAddr;
use crate::inspect::debug_file::Lookup;
use crate::inspect::dwarf::lines::Lines;
use crate::inspect::elf::Module;
use crate::stack::code::{self, Code, Told};

struct OfTables {
    key: Inode,
    name: String,
    module: Module,
    root: PathBuf,
}

struct OfLines {
    key: Inode,
    module: Module,
    root: PathBuf,
    addresses: Vec<VirtAddr>,
    /// How many bytes may be used meanwhile.
    room: u64,
}

/// What was found.
pub(super) enum Answer {
    /// The tables of a file.
    Tables { key: Inode, tables: Tables },
    /// What debug information says of addresses of a file.
    Lines { key: Inode, found: Vec<Told> },
    /// All that is to be told of a file's addresses was told, or that it has no lines; and how many bytes are
    /// kept of debug information.
    NoMoreLines { key: Inode, has_lines: bool, kept_bytes: u64 },
}

/// The threads.
pub(super) struct Reader {
    tables: Sender<OfTables>,
    lines: Sender<OfLines>,
    answers: Receiver<Answer>,
}

impl Reader {
    /// Starts them. They end when this is dropped, after the file that each is at.
    pub(super) fn start() -> io::Result<Self> {
        let (tables, asked) = mpsc::channel::<OfTables>();
        let (answer, answers) = mpsc::channel();
        let tell = answer.clone();
        spawn("stacks", move || {
            for OfTables { key, name, module, root } in asked {
                let tables = self::tables(&name, module, &root);
                if tell.send(Answer::Tables { key, tables }).is_err() {
                    return;
                }
            }
        })?;
        let (lines, asked) = mpsc::channel();
        spawn("lines", move || {
            let mut debug = Debug::default();
            for OfLines { key, module, root, addresses, room } in asked {
                let tell = &mut |found| {
                    // Nobody is there any more: said below.
                    let _ = answer.send(Answer::Lines { key, found });
                };
                let has_lines = debug.calls((key, &module, &root), &addresses, room, tell);
                let end = Answer::NoMoreLines { key, has_lines, kept_bytes: debug.bytes() };
                if answer.send(end).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { tables, lines, answers })
    }

    pub(super) fn ask_tables(&self, key: Inode, name: String, module: Module, root: PathBuf) {
        // A thread that has ended says so by answering nothing more.
        let _ = self.tables.send(OfTables { key, name, module, root });
    }

    /// `room`: how many bytes may be used meanwhile.
    pub(super) fn ask_lines(
        &self,
        key: Inode,
        module: Module,
        root: PathBuf,
        addresses: Vec<VirtAddr>,
        room: u64,
    ) {
        let _ = self.lines.send(OfLines { key, module, root, addresses, room });
    }

    /// The next answer; `None` if it takes longer than that.
    pub(super) fn answer(&self, within: Duration) -> Option<Answer> {
        self.answers.recv_timeout(within).ok()
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
    files: Vec<(Inode, Lines)>,
}

impl Debug {
    fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, lines)| lines.bytes()).sum()
    }

    /// False: there are no lines.
    fn calls(
        &mut self,
        (key, module, root): (Inode, &Module, &Path),
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
