//! Spans as they are in OTLP JSON, as plain values.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// A span.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// `service.name` of its resource.
    pub service: String,
    /// Its resource's attributes.
    pub resource: BTreeMap<String, Value>,
    /// Hexadecimal.
    pub trace: String,
    /// Hexadecimal.
    pub id: String,
    /// Hexadecimal; `None` is a root.
    pub parent: Option<String>,
    /// OTLP's number.
    pub kind: u64,
    /// Its name.
    pub name: String,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// Nanoseconds since 1970.
    pub end: u64,
    /// OTLP's number; 0 is unset.
    pub status: u64,
    /// What the status says.
    pub message: String,
    /// OTLP's flags.
    pub flags: u64,
    /// W3C `tracestate`; empty if none.
    pub trace_state: String,
    /// Name and version of its instrumentation scope.
    pub scope: String,
    /// Its attributes.
    pub attributes: BTreeMap<String, Value>,
    /// Its events, in order.
    pub events: Vec<Event>,
    /// Its links, in order.
    pub links: Vec<Link>,
}

/// Something that happened at one moment of a span.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// Nanoseconds since 1970.
    pub time: u64,
    /// What else is known.
    pub attributes: BTreeMap<String, Value>,
}

/// Another span that one relates to.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Hexadecimal.
    pub trace: String,
    /// Hexadecimal.
    pub id: String,
    /// W3C `tracestate`; empty if none.
    pub trace_state: String,
    /// What else is known.
    pub attributes: BTreeMap<String, Value>,
}

/// OTLP's numbers.
pub const SERVER: u64 = 2;
/// OTLP's numbers.
pub const CLIENT: u64 = 3;

impl Span {
    /// A text attribute; empty if it is not there.
    pub fn text(&self, key: &str) -> &str {
        self.attributes.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// An integer attribute.
    pub fn int(&self, key: &str) -> Option<i64> {
        self.attributes.get(key).and_then(Value::as_i64)
    }

    /// How the parent was found, and how sure that is: `thread exact`.
    pub fn link(&self) -> String {
        let method = self.text("remora.parent.method");
        let confidence = self.text("remora.parent.confidence");
        format!("{method} {confidence}").trim().to_owned()
    }

    /// The path of the request, from whichever attribute has it.
    pub fn path(&self) -> &str {
        let full = self.text("url.full");
        match full.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..])) {
            Some(path) => path.split('?').next().unwrap_or(path),
            None => self.text("url.path"),
        }
    }
}

/// Reads a file of OTLP JSON lines. A last line that is still being written is left out.
///
/// # Panics
/// If a whole line is not what it should be.
pub fn read(file: &Path) -> Vec<Span> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    let mut spans: Vec<Span> = whole.lines().flat_map(parse).collect();
    spans.sort_by_key(|span| span.start);
    spans
}

/// The spans of one `ExportTraceServiceRequest`.
///
/// # Panics
/// If it is not one.
pub fn parse(line: &str) -> Vec<Span> {
    let request: Value =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON: {error}: {line}"));
    from_resource_spans(&request["resourceSpans"])
}

/// The spans of a list of `ResourceSpans`.
pub fn from_resource_spans(list: &Value) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource_spans in items(list) {
        let resource = attributes(&resource_spans["resource"]["attributes"]);
        for scope_spans in items(&resource_spans["scopeSpans"]) {
            let scope = &scope_spans["scope"];
            let scope = format!("{} {}", text_of(&scope["name"]), text_of(&scope["version"]));
            let list = items(&scope_spans["spans"]).iter();
            spans.extend(list.map(|span| one(&resource, &scope, span)));
        }
    }
    spans
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn one(resource: &BTreeMap<String, Value>, scope: &str, span: &Value) -> Span {
    let text = |key: &str| text_of(&span[key]);
    let time = |value: &Value| text_of(value).parse().expect("a decimal string");
    Span {
        service: resource
            .get("service.name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        resource: resource.clone(),
        trace: text("traceId"),
        id: text("spanId"),
        parent: Some(text("parentSpanId")).filter(|parent| !parent.is_empty()),
        kind: span["kind"].as_u64().unwrap_or(0),
        name: text("name"),
        start: time(&span["startTimeUnixNano"]),
        end: time(&span["endTimeUnixNano"]),
        status: span["status"]["code"].as_u64().unwrap_or(0),
        message: text_of(&span["status"]["message"]),
        flags: span["flags"].as_u64().unwrap_or(0),
        trace_state: text("traceState"),
        scope: scope.to_owned(),
        attributes: attributes(&span["attributes"]),
        events: items(&span["events"])
            .iter()
            .map(|event| Event {
                name: text_of(&event["name"]),
                time: time(&event["timeUnixNano"]),
                attributes: attributes(&event["attributes"]),
            })
            .collect(),
        links: items(&span["links"])
            .iter()
            .map(|link| Link {
                trace: text_of(&link["traceId"]),
                id: text_of(&link["spanId"]),
                trace_state: text_of(&link["traceState"]),
                attributes: attributes(&link["attributes"]),
            })
            .collect(),
    }
}

fn attributes(list: &Value) -> BTreeMap<String, Value> {
    items(list).iter().map(|pair| (text_of(&pair["key"]), plain(&pair["value"]))).collect()
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// An `AnyValue` as plain JSON; what JSON has no type for stays as it is written in OTLP.
fn plain(value: &Value) -> Value {
    let Some((kind, inner)) = value.as_object().and_then(|object| object.iter().next()) else {
        return Value::Null;
    };
    match kind.as_str() {
        "intValue" => text_of(inner).parse::<i64>().map_or(Value::Null, Value::from),
        "arrayValue" => Value::Array(items(&inner["values"]).iter().map(plain).collect()),
        "stringValue" | "boolValue" => inner.clone(),
        "doubleValue" if inner.is_number() => inner.as_f64().map_or(Value::Null, Value::from),
        _ => value.clone(),
    }
}

/// Checks what must hold for any set of spans that belong together.
///
/// # Panics
/// If something does not.
pub fn check_honest(spans: &[Span]) {
    let by_id: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
    assert_eq!(by_id.len(), spans.len(), "span ids are unique");
    for span in spans {
        assert!(span.start <= span.end, "ends before it starts: {span:#?}");
        let Some(parent) = &span.parent else {
            assert_eq!(span.link(), "", "a method without a parent: {span:#?}");
            continue;
        };
        assert_ne!(span.link(), "", "a parent without a method: {span:#?}");
        let Some(parent) = by_id.get(parent.as_str()) else { continue };
        assert_eq!(parent.trace, span.trace, "parent and child are in one trace");
        assert!(parent.start <= span.start, "starts before its parent: {span:#?} {parent:#?}");
        // Who gives up ends before the other; who was lost sight of may have.
        let read_all = parent.int("http.response.status_code").is_some()
            && parent.text("error.type") != "connection_closed"
            && parent.text("remora.end.reason").is_empty();
        if span.text("remora.parent.method") == "tcp_seq" && read_all {
            assert!(
                span.end <= parent.end,
                "a server ends after its client: {span:#?} {parent:#?}"
            );
        }
    }
}
