//! From what the user asks for to probes: which functions of a module match, where their probes go and
//! what those read. Reads the module's files and nothing else; attaches nothing.

use std::path::Path;
use std::sync::Arc;

use agent_common::function::{OPS_MAX, Op, op};

use super::facts::SourcePosition;
use super::future;
use super::pattern::{Called, Pattern, Patterns};
use super::site::{Placement, Site, SiteKind};
use super::value::{self, Reader};
use crate::inspect::address::VirtAddr;
use crate::inspect::code;
use crate::inspect::debug_file::Lookup;
use crate::inspect::demangle::Language;
use crate::inspect::dwarf::{Debug, Described};
use crate::inspect::elf::{ElfError, Module};
use crate::inspect::symbols::{Function, Index, SymbolError};

/// Why a module cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// It cannot be read.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// Its functions cannot be listed.
    #[error(transparent)]
    Symbols(#[from] SymbolError),
}

/// A module as it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its file: anything that can be opened.
    pub file: &'a Path,
    /// What patterns call it.
    pub called: Called<'a>,
    /// Where debug files are looked for.
    pub lookup: Lookup<'a>,
    /// Whether its goroutines can be told apart.
    pub knows_goroutines: bool,
}

/// What is to be probed of a module.
#[derive(Debug, Default)]
pub struct ModulePlan {
    /// In the order of their addresses.
    pub functions: Vec<Planned>,
    /// What matches but is not probed, and why.
    pub refused: Vec<Refused>,
}

/// A function that is to be probed.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Demangled.
    pub name: String,
    /// Its first instruction.
    pub address: VirtAddr,
    /// Its language.
    pub language: Language,
    /// Where its source is.
    pub source: Option<SourcePosition>,
    /// Its probes.
    pub placement: Placement,
    /// Where those of its probes that stand on jumps go, as far as the instruction says.
    pub jumps: Vec<Option<VirtAddr>>,
    /// What the entry reads.
    pub entry: Code,
    /// What each end reads.
    pub end: Code,
    /// The pattern that asked for it.
    pub pattern: Arc<Pattern>,
}

impl Planned {
    /// What a probe of this kind reads: a result is there only at a return. What returns where it was
    /// entered has arguments there, and had no instruction to make a result.
    pub fn code(&self, kind: SiteKind) -> &Code {
        static NOTHING: Code = Code { ops: Vec::new(), reader: None };
        match kind {
            SiteKind::Return => &self.end,
            kind if kind.is_entry() => &self.entry,
            _ => &NOTHING,
        }
    }
}

/// What a probe reads.
#[derive(Clone, Debug, Default)]
pub struct Code {
    /// For the kernel half.
    pub ops: Vec<Op>,
    /// For what that writes.
    pub reader: Option<Reader>,
}

impl From<value::Compiled> for Code {
    fn from(compiled: value::Compiled) -> Self {
        let reader = (!compiled.reader.is_empty()).then_some(compiled.reader);
        Self { ops: compiled.ops, reader }
    }
}

/// A function that matches but is not probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Demangled.
    pub name: String,
    /// Why, as a sentence's end.
    pub reason: String,
}

/// Plans a module.
///
/// # Errors
/// If its file cannot be read. What is wrong with a single function is in the plan.
pub fn plan(place: &Place<'_>, patterns: &Patterns) -> Result<ModulePlan, PlanError> {
    if !patterns.concern(&place.called) {
        return Ok(ModulePlan::default());
    }
    let module = Module::open(place.file)?;
    let index = Index::read(&module, place.lookup)?;
    Ok(plan_listed(place, (&module, &index), patterns))
}

/// Plans a module of which the functions are listed.
pub fn plan_listed(
    place: &Place<'_>,
    (module, index): (&Module, &Index),
    patterns: &Patterns,
) -> ModulePlan {
    let mut plan = ModulePlan::default();
    let wants = |name: &str| patterns.find(&place.called, name).is_some();
    let functions = index.functions(wants);
    if functions.is_empty() {
        return plan;
    }
    let debug = Debug::open(place.file, place.lookup).ok().filter(|debug| !debug.is_empty());
    for function in functions {
        let Some(pattern) = patterns.find(&place.called, &function.name) else {
            continue;
        };
        match plan_function(place, module, index, debug.as_ref(), &function, pattern) {
            Ok(planned) => plan.functions.push(planned),
            Err(reason) => plan.refused.push(Refused { name: function.name, reason }),
        }
    }
    plan
}

fn plan_function(
    place: &Place<'_>,
    module: &Module,
    index: &Index,
    debug: Option<&Debug>,
    function: &Function,
    pattern: &Arc<Pattern>,
) -> Result<Planned, String> {
    if function.language == Language::Go && !place.knows_goroutines {
        return Err("it is not known how this version of Go tells goroutines apart".to_owned());
    }
    let placement = code::place(module, index, function).map_err(|refusal| refusal.to_string())?;
    let described = debug.and_then(|debug| {
        // Where nothing sound describes it, there are no values.
        debug.describe(function.address, placement.entry.address).ok()
    });
    let (entry, end) = match &described {
        Some(described) => values(described, pattern)?,
        None => (Code::default(), Code::default()),
    };
    let mut entry = entry;
    if let Some(code) = described.as_ref().and_then(future::code)
        && entry.ops.len() + code.len() <= OPS_MAX
    {
        entry.ops.splice(0..0, code);
    }
    if pattern.options.stack && entry.ops.len() < OPS_MAX {
        // First, because a read that fails leaves out what follows.
        entry.ops.insert(0, Op { code: op::IMAGE, ..Op::default() });
    }
    let source = described.as_ref().and_then(|described| {
        let file = described.file.as_ref()?.to_string();
        let line = described.line.and_then(|line| u32::try_from(line).ok()).unwrap_or(0);
        Some(SourcePosition { file, line })
    });
    let jumps = placement.sites().map(|site| jump(module, site)).collect();
    Ok(Planned {
        name: function.name.clone(),
        address: function.address,
        language: function.language,
        source,
        placement,
        jumps,
        entry,
        end,
        pattern: Arc::clone(pattern),
    })
}

/// Where a direct jump goes (Intel SDM, "JMP": `E9` and `EB`, and "Jcc"). One that is an end whether it is
/// taken or not may go on to what follows it.
fn jump(module: &Module, site: &Site) -> Option<VirtAddr> {
    let address = site.address;
    let bytes = module.read(address, 6).ok()?;
    let (behind, offset) = match *bytes.as_slice() {
        [0xe9, a, b, c, d, ..] => (5, i64::from(i32::from_le_bytes([a, b, c, d]))),
        [0xeb, offset, ..] => (2, i64::from(offset as i8)),
        _ if site.jumps_if.is_none() => return None,
        [0x0f, 0x80..=0x8f, a, b, c, d] => (6, i64::from(i32::from_le_bytes([a, b, c, d]))),
        [0x70..=0x7f, offset, ..] => (2, i64::from(offset as i8)),
        _ => return None,
    };
    Some(VirtAddr(address.0.wrapping_add(behind).wrapping_add_signed(offset)))
}

fn values(described: &Described, pattern: &Pattern) -> Result<(Code, Code), String> {
    let Some(options) = pattern.values() else { return Ok((Code::default(), Code::default())) };
    let entry = value::compile(described, &options).map_err(|error| error.to_string())?;
    let end = value::compile_result(described, &options);
    Ok((entry.into(), end.into()))
}
