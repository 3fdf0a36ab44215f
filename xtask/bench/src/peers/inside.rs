//! Tracers that run inside a server: OpenTelemetry's SDKs, each as its own documentation sets it up,
//! with a span for every request, exported in batches over OTLP/HTTP. Sources and lock files are in
//! `programs/traced`; what they name is installed into the benchmarks' cache, nowhere else.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::servers::{
    Server, Workshop, environment, free_port, go_server, gunicorn_server, java_server, node_server,
    started,
};

/// A server's command with the SDK in it, for a port.
pub(super) type Build = fn(&Workshop<'_>, u16) -> Result<Command>;

/// Version of OpenTelemetry's agent for Java.
const JAVA_AGENT: &str = "2.31.1";

/// Starts a server whose SDK exports to a backend.
pub(super) fn start(build: Build, workshop: &Workshop<'_>, backend: &str) -> Result<Server> {
    let port = free_port()?;
    let mut command = build(workshop, port)?;
    command.env("OTEL_SERVICE_NAME", "bench").env("OTEL_EXPORTER_OTLP_ENDPOINT", backend);
    command.env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    // Traces are what is compared.
    command.env("OTEL_METRICS_EXPORTER", "none").env("OTEL_LOGS_EXPORTER", "none");
    started(&mut command, port)
}

pub(super) fn go(workshop: &Workshop<'_>, port: u16) -> Result<Command> {
    go_server(workshop, "traced/go", port)
}

pub(super) fn node(workshop: &Workshop<'_>, port: u16) -> Result<Command> {
    let source = workshop.programs.join("traced/node");
    let home = installed(workshop, "node", &source.join("package-lock.json"), |home| {
        for file in ["package.json", "package-lock.json"] {
            std::fs::copy(source.join(file), home.join(file))?;
        }
        let mut install = Command::new("npm");
        install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
        succeed(install.current_dir(home))
    })?;
    // Beside what it asks for, since that is where Node looks.
    let tracing = home.join("tracing.js");
    std::fs::copy(source.join("tracing.js"), &tracing)?;
    let mut server = node_server(workshop, port)?;
    server.env("NODE_OPTIONS", format!("--require \"{}\"", tracing.display()));
    Ok(server)
}

pub(super) fn java(workshop: &Workshop<'_>, port: u16) -> Result<Command> {
    let file = format!("opentelemetry-javaagent-{JAVA_AGENT}.jar");
    let jar = workshop.cache.join("traced").join(&file);
    if !jar.is_file() {
        let artifact = format!("io.opentelemetry.javaagent:opentelemetry-javaagent:{JAVA_AGENT}");
        let mut fetch = Command::new("mvn");
        fetch.args(["--quiet", "--batch-mode", "-Dstyle.color=never", "dependency:copy"]);
        fetch.arg(format!("-Dartifact={artifact}:jar")).current_dir(workshop.cache);
        let directory = workshop.cache.join("traced");
        succeed(fetch.arg(format!("-DoutputDirectory={}", directory.display())))?;
        ensure!(jar.is_file(), "{file} was not fetched");
    }
    let mut server = java_server(workshop, port)?;
    server.env("JAVA_TOOL_OPTIONS", format!("-javaagent:{}", jar.display()));
    Ok(server)
}

pub(super) fn python(workshop: &Workshop<'_>, port: u16) -> Result<Command> {
    let source = workshop.programs.join("traced/python");
    let requirements = source.join("requirements.txt");
    let packages = std::fs::read_to_string(&requirements)?;
    let home = installed(workshop, "python", &requirements, |home| {
        environment(home, &packages.lines().collect::<Vec<_>>())
    })?;
    let mut server = gunicorn_server(workshop, &home, "traced:app", port);
    server.env("PYTHONPATH", source);
    Ok(server)
}

/// A directory of the cache with what a lock file names, installed anew when the file has changed.
fn installed(
    workshop: &Workshop<'_>,
    name: &str,
    lock: &Path,
    install: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let wanted = std::fs::read_to_string(lock)?;
    let home = workshop.cache.join("traced").join(name);
    let stamp = home.join("installed");
    if std::fs::read_to_string(&stamp).is_ok_and(|there| there == wanted) {
        return Ok(home);
    }
    println!("  installing into {}", home.display());
    if home.exists() {
        std::fs::remove_dir_all(&home)?;
    }
    std::fs::create_dir_all(&home)?;
    install(&home)?;
    // Only what is whole has one.
    std::fs::write(stamp, wanted)?;
    Ok(home)
}

fn succeed(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("needs {name}"))?;
    ensure!(status.success(), "{name} failed: {status}");
    Ok(())
}
