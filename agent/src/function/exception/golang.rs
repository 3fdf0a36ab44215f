//! Go: `runtime.gopanic(any)` for every panic, the runtime's own too; `runtime.throw` and `runtime.fatal`
//! for what ends the program. Arguments are in registers since Go 1.17 (ABIInternal): the dynamic type in
//! `rax`, the value in `rbx`.
//!
//! A type's name lies at an offset from where the linker put all types (`abi.Type.Str`); that place is
//! told from the probe's own address, so that it holds wherever the program is loaded.

use agent_common::function::{Op, register};

use super::catch::{self, Catch, Which};
use super::chunks::{Chunks, Piece, is_name, word, written};
use super::code::Code;
use super::cold::{self, Constants};
use super::{Decode, MESSAGE_MAX, NAME_MAX, Raised, Seen, Surroundings, data, wrapped};
use crate::inspect::address::VirtAddr;
use crate::inspect::elf::Module;

/// `abi.Type.TFlag`, `.Align_`, `.FieldAlign_` and `.Kind_`, a byte each.
const TYPE_FLAGS: i32 = 20;
/// `abi.Type.Str`
const TYPE_NAME: i32 = 40;
/// `abi.TFlagExtraStar`: the name has a star before it that does not belong to it.
const EXTRA_STAR: u8 = 1 << 1;

/// Flags of the name and its length, see `abi.Name`.
const HEAD: u16 = 0;
/// The name.
const NAME: u16 = 1;
/// The flags of the type.
const FLAGS: u16 = 2;
/// The value's first words.
const IMAGE: u16 = 3;
/// The string that they are, if they are one.
const TEXT: u16 = 4;

pub(super) fn is_hook(name: &str) -> bool {
    matches!(
        name,
        "runtime.gopanic"
            | "runtime.throw"
            | "runtime.fatal"
            | "runtime.fatalpanic"
            | RECOVERY
            | SERVER
    )
}

/// Where all types are.
const TYPES: u16 = 5;

/// `recovery(*g)`: a deferred call has recovered. It runs on the stack of the scheduler.
const RECOVERY: &str = "runtime.recovery";

/// What the goroutine of a connection has deferred: it recovers from what handlers do not, and then closes
/// the connection.
const SERVER: &str = "net/http.(*conn).serve.func1";

/// The bounds of the goroutine's stack, `g.stack`.
const STACK: u16 = 1;
/// The innermost panic.
const PANIC: u16 = 2;
/// The goroutine's id.
const GOROUTINE: u16 = 3;

/// `g._panic`
const G_PANIC: i32 = 32;
/// Bytes of a panic that are read.
const PANIC_BYTES: i32 = 80;
/// What tells panics apart is what is raised, its two words made one.
const TYPE_SHIFT: i32 = 20;

/// What the hook of recoveries reads of a goroutine, whose id lies at an offset.
pub fn goroutine(ops: &mut Vec<Op>, id_offset: u32) {
    let mut code = Code::default();
    code.chunk(GOROUTINE).register(register::RAX).load(id_offset.cast_signed(), 8).put(8);
    ops.extend(code.finish());
}

