//! Errors of Go that hold another one: of what they are made, and what they say. One layer deep: what an inner
//! error says is known of numbers of the system and of plain text.
//!
//! An interface that is no empty one points at its table (`abi.ITab`), and that at the type; it points at the
//! value as well.

use super::MESSAGE_MAX;
use super::chunks::{Chunks, word, written};
use super::code::{Code, Jump};

/// The second string of a structure.
const SECOND: u16 = 20;
/// The type of the error behind two strings, its first word, and the string that it begins with.
const TYPE: u16 = 21;
const WORD: u16 = 22;
const TEXT: u16 = 23;
/// The type of the error behind one string, and its first word.
const SHORT_TYPE: u16 = 24;
const SHORT_WORD: u16 = 25;
/// The name of the inner error's type.
const NAME: u16 = 26;
/// The first string.
const FIRST: u16 = 4;

/// In a table of an interface: the type.
const TABLE_TYPE: i32 = 8;

/// No pointer is less.
const LOWEST: i32 = 4096;

/// Tells what may be in the structure that a register points at. What is no pointer there is not followed:
/// of what could not be read twice nothing more is.
pub(super) fn tell(code: &mut Code, register: u8) {
    for (kind, first, offset) in [(SHORT_TYPE, SHORT_WORD, 16), (TYPE, WORD, 32)] {
        let table = pointer(code, kind, (register, offset));
        code.follow(TABLE_TYPE).put(8);
        code.land(table);
        let value = pointer(code, first, (register, offset + 8));
        code.copy(8);
        code.land(value);
    }
    let second = pointer(code, SECOND, (register, 16));
    code.save(1).register(register).follow(24).save(0).recall(1).counted(0, MESSAGE_MAX);
    code.land(second);
    let value = pointer(code, TEXT, (register, 40));
    code.save(1).follow(0).save(2);
    let text = code.jump_if_below(LOWEST);
    code.recall(1).follow(8).save(0).recall(2).counted(0, MESSAGE_MAX);
    code.land(text);
    code.land(value);
}

/// Opens a chunk and loads a word; the jump is taken if that is no pointer.
fn pointer(code: &mut Code, chunk: u16, (register, offset): (u8, i32)) -> Jump {
    code.chunk(chunk).register(register).follow(offset).jump_if_below(LOWEST)
}

/// The chunks of the type and the first word of the error within one of this type.
fn chunks_of(name: &str) -> Option<(u16, u16)> {
    match name {
        "*fs.PathError" | "*url.Error" | "*strconv.NumError" => Some((TYPE, WORD)),
        "*os.SyscallError" => Some((SHORT_TYPE, SHORT_WORD)),
        _ => None,
    }
}

/// The type of the error within one of this type.
pub(super) fn inner(name: &str, chunks: Chunks<'_>) -> Option<u64> {
    chunks.number(chunks_of(name)?.0)
}

/// The name of the inner type, as a chunk.
pub(super) fn told(name: &[u8]) -> Vec<u8> {
    written(&[(NAME, 0, name)])
}

/// What the error says.
pub(super) fn message(name: &str, image: &[u8], chunks: Chunks<'_>) -> Option<String> {
    if name == "syscall.Errno" {
        return errno(word(image, 0)?);
    }
    let (_, word) = chunks_of(name)?;
    let first = whole(chunks, FIRST)?;
    let second = || whole(chunks, SECOND);
    let inner = match chunks.name(NAME)? {
        "syscall.Errno" => errno(chunks.number(word)?)?,
        "*errors.errorString" | "*fmt.wrapError" if word == WORD => whole(chunks, TEXT)?,
        _ => return None,
    };
    Some(match name {
        "*fs.PathError" => format!("{first} {}: {inner}", second()?),
        "*url.Error" => format!("{first} {}: {inner}", quoted(&second()?)?),
        "*strconv.NumError" => format!("strconv.{first}: parsing {}: {inner}", quoted(&second()?)?),
        "*os.SyscallError" => format!("{first}: {inner}"),
        _ => return None,
    })
}

/// A string that was copied to its end.
fn whole(chunks: Chunks<'_>, number: u16) -> Option<String> {
    chunks.whole(number).filter(|piece| !piece.cut)?.text()
}

/// As Go quotes a string, of those in which nothing is to be written otherwise.
fn quoted(text: &str) -> Option<String> {
    let is_plain = |c: char| (c.is_ascii_graphic() && !matches!(c, '"' | '\\')) || c == ' ';
    text.chars().all(is_plain).then(|| format!("\"{text}\""))
}

