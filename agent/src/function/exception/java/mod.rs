//! Java (HotSpot): `JVM_FillInStackTrace(JNIEnv *, jobject)`, which the constructor of every throwable
//! calls that has a stack trace. So it is the making of an exception that is seen, not its throwing, and
//! before it has been given its message.
//!
//! That is read where the same object comes by when it is thrown: where a handler is looked for in the
//! interpreter, in what either compiler has made, and where the virtual machine or native code has thrown
//! it. Whether it was caught the interpreter alone tells, by the handler that it goes on with, and the end
//! of a thread. What compiled code handles within itself does not come by.
//!
//! An object is where it is until it is moved. Two collectors count that in a way that can be relied on;
//! with others objects are not known again.

mod handler;
mod layout;
mod tables;

use agent_common::function::{Op, register};

use super::catch::{self, Catch, Which};
use super::chunks::Chunks;
use super::code::Code;
use super::{Decode, MESSAGE_MAX, NAME_MAX, Raised, Seen, Surroundings};
use crate::function::site::SiteKind;
use handler::Method;
use layout::{COLLECTING, COLLECTIONS, COLLECTIONS_BEFORE, Headers, Machine, Objects, References};
pub(super) use tables::Tables;
use tables::Variable;

const NAME: u16 = 0;
/// Of the message how many bytes a character has, and it.
const CODER: u16 = 1;
const TEXT: u16 = 2;
/// Of a handler: what the interpreter goes on with, and what that is if there is none.
const GOES_ON: u16 = 3;
const LEAVES: u16 = 4;
/// Where in the code it is; where its method's constant part is, how long the code and all of it are.
const AT: u16 = 5;
const CONSTANT: u16 = 6;
const HEAD_BYTES: u16 = 7;
const FLAGS: u16 = 8;
const CODE_BYTES: u16 = 9;
const END: u16 = 10;
/// The class that the method is of.
const HOLDER: u16 = 11;

/// Where every throwable is made that has a stack trace.
const MADE: &str = "JVM_FillInStackTrace";
/// Where the interpreter looks for a handler: `(JavaThread *, oopDesc *)`.
const INTERPRETED: &str = "InterpreterRuntime::exception_handler_for_exception";
/// Where code of either compiler does, and where the second one's throws: the thread has the exception, or
/// it is the first argument.
const COMPILED: [&str; 2] =
    ["Runtime1::exception_handler_for_pc", "OptoRuntime::handle_exception_C"];
const THROWN: &str = "OptoRuntime::rethrow_C";
/// What native code is left by, where the thread has an exception that nobody has looked at.
const FORWARDED: &str = "SharedRuntime::exception_handler_for_return_address";
/// The end of a thread, which may have such a one, too.
const ENDED: &str = "JavaThread::exit";

/// The instructions of the virtual machine's language that call and beyond, and the one that throws.
const CALLS: i32 = 0xb6;
const THROW: i32 = 0xbf;

/// In a frame of the interpreter's: its method and its place in the code (`frame_x86.hpp`: words below
/// `rbp`, next to those that the virtual machine's table tells).
const FRAME_METHOD: i32 = -3 * 8;
const FRAME_PLACE: i32 = -8 * 8;
const TOLD_IN_FRAME: (&str, i32) = ("frame::interpreter_frame_last_sp_offset", -2);

/// `r15`: the thread, in all that the virtual machine makes for itself.
const R15: u8 = register::R8 + 7;

/// `String.coder`: one byte a character, or two.
const LATIN1: u8 = 0;
const UTF16: u8 = 1;

/// Whose handlers are not the program's.
const OWN: [&str; 4] = ["java/", "jdk/", "sun/", "com/sun/"];

/// How much of the name of a class is read to tell.
const HOLDER_MAX: i32 = 16;

pub(super) fn is_hook(name: &str) -> bool {
    [MADE, INTERPRETED, THROWN, FORWARDED, ENDED].contains(&name) || COMPILED.contains(&name)
}

