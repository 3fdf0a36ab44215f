//! `remora plan`: exactly what would be attached where, and why. Attaches nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::CliError;
use super::options::{RunOptions, Selection, UsageError};
use super::table::{json_lines, print, table};
use crate::discover::process::Facts;
use crate::discover::rules::Rules;
use crate::discover::{listeners, process, resource};
use crate::event::ids::Tgid;
use crate::function::site::Site;
use crate::inspect::runtime;
use crate::platform::btf::Btf;
use crate::platform::privileges;
use crate::probe::{Source, plan};
use crate::run::Wishes;

/// Flags of `remora plan`.
#[derive(Debug, Args)]
pub(super) struct Plan {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    options: RunOptions,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Row {
    Source { name: &'static str, description: &'static str },
    Probe { program: &'static str, hook: &'static str, purpose: &'static str },
    Process { pid: u32, service: String, matched_by: String, note: &'static str },
    Missing { pid: u32, error: String },
    Function { pid: u32, module: String, function: String, offsets: Vec<String> },
    Exception { pid: u32, module: String, function: String, offsets: Vec<String> },
    Usdt { pid: u32, module: String, tracepoint: String, offsets: Vec<String> },
    Refused { pid: u32, module: String, function: String, reason: String },
}

pub(super) fn plan(options: &Plan) -> Result<(), CliError> {
    let rules = options.selection.rules()?;
    if rules.is_empty() {
        return Err(UsageError::NothingToTrace.into());
    }
    // The same checks as `run` makes.
    options.options.capture.probe(rules.matches_new_programs())?;
    let kernel = Btf::from_sys_fs().map_err(crate::probe::CaptureError::from);
    let kernel = kernel.map_err(crate::run::RunError::from)?;
    let known = || Source::ALL.into_iter().find(|source| source.is_known_to(&kernel));
    let source = options.options.capture.source.demanded().or_else(known);
    let wishes = options.options.functions.wishes()?;
    let mut rows = Vec::new();
    if let Some(source) = source {
        rows.push(Row::Source { name: source.as_str(), description: source.describe() });
        rows.extend(plan::probes(source, &kernel).into_iter().map(|probe| Row::Probe {
            program: probe.program,
            hook: probe.hook,
            purpose: probe.purpose,
        }));
    }
    let others = plan::for_functions(!wishes.is_empty(), wishes.exceptions);
    rows.extend(others.map(|probe| Row::Probe {
        program: probe.program,
        hook: probe.hook,
        purpose: probe.purpose,
    }));
    privileges::warn_of_blindness();
    processes(&rules, &wishes, &mut rows)?;
    if options.options.destinations.json {
        return json_lines(&rows);
    }
    print(&render(&rows, &rules))
}

fn processes(rules: &Rules, wishes: &Wishes, rows: &mut Vec<Row>) -> Result<(), CliError> {
    let proc = Path::new("/proc");
    let list = process::all(proc).map_err(|source| CliError::Read { what: "/proc", source })?;
    let host = resource::Host::read();
    let mut ports = match rules.ports.is_empty() {
        true => HashMap::new(),
        false => listeners::by_process(&list),
    };
    for tgid in &rules.pids {
        if let Err(error) = process::read(proc, *tgid) {
            rows.push(Row::Missing { pid: tgid.0, error: error.to_string() });
        }
    }
    let all: Vec<Facts> = list.iter().filter_map(|tgid| process::read(proc, *tgid).ok()).collect();
    let mut by_port: HashMap<Tgid, u16> = HashMap::new();
    for tgid in &list {
        let mine = ports.remove(tgid).unwrap_or_default();
        let port = rules.ports.iter().find(|port| mine.contains(port));
        by_port.extend(port.map(|port| (*tgid, *port)));
    }
    listeners::add_workers(&all, &mut by_port);
    for facts in all {
        let tgid = facts.tgid;
        let matched_by = match by_port.get(&tgid) {
            _ if tgid == Tgid(std::process::id()) => continue,
            _ if rules.pids.contains(&tgid) => "--pid".to_owned(),
            Some(port) => format!("--port {port}"),
            None if rules.all => "--all".to_owned(),
            None if rules.wants(&facts) => "--exe".to_owned(),
            None => continue,
        };
        let runtime = runtime::detect(proc, &facts);
        let note = match &runtime {
            Some(runtime) if runtime.multiplexes_tasks && runtime.goroutines.is_none() => {
                "spans of its own calls stay without a parent: its threads share requests"
            }
            _ => "",
        };
        let service = resource::resource(&facts, runtime.as_ref(), &host).service_name;
        rows.push(Row::Process { pid: tgid.0, service, matched_by, note });
        let knows_goroutines = runtime.is_some_and(|runtime| runtime.goroutines.is_some());
        functions(tgid, wishes, knows_goroutines, rows);
    }
    Ok(())
}

/// The probes on functions of a process, and on what raises exceptions in it, and its static tracepoints.
fn functions(tgid: Tgid, wishes: &Wishes, knows_goroutines: bool, rows: &mut Vec<Row>) {
    let pid = tgid.0;
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    for mapped in crate::run::mapped(tgid) {
        let mapped = mapped.with_own_name();
        if !crate::run::concern(wishes, &mapped) {
            continue;
        }
        let module = || mapped.name.clone();
        let found = match crate::run::look(wishes, &mapped, &root, knows_goroutines) {
            Ok(found) => found,
            Err(error) => {
                rows.push(Row::Missing { pid, error: format!("{}: {error}", mapped.name) });
                continue;
            }
        };
        for planned in found.plan.functions {
            let offsets = offsets(planned.placement.sites().copied());
            rows.push(Row::Function { pid, module: module(), function: planned.name, offsets });
        }
        for refused in found.plan.refused {
            let (function, reason) = (refused.name, refused.reason);
            rows.push(Row::Refused { pid, module: module(), function, reason });
        }
        for hook in found.hooks {
            let offsets = offsets([hook.site]);
            rows.push(Row::Exception { pid, module: module(), function: hook.name, offsets });
        }
        for refused in found.unseen {
            let (function, reason) = (refused.name, refused.reason);
            rows.push(Row::Refused { pid, module: module(), function, reason });
        }
        for tracepoint in found.tracepoints {
            let offsets = offsets(tracepoint.places.iter().map(|place| place.site));
            rows.push(Row::Usdt { pid, module: module(), tracepoint: tracepoint.name, offsets });
        }
    }
}

fn offsets(sites: impl IntoIterator<Item = Site>) -> Vec<String> {
    sites.into_iter().map(|site| format!("{:#x}", site.offset.0)).collect()
}

fn render(rows: &[Row], rules: &Rules) -> String {
    let mut text = String::new();
    let mut probes = Vec::new();
    let mut processes = Vec::new();
    let mut missing = Vec::new();
    let mut functions = Vec::new();
    for row in rows {
        match row {
            Row::Source { name, description } => {
                text.push_str(&format!("capture source `{name}`: {description}\n\n"));
            }
            Row::Probe { program, hook, purpose } => {
                probes.push([*program, *hook, *purpose].map(str::to_owned));
            }
            Row::Process { pid, service, matched_by, note } => {
                let note = (*note).to_owned();
                processes.push([pid.to_string(), service.clone(), matched_by.clone(), note]);
            }
            Row::Missing { error, .. } => missing.push(format!("! {error}\n")),
            Row::Function { pid, module, function, offsets } => {
                let place = format!("{module}+{}", offsets.join(", +"));
                functions.push([pid.to_string(), function.clone(), place]);
            }
            Row::Exception { pid, module, function, offsets } => {
                let place = format!("{module}+{}", offsets.join(", +"));
                let name = format!("{function} (exceptions)");
                functions.push([pid.to_string(), name, place]);
            }
            Row::Usdt { pid, module, tracepoint, offsets } => {
                let place = format!("{module}+{}", offsets.join(", +"));
                functions.push([pid.to_string(), format!("{tracepoint} (static)"), place]);
            }
            Row::Refused { pid, module, function, reason } => {
                let why = format!("{module}: not probed: {reason}");
                functions.push([pid.to_string(), function.clone(), why]);
            }
        }
    }
    if probes.is_empty() {
        text.push_str("no capture source is known to this kernel: see `remora doctor`\n");
    } else {
        text.push_str(&table(["PROGRAM", "ATTACHED TO", "WHY"], &probes));
    }
    text.push('\n');
    if processes.is_empty() {
        text.push_str("no running process matches\n");
    } else {
        text.push_str(&table(["PID", "SERVICE", "MATCHED BY", "NOTE"], &processes));
    }
    if !functions.is_empty() {
        text.push('\n');
        text.push_str(&table(["PID", "FUNCTION", "UPROBES AT"], &functions));
    }
    text.extend(missing);
    if rules.matches_new_programs() {
        text.push_str("programs that start later and match are traced from their first request\n");
    }
    text.push_str("nothing was attached\n");
    text
}
