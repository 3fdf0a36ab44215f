//! One OTLP request over HTTP or gRPC, and what the answer means.
//!
//! gRPC is spoken by hand over the same HTTP client: a unary call is a POST with a five-byte frame
//! and a status in the trailers (gRPC over HTTP/2), too little for a framework.

use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::BodyExt;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use reqwest::{Certificate, Client, Identity, StatusCode};

use super::config::{Config, ConfigError, Protocol};
use super::encode::{Encoded, message};
use super::json;
use crate::export::body::Pieces;
use crate::export::client::{self, chain};
use crate::export::queue::Batch;
use crate::export::remote::{self, Body};
use crate::export::request::{Part, Request};
use crate::export::retry::{Verdict, is_about_size, retry_after};
use crate::span::redact;

/// Most bytes of an answer that are read.
const ANSWER_MAX: usize = 64 << 10;

/// How long an open gRPC call is silent before the other end is asked whether it is there, and how
/// long it may take to say so.
const PING: Duration = Duration::from_secs(4);

/// A client of one destination.
pub(crate) struct Sender {
    config: Config,
    client: Client,
    headers: HeaderMap,
}

impl Sender {
    pub(crate) fn new(config: Config) -> Result<Self, ConfigError> {
        let client = build(&config)?;
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let wrong = || ConfigError::Value {
                name: "an OTLP header".to_owned(),
                value: name.clone(),
                expected: "a valid HTTP header name and value",
            };
            let name = HeaderName::try_from(name).map_err(|_| wrong())?;
            let mut value = HeaderValue::try_from(value).map_err(|_| wrong())?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let kind = match config.protocol {
            Protocol::Grpc => "application/grpc",
            Protocol::HttpProtobuf => "application/x-protobuf",
            Protocol::HttpJson => "application/json",
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if config.protocol == Protocol::Grpc {
            headers.insert(TE, HeaderValue::from_static("trailers"));
            if config.gzip {
                let name = HeaderName::from_static("grpc-encoding");
                headers.insert(name, HeaderValue::from_static("gzip"));
            }
        } else if config.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(Self { config, client, headers })
    }

    /// What is sent of a message: compressed if that is wanted, behind gRPC's frame if that is spoken.
    fn framed(&self, plain: Pieces) -> Body {
        let plain_bytes = plain.len();
        let is_grpc = self.config.protocol == Protocol::Grpc;
        if !is_grpc && !self.config.gzip {
            return Body { pieces: plain, plain_bytes };
        }
        // Whether the message is compressed, and its length.
        let frame = if is_grpc { 5 } else { 0 };
        // Compressed it is about a tenth; room that is not used is not touched either.
        let mut body = Vec::with_capacity(frame + plain_bytes);
        body.resize(frame, 0);
        if self.config.gzip {
            body = gzip(&plain, body);
        } else {
            plain.iter().for_each(|piece| body.extend_from_slice(piece));
        }
        let length = (body.len() - frame) as u32;
        if let Some((compressed, rest)) = body.get_mut(..frame).and_then(<[u8]>::split_first_mut) {
            *compressed = u8::from(self.config.gzip);
            rest.copy_from_slice(&length.to_be_bytes());
        }
        Body { pieces: body.into(), plain_bytes }
    }

    fn post(&self, body: Pieces) -> Pin<Box<dyn Future<Output = Verdict>>> {
        let request = self.client.post(self.config.url.clone()).headers(self.headers.clone());
        Box::pin(attempt(request.body(body.into_body()), self.config.protocol))
    }
}

/// gRPC servers take 4 MiB by default, after decompression; HTTP ones mostly more.
const PLAIN_BYTES_MAX: usize = 4_000_000;

/// Protobuf, over HTTP or gRPC.
impl remote::Protocol<Arc<Encoded>> for Sender {
    fn plain_bytes_max(&self) -> usize {
        PLAIN_BYTES_MAX
    }

    fn body(&mut self, request: &Request<Arc<Encoded>>) -> Body {
        let parts = request.parts().iter().map(Part::batch);
        self.framed(message(parts.map(|(batch, spans)| (&**batch, spans))))
    }

    fn attempt(&self, body: Pieces) -> Pin<Box<dyn Future<Output = Verdict>>> {
        self.post(body)
    }
}

/// JSON.
impl remote::Protocol<Batch> for Sender {
    fn plain_bytes_max(&self) -> usize {
        PLAIN_BYTES_MAX
    }

    fn body(&mut self, request: &Request<Batch>) -> Body {
        let mut json = Vec::new();
        json::encode(request.spans(), &mut json);
        self.framed(json.into())
    }

