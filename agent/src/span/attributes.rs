//! A list of attributes in one allocation, kept as what most of them become: OTLP's `KeyValue`
//! messages (opentelemetry-proto 1.11, `common/v1/common.proto`), written once when an attribute is
//! added and copied as they are into a request. Everybody else reads them back through [`iter`].
//!
//! [`iter`]: Attributes::iter

use std::fmt::{self, Write as _};
use std::net::IpAddr;

/// An attribute's value, borrowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// UTF-8 text.
    Text(&'a str),
    /// A signed integer.
    Int(i64),
    /// A floating-point number.
    Double(f64),
    /// True or false.
    Bool(bool),
    /// Raw bytes.
    Bytes(&'a [u8]),
    /// A list of texts (the only list that the conventions use on spans we make).
    Texts(Texts<'a>),
}

impl<'a> Value<'a> {
    /// A list of texts.
    pub fn texts(texts: &'a [String]) -> Self {
        Self::Texts(Texts(List::Plain(texts)))
    }
}

/// A list of texts.
#[derive(Clone, Copy)]
pub struct Texts<'a>(List<'a>);

#[derive(Clone, Copy)]
enum List<'a> {
    Plain(&'a [String]),
    /// The fields of an `ArrayValue`.
    Encoded(&'a [u8]),
}

impl<'a> Texts<'a> {
    /// Each text, in order.
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        let (plain, encoded) = match self.0 {
            List::Plain(texts) => (texts, &[][..]),
            List::Encoded(bytes) => (&[][..], bytes),
        };
        let mut fields = Fields(encoded);
        let decoded = std::iter::from_fn(move || fields.next()).filter_map(|(_, field)| {
            let Field::Bytes(any) = field else { return None };
            match Fields(any).next()? {
                (ANY_TEXT, Field::Bytes(text)) => str(text),
                _ => None,
            }
        });
        plain.iter().map(String::as_str).chain(decoded)
    }

    fn encoded_len(self) -> usize {
        self.iter().map(|text| bytes_field_len(bytes_field_len(text.len()))).sum()
    }
}

impl fmt::Debug for Texts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for Texts<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

/// An ordered list of attributes. Keys are unique because callers add each once.
#[derive(Clone, Default, PartialEq)]
pub struct Attributes {
    /// Each a field of number [`FIELD`], length and `KeyValue`.
    encoded: Vec<u8>,
    len: u32,
}

/// `Span.attributes` of OTLP. Other messages number theirs otherwise; all numbers are below 16, so
/// that a field's tag is one byte everywhere.
pub const FIELD: u8 = 9;

/// Wire types of protobuf.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

/// Fields of `AnyValue`.
const ANY_TEXT: u8 = 1;
const ANY_BOOL: u8 = 2;
const ANY_INT: u8 = 3;
const ANY_DOUBLE: u8 = 4;
const ANY_ARRAY: u8 = 5;
const ANY_BYTES: u8 = 7;

const fn tag(field: u8, wire: u8) -> u8 {
    (field << 3) | wire
}

impl Attributes {
    /// An empty list with room for this many bytes of keys and values, encoded.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { encoded: Vec::with_capacity(bytes), len: 0 }
    }

    /// Adds text.
    #[inline(always)]
    pub fn text(&mut self, key: &str, value: &str) {
        self.begin(key, bytes_field_len(value.len()));
        self.bytes_head(tag(ANY_TEXT, BYTES), value.len());
        self.encoded.extend_from_slice(value.as_bytes());
    }

    /// Adds text in pieces.
    pub fn concat(&mut self, key: &str, pieces: &[&str]) {
        let len = pieces.iter().map(|piece| piece.len()).sum();
        self.begin(key, bytes_field_len(len));
        self.bytes_head(tag(ANY_TEXT, BYTES), len);
        for piece in pieces {
            self.encoded.extend_from_slice(piece.as_bytes());
        }
    }

    /// Adds an address as text, under each of some keys.
    pub fn ip(&mut self, keys: &[&str], ip: IpAddr) {
        let mut short = Short::default();
        // An address in text is at most 45 characters long.
        let _ = match ip {
            IpAddr::V4(ip) => {
                let mut parts = ip.octets().into_iter();
                short.decimal(parts.next().unwrap_or(0));
                parts.try_for_each(|part| {
                    short.write_char('.')?;
                    short.decimal(part);
                    Ok(())
                })
            }
            IpAddr::V6(ip) => write!(short, "{ip}"),
        };
        let text = short.as_str();
        keys.iter().for_each(|key| self.text(key, text));
    }

    /// Adds an integer.
    #[inline(always)]
    pub fn int(&mut self, key: &str, value: i64) {
        self.begin(key, 1 + varint_len(value as u64));
        self.encoded.push(tag(ANY_INT, VARINT));
        self.varint(value as u64);
    }

    /// Adds a boolean.
    pub fn bool(&mut self, key: &str, value: bool) {
        self.begin(key, 2);
        self.encoded.extend_from_slice(&[tag(ANY_BOOL, VARINT), u8::from(value)]);
    }

    /// Adds any value.
    pub fn push(&mut self, key: &str, value: Value<'_>) {
        match value {
            Value::Text(text) => self.text(key, text),
            Value::Int(number) => self.int(key, number),
            Value::Bool(truth) => self.bool(key, truth),
            Value::Double(number) => {
                self.begin(key, 9);
                self.encoded.push(tag(ANY_DOUBLE, FIXED64));
                self.encoded.extend_from_slice(&number.to_bits().to_le_bytes());
            }
            Value::Bytes(bytes) => {
                self.begin(key, bytes_field_len(bytes.len()));
                self.bytes_head(tag(ANY_BYTES, BYTES), bytes.len());
                self.encoded.extend_from_slice(bytes);
            }
            Value::Texts(texts) => {
                let len = texts.encoded_len();
                self.begin(key, bytes_field_len(len));
                self.bytes_head(tag(ANY_ARRAY, BYTES), len);
                for text in texts.iter() {
                    self.bytes_head(tag(1, BYTES), bytes_field_len(text.len()));
                    self.bytes_head(tag(ANY_TEXT, BYTES), text.len());
                    self.encoded.extend_from_slice(text.as_bytes());
                }
            }
        }
    }

    /// Adds all of another list.
    pub fn append(&mut self, others: &Self) {
        self.encoded.extend_from_slice(&others.encoded);
        self.len += others.len;
    }

    /// Makes room for this many bytes more, encoded, and no others.
    pub fn reserve(&mut self, bytes: usize) {
        self.encoded.reserve_exact(bytes);
    }

    /// Forgets all of them, keeps the memory.
    pub fn clear(&mut self) {
        self.encoded.clear();
        self.len = 0;
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of them as protobuf fields of number [`FIELD`].
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// As [`encoded`](Self::encoded), each with its field's bytes apart: what follows the tag.
    pub fn encoded_each(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.encoded.as_slice();
        std::iter::from_fn(move || {
            let behind_tag = rest.get(1..)?;
            let mut fields = Fields(rest);
            fields.next()?;
            let len = behind_tag.len() - fields.0.len();
            rest = fields.0;
            behind_tag.get(..len)
        })
    }

    /// How much memory they take, in bytes, with what is kept for more.
    pub fn footprint(&self) -> usize {
        self.encoded.capacity()
    }

    /// Every attribute in the order it was added.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        Fields(&self.encoded).filter_map(|(_, field)| match field {
            Field::Bytes(pair) => decode(pair),
            _ => None,
        })
    }

    /// The value under `key`, if it is there.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// Writes everything up to the value, which takes `value_len` bytes as an `AnyValue`.
    ///
    /// Inlined, as what is around it: keys are constants nearly everywhere, and copying one whose
    /// length is known takes an instruction or two.
    #[inline(always)]
    fn begin(&mut self, key: &str, value_len: usize) {
        let len = bytes_field_len(key.len()) + bytes_field_len(value_len);
        self.encoded.reserve(1 + varint_len(len as u64) + len);
        self.len += 1;
        if len < 0x80 {
            // As nearly all are: every length is one byte.
            let head = [tag(FIELD, BYTES), len as u8, tag(1, BYTES), key.len() as u8];
            self.encoded.extend_from_slice(&head);
            self.encoded.extend_from_slice(key.as_bytes());
            self.encoded.extend_from_slice(&[tag(2, BYTES), value_len as u8]);
            return;
        }
        self.bytes_head(tag(FIELD, BYTES), len);
        self.bytes_head(tag(1, BYTES), key.len());
        self.encoded.extend_from_slice(key.as_bytes());
        self.bytes_head(tag(2, BYTES), value_len);
    }

    #[inline(always)]
    fn bytes_head(&mut self, tag: u8, len: usize) {
        self.encoded.push(tag);
        self.varint(len as u64);
    }

    #[inline]
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.encoded.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.encoded.push(value as u8);
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// How many bytes a varint takes.
#[inline]
fn varint_len(value: u64) -> usize {
    // Seven bits a byte, one byte for zero.
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// How many bytes a field of `len` bytes takes, with a tag of one byte.
#[inline]
fn bytes_field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

fn decode(pair: &[u8]) -> Option<(&str, Value<'_>)> {
    let mut fields = Fields(pair);
    let (1, Field::Bytes(key)) = fields.next()? else { return None };
    let (2, Field::Bytes(any)) = fields.next()? else { return None };
    let value = match Fields(any).next()? {
        (ANY_TEXT, Field::Bytes(text)) => Value::Text(str(text)?),
        (ANY_BOOL, Field::Varint(truth)) => Value::Bool(truth != 0),
        (ANY_INT, Field::Varint(number)) => Value::Int(number as i64),
        (ANY_DOUBLE, Field::Fixed64(bits)) => Value::Double(f64::from_bits(bits)),
        (ANY_ARRAY, Field::Bytes(list)) => Value::Texts(Texts(List::Encoded(list))),
        (ANY_BYTES, Field::Bytes(bytes)) => Value::Bytes(bytes),
        _ => return None,
    };
    Some((str(key)?, value))
}

/// What was text when it was added.
fn str(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// The fields of a message with one-byte tags.
struct Fields<'a>(&'a [u8]);

enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u8, Field<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.take(1)?.first().copied()?;
        let field = match tag & 7 {
            VARINT => Field::Varint(self.varint()?),
            FIXED64 => Field::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            BYTES => {
                let len = usize::try_from(self.varint()?).ok()?;
                Field::Bytes(self.take(len)?)
            }
            FIXED32 => Field::Varint(u32::from_le_bytes(self.take(4)?.try_into().ok()?).into()),
            _ => return None,
        };
        Some((tag >> 3, field))
    }
}

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

/// A short text without an allocation.
struct Short {
    bytes: [u8; 48],
    len: usize,
}

impl Default for Short {
    fn default() -> Self {
        Self { bytes: [0; 48], len: 0 }
    }
}

impl Short {
    fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(str).unwrap_or_default()
    }

    fn byte(&mut self, byte: u8) {
        if let Some(room) = self.bytes.get_mut(self.len) {
            *room = byte;
            self.len += 1;
        }
    }

    fn decimal(&mut self, number: u8) {
        if number >= 100 {
            self.byte(b'0' + number / 100);
        }
        if number >= 10 {
            self.byte(b'0' + number / 10 % 10);
        }
        self.byte(b'0' + number % 10);
    }
}

impl fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.byte(byte));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
