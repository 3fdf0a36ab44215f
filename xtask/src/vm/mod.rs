//! `cargo xtask vm`: other kernels, each in an emulated machine, and whether every capture source
//! that they have tells the truth there.

mod archive;
mod kernel;
mod machine;
mod outcome;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{cargo, has, target};
use archive::Archive;
use outcome::Outcome;

/// A kernel, and the sources that it is known to have.
struct Kernel {
    series: &'static str,
    sources: &'static [&'static str],
}

/// The kernels that can be had as packages. `sock_send_length` came with 6.3.
const KERNELS: [Kernel; 2] = [
    Kernel { series: "6.1", sources: &["fexit", "syscall"] },
    Kernel { series: "6.12", sources: &["socket", "fexit", "syscall"] },
];

/// What `--kernel` takes.
pub(crate) const SERIES: [&str; 3] = ["6.1", "6.12", "all"];

/// The tests that run in a machine.
const SUITES: [&str; 3] = ["capture", "sources", "functions_kernel"];

/// How long a machine may take: it is emulated, and this one may be busy.
const DEADLINE: Duration = Duration::from_secs(900);

/// What busybox is asked to be.
const COMMANDS: [&str; 13] = [
    "sh", "mount", "ip", "poweroff", "head", "unshare", "kill", "cat", "dmesg", "cut", "uname",
    "hostname", "timeout",
];

/// The first program. Its lines are read by [`outcome`]. (What is skipped is checked in passing.)
const INIT: &str = "#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t securityfs securityfs /sys/kernel/security
ip link set lo up
hostname machine
export PATH=/bin REMORA_BIN=/bin/remora RUST_BACKTRACE=1
echo \"vm: release $(uname -r)\"
for suite in SUITES; do
    echo \"vm: begin $suite\"
    timeout 400 /tests/$suite --show-output --skip programs_are_easy_to_verify
    echo \"vm: end $suite $?\"
done
echo 'vm: the kernel says'
dmesg
echo \"vm: done $(cut -d' ' -f1 /proc/uptime)\"
poweroff -f
";

/// What is wanted.
pub(crate) struct Options<'a> {
    /// One of [`SERIES`].
    pub(crate) kernel: &'a str,
    /// Whether the archive stays, and how to start a machine from it is told.
    pub(crate) keep: bool,
}

impl Options<'static> {
    /// Every kernel.
    pub(crate) const ALL: Self = Self { kernel: "all", keep: false };
}

/// Why this machine cannot run others; `None` if it can.
pub(crate) fn impossible() -> Option<&'static str> {
    if cfg!(not(target_arch = "x86_64")) {
        return Some("an x86-64 machine");
    }
    let all = KERNELS.iter().all(|kernel| kernel::can_be_had(kernel.series));
    (!all).then_some("apt-get, for Debian's kernels")
}

/// Runs the smoke test on other kernels, all at one time.
pub(crate) fn run(root: &Path, remora: &Path, options: &Options<'_>) -> Result<()> {
    if let Some(needs) = impossible() {
        bail!("needs {needs}");
    }
    setup()?;
    let wanted: Vec<&Kernel> = KERNELS
        .iter()
        .filter(|kernel| options.kernel == "all" || options.kernel == kernel.series)
        .collect();
    ensure!(!wanted.is_empty(), "no such kernel: {}", options.kernel);
    let images = wanted.iter().map(|kernel| kernel::image(kernel.series));
    let images = images.collect::<Result<Vec<_>>>()?;
    let directory = target(root).join("vm");
    std::fs::create_dir_all(&directory).context("cannot create target/vm")?;
    let archive = directory.join("archive");
    std::fs::write(&archive, pack(root, remora)?).context("cannot write the archive")?;
    let log = |kernel: &Kernel| directory.join(format!("{}.log", kernel.series));
    // One after another: a machine whose processors have to share ours with another one's is held up in
    // the middle of what the tests compare.
    let outcomes: Vec<Result<Outcome>> = wanted
        .iter()
        .zip(&images)
        .map(|(kernel, image)| {
            println!("vm: starting {}", image.file_name().unwrap_or_default().display());
            boot(kernel, image, &archive, &log(kernel))
        })
        .collect();
    let mut failed = 0;
    for (kernel, outcome) in wanted.iter().zip(outcomes) {
        let outcome = outcome?;
        print(kernel, &outcome);
        if !outcome.failures.is_empty() {
            failed += 1;
            outcome.panics.iter().for_each(|line| println!("  | {line}"));
            println!("  its log: {}", log(kernel).display());
        }
    }
    if options.keep {
        for image in &images {
            println!("vm: again: {:?}", machine::command(image, &archive));
        }
    } else {
        std::fs::remove_file(&archive).context("cannot remove the archive")?;
    }
    ensure!(failed == 0, "{failed} of {} kernels failed", wanted.len());
    Ok(())
}

