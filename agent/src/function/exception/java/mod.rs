//! Java (HotSpot): `JVM_FillInStackTrace(JNIEnv *, jobject)`, which the constructor of every throwable
//! calls that has a stack trace. So it is the making of an exception that is seen, not its throwing, and
//! before it has been given its message.
//!
//! That is read where the same object comes by when it was thrown, by whomever: where a handler is looked
//! for in the interpreter and in what either compiler has made. Whether it was caught the interpreter alone
//! tells, by the handler that it goes on with, and the end of a thread. What the second compiler's code
//! handles within itself does not come by, nor what native code handles.
//!
//! An object is where it is until it is moved. Two collectors count that in a way that can be relied on;
//! with others objects are not known again.

mod handler;
mod layout;
mod tables;

use agent_common::function::{Op, register};

use super::catch;
use super::chunks::{Chunks, word};
use super::code::Code;
use super::seen::clean;
use super::{Decode, Fate, MESSAGE_MAX, NAME_MAX, Passed, Raised, Seen, Surroundings};
#[cfg(test)]
use crate::inspect::address::VirtAddr;
use handler::Method;
use layout::{
    COLLECTING, COLLECTIONS, COLLECTIONS_BEFORE, Headers, ITEMS, Machine, Objects, References,
};
pub(super) use tables::Tables;
use tables::Variable;

const NAME: u16 = 0;
/// The message: how many bytes a character has, then it.
const MESSAGE: u16 = 1;
/// Where in its code the interpreter goes on; how long the head of its method's constant part is, where
/// that is, its flags, and how long the code is.
const HANDLER: u16 = 2;
const HANDLER_BYTES: usize = 3 * 8 + 2 * 2;
/// The end of the constant part, and the class that the method is of.
const END: u16 = 3;
const HOLDER: u16 = 4;

/// Where every throwable is made that has a stack trace.
const MADE: &str = "JVM_FillInStackTrace";
/// Where the interpreter looks for a handler: `(JavaThread *, oopDesc *)`. It is seen where that ends.
const INTERPRETED: &str = "InterpreterRuntime::exception_handler_for_exception";
/// Where code of either compiler does: the thread has the exception.
const COMPILED: [&str; 2] =
    ["Runtime1::exception_handler_for_pc", "OptoRuntime::handle_exception_C"];
/// The end of a thread, which may have an exception that nobody has looked at.
const ENDED: &str = "JavaThread::exit";

/// Instructions of Java's with which a handler begins: they take the exception, and raise nothing, so that
/// the interpreter is at one of them if it has found a handler. `astore`, its four short ones, `pop`.
const STORE: i32 = 0x3a;
const STORE_SHORT: i32 = 0x4b;
const STORES_SHORT: i32 = 4;
const POP: i32 = 0x57;

/// In a frame of the interpreter's: its method and its place in the code (`frame_x86.hpp`: words below
/// `rbp`, next to those that the virtual machine's table tells).
const FRAME_METHOD: i32 = -3 * 8;
const FRAME_PLACE: i32 = -8 * 8;
const TOLD_IN_FRAME: (&str, i32) = ("frame::interpreter_frame_last_sp_offset", -2);

/// What all that the virtual machine makes for itself keeps, by the numbers of the processor: its frame,
/// and the thread.
const RBP: usize = 5;
const R15: usize = 15;

/// `String.coder`: one byte a character, or two.
const LATIN1: u8 = 0;
const UTF16: u8 = 1;

/// Whose handlers are not the program's.
const OWN: [&str; 4] = ["java/", "jdk/", "sun/", "com/sun/"];

/// How much of the name of a class is read to tell.
const HOLDER_BYTES: i32 = 8;

pub(super) fn is_hook(name: &str) -> bool {
    [MADE, INTERPRETED, ENDED].contains(&name) || COMPILED.contains(&name)
}

/// Whether a function is a hook where it returns.
pub(super) fn is_hook_at_end(name: &str) -> bool {
    name == INTERPRETED
}

pub(super) fn code(name: &str, seen: Surroundings<'_>) -> Option<(Vec<Op>, Decode)> {
    let machine = Machine { tables: seen.java?, hook: seen.site.address };
    if name == MADE {
        return Some((made(&machine)?, Decode::Java));
    }
    let objects = Objects::find(&machine)?;
    let mut code = Code::default();
    if name == INTERPRETED {
        handled(&mut code, &machine, &objects, seen.saved)?;
        return Some((code.finish(), Decode::JavaPassed));
    }
    code.register(register::RDI);
    let (field, decode) = if name == ENDED {
        (machine.tables.offset("ThreadShadow", &["_pending_exception"])?, Decode::JavaUncaught)
    } else {
        (machine.tables.offset("JavaThread", &["_exception_oop"])?, Decode::JavaPassed)
    };
    machine.follow(&mut code, field)?;
    let one = code.jump_unless(0);
    code.drop_hit();
    code.land(one);
    code.save(0);
    tell(&mut code, &machine, &objects)?;
    Some((code.finish(), decode))
}

