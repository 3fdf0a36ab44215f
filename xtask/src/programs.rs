//! Programs under test that no Debian package has: built or fetched into `target/programs`, again
//! only when what they are made from has changed.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{cargo, has, output, run, target};
use crate::setup::apt;

/// Makes sure that every program is there.
pub(crate) fn all(root: &Path) -> Result<()> {
    let out = target(root).join("programs");
    let sources = root.join("tests/programs/servers");
    std::fs::create_dir_all(&out).context("cannot create target/programs")?;
    python(&sources, &out).context("no Python packages for the tests")?;
    pythons(&out).context("no other versions of Python for the tests")?;
    go(&sources, &out).context("no Go server for the tests")?;
    axum(&sources, &out).context("no axum server for the tests")
}

/// A virtual environment with what `requirements.txt` names.
fn python(sources: &Path, out: &Path) -> Result<()> {
    let requirements = sources.join("requirements.txt");
    let wanted = std::fs::read_to_string(&requirements)?;
    let (home, stamp) = (out.join("python"), out.join("python.stamp"));
    if std::fs::read_to_string(&stamp).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    println!("programs: installing Python packages into {}", home.display());
    // Debian's python3 comes without what venv needs.
    if output(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_none() {
        apt(&["python3-venv"])?;
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
    let pip = home.join("bin/pip");
    let quiet = ["install", "--quiet", "--disable-pip-version-check", "--requirement"];
    run(Command::new(pip).args(quiet).arg(&requirements))?;
    std::fs::write(stamp, wanted).context("cannot write python.stamp")
}

/// Builds of CPython that Debian's does not have the version of.
const PYTHONS: [(&str, &str); 5] = [
    ("3.9", "3.9.6-1.5.6"),
    ("3.10", "3.10.8-1.5.8"),
    ("3.12", "3.12.1-1.5.10"),
    ("3.13", "3.13.5-1.5.12"),
    ("3.14", "3.14.3-1.5.13"),
];

/// What of them no test needs, by the start of a path.
const LEFT_OUT: [&str; 5] = ["include", "libs", "share", "lib/cmake", "lib/pkgconfig"];

/// The interpreters of [`PYTHONS`], which an archive of Maven's has whole.
fn pythons(out: &Path) -> Result<()> {
    for (version, artifact) in PYTHONS {
        let home = out.join("pythons").join(version);
        let stamp = home.join("stamp");
        if std::fs::read_to_string(&stamp).is_ok_and(|there| there == artifact) {
            continue;
        }
        println!("programs: fetching Python {version}");
        // What there is may be of another build, or half of one.
        if home.exists() {
            std::fs::remove_dir_all(&home)?;
        }
        let fetched = home.with_extension("fetched");
        let mut fetch = Command::new("mvn");
        fetch.args(["--quiet", "--batch-mode", "dependency:copy"]);
        fetch.arg(format!("-Dartifact=org.bytedeco:cpython:{artifact}:jar:linux-x86_64"));
        fetch.arg(format!("-DoutputDirectory={}", fetched.display()));
        run(fetch.current_dir(out))?;
        let archive = fetched.join(format!("cpython-{artifact}-linux-x86_64.jar"));
        run(Command::new("python3").args(["-m", "zipfile", "-e"]).args([&archive, &fetched]))?;
        let unpacked = fetched.join("org/bytedeco/cpython/linux-x86_64");
        let tests = format!("lib/python{version}/test");
        let left_out = LEFT_OUT.iter().copied().chain([tests.as_str()]);
        for path in left_out.map(|path| unpacked.join(path)).filter(|path| path.is_dir()) {
            std::fs::remove_dir_all(path)?;
        }
        let program = unpacked.join(format!("bin/python{version}"));
        std::fs::set_permissions(program, PermissionsExt::from_mode(0o755))?;
        std::fs::create_dir_all(out.join("pythons"))?;
        std::fs::rename(unpacked, &home)?;
        std::fs::remove_dir_all(fetched)?;
        std::fs::write(stamp, artifact)?;
    }
    Ok(())
}

/// The servers and clients on Go's own net/http. Go knows itself what is up to date.
fn go(sources: &Path, out: &Path) -> Result<()> {
    for name in ["server", "client", "front"] {
        let mut build = Command::new(go_tool()?);
        build.current_dir(sources.join("go")).args(["build", "-trimpath", "-buildvcs=false", "-o"]);
        run(build.arg(out.join(format!("go-{name}"))).arg(format!("{name}.go")))?;
    }
    Ok(())
}

/// The Go tool, on the path or where its own archive puts it.
pub(crate) fn go_tool() -> Result<PathBuf> {
    if has("go") {
        return Ok(PathBuf::from("go"));
    }
    let own = PathBuf::from("/usr/local/go/bin/go");
    if !own.is_file() {
        apt(&["golang-go"])?;
        return Ok(PathBuf::from("go"));
    }
    Ok(own)
}

/// The server on axum, hyper and Tokio, a workspace of its own.
fn axum(sources: &Path, out: &Path) -> Result<()> {
    let mut build = cargo();
    build.current_dir(sources.join("axum")).args(["build", "--release", "--locked", "--quiet"]);
    run(build.env("CARGO_TARGET_DIR", out.join("axum")).env_remove("RUSTFLAGS"))
}
