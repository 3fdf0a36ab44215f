//! Real backends, built or fetched into `target/backends`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{has, run, target};

/// Where the backends are; `None` where one cannot be had.
pub(crate) struct Backends {
    /// The Jaeger binary.
    pub(crate) jaeger: Option<PathBuf>,
    /// Zipkin's jar.
    pub(crate) zipkin: Option<PathBuf>,
}

/// Zipkin's server, as its project publishes it.
const ZIPKIN: &str = "io.zipkin:zipkin-server:3.6.1:jar:exec";

/// Makes sure that every backend is there.
pub(crate) fn all(root: &Path) -> Result<Backends> {
    let directory = target(root).join("backends");
    std::fs::create_dir_all(&directory).context("cannot create target/backends")?;
    let report = |name: &str, result: Result<PathBuf>| match result {
        Ok(path) => {
            println!("backends: {name} is {}", path.display());
            Some(path)
        }
        Err(error) => {
            println!("backends: no {name}: {error:#}");
            None
        }
    };
    Ok(Backends {
        jaeger: report("Jaeger", jaeger(root, &directory)),
        zipkin: report("Zipkin", zipkin(&directory)),
    })
}

/// Jaeger v2 is a Go program; its version and those of all it needs are in `go.mod` and `go.sum`.
fn jaeger(root: &Path, directory: &Path) -> Result<PathBuf> {
    let binary = directory.join("jaeger");
    if binary.is_file() {
        return Ok(binary);
    }
    let go = crate::programs::go_tool()?;
    println!("backends: building Jaeger (some minutes, once)");
    run(Command::new(go)
        .args(["build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o"])
        .arg(&binary)
        .arg("github.com/jaegertracing/jaeger/cmd/jaeger")
        .current_dir(root.join("tests/backends/jaeger")))?;
    Ok(binary)
}

/// Zipkin is a jar on Maven Central.
fn zipkin(directory: &Path) -> Result<PathBuf> {
    let jar = directory.join("zipkin-server-3.6.1-exec.jar");
    if jar.is_file() {
        return Ok(jar);
    }
    if !has("java") {
        crate::setup::apt(&["openjdk-17-jre-headless"])?;
    }
    if !has("mvn") {
        crate::setup::apt(&["maven"])?;
    }
    println!("backends: fetching Zipkin");
    run(Command::new("mvn")
        .args(["-q", "-B", "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"])
        .arg(format!("-Dartifact={ZIPKIN}"))
        .arg(format!("-DoutputDirectory={}", directory.display())))?;
    anyhow::ensure!(jar.is_file(), "Maven left no {}", jar.display());
    Ok(jar)
}