/// The longest codes that there may be.
#[cfg(test)]
pub(super) fn longest() -> [Vec<Op>; 2] {
    let tables = Tables::full();
    let machine = Machine { tables: &tables, hook: VirtAddr(0x2000) };
    let objects = Objects::find(&machine).expect("all is there");
    let mut of_end = Code::default();
    let saved = [(RBP, 8), (R15, 16)];
    handled(&mut of_end, &machine, &objects, &saved).expect("all is there");
    [made(&machine).expect("all is there"), of_end.finish()]
}

/// Reads the class of an exception that is being made, and which object it is. Its thread runs native
/// code, so that objects may be moved meanwhile.
fn made(machine: &Machine<'_>) -> Option<Vec<Op>> {
    let headers = Headers::find(machine)?;
    let name = machine.tables.offset("Klass", &["_name"])?;
    let mut code = Code::default();
    if let Some(objects) = Objects::find(machine) {
        objects.tell_before(&mut code, machine)?;
        catch::tell_object_at(&mut code, register::RSI);
        objects.tell_if_counting(&mut code, machine)?;
    }
    code.chunk(NAME).register(register::RSI).follow(0);
    headers.follow_class(&mut code, machine)?;
    machine.follow(&mut code, name)?;
    code.save(0);
    machine.field(&mut code, 0, machine.tables.offset("Symbol", &["_length"])?)?;
    code.load(0, 2).save(1);
    machine.field(&mut code, 0, machine.tables.offset("Symbol", &["_body"])?)?;
    code.counted(1, NAME_MAX);
    Some(code.finish())
}

/// Reads the message of the throwable in slot 0, if it has one.
fn read_message(code: &mut Code, machine: &Machine<'_>) -> Option<()> {
    let references = References::find(machine)?;
    let headers = Headers::find(machine)?;
    let message = machine.tables.variable(Variable::Message)?;
    let value = machine.tables.variable(Variable::Items)?;
    let coder = machine.tables.variable(Variable::Coder)?;
    code.chunk(MESSAGE);
    let mut none = vec![references.check(code, machine)?];
    machine.java_field(code, 0, message)?;
    none.push(references.follow(code, machine)?);
    none.push(code.jump_if(0));
    code.save(0);
    machine.java_field(code, 0, coder)?;
    code.load(0, 1).put(1);
    machine.java_field(code, 0, value)?;
    none.push(references.follow(code, machine)?);
    code.save(1);
    none.push(headers.to_items(code, machine)?);
    code.recall(1).add(ITEMS).counted(2, MESSAGE_MAX);
    for jump in none {
        code.land(jump);
    }
    Some(())
}

/// Reads what the interpreter goes on with, if that is a handler.
fn handled(
    code: &mut Code,
    machine: &Machine<'_>,
    objects: &Objects,
    saved: &[(usize, i32)],
) -> Option<()> {
    let (told, words) = TOLD_IN_FRAME;
    if machine.tables.constant(&[told])? != words {
        return None;
    }
    let below = |register| saved.iter().find(|(known, _)| *known == register).map(|(_, at)| -at);
    let (frame, thread) = (below(RBP)?, below(R15)?);
    let names =
        |name: &str| [format!("ConstMethod::_{name}"), format!("ConstMethodFlags::_misc_{name}")];
    for (name, bit) in handler::FLAGS {
        let [old, recent] = names(name);
        if machine.tables.constant(&[&old, &recent])? != i32::from(bit) {
            return None;
        }
    }
    let constant = |field: &str| machine.tables.offset("ConstMethod", &[field]);
    let flags = machine.tables.offset("ConstMethod", &["_flags", "_flags._flags"])?;
    let results = ["_vm_result", "_vm_result_oop"];
    let result = machine.tables.offset_for_compiler("JavaThread", &results)?;
    // It stays where it was if there is no handler.
    code.chunk(HANDLER).stack_pointer().follow(frame).save(1);
    code.follow(FRAME_PLACE).save(2).load(0, 1);
    let begins = [code.jump_if(STORE), code.jump_if(POP)];
    code.add(-STORE_SHORT);
    let begins_short = code.jump_if_below(STORES_SHORT);
    code.drop_hit();
    for jump in begins {
        code.land(jump);
    }
    code.land(begins_short);
    code.recall(2).put(8);
    code.constant(machine.tables.size("ConstMethod")?).put(8);
    code.recall(1).follow(FRAME_METHOD);
    machine.follow(code, machine.tables.offset("Method", &["_constMethod"])?)?;
    code.put(8).save(0);
    for field in [flags, constant("_code_size")?] {
        machine.field(code, 0, field)?;
        code.load(0, 2).put(2);
    }
    code.chunk(END);
    machine.field(code, 0, constant("_constMethod_size")?)?;
    let most = handler::END_BYTES as i32;
    code.load(0, 4).shift_left(3).add_slot(0).add(-most).copy(most);
    code.chunk(HOLDER);
    machine.field(code, 0, constant("_constants")?)?;
    code.follow(0);
    machine.follow(code, machine.tables.offset("ConstantPool", &["_pool_holder"])?)?;
    machine.follow(code, machine.tables.offset("Klass", &["_name"])?)?;
    machine.to(code, machine.tables.offset("Symbol", &["_body"])?)?;
    // Whatever is behind it.
    code.copy(HOLDER_BYTES);
    // Last, for it takes the slot.
    code.stack_pointer().follow(thread);
    machine.follow(code, result)?;
    code.save(0);
    tell(code, machine, objects)
}

