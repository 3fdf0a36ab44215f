//! Programs with debug information, sound and spoiled.

use std::path::Path;
use std::process::Command;

use gimli::SectionId;

use super::Debug;
use crate::inspect::address::VirtAddr;
use crate::inspect::debug_file::Lookup;
use crate::scratch::Directory;

/// Compiles a program of `tests/programs`; `None` if there is no such compiler.
fn build(compiler: &str, arguments: &str, source: &str, out: &Path) -> Option<()> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/programs/functions/values");
    let mut command = Command::new(compiler);
    command.args(arguments.split_whitespace()).arg("-o").arg(out).arg(sources.join(source));
    match command.output() {
        Ok(done) => {
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            Some(())
        }
        Err(_) => {
            println!("skipped: needs {compiler}");
            None
        }
    }
}

/// Addresses of functions whose names contain a word.
fn functions(program: &Path, word: &str) -> Vec<(String, VirtAddr)> {
    let out = Command::new("nm").arg(program).output().expect("nm is there");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let mut found = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [address, "t" | "T", name] = words.as_slice()
            && name.contains(word)
        {
            let address = u64::from_str_radix(address, 16).expect("an address");
            found.push(((*name).to_owned(), VirtAddr(address)));
        }
    }
    found
}

fn signature_of(debug: &Debug, program: &Path, name: &str) -> String {
    let all = functions(program, name);
    let (_, address) = all.iter().find(|(found, _)| found == name).expect("it is there");
    let described = debug.describe(*address, *address).expect("it is described");
    assert!(described.line.is_some_and(|line| line > 1), "{name} has a line");
    let file = described.file.clone().expect("it has a file");
    assert!(Path::new(&*file).is_absolute(), "{file}");
    described.signature(None)
}

#[test]
fn signatures_are_written_as_the_language_writes_them() {
    let directory = Directory::new("dwarf-signatures");
    let program = directory.file("program");
    for (compiler, arguments, source, expected) in [
        (
            "gcc",
            "-g -O2",
            "values.c",
            &[
                (
                    "texts",
                    "const char *texts(const char *text, const char *none, const unsigned char *bytes, char letter, colour colour)",
                ),
                ("points", "point points(point p, point *q, wide w)"),
                ("truths", "_Bool truths(int n)"),
            ][..],
        ),
        (
            "rustc",
            "-g -Awarnings",
            "values.rs",
            &[
                (
                    "texts",
                    "texts(text: &str, owned: String, borrowed: &String, list: &[u32], vec: Vec<i64>) -> String",
                ),
                ("divide", "divide(a: u64, b: u64) -> Result<u64, String>"),
            ][..],
        ),
        (
            "go",
            "build",
            "values.go",
            &[
                (
                    "main.orders",
                    "main.orders(o *main.order, p main.point, q *main.point, none *main.order) (int, error)",
                ),
                ("main.failing", "main.failing(e error, v interface {}, n int) error"),
            ][..],
        ),
    ] {
        let Some(()) = build(compiler, arguments, source, &program) else { continue };
        let debug = Debug::open(&program, Lookup::below(Path::new("/"))).expect("it can be read");
        for (name, signature) in expected {
            let found = signature_of(&debug, &program, name);
            let bare = found.replace("values::", "");
            assert_eq!(bare, *signature, "{compiler} {source}");
        }
    }
}

#[test]
fn debug_information_in_another_file_is_found_beside_the_program() {
    let directory = Directory::new("dwarf-aside");
    let program = directory.file("program");
    let Some(()) = build("gcc", "-g -O2 -Wl,--build-id=none", "values.c", &program) else { return };
    let before = signature_of(
        &Debug::open(&program, Lookup::below(Path::new("/"))).expect("it can be read"),
        &program,
        "texts",
    );
    let (_, address) = functions(&program, "texts").remove(0);
    let objcopy = |arguments: &[&str]| {
        let done = Command::new("objcopy").current_dir(directory.path()).args(arguments).status();
        assert!(done.expect("objcopy is there").success(), "{arguments:?}");
    };
    objcopy(&["--only-keep-debug", "program", "program.debug"]);
    objcopy(&["--strip-all", "program"]);
    assert!(
        Debug::open(&program, Lookup::below(Path::new("/"))).expect("it can be read").is_empty()
    );
    objcopy(&["--add-gnu-debuglink=program.debug", "program"]);
    let debug = Debug::open(&program, Lookup::below(Path::new("/"))).expect("it can be read");
    let described = debug.describe(address, address).expect("it is described");
    assert_eq!(described.signature(None), before);
}

