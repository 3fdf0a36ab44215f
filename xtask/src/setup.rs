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
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Programs that the demo shows, with the package that has each.
const DEMO_PROGRAMS: [(&str, &str); 3] =
    [("python3", "python3"), ("curl", "curl"), ("nginx", "nginx-light")];

/// Programs that the tests use besides. A name that ends with `*` has a version behind it.
const TEST_PROGRAMS: [(&str, &str); 23] = [
    ("openssl", "openssl"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("unshare", "util-linux"),
    ("strace", "strace"),
    ("ab", "apache2-utils"),
    ("wrk", "wrk"),
    ("cc", "build-essential"),
    // The server alone: without the files that make it a service.
    ("apache2", "apache2-bin"),
    ("haproxy", "haproxy"),
    ("lighttpd", "lighttpd"),
    ("php-fpm*", "php-fpm"),
    ("puma", "puma"),
    // Holds the server's program as well, under another name.
    ("redis-check-rdb", "redis-tools"),
    ("pg_ctlcluster", "postgresql"),
    ("node", "nodejs"),
    ("javac", "default-jdk-headless"),
    // Fetches what Debian does not have.
    ("mvn", "maven"),
    // Other compilers lay things out otherwise.
    ("clang++", "clang"),
    ("ld.lld", "lld"),
    ("/usr/include/c++/v1/string", "libc++-dev"),
    ("/usr/lib/x86_64-linux-gnu/libc++abi.so", "libc++abi-dev"),
    // What is known of the functions of a library that is stripped.
    ("/var/lib/dpkg/info/libc6-dbg:amd64.list", "libc6-dbg"),
];

/// What the packages above would run at every start of the system.
const TEST_SERVICES: [&str; 5] = ["nginx", "haproxy", "lighttpd", "php*-fpm", "postgresql"];

/// Which compiler builds the eBPF half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EbpfCompiler {
    /// rustup's nightly with rust-src: builds `core` itself.
    Nightly,
    /// Debian's rustc with a prebuilt `core`.
    Debian,
}

impl EbpfCompiler {
    /// Best first: what changes least wins, so Debian's before a nightly of any day.
    const ALL: [Self; 2] = [Self::Debian, Self::Nightly];

