//! Bytes from a stranger's memory and plans from a stranger's recording.

use proptest::prelude::*;

use super::super::reader::{Reader, Root};
use super::super::show::{Case, Field, Message, Show};
use super::super::{Name, Value};
use crate::inspect::dwarf::place::Unreadable;

fn name() -> impl Strategy<Value = Name> {
    "[a-zäOkEr_0-9]{0,6}".prop_map(|text| Name(text.into()))
}

fn at() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0_u64..40, 1 => Just(u64::MAX), 1 => any::<u64>()]
}

fn chunk() -> impl Strategy<Value = u16> {
    prop_oneof![8 => 0_u16..6, 1 => any::<u16>()]
}

fn leaf() -> impl Strategy<Value = Show> {
    prop_oneof![
        Just(Show::Nothing),
        Just(Show::Bool),
        Just(Show::Address),
        Just(Show::Unavailable(Unreadable::Float)),
        (any::<u8>(), any::<bool>()).prop_map(|(bytes, signed)| Show::Int { bytes, signed }),
        (at(), any::<u8>(), any::<bool>()).prop_map(|(first, count, signed)| Show::Bits {
            first,
            count,
            signed,
            names: Vec::new(),
        }),
        any::<u8>().prop_map(|bytes| Show::Char { bytes }),
        (any::<u8>(), any::<bool>(), name()).prop_map(|(bytes, signed, name)| Show::Enum {
            bytes,
            signed,
            names: vec![(1, name)]
        }),
        chunk().prop_map(|chunk| Show::CString { chunk }),
        any::<u32>().prop_map(|bytes| Show::CharArray { bytes }),
        (chunk(), at(), any::<u8>(), any::<u8>()).prop_map(
            |(chunk, length_at, length_bytes, shift)| Show::Text {
                chunk,
                length_at,
                length_bytes,
                shift
            }
        ),
        (chunk(), proptest::option::of(chunk()), proptest::option::of((chunk(), chunk())))
            .prop_map(|(descriptor, name, message)| Show::Interface {
                descriptor,
                name,
                message: message.map(|(header, text)| Message { header, text }),
            }),
    ]
}

fn show() -> impl Strategy<Value = Show> {
    leaf().prop_recursive(6, 48, 5, |inner| {
        let inner = inner.prop_map(Box::new).boxed();
        let field = (name(), at(), inner.clone()).prop_map(|(name, at, show)| Field {
            name,
            at,
            show: *show,
        });
        let case = (proptest::option::of((0_u64..4, 0_u64..4)), name(), at(), inner.clone())
            .prop_map(|(tags, name, at, show)| Case { tags, name, at, show: *show });
        prop_oneof![
            (chunk(), any::<u32>(), any::<bool>(), inner.clone()).prop_map(
                |(chunk, bytes, reference, to)| Show::Pointer {
                    chunk,
                    bytes: bytes % 64,
                    reference,
                    to
                }
            ),
            (chunk(), at(), any::<u32>(), inner.clone()).prop_map(
                |(chunk, length_at, stride, of)| Show::Slice {
                    chunk,
                    length_at,
                    stride: stride % 20,
                    of
                }
            ),
            (chunk(), at(), at(), any::<u32>(), inner.clone()).prop_map(
                |(chunk, from_at, to_at, stride, of)| Show::Span {
                    chunk,
                    from_at,
                    to_at,
                    stride: stride % 20,
                    of
                }
            ),
            (at(), any::<u32>(), any::<u32>(), inner.clone())
                .prop_map(|(count, shown, stride, of)| Show::Array { count, shown, stride, of }),
            (proptest::collection::vec(field, 0..4), any::<bool>())
                .prop_map(|(fields, cut)| Show::Struct { fields, cut }),
            (at(), any::<u8>(), proptest::collection::vec(case, 0..4)).prop_map(
                |(tag_at, tag_bytes, variants)| Show::Variants { tag_at, tag_bytes, variants }
            ),
            (any::<u8>(), at(), any::<u8>(), at(), any::<u32>(), inner).prop_map(
                |(long_mask, at, size_shift, inline_at, inline_bytes, text)| Show::ShortString {
                    long_bit_at: at,
                    long_mask,
                    size_at: at,
                    size_shift,
                    inline_at,
                    inline_bytes,
                    text
                }
            ),
        ]
    })
}

fn chunks() -> impl Strategy<Value = Vec<u8>> {
    let one = (chunk(), 0_u16..4, proptest::collection::vec(any::<u8>(), 0..70), 0_u32..3)
        .prop_map(|(number, status, bytes, longer)| {
            let mut out = Vec::new();
            out.extend(number.to_ne_bytes());
            out.extend(status.to_ne_bytes());
            out.extend((bytes.len() as u32 + longer / 2).to_ne_bytes());
            out.extend(&bytes);
            out.resize(out.len().next_multiple_of(8), 0);
            out
        });
    prop_oneof![
        4 => proptest::collection::vec(one, 0..8).prop_map(|all| all.concat()),
        1 => proptest::collection::vec(any::<u8>(), 0..300),
    ]
}

proptest! {
    #[test]
    fn any_plan_reads_any_bytes(
        shows in proptest::collection::vec((name(), chunk(), show()), 0..4),
        bytes in chunks(),
    ) {
        let roots = shows.into_iter().map(|(name, chunk, show)| Root { name, chunk, show }).collect();
        let reader = Reader::new(roots);
        let values = reader.read(&bytes);
        for (_, value) in &values {
            if let Value::Text(text) = value {
                // Bounded, whatever is claimed: what is written last may go over by one piece.
                prop_assert!(text.len() < 8192, "{} bytes", text.len());
            }
        }
        let _ = reader.failure(&bytes);
        let written = serde_json::to_string(&reader).expect("a reader can be written");
        if let Ok(again) = serde_json::from_str::<Reader>(&written) {
            prop_assert_eq!(again.read(&bytes), values);
        }
    }
}
