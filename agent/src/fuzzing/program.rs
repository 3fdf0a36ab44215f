//! What is done with the files of a program that is traced, all at once: its functions and where their
//! probes go, what debug information says of them, exceptions, tracepoints, libraries, runtime, stacks.
//!
//! It does not panic, and says the same of the same bytes.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::file::DIRECTORY;
use crate::event::ids::{SiteNo, Tgid, Tid};
use crate::event::image::Image;
use crate::function::exception;
use crate::function::pattern::{Called, Patterns};
use crate::function::plan::{ModulePlan, Place, plan_listed};
use crate::inspect::address::VirtAddr;
use crate::inspect::code;
use crate::inspect::debug_file::{Lookup, Server};
use crate::inspect::demangle;
use crate::inspect::dwarf::Debug;
use crate::inspect::dwarf::lines::{BYTES_MAX, Lines};
use crate::inspect::elf::Module;
use crate::inspect::needed::Needed;
use crate::inspect::symbols::Index;
use crate::inspect::{nginx, runtime, usdt};
use crate::platform::clock::MonoNs;
use crate::stack::code::Code;
use crate::stack::walk::{self, walk};
use crate::stack::{Inner, text};

/// The files of a program.
pub(super) struct Program<'a> {
    pub(super) path: &'a Path,
    /// What has its debug information if it has none itself.
    pub(super) aside: Option<PathBuf>,
    /// What is on the stack of one of its threads.
    pub(super) stack: &'a [u8],
}

/// Functions that are looked at closely, so that an input is soon done with.
const FUNCTIONS_MAX: usize = 24;

/// Has one file, whatever build is asked for.
#[derive(Debug)]
struct Aside(Option<PathBuf>);

impl Server for Aside {
    fn fetch(&self, _: &[u8]) -> Option<PathBuf> {
        self.0.clone()
    }
}

/// Panics if what is known of a program differs from one look to the next.
pub(super) fn check(program: &Program<'_>) {
    // Twice, and as text, takes three times as long: of some is enough.
    let sum = program.stack.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if sum.is_multiple_of(4) {
        let text = || look(program, Telling::Text).text;
        assert_eq!(text(), text(), "the same bytes say the same");
    } else {
        look(program, Telling::Nothing);
    }
}

/// Whether what is found is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Telling {
    Text,
    Nothing,
}

/// What is known of a program.
pub(super) struct Found {
    telling: Telling,
    /// All of it.
    pub(super) text: String,
    pub(super) plan: ModulePlan,
    /// How many addresses have source lines.
    pub(super) lines: usize,
    /// How many functions have described parameters or results.
    pub(super) described: usize,
}

/// Looks at a program.
pub(super) fn look(program: &Program<'_>, telling: Telling) -> Found {
    let plan = ModulePlan::default();
    let mut found = Found { telling, text: String::new(), plan, lines: 0, described: 0 };
    found.say(format_args!("{:?}", runtime::go(program.path)));
    found.say(format_args!("{:?}", nginx::exports(program.path)));
    match Module::open(program.path) {
        Ok(module) => found.module(program, &module),
        Err(error) => found.say(format_args!("{error}")),
    }
    found
}

impl Found {
    fn say(&mut self, what: std::fmt::Arguments<'_>) {
        if self.telling == Telling::Text {
            // Writing to a string does not fail.
            let _ = writeln!(self.text, "{what}");
        }
    }

    fn module(&mut self, program: &Program<'_>, module: &Module) {
        let aside = Aside(program.aside.clone());
        let lookup = Lookup { root: Path::new(DIRECTORY), server: Some(&aside) };
        self.say(format_args!("{:?} {:?}", module.segments(), module.sections()));
        self.say(format_args!("{:?} {:?}", module.build_id(), Needed::by(module)));
        self.say(format_args!("{:?}", usdt::tracepoints(module)));
        let exported = Index::exported(module).map(|index| index.len());
        self.say(format_args!("{exported:?}"));
        match Index::read(module, lookup) {
            Ok(index) => self.index(program, lookup, module, &index),
            Err(error) => self.say(format_args!("{error}")),
        }
    }

