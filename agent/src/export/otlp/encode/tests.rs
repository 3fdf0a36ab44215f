//! The encoders, protobuf and JSON, against an oracle: structs with the field numbers of
//! opentelemetry-proto, decoded by somebody else's code.

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;
use serde_json::Value as Json;

use super::*;
use crate::export::arbitrary;
use crate::export::otlp::json;
use crate::span::attributes::Value;

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<OtlpSpan>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct OtlpSpan {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "11")]
    events: Vec<OtlpEvent>,
    #[prost(message, repeated, tag = "13")]
    links: Vec<OtlpLink>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct OtlpEvent {
    #[prost(fixed64, tag = "1")]
    time_unix_nano: u64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "3")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct OtlpLink {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(message, repeated, tag = "4")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "One", tags = "1, 2, 3, 4, 5, 7")]
    value: Option<One>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum One {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    Array(ArrayValue),
    #[prost(bytes, tag = "7")]
    Bytes(Vec<u8>),
}

#[derive(Clone, PartialEq, Message)]
struct ArrayValue {
    #[prost(message, repeated, tag = "1")]
    values: Vec<AnyValue>,
}

/// What a request must say, from the spans themselves.
fn expected(spans: &[Span]) -> Request {
    let mut resource_spans: Vec<ResourceSpans> = Vec::new();
    let mut places: BTreeMap<usize, usize> = BTreeMap::new();
    for span in spans {
        let identity = std::sync::Arc::as_ptr(&span.resource) as usize;
        let place = *places.entry(identity).or_insert_with(|| {
            let attributes = key_values(&span.resource.attributes);
            let scope =
                Scope { name: "remora".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
            resource_spans.push(ResourceSpans {
                resource: Some(Resource { attributes }),
                scope_spans: vec![ScopeSpans { scope: Some(scope), spans: Vec::new() }],
            });
            resource_spans.len() - 1
        });
        resource_spans[place].scope_spans[0].spans.push(one(span));
    }
    Request { resource_spans }
}

fn one(span: &Span) -> OtlpSpan {
    let attributes = key_values(&span.attributes);
    let mut flags = u32::from(span.trace_flags) | 0x100;
    if let Some(parent) = &span.parent {
        flags |= if parent.remote { 0x200 } else { 0 };
    }
    let is_told = span.status != StatusCode::Unset || !span.status_message.is_empty();
    OtlpSpan {
        trace_id: span.trace_id.0.to_vec(),
        span_id: span.span_id.0.to_vec(),
        trace_state: span.trace_state.clone(),
        parent_span_id: span.parent.map_or(Vec::new(), |parent| parent.span_id.0.to_vec()),
        name: span.name.to_string(),
        kind: span.kind as i32,
        start_time_unix_nano: span.start.0,
        end_time_unix_nano: span.end.0,
        attributes,
        events: span
            .events
            .iter()
            .map(|event| OtlpEvent {
                time_unix_nano: event.time.0,
                name: event.name.clone(),
                attributes: key_values(&event.attributes),
            })
            .collect(),
        links: span
            .links
            .iter()
            .map(|link| OtlpLink {
                trace_id: link.trace_id.0.to_vec(),
                span_id: link.span_id.0.to_vec(),
                trace_state: link.trace_state.clone(),
                attributes: key_values(&link.attributes),
            })
            .collect(),
        status: is_told
            .then(|| Status { message: span.status_message.clone(), code: span.status as i32 }),
        flags,
    }
}

fn key_values(attributes: &Attributes) -> Vec<KeyValue> {
    let any = |value: Value<'_>| match value {
        Value::Text(text) => One::Text(text.to_owned()),
        Value::Int(number) => One::Int(number),
        Value::Double(number) => One::Double(number),
        Value::Bool(truth) => One::Bool(truth),
        Value::Bytes(bytes) => One::Bytes(bytes.to_vec()),
        Value::Texts(texts) => {
            let one = |text: &str| AnyValue { value: Some(One::Text(text.to_owned())) };
            One::Array(ArrayValue { values: texts.iter().map(one).collect() })
        }
    };
    let pair = |(key, value): (&str, Value<'_>)| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(any(value)) }),
    };
    attributes.iter().map(pair).collect()
}

/// Reads OTLP's JSON: proto3's mapping, but ids in hexadecimal and enums as numbers. Panics at
/// anything that a strict reader would not take.
mod strict {
    use super::*;

    pub(super) fn request(json: &Json) -> Request {
        let mut fields = Fields::of(json);
        let resource_spans = fields.list("resourceSpans", |json| {
            let mut fields = Fields::of(json);
            let resource = fields.take("resource").map(|json| {
                let mut fields = Fields::of(json);
                Resource { attributes: fields.list("attributes", key_value) }
            });
            ResourceSpans { resource, scope_spans: fields.list("scopeSpans", scope_spans) }
        });
        Request { resource_spans }
    }

