//! Static tracepoints that a program was built with (`.note.stapsdt`): who provides them, where they
//! are, and where their arguments lie.
//!
//! The format is SystemTap's ("UserSpaceProbeImplementation"): a note of type 3 named `stapsdt` with
//! the address, the address of `.stapsdt.base` as linked, the semaphore's address, and three strings.
//! Where `.stapsdt.base` lies elsewhere now (prelink), every address moved by as much.

use super::address::{FileOffset, VirtAddr};
use super::elf::{ElfError, Module};

/// A static tracepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracepoint {
    /// Who provides it.
    pub provider: String,
    /// Its name.
    pub name: String,
    /// The instruction that it is: a NOP.
    pub address: VirtAddr,
    /// Where that is in the file; `None` if it is not in code.
    pub offset: Option<FileOffset>,
    /// The counter that tells the program to prepare arguments, where it is in the file.
    pub semaphore: Option<FileOffset>,
    /// What it tells; `None` for one whose place is not understood.
    pub arguments: Vec<Option<Argument>>,
}

/// An argument of a tracepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its bytes: 1, 2, 4 or 8.
    pub size: u8,
    /// Whether it has a sign.
    pub signed: bool,
    /// Whether it is a floating-point number.
    pub float: bool,
    /// Where it is.
    pub place: Place,
}

/// Where an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `$5`
    Constant(i64),
    /// `%edi`: the register's number in DWARF, and how many bits further up the part begins (`%ah`: 8).
    Register {
        /// DWARF's number (System V psABI, figure 3.36).
        register: u8,
        /// Bits to shift right.
        shift: u8,
    },
    /// `-16(%rbp)`, `8(%rax,%rcx,4)`
    Memory {
        /// DWARF's number of the base.
        base: Option<u8>,
        /// DWARF's number of the index, and its scale.
        index: Option<(u8, u8)>,
        /// What is added.
        displacement: i64,
    },
    /// `symbol+8(%rip)`: at an address of the module, if the symbol's is known.
    Static {
        /// What is added to the symbol's address.
        displacement: i64,
    },
}

/// Most bytes of notes that are read, and most tracepoints.
const BYTES_MAX: u64 = 16 << 20;
const TRACEPOINTS_MAX: usize = 1 << 16;
const ARGUMENTS_MAX: usize = 12;

/// Arguments of the tracepoints that notes tell of.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn of_notes(notes: &[u8]) -> impl Iterator<Item = Vec<Option<Argument>>> {
    self::notes(notes).map(|note| arguments(note.arguments))
}

/// The static tracepoints of a module, as its notes have them. Damaged ones are left out.
pub fn tracepoints(module: &Module) -> Result<Vec<Tracepoint>, ElfError> {
    let Some(section) = module.section(".note.stapsdt").filter(|s| s.size <= BYTES_MAX) else {
        return Ok(Vec::new());
    };
    let base = module.section(".stapsdt.base").map(|section| section.address);
    let data = module.section_bytes(section)?;
    let mut found = Vec::new();
    for note in notes(&data) {
        if found.len() == TRACEPOINTS_MAX {
            break;
        }
        let moved = match base {
            Some(base) if note.base != 0 => base.0.wrapping_sub(note.base),
            _ => 0,
        };
        let address = VirtAddr(note.address.wrapping_add(moved));
        let semaphore = (note.semaphore != 0)
            .then(|| VirtAddr(note.semaphore.wrapping_add(moved)))
            .and_then(|address| module.file_offset(address));
        found.push(Tracepoint {
            provider: note.provider.to_owned(),
            name: note.name.to_owned(),
            address,
            offset: module.code_offset(address),
            semaphore,
            arguments: arguments(note.arguments),
        });
    }
    Ok(found)
}

/// A note as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Note<'a> {
    address: u64,
    base: u64,
    semaphore: u64,
    provider: &'a str,
    name: &'a str,
    arguments: &'a str,
}

/// `NT_STAPSDT`
const TYPE: u32 = 3;

