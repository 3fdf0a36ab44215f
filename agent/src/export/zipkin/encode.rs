//! Spans as Zipkin's JSON. Mapping: OpenTelemetry specification, "OpenTelemetry to Zipkin
//! transformation". One bad value makes the server refuse a whole post, so none is written.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::export::group::{SCOPE_NAME, SCOPE_VERSION};
use crate::export::json::Json;
use crate::span::attributes::Value;
use crate::span::model::{Kind, Resource, Span, SpanEvent, StatusCode};

/// The body of a post.
pub(super) fn encode<'a>(spans: impl Iterator<Item = &'a Span>) -> Vec<u8> {
    let mut body = Vec::new();
    // Every span repeats what is its process's, and processes are few.
    let mut known: Vec<ResourceTags<'_>> = Vec::new();
    Json::new(&mut body).array(spans, |json, span| {
        let at = known.iter().position(|tags| Arc::ptr_eq(tags.resource, &span.resource));
        let at = at.unwrap_or_else(|| {
            known.push(ResourceTags::new(&span.resource));
            known.len() - 1
        });
        if let Some(tags) = known.get(at) {
            json.object(|json| encode_span(json, span, tags));
        }
    });
    body
}

/// The tags that a process gives to all its spans.
struct ResourceTags<'a> {
    resource: &'a Arc<Resource>,
    keys: HashSet<&'a str, foldhash::fast::RandomState>,
    /// As they are written.
    fields: Vec<u8>,
}

impl<'a> ResourceTags<'a> {
    fn new(resource: &'a Arc<Resource>) -> Self {
        let mut fields = Vec::new();
        Json::new(&mut fields).fields(|json| resource_tags(json, resource, &|_| false));
        let keys = resource.attributes.iter().map(|(key, _)| key).collect();
        Self { resource, keys, fields }
    }
}

fn resource_tags(json: &mut Json<'_>, resource: &Resource, is_taken: &dyn Fn(&str) -> bool) {
    for (key, value) in resource.attributes.iter() {
        if key != "service.name" && !is_taken(key) {
            tag(json, key, value);
        }
    }
}

fn encode_span(json: &mut Json<'_>, span: &Span, resource: &ResourceTags<'_>) {
    json.key("traceId").hex(&span.trace_id.0);
    json.key("id").hex(&span.span_id.0);
    if let Some(parent) = &span.parent {
        json.key("parentId").hex(&parent.span_id.0);
    }
    json.key("name").text(&span.name);
    let kind = match span.kind {
        Kind::Internal => None,
        Kind::Server => Some("SERVER"),
        Kind::Client => Some("CLIENT"),
        Kind::Producer => Some("PRODUCER"),
        Kind::Consumer => Some("CONSUMER"),
    };
    if let Some(kind) = kind {
        json.key("kind").text(kind);
    }
    // Whole microseconds; a duration of 0 would be dropped.
    json.key("timestamp").number(span.start.0 / 1000);
    json.key("duration").number(span.end.0.saturating_sub(span.start.0).div_ceil(1000).max(1));
    json.key("localEndpoint").object(|json| {
        json.key("serviceName").text(&span.resource.service_name);
    });
    let remote = RemoteEndpoint::of(span);
    if remote != RemoteEndpoint::default() {
        json.key("remoteEndpoint").object(|json| {
            if let Some(name) = remote.name {
                json.key("serviceName").text(name);
            }
            if let Some(address) = remote.address {
                json.key(if address.is_ipv6() { "ipv6" } else { "ipv4" }).display(address);
            }
            if let Some(port) = remote.port {
                json.key("port").number(port);
            }
        });
    }
    if !span.events.is_empty() {
        json.key("annotations").array(span.events.iter(), |json, event| {
            json.object(|json| {
                json.key("timestamp").number(event.time.0 / 1000);
                json.key("value").text(&annotation(event));
            });
        });
    }
    json.key("tags").object(|json| tags(json, span, resource));
}

