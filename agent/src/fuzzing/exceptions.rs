//! What the hooks of runtimes have copied of their exceptions, and what is read later of constants.
//!
//! Layout: which hook (one byte), how many bytes of constants (two bytes), those, then chunks.

use super::input::Input;
use crate::function::exception::{
    self, Catcher, CatcherKind, Constants, Decode, Raised, Seen, catcher,
};

/// Names and messages are copied, quoted and joined, and what is secret in them is written over.
const GROWTH: usize = 16;

pub(super) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let which = usize::from(input.byte().unwrap_or(0)) % Decode::ALL.len();
    let Some(decode) = Decode::ALL.get(which).copied() else { return };
    let length = input.short().unwrap_or(0);
    let mut memory = Memory(input.up_to(length.into()));
    let chunks = input.0;
    look(decode, chunks);
    if let Some(more) = exception::complete(decode, chunks, &mut memory) {
        assert!(decode.reads_constants());
        // They are put before the others, and are what is found first.
        look(decode, &[&more, chunks].concat());
    }
}

fn look(decode: Decode, chunks: &[u8]) {
    let seen = exception::decode(decode, chunks);
    assert_eq!(exception::decode(decode, chunks), seen, "the same bytes say the same");
    let Some(seen) = seen else { return };
    let most = GROWTH * (chunks.len() + GROWTH);
    let raised = match &seen {
        Seen::Passed(passed) => {
            assert!(passed.message.as_ref().is_none_or(|text| (1..=most).contains(&text.len())));
            return;
        }
        Seen::Raised(raised) | Seen::RaisedIfPlaced(raised) | Seen::Fatal(raised) => raised,
        Seen::Place(Some(place)) => {
            assert!(place.line > 0 && place.file.len() <= chunks.len());
            return;
        }
        Seen::Caught(catch) | Seen::LeftHandler(catch) => {
            let all = Catcher { start: i64::MIN, bytes: u64::MAX, kind: CatcherKind::Last };
            let half = Catcher { start: 0, bytes: 1 << 20, kind: CatcherKind::Handler };
            let _ = catcher(&[half, all], catch.caller);
            return;
        }
        _ => return,
    };
    let Raised { name, message, place, .. } = raised;
    assert!(name.len() <= most, "{name}");
    assert!(!name.contains(char::is_control), "{name:?}");
    assert!(message.as_ref().is_none_or(|message| message.len() <= most), "{message:?}");
    assert!(place.as_ref().is_none_or(|place| place.line > 0), "{place:?}");
}

/// The bytes are the module's around the probe, and the process's from an address on.
struct Memory<'a>(&'a [u8]);

/// Where they are in the process.
const START: u64 = 0x1000;

impl Memory<'_> {
    fn copy(&self, at: Option<u64>, bytes: &mut [u8]) -> bool {
        let found = at.and_then(|at| usize::try_from(at).ok());
        let found = found.and_then(|at| self.0.get(at..)?.get(..bytes.len()));
        found.is_some_and(|found| {
            bytes.copy_from_slice(found);
            true
        })
    }
}

impl Constants for Memory<'_> {
    fn of_module(&mut self, distance: i64, bytes: &mut [u8]) -> bool {
        self.copy((self.0.len() as u64 / 2).checked_add_signed(distance), bytes)
    }

    fn of_process(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        self.copy(address.checked_sub(START), bytes)
    }
}