fn notes(mut data: &[u8]) -> impl Iterator<Item = Note<'_>> {
    std::iter::from_fn(move || {
        loop {
            let (note, rest) = next_note(data)?;
            data = rest;
            if let Some(note) = note {
                return Some(note);
            }
        }
    })
}

/// A note, if it is a tracepoint's, and what follows it.
fn next_note(data: &[u8]) -> Option<(Option<Note<'_>>, &[u8])> {
    let word = |at: usize| data.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    let padded = |size: u32| usize::try_from(size).ok()?.checked_next_multiple_of(4);
    let (name_size, description_size, kind) = (word(0)?, word(4)?, word(8)?);
    let body = data.get(12..)?;
    let name = body.get(..padded(name_size)?)?;
    let description = body.get(name.len()..)?;
    let end = usize::try_from(description_size).ok()?;
    let rest = description.get(padded(description_size)?..).unwrap_or_default();
    let note = (kind == TYPE && name.starts_with(b"stapsdt\0"))
        .then(|| parse(description.get(..end)?))
        .flatten();
    Some((note, rest))
}

fn parse(description: &[u8]) -> Option<Note<'_>> {
    let word =
        |at: usize| description.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let mut strings = description.get(24..)?.split(|byte| *byte == 0);
    let mut string = || std::str::from_utf8(strings.next()?).ok();
    Some(Note {
        address: word(0)?,
        base: word(8)?,
        semaphore: word(16)?,
        provider: string()?,
        name: string()?,
        arguments: string().unwrap_or_default(),
    })
}

/// Arguments stand behind each other with spaces between; none holds a space of its own but within
/// parentheses.
fn arguments(text: &str) -> Vec<Option<Argument>> {
    text.split_ascii_whitespace().take(ARGUMENTS_MAX).map(argument).collect()
}

/// `-4@%edi`: a size, negative if signed, with `f` behind it for floating point; then the place.
fn argument(text: &str) -> Option<Argument> {
    let (size, place) = text.split_once('@')?;
    let (size, float) = match size.strip_suffix('f') {
        Some(size) => (size, true),
        None => (size, false),
    };
    let size: i8 = size.parse().ok()?;
    let bytes = size.unsigned_abs();
    if !matches!(bytes, 1 | 2 | 4 | 8) {
        return None;
    }
    Some(Argument { size: bytes, signed: size < 0, float, place: place_of(place)? })
}

fn place_of(text: &str) -> Option<Place> {
    if let Some(number) = text.strip_prefix('$') {
        return Some(Place::Constant(integer(number)?));
    }
    if let Some(name) = text.strip_prefix('%') {
        let (register, shift) = register(name)?;
        return Some(Place::Register { register, shift });
    }
    let (displacement, inside) = text.split_once('(')?;
    let inside = inside.strip_suffix(')')?;
    let mut parts = inside.split(',');
    let base = parts.next()?.trim();
    if base == "%rip" {
        return Some(Place::Static { displacement: added(displacement) });
    }
    let displacement = if displacement.is_empty() { 0 } else { integer(displacement)? };
    let whole = |name: &str| match register(name.trim().strip_prefix('%')?)? {
        (number, 0) => Some(number),
        _ => None,
    };
    let base = if base.is_empty() { None } else { Some(whole(base)?) };
    let index = match parts.next() {
        None => None,
        Some(index) => {
            let scale = parts.next().map_or(Some(1), |scale| scale.trim().parse().ok())?;
            Some((whole(index)?, scale))
        }
    };
    Some(Place::Memory { base, index, displacement })
}

/// What is added to a symbol: `name+8`, `8+name`, or a number alone.
fn added(text: &str) -> i64 {
    if let Some(number) = integer(text) {
        return number;
    }
    let ends = [
        text.rfind(['+', '-']).and_then(|at| text.get(at..)).map(|end| end.trim_start_matches('+')),
        text.find(['+', '-']).and_then(|at| text.get(..at)),
    ];
    ends.into_iter().flatten().find_map(integer).unwrap_or_default()
}

fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let number = match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok()?,
        None => digits.parse().ok()?,
    };
    Some(if negative { number.cast_signed().wrapping_neg() } else { number.cast_signed() })
}

