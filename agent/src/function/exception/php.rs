//! PHP 7 and 8: `zend_throw_exception_internal(zend_object *)`, which every throw passes, of a script or of
//! the engine. Layouts are those of `Zend/zend_types.h` and `Zend/zend.h`; the properties of every
//! throwable begin in the order of `Zend/zend_exceptions.stub.php`: message, string, code, file, line.

use agent_common::function::{Op, register};

use super::catch::{self, Which};
use super::chunks::Chunks;
use super::code::Code;
use super::{Decode, MESSAGE_MAX, NAME_MAX, PATH_MAX, Place, Raised, Seen};

const NAME: u16 = 0;
const MESSAGE: u16 = 1;
const FILE: u16 = 2;
const LINE: u16 = 3;

/// `zend_object.ce` and `zend_class_entry.name`
const CLASS: i32 = 16;
const CLASS_NAME: i32 = 8;
/// `zend_object.properties_table`, values of sixteen bytes: the value, then its type.
const PROPERTIES: i32 = 40;
const PROPERTY: i32 = 16;
/// `zend_string.len` and `.val`
const LENGTH: i32 = 16;
const TEXT: i32 = 24;
/// `IS_LONG` and `IS_STRING`
const IS_LONG: i32 = 4;
const IS_STRING: i32 = 6;

pub(super) fn is_hook(name: &str) -> bool {
    name == "zend_throw_exception_internal" || name == UNCAUGHT
}

/// `zend_exception_error(zend_object *, int severity)`: how an exception is told that nobody has caught, as
/// an error that ends the script, or as a warning.
const UNCAUGHT: &str = "zend_exception_error";

/// `E_ERROR`
const IS_ERROR: i32 = 1;

pub(super) fn code(name: &str) -> (Vec<Op>, Decode) {
    let mut code = Code::default();
    if name == UNCAUGHT {
        code.register(register::RSI).and(IS_ERROR);
        let error = code.jump_if(IS_ERROR);
        code.drop_hit();
        code.land(error);
        catch::tell_object(&mut code, register::RDI);
        return (code.finish(), Decode::PhpUncaught);
    }
    // Without an exception one that was there already goes on.
    code.register(register::RDI);
    let fresh = code.jump_unless(0);
    code.drop_hit();
    code.land(fresh);
    catch::tell_object(&mut code, register::RDI);
    code.chunk(NAME).register(register::RDI).follow(CLASS).follow(CLASS_NAME).save(0);
    text(&mut code, NAME_MAX);
    for (chunk, property, most) in [(MESSAGE, 0, MESSAGE_MAX), (FILE, 3, PATH_MAX)] {
        let value = PROPERTIES + PROPERTY * property;
        code.chunk(chunk).register(register::RDI).load(value + 8, 1);
        let other = code.jump_unless(IS_STRING);
        code.register(register::RDI).follow(value).save(0);
        text(&mut code, most);
        code.land(other);
    }
    let line = PROPERTIES + PROPERTY * 4;
    code.chunk(LINE).register(register::RDI).load(line + 8, 1);
    let other = code.jump_unless(IS_LONG);
    code.register(register::RDI).load(line, 8).put(8);
    code.land(other);
    (code.finish(), Decode::Php)
}

/// Appends the text of the string that slot 0 points at.
fn text(code: &mut Code, most: i32) {
    code.recall(0).load(LENGTH, 8).save(1);
    code.recall(0).add(TEXT).counted(1, most);
}

pub(super) fn decode(chunks: Chunks<'_>) -> Option<Seen> {
    let raised = Raised::new(chunks.name(NAME)?, chunks.text(MESSAGE));
    let mut raised = raised.with_object(catch::object(chunks));
    let line =
        chunks.number(LINE).and_then(|line| u32::try_from(line).ok()).filter(|line| *line > 0);
    raised.place =
        line.zip(chunks.name(FILE)).map(|(line, file)| Place { file: file.to_owned(), line });
    Some(Seen::Raised(raised))
}

pub(super) fn decode_uncaught(chunks: Chunks<'_>) -> Seen {
    Seen::Uncaught(Which::told(chunks))
}

#[cfg(test)]
mod tests {
    use super::super::chunks::written;
    use super::*;

    #[test]
    fn a_place_needs_file_and_line() {
        let line = 7u64.to_le_bytes();
        let name = (NAME, 0, b"App\\NotFound".as_slice());
        let file = (FILE, 0, b"/srv/a.php".as_slice());
        let line = (LINE, 0, line.as_slice());
        let place = Place { file: "/srv/a.php".to_owned(), line: 7 };
        let bare = Raised::new("App\\NotFound", None);
        let placed = Raised { place: Some(place), ..bare.clone() };
        let check = |chunks: &[_], raised: &Raised| {
            assert_eq!(decode(Chunks(&written(chunks))), Some(Seen::Raised(raised.clone())));
        };
        check(&[name, file, line], &placed);
        check(&[name, file], &bare);
        check(&[name, line], &bare);
        assert_eq!(decode(Chunks(&written(&[file, line]))), None);
    }
}
