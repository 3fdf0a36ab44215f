//! Whether a program is nginx, or one that was made of it. Says nothing about its version: the kernel
//! half takes nothing of its memory on trust.

use std::path::Path;

use object::{Object, ObjectSymbol};

use super::reads::Reads;
use super::regular;
use super::runtime::READ_MAX;
use crate::discover::process::{self, Facts};

/// How it and those that were made of it are called; more may follow (`nginx-debug`).
const NAMES: [&str; 5] = ["nginx", "openresty", "angie", "freenginx", "tengine"];

/// What it exports to its modules, and nothing else does.
const SYMBOL: &str = "ngx_http_top_body_filter";

/// Whether the program of a process is nginx.
pub fn is_nginx(proc: &Path, facts: &Facts) -> bool {
    let name = facts.exe.file_name().unwrap_or_default().to_string_lossy();
    NAMES.iter().any(|known| name.starts_with(known))
        || exports(&process::directory(proc, facts.tgid).join("exe")).unwrap_or(false)
}

pub(crate) fn exports(executable: &Path) -> Option<bool> {
    let reads = Reads::up_to(READ_MAX, regular::open(executable).ok()??);
    let elf = object::File::parse(&reads).ok()?;
    Some(elf.dynamic_symbols().any(|symbol| symbol.name() == Ok(SYMBOL)))
}
