//! `remora ps`: what could be traced here.

use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::CliError;
use super::table::{json_lines, print, table};
use crate::discover::process::Facts;
use crate::discover::resource::{self, Host};
use crate::discover::{listeners, process, redact_args};
use crate::event::ids::Tgid;
use crate::inspect::{runtime, tls};
use crate::platform::privileges;

/// Flags of `remora ps`.
#[derive(Debug, Args)]
pub(super) struct Ps {
    /// Also processes that listen on no TCP port
    #[arg(long)]
    all: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// A process that could be traced.
#[derive(Serialize)]
struct Row {
    pid: u32,
    service: String,
    runtime: Option<String>,
    tls: Option<String>,
    ports: Vec<u16>,
    /// What would be captured.
    captured: &'static str,
    user_id: Option<u32>,
    container_id: Option<String>,
    exe: String,
    args: Vec<String>,
}

pub(super) fn ps(options: &Ps) -> Result<(), CliError> {
    privileges::warn_of_blindness();
    let rows = rows(options.all)?;
    if options.json {
        return json_lines(&rows);
    }
    if rows.is_empty() {
        return print("no process listens on a TCP port here: see `remora ps --all`\n");
    }
    let cells: Vec<_> = rows.iter().map(cells).collect();
    print(&table(["PID", "SERVICE", "RUNTIME", "TLS", "PORTS", "CAPTURED", "COMMAND"], &cells))
}

fn rows(all: bool) -> Result<Vec<Row>, CliError> {
    let proc = Path::new("/proc");
    let list = process::all(proc).map_err(|source| CliError::Read { what: "/proc", source })?;
    let host = Host::read();
    let mut ports = listeners::by_process(&list);
    let mut rows = Vec::new();
    for tgid in list {
        if tgid.0 == std::process::id() || (!all && !ports.contains_key(&tgid)) {
            continue;
        }
        // Gone meanwhile, or a kernel thread.
        let Ok(facts) = process::read(proc, tgid) else { continue };
        let mine = ports.remove(&tgid).unwrap_or_default();
        rows.push(row(proc, &facts, mine.into_iter().collect(), &host));
    }
    rows.sort_by_key(|row| row.pid);
    Ok(rows)
}

fn row(proc: &Path, facts: &Facts, ports: Vec<u16>, host: &Host) -> Row {
    let runtime = runtime::detect(proc, facts);
    let resource = resource::resource(facts, runtime.as_ref(), host);
    let tls = tls::detect(proc, Tgid(facts.tgid.0)).map(|(_, file)| file);
    Row {
        pid: facts.tgid.0,
        service: resource.service_name,
        runtime: runtime.map(|runtime| format!("{} {}", runtime.name, runtime.version)),
        captured: if tls.is_some() { "HTTP/1 (not inside TLS)" } else { "HTTP/1" },
        tls,
        ports,
        user_id: facts.uid,
        container_id: crate::discover::container::container_id(&facts.cgroups).map(str::to_owned),
        exe: facts.exe.to_string_lossy().into_owned(),
        args: redact_args::redact(&facts.args),
    }
}

/// Longest command shown in the table, in characters.
const COMMAND_MAX: usize = 60;

fn cells(row: &Row) -> [String; 7] {
    let ports: Vec<_> = row.ports.iter().map(u16::to_string).collect();
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let mut command = row.args.join(" ").replace(char::is_control, " ");
    if let Some((cut, _)) = command.char_indices().nth(COMMAND_MAX) {
        command.truncate(cut);
        command.push('…');
    }
    [
        row.pid.to_string(),
        row.service.clone(),
        or_dash(&row.runtime).trim().to_owned(),
        or_dash(&row.tls),
        if ports.is_empty() { "-".to_owned() } else { ports.join(",") },
        row.captured.to_owned(),
        command,
    ]
}
