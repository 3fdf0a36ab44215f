//! V8 (Node.js): `v8::internal::Isolate::ThrowInternal(Object, MessageLocation *)`, which every throw
//! passes, of a script or of the engine.
//!
//! Where things lie in objects is in constants that V8 has for debuggers (`v8dbg_…`), and that builds
//! export. A value is what its map says it is, so that a name is only taken where the map's constructor has
//! one, and a message only from an error whose first property is a string: that is what the constructor of
//! errors puts there first. Strings that were put together and not yet flattened are left out, as are
//! those of more than one byte a character.

use agent_common::function::{Op, register};

use super::catch;
use super::chunks::Chunks;
use super::code::{Code, Jump};
use super::{Decode, MESSAGE_MAX, NAME_MAX, Raised, Seen, Surroundings, data};

const NAME: u16 = 0;
const MESSAGE: u16 = 1;
/// The prototype of what is thrown, and of what its map's constructor makes. A class that is derived from
/// one of V8's own has that one's constructor in its map, but a prototype of its own: then the name is not
/// its name.
const PROTOTYPE: u16 = 2;
const CONSTRUCTED: u16 = 3;

/// Pointers to objects are one more than the object's address.
const TAG: i32 = 1;
/// Bytes of a field.
const FIELD: i32 = 8;
/// How many maps may lie between an object's and the first of its kind.
const BACK_POINTERS_MAX: usize = 3;
/// How many fields of a scope's description are looked at for a name.
const SCOPE_FIELDS: i32 = 3;
/// What tells strings of one byte a character that lie in one piece from the rest: bits of their type.
const STRING_KIND: i32 = 0x8f;
const ONE_BYTE_STRING: i32 = 8;

pub(super) fn is_hook(name: &str) -> bool {
    name == "v8::internal::Isolate::ThrowInternal" || name == UNCAUGHT
}

/// Node's: `TriggerUncaughtException(Isolate *, Local<Value>, Local<Message>, bool)`. What is thrown may
/// have been moved by then: it is the same if it is in the same place.
const UNCAUGHT: &str = "node::errors::TriggerUncaughtException";

/// The constants.
struct Layout {
    map: i32,
    instance_type: i32,
    prototype: i32,
    initial_map: i32,
    constructor: i32,
    shared: i32,
    name: i32,
    string_length: i32,
    string_chars: i32,
    first_property: i32,
    map_type: i32,
    error_type: i32,
    scope_type: i32,
    scope_locals: i32,
    scope_names: i32,
}

impl Layout {
    fn read(seen: Surroundings<'_>) -> Option<Self> {
        let constant = |name: &str| {
            let at = data::symbol(seen.module, &format!("v8dbg_{name}"))?;
            // What is 0 lies where the file has nothing.
            let bytes = seen.module.read(at, 4).ok()?;
            if bytes.is_empty() {
                Some(0)
            } else {
                Some(i32::from_le_bytes(bytes.try_into().ok()?))
            }
        };
        // Of another size they would not be pointers.
        if constant("TaggedSize")? != FIELD {
            return None;
        }
        Some(Self {
            map: constant("class_HeapObject__map__Map")?,
            instance_type: constant("class_Map__instance_type__uint16_t")?,
            prototype: constant("class_Map__prototype__HeapObject")
                .or_else(|| constant("class_Map__prototype__Object"))?,
            initial_map: constant("class_JSFunction__prototype_or_initial_map__HeapObject")?,
            constructor: constant("class_Map__constructor_or_back_pointer__Object")?,
            shared: constant("class_JSFunction__shared__SharedFunctionInfo")?,
            name: constant("class_SharedFunctionInfo__name_or_scope_info__Object")?,
            string_length: constant("class_String__length__int32_t")?,
            string_chars: constant("class_SeqOneByteString__chars__char")?,
            first_property: constant("class_JSObject__internal_fields__uintptr_t")?,
            map_type: constant("type_Map__MAP_TYPE")?,
            error_type: constant("type_JSError__JS_ERROR_TYPE")?,
            scope_type: constant("type_ScopeInfo__SCOPE_INFO_TYPE")?,
            scope_locals: FIELD * (1 + constant("scopeinfo_idx_ncontextlocals")?),
            scope_names: FIELD * (1 + constant("scopeinfo_idx_first_vars")?),
        })
    }

    /// The accumulator becomes the type of the object that it is.
    fn load_type(&self, code: &mut Code) {
        code.follow(self.map - TAG).load(self.instance_type - TAG, 2);
    }

    /// Appends the text of the object in slot 1 if it is a plain string.
    fn text(&self, code: &mut Code, most: i32) {
        code.recall(1);
        self.load_type(code);
        code.and(STRING_KIND);
        let other = code.jump_unless(ONE_BYTE_STRING);
        code.recall(1).load(self.string_length - TAG, 4).save(3);
        code.recall(1).add(self.string_chars - TAG).counted(3, most);
        code.land(other);
    }