    /// What the user knows it as.
    fn name(self) -> &'static str {
        match self {
            Self::Nightly => "rustup's nightly with rust-src",
            Self::Debian => "Debian's rustc-web",
        }
    }

    fn rustc(self) -> Command {
        match self {
            Self::Nightly => {
                let mut rustc = Command::new("rustc");
                rustc.arg("+nightly");
                rustc
            }
            Self::Debian => {
                let mut rustc = Command::new(DEBIAN_RUSTC);
                rustc.env("RUSTC_BOOTSTRAP", "1");
                rustc
            }
        }
    }

    /// Whether it is installed, with what it needs to make `core` for the target.
    fn is_there(self) -> bool {
        let path = match self {
            Self::Nightly => output(self.rustc().args(["--print", "sysroot"]))
                .map(|path| Path::new(path.trim()).join("lib/rustlib/src/rust/library")),
            Self::Debian => {
                let target = ["--print", "target-libdir", "--target", "bpfel-unknown-none"];
                output(self.rustc().args(target)).map(|path| Path::new(path.trim()).to_owned())
            }
        };
        path.is_some_and(|path| path.is_dir())
    }

    /// Whether it is installed and bpf-linker can read what it writes: found by trying, since
    /// neither says which LLVM the other knows. A trial is remembered for this pair of versions.
    fn works(self) -> bool {
        let Some(linker) = output(Command::new(bpf_linker()).arg("--version")) else {
            return false;
        };
        let Some(version) = self.is_there().then(|| output(self.rustc().arg("-vV"))).flatten()
        else {
            return false;
        };
        let built = std::fs::metadata(bpf_linker()).and_then(|file| file.modified());
        let pair = format!("{version}{linker}{built:?}");
        let directory = command::target(&command::root()).join(format!("ebpf/trial-{self:?}"));
        let stamp = directory.join("works");
        if std::fs::read_to_string(&stamp).is_ok_and(|text| text == pair) {
            return true;
        }
        let works = self.trial(&directory).is_ok_and(|built| built);
        // Without the stamp there is another trial, no harm.
        works && std::fs::write(&stamp, pair).is_ok()
    }

    /// Builds the smallest program there is.
    fn trial(self, directory: &Path) -> std::io::Result<bool> {
        const MANIFEST: &str = "[package]\nname = \"trial\"\nversion = \"0.0.0\"\n\
            edition = \"2024\"\n[workspace]\n[profile.release]\npanic = \"abort\"\n";
        const PROGRAM: &str = "#![no_std]\n#![no_main]\n\
            #[panic_handler]\nfn panic(_: &core::panic::PanicInfo) -> ! { loop {} }\n\
            #[unsafe(no_mangle)]\npub fn trial() -> i32 { 0 }\n";
        std::fs::create_dir_all(directory.join("src"))?;
        std::fs::write(directory.join("Cargo.toml"), MANIFEST)?;
        std::fs::write(directory.join("src/main.rs"), PROGRAM)?;
        let mut build = self.cargo_build();
        build.current_dir(directory).args(["--target", "bpfel-unknown-none"]);
        build.env("CARGO_TARGET_DIR", directory.join("target"));
        Ok(output(&mut build).is_some())
    }

    /// `cargo build --release` for eBPF.
    pub(crate) fn cargo_build(self) -> Command {
        let mut build = match self {
            Self::Nightly => {
                let mut build = Command::new("cargo");
                build.args(["+nightly", "build", "--release", "-Z", "build-std=core"]);
                // Set by the cargo that runs us, for its own toolchain.
                build.env_remove("RUSTC").env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
                build
            }
            Self::Debian => {
                let mut build = cargo();
                build.args(["build", "--release"]).env("RUSTC", DEBIAN_RUSTC);
                build.env("RUSTC_BOOTSTRAP", "1");
                build
            }
        };
        build.env_remove("RUSTFLAGS");
        build.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", bpf_linker());
        build
    }
}

/// Finds the compiler that can build the eBPF half here.
pub(crate) fn ebpf_compiler() -> Option<EbpfCompiler> {
    EbpfCompiler::ALL.into_iter().find(|compiler| compiler.works())
}

/// `cargo xtask setup`.
pub(crate) fn run(root: &Path) -> Result<()> {
    for_build()?;
    for_tests(root)?;
    println!("setup: everything is there");
    Ok(())
}

/// What `cargo xtask build` needs.
pub(crate) fn for_build() -> Result<()> {
    if !has("cc") {
        apt(&["build-essential"])?;
    }
    if let Some(compiler) = ebpf_compiler() {
        println!("setup: the eBPF half is compiled by {}", compiler.name());
        return Ok(());
    }
    // Each way is tried as long as none has led to a compiler and a linker that fit.
    let ways: [fn() -> Result<()>; 2] = [install_debian, install_nightly];
    for way in ways {
        if let Err(error) = way() {
            println!("setup: {error:#}");
        }
        if let Some(compiler) = ebpf_compiler() {
            println!("setup: the eBPF half is compiled by {}", compiler.name());
            return Ok(());
        }
    }
    bail!(
        "nothing here can compile for bpfel-unknown-none: install rustup's nightly with \
         `rustup toolchain install nightly --component rust-src` and bpf-linker {BPF_LINKER} for \
         its LLVM, or, on Debian, the packages {} and bpf-linker for LLVM 22",
        DEBIAN_RUST.join(" ")
    )
}

/// What the demo needs besides.
pub(crate) fn for_demo() -> Result<()> {
    programs(&DEMO_PROGRAMS)
}

/// What the tests and the benchmarks need besides.
pub(crate) fn for_tests(root: &Path) -> Result<()> {
    programs(&[&DEMO_PROGRAMS[..], &TEST_PROGRAMS].concat())?;
    crate::programs::all(root)
}

