//! Debug files of programs that are compiled here, beside them and elsewhere.

use std::cell::RefCell;

use super::*;
use crate::inspect::dwarf::Debug;
use crate::inspect::symbols::Index;
use crate::scratch::Directory;

#[test]
fn build_ids_and_links_are_read() {
    assert_eq!(build_id_path(&[0xab, 1, 0xff]).as_deref(), Some(".build-id/ab/01ff.debug"));
    assert_eq!(build_id_path(&[0xab]), None);
    assert_eq!(read_link(b"x.debug\0\x01\x02\x03\x04"), Some(("x.debug".to_owned(), 0x0403_0201)));
    assert_eq!(read_link(b"x.d\0\x01\0\0\0"), Some(("x.d".to_owned(), 1)));
    assert_eq!(read_link(b"../x\0\0\0\0\x01\0\0\0"), None);
    assert_eq!(read_link(b"x.debug"), None);
}

/// A directory with a program `p` that has debug information, made with these flags, and `bare`, which has
/// none.
fn programs(name: &str, flags: &[&str]) -> Option<Directory> {
    let directory = Directory::new(&format!("aside-{name}"));
    let source = "#include <pthread.h>\n#include <stdio.h>\n\
                  __attribute__((noinline)) int asked(FILE *file) { return ftell(file); }\n\
                  int main(void) { return asked(stdin); }\n";
    std::fs::write(directory.file("p.c"), source).expect("a source");
    let mut compile = vec!["-g", "-O1", "-o", "p", "p.c"];
    compile.extend(flags);
    directory.run("cc", &compile)?;
    directory.run("objcopy", &["--only-keep-debug", "p", "p.debug"])?;
    directory.run("objcopy", &["--strip-all", "p", "bare"])?;
    Some(directory)
}

/// Puts a debug file where those of its build are looked for, below `root`.
fn install(directory: &Directory, debug: &str, root: &str) {
    let module = Module::open(&directory.file("p")).expect("a program");
    let path = build_id_path(module.build_id().expect("it was asked for")).expect("long enough");
    let place = directory.file(root).join(DIRECTORY).join(path);
    std::fs::create_dir_all(place.parent().expect("a directory")).expect("a directory");
    std::fs::copy(directory.file(debug), place).expect("a copy");
}

/// Whether the symbol of `asked` and its parameter's type are known.
fn known(program: &Path, lookup: Lookup<'_>) -> (bool, bool) {
    let module = Module::open(program).expect("a program");
    let index = Index::read(&module, lookup).expect("it is readable");
    let symbols = !index.functions(|name| name == "asked").is_empty();
    let debug = Debug::open(program, lookup).expect("it is readable");
    // By the whole program, whose code is the same.
    let whole = Module::open(&program.with_file_name("p")).expect("a program");
    let whole = Index::read(&whole, lookup).expect("it is readable");
    let functions = whole.functions(|name| name == "asked");
    let asked = functions.first().expect("it is there").address;
    let described = debug.describe(asked, asked).ok();
    let types = described.map(|described| format!("{:?}", described.types));
    (symbols, types.is_some_and(|types| types.contains("FILE")))
}

const BOTH: (bool, bool) = (true, true);
const NEITHER: (bool, bool) = (false, false);

#[test]
fn what_is_below_the_processs_root_is_found_by_its_build() {
    let Some(directory) = programs("root", &["-Wl,--build-id"]) else { return };
    let (bare, root) = (directory.file("bare"), directory.file("root"));
    assert_eq!(known(&bare, Lookup::below(&root)), NEITHER);
    install(&directory, "p.debug", "root");
    assert_eq!(known(&bare, Lookup::below(&root)), BOTH);
    // It belongs to whoever has that root.
    assert_eq!(known(&bare, Lookup::below(&directory.file("other"))), NEITHER);
    // One of another build in its place is none.
    directory.run("cc", &["-g", "-O0", "-Wl,--build-id", "-o", "q", "p.c"]);
    install(&directory, "q", "root");
    assert_eq!(known(&bare, Lookup::below(&root)), NEITHER);
    // Symbols may have stayed where debug information did not.
    directory.run("objcopy", &["--strip-debug", "p", "names"]);
    assert_eq!(known(&directory.file("names"), Lookup::below(&root)), (true, false));
    install(&directory, "p.debug", "root");
    assert_eq!(known(&directory.file("names"), Lookup::below(&root)), BOTH);
}

