//! What happened within a span, while that is open: what is learned of an exception later is put on its
//! event when the span ends.

use super::model::SpanEvent;

/// Most events of a span, the OpenTelemetry SDKs' bound.
const EVENTS_MAX: usize = 128;

/// The attribute that says whether an exception was caught.
const CAUGHT: &str = "remora.exception.caught";

/// The attribute that has what an exception says.
const MESSAGE: &str = "exception.message";

/// The events of an open span, in the order in which they happened.
#[derive(Debug, Default)]
pub(super) struct Events {
    list: Vec<SpanEvent>,
    /// Whether exceptions were caught, by their places; the last word counts.
    caught: Vec<(usize, bool)>,
    /// What was learned later of what exceptions say, by their places; the first word counts.
    messages: Vec<(usize, String)>,
}

impl Events {
    /// Adds an event; its place, or `None` if there are too many.
    pub(super) fn add(&mut self, event: SpanEvent) -> Option<usize> {
        if self.list.len() >= EVENTS_MAX {
            return None;
        }
        self.list.push(event);
        Some(self.list.len() - 1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Learns whether the exception at a place was caught.
    pub(super) fn caught(&mut self, place: usize, caught: bool) {
        match self.caught.iter_mut().find(|(known, _)| *known == place) {
            Some((_, known)) => *known = caught,
            None => self.caught.push((place, caught)),
        }
    }

    /// Learns that the exception at a place goes on its way again, if it was caught.
    pub(super) fn goes_on(&mut self, place: usize) {
        self.caught.retain(|(known, _)| *known != place);
    }

    /// Learns what the exception at a place says.
    pub(super) fn says(&mut self, place: usize, message: String) {
        if !self.messages.iter().any(|(known, _)| *known == place) {
            self.messages.push((place, message));
        }
    }

    /// The events, with all that was learned of them.
    pub(super) fn finish(mut self) -> Vec<SpanEvent> {
        for (place, message) in self.messages {
            if let Some(event) = self.list.get_mut(place) {
                event.attributes.text(MESSAGE, &message);
            }
        }
        for (place, caught) in self.caught {
            if let Some(event) = self.list.get_mut(place) {
                event.attributes.bool(CAUGHT, caught);
            }
        }
        self.list
    }
}
