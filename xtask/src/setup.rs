//! Finds or installs what building and testing need. Quick when all is there.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{self, cargo, has, output};

/// bpf-linker's version; its LLVM must read the bitcode of the compiler below.
const BPF_LINKER: &str = "0.13.0";

/// Debian's packages for the eBPF half: a rustc with a prebuilt `core` for bpfel-unknown-none.
const DEBIAN_RUST: [&str; 4] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf", "llvm-22-dev"];

/// The compiler of Debian's packages.
pub(crate) const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Programs that the tests use, with the package that has each.
const TEST_PROGRAMS: [(&str, &str); 8] = [
    ("python3", "python3"),
    ("curl", "curl"),
    ("nginx", "nginx-light"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("ab", "apache2-utils"),
    ("wrk", "wrk"),
    ("cc", "build-essential"),
];

/// Which compiler builds the eBPF half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EbpfCompiler {
    /// rustup's nightly with rust-src: builds `core` itself.
    Nightly,
    /// Debian's rustc with a prebuilt `core`.
    Debian,
}

/// Finds the compiler that can build the eBPF half here.
pub(crate) fn ebpf_compiler() -> Option<EbpfCompiler> {
    let sysroot = output(Command::new("rustc").args(["+nightly", "--print", "sysroot"]));
    let library = sysroot.map(|path| Path::new(path.trim()).join("lib/rustlib/src/rust/library"));
    if library.is_some_and(|library| library.is_dir()) {
        return Some(EbpfCompiler::Nightly);
    }
    let libraries = Command::new(DEBIAN_RUSTC)
        .args(["--print", "target-libdir", "--target", "bpfel-unknown-none"])
        .env("RUSTC_BOOTSTRAP", "1")
        .stderr(std::process::Stdio::null())
        .output();
    let directory = libraries.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
    let there = directory.is_ok_and(|path| Path::new(path.trim()).is_dir() && !path.is_empty());
    there.then_some(EbpfCompiler::Debian)
}

/// `cargo xtask setup`.
pub(crate) fn run() -> Result<()> {
    for_build()?;
    for_tests()?;
    println!("setup: everything is there");
    Ok(())
}

/// What `cargo xtask build` needs.
pub(crate) fn for_build() -> Result<()> {
    if ebpf_compiler().is_none() && !install_nightly() {
        println!("setup: no nightly rust-src: installing Debian's compiler for eBPF");
        apt(&DEBIAN_RUST)?;
    }
    let Some(compiler) = ebpf_compiler() else {
        bail!(
            "nothing here can compile for bpfel-unknown-none: install rustup's nightly with \
             `rustup toolchain install nightly --component rust-src`, or, on Debian, the packages {}",
            DEBIAN_RUST.join(" ")
        );
    };
    println!("setup: the eBPF half is compiled by {compiler:?}");
    if !has_bpf_linker() {
        install_bpf_linker(compiler)?;
    }
    if !has("cc") {
        apt(&["build-essential"])?;
    }
    Ok(())
}

/// What the tests, the demo and the benchmarks need besides.
pub(crate) fn for_tests() -> Result<()> {
    let missing: Vec<&str> = TEST_PROGRAMS
        .iter()
        .filter(|(program, _)| !has(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    apt(&missing)
}

/// Most machines with rustup can have it; those without a way to it say so quickly.
fn install_nightly() -> bool {
    if !has("rustup") {
        return false;
    }
    println!("setup: trying `rustup toolchain install nightly --component rust-src`");
    let mut rustup = Command::new("rustup");
    rustup.args(["toolchain", "install", "nightly", "--profile", "minimal"]);
    rustup.args(["--component", "rust-src"]).env("RUSTUP_MAX_RETRIES", "0");
    output(&mut rustup).is_some() && ebpf_compiler().is_some()
}

fn has_bpf_linker() -> bool {
    let mut linker = Command::new(bpf_linker());
    output(linker.arg("--version")).is_some()
}

/// bpf-linker, on the path or where cargo installs it.
pub(crate) fn bpf_linker() -> std::path::PathBuf {
    let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")));
    let installed = home.map(|home| home.join("bin/bpf-linker")).filter(|path| path.is_file());
    installed.unwrap_or_else(|| "bpf-linker".into())
}

fn install_bpf_linker(compiler: EbpfCompiler) -> Result<()> {
    println!("setup: installing bpf-linker {BPF_LINKER} with cargo (about a minute)");
    let mut install = cargo();
    install.args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked"]);
    if compiler == EbpfCompiler::Debian || Path::new("/usr/lib/llvm-22").is_dir() {
        if !Path::new("/usr/lib/llvm-22/include").is_dir() {
            apt(&["llvm-22-dev"])?;
        }
        install.args(["--no-default-features", "--features", "llvm-22"]);
        install.env("LLVM_PREFIX", "/usr/lib/llvm-22");
    }
    // Its own folder, so that this workspace's settings do not reach it.
    command::run(install.current_dir(std::env::temp_dir()))
}

/// Installs Debian packages.
pub(crate) fn apt(packages: &[&str]) -> Result<()> {
    if !has("apt-get") {
        bail!("install these by the means of this system: {}", packages.join(" "));
    }
    println!("setup: apt-get install {}", packages.join(" "));
    let get = |args: &[&str]| {
        let root = output(Command::new("id").arg("-u")).is_some_and(|id| id.trim() == "0");
        let mut command = Command::new(if root { "apt-get" } else { "sudo" });
        if !root {
            command.arg("apt-get");
        }
        command.args(["-qq", "-o", "Dpkg::Use-Pty=0"]).args(args);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        // A server that a package brings must not be started by it.
        command.env("RUNLEVEL", "1");
        command
    };
    let install = [&["install", "-y", "--no-install-recommends"], packages].concat();
    if command::run(&mut get(&install)).is_err() {
        // The lists may be old or missing.
        command::run(&mut get(&["update"]))?;
        command::run(&mut get(&install))?;
    }
    Ok(())
}