pub(super) fn code(name: &str, seen: Surroundings<'_>) -> (Vec<Op>, Decode) {
    let mut code = Code::default();
    if name == RECOVERY || name == SERVER {
        let (g, decode) = match name {
            RECOVERY => (register::RAX, Decode::GoRecovery),
            _ => (register::R14, Decode::GoServer),
        };
        code.chunk(PANIC).register(g).follow(G_PANIC).save(0);
        let panics = code.jump_unless(0);
        code.drop_hit();
        code.land(panics);
        code.recall(0).copy(PANIC_BYTES);
        code.chunk(STACK).register(g).copy(16);
        catch::tell_here(&mut code);
        return (code.finish(), decode);
    }
    if name == "runtime.fatalpanic" {
        return (Vec::new(), Decode::GoUncaught);
    }
    if name != "runtime.gopanic" {
        code.chunk(TEXT).register(register::RBX).save(0);
        code.register(register::RAX).counted(0, MESSAGE_MAX);
        return (code.finish(), Decode::GoFatal);
    }
    cold::tell_type(&mut code, register::RAX);
    catch::tell_here(&mut code);
    code.register(register::RAX).shift_left(TYPE_SHIFT).save(0);
    catch::tell_sum(&mut code, 0, register::RBX);
    // First what is read nowhere else, if this fails twice.
    code.chunk(IMAGE).register(register::RBX).copy(24);
    code.chunk(TEXT).register(register::RBX).follow(8).save(0);
    code.register(register::RBX).follow(0).counted(0, MESSAGE_MAX);
    // What only some have, and only some are large enough for.
    code.chunk(METHOD).register(register::RBX).add(24).copy(16);
    wrapped::tell(&mut code, register::RBX);
    // Last what is in the program's file, too.
    code.chunk(FLAGS).register(register::RAX).load(TYPE_FLAGS, 4).put(4);
    let distance = types(seen.module).and_then(|types| {
        i32::try_from(types.0.wrapping_sub(seen.site.address.0).cast_signed()).ok()
    });
    if let Some(distance) = distance {
        code.chunk(TYPES).register(register::RIP).add(distance).save(1).put(8);
        code.chunk(HEAD);
        code.register(register::RAX).load(TYPE_NAME, 4).add_slot(1).save(2).copy(3);
        // A byte of flags, a byte or two of length, the name.
        code.chunk(NAME).recall(2).load(1, 1).save(3);
        code.recall(2).add(2).counted(3, NAME_MAX);
    }
    (code.finish(), Decode::GoPanic)
}

/// Where the linker put the types: at the start of the section of constants, or, in a program of a
/// position-independent kind, of those that the loader changes.
fn types(module: &Module) -> Option<VirtAddr> {
    data::symbol(module, "runtime.types").or_else(|| {
        let independent = module.section(".data.rel.ro.typelink").is_some();
        let section = if independent { ".data.rel.ro" } else { ".rodata" };
        Some(module.section(section)?.address)
    })
}

/// Reads the name of a type of the program's own, and its flags, unless the hook has; and what else of a
/// failed type assertion is constant.
pub(super) fn complete(chunks: Chunks<'_>, constants: &mut dyn Constants) -> Option<Vec<u8>> {
    let kind = catch::from_here(chunks, cold::type_of(chunks)?)?;
    let types = catch::from_here(chunks, chunks.number(TYPES)?)?;
    let mut types = Types { types, constants };
    let mut more = Vec::new();
    if [HEAD, NAME, FLAGS].iter().any(|number| chunks.whole(*number).is_none()) {
        more = types.read(kind)?;
    }
    let name = type_name(Chunks(&more)).or_else(|| type_name(chunks));
    if name.as_deref() == Some(ASSERTION)
        && let Some(assertion) = types.assertion(chunks)
    {
        more.extend(assertion);
    }
    if let Some(inner) = name.as_deref().and_then(|name| wrapped::inner(name, chunks))
        && let Some(name) = types.name(catch::from_here(chunks, inner)?)
    {
        more.extend(wrapped::told(&name));
    }
    (!more.is_empty()).then_some(more)
}

/// The types of a program, by their distance from a hook.
struct Types<'a> {
    /// Where they begin.
    types: i64,
    constants: &'a mut dyn Constants,
}