/// What Go's `syscall` calls an error of Linux's, of those that are met.
fn errno(number: u64) -> Option<String> {
    let (_, text) = ERRNO.iter().find(|(known, _)| u64::from(*known) == number)?;
    Some((*text).to_owned())
}

const ERRNO: &[(u16, &str)] = &[
    (1, "operation not permitted"),
    (2, "no such file or directory"),
    (3, "no such process"),
    (4, "interrupted system call"),
    (5, "input/output error"),
    (6, "no such device or address"),
    (7, "argument list too long"),
    (8, "exec format error"),
    (9, "bad file descriptor"),
    (10, "no child processes"),
    (11, "resource temporarily unavailable"),
    (12, "cannot allocate memory"),
    (13, "permission denied"),
    (14, "bad address"),
    (16, "device or resource busy"),
    (17, "file exists"),
    (18, "invalid cross-device link"),
    (19, "no such device"),
    (20, "not a directory"),
    (21, "is a directory"),
    (22, "invalid argument"),
    (23, "too many open files in system"),
    (24, "too many open files"),
    (25, "inappropriate ioctl for device"),
    (26, "text file busy"),
    (27, "file too large"),
    (28, "no space left on device"),
    (29, "illegal seek"),
    (30, "read-only file system"),
    (31, "too many links"),
    (32, "broken pipe"),
    (36, "file name too long"),
    (38, "function not implemented"),
    (39, "directory not empty"),
    (40, "too many levels of symbolic links"),
    (88, "socket operation on non-socket"),
    (89, "destination address required"),
    (90, "message too long"),
    (92, "protocol not available"),
    (93, "protocol not supported"),
    (95, "operation not supported"),
    (97, "address family not supported by protocol"),
    (98, "address already in use"),
    (99, "cannot assign requested address"),
    (100, "network is down"),
    (101, "network is unreachable"),
    (103, "software caused connection abort"),
    (104, "connection reset by peer"),
    (105, "no buffer space available"),
    (106, "transport endpoint is already connected"),
    (107, "transport endpoint is not connected"),
    (110, "connection timed out"),
    (111, "connection refused"),
    (113, "no route to host"),
    (122, "disk quota exceeded"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_errors_say_that_hold_others() {
        let number = 2u64.to_le_bytes();
        let said = |name: &str, inner: &[u8], second: (u16, &[u8])| {
            let chunks = written(&[
                (FIRST, 0, b"open"),
                (SECOND, second.0, second.1),
                (WORD, 0, &number),
                (SHORT_WORD, 0, &number),
                (TEXT, 0, b"invalid syntax"),
                (NAME, 0, inner),
            ]);
            message(name, &number, Chunks(&chunks))
        };
        let (text, errno) = (b"*errors.errorString".as_slice(), b"syscall.Errno".as_slice());
        let cut = agent_common::function::chunk_status::CUT;
        for (name, inner, second, expected) in [
            (
                "*fs.PathError",
                errno,
                (0, b"/x".as_slice()),
                Some("open /x: no such file or directory"),
            ),
            ("*fs.PathError", text, (0, b"/x"), Some("open /x: invalid syntax")),
            ("*fs.PathError", text, (cut, b"/x"), None),
            ("*fs.PathError", b"*main.own", (0, b"/x"), None),
            ("*url.Error", text, (0, b"http://h/"), Some("open \"http://h/\": invalid syntax")),
            ("*url.Error", text, (0, b"http://\"/"), None),
            (
                "*strconv.NumError",
                text,
                (0, b"7x"),
                Some("strconv.open: parsing \"7x\": invalid syntax"),
            ),
            ("*os.SyscallError", errno, (0, b""), Some("open: no such file or directory")),
            ("*os.SyscallError", text, (0, b""), None),
            ("syscall.Errno", b"", (0, b""), Some("no such file or directory")),
            ("*main.own", errno, (0, b"/x"), None),
        ] {
            assert_eq!(said(name, inner, second).as_deref(), expected, "{name} {second:?}");
        }
    }

    #[test]
    fn numbers_are_in_order() {
        assert!(ERRNO.is_sorted_by_key(|(number, _)| number));
        assert_eq!((errno(0), errno(1 << 32 | 2)), (None, None));
    }
}
