//! What a hit of a hook says of an exception.

use super::catch::{Catch, Which};
use crate::span::redact;

/// What a hit of a hook says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// An exception was raised.
    Raised(Raised),
    /// The same task will raise an exception next, and where that comes from if it is known.
    Place(Option<Place>),
    /// An exception was raised, unless the task has said no [`Seen::Place`] before: then it is an old
    /// one that goes on.
    RaisedIfPlaced(Raised),
    /// One was raised that ends the program.
    Fatal(Raised),
    /// How the language ends a loop, and no exception to a person.
    ControlFlow,
    /// One that was raised before comes by, on its way or at its end.
    Passed(Passed),
    /// One is caught by whoever has called this.
    Caught(Catch),
    /// One has left the handler of a request, and will be caught by its server.
    LeftHandler(Catch),
    /// Nobody has caught one.
    Uncaught(Which),
    /// Nothing.
    Nothing,
    /// The one that was caught last goes on.
    GoesOn,
}

/// An exception.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raised {
    /// `exception.type`
    pub name: String,
    /// `exception.message`, redacted.
    pub message: Option<String>,
    /// Where it was raised.
    pub place: Option<Place>,
    /// What tells it from all others that are on their way.
    pub object: Option<u64>,
    /// The object that it is made of, if there is none of its own yet.
    pub made_of: Option<u64>,
}

/// An exception that was raised before, where it is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Which one.
    pub object: u64,
    /// Its message, redacted, if it has one.
    pub message: Option<String>,
    /// What has come of it.
    pub fate: Fate,
}

/// What has come of an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is on its way, maybe once more.
    OnItsWay,
    /// A handler of the program's has it.
    Caught,
    /// Nobody has caught it.
    Uncaught,
}

/// A place in source code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as the compiler was told.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
}

impl Raised {
    pub(super) fn new(name: impl Into<String>, message: Option<String>) -> Self {
        Self {
            name: name.into(),
            message: message.map(|text| clean(&text)),
            place: None,
            object: None,
            made_of: None,
        }
    }

    pub(super) fn with_object(self, object: Option<u64>) -> Self {
        Self { object, ..self }
    }
}

/// A message without the secrets of URLs and the like in it.
pub(super) fn clean(text: &str) -> String {
    let word = |piece: &str| {
        let word = piece.trim_end();
        let blank = piece.get(word.len()..).unwrap_or_default();
        let word =
            if word.contains("://") { redact::url(word) } else { redact::query(word).into() };
        word + blank
    };
    let words: String = text.split_inclusive(char::is_whitespace).map(word).collect();
    // Then what stands behind a name and a colon.
    redact::value("", &words).into_owned()
}
