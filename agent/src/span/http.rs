//! What an HTTP exchange says, by the OpenTelemetry semantic conventions (1.44).
//!
//! Names are `{method}`: a route is never guessed from a path. Credentials are redacted here,
//! before anything is kept.

use std::borrow::Cow;
use std::net::SocketAddr;

use super::attributes::{Attributes, Value};
use super::model::{Kind, Name, StatusCode};
use super::redact::{self, REDACTED};
use super::standing::{Sayings, Standing, Words};
use crate::protocol::{End, Header, RequestHead, ResponseHead};

/// Bounds of text that a peer chooses, in bytes.
const URL_MAX: usize = 2048;
pub(super) const TEXT_MAX: usize = 512;

/// Most values of one header that are told, for a peer may repeat it as often as a head has room.
const VALUES_MAX: usize = 16;

/// The two ends of a connection; `None` for a Unix socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    /// The traced process's end.
    pub local: Option<SocketAddr>,
    /// The other end.
    pub peer: Option<SocketAddr>,
}

/// The connection that a request is made over.
pub struct About<'a> {
    /// Tells its ends, where they are needed.
    pub ends: &'a dyn Fn() -> Ends,
    /// What is remembered of it.
    pub standing: &'a mut Standing,
    /// What is remembered of all.
    pub sayings: &'a mut Sayings,
}

/// Headers that a user asked to record, lower case.
#[derive(Clone, Debug, Default)]
pub struct HeaderCapture {
    /// Of requests.
    pub request: Vec<String>,
    /// Of responses.
    pub response: Vec<String>,
}

/// Headers whose values are credentials: recorded as [`REDACTED`] only.
const SECRET_HEADERS: [&str; 7] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
    "x-api-key",
    "x-auth-token",
    "x-amz-security-token",
];

/// Headers whose values are URLs, which lose what secrets they carry.
const URL_HEADERS: [&str; 3] = ["content-location", "location", "referer"];

/// The methods that the conventions know by name.
const METHODS: [&str; 10] =
    ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE", "QUERY"];

/// Adds what a request's head says; returns the span's name.
pub fn request(
    attributes: &mut Attributes,
    kind: Kind,
    head: &RequestHead<'_>,
    about: About<'_>,
    capture: &HeaderCapture,
) -> Name {
    let known = METHODS.iter().find(|method| **method == head.method);
    match known {
        Some(method) => attributes.text("http.request.method", method),
        None => {
            attributes.text("http.request.method", "_OTHER");
            attributes.text("http.request.method_original", cut(head.method, TEXT_MAX));
        }
    }
    let target = Target::parse(head);
    let (path, query) = match split_once(target.path, b'?') {
        Some((path, query)) => (path, Some(redact::query(cut(query, URL_MAX)))),
        None => (target.path, None),
    };
    let path = redact::path(cut(path, URL_MAX));
    let (host, agent) = host_and_agent(head.headers);
    let words = Words {
        kind,
        minor_version: head.minor_version,
        scheme: target.scheme,
        authority: target.host,
        host: host.filter(|_| target.host.is_none()),
        agent,
    };
    about.standing.learn(&words, about.ends, about.sayings);
    let standing = &*about.standing;
    if kind == Kind::Client {
        let authority = standing.host().map(Cow::Borrowed);
        let authority =
            authority.or_else(|| (about.ends)().peer.map(|peer| Cow::Owned(peer.to_string())));
        let authority = authority.unwrap_or(Cow::Borrowed("localhost"));
        let path = if path == "*" { "" } else { path.as_ref() };
        let (mark, query) = query.as_deref().map_or(("", ""), |query| ("?", query));
        attributes.concat("url.full", &[standing.scheme(), "://", &authority, path, mark, query]);
    } else {
        attributes.text("url.path", &path);
        if let Some(query) = &query {
            attributes.text("url.query", query);
        }
    }
    standing.tell(attributes);
    capture_headers(attributes, "http.request.header.", head.headers, &capture.request);
    known.map_or(Cow::Borrowed("HTTP"), |method| Cow::Borrowed(*method))
}

/// Adds what a response's head says. A number that can be no status code is not told as one.
pub fn response(attributes: &mut Attributes, head: &ResponseHead<'_>, capture: &HeaderCapture) {
    if head.status >= STATUS_LEAST {
        attributes.int("http.response.status_code", i64::from(head.status));
    }
    capture_headers(attributes, "http.response.header.", head.headers, &capture.response);
}

