//! `remora functions`: which functions of a process or a file can be traced. Attaches nothing.

mod near;
mod signature;
mod tracepoints;

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::CliError;
use super::options::{DebugOptions, UsageError};
use super::table::{json_lines, print, table};
use crate::discover::process::{self, ProcessError};
use crate::event::ids::Tgid;
use crate::function::pattern::{Called, Patterns};
use crate::function::site::{CostClass, Placement, SiteKind};
use crate::inspect::code;
use crate::inspect::debug_file::{Lookup, Server};
use crate::inspect::demangle::{self, Language, Variant};
use crate::inspect::dwarf::{Debug, Described};
use crate::inspect::elf::{ElfError, Module};
use crate::inspect::symbols::{Function, Index, Origin, SymbolError};

/// Flags of `remora functions`.
#[derive(Debug, Args)]
pub(super) struct Functions {
    /// Look into this process: its executable, and its libraries where a pattern names them
    #[arg(long, value_name = "PID", required_unless_present = "file", conflicts_with = "file")]
    pid: Option<u32>,
    /// Look into this executable or library, without a process
    #[arg(long = "exe-file", value_name = "PATH")]
    file: Option<PathBuf>,
    /// Which functions, as for `remora run --functions`; none: all of the executable
    #[arg(value_name = "[MODULE!]GLOB")]
    patterns: Vec<String>,
    /// List static tracepoints (USDT) instead: patterns are matched with PROVIDER:NAME
    #[arg(long)]
    usdt: bool,
    #[command(flatten)]
    debug: DebugOptions,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Why functions cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// There is no such process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Its executable cannot be read.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// Its functions cannot.
    #[error(transparent)]
    Symbols(#[from] SymbolError),
    /// It may not be looked into.
    #[error("cannot look into process {}, run with sudo", tgid.0)]
    Closed {
        /// The process.
        tgid: Tgid,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Nothing matches.
    #[error("no function matches {}{}", .patterns.join(", "), near::suggestion(.near))]
    NoMatch {
        /// What was asked for.
        patterns: Vec<String>,
        /// Names that are like it.
        near: Vec<String>,
    },
    /// There are none.
    #[error("{} has no static tracepoints that match", .what)]
    NoTracepoints {
        /// The process or file.
        what: String,
    },
}

/// A file to look into.
struct Place {
    open: PathBuf,
    name: String,
    other_names: Vec<String>,
    is_executable: bool,
}

impl Place {
    fn called(&self) -> Called<'_> {
        let Self { name, other_names, is_executable, .. } = self;
        Called { name, other_names, is_executable: *is_executable }
    }
}

/// A function that matches.
#[derive(Serialize)]
struct Row {
    name: String,
    module: String,
    /// As the linker gave it, hexadecimal.
    address: String,
    linkage: String,
    language: &'static str,
    /// What the compiler did to it, if it is not as the source says.
    variant: Option<&'static str>,
    /// `emulated` or `stepped`: what a probe of its entry costs.
    cost: Option<&'static str>,
    /// How many instructions it returns at, and at how many it ends in another function.
    returns: usize,
    tail_calls: usize,
    /// Why it cannot be traced.
    refused: Option<String>,
    signature: Option<String>,
    file: Option<String>,
    line: Option<u64>,
}

pub(super) fn functions(options: &Functions) -> Result<(), CliError> {
    let all = ["*".to_owned()];
    let everywhere = ["*!*".to_owned()];
    let texts = match options.patterns.as_slice() {
        [] if options.usdt => &everywhere,
        [] => &all,
        patterns => patterns,
    };
    let patterns = Patterns::parse(texts).map_err(UsageError::from)?;
    let (places, root) = places(options)?;
    if options.usdt {
        return tracepoints::list(&places, &patterns, options.json);
    }
    let debuginfod = options.debug.servers()?;
    let server = debuginfod.as_deref().map(|server| server as &dyn Server);
    let lookup = Lookup { root: &root, server };
    let mut rows = Vec::new();
    let mut near = near::Near::new(texts);
    let mut stripped = None;
    for place in places.iter().filter(|p| patterns.concern(&p.called())) {
        match list(place, lookup, &patterns, &mut near, &mut rows) {
            Ok(is_stripped) => {
                if is_stripped && place.is_executable {
                    stripped = Some(place.open.clone());
                }
            }
            // A library that cannot be read hides nothing of the executable.
            Err(error) if place.is_executable => return Err(error.into()),
            Err(error) => tracing::warn!(module = place.name, %error, "cannot look for functions"),
        }
    }
    if rows.is_empty() {
        let error = match stripped {
            Some(path) => SymbolError::Stripped { path }.into(),
            None => ListError::NoMatch {
                patterns: texts.iter().map(|text| format!("`{text}`")).collect(),
                near: near.found(),
            },
        };
        return Err(error.into());
    }
    if options.json {
        return json_lines(&rows);
    }
    let cells: Vec<_> = rows.iter().map(cells).collect();
    print(&table(["MODULE", "ADDRESS", "PROBE", "ENDS", "SOURCE", "FUNCTION"], &cells))
}

/// The files, and what absolute paths of debug files are meant below.
fn places(options: &Functions) -> Result<(Vec<Place>, PathBuf), ListError> {
    if let Some(path) = &options.file {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let (open, name, other_names) = (path.clone(), name.unwrap_or_default(), Vec::new());
        let place = Place { open, name, other_names, is_executable: true };
        return Ok((vec![place], PathBuf::from("/")));
    }
    let pid = options.pid.unwrap_or_default();
    let tgid = Tgid(pid);
    process::read(Path::new("/proc"), tgid)?;
    std::fs::read(format!("/proc/{pid}/maps"))
        .map_err(|source| ListError::Closed { tgid, source })?;
    let mapped = crate::run::mapped(tgid).into_iter().map(crate::run::Mapped::with_own_name);
    let place = |mapped: crate::run::Mapped| Place {
        open: mapped.open,
        name: mapped.name,
        other_names: mapped.other_names,
        is_executable: mapped.is_executable,
    };
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    Ok((mapped.map(place).collect(), root))
}

/// Adds what matches in a file; tells whether the file is stripped.
fn list(
    place: &Place,
    lookup: Lookup<'_>,
    patterns: &Patterns,
    near: &mut near::Near,
    rows: &mut Vec<Row>,
) -> Result<bool, ListError> {
    let module = Module::open(&place.open)?;
    let index = Index::read(&module, lookup)?;
    let functions = index.functions(|name| {
        near.see(name);
        patterns.find(&place.called(), name).is_some()
    });
    let debug = match functions.is_empty() {
        true => None,
        false => Debug::open(&place.open, lookup).ok().filter(|debug| !debug.is_empty()),
    };
    rows.extend(
        functions.iter().map(|function| row(place, &module, &index, debug.as_ref(), function)),
    );
    Ok(index.is_stripped())
}

fn row(
    place: &Place,
    module: &Module,
    index: &Index,
    debug: Option<&Debug>,
    function: &Function,
) -> Row {
    let placement = code::place(module, index, function);
    let described: Option<Described> = debug.and_then(|debug| {
        let pc = placement.as_ref().map_or(function.address, |placement| placement.entry.address);
        debug.describe(function.address, pc).ok()
    });
    let count = |is_it: fn(SiteKind) -> bool| {
        let sites = placement.iter().flat_map(Placement::sites);
        sites.filter(|site| is_it(site.kind)).count()
    };
    let (returns, tail_calls) = (count(SiteKind::is_return), count(SiteKind::is_tail_call));
    Row {
        name: function.name.clone(),
        module: place.name.clone(),
        address: format!("{:#x}", function.address.0),
        linkage: function.linkage.clone(),
        language: match function.language {
            // A name that is not mangled is not told from one of C.
            Language::C if function.origin == Origin::GoTable => Language::Go.name(),
            language => language.name(),
        },
        variant: variant(function.variant),
        cost: placement.as_ref().ok().map(|placement| match placement.entry.cost {
            CostClass::Emulated => "emulated",
            CostClass::Stepped => "stepped",
        }),
        returns,
        tail_calls,
        refused: placement.as_ref().err().map(ToString::to_string),
        signature: match &described {
            Some(described) => Some(signature::text(&function.name, described)),
            None => Some(demangle::full(&function.linkage)).filter(|full| *full != function.name),
        },
        file: described.as_ref().and_then(|d| d.file.as_ref()).map(ToString::to_string),
        line: described.as_ref().and_then(|described| described.line),
    }
}

fn variant(variant: Variant) -> Option<&'static str> {
    Some(match variant {
        Variant::Plain => return None,
        Variant::Renamed => "renamed",
        Variant::Specialized => "specialized",
        Variant::Part => "part",
        Variant::Cold => "cold",
        Variant::Processor => "processor",
        Variant::GoWrapper => "go_wrapper",
        Variant::GoShape => "go_shape",
        Variant::Resolver => "resolver",
    })
}

fn cells(row: &Row) -> [String; 6] {
    let ends = row.returns + row.tail_calls;
    let source = row.file.as_ref().map(|file| {
        let name = file.rsplit('/').next().unwrap_or(file);
        row.line.map_or_else(|| name.to_owned(), |line| format!("{name}:{line}"))
    });
    let name = row.signature.as_ref().unwrap_or(&row.name);
    let note = match (&row.refused, row.variant) {
        (Some(reason), _) => format!("  (not traced: {reason})"),
        (None, Some(variant)) => format!("  ({})", variant.replace('_', " ")),
        (None, None) => String::new(),
    };
    [
        row.module.clone(),
        row.address.clone(),
        match row.cost {
            Some("emulated") => "cheap".to_owned(),
            Some(cost) => cost.to_owned(),
            None => "-".to_owned(),
        },
        if row.refused.is_some() { "-".to_owned() } else { ends.to_string() },
        source.unwrap_or_else(|| "-".to_owned()),
        // Names come out of a file: none moves the cursor.
        format!("{name}{note}").replace(char::is_control, " "),
    ]
}
