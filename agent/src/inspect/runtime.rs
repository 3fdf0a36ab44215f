//! Which language runtime a process runs, by its executable and its name.

use std::path::Path;

use object::elf;
use object::read::elf::ProgramHeader;
use object::{Object, ObjectSection, ObjectSymbol, ReadRef};

use super::nginx;
use super::reads::Reads;
use super::regular;
use crate::discover::process::{self, Facts};

/// Most bytes that are read of a file to find out what it is: its symbols, above all.
pub(super) const READ_MAX: u64 = 256 << 20;

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
    /// Where its goroutines are found, if it has any and that is known.
    pub goroutines: Option<Goroutines>,
}

/// Where the id of the goroutine is that runs on a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goroutines {
    /// Offset of `goid` in the runtime's `g` structure.
    pub goid_offset: u32,
    /// Where the pointer to the running `g` lies, from the base of thread-local storage.
    pub g_tls_offset: i32,
    /// Where Go's function for system calls goes on after one, with the pointer to the running `g` in
    /// `r14`; unknown for programs that can lie anywhere.
    pub syscall: Option<u64>,
}

/// What the kernel half can find in a process beside threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tasks {
    /// Goroutines.
    Goroutines(Goroutines),
    /// The requests that nginx serves.
    NginxRequests,
}

/// The tasks of a process that has this runtime, if it is one that is known.
pub fn tasks(proc: &Path, facts: &Facts, runtime: Option<&Runtime>) -> Option<Tasks> {
    match runtime {
        Some(runtime) => runtime.goroutines.map(Tasks::Goroutines),
        None => nginx::is_nginx(proc, facts).then_some(Tasks::NginxRequests),
    }
}

impl Runtime {
    fn new(name: &'static str, version: &str, language: &'static str) -> Self {
        let multiplexes_tasks = name == "go";
        Self { name, version: version.to_owned(), language, multiplexes_tasks, goroutines: None }
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
    go(&process::directory(proc, facts.tgid).join("exe"))
}

/// Go's runtime, if that is what an executable has.
pub fn go(executable: &Path) -> Option<Runtime> {
    let file = regular::open(executable).ok()??;
    let reads = Reads::up_to(READ_MAX, file);
    let elf = object::File::parse(&reads).ok()?;
    let version = go_version(&elf)?;
    let goroutines = goroutines(&elf, &reads, &version);
    Some(Runtime { goroutines, ..Runtime::new("go", &version, "go") })
}

/// Where a Go program's goroutines are found. `goid` moved with fields before it: `syscallbp` came with
/// 1.23, `gobuf.ret` went with 1.25 (each version's own debug information says so); a version that is not
/// known has goroutines that are not known.
fn goroutines<'data>(
    elf: &object::File<'data, impl ReadRef<'data>>,
    file: impl ReadRef<'data>,
    version: &str,
) -> Option<Goroutines> {
    let mut parts = version.split(|c: char| !c.is_ascii_digit());
    let (major, minor) = (parts.next()?, parts.next()?.parse::<u32>().ok()?);
    let goid_offset = match (major, minor) {
        ("1", 17..=22 | 25..=26) => 152,
        ("1", 23..=24) => 160,
        _ => return None,
    };
    if elf.architecture() != object::Architecture::X86_64 {
        return None;
    }
    // The linker of Go makes a block for it alone, right below the base. A C linker puts it somewhere in
    // the executable's block, which ends at the base.
    let mut g_tls_offset = -8;
    if let Some((size, align)) = thread_local_block(elf).filter(|(size, _)| *size != 8) {
        let tlsg = elf.symbols().find(|symbol| symbol.name() == Ok("runtime.tlsg"))?;
        let block = size.checked_next_multiple_of(align.max(1))?;
        g_tls_offset = i32::try_from(tlsg.address()).ok()? - i32::try_from(block).ok()?;
    }
    Some(Goroutines { goid_offset, g_tls_offset, syscall: syscall(elf, file) })
}

/// `Syscall6` of `internal/runtime/syscall` (`asm_linux_amd64.s`), the same from Go 1.19 to 1.26: arguments
/// from the registers of Go's own calling convention to those of the kernel's, the instruction itself, and
/// whether it failed. That convention has the running goroutine in `r14`, which nothing here changes.
const SYSCALL: [u8; 20] = [
    0x49, 0x89, 0xf2, // mov r10, rsi
    0x48, 0x89, 0xfa, // mov rdx, rdi
    0x48, 0x89, 0xce, // mov rsi, rcx
    0x48, 0x89, 0xdf, // mov rdi, rbx
    0x0f, 0x05, // syscall
    0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff, // cmp rax, -4095
];
/// Where it goes on.
const AFTER_SYSCALL: u64 = 14;
/// How far into the program's text it is looked for. Packages come in the order of who needs whom, and
/// nobody needs less than this one.
const TEXT_BYTES_MAX: u64 = 2 << 20;

/// Where [`SYSCALL`] goes on after a system call, if it is there once, in a program that lies where its
/// file says.
fn syscall<'data>(
    elf: &object::File<'data, impl ReadRef<'data>>,
    file: impl ReadRef<'data>,
) -> Option<u64> {
    if elf.kind() != object::ObjectKind::Executable {
        return None;
    }
    let section = elf.section_by_name(".text")?;
    let (offset, size) = section.file_range()?;
    let text = file.read_bytes_at(offset, size.min(TEXT_BYTES_MAX)).ok()?;
    let mut found = memchr::memmem::find_iter(text, &SYSCALL);
    let at = found.next()? as u64;
    if found.next().is_some() {
        return None;
    }
    section.address().checked_add(at)?.checked_add(AFTER_SYSCALL)
}

/// Size and alignment of an executable's thread-local storage, if it has any.
fn thread_local_block<'data>(elf: &object::File<'data, impl ReadRef<'data>>) -> Option<(u64, u64)> {
    let object::File::Elf64(elf) = elf else { return None };
    let endian = elf.endian();
    let block =
        elf.elf_program_headers().iter().find(|header| header.p_type(endian) == elf::PT_TLS)?;
    Some((block.p_memsz(endian), block.p_align(endian)))
}

/// Version of Go that built an executable, from `.go.buildinfo` (`debug/buildinfo` of Go's standard
/// library): since Go 1.18 the version stands behind the 32-byte header, with its length.
fn go_version<'data>(elf: &object::File<'data, impl ReadRef<'data>>) -> Option<String> {
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