    fn scope_spans(json: &Json) -> ScopeSpans {
        let mut fields = Fields::of(json);
        let scope = fields.take("scope").map(|json| {
            let mut fields = Fields::of(json);
            Scope { name: fields.text("name"), version: fields.text("version") }
        });
        ScopeSpans { scope, spans: fields.list("spans", span) }
    }

    fn span(json: &Json) -> OtlpSpan {
        let mut fields = Fields::of(json);
        let status = fields.take("status").map(|json| {
            let mut fields = Fields::of(json);
            Status { message: fields.text("message"), code: fields.small("code") as i32 }
        });
        OtlpSpan {
            trace_id: fields.hex("traceId"),
            span_id: fields.hex("spanId"),
            trace_state: fields.text("traceState"),
            parent_span_id: fields.hex("parentSpanId"),
            name: fields.text("name"),
            kind: fields.small("kind") as i32,
            start_time_unix_nano: fields.big("startTimeUnixNano"),
            end_time_unix_nano: fields.big("endTimeUnixNano"),
            attributes: fields.list("attributes", key_value),
            events: fields.list("events", |json| {
                let mut fields = Fields::of(json);
                OtlpEvent {
                    time_unix_nano: fields.big("timeUnixNano"),
                    name: fields.text("name"),
                    attributes: fields.list("attributes", key_value),
                }
            }),
            links: fields.list("links", |json| {
                let mut fields = Fields::of(json);
                OtlpLink {
                    trace_id: fields.hex("traceId"),
                    span_id: fields.hex("spanId"),
                    trace_state: fields.text("traceState"),
                    attributes: fields.list("attributes", key_value),
                }
            }),
            // An empty message is none.
            status: status.filter(|status| *status != Status::default()),
            flags: fields.small("flags") as u32,
        }
    }

    fn key_value(json: &Json) -> KeyValue {
        let mut fields = Fields::of(json);
        KeyValue { key: fields.text("key"), value: fields.take("value").map(any) }
    }

    fn any(json: &Json) -> AnyValue {
        let mut fields = Fields::of(json);
        assert_eq!(fields.0.len(), 1, "one of: {json}");
        let one = if let Some(json) = fields.take("stringValue") {
            One::Text(json.as_str().expect("text").to_owned())
        } else if let Some(json) = fields.take("boolValue") {
            One::Bool(json.as_bool().expect("a truth"))
        } else if let Some(json) = fields.take("intValue") {
            One::Int(json.as_str().expect("a number as text").parse().expect("a number"))
        } else if let Some(json) = fields.take("doubleValue") {
            One::Double(match json.as_str() {
                Some("NaN") => f64::NAN,
                Some("Infinity") => f64::INFINITY,
                Some("-Infinity") => f64::NEG_INFINITY,
                Some(other) => panic!("{other} is no double"),
                None => json.as_f64().expect("a number"),
            })
        } else if let Some(json) = fields.take("bytesValue") {
            One::Bytes(base64(json.as_str().expect("text")))
        } else {
            let json = fields.take("arrayValue").expect("one of the values");
            One::Array(ArrayValue { values: Fields::of(json).list("values", any) })
        };
        AnyValue { value: Some(one) }
    }

    struct Fields<'a>(BTreeMap<&'a str, &'a Json>);

    impl<'a> Fields<'a> {
        fn of(json: &'a Json) -> Self {
            let object = json.as_object().unwrap_or_else(|| panic!("{json} is no object"));
            Self(object.iter().map(|(key, value)| (key.as_str(), value)).collect())
        }

        fn take(&mut self, key: &str) -> Option<&'a Json> {
            self.0.remove(key)
        }

        fn text(&mut self, key: &str) -> String {
            self.take(key).map_or(String::new(), |json| json.as_str().expect("text").to_owned())
        }

        fn hex(&mut self, key: &str) -> Vec<u8> {
            let text = self.text(key);
            assert!(text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{text}");
            let pair = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
            (0..text.len()).step_by(2).map(pair).collect()
        }

        fn small(&mut self, key: &str) -> u64 {
            self.take(key).map_or(0, |json| json.as_u64().expect("a number"))
        }

        fn big(&mut self, key: &str) -> u64 {
            let parse = |json: &Json| json.as_str().expect("a number as text").parse();
            self.take(key).map_or(0, |json| parse(json).expect("a number"))
        }

        fn list<T>(&mut self, key: &str, one: fn(&Json) -> T) -> Vec<T> {
            let list = self.take(key).map(|json| json.as_array().expect("a list"));
            list.map_or(Vec::new(), |list| list.iter().map(one).collect())
        }
    }