impl Types<'_> {
    fn bytes(&mut self, at: i64, bytes: &mut [u8]) -> Option<()> {
        self.constants.of_module(at, bytes).then_some(())
    }

    /// Where the name of a type is, and the type's flags.
    fn place(&mut self, kind: i64) -> Option<(i64, [u8; 4])> {
        let (mut flags, mut offset) = ([0; 4], [0; 4]);
        self.bytes(kind.checked_add(TYPE_FLAGS.into())?, &mut flags)?;
        self.bytes(kind.checked_add(TYPE_NAME.into())?, &mut offset)?;
        Some((self.types.checked_add(i32::from_le_bytes(offset).into())?, flags))
    }

    /// The chunks that the hook makes of a type.
    fn read(&mut self, kind: i64) -> Option<Vec<u8>> {
        let (name, flags) = self.place(kind)?;
        let mut head = [0; 3];
        self.bytes(name, &mut head)?;
        // As the hook does: as many bytes as the first of length says, behind that.
        let [_, length, _] = head;
        let mut text = vec![0; usize::from(length)];
        self.bytes(name.checked_add(2)?, &mut text)?;
        Some(written(&[(HEAD, 0, &head), (NAME, 0, &text), (FLAGS, 0, &flags)]))
    }

    /// The whole name of a type.
    fn name(&mut self, kind: i64) -> Option<Vec<u8>> {
        let (name, flags) = self.place(kind)?;
        let mut head = [0; 3];
        self.bytes(name, &mut head)?;
        let [_, low, high] = head;
        let (length, bytes) = if low < 0x80 {
            (usize::from(low), 1)
        } else {
            (usize::from(low & 0x7f) | usize::from(high & 0x7f) << 7, 2)
        };
        let mut text = vec![0; Some(length).filter(|length| *length <= NAME_MAX as usize)?];
        self.bytes(name.checked_add(1 + bytes)?, &mut text)?;
        let star = usize::from(flags.first()? & EXTRA_STAR != 0);
        Some(text.get(star..)?.to_vec())
    }

    /// What a `runtime.TypeAssertionError` points at: the types of the interface, of what is in it and of
    /// what was asked for, and the name of the method that is missing.
    fn assertion(&mut self, chunks: Chunks<'_>) -> Option<Vec<u8>> {
        let image = chunks.whole(IMAGE)?.bytes;
        let mut found = Vec::new();
        for (number, field) in (ASSERTED..).zip(0..3) {
            let kind = word(image, field)?;
            if kind != 0 {
                let name = self.name(catch::from_here(chunks, kind)?)?;
                found.extend(written(&[(number, 0, &name)]));
            }
        }
        let method = chunks.whole(METHOD)?.bytes;
        let (at, length) = (word(method, 0)?, word(method, 1)?);
        let mut text = vec![0; usize::try_from(length.min(NAME_MAX as u64 + 1)).ok()?];
        if length > 0 {
            self.bytes(catch::from_here(chunks, at)?, &mut text)?;
        }
        found.extend(written(&[(MISSING, 0, &text)]));
        (length <= NAME_MAX as u64).then_some(found)
    }
}

/// What is raised where a value is not of the type that was asked for.
const ASSERTION: &str = "*runtime.TypeAssertionError";
/// The string that names the method which is missing, as it lies in one.
const METHOD: u16 = 6;
/// The names of the three types of one, those that are there.
const ASSERTED: u16 = 10;
/// The name of the method.
const MISSING: u16 = 13;

/// What a failed type assertion says (`TypeAssertionError.Error` of `runtime/error.go`).
fn assertion(image: &[u8], chunks: Chunks<'_>) -> Option<String> {
    let name = |field: u16| chunks.text(ASSERTED + field);
    let is_there = |field| word(image, field).map(|kind| kind != 0);
    // Nothing of it was completed.
    let missing = chunks.whole(MISSING)?.text()?;
    let interface = if is_there(0)? { name(0)? } else { "interface".to_owned() };
    let wanted = name(2)?;
    if !is_there(1)? {
        return Some(format!("interface conversion: {interface} is nil, not {wanted}"));
    }
    let concrete = name(1)?;
    if !missing.is_empty() {
        let is_not = format!("interface conversion: {concrete} is not {wanted}");
        return Some(format!("{is_not}: missing method {missing}"));
    }
    // Of types that are called the same it says more.
    let differ = concrete != wanted;
    differ.then(|| format!("interface conversion: {interface} is {concrete}, not {wanted}"))
}

pub(super) fn decode_panic(chunks: Chunks<'_>) -> Option<Seen> {
    let name = type_name(chunks);
    let image = chunks.whole(IMAGE).map(|piece| piece.bytes).unwrap_or_default();
    let message = name.as_deref().and_then(|name| message(name, image, chunks));
    let raised = Raised::new(name.unwrap_or_else(|| "panic".to_owned()), message);
    Some(Seen::Raised(raised.with_object(catch::object(chunks))))
}

