//! What is added is what is read, and what protobuf's own library reads.

use proptest::prelude::*;
use prost::Message as _;

use super::*;

/// `KeyValue` and what it holds, as prost reads them.
#[derive(Clone, PartialEq, prost::Message)]
struct Pairs {
    #[prost(message, repeated, tag = "9")]
    pairs: Vec<Pair>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Pair {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 7")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    Texts(Array),
    #[prost(bytes, tag = "7")]
    Bytes(Vec<u8>),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Array {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Any>,
}

fn kinds() -> impl Strategy<Value = Kind> {
    let text = || "\\PC{0,200}";
    let array = prop::collection::vec(text(), 0..5).prop_map(|texts| {
        let any = |text| Any { kind: Some(Kind::Text(text)) };
        Kind::Texts(Array { values: texts.into_iter().map(any).collect() })
    });
    prop_oneof![
        text().prop_map(Kind::Text),
        any::<bool>().prop_map(Kind::Bool),
        any::<i64>().prop_map(Kind::Int),
        (-1e300..1e300).prop_map(Kind::Double),
        array,
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Kind::Bytes),
    ]
}

proptest! {
    #[test]
    fn any_list_is_read_back(pairs in prop::collection::vec(("\\PC{0,40}", kinds()), 0..12)) {
        let mut attributes = Attributes::default();
        for (key, kind) in &pairs {
            match kind {
                Kind::Text(text) => attributes.text(key, text),
                Kind::Bool(truth) => attributes.bool(key, *truth),
                Kind::Int(number) => attributes.int(key, *number),
                Kind::Double(number) => attributes.push(key, Value::Double(*number)),
                Kind::Bytes(bytes) => attributes.push(key, Value::Bytes(bytes)),
                Kind::Texts(array) => {
                    let text = |any: &Any| match &any.kind {
                        Some(Kind::Text(text)) => text.clone(),
                        other => panic!("{other:?}"),
                    };
                    let texts: Vec<String> = array.values.iter().map(text).collect();
                    attributes.push(key, Value::texts(&texts));
                }
            }
        }
        let decoded = Pairs::decode(attributes.encoded()).expect("protobuf");
        let expected: Vec<Pair> = pairs
            .iter()
            .map(|(key, kind)| Pair { key: key.clone(), value: Some(Any { kind: Some(kind.clone()) }) })
            .collect();
        prop_assert_eq!(&decoded.pairs, &expected);
        prop_assert_eq!(attributes.len(), pairs.len());
        prop_assert_eq!(attributes.iter().count(), pairs.len());
        // Read back and added again, it is the same.
        let mut again = Attributes::default();
        attributes.iter().for_each(|(key, value)| again.push(key, value));
        prop_assert_eq!(&again, &attributes);
        let each: Vec<u8> = attributes.encoded_each().flat_map(|pair| [&[0x4a], pair].concat()).collect();
        prop_assert_eq!(each, attributes.encoded());
    }

    #[test]
    fn a_varint_is_as_long_as_was_said(value in any::<u64>(), shift in 0..64) {
        let value = value >> shift;
        let mut attributes = Attributes::default();
        attributes.varint(value);
        prop_assert_eq!(attributes.encoded.len(), varint_len(value));
    }

    #[test]
    fn addresses_are_written_as_the_standard_library_does(v4 in any::<u32>(), v6 in any::<u128>()) {
        let ips = [IpAddr::V4(v4.into()), IpAddr::V6(v6.into()), IpAddr::V4((v4 & 0xff00_0aff).into())];
        for ip in ips {
            let mut attributes = Attributes::default();
            attributes.ip(&["ip"], ip);
            prop_assert_eq!(attributes.get("ip"), Some(Value::Text(&ip.to_string())));
        }
    }
}
