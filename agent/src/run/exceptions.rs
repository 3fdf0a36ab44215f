//! Where the runtimes in the modules of traced processes raise exceptions: which modules are looked at, and
//! what is probed there. That there is nothing to probe, or that it cannot be probed, is no failure.

use super::functions::Mapped;
use crate::function::FunctionNo;
use crate::function::exception::{self, EVENT, Hook, Hooks};
use crate::function::facts::{FunctionFacts, Role, SiteFacts};
use crate::function::plan::{Place, PlanError};
use crate::inspect::elf::Module;
use crate::inspect::runtime::Goroutines;
use crate::inspect::symbols::Index;
use crate::probe::function::{Point, TaskSource};

/// How the names of libraries begin that may have a hook; any executable may.
const LIBRARIES: [&str; 7] =
    ["libstdc++", "libc++", "libpython", "libruby", "libphp", "libnode", "libjvm"];

/// Whether a module may have a hook.
pub(super) fn concern(module: &Mapped) -> bool {
    module.is_executable || LIBRARIES.iter().any(|library| module.name.starts_with(library))
}

/// The hooks of a module, as far as it can be read. Says which cannot be probed.
pub(super) fn hooks(place: &Place<'_>) -> Vec<Hook> {
    let module = place.name;
    let Hooks { hooks, refused } = match look(place) {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!(module, %error, "no look for exceptions");
            return Vec::new();
        }
    };
    for (function, reason) in refused {
        tracing::warn!(module, %function, %reason, "exceptions are not seen here");
    }
    hooks
}

fn look(place: &Place<'_>) -> Result<Hooks, PlanError> {
    let module = Module::open(place.file)?;
    let index = Index::read(&module, place.root)?;
    Ok(exception::hooks(&module, &index))
}

/// The probe of a hook.
pub(super) fn point(number: u32, hook: &Hook, goroutines: Option<Goroutines>) -> Point {
    let task = match goroutines.filter(|_| hook.in_goroutine) {
        Some(at) => TaskSource::Goroutine { id_offset: at.goid_offset },
        None => TaskSource::Thread,
    };
    Point {
        site: hook.site,
        ops: hook.ops.clone(),
        function: FunctionNo(number),
        semaphore: hook.semaphore,
        task,
    }
}

/// What its hits mean.
pub(super) fn facts(number: u32, hook: &Hook, site: u32, module: &str) -> FunctionFacts {
    FunctionFacts {
        number,
        name: hook.name.clone(),
        module: module.to_owned(),
        source: None,
        role: Role::Event { name: EVENT.to_owned(), decode: Some(hook.decode) },
        sites: vec![SiteFacts { number: site, kind: hook.site.kind, into: None, reader: None }],
    }
}