pub(super) fn decode_fatal(chunks: Chunks<'_>) -> Option<Seen> {
    Some(Seen::Fatal(Raised::new("fatal error", chunks.text(TEXT))))
}

pub(super) fn decode_recovery(chunks: Chunks<'_>) -> Seen {
    let Some(goroutine) = chunks.number(GOROUTINE) else { return Seen::Nothing };
    let catch = recovery(chunks).unwrap_or(Catch::of(Which::Latest));
    Seen::Caught(Catch { goroutine: Some(goroutine), ..catch })
}

/// That a panic is on its way is not enough: a handler may have ended its goroutine.
pub(super) fn decode_server(chunks: Chunks<'_>) -> Option<Seen> {
    Some(recovery(chunks).map_or(Seen::Nothing, Seen::LeftHandler))
}

/// Which panic is recovered, and by the deferred call of which frame. Since Go 1.22 a panic
/// (`runtime._panic`) has: until 1.25 where the arguments of the deferred call are; the value, two words;
/// the panic before it; where it was started, as an address of code and one of the stack; the frame whose
/// deferred calls run, as its stack pointer, the return address and the address above its own; where that
/// frame goes on if it is recovered. Addresses of the stack lie in the stack and are in order, so that
/// what is something else is not taken for it.
fn recovery(chunks: Chunks<'_>) -> Option<Catch> {
    let stack = chunks.whole(STACK)?.bytes;
    let (low, high) = (word(stack, 0)?, word(stack, 1)?);
    let image = chunks.whole(PANIC)?.bytes;
    let read = |first: usize| {
        let [kind, value, start, sp, frame, pc] =
            [0, 1, 4, 5, 7, 8].map(|number| word(image, first + number).unwrap_or_default());
        let is_it = low < start && start <= sp && sp < frame && frame <= high && pc > 0;
        is_it.then_some(((kind << TYPE_SHIFT).wrapping_add(value), frame, pc))
    };
    let (object, frame, pc) = read(0).or_else(|| read(1))?;
    Some(Catch {
        which: Which::Object(object),
        caller: catch::from_here(chunks, pc),
        goroutine: None,
        frame: Some(frame.wrapping_sub(8).wrapping_sub(high)),
    })
}

fn type_name(chunks: Chunks<'_>) -> Option<String> {
    let &[_, low, high] = chunks.whole(HEAD)?.bytes else { return None };
    let Piece { bytes, cut, .. } = chunks.whole(NAME)?;
    let bytes = if low < 0x80 {
        bytes.get(..usize::from(low))?
    } else {
        // The name began one byte later than was thought, and is longer.
        let length = usize::from(low & 0x7f) | usize::from(high & 0x7f) << 7;
        let bytes = bytes.get(1..)?;
        bytes.get(..length.min(bytes.len()))?
    };
    let name = Piece { bytes, faulted: false, cut: cut || low >= 0x80 }.text()?;
    let &[flags, ..] = chunks.whole(FLAGS)?.bytes else { return None };
    let name = if flags & EXTRA_STAR != 0 { name.strip_prefix('*')? } else { &name };
    is_name(name).then(|| name.to_owned())
}

/// What the value says, for types of which it is known.
fn message(name: &str, image: &[u8], chunks: Chunks<'_>) -> Option<String> {
    let number = || word(image, 0);
    Some(match name {
        // Text, or a structure that begins with the text.
        "string"
        | "*errors.errorString"
        | "*fmt.wrapError"
        | "*fmt.wrapErrors"
        | "*errors.fundamental"
        | "*json.SyntaxError"
        | "*http.ProtocolError"
        | "runtime.plainError"
        | "runtime.plainErrorString" => chunks.text(TEXT)?,
        "context.deadlineExceededError" => "context deadline exceeded".to_owned(),
        ASSERTION => assertion(image, chunks)?,
        "runtime.errorString" | "runtime.errorAddressString" => {
            format!("runtime error: {}", chunks.text(TEXT)?)
        }
        "runtime.boundsError" => format!("runtime error: {}", bounds(image)?),
        "int" | "int64" => number()?.cast_signed().to_string(),
        "uint" | "uint64" => number()?.to_string(),
        "int32" => (number()? as i32).to_string(),
        "uint32" => (number()? as u32).to_string(),
        _ => wrapped::message(name, image, chunks)?,
    })
}