    fn attempt(&self, body: Pieces) -> Pin<Box<dyn Future<Output = Verdict>>> {
        self.post(body)
    }
}

/// Sends a request once and reads the answer.
async fn attempt(request: reqwest::RequestBuilder, protocol: Protocol) -> Verdict {
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => return Verdict::Later { after: None, reason: chain(&error.without_url()) },
    };
    let status = response.status();
    let headers = response.headers().clone();
    let mut body = http_body_util::Limited::new(reqwest::Body::from(response), ANSWER_MAX);
    let mut answer = Vec::new();
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => match frame.into_data() {
                Ok(data) => answer.extend_from_slice(&data),
                Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
            },
            Err(error) if status.is_success() && protocol == Protocol::Grpc => {
                return Verdict::Later { after: None, reason: chain(&*error) };
            }
            // The status line has said what matters.
            Err(_) => break,
        }
    }
    if protocol == Protocol::Grpc {
        grpc_verdict(status, &headers, &trailers, &answer)
    } else {
        http_verdict(status, &headers, &answer, protocol)
    }
}

fn build(config: &Config) -> Result<Client, ConfigError> {
    let mut builder = client::builder(&config.url, config.timeout);
    if config.protocol == Protocol::Grpc {
        // While a call is open, so that a dead connection is not used for ever; idle ones are left
        // in peace.
        builder = builder
            .http2_keep_alive_interval(PING)
            .http2_keep_alive_timeout(PING)
            .http2_keep_alive_while_idle(false);
        if config.url.scheme() == "http" {
            builder = builder.http2_prior_knowledge();
        }
    } else {
        builder = builder.http1_only();
    }
    if let Some(path) = &config.certificate {
        let name = "OTEL_EXPORTER_OTLP_CERTIFICATE";
        let wrong = |source| ConfigError::File { name, path: path.clone(), source };
        let pem = std::fs::read(path).map_err(|error| wrong(error.into()))?;
        let trusted = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(error.into()))?;
        builder = builder.tls_certs_only(trusted);
    }
    if let Some((certificate, key)) = &config.client {
        let name = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE";
        let wrong = |source| ConfigError::File { name, path: certificate.clone(), source };
        let mut pem = std::fs::read(certificate).map_err(|error| wrong(error.into()))?;
        pem.extend(std::fs::read(key).map_err(|error| wrong(error.into()))?);
        let identity = Identity::from_pem(&pem).map_err(|error| wrong(error.into()))?;
        builder = builder.identity(identity);
    }
    builder.build().map_err(|error| ConfigError::Url {
        url: redact::url(config.url.as_str()),
        what: "an OTLP endpoint",
        reason: chain(&error),
        example: "http://localhost:4318",
    })
}

/// OTLP/HTTP: 429, 502, 503 and 504 may be retried, nothing else.
fn http_verdict(
    status: StatusCode,
    headers: &HeaderMap,
    answer: &[u8],
    protocol: Protocol,
) -> Verdict {
    if status.is_success() {
        let partial = match protocol {
            Protocol::HttpJson => partial_success_json(answer),
            _ => partial_success(answer),
        };
        return taken(partial);
    }
    let text = String::from_utf8_lossy(answer);
    let reason = format!("{status}: {}", text.trim().chars().take(200).collect::<String>());
    match status.as_u16() {
        429 | 502..=504 => {
            let after = headers.get("retry-after").and_then(|value| value.to_str().ok());
            let after = after.and_then(|value| retry_after(value, SystemTime::now()));
            Verdict::Later { after, reason }
        }
        413 => Verdict::TooLarge { reason },
        // What Go's servers answer to a request that is larger than they read.
        400 if is_about_size(&text) => Verdict::TooLarge { reason },
        300..=399 => Verdict::Refused { reason: format!("{status}: redirects are not followed") },
        _ => Verdict::Refused { reason },
    }
}

/// OTLP/gRPC: the codes that may be retried; RESOURCE_EXHAUSTED only with RetryInfo.
fn grpc_verdict(
    status: StatusCode,
    headers: &HeaderMap,
    trailers: &HeaderMap,
    answer: &[u8],
) -> Verdict {
    // An answer without a body has its status among the headers.
    let text = |name: &str| {
        let value = trailers.get(name).or_else(|| headers.get(name))?;
        value.to_str().ok()
    };
    let message = text("grpc-message").unwrap_or_default();
    let Some(code) = text("grpc-status").and_then(|code| code.parse::<u32>().ok()) else {
        // Not a gRPC server, or a proxy before it (gRPC: "HTTP to gRPC status code mapping").
        let reason = format!("no grpc-status, HTTP {status}: is this a gRPC endpoint?");
        return match status.as_u16() {
            429 | 502..=504 => Verdict::Later { after: None, reason },
            _ => Verdict::Refused { reason },
        };
    };
    let reason = format!("gRPC status {code}: {message}");
    match code {
        0 => taken(partial_success(answer.get(5..).unwrap_or_default())),
        8 | 11 if is_about_size(message) => Verdict::TooLarge { reason },
        1 | 4 | 10 | 11 | 14 | 15 => {
            Verdict::Later { after: text("grpc-status-details-bin").and_then(retry_info), reason }
        }
        8 => match text("grpc-status-details-bin").and_then(retry_info) {
            Some(after) => Verdict::Later { after: Some(after), reason },
            None => Verdict::Refused { reason },
        },
        _ => Verdict::Refused { reason },
    }
}

fn taken((rejected, message): (u64, String)) -> Verdict {
    Verdict::Taken { rejected, message }
}

