//! What a process is called in a trace: its resource, by the semantic conventions (1.44).

use std::path::Path;

use super::container;
use super::process::Facts;
use super::redact_args;
use crate::event::ids::Tgid;
use crate::inspect::runtime::Runtime;
use crate::span::attributes::{Attributes, Value};
use crate::span::model::Resource;

/// What is the same for every process of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// `/etc/machine-id`; empty if there is none.
    pub id: String,
    /// Processor architecture in OpenTelemetry's words.
    pub arch: &'static str,
    /// Kernel name and release.
    pub os_description: String,
}

impl Host {
    /// Reads this host's.
    pub fn read() -> Self {
        let line = |path: &str| {
            std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
        };
        Self {
            name: line("/proc/sys/kernel/hostname"),
            id: line("/etc/machine-id"),
            arch: if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
            os_description: format!("Linux {}", line("/proc/sys/kernel/osrelease")),
        }
    }
}

/// The resource of a process.
pub fn resource(facts: &Facts, runtime: Option<&Runtime>, host: &Host) -> Resource {
    let told = told_attributes(facts.otel_resource_attributes.as_deref().unwrap_or_default());
    let container = container::container_id(&facts.cgroups);
    let told_name = told.iter().find(|(key, _)| key == "service.name").map(|(_, name)| name);
    let service_name = facts
        .otel_service_name
        .clone()
        .or_else(|| told_name.filter(|name| !name.is_empty()).cloned())
        .or_else(|| {
            // Inside a container the unit is the container engine's.
            let unit = container::systemd_unit(&facts.cgroups).filter(|_| container.is_none());
            unit.map(str::to_owned)
        })
        .unwrap_or_else(|| program_name(facts));
    let mut attributes = Attributes::with_capacity(1024);
    attributes.text("service.name", &service_name);
    for (key, value) in told.iter().filter(|(key, _)| key != "service.name") {
        attributes.push(key, Value::Text(value));
    }
    let has = |key: &str| told.iter().any(|(name, _)| name == key);
    if !has("service.instance.id") {
        let id = format!("{}:{}:{}", host.name, facts.tgid.0, facts.start_ticks);
        attributes.text("service.instance.id", &id);
    }
    attributes.int("process.pid", i64::from(facts.tgid.0));
    if facts.inner_pid != facts.tgid.0 {
        attributes.int("process.vpid", i64::from(facts.inner_pid));
    }
    if facts.parent != Tgid(0) {
        attributes.int("process.parent_pid", i64::from(facts.parent.0));
    }
    if let Some(uid) = facts.uid {
        attributes.int("process.user.id", i64::from(uid));
    }
    if let Some(name) = facts.exe.file_name() {
        attributes.text("process.executable.name", &name.to_string_lossy());
        attributes.text("process.executable.path", &facts.exe.to_string_lossy());
    }
    let args = redact_args::redact(&facts.args);
    if !args.is_empty() {
        attributes.push("process.command_args", Value::texts(&args));
    }
    if let Some(runtime) = runtime {
        attributes.text("process.runtime.name", runtime.name);
        if !runtime.version.is_empty() {
            attributes.text("process.runtime.version", &runtime.version);
        }
    }
    if let Some(id) = container {
        attributes.text("container.id", id);
    }
    attributes.text("host.name", &host.name);
    if !host.id.is_empty() {
        attributes.text("host.id", &host.id);
    }
    attributes.text("host.arch", host.arch);
    attributes.text("os.type", "linux");
    attributes.text("os.description", &host.os_description);
    attributes.text("telemetry.sdk.name", "remora");
    if let Some(runtime) = runtime {
        attributes.text("telemetry.sdk.language", runtime.language);
    }
    attributes.text("telemetry.sdk.version", env!("CARGO_PKG_VERSION"));
    Resource { attributes, service_name }
}

/// Most attributes that are taken from there.
const TOLD_MAX: usize = 128;

/// `OTEL_RESOURCE_ATTRIBUTES`: `key=value,…`, percent-encoded. Malformed as a whole is none at all,
/// as the specification asks.
fn told_attributes(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let all = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    for pair in all.take(TOLD_MAX) {
        let Some((key, value)) = pair.split_once('=') else { return Vec::new() };
        let (Some(key), Some(value)) = (unescape(key.trim()), unescape(value.trim())) else {
            return Vec::new();
        };
        if key.is_empty() {
            return Vec::new();
        }
        pairs.retain(|(known, _)| *known != key);
        pairs.push((key, value));
    }
    pairs
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = (rest.next()? as char).to_digit(16)?;
            let low = (rest.next()? as char).to_digit(16)?;
            bytes.push((high * 16 + low) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// What the specification calls a service without a name.
const UNKNOWN: &str = "unknown_service";

/// Interpreters, whose script names the service better than they do.
const INTERPRETERS: [&str; 11] =
    ["python", "node", "nodejs", "ruby", "perl", "php", "java", "bash", "sh", "deno", "bun"];

/// The script's name for an interpreter, else the executable's.
fn program_name(facts: &Facts) -> String {
    let exe = facts.exe.file_name().map(|name| name.to_string_lossy().into_owned());
    let exe = exe.filter(|name| !name.is_empty()).unwrap_or_else(|| facts.comm.clone());
    let exe = if exe.is_empty() { UNKNOWN.to_owned() } else { exe };
    let stem = exe.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    if !INTERPRETERS.contains(&stem) {
        return exe;
    }
    script_name(stem, facts).filter(|name| !name.is_empty()).unwrap_or(exe)
}

fn script_name(interpreter: &str, facts: &Facts) -> Option<String> {
    if let [title] = &facts.args[..] {
        return title_name(interpreter, title);
    }
    let mut args = facts.args.iter().skip(1).map(String::as_str);
    while let Some(arg) = args.next() {
        match arg {
            "-m" if interpreter == "python" => return args.next().map(str::to_owned),
            "-jar" => return args.next().map(stem_of),
            "-c" | "-e" => return None,
            "-cp" | "-classpath" | "--class-path" | "-W" | "-X" | "-r" | "--require" => {
                args.next();
            }
            _ if arg.starts_with('-') => {}
            // A Java class: its last name.
            _ if interpreter == "java" => {
                let class = arg.rsplit(['.', '/']).next().unwrap_or(arg);
                return Some(if arg.ends_with(".java") { stem_of(arg) } else { class.to_owned() });
            }
            _ => return Some(script_or_directory(arg, &facts.cwd)),
        }
    }
    None
}

/// A program that has written a title over its arguments (`puma 6.4 (tcp://…) [shop]`,
/// `gunicorn: master [shop]`) begins it with its name.
fn title_name(interpreter: &str, title: &str) -> Option<String> {
    let (name, _) = title.split_once(' ')?;
    let name = stem_of(name.trim_end_matches(':'));
    (!name.is_empty() && !name.starts_with(interpreter)).then_some(name)
}

/// `server.js` and the like say nothing; the directory they are in does.
fn script_or_directory(script: &str, cwd: &Path) -> String {
    let stem = stem_of(script);
    if !matches!(stem.as_str(), "index" | "main" | "server" | "app" | "__main__") {
        return stem;
    }
    let path = cwd.join(script);
    let directory = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy());
    match directory.as_deref() {
        None | Some("" | "src" | "bin" | "dist" | "build" | "tmp") => stem,
        Some(directory) => directory.to_owned(),
    }
}

fn stem_of(path: &str) -> String {
    let stem = Path::new(path).file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
