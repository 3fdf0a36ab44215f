//! Zipkin v2: spans as JSON, posted to `/api/v2/spans`.
//!
//! Mapping: OpenTelemetry specification, "OpenTelemetry to Zipkin transformation".

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::BodyExt;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, StatusCode, Url};

use super::client::{self, chain};
use super::group::{SCOPE_NAME, SCOPE_VERSION};
use super::json::Json;
use super::otlp::config::ConfigError;
use super::remote::{self, Body};
use super::retry::{Verdict, retry_after};
use crate::span::attributes::Value;
use crate::span::model::{self, Kind, Span, SpanEvent};

/// The path that a URL without one gets.
const PATH: &str = "/api/v2/spans";

/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of an answer that are read.
const ANSWER_MAX: usize = 64 << 10;

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
        let client = client::builder(&url, TIMEOUT).http1_only().build();
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
}

impl remote::Protocol for Sender {
    /// Zipkin takes 10 MiB.
    fn plain_bytes_max(&self) -> usize {
        5_000_000
    }

    fn encode(&mut self, spans: &mut dyn Iterator<Item = &Span>) -> Body {
        let mut body = Vec::new();
        Json::new(&mut body).array(spans, |json, span| json.object(|json| encode_span(json, span)));
        Body { plain_bytes: body.len(), bytes: body.into() }
    }

    fn attempt(&self, body: Bytes) -> Pin<Box<dyn Future<Output = Verdict>>> {
        let json = HeaderValue::from_static("application/json");
        let request = self.client.post(self.url.clone()).header(CONTENT_TYPE, json);
        Box::pin(attempt(request.body(body)))
    }
}

/// Sends a request once and reads the answer.
async fn attempt(request: reqwest::RequestBuilder) -> Verdict {
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => return Verdict::Later { after: None, reason: chain(&error.without_url()) },
    };
    let status = response.status();
    let after = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
    let after = after.and_then(|value| retry_after(value, SystemTime::now()));
    // Read to its end, so that the connection can be used again.
    let body = http_body_util::Limited::new(reqwest::Body::from(response), ANSWER_MAX);
    let answer = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    verdict(status, after, &String::from_utf8_lossy(&answer))
}

/// What an answer means.
fn verdict(status: StatusCode, after: Option<Duration>, answer: &str) -> Verdict {
    if status.is_success() {
        return Verdict::Taken { rejected: 0, message: String::new() };
    }
    let answer = answer.trim();
    let reason = format!("{status}: {}", answer.chars().take(200).collect::<String>());
    match status.as_u16() {
        // A Zipkin whose storage is overloaded answers 429 or 503.
        429 | 502..=504 => Verdict::Later { after, reason },
        413 => Verdict::TooLarge { reason },
        // So does Zipkin's server say it.
        500 if answer.starts_with("413") => Verdict::TooLarge { reason },
        300..=399 => Verdict::Refused { reason: format!("{status}: redirects are not followed") },
        _ => Verdict::Refused { reason },
    }
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
    json.key("tags").object(|json| tags(json, span));
}

fn tags(json: &mut Json<'_>, span: &Span) {
    // A key that stands twice would be the resource's to Zipkin.
    let resource = span
        .resource
        .attributes
        .iter()
        .filter(|(key, _)| *key != "service.name" && span.attributes.get(key).is_none());
    for (key, value) in span.attributes.iter().chain(resource) {
        // The presence of an `error` tag alone means an error to Zipkin.
        if key != "error" {
            json.key(key).text(&text(value));
        }
    }
    json.key("otel.scope.name").text(SCOPE_NAME);
    json.key("otel.scope.version").text(SCOPE_VERSION);
    match span.status {
        model::StatusCode::Unset => {}
        model::StatusCode::Ok => json.key("otel.status_code").text("OK"),
        model::StatusCode::Error => {
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
        let text = |key: &str| match span.attributes.get(key) {
            Some(Value::Text(text)) if !text.is_empty() => Some(text),
            _ => None,
        };
        let port = |key: &str| match span.attributes.get(key) {
            Some(Value::Int(port)) => u16::try_from(port).ok().filter(|port| *port > 0),
            _ => None,
        };
        // Of a server span it is its own address.
        let is_caller = matches!(span.kind, Kind::Client | Kind::Producer);
        let asked = text("server.address").filter(|_| is_caller);
        let asked_address = asked.and_then(|asked| asked.parse::<IpAddr>().ok());
        // The path of a Unix socket is no address to Zipkin.
        let peer = text("network.peer.address").and_then(|address| address.parse::<IpAddr>().ok());
        let host = asked.filter(|_| asked_address.is_none());
        let name = text("service.peer.name").or_else(|| text("peer.service")).or(host);
        let name = name.or_else(|| text("db.name"));
        match (peer, asked_address) {
            (Some(peer), _) => Self { name, address: Some(peer), port: port("network.peer.port") },
            (None, Some(asked)) => Self { name, address: Some(asked), port: port("server.port") },
            (None, None) => {
                let port = host.and_then(|_| port("server.port"));
                Self { name, address: None, port }
            }
        }
    }
}

/// An event in one text, with its attributes as JSON behind its name.
fn annotation(event: &SpanEvent) -> String {
    if event.attributes.is_empty() {
        return event.name.clone();
    }
    let mut out = Vec::new();
    let mut json = Json::new(&mut out);
    json.text(&event.name);
    out.extend_from_slice(b": ");
    Json::new(&mut out).object(|json| {
        for (key, value) in event.attributes.iter() {
            json.key(key).text(&text(value));
        }
    });
    String::from_utf8_lossy(&out).into_owned()
}

/// Tags are text (OpenTelemetry specification, "AnyValue representation for non-OTLP protocols").
fn text(value: Value<'_>) -> String {
    let json = |write: &dyn Fn(&mut Json<'_>)| {
        let mut out = Vec::new();
        write(&mut Json::new(&mut out));
        String::from_utf8_lossy(&out).into_owned()
    };
    match value {
        Value::Text(text) => text.to_owned(),
        Value::Int(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Texts(texts) => json(&|json| json.array(texts.iter(), |json, text| json.text(text))),
        // These JSON puts into quotes, which are not part of the text.
        Value::Double(number) => json(&|json| json.double(number)).replace('"', ""),
        Value::Bytes(bytes) => json(&|json| json.base64(bytes)).replace('"', ""),
    }
}