/// Installs the packages of the programs that are missing.
fn programs(wanted: &[(&str, &'static str)]) -> Result<()> {
    let missing: Vec<&str> =
        wanted.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let enabled = services();
    apt(&missing)?;
    // What was a service before stays one.
    let fresh: Vec<String> =
        services().into_iter().filter(|unit| !enabled.contains(unit)).collect();
    if !fresh.is_empty() {
        println!("setup: systemctl disable {}", fresh.join(" "));
        command::run(as_root("systemctl").env("SYSTEMD_OFFLINE", "1").arg("disable").args(&fresh))?;
    }
    Ok(())
}

/// Which of [`TEST_SERVICES`] are enabled.
fn services() -> Vec<String> {
    let units = TEST_SERVICES.map(|name| format!("{name}.service"));
    let list = ["list-unit-files", "--no-legend", "--no-pager", "--state=enabled"];
    let list = output(Command::new("systemctl").env("SYSTEMD_OFFLINE", "1").args(list).args(units));
    let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
    list.unwrap_or_default().lines().filter_map(first).collect()
}

/// A command with the rights to change the system.
fn as_root(program: &str) -> Command {
    let root = output(Command::new("id").arg("-u")).is_some_and(|id| id.trim() == "0");
    if root {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["--preserve-env=DEBIAN_FRONTEND,RUNLEVEL,SYSTEMD_OFFLINE", program]);
    command
}

/// Debian's compiler, and a linker for its LLVM.
fn install_debian() -> Result<()> {
    if !has("apt-get") {
        bail!("this is no Debian: its compiler for eBPF cannot be had");
    }
    if !EbpfCompiler::Debian.is_there() || !Path::new("/usr/lib/llvm-22/include").is_dir() {
        println!("setup: installing Debian's compiler for eBPF");
        apt(&DEBIAN_RUST)?;
    }
    let mut install = install_bpf_linker();
    install.args(["--no-default-features", "--features", "llvm-22"]);
    command::run(install.env("LLVM_PREFIX", "/usr/lib/llvm-22"))
}

/// rustup's nightly, and a linker as its project builds it by default.
fn install_nightly() -> Result<()> {
    if !has("rustup") {
        bail!("there is no rustup: a nightly toolchain cannot be had");
    }
    if !EbpfCompiler::Nightly.is_there() {
        println!("setup: rustup toolchain install nightly --component rust-src");
        let mut rustup = Command::new("rustup");
        rustup.args(["toolchain", "install", "nightly", "--profile", "minimal"]);
        command::run(rustup.args(["--component", "rust-src"]))?;
    }
    command::run(&mut install_bpf_linker())
}

/// bpf-linker, on the path or where cargo installs it.
fn bpf_linker() -> std::path::PathBuf {
    let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")));
    let installed = home.map(|home| home.join("bin/bpf-linker")).filter(|path| path.is_file());
    installed.unwrap_or_else(|| "bpf-linker".into())
}

fn install_bpf_linker() -> Command {
    println!("setup: installing bpf-linker {BPF_LINKER} with cargo (about a minute)");
    let mut install = cargo();
    install.args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked", "--force"]);
    // Its own folder, so that this workspace's settings do not reach it.
    install.current_dir(std::env::temp_dir());
    install
}

/// Installs Debian packages.
pub(crate) fn apt(packages: &[&str]) -> Result<()> {
    if !has("apt-get") {
        bail!("install these by the means of this system: {}", packages.join(" "));
    }
    println!("setup: apt-get install {}", packages.join(" "));
    let install = [&["install", "-y", "--no-install-recommends"], packages].concat();
    if command::run(&mut apt_get(&install)).is_err() {
        // The lists may be old or missing.
        apt_update()?;
        command::run(&mut apt_get(&install))?;
    }
    Ok(())
}

/// Fetches the lists of packages.
pub(crate) fn apt_update() -> Result<()> {
    command::run(&mut apt_get(&["update"]))
}

fn apt_get(args: &[&str]) -> Command {
    let mut command = as_root("apt-get");
    command.args(["-qq", "-o", "Dpkg::Use-Pty=0"]).args(args);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    // A server that a package brings must not be started by it.
    command.env("RUNLEVEL", "1").env("SYSTEMD_OFFLINE", "1");
    command
}