    /// Slot 1 becomes the name of the function whose scope it describes, if it does.
    fn name_in_scope(&self, code: &mut Code) {
        code.recall(1);
        self.load_type(code);
        let other = code.jump_unless(self.scope_type);
        // With variables of its own the name lies behind those. A number is in the upper half.
        code.recall(1).load(self.scope_locals - TAG + 4, 4);
        let has_locals = code.jump_unless(0);
        let mut found: Vec<Jump> = Vec::new();
        for field in 0..SCOPE_FIELDS {
            code.recall(1).follow(self.scope_names + FIELD * field - TAG).save(2).and(1);
            let number = code.jump_unless(1);
            code.recall(2);
            self.load_type(code);
            code.and(STRING_KIND);
            let no_string = code.jump_unless(ONE_BYTE_STRING);
            code.recall(2).save(1);
            found.push(code.jump());
            code.land(no_string);
            code.land(number);
        }
        for jump in found {
            code.land(jump);
        }
        code.land(has_locals);
        code.land(other);
    }
}

pub(super) fn code(name: &str, seen: Surroundings<'_>) -> (Vec<Op>, Decode) {
    if name == UNCAUGHT {
        let mut code = Code::default();
        catch::tell_object_at(&mut code, register::RSI);
        return (code.finish(), Decode::NodeUncaught);
    }
    let ops = Layout::read(seen).map(|layout| read(&layout)).unwrap_or_default();
    (ops, Decode::V8)
}

fn read(layout: &Layout) -> Vec<Op> {
    let mut code = Code::default();
    catch::tell_object(&mut code, register::RSI);
    code.chunk(MESSAGE).register(register::RSI).and(TAG);
    let number = code.jump_unless(TAG);
    code.register(register::RSI);
    layout.load_type(&mut code);
    let other = code.jump_unless(layout.error_type);
    code.register(register::RSI).follow(layout.first_property - TAG).save(1).and(TAG);
    let no_text = code.jump_unless(TAG);
    layout.text(&mut code, MESSAGE_MAX);
    code.land(no_text);
    // Only errors have a constructor that is worth a name.
    code.chunk(PROTOTYPE).register(register::RSI).follow(layout.map - TAG).save(2);
    code.follow(layout.prototype - TAG).put(8);
    code.chunk(CONSTRUCTED).recall(2).follow(layout.constructor - TAG).save(1);
    for _ in 0..BACK_POINTERS_MAX {
        code.recall(1);
        layout.load_type(&mut code);
        let constructor = code.jump_unless(layout.map_type);
        code.recall(1).follow(layout.constructor - TAG).save(1);
        code.land(constructor);
    }
    code.recall(1).follow(layout.initial_map - TAG).follow(layout.prototype - TAG).put(8);
    code.chunk(NAME).recall(1).follow(layout.shared - TAG).follow(layout.name - TAG).save(1);
    layout.name_in_scope(&mut code);
    layout.text(&mut code, NAME_MAX);
    code.land(other);
    code.land(number);
    code.finish()
}

/// The longest code that there may be.
#[cfg(test)]
pub(super) fn longest() -> Vec<Op> {
    read(&Layout {
        map: 2,
        instance_type: 2,
        prototype: 2,
        initial_map: 2,
        constructor: 2,
        shared: 2,
        name: 2,
        string_length: 2,
        string_chars: 2,
        first_property: 2,
        map_type: 2,
        error_type: 2,
        scope_type: 2,
        scope_locals: 2,
        scope_names: 2,
    })
}

pub(super) fn decode(chunks: Chunks<'_>) -> Option<Seen> {
    let own = chunks.number(PROTOTYPE);
    let is_its = own.is_some() && own == chunks.number(CONSTRUCTED);
    let name = chunks.name(NAME).filter(|_| is_its).unwrap_or_default();
    let raised = Raised::new(name, chunks.text(MESSAGE));
    Some(Seen::Raised(raised.with_object(catch::object(chunks))))
}

#[cfg(test)]
mod tests {
    use super::super::chunks::written;
    use super::*;

    #[test]
    fn what_is_thrown_need_not_be_an_error() {
        let error = Raised::new("TypeError", Some("boom".to_owned()));
        let (one, other) = (0x7f01u64.to_le_bytes(), 0x7f09u64.to_le_bytes());
        let of = |constructed: &[u8]| {
            let name: &[u8] = b"TypeError";
            written(&[
                (MESSAGE, 0, b"boom"),
                (PROTOTYPE, 0, &one),
                (CONSTRUCTED, 0, constructed),
                (NAME, 0, name),
            ])
        };
        assert_eq!(decode(Chunks(&of(&one))), Some(Seen::Raised(error)));
        let derived = Raised::new("", Some("boom".to_owned()));
        assert_eq!(decode(Chunks(&of(&other))), Some(Seen::Raised(derived)));
        assert_eq!(decode(Chunks(&[])), Some(Seen::Raised(Raised::new("", None))));
    }
}