#[test]
fn split_debug_information_is_refused() {
    let directory = Directory::new("dwarf-split");
    let program = directory.file("program");
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let arguments = format!("-g -gsplit-dwarf {version}");
        let Some(()) = build("gcc", &arguments, "values.c", &program) else { return };
        let debug = Debug::open(&program, Lookup::below(Path::new("/"))).expect("it can be read");
        for (name, address) in functions(&program, "texts") {
            let error = debug.describe(address, address).expect_err("it is elsewhere");
            assert!(error.to_string().contains(".dwo"), "{name}: {error}");
        }
    }
}

/// A number that looks random and is the same each time (xorshift64).
fn next(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state as usize
}

#[test]
fn spoiled_debug_information_is_read_without_harm() {
    let directory = Directory::new("dwarf-spoiled");
    let program = directory.file("program");
    for (compiler, arguments, source) in [
        ("gcc", "-g -O2", "values.c"),
        ("gcc", "-g -O2 -gdwarf-4", "altered.c"),
        ("g++", "-g -O0", "values.cpp"),
    ] {
        let Some(()) = build(compiler, arguments, source, &program) else { continue };
        let addresses: Vec<VirtAddr> =
            functions(&program, "").into_iter().map(|(_, address)| address).collect();
        let mut state = 0x9e37_79b9_7f4a_7c15;
        let mut described = 0;
        for _ in 0..150 {
            let mut debug =
                Debug::open(&program, Lookup::below(Path::new("/"))).expect("it can be read");
            for (id, bytes) in debug.loaded.sections.bytes_mut() {
                let often = if matches!(*id, SectionId::DebugStr) { 1 } else { 6 };
                for _ in 0..next(&mut state) % often {
                    let at = next(&mut state) % bytes.len().max(1);
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = next(&mut state) as u8;
                    }
                }
                if next(&mut state).is_multiple_of(40) {
                    bytes.truncate(next(&mut state) % bytes.len().max(1));
                }
            }
            for address in &addresses {
                if let Ok(function) = debug.describe(*address, *address) {
                    described += 1;
                    let _ = function.signature(None);
                    let options = crate::function::value::Options::default();
                    let _ = crate::function::value::compile(&function, &options);
                    let _ = crate::function::value::compile_result(&function, &options);
                }
            }
        }
        assert!(described > 0, "nothing was left to describe");
    }
}

/// A table that went on into the next would be read again for each unit that names one of its entries.
#[test]
fn tables_end_where_the_next_one_begins() {
    use super::units::{Tables, table};
    // Three tables: code 1, a compile unit without attributes, the end of the attributes, of the table. The
    // second one lacks its end, which is then where the next one begins.
    let bytes = [1, 0x11, 0, 0, 0, 0, 1, 0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 0];
    let tables = Tables::new(vec![11, 0, 6, 0]);
    assert_eq!([0, 6, 11].map(|at| tables.bytes(at)), [6, 5, usize::MAX]);
    let section = gimli::DebugAbbrev::new(&bytes, gimli::LittleEndian);
    let read = |at, most| table(&section, at, most).is_ok_and(|table| table.get(1).is_some());
    assert_eq!([0, 6, 11].map(|at| read(at, tables.bytes(at))), [true, true, true]);
    // Without the bound it has what is the next one's.
    assert!(table(&section, 6, usize::MAX).is_err(), "two of one number");
    assert!(!read(17, 1) && !read(18, 1) && !read(usize::MAX, 1));
}
