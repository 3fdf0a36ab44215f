//! What holds for all runtimes alike.

use agent_common::function::OPS_MAX;
use proptest::prelude::*;

use super::chunks::written;
use super::seen::clean;
use super::*;

#[test]
fn codes_fit() {
    let rust = ["rust_panic", "std::panicking::panic_with_hook"].map(|name| rust::code(name).0);
    let [panic, place] = rust;
    for ops in [
        cpp::code("__cxa_throw").0,
        panic,
        place,
        php::code("zend_throw_exception_internal").0,
        python::longest(),
        v8::longest(),
        ruby::longest(),
    ]
    .into_iter()
    .chain(java::longest())
    {
        assert!(!ops.is_empty() && ops.len() <= OPS_MAX, "{}", ops.len());
    }
    let python = python::longest().len() + frames::longest();
    assert!(python <= OPS_MAX, "{python}: it would have no stacks");
}

#[test]
fn messages_keep_no_secrets() {
    for (message, cleaned) in [
        ("no such file", "no such file"),
        ("cannot connect to redis://me:secret@host/0 now", "cannot connect to redis://host/0 now"),
        ("GET https://host/a?token=abc failed", "GET https://host/a?token=REDACTED failed"),
        ("a=b&password=x  then", "a=b&password=REDACTED  then"),
        ("password: hunter2, tries: 3", "password: REDACTED, tries: 3"),
    ] {
        assert_eq!(clean(message), cleaned);
    }
}

#[test]
fn a_decode_is_recorded_by_its_name() {
    for decode in Decode::ALL {
        let stored = serde_json::to_string(&decode).expect("it can be written");
        let read: Decode = serde_json::from_str(&stored).expect("just written");
        assert_eq!(read, decode);
    }
}

/// Memory that is the same byte everywhere, or nowhere.
struct Same(Option<u8>);

impl Constants for Same {
    fn of_module(&mut self, _: i64, bytes: &mut [u8]) -> bool {
        self.0.is_some_and(|byte| {
            bytes.fill(byte);
            true
        })
    }

    fn of_process(&mut self, _: u64, bytes: &mut [u8]) -> bool {
        self.of_module(0, bytes)
    }
}

/// Memory of a program: bytes by their places.
struct Known<'a>(&'a [(u64, &'a [u8])]);

impl Constants for Known<'_> {
    fn of_module(&mut self, distance: i64, bytes: &mut [u8]) -> bool {
        self.of_process(0x40_0000u64.wrapping_add_signed(distance), bytes)
    }

    fn of_process(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        self.0.iter().any(|(at, known)| {
            let from = address.checked_sub(*at).and_then(|from| usize::try_from(from).ok());
            let range = from.and_then(|from| known.get(from..from + bytes.len()));
            range.is_some_and(|range| {
                bytes.copy_from_slice(range);
                true
            })
        })
    }
}

const HERE: u16 = 42;
const TYPE: u16 = 43;

#[test]
fn names_that_were_not_read_are_completed() {
    let word = |word: u64| word.to_le_bytes();
    // Go: a type at 0x60_0100 whose name is 0x40 behind the first of all types.
    let (here, kind, types) = (word(0x40_0000), word(0x60_0100), word(0x60_0000));
    let mut described = [0; 48];
    described[20] = 2;
    described[40] = 0x40;
    let memory: &[(u64, &[u8])] = &[(0x60_0100, &described), (0x60_0040, b"\x01\x0b*main.wrong ")];
    let image = [0; 24];
    let chunks: &[(u16, u16, &[u8])] =
        &[(TYPE, 0, &kind), (HERE, 0, &here), (3, 0, &image), (5, 0, &types), (0, 1, b"")];
    let own = written(chunks);
    let more = complete(Decode::GoPanic, &own, &mut Known(memory)).expect("there is more");
    let seen = decode(Decode::GoPanic, &[more, own.clone()].concat());
    assert_eq!(seen, Some(Seen::Raised(Raised::new("main.wrong", None))));
    assert_eq!(complete(Decode::GoPanic, &own, &mut Same(None)), None);
    // C++: a type that is derived from std::runtime_error.
    let table = word(0x7000);
    let info = [table, word(0x5100), word(0x5040)].concat();
    let base = [table, word(0x5180)].concat();
    let memory: &[(u64, &[u8])] = &[
        (0x5000, &info),
        (0x5040, &base),
        (0x5100, b"3App\0\0\0\0"),
        (0x5180, b"St13runtime_error\0"),
    ];
    let (kind, other) = (word(0x5000), word(0x7008));
    for (read, is_completed) in [(&table, true), (&other, false)] {
        let own =
            written(&[(TYPE, 0, &kind), (0, 1, b""), (8, 0, read), (16, 0, b"no such thing")]);
        let more = complete(Decode::Cpp, &own, &mut Known(memory));
        assert_eq!(more.is_some(), is_completed);
        let seen = decode(Decode::Cpp, &[more.unwrap_or_default(), own].concat());
        let raised = Raised::new("App", Some("no such thing".to_owned()));
        assert_eq!(seen, is_completed.then_some(Seen::Raised(raised)));
    }
    // Nothing is missing.
    let whole = written(&[(TYPE, 0, &kind), (0, 0, b"3App"), (8, 0, &table), (9, 0, &other)]);
    assert_eq!(complete(Decode::Cpp, &whole, &mut Same(Some(1))), None);
}

proptest! {
    #[test]
    fn any_chunks_are_completed_or_not(
        chunks in prop::collection::vec(
            (0u16..46, 0u16..4, prop::collection::vec(any::<u8>(), 0..40)), 0..16,
        ),
        byte in prop::option::of(any::<u8>()),
    ) {
        let chunks: Vec<_> = chunks.iter().map(|(n, s, b)| (*n, *s, b.as_slice())).collect();
        let written = written(&chunks);
        for each in Decode::ALL {
            if let Some(more) = complete(each, &written, &mut Same(byte)) {
                prop_assert!(each.reads_constants() && more.len() < 4096);
                let _ = decode(each, &[more, written.clone()].concat());
            }
        }
    }

    #[test]
    fn any_bytes_have_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        for each in Decode::ALL {
            let _ = decode(each, &bytes);
        }
    }

    #[test]
    fn any_chunks_have_an_answer(
        chunks in prop::collection::vec(
            (0u16..20, 0u16..4, prop::collection::vec(any::<u8>(), 0..40)), 0..16,
        ),
    ) {
        let chunks: Vec<_> = chunks.iter().map(|(n, s, b)| (*n, *s, b.as_slice())).collect();
        let written = written(&chunks);
        for each in Decode::ALL {
            if let Some(Seen::Raised(raised)) = decode(each, &written) {
                prop_assert!(each == Decode::V8 || !raised.name.is_empty());
            }
        }
    }
}