/// What a `runtime.boundsError` says: its number, the bound, whether the number has a sign, and which of
/// the cases it is.
fn bounds(image: &[u8]) -> Option<String> {
    let (x, y) = (word(image, 0)?.cast_signed(), word(image, 1)?.cast_signed());
    let (&signed, &case) = (image.get(16)?, image.get(17)?);
    let shown = if signed != 0 { x.to_string() } else { x.cast_unsigned().to_string() };
    let is_negative = signed != 0 && x < 0;
    let slice = "slice bounds out of range";
    Some(match case {
        0 if is_negative => format!("index out of range [{shown}]"),
        0 => format!("index out of range [{shown}] with length {y}"),
        1 | 2 if is_negative => format!("{slice} [:{shown}]"),
        1 => format!("{slice} [:{shown}] with length {y}"),
        2 => format!("{slice} [:{shown}] with capacity {y}"),
        3 if is_negative => format!("{slice} [{shown}:]"),
        3 => format!("{slice} [{shown}:{y}]"),
        4 | 5 if is_negative => format!("{slice} [::{shown}]"),
        4 => format!("{slice} [::{shown}] with length {y}"),
        5 => format!("{slice} [::{shown}] with capacity {y}"),
        6 if is_negative => format!("{slice} [:{shown}:]"),
        6 => format!("{slice} [:{shown}:{y}]"),
        7 if is_negative => format!("{slice} [{shown}::]"),
        7 => format!("{slice} [{shown}:{y}:]"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panic(name: &[u8], flags: u8, image: &[u8], text: &[u8]) -> Option<Seen> {
        let head = [0, name.len() as u8, name.first().copied().unwrap_or(0)];
        let flags = [flags, 8, 8, 24];
        let chunks = written(&[
            (HEAD, 0, &head),
            (NAME, 0, name),
            (FLAGS, 0, &flags),
            (IMAGE, 0, image),
            (TEXT, 0, text),
        ]);
        decode_panic(Chunks(&chunks))
    }

    #[test]
    fn values_of_known_types_have_messages() {
        let seen = |name: &str, message: Option<&str>| {
            Some(Seen::Raised(Raised::new(name, message.map(str::to_owned))))
        };
        assert_eq!(panic(b"*string", EXTRA_STAR, b"", b"boom"), seen("string", Some("boom")));
        let error = b"*errors.errorString";
        assert_eq!(panic(error, 0, b"", b"boom"), seen("*errors.errorString", Some("boom")));
        assert_eq!(panic(b"*main.myError", 0, b"", b"boom"), seen("*main.myError", None));
        let mut image = [5u64.to_le_bytes(), 1u64.to_le_bytes(), [0; 8]].concat();
        image[16] = 1;
        assert_eq!(
            panic(b"runtime.boundsError", 0, &image, b""),
            seen(
                "runtime.boundsError",
                Some("runtime error: index out of range [5] with length 1")
            )
        );
        assert_eq!(panic(b"\xff", 0, b"", b""), seen("panic", None));
    }

    #[test]
    fn long_names_have_two_bytes_of_length() {
        let name = "m.T[".to_owned() + &"x".repeat(150) + "]";
        // What the code copies: as many bytes as the first byte says, from one byte too early.
        let (low, high) = (name.len() as u8 & 0x7f | 0x80, (name.len() >> 7) as u8);
        let mut bytes = vec![high];
        bytes.extend_from_slice(name.as_bytes());
        bytes.truncate(usize::from(low));
        let chunks =
            written(&[(HEAD, 0, &[0, low, high]), (NAME, 0, &bytes), (FLAGS, 0, &[0, 8, 8, 22])]);
        assert_eq!(type_name(Chunks(&chunks)), name.get(..bytes.len() - 1).map(str::to_owned));
    }
}
