//! Where OTLP goes: from flags, and from the `OTEL_EXPORTER_OTLP_*` variables by the rules of the
//! OpenTelemetry specification ("OTLP exporter configuration").

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use crate::span::redact;

/// Why a destination cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not a URL.
    #[error("cannot use `{url}` as {what}: {reason}; write it like {example}")]
    Url {
        /// What was given.
        url: String,
        /// What it was given for.
        what: &'static str,
        /// What is wrong.
        reason: String,
        /// A right one.
        example: &'static str,
    },
    /// A variable or flag has a value that means nothing.
    #[error("cannot use `{value}` for {name}: expected {expected}")]
    Value {
        /// The variable or flag.
        name: String,
        /// What was given.
        value: String,
        /// What would do.
        expected: &'static str,
    },
    /// A certificate or key could not be read or used.
    #[error("cannot use {path} for {name}")]
    File {
        /// The variable.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// How OTLP is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC over HTTP/2.
    Grpc,
    /// Protobuf in HTTP POST.
    HttpProtobuf,
    /// JSON in HTTP POST.
    HttpJson,
}

impl Protocol {
    /// From the specification's words.
    pub fn parse(name: &str, value: &str) -> Result<Self, ConfigError> {
        match value {
            "grpc" => Ok(Self::Grpc),
            "http/protobuf" => Ok(Self::HttpProtobuf),
            "http/json" => Ok(Self::HttpJson),
            _ => Err(ConfigError::Value {
                name: name.to_owned(),
                value: value.to_owned(),
                expected: "grpc, http/protobuf or http/json",
            }),
        }
    }
}

/// A destination that speaks OTLP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The whole URL that requests are posted to.
    pub url: Url,
    /// How.
    pub protocol: Protocol,
    /// Headers to add.
    pub headers: Vec<(String, String)>,
    /// Whether requests are compressed with gzip.
    pub gzip: bool,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// PEM certificates to trust, and then no others; else those of this host.
    pub certificate: Option<PathBuf>,
    /// PEM certificate and key to present.
    pub client: Option<(PathBuf, PathBuf)>,
}

const EXAMPLE: &str = "http://localhost:4318 (HTTP) or grpc://localhost:4317 (gRPC)";

/// gRPC's method, as a path (gRPC over HTTP/2, "Requests").
const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// gRPC's port, where a `grpc://` URL names none.
const GRPC_PORT: u16 = 4317;

/// The path that a signal has by default below an OTLP/HTTP endpoint.
const HTTP_PATH: &str = "/v1/traces";

/// Options that a flag or a variable may set for every OTLP destination.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--otlp-protocol`.
    pub protocol: Option<Protocol>,
    /// `--otlp-header`.
    pub headers: Vec<(String, String)>,
    /// `--otlp-compression`.
    pub gzip: Option<bool>,
}

impl Config {
    /// From `--otlp URL`. `grpc://` and `grpcs://` mean gRPC, as does port 4317 where no protocol is
    /// named; an HTTP URL without a path gets OTLP's.
    pub fn from_url(
        url: &str,
        overrides: &Overrides,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        Self::build(url, false, overrides, &variable)
    }