/// Tells which object slot 0 points at, and its message.
fn tell(code: &mut Code, machine: &Machine<'_>, objects: &Objects) -> Option<()> {
    catch::tell_slot(code, 0);
    objects.tell(code, machine)?;
    read_message(code, machine)
}

/// Which object it is, while it lies where it does.
fn object(chunks: Chunks<'_>) -> Option<u64> {
    /// Objects lie below 2^47, at multiples of eight: the rest is for how often they were moved.
    const PLACE_BITS: u32 = 44;
    let place = catch::object(chunks)? >> 3;
    let moved = chunks.number(COLLECTIONS)? << PLACE_BITS;
    (place != 0 && place >> PLACE_BITS == 0).then_some(place | moved)
}

/// Which object it is that native code has, if it was not moved while it was read.
fn object_of_native(chunks: Chunks<'_>) -> Option<u64> {
    let before = chunks.number(COLLECTIONS_BEFORE)?;
    let is_still =
        chunks.number(COLLECTING) == Some(0) && chunks.number(COLLECTIONS) == Some(before);
    object(chunks).filter(|_| is_still)
}

fn message(chunks: Chunks<'_>) -> Option<String> {
    let piece = chunks.whole(MESSAGE)?;
    let (coder, text) = piece.bytes.split_first()?;
    let read = match *coder {
        LATIN1 => text.iter().map(|byte| char::from(*byte)).collect(),
        UTF16 => {
            let words = text.as_chunks::<2>().0.iter().map(|word| u16::from_le_bytes(*word));
            let mut words: Vec<_> = words.collect();
            // Half a character may be left of what was cut.
            words.pop_if(|last| piece.cut && (0xd800..0xdc00).contains(last));
            String::from_utf16(&words).ok()?
        }
        _ => return None,
    };
    Some(read).filter(|read| !read.is_empty())
}

pub(super) fn decode(chunks: Chunks<'_>) -> Option<Seen> {
    let name = chunks.name(NAME)?;
    // Whatever else it is, it is not the name of a class.
    let is_class = !name.contains(|c: char| c.is_whitespace() || matches!(c, '.' | ';' | '['));
    is_class.then(|| {
        let raised = Raised::new(name.replace('/', "."), None);
        Seen::Raised(raised.with_object(object_of_native(chunks)))
    })
}

/// What comes by; a handler of the program's may have it.
pub(super) fn decode_passed(chunks: Chunks<'_>) -> Seen {
    let is_caught = is_handled_by_program(chunks) == Some(true);
    passed(chunks, if is_caught { Fate::Caught } else { Fate::OnItsWay })
}

pub(super) fn decode_uncaught(chunks: Chunks<'_>) -> Seen {
    passed(chunks, Fate::Uncaught)
}

fn passed(chunks: Chunks<'_>, fate: Fate) -> Seen {
    let Some(object) = object(chunks) else { return Seen::Nothing };
    let message = message(chunks).map(|text| clean(&text));
    Seen::Passed(Passed { object, message, fate })
}