/// Least status code. Below it a response is to be taken for a server's error (RFC 9110, section 15);
/// so are those above 599, which some servers do use.
const STATUS_LEAST: u16 = 100;

/// Status and `error.type` of an exchange. A server's 4xx is its client's mistake, not its own.
///
/// `error.type` is the status code, or where there is no code to name `invalid_status` or
/// `connection_closed` (no response, or none to its end).
pub fn outcome(
    kind: Kind,
    status: Option<u16>,
    end: Option<End>,
) -> (StatusCode, Option<Cow<'static, str>>) {
    let fails = |status: u16| status >= if kind == Kind::Client { 400 } else { 500 };
    match (status, end) {
        (Some(..STATUS_LEAST), _) => (StatusCode::Error, Some(Cow::Borrowed("invalid_status"))),
        (Some(status), _) if fails(status) => {
            (StatusCode::Error, Some(Cow::Owned(status.to_string())))
        }
        (_, None | Some(End::Aborted)) => {
            (StatusCode::Error, Some(Cow::Borrowed("connection_closed")))
        }
        _ => (StatusCode::Unset, None),
    }
}

/// The parts of a request target (RFC 9112, section 3.2).
struct Target<'a> {
    scheme: Option<&'a str>,
    host: Option<&'a str>,
    path: &'a str,
}

impl<'a> Target<'a> {
    fn parse(head: &RequestHead<'a>) -> Self {
        let target = head.target;
        if head.method == "CONNECT" {
            return Self { scheme: None, host: Some(redact::authority(target)), path: "" };
        }
        if target.starts_with('/') {
            return Self { scheme: None, host: None, path: target };
        }
        match target.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) => {
                let at = rest.find(['/', '?']).unwrap_or(rest.len());
                let (authority, path) = rest.split_at_checked(at).unwrap_or((rest, ""));
                let host = Some(redact::authority(authority));
                Self { scheme: Some(scheme), host, path: if path.is_empty() { "/" } else { path } }
            }
            _ if target.starts_with(['*', '?']) => Self { scheme: None, host: None, path: target },
            // Like an authority, which this method should not be used with.
            _ => Self { scheme: None, host: None, path: redact::authority(target) },
        }
    }
}

/// As `str::split_once`, by a byte of ASCII's, which is found sooner than a character.
fn split_once(text: &str, at: u8) -> Option<(&str, &str)> {
    let place = memchr::memchr(at, text.as_bytes())?;
    Some((text.get(..place)?, text.get(place + 1..)?))
}

/// RFC 3986, section 3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// The first values of `Host` and `User-Agent`, as they are.
fn host_and_agent<'a>(headers: &[Header<'a>]) -> (Option<&'a [u8]>, Option<&'a [u8]>) {
    let (mut host, mut agent) = (None, None);
    for header in headers {
        // By their lengths, most are neither.
        match header.name.len() {
            4 if header.name.eq_ignore_ascii_case("host") => {
                host.get_or_insert(header.value);
            }
            10 if header.name.eq_ignore_ascii_case("user-agent") => {
                agent.get_or_insert(header.value);
            }
            _ => {}
        }
    }
    (host, agent)
}

fn capture_headers(
    attributes: &mut Attributes,
    prefix: &str,
    headers: &[Header<'_>],
    wanted: &[String],
) {
    for name in wanted {
        let values: Vec<String> = headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name))
            .take(VALUES_MAX)
            .map(|header| {
                let value = String::from_utf8_lossy(header.value);
                match name.as_str() {
                    name if SECRET_HEADERS.contains(&name) => REDACTED.to_owned(),
                    name if URL_HEADERS.contains(&name) => redact::url(cut(&value, TEXT_MAX)),
                    _ => cut(&value, TEXT_MAX).to_owned(),
                }
            })
            .collect();
        if !values.is_empty() {
            attributes.push(&format!("{prefix}{name}"), Value::texts(&values));
        }
    }
}

/// Host and port of an authority; IPv6 literals lose their brackets.
pub(super) fn split_host(authority: &str) -> (&str, Option<u16>) {
    if let Some(rest) = authority.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((host, port)) => (host, port.strip_prefix(':').and_then(|port| port.parse().ok())),
            None => (authority, None),
        };
    }
    match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()),
        None => (authority, None),
    }
}

/// The longest prefix of whole characters within `most` bytes.
pub(super) fn cut(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests;
