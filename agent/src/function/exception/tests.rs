//! What holds for all runtimes alike.

use agent_common::function::OPS_MAX;
use proptest::prelude::*;

use super::chunks::written;
use super::*;

const ALL: [Decode; 18] = [
    Decode::GoServer,
    Decode::RustCatch,
    Decode::GoRecovery,
    Decode::GoUncaught,
    Decode::PhpUncaught,
    Decode::NodeUncaught,
    Decode::Cpp,
    Decode::CppCatch,
    Decode::CppRethrow,
    Decode::RustPanic,
    Decode::RustPlace,
    Decode::GoPanic,
    Decode::GoFatal,
    Decode::Python,
    Decode::Php,
    Decode::Ruby,
    Decode::Java,
    Decode::V8,
];

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
    ] {
        assert!(!ops.is_empty() && ops.len() <= OPS_MAX, "{}", ops.len());
    }
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
    for decode in ALL {
        let stored = serde_json::to_string(&decode).expect("it can be written");
        let read: Decode = serde_json::from_str(&stored).expect("just written");
        assert_eq!(read, decode);
    }
}

proptest! {
    #[test]
    fn any_bytes_have_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        for each in ALL {
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
        for each in ALL {
            if let Some(Seen::Raised(raised)) = decode(each, &written) {
                prop_assert!(each == Decode::V8 || !raised.name.is_empty());
            }
        }
    }
}
