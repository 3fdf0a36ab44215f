//! C++: `__cxa_throw(object, std::type_info *, destructor)` of the Itanium C++ ABI, in libstdc++, in
//! libc++abi, or linked statically. A rethrow is no new exception: the one that was caught goes on.
//!
//! The type's name is in its `type_info` (ABI 2.9.3: virtual table, name, and for a class with one public
//! base, `__si_class_type_info`, the base's `type_info`). The message of a class below
//! `std::runtime_error` or `std::logic_error` is a string that both libraries point at right behind the
//! virtual table's pointer. That two types are of the same kind is told by their own virtual tables, and
//! the two are known to have one base: so the chain to them is proved, not guessed.

use agent_common::function::{Op, register};

use super::catch::{self, Catch, Which};
use super::chunks::{Chunks, Piece, is_name, written};
use super::code::Code;
use super::cold::{self, Constants};
use super::{Decode, MESSAGE_MAX, NAME_MAX, Raised, Seen};
use crate::inspect::demangle;

/// Most steps from the thrown type to a known one.
const BASES_MAX: u16 = 3;

/// Names of types, the thrown one first.
const NAMES: u16 = 0;
/// The pointers to their virtual tables.
const TABLES: u16 = 8;
/// Nothing: a step that may fail for itself.
const STEP: u16 = 15;
/// The string that the object's second word points at.
const MESSAGE: u16 = 16;
/// The string that its first word points at.
const TEXT: u16 = 17;
/// Its first word.
const WORD: u16 = 18;

pub(super) fn is_hook(name: &str) -> bool {
    matches!(name, "__cxa_throw" | CATCH | RETHROW)
}

/// Whether it is what ends a program when an exception is about to leave a function that is `noexcept`.
pub(super) fn terminates(name: &str) -> bool {
    name == "__cxa_call_terminate"
}

/// Bytes of an `_Unwind_Exception`, which lies before what is thrown (ABI, level II, 2.2.1).
const UNWIND_BYTES: u64 = 32;

/// Called by the function that catches, when it has left all below it.
const CATCH: &str = "__cxa_begin_catch";

/// Called by whoever has caught an exception and does not want it.
const RETHROW: &str = "__cxa_rethrow";

pub(super) fn code(name: &str) -> (Vec<Op>, Decode) {
    let mut code = Code::default();
    if name == CATCH {
        catch::tell_object(&mut code, register::RDI);
        catch::tell_caller(&mut code);
        return (code.finish(), Decode::CppCatch);
    }
    if name == RETHROW {
        return (Vec::new(), Decode::CppRethrow);
    }
    catch::tell_object(&mut code, register::RDI);
    cold::tell_type(&mut code, register::RSI);
    catch::tell_here(&mut code);
    code.chunk(NAMES).register(register::RSI).save(0).follow(8).string(NAME_MAX);
    code.chunk(TABLES).recall(0).follow(0).put(8);
    // Before what may fail: after two failures nothing is read any more.
    code.chunk(WORD).register(register::RDI).follow(0).put(8);
    code.chunk(TEXT).register(register::RDI).follow(0).string(MESSAGE_MAX);
    code.chunk(MESSAGE).register(register::RDI).follow(8).string(MESSAGE_MAX);
    for step in 1..=BASES_MAX {
        // Where there is no base, the slot stays as it is.
        code.chunk(STEP).recall(0).follow(16).save(0);
        code.chunk(TABLES + step).recall(0).follow(0).put(8);
        code.chunk(NAMES + step).recall(0).follow(8).string(NAME_MAX);
    }
    (code.finish(), Decode::Cpp)
}

/// Reads the names and kinds of the type and of those that it is derived from, unless the hook has: up to
/// `std::exception` or whatever has no single base.
pub(super) fn complete(chunks: Chunks<'_>, constants: &mut dyn Constants) -> Option<Vec<u8>> {
    // Of what is no base of its type the code reads nothing, or nothing of use.
    let is_whole = (0..=BASES_MAX).all(|step| {
        let has_base = step == 0 || chunks.number(TABLES + step) == chunks.number(TABLES);
        !has_base || chunks.whole(NAMES + step).is_some() && chunks.number(TABLES + step).is_some()
    });
    if is_whole {
        return None;
    }
    let mut word = |address: u64| {
        let mut bytes = [0; 8];
        constants.of_process(address, &mut bytes).then(|| u64::from_le_bytes(bytes))
    };
    let mut found: Vec<(u16, Vec<u8>)> = Vec::new();
    let mut at = cold::type_of(chunks)?;
    let mut tables = Vec::new();
    let mut names = Vec::new();
    for step in 0..=BASES_MAX {
        let (Some(table), Some(name)) = (word(at), word(at.wrapping_add(8))) else { break };
        tables.push(table);
        names.push(name);
        if tables.first() != Some(&table) {
            break;
        }
        found.push((TABLES + step, table.to_le_bytes().to_vec()));
        let Some(base) = word(at.wrapping_add(16)) else { break };
        at = base;
    }
    // What the hook has read itself is still what it was.
    let known = chunks.number(TABLES);
    if known.is_some() && known != tables.first().copied() {
        return None;
    }
    for (step, name) in (0..).zip(names) {
        let read = |at, bytes: &mut [u8]| constants.of_process(name.wrapping_add(at), bytes);
        match cold::string(NAME_MAX as usize, read) {
            Some(text) => found.push((NAMES + step, text)),
            None if step == 0 => return None,
            None => break,
        }
    }
    let found: Vec<_> = found.iter().map(|(number, bytes)| (*number, 0, &**bytes)).collect();
    Some(written(&found))
}

