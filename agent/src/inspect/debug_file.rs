//! Separate files with the symbols and the DWARF of a stripped module.
//!
//! By its build id below `/usr/lib/debug/.build-id`, else by the name in `.gnu_debuglink`, beside the
//! module, in `.debug` beside it, or below `/usr/lib/debug` (GDB manual, "Debugging Information in
//! Separate Files"). Paths are those of the process: they are looked up below its root first.

use std::fmt;
use std::path::{Path, PathBuf};

use super::elf::Module;
use super::regular;

/// A debug file that belongs to a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugFile {
    /// The file.
    pub path: PathBuf,
}

/// Where debug files are looked for.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'a> {
    /// What absolute paths are meant below: `/`, or `/proc/PID/root`.
    pub root: &'a Path,
    /// Who is asked for what is not on this host.
    pub server: Option<&'a dyn Server>,
}

impl<'a> Lookup<'a> {
    /// On this host alone.
    pub fn below(root: &'a Path) -> Self {
        Self { root, server: None }
    }
}

/// Has debug files of programs that are known by their build id.
pub trait Server: fmt::Debug {
    /// Fetches the debug file of a build; where it is then. May take its time.
    fn fetch(&self, build_id: &[u8]) -> Option<PathBuf>;
}

/// Where debug files are kept.
const DIRECTORY: &str = "usr/lib/debug";

/// Finds and opens the debug file of a module, if there is one that is its own.
pub(super) fn find(module: &Module, lookup: Lookup<'_>) -> Option<(DebugFile, Module)> {
    let mut roots = vec![lookup.root];
    if lookup.root != Path::new("/") {
        roots.push(Path::new("/"));
    }
    let by_id = || module.build_id().and_then(|id| by_build_id(id, &roots));
    let own = by_id().filter(|debug| !debug.is_same_file(module));
    let debug = own.or_else(|| by_link(module, &roots)).or_else(|| {
        let id = module.build_id()?;
        of_build(&lookup.server?.fetch(id)?, id)
    })?;
    Some((DebugFile { path: debug.path().to_owned() }, debug))
}

/// The file of a build below the roots' directories for such files.
fn by_build_id(id: &[u8], roots: &[&Path]) -> Option<Module> {
    let path = build_id_path(id)?;
    roots.iter().find_map(|root| of_build(&root.join(DIRECTORY).join(&path), id))
}

/// The file that `.gnu_debugaltlink` of a debug file names, for what `dwz` has shared between several.
pub(super) fn supplement(
    debug: &Path,
    name: &Path,
    id: &[u8],
    lookup: Lookup<'_>,
) -> Option<PathBuf> {
    let beside = match name.strip_prefix("/") {
        Ok(inner) => lookup.root.join(inner),
        Err(_) => debug.parent()?.join(name),
    };
    let found = of_build(&beside, id)
        .or_else(|| by_build_id(id, &[lookup.root]))
        .or_else(|| by_build_id(id, &[Path::new("/")]))?;
    Some(found.path().to_owned())
}

fn of_build(path: &Path, id: &[u8]) -> Option<Module> {
    Module::open(path).ok().filter(|module| module.build_id() == Some(id))
}

fn build_id_path(id: &[u8]) -> Option<String> {
    let (first, rest) = id.split_first().filter(|(_, rest)| !rest.is_empty())?;
    let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!(".build-id/{first:02x}/{rest}.debug"))
}

fn by_link(module: &Module, roots: &[&Path]) -> Option<Module> {
    let section = module.section(".gnu_debuglink")?;
    let (name, crc) = read_link(&module.section_bytes(section).ok()?)?;
    // As the process names it: a deleted or namespaced file is opened through /proc.
    let directory = module.own_path().parent()?;
    let below = |root: &Path, path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    roots.iter().find_map(|root| {
        // A path that is below the root already names the directory within it.
        let inner = directory.strip_prefix(root).unwrap_or(directory);
        let inner = inner.strip_prefix("/").unwrap_or(inner);
        let places = [
            below(root, inner).join(&name),
            below(root, inner).join(".debug").join(&name),
            root.join(DIRECTORY).join(inner).join(&name),
        ];
        places.iter().find_map(|place| {
            let debug = open(place, module)?;
            let same_build = match (module.build_id(), debug.build_id()) {
                (Some(a), Some(b)) => a == b,
                _ => file_crc(place) == Some(crc),
            };
            same_build.then_some(debug)
        })
    })
}

/// The name, padded to four bytes, and the checksum of the file.
fn read_link(data: &[u8]) -> Option<(String, u32)> {
    let end = memchr::memchr(0, data)?;
    let name = std::str::from_utf8(data.get(..end)?).ok()?;
    // A name, not a path: whoever wrote the file is not to choose what is opened.
    if name.is_empty() || name.contains('/') || name == ".." {
        return None;
    }
    let crc = data.get((end + 1).next_multiple_of(4)..)?.first_chunk()?;
    Some((name.to_owned(), u32::from_le_bytes(*crc)))
}

/// Not the module itself, which a link that names it would find.
fn open(path: &Path, module: &Module) -> Option<Module> {
    let debug = Module::open(path).ok()?;
    (!debug.is_same_file(module)).then_some(debug)
}

/// Most bytes of a file of which the checksum is computed: one with holes is as long as somebody likes.
const CRC_BYTES_MAX: u64 = 2 << 30;

/// The checksum of a whole file (CRC-32 as in zlib), read in pieces.
fn file_crc(path: &Path) -> Option<u32> {
    use std::io::Read;
    let file = regular::open(path).ok()??;
    if file.metadata().ok()?.len() > CRC_BYTES_MAX {
        return None;
    }
    let mut file = file.take(CRC_BYTES_MAX);
    let mut crc = u32::MAX;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = file.read(&mut buffer).ok()?;
        if count == 0 {
            return Some(!crc);
        }
        for byte in buffer.get(..count)? {
            let at = usize::from(crc.to_le_bytes()[0] ^ byte);
            crc = CRC_TABLE.get(at)? ^ (crc >> 8);
        }
    }
}

/// One byte at a time, reflected, polynomial 0xedb88320.
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut number = 0;
    while number < 256 {
        let mut value = number as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
            bit += 1;
        }
        table[number] = value;
        number += 1;
    }
    table
};

#[cfg(test)]
mod tests;
