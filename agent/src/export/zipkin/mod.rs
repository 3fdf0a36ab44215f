//! Zipkin v2: spans as JSON, posted to `/api/v2/spans`.

mod encode;

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use http_body_util::BodyExt;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, StatusCode, Url};

use super::body::Pieces;
use super::client::{self, chain};
use super::otlp::config::ConfigError;
use super::queue::Batch;
use super::remote::{self, Body};
use super::request::Request;
use super::retry::{Verdict, retry_after};
use crate::span::redact;

/// The path that a URL without one gets.
const PATH: &str = "/api/v2/spans";

/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of an answer that are read.
const ANSWER_MAX: usize = 64 << 10;

/// Checks a `--zipkin` URL and adds the path if it has none.
pub fn parse_url(text: &str) -> Result<Url, ConfigError> {
    let wrong = |reason: String| ConfigError::Url {
        url: redact::url(text),
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
                url: redact::url(url.as_str()),
                what: "a Zipkin endpoint",
                reason: chain(&error),
                example: "http://localhost:9411",
            }),
        }
    }
}

impl remote::Protocol<Batch> for Sender {
    /// Zipkin takes 10 MiB.
    fn plain_bytes_max(&self) -> usize {
        5_000_000
    }

    fn body(&mut self, request: &Request<Batch>) -> Body {
        let body = encode::encode(request.spans());
        Body { plain_bytes: body.len(), pieces: body.into() }
    }

    fn attempt(&self, body: Pieces) -> Pin<Box<dyn Future<Output = Verdict>>> {
        let json = HeaderValue::from_static("application/json");
        let request = self.client.post(self.url.clone()).header(CONTENT_TYPE, json);
        Box::pin(attempt(request.body(body.into_body())))
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

/// An answer from anybody, for fuzzers.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn judge(status: u16, answer: &[u8]) {
    let Ok(status) = StatusCode::from_u16(status) else { return };
    let text = String::from_utf8_lossy(answer);
    let after = retry_after(text.lines().next().unwrap_or_default(), SystemTime::UNIX_EPOCH);
    let verdict = verdict(status, after, &text);
    assert_eq!(status.is_success(), matches!(verdict, Verdict::Taken { .. }));
}

#[cfg(test)]
mod tests;
