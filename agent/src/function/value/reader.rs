//! Reads back what bytecode has written. The bytes come from a stranger's memory and the plan may
//! come from a recording of anyone's: nothing panics, nothing grows without bound.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::chunks::{Chunks, Image};
use super::interface::{error_text, type_name};
use super::show::Show;
use super::text::{Text, case_of};
use super::{Name, Value};
use crate::inspect::dwarf::Language;
use crate::inspect::dwarf::place::Unreadable;

/// What results are called, all of them.
pub(super) const RESULT: &str = "remora.return";

/// Reads the chunks of one site's hits. Part of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reader {
    roots: Vec<Root>,
    #[serde(default)]
    failing: Failing,
}

/// A value and the chunk in which its bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Root {
    pub(super) name: Name,
    pub(super) chunk: u16,
    pub(super) show: Show,
}

/// What of a result tells that the function failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Failing {
    #[default]
    Never,
    /// Rust's `Result::Err`.
    Variant,
    /// Go's last result, an `error` that is not nil.
    Interface,
    /// A negative number.
    Negative,
}

/// How a function failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For `error.type`.
    pub kind: Arc<str>,
    /// What it says of itself, if anything.
    pub message: Option<String>,
}

impl Reader {
    pub(super) fn new(roots: Vec<Root>) -> Self {
        Self { roots, failing: Failing::Never }
    }

    /// Says what of the results means that the function failed.
    pub(super) fn fails(&mut self, language: Language, negative: bool) {
        self.failing = match language {
            Language::Rust => Failing::Variant,
            Language::Go => Failing::Interface,
            _ if negative => Failing::Negative,
            _ => Failing::Never,
        };
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// The values that the chunks of a hit hold, by the names of their attributes. Go's several results
    /// are one value, as text.
    pub fn read(&self, chunks: &[u8]) -> Vec<(Arc<str>, Value)> {
        let chunks = Chunks::split(chunks);
        let values = self.roots.iter().map(|root| (root, root.read(&chunks)));
        let several = match self.roots.as_slice() {
            [first, _, ..] => &*first.name.0 == RESULT,
            _ => false,
        };
        if !several {
            return values.map(|(root, value)| (Arc::clone(&root.name.0), value)).collect();
        }
        let mut text = Text::new(&chunks);
        text.push("(");
        for (number, root) in self.roots.iter().enumerate() {
            if number > 0 {
                text.push(", ");
            }
            text.show(&root.show, Image::of(chunks.get(root.chunk)), 0, 0);
        }
        text.push(")");
        let name = self.roots.first().map(|root| Arc::clone(&root.name.0));
        name.map(|name| (name, Value::Text(text.out))).into_iter().collect()
    }

    /// Whether what a return's hit holds says that the function failed.
    pub fn failure(&self, chunks: &[u8]) -> Option<Failure> {
        let root = self.roots.last()?;
        let chunks = Chunks::split(chunks);
        let image = Image::of(chunks.get(root.chunk));
        match (self.failing, &root.show) {
            (Failing::Variant, Show::Variants { tag_at, tag_bytes, variants }) => {
                let case = case_of(image, *tag_at, *tag_bytes, variants, 0).ok()?;
                let names = variants.iter().filter(|case| matches!(&*case.name.0, "Ok" | "Err"));
                if &*case.name.0 != "Err" || names.count() != 2 {
                    return None;
                }
                let mut text = Text::new(&chunks);
                match &case.show {
                    Show::Struct { fields, .. } if fields.len() == 1 => {
                        let field = fields.first()?;
                        text.bare = true;
                        text.show(&field.show, image, case.at.saturating_add(field.at), 1);
                    }
                    inner => text.show(inner, image, case.at, 1),
                }
                let message = (!text.out.is_empty()).then_some(text.out);
                Some(Failure { kind: "Err".into(), message })
            }
            (Failing::Interface, Show::Interface { descriptor, name, message }) => {
                if image.number(0, 8).ok()? == 0 {
                    return None;
                }
                let kind = type_name(&chunks, *descriptor, *name);
                Some(Failure {
                    message: message
                        .as_ref()
                        .and_then(|m| error_text(&chunks, m, kind.as_deref()?)),
                    kind: kind.map_or_else(|| Arc::from("error"), Arc::from),
                })
            }
            (Failing::Negative, Show::Int { bytes, signed: true }) => {
                let number = image.signed(0, *bytes).ok()?;
                (number < 0).then(|| Failure { kind: number.to_string().into(), message: None })
            }
            _ => None,
        }
    }
}

impl Root {
    fn read(&self, chunks: &Chunks<'_>) -> Value {
        let image = Image::of(chunks.get(self.chunk));
        let number = |value: Result<Value, Unreadable>| value.unwrap_or_else(Value::Unavailable);
        match &self.show {
            Show::Unavailable(reason) => Value::Unavailable(*reason),
            Show::Int { bytes, signed: true } if *bytes <= 8 => {
                number(image.signed(0, *bytes).map(Value::Int))
            }
            Show::Int { bytes, signed: false } if *bytes <= 8 => {
                number(image.number(0, *bytes).map(Value::Uint))
            }
            Show::Bool => number(image.number(0, 1).and_then(|byte| match byte {
                0 => Ok(Value::Bool(false)),
                1 => Ok(Value::Bool(true)),
                _ => Err(Unreadable::Invalid),
            })),
            show => {
                let mut text = Text::new(chunks);
                text.bare = true;
                text.show(show, image, 0, 0);
                match text.failed {
                    Some(reason) if text.out.is_empty() => Value::Unavailable(reason),
                    _ => Value::Text(text.out),
                }
            }
        }
    }
}
