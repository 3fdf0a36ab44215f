//! Building the eBPF object, and the agent around it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{self, cargo, target};
use crate::object;
use crate::setup;

/// The agent is linked statically, so that one file runs on any Linux.
const STATIC: &str = "-C target-feature=+crt-static -C relocation-model=static";

/// Builds everything; the agent's path.
pub(crate) fn run(root: &Path, release: bool) -> Result<PathBuf> {
    ebpf(root)?;
    let target = target(root);
    let mut build = cargo();
    build.current_dir(root).args(["build", "--package", "remora", "--bin", "remora"]);
    if !release {
        command::run(&mut build)?;
        return Ok(target.join("debug/remora"));
    }
    let built = as_shipped(root, &["--package", "remora", "--bin", "remora"])?.join("remora");
    let remora = target.join("release/remora");
    std::fs::create_dir_all(target.join("release")).context("cannot create target/release")?;
    // A copy over a running program fails; a rename does not.
    let fresh = target.join("release/.remora");
    std::fs::copy(&built, &fresh).context("cannot copy the agent")?;
    std::fs::rename(&fresh, &remora).context("cannot replace the agent")?;
    let size = std::fs::metadata(&remora)?.len();
    println!("built {} ({:.1} MB, static)", remora.display(), size as f64 / 1e6);
    Ok(remora)
}

/// Builds what cargo's `selection` names as the agent is shipped; where it is then.
pub(crate) fn as_shipped(root: &Path, selection: &[&str]) -> Result<PathBuf> {
    // With an explicit target the flags do not reach build scripts and macros, which cannot be static.
    let triple = host()?;
    let mut build = cargo();
    build.current_dir(root).args(["build", "--release", "--target", &triple]).args(selection);
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    build.env("RUSTFLAGS", format!("{flags} {STATIC}").trim());
    command::run(&mut build)?;
    Ok(target(root).join(&triple).join("release"))
}

/// Builds the agent's eBPF objects to `target/ebpf/{remora,functions}.bpf.o` and checks them; where the
/// first is.
pub(crate) fn ebpf(root: &Path) -> Result<PathBuf> {
    ebpf_object(root, "functions")?;
    ebpf_object(root, "remora")
}

/// As [`ebpf`], the object that the program `name` of the kernel half becomes.
pub(crate) fn ebpf_object(root: &Path, name: &str) -> Result<PathBuf> {
    let compiler = setup::ebpf_compiler().context("run `cargo xtask setup` first")?;
    let directory = root.join("agent-ebpf");
    let out = target(root).join("ebpf");
    let mut build = compiler.cargo_build();
    build.current_dir(&directory).env("CARGO_TARGET_DIR", &out);
    build.args(["--locked", "--bin", name]);
    command::run(&mut build)?;
    let built = out.join("bpfel-unknown-none/release").join(name);
    let object = out.join(format!("{name}.bpf.o"));
    let bytes = std::fs::read(&built).context("the eBPF object is missing")?;
    object::check(&bytes)?;
    // Unchanged, it must not look newer, or the agent would be built again.
    if std::fs::read(&object).ok().as_deref() != Some(&bytes) {
        std::fs::write(&object, &bytes).context("cannot write the eBPF object")?;
    }
    Ok(object)
}

/// The triple of this machine.
pub(crate) fn host() -> Result<String> {
    let version = command::output(Command::new("rustc").arg("-vV"));
    let version = version.context("cannot run rustc")?;
    let line = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc names no host")?.to_owned())
}