    impl Drop for Fields<'_> {
        fn drop(&mut self) {
            assert!(self.0.is_empty() || std::thread::panicking(), "unknown: {:?}", self.0);
        }
    }

    fn base64(text: &str) -> Vec<u8> {
        assert_eq!(text.len() % 4, 0, "{text} is padded");
        let digit = |byte: u8| {
            let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
            digits.iter().position(|digit| *digit == byte).expect("a digit") as u32
        };
        let mut bytes = Vec::new();
        for chunk in text.as_bytes().chunks(4) {
            let digits: Vec<u32> =
                chunk.iter().take_while(|byte| **byte != b'=').map(|byte| digit(*byte)).collect();
            let word = digits.iter().fold(0, |word, digit| word << 6 | digit);
            let word = word << (6 * (4 - digits.len()));
            bytes.extend(&word.to_be_bytes()[1..digits.len()]);
        }
        bytes
    }
}

/// With numbers as far as the JSON reader keeps them, and NaN equal to itself.
fn rounded(mut request: Request) -> String {
    fn round(list: &mut [KeyValue]) {
        for pair in list {
            if let Some(AnyValue { value: Some(One::Double(number)) }) = &mut pair.value
                && number.is_finite()
            {
                *number = f64::from(*number as f32);
            }
        }
    }
    for group in &mut request.resource_spans {
        if let Some(resource) = &mut group.resource {
            round(&mut resource.attributes);
        }
        for span in group.scope_spans.iter_mut().flat_map(|scope| &mut scope.spans) {
            round(&mut span.attributes);
            span.events.iter_mut().for_each(|event| round(&mut event.attributes));
            span.links.iter_mut().for_each(|link| round(&mut link.attributes));
        }
    }
    format!("{request:#?}")
}

/// A message as it is sent.
fn joined<'a>(parts: impl IntoIterator<Item = (&'a Encoded, Range<usize>)>) -> Vec<u8> {
    let message = message(parts);
    let bytes = message.iter().map(|piece| &piece[..]).collect::<Vec<_>>().concat();
    assert_eq!(bytes.len(), message.len());
    bytes
}

/// Those of one process behind each other, as they are encoded.
fn by_process(spans: &[Span]) -> Vec<Span> {
    let groups = group::by_resource(spans).into_iter();
    groups.flat_map(|group| group.spans).cloned().collect()
}

proptest! {
    #[test]
    fn protobuf_says_what_the_spans_say(spans in arbitrary::spans()) {
        let encoded = Encoded::new(&spans);
        prop_assert_eq!(encoded.spans(), spans.len());
        let decoded = Request::decode(&joined([(&encoded, 0..spans.len())])[..]);
        let decoded = decoded.expect("valid protobuf");
        prop_assert_eq!(format!("{decoded:?}"), format!("{:?}", expected(&spans)));
    }

    #[test]
    fn parts_of_batches_say_what_their_spans_say(
        spans in arbitrary::spans(),
        batches in prop::collection::vec((0usize..8, 0usize..8, 0usize..8), 0..4),
    ) {
        let (mut said, mut parts) = (Vec::new(), Vec::new());
        for (len, begin, end) in batches {
            let batch = &spans[..len.min(spans.len())];
            let begin = begin.min(batch.len());
            let range = begin..end.clamp(begin, batch.len());
            said.extend_from_slice(&by_process(batch)[range.clone()]);
            parts.push((Encoded::new(batch), range));
        }
        let bytes = joined(parts.iter().map(|(batch, range)| (batch, range.clone())));
        let decoded = Request::decode(&bytes[..]).expect("valid protobuf");
        prop_assert_eq!(format!("{decoded:?}"), format!("{:?}", expected(&said)));
    }

    #[test]
    fn json_says_what_the_spans_say(spans in arbitrary::spans()) {
        let mut bytes = Vec::new();
        json::encode(&spans, &mut bytes);
        prop_assert!(!bytes.contains(&b'\n'), "it is to be one line");
        let parsed: Json = serde_json::from_slice(&bytes).expect("valid JSON");
        prop_assert_eq!(rounded(strict::request(&parsed)), rounded(expected(&spans)));
    }
}

#[test]
fn nothing_is_an_empty_request() {
    assert_eq!(joined([]), b"");
    assert_eq!(joined([(&Encoded::new(&[]), 0..0)]), b"");
    let mut bytes = Vec::new();
    json::encode([], &mut bytes);
    assert_eq!(bytes, br#"{"resourceSpans":[]}"#);
}