/// DWARF's number of a register by any of its names, and how far up the named part begins.
fn register(name: &str) -> Option<(u8, u8)> {
    /// In DWARF's order; the letters of the low byte, and of the 16 bits.
    const OLD: [(&str, &str); 8] = [
        ("ax", "al"),
        ("dx", "dl"),
        ("cx", "cl"),
        ("bx", "bl"),
        ("si", "sil"),
        ("di", "dil"),
        ("bp", "bpl"),
        ("sp", "spl"),
    ];
    for (number, (word, byte)) in (0..).zip(OLD) {
        let whole = name.strip_prefix(['r', 'e']).is_some_and(|rest| rest == word);
        if whole || name == word || name == byte {
            return Some((number, 0));
        }
    }
    if let Some(number) = ["ah", "dh", "ch", "bh"].iter().position(|high| *high == name) {
        return Some((u8::try_from(number).ok()?, 8));
    }
    let digits = name.strip_prefix('r')?.trim_end_matches(['b', 'w', 'd']);
    let number = digits.parse().ok().filter(|number| (8..=15).contains(number))?;
    Some((number, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, description: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        note.extend(u32::try_from(name.len()).expect("short").to_le_bytes());
        note.extend(u32::try_from(description.len()).expect("short").to_le_bytes());
        note.extend(kind.to_le_bytes());
        for part in [name, description] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn notes_are_read() {
        let mut description = Vec::new();
        for word in [0x1000u64, 0x2000, 0] {
            description.extend(word.to_le_bytes());
        }
        description.extend(b"php\0request__startup\08@%rdi -4@-16(%rbp)\0");
        let mut data = note(b"GNU\0", 3, b"other");
        data.extend(note(b"stapsdt\0", 3, &description));
        let found: Vec<_> = notes(&data).collect();
        assert_eq!(
            found,
            [Note {
                address: 0x1000,
                base: 0x2000,
                semaphore: 0,
                provider: "php",
                name: "request__startup",
                arguments: "8@%rdi -4@-16(%rbp)",
            }]
        );
        // Every cut is harmless.
        for length in 0..data.len() {
            assert!(notes(&data[..length]).count() <= 1);
        }
    }

    #[test]
    fn arguments_are_read() {
        let memory = |base, index, displacement| Place::Memory { base, index, displacement };
        for (text, expected) in [
            ("-4@%edi", Some((4, true, Place::Register { register: 5, shift: 0 }))),
            ("8@%r12", Some((8, false, Place::Register { register: 12, shift: 0 }))),
            ("1@%r9b", Some((1, false, Place::Register { register: 9, shift: 0 }))),
            ("1@%ah", Some((1, false, Place::Register { register: 0, shift: 8 }))),
            ("2@%cx", Some((2, false, Place::Register { register: 2, shift: 0 }))),
            ("1@%sil", Some((1, false, Place::Register { register: 4, shift: 0 }))),
            ("8@-16(%rbp)", Some((8, false, memory(Some(6), None, -16)))),
            ("8@(%rax)", Some((8, false, memory(Some(0), None, 0)))),
            ("4@8(%rax,%rcx,4)", Some((4, false, memory(Some(0), Some((2, 4)), 8)))),
            ("4@0x10(,%r15,8)", Some((4, false, memory(None, Some((15, 8)), 16)))),
            ("4@$5", Some((4, false, Place::Constant(5)))),
            ("-8@$-1", Some((8, true, Place::Constant(-1)))),
            ("8@sym(%rip)", Some((8, false, Place::Static { displacement: 0 }))),
            ("8@sym+24(%rip)", Some((8, false, Place::Static { displacement: 24 }))),
            ("8@24+sym(%rip)", Some((8, false, Place::Static { displacement: 24 }))),
            ("3@%edi", None),
            ("4@%xyz", None),
            ("4@%r16", None),
            ("4@%xmm0", None),
            ("nonsense", None),
            ("8@(%rax", None),
        ] {
            let found = argument(text).map(|a| (a.size, a.signed, a.place));
            assert_eq!(found, expected, "{text}");
        }
        assert!(argument("8f@%rax").is_some_and(|argument| argument.float));
    }
}
