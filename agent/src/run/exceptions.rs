//! Where the runtimes in the modules of traced processes raise exceptions: which modules are looked at, and
//! what is probed there. That there is nothing to probe, or that it cannot be probed, is no failure.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::functions::{FileId, Mapped};
use crate::discover::maps;
use crate::event::ids::Tgid;
use crate::function::FunctionNo;
use crate::function::exception::{self, Decode, EVENT, Hook};
use crate::function::facts::{FunctionFacts, Role, SiteFacts};
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

/// Most bytes that are touched of a file.
const TOUCHED_MAX: u64 = 8 << 20;

const PAGE_BYTES: u64 = 4096;

/// Has the kernel map what hooks read of a file and the process may never have touched. Its memory is read
/// for that, and nothing is changed: the pages are those of the file.
pub(super) fn touch(tgid: Tgid, module: &Mapped, hooks: &[Hook]) {
    let untouched = || hooks.iter().filter_map(|hook| hook.untouched);
    if untouched().next().is_none() {
        return;
    }
    let proc = Path::new("/proc");
    let Ok(memory) = File::open(proc.join(format!("{}/mem", tgid.0))) else { return };
    let mappings = maps::of(proc, tgid);
    for untouched in untouched() {
        let from = untouched.offset.0;
        let wanted = from..from.saturating_add(untouched.bytes.min(TOUCHED_MAX));
        for mapping in &mappings {
            let Some(addresses) = mapping.addresses_of(&wanted) else { continue };
            if FileId::of(&mapping.file(proc, tgid)) != Some(module.id) {
                continue;
            }
            for page in addresses.step_by(PAGE_BYTES as usize) {
                // What cannot be read now is not read by the hook either.
                let _ = memory.read_at(&mut [0], page);
            }
        }
    }
}