/// Shows what the verifier of the kernel that runs here makes of each program.
pub(crate) fn verifier(root: &Path) -> Result<()> {
    let mut test = cargo();
    test.current_dir(root).args(["test", "--workspace", "--test", "capture", "--"]);
    test.args(["--exact", "programs_are_easy_to_verify", "--show-output"]);
    let output = test.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    print_verified(&Outcome::read(&text, &[]));
    if !output.status.success() {
        bail!("{text}");
    }
    for line in text.lines().filter(|line| line.contains(": needs ")) {
        println!("  {line}");
    }
    Ok(())
}

fn setup() -> Result<()> {
    let needed = [("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static")];
    let missing: Vec<&str> =
        needed.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() { Ok(()) } else { crate::setup::apt(&missing) }
}

fn boot(kernel: &Kernel, image: &Path, archive: &Path, log: &Path) -> Result<Outcome> {
    let text = machine::run(&mut machine::command(image, archive), log, DEADLINE)?;
    let mut outcome = Outcome::read(&text, &SUITES);
    outcome.expect(kernel.sources);
    Ok(outcome)
}

/// Everything that a machine needs.
fn pack(root: &Path, remora: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["/proc", "/sys", "/dev", "/tmp"] {
        archive.directory(directory);
    }
    archive.file("/init", INIT.replace("SUITES", &SUITES.join(" ")).as_bytes());
    archive.program("/bin/busybox", &found("busybox")?)?;
    for command in COMMANDS {
        archive.link(&format!("/bin/{command}"), "busybox");
    }
    archive.program("/bin/bash", &found("bash")?)?;
    archive.program("/bin/remora", remora)?;
    for (suite, program) in suites(root)? {
        archive.program(&format!("/tests/{suite}"), &program)?;
    }
    Ok(archive.finish())
}

/// Builds the tests; their names and programs. With the whole workspace's features, so that what
/// `cargo xtask test` has built is used.
fn suites(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut build = cargo();
    build.current_dir(root).args(["test", "--workspace", "--no-run", "--message-format=json"]);
    for suite in SUITES {
        build.args(["--test", suite]);
    }
    let output = build.stderr(Stdio::inherit()).output();
    let output = output.context("cannot run cargo")?;
    ensure!(output.status.success(), "the tests cannot be built");
    let messages = String::from_utf8_lossy(&output.stdout);
    let find = |suite: &str| {
        let program = messages.lines().find_map(|message| executable(message, suite));
        program.with_context(|| format!("cargo names no program for `{suite}`"))
    };
    SUITES.iter().map(|suite| Ok(((*suite).to_owned(), find(suite)?))).collect()
}

/// The program in a message of cargo about a test.
fn executable(message: &str, test: &str) -> Option<PathBuf> {
    let names = format!(r#""kind":["test"],"crate_types":["bin"],"name":"{test}""#);
    let rest = message.contains(&names).then_some(message)?;
    let (_, rest) = rest.split_once(r#""executable":""#)?;
    rest.split_once('"').map(|(path, _)| PathBuf::from(path))
}

fn found(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|place| place.join(program));
    places.find(|file| file.is_file()).with_context(|| format!("there is no {program}"))
}

fn print(kernel: &Kernel, outcome: &Outcome) {
    let release = if outcome.release.is_empty() { kernel.series } else { &outcome.release };
    let seconds = outcome.seconds.unwrap_or(0.0);
    println!("\nLinux {release}: {} tests passed in {seconds:.0} s of its time", outcome.passed);
    println!("  {:<9} {:<11} {:<7} WHY NOT", "SOURCE", "OPERATIONS", "SPANS");
    for (name, source) in &outcome.sources {
        let operations = if source.operations { "as told" } else { "-" };
        let spans = source.spans.map_or_else(|| "-".to_owned(), |spans| spans.to_string());
        let why = source.refused.as_deref().unwrap_or_default();
        println!("  {name:<9} {operations:<11} {spans:<7} {why}");
    }
    print_verified(outcome);
    for failure in &outcome.failures {
        println!("  FAILED: {failure}");
    }
}

/// Instructions that the verifier went through, of the million that it allows, and the size of the
/// program that it left.
fn print_verified(outcome: &Outcome) {
    println!("  {:<9} {:<27} {:>8} {:>7}", "SOURCE", "PROGRAM", "VERIFIED", "BYTES");
    for verified in &outcome.verified {
        let outcome::Verified { source, program, steps, bytes } = verified;
        println!("  {source:<9} {program:<27} {steps:>8} {bytes:>7}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_messages_of_cargo() {
        let message = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"crate_types":["bin"],"name":"capture","src_path":"/x"},"executable":"/t/capture-1","fresh":true}"#;
        assert_eq!(executable(message, "capture"), Some(PathBuf::from("/t/capture-1")));
        assert_eq!(executable(message, "sources"), None);
        assert_eq!(executable(&message.replace("test", "lib"), "capture"), None);
    }
}
