//! Real backends, built or fetched once a machine into the user's cache directory, beside cargo.
//!
//! Each lies under the SHA-256 of its recipe and is renamed into place, so that clones share what is
//! there and a changed recipe never finds what an older one made.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};

use crate::command::{has, output};
use crate::setup;

/// A backend, and how it is had.
struct Backend {
    name: &'static str,
    /// How tests find it.
    variable: &'static str,
    recipe: Recipe,
}

/// How a backend is had. Every version is pinned: by `go.sum`, or in the artifact's name.
#[derive(Clone, Copy)]
enum Recipe {
    /// A program of a Go module in this repository.
    Go { module: &'static str, sources: &'static [&'static str], package: &'static str },
    /// A jar of a Maven repository.
    Jar { artifact: &'static str, file: &'static str },
}

/// The next one is a row here, and one in `tests/src/backend.rs`.
const BACKENDS: &[Backend] = &[
    Backend {
        name: "Jaeger",
        variable: "REMORA_TEST_JAEGER",
        recipe: Recipe::Go {
            module: "tests/backends/jaeger",
            sources: &["go.mod", "go.sum"],
            package: "github.com/jaegertracing/jaeger/cmd/jaeger",
        },
    },
    Backend {
        name: "OpenTelemetry Collector",
        variable: "REMORA_TEST_OTELCOL",
        recipe: Recipe::Go {
            module: "tests/backends/otelcol",
            sources: &["go.mod", "go.sum", "main.go"],
            package: ".",
        },
    },
    Backend {
        name: "Zipkin",
        variable: "REMORA_TEST_ZIPKIN",
        recipe: Recipe::Jar {
            artifact: "io.zipkin:zipkin-server:3.6.1:jar:slim",
            file: "zipkin-server-3.6.1-slim.jar",
        },
    },
];

const GO_FLAGS: [&str; 3] = ["-trimpath", "-buildvcs=false", "-ldflags=-s -w"];

const MAVEN_COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy";

/// Backends that are being made.
pub(crate) struct Started(Vec<(&'static Backend, JoinHandle<Result<PathBuf>>)>);

/// `cargo xtask backends`.
pub(crate) fn run(root: &Path) -> Result<()> {
    let ready = start(root).wait();
    for (variable, path) in &ready {
        println!("export {variable}={}", path.display());
    }
    if ready.len() < BACKENDS.len() {
        bail!("{} of {} backends are missing", BACKENDS.len() - ready.len(), BACKENDS.len());
    }
    Ok(())
}

/// Starts to make every backend that is not there, at the lowest priority.
pub(crate) fn start(root: &Path) -> Started {
    let threads = BACKENDS.iter().map(|backend| {
        // One after the other and here: Debian's installer runs once at a time.
        let tools = backend.recipe.tools();
        let root = root.to_owned();
        let make = move || {
            tools?;
            backend.recipe.make(&root)
        };
        (backend, std::thread::spawn(make))
    });
    Started(threads.collect())
}

impl Started {
    /// Waits for them; the variable and the path of each that is there.
    pub(crate) fn wait(self) -> Vec<(&'static str, PathBuf)> {
        let mut ready = Vec::new();
        for (backend, thread) in self.0 {
            match thread.join() {
                Ok(Ok(path)) => ready.push((backend.variable, path)),
                Ok(Err(error)) => println!("backends: no {}: {error:#}", backend.name),
                Err(_) => println!("backends: no {}: its thread panicked", backend.name),
            }
        }
        ready
    }
}

impl Recipe {
    /// Installs what the recipe is carried out with.
    fn tools(self) -> Result<()> {
        match self {
            Self::Go { .. } if go().is_none() => setup::apt(&["golang-go"]),
            Self::Go { .. } => Ok(()),
            Self::Jar { .. } => {
                let tools = [("java", "openjdk-17-jre-headless"), ("mvn", "maven")];
                let missing = tools.iter().filter(|(program, _)| !has(program));
                let missing: Vec<&str> = missing.map(|(_, package)| *package).collect();
                if missing.is_empty() { Ok(()) } else { setup::apt(&missing) }
            }
        }
    }

    /// Where it is, once it is there.
    fn make(self, root: &Path) -> Result<PathBuf> {
        let cache = cache()?;
        let name = self.hash(root)?;
        let place = cache.join(&name);
        let made = place.join(self.file());
        // Two clones that need it at one time make it once.
        let lock = cache.join(format!(".{name}.lock"));
        let lock = File::create(&lock).with_context(|| format!("cannot create {lock:?}"))?;
        lock.lock().context("cannot lock the cache of backends")?;
        if made.is_file() {
            return Ok(made);
        }
        let unfinished = cache.join(format!(".{name}"));
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).context("cannot remove what was left unfinished")?;
        }
        fs::create_dir(&unfinished).with_context(|| format!("cannot create {unfinished:?}"))?;
        self.carry_out(root, &unfinished)?;
        fs::rename(&unfinished, &place).with_context(|| format!("cannot create {place:?}"))?;
        Ok(made)
    }

    fn carry_out(self, root: &Path, into: &Path) -> Result<()> {
        match self {
            Self::Go { module, package, .. } => {
                let mut build = politely(go().context("Go is not installed")?);
                build.current_dir(root.join(module)).env_remove("GOFLAGS").arg("build");
                build.args(GO_FLAGS).arg("-o").arg(into.join(self.file())).arg(package);
                println!("backends: building {module} (some minutes, once a machine)");
                quietly(&mut build).with_context(|| {
                    format!("it needs Go 1.25 or newer and a module proxy (see GOPROXY), {AGAIN}")
                })
            }
            Self::Jar { artifact, .. } => {
                let mut copy = politely("mvn".into());
                // A checksum that is wrong is an error.
                copy.args(["--batch-mode", "--strict-checksums", MAVEN_COPY]);
                copy.arg(format!("-Dartifact={artifact}"));
                copy.arg(format!("-DoutputDirectory={}", into.display()));
                println!("backends: fetching {artifact}");
                quietly(&mut copy).with_context(|| {
                    format!("it needs a Maven repository (see settings.xml), {AGAIN}")
                })
            }
        }
    }

    /// Its file's name.
    fn file(self) -> &'static str {
        match self {
            Self::Go { module, .. } => module.rsplit('/').next().unwrap_or(module),
            Self::Jar { file, .. } => file,
        }
    }