#[test]
fn without_builds_the_links_checksum_decides() {
    let Some(directory) = programs("link", &["-Wl,--build-id=none"]) else { return };
    directory.run("objcopy", &["--add-gnu-debuglink=p.debug", "bare", "linked"]);
    let linked = directory.file("linked");
    let lookup = Lookup::below(Path::new("/"));
    assert_eq!(known(&linked, lookup), BOTH);
    let debug = directory.file("p.debug");
    let bytes = std::fs::read(&debug).expect("it is there");
    // In a directory of its own.
    std::fs::create_dir(directory.file(".debug")).expect("a directory");
    std::fs::rename(&debug, directory.file(".debug/p.debug")).expect("it was there");
    assert_eq!(known(&linked, lookup), BOTH);
    // Of another state of the program.
    std::fs::write(directory.file(".debug/p.debug"), [&bytes[..], b"x"].concat()).expect("ours");
    assert_eq!(known(&linked, lookup), NEITHER);
    // Below the directory for debug files of the process's root.
    let root = directory.file("root");
    let inner = directory.path().strip_prefix("/").expect("it is absolute");
    let place = root.join(DIRECTORY).join(inner);
    std::fs::create_dir_all(&place).expect("a directory");
    std::fs::write(place.join("p.debug"), &bytes).expect("ours");
    assert_eq!(known(&linked, Lookup::below(&root)), BOTH);
}

#[test]
fn what_dwz_has_shared_is_found_below_the_root() {
    let Some(directory) = programs("dwz", &["-Wl,--build-id"]) else { return };
    std::fs::copy(directory.file("p.debug"), directory.file("q.debug")).expect("a copy");
    std::fs::create_dir_all(directory.file("root/shared")).expect("a directory");
    let args = ["-m", "root/shared/s.debug", "-M", "/shared/s.debug", "p.debug", "q.debug"];
    if directory.run("dwz", &args).is_none() {
        return;
    }
    install(&directory, "p.debug", "root");
    let (bare, root) = (directory.file("bare"), directory.file("root"));
    assert_eq!(known(&bare, Lookup::below(&root)), BOTH);
    // The types are in what is shared.
    std::fs::remove_file(root.join("shared/s.debug")).expect("there was something to share");
    assert_eq!(known(&bare, Lookup::below(&root)), (true, false));
}

/// Says which builds it was asked for.
#[derive(Debug, Default)]
struct Asked {
    has: Option<PathBuf>,
    builds: RefCell<Vec<Vec<u8>>>,
}

impl Server for Asked {
    fn fetch(&self, build_id: &[u8]) -> Option<PathBuf> {
        self.builds.borrow_mut().push(build_id.to_owned());
        self.has.clone()
    }
}

#[test]
fn a_server_is_asked_for_what_is_nowhere_here() {
    let Some(directory) = programs("server", &["-Wl,--build-id"]) else { return };
    let (bare, root) = (directory.file("bare"), directory.file("root"));
    let has = |file: &str| Asked { has: Some(directory.file(file)), ..Asked::default() };
    let right = has("p.debug");
    assert_eq!(known(&bare, Lookup { root: &root, server: Some(&right) }), BOTH);
    assert!(right.builds.borrow().iter().all(|id| id.len() == 20));
    directory.run("cc", &["-g", "-O0", "-Wl,--build-id", "-o", "q", "p.c"]);
    for wrong in [has("q"), has("p.c"), has("missing"), Asked::default()] {
        assert_eq!(known(&bare, Lookup { root: &root, server: Some(&wrong) }), NEITHER);
        assert!(!wrong.builds.borrow().is_empty());
    }
    install(&directory, "p.debug", "root");
    let idle = has("q");
    assert_eq!(known(&bare, Lookup { root: &root, server: Some(&idle) }), BOTH);
    assert!(idle.builds.borrow().is_empty(), "nobody is told what need not be asked");
}
