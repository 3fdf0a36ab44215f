//! A list of attributes in two allocations: one for the entries, one for all their text.

use std::ops::Range;

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
    Texts(&'a [String]),
}

#[derive(Clone, Debug, PartialEq)]
enum Stored {
    Static(&'static str),
    Text(Range<u32>),
    Int(i64),
    Double(f64),
    Bool(bool),
    Bytes(Box<[u8]>),
    Texts(Box<[String]>),
}

#[derive(Clone, Debug, PartialEq)]
enum Key {
    Static(&'static str),
    Text(Range<u32>),
}

/// An ordered list of attributes. Keys are unique because callers add each once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes {
    entries: Vec<(Key, Stored)>,
    text: String,
}

impl Attributes {
    /// An empty list with room for `entries` attributes and `text_bytes` of text.
    pub fn with_capacity(entries: usize, text_bytes: usize) -> Self {
        Self { entries: Vec::with_capacity(entries), text: String::with_capacity(text_bytes) }
    }

    /// Adds text that is copied.
    pub fn text(&mut self, key: &'static str, value: &str) {
        let value = self.store(value);
        self.entries.push((Key::Static(key), Stored::Text(value)));
    }

    /// Adds text that is written piece by piece, without an allocation of its own.
    pub fn format(&mut self, key: &'static str, value: std::fmt::Arguments<'_>) {
        let start = self.text.len() as u32;
        // Writing to a String cannot fail.
        let _ = std::fmt::Write::write_fmt(&mut self.text, value);
        self.entries.push((Key::Static(key), Stored::Text(start..self.text.len() as u32)));
    }

    /// Adds text that lives as long as the program.
    pub fn constant(&mut self, key: &'static str, value: &'static str) {
        self.entries.push((Key::Static(key), Stored::Static(value)));
    }

    /// Adds an integer.
    pub fn int(&mut self, key: &'static str, value: i64) {
        self.entries.push((Key::Static(key), Stored::Int(value)));
    }

    /// Adds a boolean.
    pub fn bool(&mut self, key: &'static str, value: bool) {
        self.entries.push((Key::Static(key), Stored::Bool(value)));
    }

    /// Adds any value under a key that is copied.
    pub fn push(&mut self, key: &str, value: Value<'_>) {
        let key = self.store(key);
        let value = match value {
            Value::Text(text) => Stored::Text(self.store(text)),
            Value::Int(number) => Stored::Int(number),
            Value::Double(number) => Stored::Double(number),
            Value::Bool(truth) => Stored::Bool(truth),
            Value::Bytes(bytes) => Stored::Bytes(bytes.into()),
            Value::Texts(texts) => Stored::Texts(texts.into()),
        };
        self.entries.push((Key::Text(key), value));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// About how much memory they take, in bytes: no less than they take in OTLP's protobuf.
    pub fn footprint(&self) -> usize {
        let boxed = self.entries.iter().map(|(_, value)| match value {
            Stored::Bytes(bytes) => bytes.len(),
            Stored::Texts(texts) => texts.iter().map(|text| size_of::<String>() + text.len()).sum(),
            _ => 0,
        });
        let entries = self.entries.capacity() * size_of::<(Key, Stored)>();
        entries + self.text.capacity() + boxed.sum::<usize>()
    }

    /// Every attribute in the order it was added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Value<'_>)> + DoubleEndedIterator {
        self.entries.iter().map(|(key, value)| {
            let key = match key {
                Key::Static(key) => key,
                Key::Text(range) => self.slice(range),
            };
            let value = match value {
                Stored::Static(text) => Value::Text(text),
                Stored::Text(range) => Value::Text(self.slice(range)),
                Stored::Int(number) => Value::Int(*number),
                Stored::Double(number) => Value::Double(*number),
                Stored::Bool(truth) => Value::Bool(*truth),
                Stored::Bytes(bytes) => Value::Bytes(bytes),
                Stored::Texts(texts) => Value::Texts(texts),
            };
            (key, value)
        })
    }

    /// The value under `key`, if it is there.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    fn store(&mut self, text: &str) -> Range<u32> {
        let start = self.text.len() as u32;
        self.text.push_str(text);
        start..self.text.len() as u32
    }

    fn slice(&self, range: &Range<u32>) -> &str {
        self.text.get(range.start as usize..range.end as usize).unwrap_or_default()
    }
}
