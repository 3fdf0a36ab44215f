//! The functions of a module: from its symbol tables, its debug file, Go's own table.
//!
//! An [`Index`] keeps what the tables say in 24 bytes a symbol beside the names as they lie in the
//! file; names are demangled while a pattern is matched and kept for what matches. It is made to be
//! dropped once functions are placed.

mod mini;
mod plt;
mod table;

use std::collections::HashMap;
use std::sync::OnceLock;

use super::address::VirtAddr;
use super::debug_file::{self, DebugFile, Lookup};
use super::demangle::{self, Language, Name, Variant};
use super::elf::{ElfError, Module};
use super::gopclntab;
use super::unwind::Unwind;
use table::{Raw, Room, Strings};

/// Why the functions of a module cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum SymbolError {
    /// A part of the file cannot be read.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// There is nothing to list.
    #[error(
        "{path} is stripped of its symbols: only functions of its libraries and what they export can \
         be found (installing its debug symbols helps, in /usr/lib/debug or by its build id)",
        path = path.display()
    )]
    Stripped {
        /// The file.
        path: std::path::PathBuf,
    },
}

/// Where a function was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// The module's symbol table.
    Symbols,
    /// What it exports.
    Dynamic,
    /// The compressed symbols that some distributions leave (`.gnu_debugdata`).
    MiniDebug,
    /// A separate debug file.
    DebugFile,
    /// Go's table.
    GoTable,
}

/// A function of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its first instruction.
    pub address: VirtAddr,
    /// Bytes that are its own: up to what the symbol says, or the next function.
    pub size: u64,
    /// What the linker calls it; of several names at one address the one that matched.
    pub linkage: String,
    /// The name in the source, without arguments.
    pub name: String,
    /// Its other names, as the linker has them.
    pub aliases: Vec<String>,
    /// The language its name speaks of.
    pub language: Language,
    /// What the compiler did to it.
    pub variant: Variant,
    /// Where it was found.
    pub origin: Origin,
}

/// Most bytes of all tables of a module and of its debug file.
const BYTES_MAX: u64 = 1 << 30;

/// Most other names kept of one function.
const ALIASES_MAX: usize = 16;

/// Everything that is known of a module's functions.
#[derive(Debug)]
pub struct Index {
    /// By address, and the best name first within one.
    symbols: Vec<Raw>,
    strings: Vec<Strings>,
    imports: plt::Imports,
    /// Addresses at which functions begin or end, beyond symbols: sections' and Go's.
    ends: Vec<u64>,
    debug_file: Option<DebugFile>,
    recoveries: HashMap<u64, (u64, u32)>,
    unwind: OnceLock<Unwind>,
}

impl Index {
    /// Reads the tables of a module, and those of its debug file if it has none.
    pub fn read(module: &Module, lookup: Lookup<'_>) -> Result<Self, SymbolError> {
        let mut room = Room::of(BYTES_MAX);
        let mut index = Self::empty(module, &mut room)?;
        let own = index.add_tables(module, &mut room, ".symtab", Origin::Symbols)?;
        index.add_tables(module, &mut room, ".dynsym", Origin::Dynamic)?;
        index.add_go(module, &mut room)?;
        let go = index.symbols.iter().any(|raw| raw.origin == Origin::GoTable);
        if !own && let Some((file, debug)) = debug_file::find(module, lookup) {
            index.debug_file = Some(file);
            index.add_tables(&debug, &mut room, ".symtab", Origin::DebugFile)?;
        }
        if !own && !go && index.debug_file.is_none() {
            index.add_mini(module, &mut room)?;
        }
        index.sort(module);
        Ok(index)
    }

    /// Reads no more than what a module exports: where there is no reading of its other tables, that may be
    /// whole.
    pub fn exported(module: &Module) -> Result<Self, SymbolError> {
        let mut room = Room::of(BYTES_MAX);
        let mut index = Self::empty(module, &mut room)?;
        index.add_tables(module, &mut room, ".dynsym", Origin::Dynamic)?;
        index.sort(module);
        Ok(index)
    }

    fn empty(module: &Module, room: &mut Room) -> Result<Self, SymbolError> {
        Ok(Self {
            symbols: Vec::new(),
            strings: Vec::new(),
            imports: plt::Imports::read(module, room)?,
            ends: code_ends(module),
            debug_file: None,
            recoveries: HashMap::new(),
            unwind: OnceLock::new(),
        })
    }

    /// The separate debug file that was found, if one was needed and is there.
    pub fn debug_file(&self) -> Option<&DebugFile> {
        self.debug_file.as_ref()
    }

    /// Whether anything but exports is known.
    pub fn is_stripped(&self) -> bool {
        self.symbols.iter().all(|raw| raw.origin == Origin::Dynamic)
    }