fn tags(json: &mut Json<'_>, span: &Span, resource: &ResourceTags<'_>) {
    let mut is_doubled = false;
    for (key, value) in span.attributes.iter() {
        is_doubled |= resource.keys.contains(key);
        tag(json, key, value);
    }
    if is_doubled {
        // A key that stands twice would be the resource's to Zipkin.
        let is_taken = |key: &str| span.attributes.get(key).is_some();
        resource_tags(json, resource.resource, &is_taken);
    } else {
        json.raw_fields(&resource.fields);
    }
    json.key("otel.scope.name").text(SCOPE_NAME);
    json.key("otel.scope.version").text(SCOPE_VERSION);
    match span.status {
        StatusCode::Unset => {}
        StatusCode::Ok => json.key("otel.status_code").text("OK"),
        StatusCode::Error => {
            json.key("otel.status_code").text("ERROR");
            let word = match span.attributes.get("error.type") {
                Some(Value::Text(word)) if span.status_message.is_empty() => word,
                _ => &span.status_message,
            };
            json.key("error").text(word);
        }
    }
}

/// The other end, as far as attributes tell.
#[derive(Default, PartialEq)]
struct RemoteEndpoint<'a> {
    name: Option<&'a str>,
    address: Option<IpAddr>,
    port: Option<u16>,
}

impl<'a> RemoteEndpoint<'a> {
    fn of(span: &'a Span) -> Self {
        let (mut peer, mut server) = ((None, None), (None, None));
        let (mut told, mut service, mut database) = (None, None, None);
        for (key, value) in span.attributes.iter() {
            match (key, value) {
                ("network.peer.address", Value::Text(address)) => peer.0 = Some(address),
                ("network.peer.port", Value::Int(port)) => peer.1 = Some(port),
                ("server.address", Value::Text(address)) => server.0 = Some(address),
                ("server.port", Value::Int(port)) => server.1 = Some(port),
                ("service.peer.name", Value::Text(name)) => told = Some(name),
                ("peer.service", Value::Text(name)) => service = Some(name),
                ("db.name", Value::Text(name)) => database = Some(name),
                _ => {}
            }
        }
        // Of a server span it is its own address.
        if !matches!(span.kind, Kind::Client | Kind::Producer) {
            server = (None, None);
        }
        // The path of a Unix socket is no address to Zipkin.
        let ip = |(text, port): (Option<&str>, Option<i64>)| {
            let address = text?.parse::<IpAddr>().ok()?;
            Some((address, port))
        };
        let host = server.0.filter(|_| ip(server).is_none());
        let names = [told, service, host, database];
        let name = names.into_iter().flatten().find(|name| !name.is_empty());
        let (address, port) = match ip(peer).or_else(|| ip(server)) {
            Some((address, port)) => (Some(address), port),
            None => (None, server.1.filter(|_| host.is_some())),
        };
        let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        Self { name, address, port }
    }
}

/// An event in one text, with its attributes as JSON behind its name.
fn annotation(event: &SpanEvent) -> String {
    // An annotation must say something.
    let name = if event.name.is_empty() { "event" } else { &event.name };
    if event.attributes.is_empty() {
        return name.to_owned();
    }
    let mut out = Vec::new();
    Json::new(&mut out).text(name);
    out.extend_from_slice(b": ");
    Json::new(&mut out).object(|json| {
        event.attributes.iter().for_each(|(key, value)| tag(json, key, value));
    });
    String::from_utf8_lossy(&out).into_owned()
}

/// Tags that are told once, from something else than an attribute. The presence of `error` alone,
/// even empty, means an error to Zipkin.
pub(super) const RESERVED: [&str; 4] =
    ["error", "otel.status_code", "otel.scope.name", "otel.scope.version"];