/// Whether a function is a hook where it returns, too.
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
    if seen.site.kind == SiteKind::Return {
        handled(&mut code, &machine, &objects)?;
        return Some((code.finish(), Decode::JavaHandled));
    }
    // Slot 0 becomes the object.
    match name {
        INTERPRETED => {
            if seen.site.address != seen.start {
                // Its caller's frame is known no longer.
                return None;
            }
            // What comes out of calls has been told where it came from.
            tell_unless_calling(&mut code, &machine)?;
            code.register(register::RSI);
        }
        THROWN => {
            code.register(register::RDI);
        }
        FORWARDED | ENDED => {
            code.register(register::RDI);
            machine.follow(
                &mut code,
                machine.tables.offset("ThreadShadow", &["_pending_exception"])?,
            )?;
            let one = code.jump_unless(0);
            code.drop_hit();
            code.land(one);
        }
        _ => {
            code.register(register::RDI);
            machine.follow(&mut code, machine.tables.offset("JavaThread", &["_exception_oop"])?)?;
        }
    }
    code.save(0);
    objects.tell(&mut code, &machine)?;
    catch::tell_slot(&mut code, 0);
    if name == ENDED {
        return Some((code.finish(), Decode::JavaUncaught));
    }
    read_message(&mut code, &machine)?;
    Some((code.finish(), Decode::JavaThrown))
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
        objects.tell(&mut code, machine)?;
    }
    code.chunk(NAME).register(register::RSI).follow(0);
    headers.follow_class(&mut code, machine)?;
    machine.follow(&mut code, name)?;
    tell_symbol(&mut code, machine, NAME_MAX)?;
    Some(code.finish())
}

/// Appends the text of a symbol of the virtual machine's.
fn tell_symbol(code: &mut Code, machine: &Machine<'_>, most: i32) -> Option<()> {
    code.save(0);
    machine.to(code, machine.tables.offset("Symbol", &["_length"])?)?;
    code.load(0, 2).save(1).recall(0);
    machine.to(code, machine.tables.offset("Symbol", &["_body"])?)?;
    code.counted(1, most);
    Some(())
}

/// Drops the hit if the interpreter's frame is in the middle of a call.
fn tell_unless_calling(code: &mut Code, machine: &Machine<'_>) -> Option<()> {
    let (told, words) = TOLD_IN_FRAME;
    if machine.tables.constant(&[told])? != words {
        return None;
    }
    code.register(register::RBP).follow(FRAME_PLACE).load(0, 1);
    let other = code.jump_if_below(CALLS);
    let throws = code.jump_if(THROW);
    code.drop_hit();
    code.land(other);
    code.land(throws);
    Some(())
}

/// Reads the message of the throwable in slot 0, if it has one.
fn read_message(code: &mut Code, machine: &Machine<'_>) -> Option<()> {
    let references = References::find(machine)?;
    let headers = Headers::find(machine)?;
    let message = machine.tables.variable(Variable::Message)?;
    let value = machine.tables.variable(Variable::Items)?;
    let coder = machine.tables.variable(Variable::Coder)?;
    code.chunk(CODER).recall(0);
    machine.to_java(code, message)?;
    let mut none = Vec::new();
    none.extend(references.follow(code, machine)?);
    code.save(0);
    machine.to_java(code, coder)?;
    code.load(0, 1).put(1);
    code.chunk(TEXT).recall(0);
    machine.to_java(code, value)?;
    none.extend(references.follow(code, machine)?);
    code.save(1);
    none.push(headers.to_items(code, machine)?);
    code.recall(1).counted(2, MESSAGE_MAX);
    for jump in none {
        code.land(jump);
    }
    Some(())
}