    /// How many symbols of functions there are, all names counted.
    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// The functions one of whose names matches. Pieces (`.cold`) are no functions.
    pub fn functions(&self, mut matches: impl FnMut(&str) -> bool) -> Vec<Function> {
        let mut found = Vec::new();
        let mut rest = self.symbols.as_slice();
        while let Some(first) = rest.first() {
            let same = rest.iter().take_while(|raw| raw.address == first.address).count();
            let (group, behind) = rest.split_at(same);
            let next = behind.first().map(|raw| raw.address);
            found.extend(self.function(group, next, &mut matches));
            rest = behind;
        }
        found
    }

    fn function(
        &self,
        group: &[Raw],
        next: Option<u64>,
        matches: &mut impl FnMut(&str) -> bool,
    ) -> Option<Function> {
        let named = |raw: &Raw| Some((*raw, self.name(raw)?, self.linkage(raw)?));
        let (raw, name, linkage) = group
            .iter()
            .filter_map(named)
            .find(|(_, name, _)| name.variant != Variant::Cold && matches(&name.short))?;
        let mut aliases = Vec::new();
        for other in group.iter().filter_map(|raw| self.linkage(raw)) {
            let known = other == linkage || aliases.iter().any(|alias| alias == other);
            if !known && aliases.len() < ALIASES_MAX {
                aliases.push(other.to_owned());
            }
        }
        // A Go symbol says more than Go's table (type arguments), the table what was made up.
        let go = group.iter().find(|raw| raw.origin == Origin::GoTable);
        let name = match go {
            Some(go) => demangle::go(&name.short, go.autogenerated),
            None => name,
        };
        Some(Function {
            address: VirtAddr(raw.address),
            size: self.size(group, next),
            linkage: linkage.to_owned(),
            name: name.short,
            aliases,
            language: name.language,
            variant: name.variant,
            origin: raw.origin,
        })
    }

    /// The largest size that a symbol at the address claims; without one, what is left until the next
    /// function or the end of the section.
    fn size(&self, group: &[Raw], next: Option<u64>) -> u64 {
        let claimed = group.iter().map(|raw| u64::from(raw.size)).max().unwrap_or_default();
        let Some(address) = group.first().map(|raw| raw.address) else { return 0 };
        let at = self.ends.partition_point(|end| *end <= address);
        let end = self.ends.get(at).copied().unwrap_or(address);
        let left = match next {
            Some(next) => end.min(next) - address,
            None => end - address,
        };
        if claimed == 0 { left } else { claimed.min(end - address) }
    }

    /// What begins at an address.
    pub fn starting_at(&self, address: VirtAddr) -> Option<&str> {
        let at = self.symbols.partition_point(|raw| raw.address < address.0);
        let raw = self.symbols.get(at).filter(|raw| raw.address == address.0)?;
        self.linkage(raw)
    }

    /// What an address belongs to: the name and the addresses of the symbol that it lies in.
    pub fn holding(&self, address: VirtAddr) -> Option<(&str, std::ops::Range<VirtAddr>)> {
        let behind = self.symbols.partition_point(|raw| raw.address <= address.0);
        let start = self.symbols.get(behind.checked_sub(1)?)?.address;
        let first = self.symbols.partition_point(|raw| raw.address < start);
        let group = self.symbols.get(first..behind)?;
        let next = self.symbols.get(behind).map(|raw| raw.address);
        let end = start + self.size(group, next);
        let name = self.linkage(group.first()?)?;
        (address.0 < end).then_some((name, VirtAddr(start)..VirtAddr(end)))
    }

    /// The next address at which something begins.
    pub fn next_start(&self, address: VirtAddr) -> VirtAddr {
        let at = self.symbols.partition_point(|raw| raw.address <= address.0);
        VirtAddr(self.symbols.get(at).map_or(u64::MAX, |raw| raw.address))
    }

    /// The function of another module that is called through a slot of the global offset table.
    pub fn imported(&self, slot: VirtAddr) -> Option<&str> {
        self.imports.name(slot)
    }

    /// The function of this module whose address the loader writes into a slot.
    pub fn relocated(&self, slot: VirtAddr) -> Option<VirtAddr> {
        self.imports.target(slot)
    }

    /// Whether the loader writes into some of these bytes of code (`DT_TEXTREL`).
    pub fn is_written_by_loader(&self, code: &std::ops::Range<VirtAddr>) -> bool {
        self.imports.writes_into(code)
    }

    /// Whether Go's own table was read.
    pub fn has_go_table(&self) -> bool {
        self.symbols.iter().any(|raw| raw.origin == Origin::GoTable)
    }

    /// Where a Go function goes on after a recovered panic, and how many bytes its frame has there.
    pub fn recovery(&self, function: VirtAddr) -> Option<(VirtAddr, u32)> {
        self.recoveries.get(&function.0).map(|(at, frame)| (VirtAddr(*at), *frame))
    }

    /// What the module tells of its exceptions; read when it is first asked for.
    pub fn unwind(&self, module: &Module) -> &Unwind {
        self.unwind.get_or_init(|| Unwind::read(module).unwrap_or_default())
    }

