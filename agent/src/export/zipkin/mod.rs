//! Zipkin v2: spans as JSON, posted to `/api/v2/spans`.
//!
//! Mapping: OpenTelemetry specification, "OpenTelemetry to Zipkin transformation".

use std::time::{Duration, SystemTime};

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Url};

use super::group::{SCOPE_NAME, SCOPE_VERSION};
use super::json::Json;
use super::otlp::config::ConfigError;
use super::otlp::send::chain;
use super::queue::Batch;
use super::retry::{Verdict, retry_after};
use crate::span::attributes::{Attributes, Value};
use crate::span::model::{Kind, Span, StatusCode};

/// The path that a URL without one gets.
const PATH: &str = "/api/v2/spans";

/// Checks a `--zipkin` URL and adds the path if it has none.
pub fn parse_url(text: &str) -> Result<Url, ConfigError> {
    let wrong = |reason: String| ConfigError::Url {
        url: text.to_owned(),
        what: "a Zipkin endpoint",
        reason,
        example: "http://localhost:9411",
    };
    let mut url = Url::parse(text).map_err(|error| wrong(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("the scheme is none of http, https".to_owned()));
    }
    if matches!(url.path(), "" | "/") {
        url.set_path(PATH);
    }
    Ok(url)
}

/// A client of one Zipkin server.
pub(super) struct Sender {
    url: Url,
    client: Client,
}

impl Sender {
    pub(super) fn new(url: Url) -> Result<Self, ConfigError> {
        let client = Client::builder()
            .user_agent(concat!("remora/", env!("CARGO_PKG_VERSION")))
            .timeout(Duration::from_secs(10))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            .hickory_dns(true)
            .build();
        match client {
            Ok(client) => Ok(Self { url, client }),
            Err(error) => Err(ConfigError::Url {
                url: url.to_string(),
                what: "a Zipkin endpoint",
                reason: chain(&error),
                example: "http://localhost:9411",
            }),
        }
    }

    pub(super) async fn attempt(&self, body: Vec<u8>) -> Verdict {
        let json = HeaderValue::from_static("application/json");
        let request = self.client.post(self.url.clone()).header(CONTENT_TYPE, json);
        let response = match request.body(body).send().await {
            Ok(response) => response,
            Err(error) => return Verdict::Later { after: None, reason: chain(&error) },
        };
        let status = response.status();
        if status.is_success() {
            return Verdict::Taken { rejected: 0, message: String::new() };
        }
        let after = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let after = after.and_then(|value| retry_after(value, SystemTime::now()));
        let reason = format!("{status}");
        match status.as_u16() {
            // A Zipkin whose storage is overloaded answers 429 or 503; 500 may be a post too large.
            429 | 502..=504 => Verdict::Later { after, reason },
            _ => Verdict::Refused { reason },
        }
    }
}

/// The body of a post.
pub(super) fn encode(batches: &[Batch]) -> Vec<u8> {
    let mut body = Vec::new();
    let spans = batches.iter().flat_map(|batch| batch.iter());
    Json::new(&mut body).array(spans, |json, span| json.object(|json| encode_span(json, span)));
    body
}

fn encode_span(json: &mut Json<'_>, span: &Span) {
    json.key("traceId").display(span.trace_id);
    json.key("id").display(span.span_id);
    if let Some(parent) = &span.parent {
        json.key("parentId").display(parent.span_id);
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
    if let Some((name, address, port)) = remote_endpoint(&span.attributes) {
        json.key("remoteEndpoint").object(|json| {
            if let Some(name) = name {
                json.key("serviceName").text(name);
            }
            if let Some(address) = address {
                json.key(if address.contains(':') { "ipv6" } else { "ipv4" }).text(address);
            }
            if let Some(port) = port {
                json.key("port").number(port);
            }
        });
    }
    if !span.events.is_empty() {
        json.key("annotations").array(span.events.iter(), |json, event| {
            json.object(|json| {
                json.key("timestamp").number(event.time.0 / 1000);
                json.key("value").text(&annotation(&event.name, &event.attributes));
            });
        });
    }
    json.key("tags").object(|json| tags(json, span));
}

fn tags(json: &mut Json<'_>, span: &Span) {
    let resource = span.resource.attributes.iter().filter(|(key, _)| *key != "service.name");
    for (key, value) in span.attributes.iter().chain(resource) {
        // The presence of an `error` tag alone means an error to Zipkin.
        if key != "error" {
            json.key(key).text(&text(value));
        }
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

/// Name, address and port of the other end, as far as attributes tell.
fn remote_endpoint(attributes: &Attributes) -> Option<(Option<&str>, Option<&str>, Option<i64>)> {
    let text = |key: &str| match attributes.get(key) {
        Some(Value::Text(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    let name = text("service.peer.name").or_else(|| text("peer.service"));
    let address = text("network.peer.address");
    let port = match attributes.get("network.peer.port") {
        Some(Value::Int(port)) => Some(port),
        _ => None,
    };
    (name.is_some() || address.is_some()).then_some((name, address, port))
}

fn annotation(name: &str, attributes: &Attributes) -> String {
    if attributes.is_empty() {
        return name.to_owned();
    }
    let pairs: Vec<_> =
        attributes.iter().map(|(key, value)| format!("{key}={}", text(value))).collect();
    format!("{name} {}", pairs.join(" "))
}

/// Tags are strings.
fn text(value: Value<'_>) -> String {
    match value {
        Value::Text(text) => text.to_owned(),
        Value::Int(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        Value::Texts(texts) => {
            let mut out = Vec::new();
            Json::new(&mut out).array(texts.iter(), |json, text| json.text(text));
            String::from_utf8_lossy(&out).into_owned()
        }
    }
}
