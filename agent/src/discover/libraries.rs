//! Which libraries a program will map, before its loader has mapped them: what ld.so(8) says, read from
//! the files alone. What the loader does in the end it alone knows (preloaded libraries, audits, another
//! loader); whoever asks here must be right also if a library is missing, or never comes.

mod cache;

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};

use crate::inspect::elf::Module;
use crate::inspect::needed::Needed;

/// Most libraries of one program.
const LIBRARIES_MAX: usize = 1024;

/// Most directories that those that have asked for a library hand on to it, and most that the environment
/// names.
const INHERITED_MAX: usize = 64;
const LIBRARY_PATH_MAX: usize = 64;

/// Where every loader looks at last: those of glibc's of several distributions, and of musl's.
const DIRECTORIES: [&str; 7] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
    "/usr/local/lib",
];

/// Programs that do nothing but open a library, by the end of their paths.
const LAUNCHED: [(&str, &str); 1] = [("bin/java", "$ORIGIN/../lib/server/libjvm.so")];

/// A program that is about to run, or has just begun to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program<'a> {
    /// Its file: anything that can be opened.
    pub(crate) file: &'a Path,
    /// How it calls its file itself.
    pub(crate) path: &'a Path,
    /// What its paths are meant below: `/`, or `/proc/PID/root`.
    pub(crate) root: &'a Path,
    /// Its `LD_LIBRARY_PATH`.
    pub(crate) library_path: &'a str,
}

/// A file that asks for libraries.
struct Asking {
    needed: Needed,
    /// The directory that it lies in.
    origin: PathBuf,
    /// What those that have asked for it look through first.
    inherited: Vec<String>,
}

impl Asking {
    /// The directories that are looked through for what it needs, before those of all.
    fn directories<'a>(&'a self, library_path: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
        let rpath = self.needed.rpath.iter();
        let rpath = rpath.chain(self.inherited.iter().filter(|_| self.needed.runpath.is_empty()));
        let from_outside = library_path.split([':', ';']).filter(|path| !path.is_empty());
        let from_outside = from_outside.take(LIBRARY_PATH_MAX);
        let all = rpath.map(String::as_str).chain(from_outside);
        let all = all.chain(self.needed.runpath.iter().map(String::as_str));
        all.map(|path| self.expand(path))
    }

    /// A path with what the loader puts in the place of its variables.
    fn expand(&self, path: &str) -> PathBuf {
        let origin = self.origin.to_string_lossy();
        let path = path.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin);
        PathBuf::from(path.replace("${LIB}", "lib64").replace("$LIB", "lib64"))
    }

    /// What it hands on to what it needs.
    fn handed_on(&self) -> Vec<String> {
        self.needed.rpath.iter().chain(&self.inherited).take(INHERITED_MAX).cloned().collect()
    }
}

/// The files of the libraries that a program needs, and of those that these need, as it calls them.
pub(crate) fn of(program: Program<'_>) -> Vec<PathBuf> {
    let Program { file, path, root, library_path } = program;
    let Ok(module) = Module::open(file) else { return Vec::new() };
    let mut needed = Needed::by(&module);
    if needed.libraries.is_empty() {
        return Vec::new();
    }
    let launched = LAUNCHED.iter().filter(|(launcher, _)| path.ends_with(launcher));
    needed.libraries.extend(launched.map(|(_, library)| (*library).to_owned()));
    let cache = cache::read(root);
    let origin = path.parent().unwrap_or(Path::new("/")).to_owned();
    // One after the other, as loaders do: a name is looked for where the first that needs it says.
    let mut waiting = VecDeque::from([Asking { needed, origin, inherited: Vec::new() }]);
    let (mut known, mut found) = (HashSet::new(), Vec::new());
    while let Some(asking) = waiting.pop_front() {
        for name in &asking.needed.libraries {
            if known.len() >= LIBRARIES_MAX || !known.insert(name.clone()) {
                continue;
            }
            let Some((library, module)) = find(name, &asking, root, library_path, &cache) else {
                continue;
            };
            let origin = library.parent().unwrap_or(Path::new("/")).to_owned();
            let inherited = asking.handed_on();
            waiting.push_back(Asking { needed: Needed::by(&module), origin, inherited });
            found.push(library);
        }
    }
    found
}

/// The first file of this name that is for this processor, as the program calls it.
fn find(
    name: &str,
    asking: &Asking,
    root: &Path,
    library_path: &str,
    cache: &cache::Cache,
) -> Option<(PathBuf, Module)> {
    if name.contains('/') {
        let path = asking.expand(name);
        return Some((path.clone(), Module::open(&below(root, &path)).ok()?));
    }
    let named = asking.directories(library_path).map(|directory| directory.join(name));
    let listed = cache.paths(name).map(PathBuf::from);
    let at_last = DIRECTORIES.iter().map(|directory| Path::new(directory).join(name));
    named.chain(listed).chain(at_last).find_map(|path| {
        let module = Module::open(&below(root, &path)).ok()?;
        Some((path, module))
    })
}

/// Most bytes that are kept of a cache.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use cache::KEPT_MAX;

/// How many bytes are kept of a cache that has these.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(cache: &[u8]) -> usize {
    cache::parse(cache).kept()
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests;
