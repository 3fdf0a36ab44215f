//! What is foretold is what a loader does.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::scratch::Directory;

fn compile(folder: &Directory, source: &str, args: &[&str]) -> bool {
    std::fs::write(folder.file("source.c"), source).expect("a source");
    folder.run("gcc", args).is_some()
}

fn files(paths: &[PathBuf]) -> Vec<PathBuf> {
    let resolved = paths.iter().map(|path| path.canonicalize().expect("it was found"));
    let mut files: Vec<PathBuf> = resolved.collect();
    files.sort();
    files
}

/// What the loader says that it would map.
fn listed(program: &Path, library_path: &str) -> Vec<PathBuf> {
    let mut command = Command::new(program);
    command.env("LD_TRACE_LOADED_OBJECTS", "1").env("LD_LIBRARY_PATH", library_path);
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // `name => path (address)`
    let paths = text.lines().filter_map(|line| line.split_once("=> ")?.1.split_once(" (0x"));
    files(&paths.map(|(path, _)| PathBuf::from(path)).collect::<Vec<_>>())
}

#[test]
fn programs_of_this_host_map_what_is_foretold() {
    let mut looked_at = 0;
    for program in ["/usr/bin/python3", "/usr/bin/env", "/usr/bin/gdb", "/usr/sbin/nginx"] {
        let Ok(program) = Path::new(program).canonicalize() else { continue };
        let root = Path::new("/");
        let found = of(Program { file: &program, path: &program, root, library_path: "" });
        // The loader itself is asked for by the C library's files; it is there before.
        let mut found = files(&found);
        found.retain(|path| !path.to_string_lossy().contains("/ld-linux"));
        assert_eq!(found, listed(&program, ""), "{}", program.display());
        looked_at += 1;
    }
    assert!(looked_at > 0);
}

#[test]
fn places_that_files_name_are_looked_through() {
    let folder = Directory::new("needed-places");
    let inner = folder.file("inner");
    std::fs::create_dir_all(&inner).expect("a directory");
    let library = ["-shared", "-fPIC", "-o", "inner/libdeep.so", "source.c"];
    if !compile(&folder, "int deep(void) { return 7; }", &library) {
        return;
    }
    let flags = ["-Linner", "-ldeep"];
    let shallow = ["-shared", "-fPIC", "-o", "inner/libshallow.so", "source.c"];
    // It says itself where the other one is.
    let origin = ["-Wl,--enable-new-dtags,-rpath,$ORIGIN"];
    let source = "int deep(void); int shallow(void) { return deep(); }";
    compile(&folder, source, &[&shallow[..], &flags, &origin].concat());
    let program =
        ["-o", "program", "source.c", "-Linner", "-lshallow", "-Wl,--allow-shlib-undefined"];
    let source = "int shallow(void); int main(void) { return shallow(); }";
    let runpath = ["-Wl,--enable-new-dtags,-rpath,$ORIGIN/inner"];
    let rpath = ["-Wl,--disable-new-dtags,-rpath,$ORIGIN/inner"];
    let path = folder.file("program");
    let expected = files(&[inner.join("libdeep.so"), inner.join("libshallow.so")]);
    for (place, library_path) in
        [(&runpath[..], ""), (&rpath, ""), (&[], inner.to_str().expect("text"))]
    {
        compile(&folder, source, &[&program[..], place].concat());
        let root = Path::new("/");
        let mut found = files(&of(Program { file: &path, path: &path, root, library_path }));
        found.retain(|path| path.starts_with(folder.path().canonicalize().expect("it is there")));
        assert_eq!(found, expected, "{place:?} {library_path:?}");
        let listed = listed(&path, library_path);
        assert!(expected.iter().all(|file| listed.contains(file)), "{listed:?}");
    }
}

#[test]
fn what_is_no_program_needs_nothing() {
    for path in ["/etc/passwd", "/nonexistent", "/dev/null", "/"] {
        let path = Path::new(path);
        let program = Program { file: path, path, root: Path::new("/"), library_path: "" };
        assert!(of(program).is_empty(), "{program:?}");
    }
}
