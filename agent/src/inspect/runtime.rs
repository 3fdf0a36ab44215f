//! Which language runtime a process runs, by its executable and its name.

use std::path::Path;

use object::{Object, ObjectSection, ReadCache, ReadRef};

use crate::discover::process::Facts;

/// A language runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// `process.runtime.name`.
    pub name: &'static str,
    /// `process.runtime.version`; empty if unknown.
    pub version: String,
    /// `telemetry.sdk.language`.
    pub language: &'static str,
    /// Whether it schedules tasks of its own over threads, so that a thread says nothing about the
    /// request it works for.
    pub multiplexes_tasks: bool,
}

impl Runtime {
    fn new(name: &'static str, version: &str, language: &'static str) -> Self {
        let multiplexes_tasks = name == "go";
        Self { name, version: version.to_owned(), language, multiplexes_tasks }
    }
}

/// The runtime of a process, if it is one that remora knows. `/proc/PID/exe` also names the file of
/// an executable that was removed or lies in another mount namespace.
pub fn detect(proc: &Path, facts: &Facts) -> Option<Runtime> {
    let exe = facts.exe.file_name()?.to_string_lossy().into_owned();
    let name = exe.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let version = exe.get(name.len()..).unwrap_or_default();
    match name {
        "python" | "python-" => return Some(Runtime::new("cpython", version, "python")),
        "node" | "nodejs" => return Some(Runtime::new("nodejs", version, "nodejs")),
        "java" => return Some(Runtime::new("java", "", "java")),
        "ruby" => return Some(Runtime::new("ruby", version, "ruby")),
        "php" | "php-fpm" => return Some(Runtime::new("php", version, "php")),
        "dotnet" => return Some(Runtime::new("dotnet", "", "dotnet")),
        _ => {}
    }
    let file = std::fs::File::open(proc.join(facts.tgid.0.to_string()).join("exe")).ok()?;
    let cache = ReadCache::new(file);
    let version = go_version(&cache)?;
    Some(Runtime::new("go", &version, "go"))
}

/// Version of Go that built an executable, from `.go.buildinfo` (`debug/buildinfo` of Go's standard
/// library): since Go 1.18 the version stands behind the 32-byte header, with its length.
fn go_version<'data>(file: impl ReadRef<'data>) -> Option<String> {
    let elf = object::File::parse(file).ok()?;
    let section = elf.section_by_name(".go.buildinfo")?;
    let data = section.data().ok()?;
    if !data.starts_with(b"\xff Go buildinf:") {
        return Some(String::new());
    }
    let length = usize::from(*data.get(32)?);
    let version = data.get(33..33 + length).unwrap_or_default();
    let version = std::str::from_utf8(version).unwrap_or_default();
    Some(version.strip_prefix("go").unwrap_or_default().to_owned())
}