    fn index(&mut self, program: &Program<'_>, lookup: Lookup<'_>, module: &Module, index: &Index) {
        let hooks = exception::hooks(module, index);
        self.say(format_args!("{hooks:?}"));
        let file = program.path;
        let mut left = FUNCTIONS_MAX;
        let functions = index.functions(|_| {
            left = left.saturating_sub(1);
            left > 0
        });
        let names: Vec<_> = functions
            .iter()
            .map(|function| format!("{}@ret,errno,stack,depth=8", escaped(&function.name)))
            .collect();
        let called = Called { name: "fuzz", other_names: &[], is_executable: true };
        let place = Place { file, called, lookup, knows_goroutines: true };
        // A name may be a pattern that is none.
        if let Ok(patterns) = Patterns::parse(&names) {
            self.plan = plan_listed(&place, (module, index), &patterns);
            for planned in &self.plan.functions {
                // Where probes go is in the file, in code, and no two are at one place.
                let mut places = std::collections::BTreeSet::new();
                for site in planned.placement.sites() {
                    assert_eq!(module.code_offset(site.address), Some(site.offset), "{planned:?}");
                    assert!(places.insert(site.address), "{planned:?}");
                }
            }
            if self.telling == Telling::Text {
                let plan = format!("{:?}", self.plan);
                self.say(format_args!("{plan}"));
            }
        }
        let debug = Debug::open(file, lookup);
        let mut addresses = Vec::new();
        for function in &functions {
            let VirtAddr(at) = function.address;
            addresses
                .extend([0, 1, function.size / 2, function.size].map(|by| at.wrapping_add(by)));
            if let Ok(debug) = &debug {
                let described = debug.describe(function.address, function.address);
                if let Ok(described) = &described {
                    self.described += 1;
                    self.say(format_args!("{}", described.signature(None)));
                }
                self.say(format_args!("{described:?}"));
            }
            self.say(format_args!("{}", demangle::full(&function.linkage)));
            self.say(format_args!("{:?}", code::tail_calls(module, index, function)));
            let behind = VirtAddr(at.wrapping_add(function.size));
            let callee = functions.first().map_or("", |first| &first.linkage);
            self.say(format_args!("{:?}", code::argument_before(module, index, behind, callee)));
        }
        let addresses: Vec<_> = addresses.into_iter().map(VirtAddr).collect();
        self.lines(lookup, module, &addresses);
        self.stacks(program, module, &addresses);
    }

    fn lines(&mut self, lookup: Lookup<'_>, module: &Module, addresses: &[VirtAddr]) {
        match Lines::open(module, lookup, BYTES_MAX) {
            Ok(Some(lines)) => {
                assert!(lines.bytes() <= BYTES_MAX, "{} bytes are kept", lines.bytes());
                let mut told = Vec::new();
                lines.calls(addresses, &mut |calls| told.extend(calls));
                let wanted: std::collections::BTreeSet<_> = addresses.iter().collect();
                assert_eq!(told.len(), wanted.len(), "each address is answered once");
                self.lines += told.iter().filter(|(_, calls)| !calls.is_empty()).count();
                self.say(format_args!("{told:?}"));
            }
            other => self.say(format_args!("{:?}", other.map(|_| ()))),
        }
    }

    fn stacks(&mut self, program: &Program<'_>, module: &Module, addresses: &[VirtAddr]) {
        let Ok(module) = module.again() else { return };
        let Ok(code) = Code::read("fuzz", module, Path::new(DIRECTORY)) else { return };
        let space = Space { code: &code, visited: RefCell::default() };
        for VirtAddr(start) in addresses.iter().step_by(2) {
            let mut registers = [STACK; 17];
            registers[16] = *start;
            let stack = walk(&image(program.stack, registers), &space);
            self.say(format_args!("{}", text(&stack, Inner::Own)));
        }
        let visited = space.visited.take();
        self.say(format_args!("{visited:x?}"));
    }
}

/// Where the stack begins.
const STACK: u64 = 0x7000_0000;

fn image(stack: &[u8], registers: [u64; 17]) -> Image<'_> {
    Image {
        at: MonoNs(0),
        tgid: Tgid(1),
        tid: Tid(1),
        site: SiteNo(0),
        registers,
        stack,
        flags: 0,
        written: 0,
    }
}

/// A process that has mapped one file where that says.
struct Space<'a> {
    code: &'a Code,
    visited: RefCell<Vec<u64>>,
}

impl walk::Space for Space<'_> {
    fn code(&self, address: u64) -> walk::Place<'_> {
        walk::Place::Code(self.code, VirtAddr(address))
    }

    fn is_at(&self, address: u64) {
        self.visited.borrow_mut().push(address);
    }
}

/// A pattern for a name, which may have characters that mean something in patterns.
fn escaped(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || "_:.".contains(c) { c } else { '?' }).collect()
}
