//! Tells the library where the eBPF objects are. Without them, as under plain `cargo build` of a fresh
//! checkout, the agent is built with empty objects and says so when it is asked to trace.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-env-changed=CARGO_TARGET_DIR");
    let path = |name: &str| env::var_os(name).map(PathBuf::from);
    let root = path("CARGO_MANIFEST_DIR").unwrap_or_default().join("..");
    let target = path("CARGO_TARGET_DIR").unwrap_or_else(|| root.join("target"));
    for (name, variable) in
        [("remora", "REMORA_EBPF_OBJECT"), ("functions", "REMORA_FUNCTIONS_OBJECT")]
    {
        let built = target.join(format!("ebpf/{name}.bpf.o"));
        println!("cargo:rerun-if-changed={}", built.display());
        let object = if built.is_file() {
            built
        } else {
            println!("cargo:warning=no eBPF object `{name}`: `cargo xtask build` makes one");
            let empty = path("OUT_DIR").unwrap_or_default().join("empty.bpf.o");
            if let Err(error) = fs::write(&empty, []) {
                println!("cargo:error=cannot write {}: {error}", empty.display());
            }
            empty
        };
        println!("cargo:rustc-env={variable}={}", object.display());
    }
}
