//! What a hit of an exception's hook comes to, with what its task has said before.

use crate::event::exit::signal_name;
use crate::function::exception::{self, Catch, Decode, Passed, Place, Raised, Seen, Which};
use crate::span::attributes::Attributes;

/// What a hit says of an exception.
pub(super) enum Raise {
    /// That one was raised.
    Known(Raised),
    /// That one was raised, and nothing else.
    Unknown,
    /// How a language ends a loop.
    ControlFlow,
    /// That one was raised that ends the program.
    Fatal(Raised),
    /// That one that was raised before comes by.
    Passed(Passed),
    /// That one was caught.
    Caught(Catch),
    /// That one has left the handler of a request.
    LeftHandler(Catch),
    /// That nobody has caught one.
    Uncaught(Which),
    /// That an old one goes on, maybe one of another task.
    Old,
    /// That the one that was caught goes on.
    GoesOn,
    /// Nothing yet, or nothing new.
    None,
}

/// Reads a hit. `coming` is what an earlier hit has told of the exception to come.
pub(super) fn of(decode: Decode, chunks: &[u8], coming: &mut Option<Option<Place>>) -> Raise {
    match exception::decode(decode, chunks) {
        Some(Seen::Place(place)) => {
            *coming = Some(place);
            Raise::None
        }
        Some(Seen::Raised(raised)) => Raise::Known(placed(raised, coming.take().flatten())),
        Some(Seen::RaisedIfPlaced(raised)) => match coming.take() {
            Some(place) => Raise::Known(placed(raised, place)),
            None => Raise::Old,
        },
        Some(Seen::Fatal(raised)) => Raise::Fatal(placed(raised, coming.take().flatten())),
        Some(Seen::ControlFlow) => Raise::ControlFlow,
        Some(Seen::Passed(passed)) => Raise::Passed(passed),
        Some(Seen::Caught(catch)) => Raise::Caught(catch),
        Some(Seen::LeftHandler(catch)) => Raise::LeftHandler(catch),
        Some(Seen::Uncaught(which)) => Raise::Uncaught(which),
        Some(Seen::Nothing) => Raise::None,
        Some(Seen::GoesOn) => Raise::GoesOn,
        None => Raise::Unknown,
    }
}

fn placed(mut raised: Raised, place: Option<Place>) -> Raised {
    raised.place = raised.place.or(place);
    raised
}

/// A signal that ends a process with an error, as an exception.
pub(super) fn of_signal(number: u32) -> Raised {
    let name = signal_name(number).unwrap_or("signal");
    let message = Some(format!("fatal signal {number}"));
    Raised { name: name.to_owned(), message, place: None, ..Raised::default() }
}

/// The attributes of the event, as the semantic conventions name them.
pub(super) fn attributes(raised: &Raised, stack: Option<&str>) -> Attributes {
    let mut attributes = Attributes::default();
    if !raised.name.is_empty() {
        attributes.text("exception.type", &raised.name);
    }
    if let Some(message) = &raised.message {
        attributes.text("exception.message", message);
    }
    if let Some(place) = &raised.place {
        attributes.text("code.file.path", &place.file);
        attributes.int("code.line.number", i64::from(place.line));
    }
    if let Some(stack) = stack {
        attributes.text("exception.stacktrace", stack);
    }
    attributes
}
