//! Rust: every panic passes `rust_panic`, which is given the payload as a trait object when its message
//! has been made; before it `panic_with_hook` (until 1.9x `rust_panic_with_hook`) is given the place. What
//! `resume_unwind` passes on is no new panic: it passes the first only.
//!
//! No layout is promised, so what is read is believed if it is consistent: a string's capacity is not
//! below its length, a file's name ends in `.rs`, a line is plausible.

use agent_common::function::{Op, register};

use super::catch::{self, Catch, Which};
use super::chunks::{Chunks, word};
use super::code::Code;
use super::{Decode, MESSAGE_MAX, PATH_MAX, Place, Raised, Seen};

/// What `exception.type` is: a panic has no type of its own.
const NAME: &str = "panic";

/// The size of the payload, from its virtual table.
const SIZE: u16 = 0;
/// Its first words.
const IMAGE: u16 = 1;
/// Strings at different places of it, see [`STRINGS`].
const TEXT: u16 = 2;

/// Where a pointer and a length may be, in words, and the capacity; the last one is a `&str`. `String` has
/// been (pointer, capacity, length) and is (capacity, pointer, length); a payload with a reference besides
/// may have it first.
const STRINGS: [(usize, usize, Option<usize>); 4] =
    [(1, 2, Some(0)), (0, 2, Some(1)), (1, 3, Some(2)), (0, 1, None)];

/// Longest message, and most characters of a path: larger numbers are something else.
const LENGTH_MAX: u64 = 1 << 24;

pub(super) fn is_hook(name: &str) -> bool {
    is_panic(name) || is_place(name) || is_catch(name) || is_inner_catch(name)
}

/// What that calls, and what the standard library itself calls where it catches.
fn is_inner_catch(name: &str) -> bool {
    matches!(name, "__rust_panic_cleanup" | "__rustc::__rust_panic_cleanup")
}

/// What `catch_unwind` calls, which is inlined in its user but in debug builds.
pub(super) fn is_catch(name: &str) -> bool {
    matches!(name, "std::panicking::catch_unwind::cleanup" | "std::panicking::try::cleanup")
}

fn is_panic(name: &str) -> bool {
    matches!(name, "rust_panic" | "__rustc::rust_panic" | "std::panicking::rust_panic")
}

fn is_place(name: &str) -> bool {
    matches!(name, "std::panicking::panic_with_hook" | "std::panicking::rust_panic_with_hook")
}

pub(super) fn code(name: &str) -> (Vec<Op>, Decode) {
    let mut code = Code::default();
    if is_place(name) {
        // The place is the third argument; the fourth while there was one for the message.
        for (number, register) in [(0, register::RDX), (2, register::RCX)] {
            code.chunk(number).register(register).copy(24);
            code.chunk(number + 1).register(register).follow(8).save(0);
            code.register(register).follow(0).counted(0, PATH_MAX);
        }
        return (code.finish(), Decode::RustPlace);
    }
    if is_catch(name) || is_inner_catch(name) {
        catch::tell_caller(&mut code);
        return (code.finish(), Decode::RustCatch);
    }
    code.chunk(SIZE).register(register::RSI).load(8, 8).put(8);
    code.chunk(IMAGE).register(register::RDI).copy(32);
    for (number, (pointer, length, _)) in (TEXT..).zip(STRINGS) {
        code.chunk(number).register(register::RDI).follow(8 * length as i32).save(0);
        let long = code.shift_right(24).jump_unless(0);
        code.register(register::RDI).follow(8 * pointer as i32).counted(0, MESSAGE_MAX);
        code.land(long);
    }
    (code.finish(), Decode::RustPanic)
}

