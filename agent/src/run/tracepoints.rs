//! Probes static tracepoints (USDT) that the user asks for, in the modules of each process as it begins
//! to be traced: each hit becomes an event of the span that its thread is in the middle of.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use globset::{Glob, GlobMatcher};

use super::functions::{FileId, Mapped};
use crate::event::ids::Tgid;
use crate::function::FunctionNo;
use crate::function::facts::{FunctionFacts, Role, SiteFacts};
use crate::function::plan::Code;
use crate::function::site::{CostClass, Site, SiteKind};
use crate::function::value::Options;
use crate::function::value::usdt::{Number, compile_usdt};
use crate::inspect::dwarf::place::{Place, Step as PlaceStep};
use crate::inspect::elf::{ElfError, Module};
use crate::inspect::usdt::{self, Argument, Place as ArgumentPlace, Tracepoint};
use crate::pipeline::Step;
use crate::probe::function::{FunctionProbes, LinkNo, Point, TaskSource};

/// Most hits of a tracepoint that are told a second.
const RATE_PER_SECOND: u64 = 10_000;

/// Which tracepoints are asked for.
#[derive(Clone, Debug, Default)]
pub struct TracepointGlobs {
    wanted: Vec<Wanted>,
}

#[derive(Clone, Debug)]
struct Wanted {
    glob: GlobMatcher,
    /// Arguments that are addresses of strings, which a note does not say.
    texts: Vec<usize>,
}

/// Why tracepoints cannot be asked for like this.
#[derive(Debug, thiserror::Error)]
pub enum TracepointError {
    /// It is no glob.
    #[error("cannot use `{text}` for --usdt")]
    Glob {
        /// As it was given.
        text: String,
        /// What is wrong.
        #[source]
        source: globset::Error,
    },
    /// An option is unknown.
    #[error(
        "cannot use `{text}` for --usdt: expected PROVIDER:NAME or PROVIDER:NAME@text=N,…, the numbers \
         of arguments that are strings, from 0"
    )]
    Option {
        /// As it was given.
        text: String,
    },
}

impl TracepointGlobs {
    /// Reads globs of `PROVIDER:NAME`, with `@text=N,…` where arguments are strings.
    ///
    /// # Errors
    /// If one is no glob, or what follows it makes no sense.
    pub fn parse<S: AsRef<str>>(globs: &[S]) -> Result<Self, TracepointError> {
        let parse = |text: &str| {
            let wrong = || TracepointError::Option { text: text.to_owned() };
            let (glob, texts) = match text.split_once('@') {
                Some((glob, option)) => {
                    let numbers = option.strip_prefix("text=").ok_or_else(wrong)?;
                    let numbers = numbers.split(',').map(str::parse).collect::<Result<_, _>>();
                    (glob, numbers.map_err(|_| wrong())?)
                }
                None => (text, Vec::new()),
            };
            let glob = Glob::new(glob)
                .map_err(|source| TracepointError::Glob { text: text.to_owned(), source })?;
            Ok(Wanted { glob: glob.compile_matcher(), texts })
        };
        let wanted = globs.iter().map(|text| parse(text.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self { wanted })
    }

    /// Whether none is asked for.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Which of its arguments are strings, if a tracepoint is asked for.
    fn texts(&self, name: &str) -> Option<&[usize]> {
        let wanted = self.wanted.iter().find(|wanted| wanted.glob.is_match(name))?;
        Some(&wanted.texts)
    }
}

/// The tracepoints of the files that were looked at.
#[derive(Default)]
pub(super) struct Tracepoints {
    globs: TracepointGlobs,
    known: HashMap<FileId, Arc<Found>>,
    /// Files that are probed in every process that runs them.
    everywhere: HashSet<FileId>,
    /// How many are probed.
    pub(super) probed: usize,
}

/// The tracepoints of a file that were asked for. One may be in several places.
struct Found {
    first: u32,
    by_name: BTreeMap<String, Vec<Tracepoint>>,
}

impl Tracepoints {
    pub(super) fn new(globs: TracepointGlobs) -> Self {
        Self { globs, ..Self::default() }
    }