/// Reads what the interpreter goes on with. Its frame is in `rbp`, which it has of its own.
fn handled(code: &mut Code, machine: &Machine<'_>, objects: &Objects) -> Option<()> {
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
    // It goes on where it was if there is no handler.
    tell_unless_calling(code, machine)?;
    code.chunk(GOES_ON).register(register::RAX).put(8);
    let leaves = machine.tables.variable(Variable::Leaves)?;
    code.chunk(LEAVES);
    machine.load(code, leaves, 8)?;
    code.put(8);
    objects.tell(code, machine)?;
    code.chunk(AT).register(register::RBP).follow(FRAME_PLACE).put(8);
    code.chunk(CONSTANT).register(register::RBP).follow(FRAME_METHOD);
    machine.follow(code, machine.tables.offset("Method", &["_constMethod"])?)?;
    code.put(8).save(0);
    code.chunk(FLAGS).recall(0);
    machine.to(code, flags)?;
    code.load(0, 2).put(2);
    code.chunk(CODE_BYTES).recall(0);
    machine.to(code, constant("_code_size")?)?;
    code.load(0, 2).put(2);
    code.chunk(HEAD_BYTES).constant(machine.tables.size("ConstMethod")?).put(8);
    code.chunk(END).recall(0);
    machine.to(code, constant("_constMethod_size")?)?;
    let most = handler::END_BYTES as i32;
    code.load(0, 4).shift_left(3).add_slot(0).add(-most).copy(most);
    code.chunk(HOLDER).recall(0);
    machine.follow(code, constant("_constants")?)?;
    machine.follow(code, machine.tables.offset("ConstantPool", &["_pool_holder"])?)?;
    machine.follow(code, machine.tables.offset("Klass", &["_name"])?)?;
    tell_symbol(code, machine, HOLDER_MAX)?;
    // Last, for it takes the slot.
    code.register(R15);
    machine.follow(code, result)?;
    code.save(0);
    catch::tell_slot(code, 0);
    Some(())
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
    let [coder] = *chunks.whole(CODER)?.bytes else { return None };
    let text = chunks.whole(TEXT)?;
    let read = match coder {
        LATIN1 => text.bytes.iter().map(|byte| char::from(*byte)).collect(),
        UTF16 => {
            let words = text.bytes.as_chunks::<2>().0.iter().map(|word| u16::from_le_bytes(*word));
            let mut words: Vec<_> = words.collect();
            // Half a character may be left of what was cut.
            words.pop_if(|last| text.cut && (0xd800..0xdc00).contains(last));
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

pub(super) fn decode_thrown(chunks: Chunks<'_>) -> Seen {
    match object(chunks) {
        Some(object) => {
            let message = message(chunks).map(|text| super::clean(&text));
            Seen::Thrown { object, message }
        }
        None => Seen::Nothing,
    }
}

pub(super) fn decode_handled(chunks: Chunks<'_>) -> Seen {
    match (object(chunks), is_handled_by_program(chunks)) {
        (Some(object), Some(true)) => Seen::Caught(Catch::of(Which::Object(object))),
        _ => Seen::Nothing,
    }
}

/// Whether the interpreter goes on with a handler of the program's that is for exceptions of a type.
fn is_handled_by_program(chunks: Chunks<'_>) -> Option<bool> {
    if chunks.number(GOES_ON)? == chunks.number(LEAVES)? {
        return Some(false);
    }
    let short = |chunk| Some(u16::from_le_bytes(chunks.whole(chunk)?.bytes.try_into().ok()?));
    let code = chunks.number(CONSTANT)?.checked_add(chunks.number(HEAD_BYTES)?)?;
    let at = u16::try_from(chunks.number(AT)?.checked_sub(code)?).ok()?;
    let (flags, code_bytes) = (short(FLAGS)?, short(CODE_BYTES)?);
    let method = Method { flags, code_bytes, end: chunks.whole(END)?.bytes };
    // Where they end a task or a thread, nobody of the program's has caught it.
    let holder = chunks.whole(HOLDER)?.bytes;
    let is_own = OWN.iter().any(|package| holder.starts_with(package.as_bytes()));
    Some(method.is_for_type(at)? && !is_own)
}

pub(super) fn decode_uncaught(chunks: Chunks<'_>) -> Seen {
    Seen::Uncaught(object(chunks).map_or(Which::Unknown, Which::Object))
}

#[cfg(test)]
mod tests {
    use super::super::chunks::written;
    use super::*;

    #[test]
    fn names_are_those_of_the_source() {
        let seen = |name: &[u8]| decode(Chunks(&written(&[(NAME, 0, name)])));
        let raised = Raised::new("java.lang.IllegalStateException", None);
        assert_eq!(seen(b"java/lang/IllegalStateException"), Some(Seen::Raised(raised)));
        assert_eq!(seen(b"no class"), None);
        assert_eq!(seen(b""), None);
    }
}
