//! Programs under test that are compiled by the test that needs them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Scratch;
use crate::program::scripts;

/// Compiles a source of `tests/programs/functions`, whose ending says how, into `scratch`. Says which
/// compiler is missing if one is.
///
/// # Panics
/// If it does not compile.
pub fn compile(scratch: &Scratch, source: &str, flags: &[&str]) -> Option<PathBuf> {
    let source = scripts().join("functions").join(source);
    let out = scratch.file(&source.file_stem().expect("a file's name").to_string_lossy());
    compile_file(&source, &out, flags).then_some(out)
}

/// As [`compile`], of any file to any place; whether the compiler is there.
///
/// # Panics
/// If it does not compile.
pub fn compile_file(source: &Path, out: &Path, flags: &[&str]) -> bool {
    let mut compiler = match source.extension().and_then(|ending| ending.to_str()) {
        Some("c" | "S") => Command::new("cc"),
        Some("cpp") => Command::new("c++"),
        Some("rs") => {
            let mut rustc = Command::new("rustc");
            rustc.args(["--edition", "2024"]);
            rustc
        }
        Some("go") => {
            let own = Path::new("/usr/local/go/bin/go");
            let mut go = Command::new(if own.is_file() { own } else { Path::new("go") });
            go.args(["build", "-trimpath"]);
            go
        }
        _ => panic!("no compiler for {}", source.display()),
    };
    compiler.args(["-o".as_ref(), out.as_os_str()]);
    // Libraries come behind what needs them.
    let (libraries, flags): (Vec<&str>, Vec<&str>) =
        flags.iter().partition(|flag| flag.starts_with("-l") && !flag.contains('='));
    compiler.args(flags).arg(source).args(libraries);
    let output = match compiler.output() {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: needs {}: {error}", compiler.get_program().to_string_lossy());
            return false;
        }
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{compiler:?}: {said}");
    true
}

/// Compiles a source of Java's in `tests/programs/functions` for any JDK from 11 on; where its classes are.
///
/// # Panics
/// If it does not compile.
pub fn compile_java(scratch: &Scratch, source: &str) -> Option<PathBuf> {
    let classes = scratch.file("classes");
    let mut compiler = Command::new("javac");
    // What it says of the version is no matter.
    compiler.args(["--release", "11", "-nowarn", "-encoding", "UTF-8", "-d"]).arg(&classes);
    compiler.arg(scripts().join("functions").join(source));
    let output = match compiler.output() {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: needs javac: {error}");
            return None;
        }
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{compiler:?}: {said}");
    Some(classes)
}
