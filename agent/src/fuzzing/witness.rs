//! Checks that what a parser tells of a connection makes sense, event by event.

use std::collections::BTreeMap;

use crate::protocol::{End, Event, ExchangeNo};

/// What was told of an exchange.
#[derive(Debug, Default)]
struct Told {
    request_head: bool,
    request_end: bool,
    response_start: bool,
    response_head: bool,
    over: bool,
}

/// Remembers what was told and panics if it contradicts itself.
#[derive(Debug, Default)]
pub struct Witness {
    exchanges: BTreeMap<ExchangeNo, Told>,
}

impl Witness {
    /// Takes in the next event.
    pub fn see(&mut self, event: &Event<'_>) {
        if let Event::RequestStart { exchange, .. } = event {
            let newest = self.exchanges.last_key_value().map(|(number, _)| *number);
            assert!(newest < Some(*exchange), "{exchange} begins behind {newest:?}");
            self.exchanges.insert(*exchange, Told::default());
            return;
        }
        let Some(number) = exchange(event) else { return };
        let told = self.exchanges.get_mut(&number).unwrap_or_else(|| panic!("{event:?}: unbegun"));
        let once = |told: &mut bool| assert!(!std::mem::replace(told, true), "{event:?}: again");
        match event {
            Event::RequestHead { .. } => once(&mut told.request_head),
            Event::RequestEnd { .. } => {
                assert!(told.request_head, "{event:?}: without a head");
                once(&mut told.request_end);
            }
            Event::Interim { .. } => assert!(!told.response_start && !told.over, "{event:?}: late"),
            Event::ResponseStart { .. } => {
                assert!(!told.over, "{event:?}: late");
                once(&mut told.response_start);
            }
            Event::ResponseHead { .. } => {
                assert!(told.response_start && !told.over, "{event:?}: out of order");
                once(&mut told.response_head);
            }
            Event::ResponseAdrift { .. } => assert!(!told.over, "{event:?}: late"),
            Event::ResponseEnd { end, .. } => {
                assert!(told.response_head || *end == End::Unseen, "{event:?}: without a head");
                once(&mut told.over);
            }
            Event::Abandoned { .. } => {
                assert!(!told.response_start, "{event:?}: it was answered");
                once(&mut told.over);
            }
            Event::Mistaken { .. } => {
                assert!(!told.response_start, "{event:?}: it was answered");
                once(&mut told.over);
            }
            Event::RequestStart { .. } | Event::Untold | Event::Unknown { .. } => {}
        }
    }

    /// The connection is gone: everything that began has come to an end.
    pub fn at_the_end(&self) {
        for (number, told) in &self.exchanges {
            assert!(told.over, "{number} never ends: {told:?}");
        }
    }
}

fn exchange(event: &Event<'_>) -> Option<ExchangeNo> {
    match *event {
        Event::RequestStart { exchange, .. }
        | Event::RequestHead { exchange, .. }
        | Event::RequestEnd { exchange, .. }
        | Event::Interim { exchange, .. }
        | Event::ResponseStart { exchange }
        | Event::ResponseHead { exchange, .. }
        | Event::ResponseAdrift { exchange }
        | Event::ResponseEnd { exchange, .. }
        | Event::Abandoned { exchange }
        | Event::Mistaken { exchange } => Some(exchange),
        Event::Untold | Event::Unknown { .. } => None,
    }
}