/// `ExportTraceServiceResponse.partial_success` (field 1): rejected spans (1), message (2). An
/// answer that is none is a plain success: the request was taken.
fn partial_success(answer: &[u8]) -> (u64, String) {
    let mut rejected = 0;
    let mut message = String::new();
    for (field, value) in Fields(answer) {
        if let (1, Field::Bytes(partial)) = (field, value) {
            for (field, value) in Fields(partial) {
                match (field, value) {
                    (1, Field::Varint(count)) => rejected = not_negative(count),
                    (2, Field::Bytes(text)) => message = String::from_utf8_lossy(text).into_owned(),
                    _ => {}
                }
            }
        }
    }
    (rejected, message)
}

fn partial_success_json(answer: &[u8]) -> (u64, String) {
    let answer: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
    let partial = answer.get("partialSuccess");
    let field = |name: &str| partial.and_then(|partial| partial.get(name));
    let rejected = field("rejectedSpans").and_then(|count| match count {
        serde_json::Value::String(text) => text.parse().ok(),
        number => number.as_u64(),
    });
    let message = field("errorMessage").and_then(|text| text.as_str()).unwrap_or_default();
    (rejected.unwrap_or(0), message.to_owned())
}

/// `google.rpc.Status` with a `google.rpc.RetryInfo` among its details, in base64.
fn retry_info(header: &str) -> Option<Duration> {
    let status = base64(header)?;
    for (field, value) in Fields(&status) {
        let (3, Field::Bytes(any)) = (field, value) else { continue };
        let bytes = |wanted: u64| {
            Fields(any).find_map(|(field, value)| match value {
                Field::Bytes(bytes) if field == wanted => Some(bytes),
                _ => None,
            })
        };
        if !bytes(1)?.ends_with(b"google.rpc.RetryInfo") {
            continue;
        }
        let (mut seconds, mut nanos) = (0, 0);
        for (field, value) in Fields(bytes(2)?) {
            let (1, Field::Bytes(delay)) = (field, value) else { continue };
            for (field, value) in Fields(delay) {
                match (field, value) {
                    (1, Field::Varint(value)) => seconds = not_negative(value),
                    (2, Field::Varint(value)) => nanos = not_negative(value),
                    _ => {}
                }
            }
        }
        return Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos)));
    }
    None
}

/// An int64; where fewer than none is nonsense, none.
fn not_negative(value: u64) -> u64 {
    u64::try_from(value as i64).unwrap_or(0)
}

/// The fields of a protobuf message; ends at the first malformed one.
struct Fields<'a>(&'a [u8]);

enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Field<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => self.take(8).map(|_| Field::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Field::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Field::Fixed)?,
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }
}

/// Base64 with or without padding, as gRPC's binary headers are.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut word, mut bits) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        word = (word << 6) | u32::from(digit);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
        }
    }
    Some(bytes)
}

/// Appends `plain` to `out`, compressed.
fn gzip(plain: &Pieces, out: Vec<u8>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(out, Compression::fast());
    // Writing to a Vec cannot fail.
    plain.iter().for_each(|piece| drop(encoder.write_all(piece)));
    encoder.finish().unwrap_or_default()
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use judged::{judge_grpc, judge_http};

/// Answers from anybody, for fuzzers.
#[cfg(any(test, feature = "fuzzing"))]
mod judged {
    use super::*;

    /// Headers up to an empty line, then the body.
    pub(crate) fn answer(bytes: &[u8]) -> (HeaderMap, &[u8]) {
        let mut headers = HeaderMap::new();
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, behind) = rest.split_at(at);
            rest = behind.get(1..).unwrap_or_default();
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { break };
            let (name, value) = line.split_at(colon);
            let value = value.get(1..).unwrap_or_default();
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                headers.append(name, value);
            }
        }
        (headers, rest)
    }

    fn check(verdict: &Verdict, is_retryable: bool) {
        let later = matches!(verdict, Verdict::Later { .. });
        assert!(!later || is_retryable, "asked again for no reason: {verdict:?}");
    }

    pub(crate) fn judge_http(status: u16, bytes: &[u8], protocol: Protocol) {
        let (headers, body) = answer(bytes);
        let Ok(status) = StatusCode::from_u16(status) else { return };
        let verdict = http_verdict(status, &headers, body, protocol);
        check(&verdict, matches!(status.as_u16(), 429 | 502..=504));
        assert_eq!(status.is_success(), matches!(verdict, Verdict::Taken { .. }));
    }

    pub(crate) fn judge_grpc(status: u16, bytes: &[u8]) {
        let (trailers, body) = answer(bytes);
        let Ok(status) = StatusCode::from_u16(status) else { return };
        let verdict = grpc_verdict(status, &HeaderMap::new(), &trailers, body);
        let code = trailers.get("grpc-status").and_then(|code| code.to_str().ok()?.parse().ok());
        check(
            &verdict,
            match code {
                Some(code) => matches!(code, 1u32 | 4 | 8 | 10 | 11 | 14 | 15),
                None => matches!(status.as_u16(), 429 | 502..=504),
            },
        );
    }
}

#[cfg(test)]
mod tests;