    fn linkage(&self, raw: &Raw) -> Option<&str> {
        self.strings.get(usize::from(raw.strings))?.at(raw.name)
    }

    fn name(&self, raw: &Raw) -> Option<Name> {
        let linkage = self.linkage(raw)?;
        let mut name = match raw.origin {
            Origin::GoTable => demangle::go(linkage, raw.autogenerated),
            _ => demangle::demangle(linkage),
        };
        if raw.resolver {
            name.variant = Variant::Resolver;
        }
        Some(name)
    }

    /// Reads the symbols of a section, if the file has it; tells whether it has any of functions.
    fn add_tables(
        &mut self,
        module: &Module,
        room: &mut Room,
        section: &str,
        origin: Origin,
    ) -> Result<bool, ElfError> {
        let Some(section) = module.section(section) else { return Ok(false) };
        let Some(strings) = module.sections().get(section.link) else { return Ok(false) };
        let strings = room.read(module, strings)?;
        let symbols = room.read(module, section)?;
        Ok(self.add(&symbols, strings, origin))
    }

    fn add_mini(&mut self, module: &Module, room: &mut Room) -> Result<(), ElfError> {
        let Some(section) = module.section(".gnu_debugdata") else { return Ok(()) };
        let packed = room.read(module, section)?;
        if let Some((symbols, strings)) = mini::tables(&packed) {
            self.add(&symbols, strings, Origin::MiniDebug);
        }
        Ok(())
    }

    fn add(&mut self, symbols: &[u8], strings: Vec<u8>, origin: Origin) -> bool {
        let Ok(number) = u8::try_from(self.strings.len()) else { return false };
        let before = self.symbols.len();
        self.symbols.extend(table::functions(symbols, number, origin));
        self.strings.push(Strings(strings));
        self.symbols.len() > before
    }

    fn add_go(&mut self, module: &Module, room: &mut Room) -> Result<(), ElfError> {
        let names = [".gopclntab", ".data.rel.ro.gopclntab"];
        let Some(section) = names.iter().find_map(|name| module.section(name)) else {
            return Ok(());
        };
        let Some(text) = self.go_text(module) else { return Ok(()) };
        let data = room.read(module, section)?;
        let Ok(table) = gopclntab::Table::parse(&data, text) else { return Ok(()) };
        let Ok(number) = u8::try_from(self.strings.len()) else { return Ok(()) };
        let is_code =
            |address: VirtAddr| module.sections().iter().any(|s| s.is_code() && s.holds(address));
        let entries: Vec<_> = table.entries().collect();
        // With a wrong start of the text none of it is true.
        if entries.iter().any(|entry| !is_code(entry.address)) {
            return Ok(());
        }
        self.symbols.extend(entries.iter().map(|entry| Raw::go(entry, number)));
        self.recoveries.extend(entries.iter().filter_map(|entry| {
            entry.recovery.map(|(at, frame)| (entry.address.0, (at.0, frame)))
        }));
        self.strings.push(Strings(table.names.to_owned()));
        Ok(())
    }

    /// Where Go's text begins: not at the section's start in a program with C code.
    pub fn go_text(&self, module: &Module) -> Option<VirtAddr> {
        let runtime = self.symbols.iter().find(|raw| self.linkage(raw) == Some("runtime.text"));
        match runtime {
            Some(raw) => Some(VirtAddr(raw.address)),
            None => module.section(".text").map(|text| text.address),
        }
    }

    /// By address; the best name of each address first; none twice.
    fn sort(&mut self, module: &Module) {
        let code: Vec<_> = module.sections().iter().filter(|section| section.is_code()).collect();
        self.symbols.retain(|raw| code.iter().any(|section| section.holds(VirtAddr(raw.address))));
        let strings = std::mem::take(&mut self.strings);
        let name = |raw: &Raw| strings.get(usize::from(raw.strings)).and_then(|s| s.at(raw.name));
        let rank = |raw: &Raw| {
            let name = name(raw).unwrap_or_default();
            let underscores = name.bytes().take_while(|byte| *byte == b'_').count();
            let mangled = name.starts_with("_Z") || name.starts_with("_R");
            (raw.rank, if mangled { 0 } else { underscores }, raw.origin)
        };
        self.symbols.sort_by_cached_key(|raw| (raw.address, rank(raw), raw.strings, raw.name));
        self.symbols.dedup_by(|b, a| {
            a.address == b.address && name(a) == name(b) && {
                a.size = a.size.max(b.size);
                a.autogenerated |= b.autogenerated;
                if b.origin == Origin::GoTable {
                    a.origin = b.origin;
                }
                true
            }
        });
        self.strings = strings;
        self.symbols.shrink_to_fit();
    }
}

/// Where sections with code end.
fn code_ends(module: &Module) -> Vec<u64> {
    let code = module.sections().iter().filter(|section| section.is_code());
    let mut ends: Vec<_> =
        code.map(|section| section.address.0.saturating_add(section.size)).collect();
    ends.sort_unstable();
    ends
}

#[cfg(test)]
mod tests;