/// Whether the interpreter goes on with a handler of the program's that is for exceptions of a type.
fn is_handled_by_program(chunks: Chunks<'_>) -> Option<bool> {
    let seen: &[u8; HANDLER_BYTES] = chunks.whole(HANDLER)?.bytes.try_into().ok()?;
    let word = |number| word(seen, number);
    let [at, head_bytes, start] = [word(0)?, word(1)?, word(2)?];
    let [.., f0, f1, c0, c1] = *seen;
    let [flags, code_bytes] = [[f0, f1], [c0, c1]].map(u16::from_le_bytes);
    let at = u16::try_from(at.checked_sub(start.checked_add(head_bytes)?)?).ok()?;
    let method = Method { flags, code_bytes, end: chunks.whole(END)?.bytes };
    // Where they end a task or a thread, nobody of the program's has caught it.
    let holder = chunks.whole(HOLDER)?.bytes;
    let is_own = OWN.iter().any(|package| holder.starts_with(package.as_bytes()));
    Some(method.is_for_type(at)? && !is_own)
}

#[cfg(test)]
mod tests {
    use agent_common::function::chunk_status;

    use super::super::chunks::written;
    use super::*;

    const OBJECT: u16 = 40;

    #[test]
    fn names_are_those_of_the_source() {
        let seen = |name: &[u8]| decode(Chunks(&written(&[(NAME, 0, name)])));
        let raised = Raised::new("java.lang.IllegalStateException", None);
        assert_eq!(seen(b"java/lang/IllegalStateException"), Some(Seen::Raised(raised)));
        assert_eq!(seen(b"no class"), None);
        assert_eq!(seen(b""), None);
    }

    #[test]
    fn an_object_is_known_while_nothing_is_moved() {
        let seen = |before: u64, is_moving: u64, after: u64| {
            let chunks = written(&[
                (COLLECTIONS_BEFORE, 0, &before.to_le_bytes()),
                (COLLECTING, 0, &is_moving.to_le_bytes()),
                (OBJECT, 0, &0x7f00_1000u64.to_le_bytes()),
                (COLLECTIONS, 0, &after.to_le_bytes()),
                (NAME, 0, b"Gone"),
            ]);
            match decode(Chunks(&chunks)) {
                Some(Seen::Raised(raised)) => raised.object,
                other => panic!("{other:?}"),
            }
        };
        let object = seen(3, 0, 3);
        assert!(object.is_some());
        assert_eq!((seen(3, 1, 3), seen(3, 0, 4)), (None, None));
        assert_ne!(seen(4, 0, 4), object);
        let chunks = |object: u64| {
            written(&[(OBJECT, 0, &object.to_le_bytes()), (COLLECTIONS, 0, &3u64.to_le_bytes())])
        };
        assert_eq!(object_told(&chunks(0x7f00_1000)), object);
        for wrong in [0, 1 << 47, u64::MAX] {
            assert_eq!(object_told(&chunks(wrong)), None);
        }
    }

    fn object_told(chunks: &[u8]) -> Option<u64> {
        super::object(Chunks(chunks))
    }

    #[test]
    fn messages_are_written_in_two_ways() {
        let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let cut = chunk_status::CUT;
        for (coder, status, bytes, expected) in [
            (LATIN1, 0, b"gr\xf6\xdfer".to_vec(), Some("größer")),
            (LATIN1, cut, b"more".to_vec(), Some("more")),
            (LATIN1, chunk_status::FAULT, b"more".to_vec(), None),
            (LATIN1, 0, Vec::new(), None),
            (UTF16, 0, wide("漢字 😀"), Some("漢字 😀")),
            (UTF16, cut, wide("漢字 😀")[..8].to_vec(), Some("漢字 ")),
            (UTF16, 0, wide("漢字 😀")[..8].to_vec(), None),
            (2, 0, b"text".to_vec(), None),
        ] {
            let bytes = [vec![coder], bytes].concat();
            let chunks = written(&[(MESSAGE, status, &bytes)]);
            assert_eq!(message(Chunks(&chunks)).as_deref(), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_handler_may_be_the_programs() {
        // One handler, for a type, at 20.
        let end = [0u16, 8, 20, 5, 1].map(u16::to_le_bytes).concat();
        let seen = |at: u64, holder: &[u8]| {
            let handler = [at, 0x30, 0x5000].map(u64::to_le_bytes).concat();
            let handler = [&handler[..], &[8, 0, 50, 0]].concat();
            let chunks = [(HANDLER, 0, &handler[..]), (END, 0, &end), (HOLDER, 0, holder)];
            is_handled_by_program(Chunks(&written(&chunks)))
        };
        for (at, holder, expected) in [
            (0x5044, "app/Main", Some(true)),
            (0x5045, "app/Main", None),
            (0x4000, "app/Main", None),
            (0x5044, "java/uti", Some(false)),
            (0x5044, "javassis", Some(true)),
        ] {
            assert_eq!(seen(at, holder.as_bytes()), expected, "{holder} {at:#x}");
        }
    }
}