/// Tags are text (OpenTelemetry specification, "AnyValue representation for non-OTLP protocols").
fn tag(json: &mut Json<'_>, key: &str, value: Value<'_>) {
    if RESERVED.contains(&key) {
        return;
    }
    json.key(key);
    match value {
        Value::Text(text) => json.text(text),
        Value::Int(number) => json.display(number),
        Value::Bool(truth) => json.display(truth),
        Value::Bytes(bytes) => json.base64(bytes),
        Value::Double(number) if number.is_finite() => json.display(format_args!("{number:?}")),
        Value::Double(number) => json.double(number),
        Value::Texts(texts) => {
            let mut list = Vec::new();
            Json::new(&mut list).array(texts.iter(), |json, text| json.text(text));
            json.text(&String::from_utf8_lossy(&list));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::attributes::Attributes;
    use crate::span::model::{SpanId, TraceId, UnixNs};

    fn json(kind: Kind, fill: impl FnOnce(&mut Attributes)) -> serde_json::Value {
        let mut attributes = Attributes::default();
        attributes.text("service.name", "shop");
        attributes.text("host.name", "h");
        attributes.text("os.type", "linux");
        let resource = Resource { attributes, service_name: "shop".to_owned() };
        let mut span = Span {
            resource: Arc::new(resource),
            trace_id: TraceId([0xab; 16]),
            span_id: SpanId([1; 8]),
            parent: None,
            trace_state: String::new(),
            trace_flags: 0,
            kind,
            name: "GET".into(),
            start: UnixNs(1_999),
            end: UnixNs(1_999),
            attributes: Attributes::default(),
            events: Vec::new(),
            links: Vec::new(),
            status: StatusCode::Unset,
            status_message: String::new(),
        };
        fill(&mut span.attributes);
        let posted: serde_json::Value =
            serde_json::from_slice(&encode([&span, &span].into_iter())).expect("JSON");
        assert_eq!(posted[0], posted[1]);
        posted[0].clone()
    }

    #[test]
    fn a_span_of_no_length_lasts_a_microsecond() {
        let span = json(Kind::Internal, |_| {});
        assert_eq!((&span["timestamp"], &span["duration"]), (&1.into(), &1.into()));
        assert_eq!((&span["kind"], &span["remoteEndpoint"]), (&().into(), &().into()));
        assert_eq!(span["traceId"], "abababababababababababababababab");
        assert_eq!(span["tags"]["host.name"], "h");
        assert_eq!(span["tags"].as_object().map(serde_json::Map::len), Some(4), "{span}");
    }

    #[test]
    fn the_span_has_the_last_word_and_an_error_is_no_attribute() {
        let span = json(Kind::Server, |list| {
            list.text("host.name", "the span's");
            list.bool("error", false);
        });
        assert_eq!(span["tags"]["host.name"], "the span's");
        assert_eq!(span["tags"]["os.type"], "linux");
        assert_eq!(span["tags"]["error"], serde_json::Value::Null);
    }

    #[test]
    fn the_other_end_is_only_what_zipkin_takes_for_one() {
        let none = serde_json::Value::Null;
        for (kind, server, peer, port, expected) in [
            (Kind::Client, "api.example", "192.0.2.7", 443, "api.example 192.0.2.7 443"),
            (Kind::Client, "192.0.2.7", "", 0, " 192.0.2.7 8080"),
            (Kind::Client, "api.example", "/run/a.sock", 0, "api.example  8080"),
            (Kind::Server, "own.example", "2001:db8::7", 1 << 40, " 2001:db8::7 "),
            (Kind::Server, "own.example", "", 0, ""),
        ] {
            let span = json(kind, |list| {
                list.text("server.address", server);
                list.int("server.port", 8080);
                list.text("network.peer.address", peer);
                list.int("network.peer.port", port);
            });
            let remote = &span["remoteEndpoint"];
            let text = |key: &str| remote[key].as_str().unwrap_or_default();
            let port = remote["port"].as_i64().map(|port| port.to_string()).unwrap_or_default();
            let said = format!("{} {}{} {port}", text("serviceName"), text("ipv4"), text("ipv6"));
            let said = if *remote == none { "" } else { &said };
            assert_eq!(said, expected, "{span}");
        }
    }
}