    /// From the environment alone; `None` if it names no endpoint.
    pub fn from_environment(
        overrides: &Overrides,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ConfigError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        if let Some(url) = set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
            return Self::build(&url, true, overrides, &variable).map(Some);
        }
        match set("OTEL_EXPORTER_OTLP_ENDPOINT") {
            Some(url) => {
                // The general endpoint is a base: the signal's path is appended to its own.
                let mut config = Self::build(&url, true, overrides, &variable)?;
                if config.protocol != Protocol::Grpc {
                    let path = format!("{}{HTTP_PATH}", config.url.path().trim_end_matches('/'));
                    config.url.set_path(&path);
                }
                Ok(Some(config))
            }
            None => Ok(None),
        }
    }

    /// The collector that this host is thought to have where nothing says which (OpenTelemetry
    /// specification, "OpenTelemetry Protocol Exporter").
    pub fn local(
        overrides: &Overrides,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let config = Self::build("http://localhost:4318", false, overrides, &variable)?;
        match config.protocol {
            Protocol::Grpc => Self::build("http://localhost:4317", false, overrides, &variable),
            _ => Ok(config),
        }
    }

    fn build(
        text: &str,
        exact: bool,
        overrides: &Overrides,
        variable: &impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let option = |name: &str| {
            let read = |prefix: &str| {
                let name = format!("OTEL_EXPORTER_OTLP_{prefix}{name}");
                let value = variable(&name).filter(|value| !value.is_empty())?;
                Some((name, value))
            };
            read("TRACES_").or_else(|| read(""))
        };
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| wrong(text, "it has no scheme"))?;
        let (named_grpc, http_scheme) = match scheme {
            "grpc" => (true, "http"),
            "grpcs" => (true, "https"),
            "http" | "https" => (false, scheme),
            _ => return Err(wrong(text, "the scheme is none of http, https, grpc, grpcs")),
        };
        let mut url = parse(&format!("{http_scheme}://{rest}"))?;
        if named_grpc && !names_port(rest) {
            // Only a URL without a host has no place for a port.
            let _ = url.set_port(Some(GRPC_PORT));
        }
        let protocol = match (overrides.protocol, option("PROTOCOL")) {
            _ if named_grpc => Protocol::Grpc,
            (Some(protocol), _) => protocol,
            (None, Some((name, value))) => Protocol::parse(&name, &value)?,
            (None, None) if url.port() == Some(GRPC_PORT) => Protocol::Grpc,
            (None, None) => Protocol::HttpProtobuf,
        };
        match protocol {
            Protocol::Grpc => url.set_path(GRPC_PATH),
            _ if !exact && matches!(url.path(), "" | "/") => url.set_path(HTTP_PATH),
            _ => {}
        }
        let mut headers = match option("HEADERS") {
            Some((name, value)) => parse_headers(&name, &value)?,
            None => Vec::new(),
        };
        headers.extend(overrides.headers.iter().cloned());
        let gzip = match (overrides.gzip, option("COMPRESSION")) {
            (Some(gzip), _) => gzip,
            (None, Some((_, value))) if value == "gzip" => true,
            (None, None) => false,
            (None, Some((_, value))) if value == "none" => false,
            (None, Some((name, value))) => {
                return Err(ConfigError::Value { name, value, expected: "gzip or none" });
            }
        };
        let timeout = match option("TIMEOUT") {
            None => Duration::from_secs(10),
            Some((name, value)) => match value.parse() {
                Ok(millis) if millis > 0 => Duration::from_millis(millis),
                _ => {
                    let expected = "milliseconds above 0";
                    return Err(ConfigError::Value { name, value, expected });
                }
            },
        };
        let path = |name: &str| option(name).map(|(_, path)| PathBuf::from(path));
        let client = match (option("CLIENT_CERTIFICATE"), option("CLIENT_KEY")) {
            (Some((_, certificate)), Some((_, key))) => Some((certificate.into(), key.into())),
            (None, None) => None,
            (Some((name, value)), None) | (None, Some((name, value))) => {
                let expected = "a client's certificate and its key, or neither";
                return Err(ConfigError::Value { name, value, expected });
            }
        };
        let certificate = path("CERTIFICATE");
        Ok(Self { url, protocol, headers, gzip, timeout, certificate, client })
    }
}

fn wrong(url: &str, reason: &str) -> ConfigError {
    let what = "an OTLP endpoint";
    ConfigError::Url { url: redact::url(url), what, reason: reason.to_owned(), example: EXAMPLE }
}

/// Whether what follows a scheme names a port, even one that goes without saying.
fn names_port(rest: &str) -> bool {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    // The address in brackets has colons of its own.
    host.rsplit(']').next().unwrap_or(host).contains(':')
}

fn parse(text: &str) -> Result<Url, ConfigError> {
    let url = Url::parse(text).map_err(|error| wrong(text, &error.to_string()))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong(text, "it names no host"));
    }
    Ok(url)
}

/// `key=value,…` with percent-encoded values (W3C Baggage's syntax).
pub fn parse_headers(name: &str, text: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                Ok((key.trim().to_ascii_lowercase(), redact::unescape(value.trim())))
            }
            _ => Err(ConfigError::Value {
                name: name.to_owned(),
                // It may be a secret.
                value: redact::REDACTED.to_owned(),
                expected: "key=value",
            }),
        })
        .collect()
}

#[cfg(test)]
mod tests;