pub(super) fn decode(chunks: Chunks<'_>) -> Option<Seen> {
    let mangled = chunks.name(NAMES)?;
    let message = match mangled.trim_start_matches('*') {
        "PKc" | "Pc" => chunks.text(TEXT),
        // A string with its characters on the heap or within itself: its first word points at them.
        "NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE" => chunks.text(TEXT),
        name => match number(name, chunks.whole(WORD)) {
            Some(number) => Some(number),
            None if has_message(chunks) => chunks.text(MESSAGE),
            None => None,
        },
    };
    let raised = Raised::new(type_name(mangled), message);
    Some(Seen::Raised(raised.with_object(catch::object(chunks))))
}

/// It is given the `_Unwind_Exception`. Where nobody catches, the functions that throw do so themselves
/// before they end the program.
pub(super) fn decode_catch(chunks: Chunks<'_>) -> Seen {
    let object = catch::object(chunks).map(|unwind| unwind.wrapping_add(UNWIND_BYTES));
    let which = object.map_or(Which::Unknown, Which::Object);
    Seen::Caught(Catch { caller: catch::caller(chunks), ..Catch::of(which) })
}

/// Whether the thrown type is `std::runtime_error`, `std::logic_error` or derived from one of them, base
/// by base.
fn has_message(chunks: Chunks<'_>) -> bool {
    let table = chunks.number(TABLES);
    for step in 0..=BASES_MAX {
        // A type of another kind has no base where this one has.
        if table.is_none() || chunks.number(TABLES + step) != table {
            return false;
        }
        match chunks.name(NAMES + step) {
            // In libc++ within its own namespace of versions.
            Some("St13runtime_error" | "St11logic_error") => return true,
            Some(name) if is_name(name) => {}
            _ => return false,
        }
    }
    false
}

/// A thrown number.
fn number(name: &str, word: Option<Piece<'_>>) -> Option<String> {
    let bytes: [u8; 8] = word?.bytes.try_into().ok()?;
    let word = u64::from_le_bytes(bytes);
    Some(match name {
        "i" => (word as i32).to_string(),
        "j" => (word as u32).to_string(),
        "l" | "x" => (word as i64).to_string(),
        "m" | "y" => word.to_string(),
        _ => return None,
    })
}

/// The name as the source has it. A type that is no class has a short name that says nothing.
fn type_name(mangled: &str) -> String {
    // A star marks a name that is not the same in every module.
    let mangled = mangled.trim_start_matches('*');
    let symbol = format!("_ZTI{mangled}");
    let full = demangle::full(&symbol);
    match full.strip_prefix("typeinfo for ") {
        Some(name) => name.to_owned(),
        None => mangled.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raised(name: &str, message: Option<&str>) -> Option<Seen> {
        let message = message.map(str::to_owned);
        Some(Seen::Raised(Raised { name: name.to_owned(), message, ..Raised::default() }))
    }

    #[test]
    fn only_a_proved_chain_has_a_message() {
        let table = 0x7f00_1234u64.to_le_bytes();
        let other = 0x7f00_9999u64.to_le_bytes();
        let chain = |kind: &'static [u8], base: &'static [u8]| {
            let kinds = if kind == b"same" { table } else { other };
            written(&[
                (0, 0, b"N3app8NotFoundE"),
                (8, 0, &table),
                (1, 0, base),
                (9, 0, &kinds),
                (16, 0, b"no such thing"),
            ])
        };
        let check = |chunks: &[u8], message| {
            assert_eq!(decode(Chunks(chunks)), raised("app::NotFound", message));
        };
        check(&chain(b"same", b"St13runtime_error"), Some("no such thing"));
        check(&chain(b"other", b"St13runtime_error"), None);
        check(&chain(b"same", b"St9exception"), None);
    }

    #[test]
    fn what_is_no_class_says_what_it_is() {
        let word = (-7i32 as u32 as u64 | 0xdead << 32).to_le_bytes();
        assert_eq!(
            decode(Chunks(&written(&[(0, 0, b"i"), (18, 0, &word)]))),
            raised("int", Some("-7"))
        );
        assert_eq!(
            decode(Chunks(&written(&[(0, 0, b"PKc"), (17, 0, b"plain")]))),
            raised("char const*", Some("plain"))
        );
        assert_eq!(decode(Chunks(&written(&[(0, 1, b"")]))), None);
        assert_eq!(decode(Chunks(&written(&[(0, 0, b"\xff\xfe")]))), None);
    }
}
