//! Probes static tracepoints (USDT) that the user asks for, in the modules of each process as it begins
//! to be traced: each hit becomes an event of the span that its thread is in the middle of.

use std::collections::BTreeMap;

use globset::{Glob, GlobMatcher};

use crate::function::FunctionNo;
use crate::function::facts::{FunctionFacts, Role, SiteFacts};
use crate::function::plan::{Code, Place as FilePlace};
use crate::function::site::{CostClass, Site, SiteKind};
use crate::function::value::Options;
use crate::function::value::usdt::{Number, compile_usdt};
use crate::inspect::address::FileOffset;
use crate::inspect::dwarf::place::{Place, Step as PlaceStep};
use crate::inspect::elf::Module;
use crate::inspect::usdt::{self, Argument, Place as ArgumentPlace, Tracepoint};
use crate::probe::function::{Point, TaskSource};

/// Most hits of a tracepoint that are told a second.
pub(super) const RATE_PER_SECOND: u64 = 10_000;

/// Which tracepoints are asked for.
#[derive(Clone, Debug, Default)]
pub struct TracepointGlobs {
    wanted: Vec<Wanted>,
}

#[derive(Clone, Debug)]
struct Wanted {
    /// As it was given.
    text: String,
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
            Ok(Wanted { text: text.to_owned(), glob: glob.compile_matcher(), texts })
        };
        let wanted = globs.iter().map(|text| parse(text.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self { wanted })
    }

    /// Whether none is asked for.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Those that match none of some tracepoints.
    pub(super) fn unmatched(&self, names: &[&str]) -> impl Iterator<Item = &str> {
        let matches = |wanted: &&Wanted| names.iter().any(|name| wanted.glob.is_match(name));
        self.wanted.iter().filter(move |wanted| !matches(wanted)).map(|wanted| &*wanted.text)
    }

    /// Which of its arguments are strings, if a tracepoint is asked for.
    fn texts(&self, name: &str) -> Option<&[usize]> {
        let wanted = self.wanted.iter().find(|wanted| wanted.glob.is_match(name))?;
        Some(&wanted.texts)
    }
}

/// A tracepoint of a file. It may be in several places.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// `PROVIDER:NAME`.
    pub(crate) name: String,
    pub(crate) places: Vec<Position>,
}

/// One of its places.
#[derive(Clone, Debug)]
pub(crate) struct Position {
    pub(crate) site: Site,
    semaphore: Option<FileOffset>,
    pub(super) code: Code,
}

/// The tracepoints of a file that are asked for and in code, as far as it can be read.
pub(crate) fn look(place: &FilePlace<'_>, globs: &TracepointGlobs) -> Vec<Found> {
    if globs.is_empty() {
        return Vec::new();
    }
    let tracepoints = match Module::open(place.file).and_then(|module| usdt::tracepoints(&module)) {
        Ok(tracepoints) => tracepoints,
        Err(error) => {
            tracing::debug!(module = place.called.name, %error, "no look for tracepoints");
            return Vec::new();
        }
    };
    let mut by_name: BTreeMap<String, Vec<Position>> = BTreeMap::new();
    for tracepoint in tracepoints {
        let name = format!("{}:{}", tracepoint.provider, tracepoint.name);
        let Some(texts) = globs.texts(&name) else { continue };
        let Some(place) = self::place(&tracepoint, texts) else { continue };
        by_name.entry(name).or_default().push(place);
    }
    by_name.into_iter().map(|(name, places)| Found { name, places }).collect()
}

/// The probes of a tracepoint.
pub(super) fn points(number: u32, found: &Found) -> impl Iterator<Item = Point> {
    found.places.iter().map(move |place| Point {
        site: place.site,
        ops: place.code.ops.clone(),
        function: FunctionNo(number),
        semaphore: place.semaphore,
        task: TaskSource::Thread,
    })
}

/// What their hits mean.
pub(super) fn facts(
    number: u32,
    found: &Found,
    sites: impl Iterator<Item = u32>,
    module: &str,
) -> FunctionFacts {
    let site = |(number, place): (u32, &Position)| SiteFacts {
        number,
        kind: SiteKind::Event,
        into: None,
        reader: place.code.reader.clone(),
    };
    FunctionFacts {
        number,
        name: found.name.clone(),
        module: module.to_owned(),
        source: None,
        role: Role::Event { name: found.name.clone(), decode: None, catchers: Vec::new() },
        sites: sites.zip(&found.places).map(site).collect(),
    }
}

/// One place of a tracepoint; `None` if it is not in code.
fn place(tracepoint: &Tracepoint, texts: &[usize]) -> Option<Position> {
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
        jumps_if: None,
        sp_adjust: 0,
        // A NOP of one byte, by the format.
        cost: CostClass::Emulated,
    };
    Some(Position { site, semaphore: tracepoint.semaphore, code })
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
