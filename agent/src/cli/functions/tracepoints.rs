//! Static tracepoints, listed.

use serde::Serialize;

use super::{ListError, Place};
use crate::cli::CliError;
use crate::cli::table::{json_lines, print, table};
use crate::function::pattern::Patterns;
use crate::inspect::elf::Module;
use crate::inspect::usdt::{self, Argument};

#[derive(Serialize)]
struct Row {
    provider: String,
    name: String,
    module: String,
    /// As the linker gave it, hexadecimal.
    address: String,
    /// Whether the program only prepares arguments while somebody listens.
    semaphore: bool,
    /// The kind of each argument; `?` where its place is not understood.
    arguments: Vec<String>,
}

pub(super) fn list(places: &[Place], patterns: &Patterns, json: bool) -> Result<(), CliError> {
    let mut rows = Vec::new();
    for place in places {
        let found = Module::open(&place.open)
            .map_err(ListError::from)
            .and_then(|module| Ok(usdt::tracepoints(&module)?));
        let found = match found {
            Ok(found) => found,
            Err(error) if place.is_executable => return Err(error.into()),
            Err(error) => {
                tracing::warn!(module = place.name, %error, "cannot look for tracepoints");
                continue;
            }
        };
        for point in found {
            let name = format!("{}:{}", point.provider, point.name);
            if patterns.find(&place.called(), &name).is_none() {
                continue;
            }
            rows.push(Row {
                provider: point.provider,
                name: point.name,
                module: place.name.clone(),
                address: format!("{:#x}", point.address.0),
                semaphore: point.semaphore.is_some(),
                arguments: point.arguments.iter().map(argument).collect(),
            });
        }
    }
    if rows.is_empty() {
        let what = places.first().map(|place| place.name.clone()).unwrap_or_default();
        return Err(ListError::NoTracepoints { what }.into());
    }
    if json {
        return json_lines(&rows);
    }
    let cells: Vec<_> = rows.iter().map(cells).collect();
    print(&table(["MODULE", "ADDRESS", "SEMAPHORE", "TRACEPOINT"], &cells))
}

fn argument(argument: &Option<Argument>) -> String {
    match argument {
        None => "?".to_owned(),
        Some(Argument { float: true, size, .. }) => format!("f{}", u32::from(*size) * 8),
        Some(Argument { signed: true, size, .. }) => format!("i{}", u32::from(*size) * 8),
        Some(Argument { size, .. }) => format!("u{}", u32::from(*size) * 8),
    }
}

fn cells(row: &Row) -> [String; 4] {
    let semaphore = if row.semaphore { "yes" } else { "no" };
    let point = format!("{}:{}({})", row.provider, row.name, row.arguments.join(", "));
    let point = point.replace(char::is_control, " ");
    [row.module.clone(), row.address.clone(), semaphore.to_owned(), point]
}