    /// Probes what is asked for of a file; what is then to be detached with the process.
    pub(super) fn attach(
        &mut self,
        module: &Mapped,
        scope: Option<Tgid>,
        next: &mut u32,
        probes: &mut FunctionProbes,
        announce: &mut dyn FnMut(&Step<'_>),
    ) -> Option<LinkNo> {
        if self.globs.is_empty() || self.everywhere.contains(&module.id) {
            return None;
        }
        let found = self.look(module, next);
        let numbered = || (found.first..).zip(&found.by_name);
        let mut points = Vec::new();
        let mut readers = Vec::new();
        for (number, (name, places)) in numbered() {
            let texts = self.globs.texts(name).unwrap_or_default();
            for place in places {
                let Some((point, code)) = point(number, place, texts) else { continue };
                points.push(point);
                readers.push((number, code.reader));
            }
        }
        if points.is_empty() {
            return None;
        }
        let attached = match probes.attach(&module.open, scope.map(|tgid| tgid.0), &points) {
            Ok(attached) => attached,
            Err(error) => {
                tracing::warn!(module = module.name, %error, "tracepoints are not probed");
                return None;
            }
        };
        for (index, error) in &attached.refused {
            let point = points.get(*index);
            tracing::warn!(module = module.name, ?point, %error, "the kernel refuses a probe");
        }
        let mut sites: BTreeMap<u32, Vec<SiteFacts>> = BTreeMap::new();
        for (site, (number, reader)) in attached.sites.iter().zip(readers) {
            let facts = SiteFacts { number: site.0, kind: SiteKind::Event, into: None, reader };
            sites.entry(number).or_default().push(facts);
        }
        for (number, (name, _)) in numbered() {
            let Some(sites) = sites.remove(&number) else { continue };
            if let Err(error) = probes.set_rate(FunctionNo(number), RATE_PER_SECOND) {
                tracing::warn!(tracepoint = name, %error, "its rate is not limited");
            }
            let facts = FunctionFacts {
                number,
                name: name.clone(),
                module: module.name.clone(),
                source: None,
                role: Role::Event { name: name.clone(), decode: None, catchers: Vec::new() },
                sites,
            };
            announce(&Step::Function(Arc::new(facts)));
            self.probed += 1;
        }
        if scope.is_none() {
            self.everywhere.insert(module.id);
        }
        Some(attached.link)
    }

    fn look(&mut self, module: &Mapped, next: &mut u32) -> Arc<Found> {
        if let Some(known) = self.known.get(&module.id) {
            return Arc::clone(known);
        }
        let found = self.read(module).unwrap_or_else(|error| {
            tracing::debug!(module = module.name, %error, "no look for tracepoints");
            BTreeMap::new()
        });
        let first = *next;
        *next += found.len() as u32;
        let found = Arc::new(Found { first, by_name: found });
        self.known.insert(module.id, Arc::clone(&found));
        found
    }

    fn read(&self, module: &Mapped) -> Result<BTreeMap<String, Vec<Tracepoint>>, ElfError> {
        let mut by_name: BTreeMap<String, Vec<Tracepoint>> = BTreeMap::new();
        for tracepoint in usdt::tracepoints(&Module::open(&module.open)?)? {
            let name = format!("{}:{}", tracepoint.provider, tracepoint.name);
            if self.globs.texts(&name).is_some() {
                by_name.entry(name).or_default().push(tracepoint);
            }
        }
        Ok(by_name)
    }
}

/// The probe of one place of a tracepoint; `None` if it is not in code.
fn point(number: u32, tracepoint: &Tracepoint, texts: &[usize]) -> Option<(Point, Code)> {
    // An argument whose place is not understood ends the list: those behind it keep their numbers.
    let numbers: Vec<Number> = tracepoint
        .arguments
        .iter()
        .map_while(|argument| argument.as_ref().and_then(self::number))
        .collect();
    let code = Code::from(compile_usdt(&numbers, texts, &Options::default()));
    let site = Site {
        address: tracepoint.address,
        offset: tracepoint.offset?,
        kind: SiteKind::Event,
        sp_adjust: 0,
        // A NOP of one byte, by the format.
        cost: CostClass::Emulated,
    };
    let point = Point {
        site,
        ops: code.ops.clone(),
        function: FunctionNo(number),
        semaphore: tracepoint.semaphore,
        task: TaskSource::Thread,
    };
    Some((point, code))
}

fn number(argument: &Argument) -> Option<Number> {
    let place = match argument.place {
        _ if argument.float => return None,
        ArgumentPlace::Constant(value) => Place::Value(vec![PlaceStep::Constant(value)]),
        ArgumentPlace::Register { register, shift: 0 } => Place::register(register),
        ArgumentPlace::Register { register, shift } => {
            Place::Value(vec![PlaceStep::Register(register), PlaceStep::ShiftRight(shift)])
        }
        ArgumentPlace::Memory { base: Some(base), index: None, displacement } => {
            Place::Memory(vec![PlaceStep::Register(base), PlaceStep::Add(displacement)])
        }
        // Two registers cannot be added, and a symbol's address is not known here.
        ArgumentPlace::Memory { .. } | ArgumentPlace::Static { .. } => return None,
    };
    Some(Number { bytes: argument.size, signed: argument.signed, place })
}