pub(super) fn decode_panic(chunks: Chunks<'_>) -> Option<Seen> {
    let size = chunks.number(SIZE).unwrap_or_default();
    let image = chunks.whole(IMAGE).map(|piece| piece.bytes).unwrap_or_default();
    let of_string = matches!(size, 24 | 32);
    let of_slice = size == 16;
    let is_there = |(pointer, length, capacity): (usize, usize, Option<usize>)| {
        let (Some(pointer), Some(length)) = (word(image, pointer), word(image, length)) else {
            return false;
        };
        let capacity = capacity.map_or(Some(length), |capacity| word(image, capacity));
        // A capacity is no pointer, and the other way round.
        capacity.is_some_and(|capacity| length <= capacity && capacity < pointer)
            && length < LENGTH_MAX
    };
    let text = (TEXT..).zip(STRINGS).find_map(|(number, string)| {
        let fits = if string.2.is_some() { of_string } else { of_slice };
        if fits && is_there(string) { chunks.text(number) } else { None }
    });
    // A box of any type, which is what goes on after it was caught: a pointer and a virtual table.
    let is_box = of_slice && text.is_none() && word(image, 1).is_some_and(|word| word > LENGTH_MAX);
    let raised = Raised::new(NAME, text);
    Some(if is_box { Seen::RaisedIfPlaced(raised) } else { Seen::Raised(raised) })
}

pub(super) fn decode_catch(chunks: Chunks<'_>) -> Seen {
    Seen::Caught(Catch { caller: catch::caller(chunks), ..Catch::of(Which::Latest) })
}

pub(super) fn decode_place(chunks: Chunks<'_>) -> Option<Seen> {
    let place = [0, 2].iter().find_map(|number| {
        let image = chunks.whole(*number)?.bytes;
        let file = chunks.name(number + 1)?;
        let (line, column) = (word(image, 2)? as u32, (word(image, 2)? >> 32) as u32);
        let plausible = file.ends_with(".rs") && line.wrapping_sub(1) < 1 << 20 && column < 1 << 16;
        plausible.then(|| Place { file: file.to_owned(), line })
    });
    Some(Seen::Place(place))
}

#[cfg(test)]
mod tests {
    use super::super::chunks::written;
    use super::*;

    fn words(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn panic(size: u64, image: &[u64], number: u16, text: &[u8]) -> Option<Seen> {
        let image = words(image);
        let chunks = written(&[(0, 0, &size.to_le_bytes()), (1, 0, &image), (number, 0, text)]);
        decode_panic(Chunks(&chunks))
    }

    #[test]
    fn payloads_of_several_versions() {
        let heap = 0x5555_5556_0000;
        let text = |text: &str| Some(Seen::Raised(Raised::new(NAME, Some(text.to_owned()))));
        // 1.95: a formatted message, an owned one, a constant.
        assert_eq!(panic(32, &[20, heap, 4, heap + 9], 2, b"boom"), text("boom"));
        assert_eq!(panic(24, &[10, heap, 4, 0], 2, b"boom"), text("boom"));
        assert_eq!(panic(16, &[heap, 4, 0, 0], 5, b"boom"), text("boom"));
        // Strings that begin with their pointer; with a reference before it.
        assert_eq!(panic(24, &[heap, 20, 4, 0], 3, b"boom"), text("boom"));
        assert_eq!(panic(32, &[heap, heap, 20, 4], 4, b"boom"), text("boom"));
        // A number.
        let nothing = Some(Seen::Raised(Raised::new(NAME, None)));
        assert_eq!(panic(8, &[42, 0, 0, 0], 2, b"boom"), nothing);
        // One that goes on.
        assert_eq!(
            panic(16, &[heap, heap + 64, 0, 0], 5, b""),
            Some(Seen::RaisedIfPlaced(Raised::new(NAME, None)))
        );
    }

    #[test]
    fn a_place_is_believed_if_it_is_plausible() {
        let place = |file: &[u8], line: u64| {
            let image = words(&[0x5555_0000, file.len() as u64, line | 5 << 32]);
            match decode_place(Chunks(&written(&[(0, 0, &image), (1, 0, file)]))) {
                Some(Seen::Place(place)) => place,
                other => panic!("a place, not {other:?}"),
            }
        };
        let file = "src/main.rs".to_owned();
        assert_eq!(place(b"src/main.rs", 12), Some(Place { file, line: 12 }));
        assert_eq!(place(b"src/main.rs", 0), None);
        assert_eq!(place(b"src/main.c", 12), None);
        assert_eq!(place(b"src/main.rs", 0xffff_ffff), None);
    }
}