    /// What decides what comes out, as a name.
    fn hash(self, root: &Path) -> Result<String> {
        let mut text = Vec::new();
        match self {
            Self::Go { module, sources, package } => {
                let mut version = Command::new(go().context("Go is not installed")?);
                // In the module's folder: its `go` line may ask for another toolchain.
                version.current_dir(root.join(module)).arg("version");
                let version = output(&mut version).context("`go version` fails")?;
                writeln!(text, "{version}{}{package}", GO_FLAGS.join(" "))?;
                for source in sources {
                    let path = root.join(module).join(source);
                    let source = fs::read(&path).with_context(|| format!("cannot read {path:?}"));
                    text.extend(source?);
                }
            }
            Self::Jar { artifact, .. } => text.extend(artifact.bytes()),
        }
        sha256(&text)
    }
}

const AGAIN: &str = "then run `cargo xtask backends` again";

/// Go, on the path or where its own installer puts it.
fn go() -> Option<PathBuf> {
    let usual = Path::new("/usr/local/go/bin/go");
    if has("go") { Some("go".into()) } else { usual.is_file().then(|| usual.to_owned()) }
}

/// The cache's folder for backends (XDG Base Directory Specification).
fn cache() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = match (set("XDG_CACHE_HOME"), set("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => Path::new(&home).join(".cache"),
        (None, None) => bail!("neither XDG_CACHE_HOME nor HOME is set"),
    };
    let cache = base.join("remora/backends");
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    Ok(cache)
}

/// A command that gives way to everything else.
fn politely(program: PathBuf) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "19"]).arg(program);
    command
}

/// Runs a command beside others: what it prints is shown only if it fails.
fn quietly(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().context("cannot run nice(1)")?;
    if output.status.success() {
        return Ok(());
    }
    let all = [output.stdout, output.stderr].concat();
    let all = String::from_utf8_lossy(&all);
    let last: Vec<&str> = all.lines().rev().take(20).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    bail!("{}\n{}", output.status, last.join("\n"))
}

/// In hexadecimal, by the system's own program.
fn sha256(bytes: &[u8]) -> Result<String> {
    let mut command = Command::new("sha256sum");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot run sha256sum")?;
    child.stdin.take().context("stdin is a pipe")?.write_all(bytes)?;
    let mut text = String::new();
    let mut stdout = child.stdout.take().context("stdout is a pipe")?;
    std::io::Read::read_to_string(&mut stdout, &mut text)?;
    child.wait()?;
    let hash = text.split(' ').next().unwrap_or_default();
    if hash.len() != 64 {
        bail!("sha256sum gave {text:?}");
    }
    Ok(hash.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_is_known_by_what_is_in_it() {
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc").expect("coreutils are there"), known, "FIPS 180-2's example");
        let jar = |artifact| Recipe::Jar { artifact, file: "x.jar" }.hash(Path::new("/"));
        assert_ne!(jar("a:b:1:jar").expect("a hash"), jar("a:b:2:jar").expect("a hash"));
    }

    #[test]
    fn every_recipe_is_in_the_repository() {
        let root = crate::command::root();
        for backend in BACKENDS {
            if let Recipe::Go { module, sources, .. } = backend.recipe {
                for source in sources {
                    assert!(root.join(module).join(source).is_file(), "{module}/{source}");
                }
            }
        }
    }
}
