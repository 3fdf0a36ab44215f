//! Tells the library where the eBPF object is.
fn main() {
    println!("cargo:rerun-if-changed=../target/ebpf/remora.bpf.o");
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rustc-env=REMORA_EBPF_OBJECT={root}/../target/ebpf/remora.bpf.o");
}
