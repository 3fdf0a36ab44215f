//! What happened within a span, while that is open: what is learned of an exception later is put on its
//! event when the span ends.

use super::model::SpanEvent;

/// Most events of a span, the OpenTelemetry SDKs' bound.
const EVENTS_MAX: usize = 128;

/// The attribute that says whether an exception was caught.
const CAUGHT: &str = "remora.exception.caught";

/// The events of an open span, in the order in which they happened.
#[derive(Debug, Default)]
pub(super) struct Events {
    list: Vec<SpanEvent>,
    /// Whether exceptions were caught, by their places; the last word counts.
    caught: Vec<(usize, bool)>,
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

    /// The events, with all that was learned of them.
    pub(super) fn finish(mut self) -> Vec<SpanEvent> {
        for (place, caught) in self.caught {
            if let Some(event) = self.list.get_mut(place) {
                event.attributes.bool(CAUGHT, caught);
            }
        }
        self.list
    }
}
