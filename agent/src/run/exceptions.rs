//! Where the runtimes in the modules of traced processes raise exceptions: which modules are looked at, and
//! what is probed there. That there is nothing to probe, or that it cannot be probed, is no failure.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::functions::{FileId, Mapped};
use crate::discover::maps;
use crate::event::ids::Tgid;
use crate::event::{self, Hit};
use crate::function::FunctionNo;
use crate::function::exception::{self, Constants, Decode, EVENT, Hook};
use crate::function::facts::{FunctionFacts, Role, SiteFacts};
use crate::inspect::address::{FileOffset, VirtAddr};
use crate::inspect::elf::Module;
use crate::inspect::runtime::Goroutines;
use crate::probe::function::{Point, TaskSource};

/// How the names of libraries begin that may have a hook; any executable may.
const LIBRARIES: [&str; 7] =
    ["libstdc++", "libc++", "libpython", "libruby", "libphp", "libnode", "libjvm"];

/// Whether a module may have a hook.
pub(super) fn concern(module: &Mapped) -> bool {
    module.is_executable || LIBRARIES.iter().any(|library| module.name.starts_with(library))
}

/// The probe of a hook.
pub(super) fn point(number: u32, hook: &Hook, goroutines: Option<Goroutines>) -> Point {
    let task = match goroutines.filter(|_| hook.in_goroutine) {
        Some(at) => TaskSource::Goroutine { id_offset: at.goid_offset },
        None => TaskSource::Thread,
    };
    let mut ops = hook.ops.clone();
    if let (Decode::GoRecovery, Some(at)) = (hook.decode, goroutines) {
        exception::goroutine(&mut ops, at.goid_offset);
    }
    Point { site: hook.site, ops, function: FunctionNo(number), semaphore: hook.semaphore, task }
}

/// What its hits mean.
pub(super) fn facts(number: u32, hook: &Hook, site: u32, module: &str) -> FunctionFacts {
    FunctionFacts {
        number,
        name: hook.name.clone(),
        module: module.to_owned(),
        source: None,
        role: Role::Event {
            name: EVENT.to_owned(),
            decode: Some(hook.decode),
            catchers: hook.catchers.clone(),
        },
        sites: vec![SiteFacts { number: site, kind: hook.site.kind, into: None, reader: None }],
    }
}

/// A hook of which a hit may lack names of types, because its program has never touched them.
pub(super) struct Cold {
    decode: Decode,
    /// Where its probe is.
    address: VirtAddr,
    offset: FileOffset,
    module: Arc<Module>,
    id: FileId,
}

impl Cold {
    /// Of a hook in a file.
    pub(super) fn of(hook: &Hook, module: &Arc<Module>, id: FileId) -> Option<Self> {
        let Hook { decode, site, .. } = hook;
        decode.reads_constants().then(|| Self {
            decode: *decode,
            address: site.address,
            offset: site.offset,
            module: Arc::clone(module),
            id,
        })
    }

    /// The hit's record with the names that it lacks, if it lacks some and they can be read.
    pub(super) fn complete(&self, record: &[u8], hit: &Hit<'_>) -> Option<Vec<u8>> {
        let here = exception::here(hit.chunks)?;
        let mut memory = Memory { cold: self, tgid: hit.tgid, here, file: None };
        let more = exception::complete(self.decode, hit.chunks, &mut memory)?;
        event::with_chunks(record, &more)
    }
}

/// Where constants are read: in the file of the hook, or in the memory of the process that has hit it.
struct Memory<'a> {
    cold: &'a Cold,
    tgid: Tgid,
    here: u64,
    /// Opened when it is asked for; `Some(None)`: it cannot be, or is another program's by now.
    file: Option<Option<File>>,
}

impl Memory<'_> {
    /// The process's memory, if the hook's file is still where the hit was: then its constants are, too.
    fn open(&self) -> Option<File> {
        let proc = Path::new("/proc");
        let memory = File::open(proc.join(format!("{}/mem", self.tgid.0))).ok()?;
        let mappings = maps::of(proc, self.tgid);
        let is_it = mappings.iter().any(|mapping| {
            mapping.offset_of(self.here) == Some(self.cold.offset.0)
                && FileId::of(&mapping.file(proc, self.tgid)) == Some(self.cold.id)
        });
        is_it.then_some(memory)
    }
}

impl Constants for Memory<'_> {
    fn of_module(&mut self, distance: i64, bytes: &mut [u8]) -> bool {
        let Cold { address, module, .. } = self.cold;
        let Some(address) = address.0.checked_add_signed(distance) else { return false };
        match module.read(VirtAddr(address), bytes.len()) {
            Ok(read) if read.len() == bytes.len() => {
                bytes.copy_from_slice(&read);
                true
            }
            _ => false,
        }
    }

    fn of_process(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        if self.file.is_none() {
            self.file = Some(self.open());
        }
        let file = self.file.as_ref().and_then(Option::as_ref);
        file.is_some_and(|file| file.read_exact_at(bytes, address).is_ok())
    }
}
