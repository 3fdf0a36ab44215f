//! Where spans go: flags, and the environment where no flag says it.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::options::UsageError;
use crate::export::otlp::config::{Config, ConfigError, Overrides, Protocol, parse_headers};
use crate::export::{Destination, console};

/// Where Zipkin listens unless something else is said (OpenTelemetry specification, "Zipkin
/// Exporter").
const ZIPKIN_LOCAL: &str = "http://localhost:9411";

/// Where spans go.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Destinations (several may be given; none: the console)")]
pub struct Destinations {
    /// Send OTLP: http://HOST:4318 (HTTP) or grpc://HOST:4317 (gRPC)
    #[arg(long = "otlp", value_name = "URL")]
    pub otlp: Vec<String>,
    /// How OTLP is carried: grpc, http/protobuf or http/json
    #[arg(long, value_name = "PROTOCOL")]
    pub otlp_protocol: Option<String>,
    /// Send this header with OTLP (may be repeated)
    #[arg(long = "otlp-header", value_name = "NAME=VALUE")]
    pub otlp_headers: Vec<String>,
    /// Compress OTLP with gzip
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub otlp_gzip: Option<bool>,
    /// Send Zipkin v2: http://HOST:9411
    #[arg(long = "zipkin", value_name = "URL")]
    pub zipkin: Vec<String>,
    /// Append OTLP JSON lines to this file
    #[arg(long = "file", value_name = "PATH")]
    pub files: Vec<PathBuf>,
    /// Print traces as trees
    #[arg(long, action = ArgAction::SetTrue)]
    pub console: bool,
    /// Print JSON lines instead of what people read: OTLP with --console, else the listing
    #[arg(long, action = ArgAction::SetTrue)]
    pub json: bool,
}

impl Destinations {
    /// The destinations that flags and environment mean; never none.
    pub fn resolve(
        &self,
        color: bool,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<Destination>, UsageError> {
        let mut headers = Vec::new();
        for header in &self.otlp_headers {
            headers.extend(parse_headers("--otlp-header", header)?);
        }
        let protocol = self.otlp_protocol.as_deref();
        let protocol = protocol.map(|name| Protocol::parse("--otlp-protocol", name)).transpose()?;
        let overrides = Overrides { protocol, headers, gzip: self.otlp_gzip };
        let mut destinations = Vec::new();
        for url in &self.otlp {
            let config = Config::from_url(url, &overrides, &variable)?;
            destinations.push(Destination::Otlp(config));
        }
        for url in &self.zipkin {
            destinations.push(Destination::Zipkin(crate::export::zipkin::parse_url(url)?));
        }
        for path in &self.files {
            destinations.push(Destination::File(path.clone()));
        }
        let given = !destinations.is_empty() || self.console;
        // Flags win over the environment: it only counts where no flag names a destination.
        let mut console = self.console;
        if !given {
            let chosen = Exporters::parse(variable("OTEL_TRACES_EXPORTER").as_deref())?;
            if chosen.otlp {
                let config = match Config::from_environment(&overrides, &variable)? {
                    None if chosen.named => Some(Config::local(&overrides, &variable)?),
                    config => config,
                };
                destinations.extend(config.map(Destination::Otlp));
            }
            let url = variable("OTEL_EXPORTER_ZIPKIN_ENDPOINT").filter(|url| !url.is_empty());
            let url = url.or_else(|| chosen.named.then(|| ZIPKIN_LOCAL.to_owned()));
            if let Some(url) = url.filter(|_| chosen.zipkin) {
                destinations.push(Destination::Zipkin(crate::export::zipkin::parse_url(&url)?));
            }
            console = chosen.named && chosen.console;
        }
        let console = console || destinations.is_empty();
        if self.json && !console {
            return Err(UsageError::JsonWithoutConsole);
        }
        if console && self.json {
            destinations.push(Destination::JsonStdout);
        } else if console {
            let options = console::Options { color, width: None };
            destinations.push(Destination::Console(options));
        }
        Ok(destinations)
    }
}

/// What `OTEL_TRACES_EXPORTER` allows.
#[derive(Clone, Copy, Debug, Default)]
struct Exporters {
    /// The variable is set, so an exporter that it names is used though no endpoint is.
    named: bool,
    otlp: bool,
    zipkin: bool,
    console: bool,
}

impl Exporters {
    /// Reads the list. Where it is not set, an endpoint in the environment is enough; `none` leaves
    /// the spans to the console, which is where they go if nothing else is said.
    fn parse(list: Option<&str>) -> Result<Self, ConfigError> {
        let Some(list) = list.filter(|list| !list.trim().is_empty()) else {
            return Ok(Self { otlp: true, zipkin: true, ..Self::default() });
        };
        let mut chosen = Self { named: true, ..Self::default() };
        for name in list.split(',') {
            match name.trim() {
                "otlp" => chosen.otlp = true,
                "zipkin" => chosen.zipkin = true,
                "console" => chosen.console = true,
                "none" => {}
                _ => {
                    return Err(ConfigError::Value {
                        name: "OTEL_TRACES_EXPORTER".to_owned(),
                        value: list.to_owned(),
                        expected: "otlp, zipkin, console or none, separated by commas",
                    });
                }
            }
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests;
