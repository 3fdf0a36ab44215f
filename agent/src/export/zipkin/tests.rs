//! What a Zipkin server demands of a post, of any spans: one bad span spoils them all.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::*;
use crate::export::arbitrary;
use crate::span::attributes::{Attributes, Value};
use crate::span::model::Span;
use crate::span::model::{Kind, StatusCode};

/// A JSON object in which no key occurs twice.
#[derive(Debug)]
struct Object<T>(BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Keys<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<T>, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, T>()? {
                    if entries.contains_key(&key) {
                        return Err(A::Error::custom(format!("`{key}` occurs twice")));
                    }
                    entries.insert(key, value);
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Keys(std::marker::PhantomData))
    }
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ZipkinSpan {
    trace_id: String,
    id: String,
    parent_id: Option<String>,
    name: String,
    kind: Option<String>,
    timestamp: u64,
    duration: u64,
    local_endpoint: Endpoint,
    remote_endpoint: Option<Endpoint>,
    #[serde(default)]
    annotations: Vec<Annotation>,
    tags: Object<String>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Endpoint {
    service_name: Option<String>,
    ipv4: Option<std::net::Ipv4Addr>,
    ipv6: Option<std::net::Ipv6Addr>,
    port: Option<u16>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Annotation {
    timestamp: u64,
    value: String,
}

fn posted(spans: Vec<Span>) -> Vec<ZipkinSpan> {
    let body = encode::encode(spans.iter());
    let shown = || String::from_utf8_lossy(&body).into_owned();
    serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {}", shown()))
}

proptest! {
    #[test]
    fn any_spans_make_a_post_that_is_taken(spans in arbitrary::spans()) {
        let told = posted(spans.clone());
        prop_assert_eq!(told.len(), spans.len());
        for (told, span) in told.iter().zip(&spans) {
            prop_assert_eq!(&told.trace_id, &span.trace_id.to_string());
            prop_assert_eq!(&told.id, &span.span_id.to_string());
            let parent = span.parent.map(|parent| parent.span_id.to_string());
            prop_assert_eq!(&told.parent_id, &parent);
            prop_assert_eq!(&told.name, &span.name);
            let kind = match span.kind {
                Kind::Internal => None,
                kind => Some(format!("{kind:?}").to_uppercase()),
            };
            prop_assert_eq!(&told.kind, &kind);
            prop_assert_eq!(told.timestamp, span.start.0 / 1000);
            let length = span.end.0 - span.start.0;
            prop_assert!(told.duration >= 1, "a duration of 0 is dropped");
            prop_assert!(u128::from(told.duration) * 1000 >= u128::from(length));
            prop_assert!(u128::from(told.duration.saturating_sub(1)) * 1000 <= u128::from(length));
            let service = told.local_endpoint.service_name.as_ref();
            prop_assert_eq!(service, Some(&span.resource.service_name));
            if let Some(remote) = &told.remote_endpoint {
                let Endpoint { service_name, ipv4, ipv6, port } = remote;
                prop_assert!(service_name.is_some() || ipv4.is_some() || ipv6.is_some());
                prop_assert!(service_name.as_ref().is_none_or(|name| !name.is_empty()));
                prop_assert!(port.is_none_or(|port| port > 0));
            }
            prop_assert_eq!(told.annotations.len(), span.events.len());
            for (told, event) in told.annotations.iter().zip(&span.events) {
                prop_assert_eq!(told.timestamp, event.time.0 / 1000);
                prop_assert!(!told.value.is_empty(), "an annotation has a value");
            }
            let tags = &told.tags.0;
            let failed = span.status == StatusCode::Error;
            prop_assert_eq!(tags.contains_key("error"), failed, "its presence is an error");
            let status = match span.status {
                StatusCode::Unset => None,
                StatusCode::Ok => Some("OK"),
                StatusCode::Error => Some("ERROR"),
            };
            prop_assert_eq!(tags.get("otel.status_code").map(String::as_str), status);
            for (key, _) in span.attributes.iter().filter(|(key, _)| !encode::RESERVED.contains(key)) {
                prop_assert!(tags.contains_key(key), "{}", key);
            }
        }
    }
}

fn span(attributes: &[(&str, Value<'_>)]) -> Span {
    let mut all = Attributes::default();
    for (key, value) in attributes {
        all.push(key, *value);
    }
    let mut resource = Attributes::default();
    resource.text("service.name", "shop");
    resource.text("host.name", "of the resource");
    Span {
        resource: Arc::new(crate::span::model::Resource {
            attributes: resource,
            service_name: "shop".to_owned(),
        }),
        trace_id: crate::span::model::TraceId([0xab; 16]),
        span_id: crate::span::model::SpanId([1; 8]),
        parent: None,
        trace_state: String::new(),
        trace_flags: 1,
        kind: Kind::Client,
        name: "GET".into(),
        start: crate::span::model::UnixNs(1_000_000),
        end: crate::span::model::UnixNs(1_000_001),
        attributes: all,
        events: Vec::new(),
        links: Vec::new(),
        status: StatusCode::Error,
        status_message: String::new(),
    }
}

#[test]
fn values_become_text_and_the_spans_own_win() {
    let told = posted(vec![span(&[
        ("host.name", Value::Text("its own")),
        ("int", Value::Int(-1)),
        ("double", Value::Double(0.5)),
        ("bool", Value::Bool(true)),
        ("bytes", Value::Bytes(&[0, 255])),
        ("texts", Value::texts(&["a".to_owned(), "\"".to_owned()])),
        ("error.type", Value::Text("503")),
        ("error", Value::Text("not this")),
    ])]);
    let tags: Vec<String> =
        told[0].tags.0.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let version = format!("otel.scope.version={}", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        tags,
        [
            "bool=true",
            "bytes=AP8=",
            "double=0.5",
            "error=503",
            "error.type=503",
            "host.name=its own",
            "int=-1",
            "otel.scope.name=remora",
            &version,
            "otel.status_code=ERROR",
            "texts=[\"a\",\"\\\"\"]",
        ]
    );
}

#[test]
fn urls() {
    let url = |text| parse_url(text).map_or_else(|error| error.to_string(), |url| url.to_string());
    assert_eq!(url("http://h:9411"), "http://h:9411/api/v2/spans");
    assert_eq!(url("http://h:9411/"), "http://h:9411/api/v2/spans");
    assert_eq!(url("https://h/other"), "https://h/other");
    assert!(url("h:9411").contains("none of http, https"));
    assert!(url("nonsense").contains("write it like"));
}
