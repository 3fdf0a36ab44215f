//! Flags, and what they mean together.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::destinations::Destinations;
use crate::debuginfod::{Debuginfod, DebuginfodError};
use crate::discover::rules::{RuleError, Rules};
use crate::export::Limits;
use crate::export::otlp::config::ConfigError;
use crate::function::pattern::{PatternError, Patterns};
use crate::probe::Source;
use crate::run::{TracepointError, TracepointGlobs, Wishes};
use crate::span::http::HeaderCapture;
use crate::span::sampler::{Sampler, SamplerError};
use crate::span::tracker::Settings;

/// Why flags cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// Nothing to trace.
    #[error(
        "nothing to trace: give --pid, --exe, --port or --all (`remora ps` shows what is there)"
    )]
    NothingToTrace,
    /// A pattern is wrong.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// A sampler is wrong.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// A pattern of functions is wrong.
    #[error(transparent)]
    Functions(#[from] PatternError),
    /// A pattern of static tracepoints is wrong.
    #[error(transparent)]
    Usdt(#[from] TracepointError),
    /// A budget is wrong.
    #[error("cannot use `{value}` for --max-overhead: expected 0.01% to 10000% of one CPU")]
    Overhead {
        /// As it was given.
        value: String,
    },
    /// Debug files cannot be fetched.
    #[error(transparent)]
    Debuginfod(#[from] DebuginfodError),
    /// A destination is wrong.
    #[error(transparent)]
    Destination(#[from] ConfigError),
    /// `--json` without a console.
    #[error("--json is for --console: leave out the other destinations or add --console")]
    JsonWithoutConsole,
    /// A number is out of its range.
    #[error("cannot use {value} for {flag}: expected {expected}")]
    Range {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: u64,
        /// What would do.
        expected: &'static str,
    },
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
pub struct Logs {
    /// What to log on stderr: error, warn, info, debug, trace, or a `tracing` filter
    #[arg(long, global = true, env = "REMORA_LOG", default_value = "warn", value_name = "FILTER")]
    pub log: String,
    /// When to use colours
    #[arg(long, global = true, default_value = "auto", value_name = "WHEN")]
    pub color: Color,
    /// Take flags that are not given from this TOML file: `pid = [1, 2]`, `follow = true`
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Which processes.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "What to trace")]
pub struct Selection {
    /// Trace this process (may be repeated)
    #[arg(long = "pid", value_name = "PID", value_delimiter = ',')]
    pub pids: Vec<u32>,
    /// Trace programs whose file name, or path if it has a slash, matches (may be repeated)
    #[arg(long = "exe", value_name = "GLOB")]
    pub exes: Vec<String>,
    /// Trace whatever listens on this TCP port (may be repeated)
    #[arg(long = "port", value_name = "PORT", value_delimiter = ',')]
    pub ports: Vec<u16>,
    /// Trace every process but remora itself
    #[arg(long)]
    pub all: bool,
    /// Trace the descendants of --pid processes too, those of today and those to come
    #[arg(long)]
    pub follow: bool,
}

impl Selection {
    /// The rules that it means.
    pub fn rules(&self) -> Result<Rules, UsageError> {
        Ok(Rules::new(&self.pids, &self.exes, &self.ports, self.all)?)
    }
}

/// Flags of `remora run`.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub(super) selection: Selection,
    #[command(flatten)]
    pub(super) options: RunOptions,
}

/// Which functions are traced.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Functions")]
pub struct FunctionOptions {
    /// Trace calls of functions whose demangled name matches (may be repeated); `!GLOB` leaves out
    #[arg(long = "functions", value_name = "[MODULE!]GLOB[@OPTION,…]")]
    pub functions: Vec<String>,
    /// Put hits of static tracepoints on the spans where they happen (may be repeated)
    #[arg(long, value_name = "PROVIDER:NAME[@text=N,…]")]
    pub usdt: Vec<String>,
    /// Put exceptions, panics and errors that a runtime raises on the spans where they happen
    #[arg(long)]
    pub exceptions: bool,
    /// Most that function probes may cost a process, in percent of one CPU
    #[arg(long, default_value = "2%", value_name = "PERCENT")]
    pub max_overhead: String,
    #[command(flatten)]
    pub(super) debug: DebugOptions,
}

/// Where debug files come from.
#[derive(Clone, Debug, Default, Args)]
pub struct DebugOptions {
    /// Fetch debug files that are not here from the servers in DEBUGINFOD_URLS, which then know what runs here
    #[arg(long)]
    debuginfod: bool,
}

impl DebugOptions {
    /// The servers to ask, if any are to be asked.
    pub(super) fn servers(&self) -> Result<Option<Arc<Debuginfod>>, UsageError> {
        if !self.debuginfod {
            return Ok(None);
        }
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        let variable = |name: &str| std::env::var(name).ok();
        Ok(Some(Arc::new(Debuginfod::from_env(variable, is_root)?)))
    }
}

impl FunctionOptions {
    /// What is asked for.
    pub fn wishes(&self) -> Result<Wishes, UsageError> {
        let percent = self.max_overhead.strip_suffix('%').unwrap_or(&self.max_overhead);
        let percent = percent.trim().parse::<f64>().ok();
        let percent = percent.filter(|percent| (0.01..=10_000.0).contains(percent));
        let percent =
            percent.ok_or_else(|| UsageError::Overhead { value: self.max_overhead.clone() })?;
        let budget_ns = (percent * 10_000_000.0) as u64;
        let patterns = Patterns::parse(&self.functions)?;
        let tracepoints = TracepointGlobs::parse(&self.usdt)?;
        let (exceptions, debuginfod) = (self.exceptions, self.debug.servers()?);
        Ok(Wishes { patterns, budget_ns, exceptions, tracepoints, debuginfod })
    }
}

/// How requests are captured and where spans go.
#[derive(Debug, Args)]
pub struct RunOptions {
    #[command(flatten)]
    pub(super) capture: CaptureOptions,
    #[command(flatten)]
    pub(super) functions: FunctionOptions,
    #[command(flatten)]
    pub(super) destinations: Destinations,
    /// Print every count at the end, not only the losses
    #[arg(long)]
    pub(super) stats: bool,
    /// Serve the agent's own counts on this address, in Prometheus's format
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    pub(super) metrics: Option<std::net::SocketAddr>,
    /// Write the raw events into this file as well, for `remora replay`
    #[arg(long, value_name = "FILE")]
    pub(super) record: Option<PathBuf>,
}

fn address(text: &str) -> Result<std::net::SocketAddr, &'static str> {
    text.parse().map_err(|_| "expected the host's own address and a port, as 127.0.0.1:9464")
}

/// How socket operations are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CaptureSource {
    /// The best that this kernel has.
    Auto,
    /// Tracepoints on socket operations (Linux 6.3 and later).
    Socket,
    /// fexit on the kernel's socket functions.
    Fexit,
    /// The end of every syscall (Linux 5.11 and later).
    Syscall,
}

impl CaptureSource {
    /// The source that is demanded; `None` leaves the choice to the kernel.
    pub fn demanded(self) -> Option<Source> {
        match self {
            Self::Auto => None,
            Self::Socket => Some(Source::SocketTracepoints),
            Self::Fexit => Some(Source::SocketFunctions),
            Self::Syscall => Some(Source::SyscallExit),
        }
    }
}

/// How requests are captured.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Capture")]
pub struct CaptureOptions {
    /// How to see socket operations
    #[arg(long = "capture", default_value = "auto", value_name = "SOURCE")]
    pub source: CaptureSource,
    /// Most bytes copied from one operation
    #[arg(long, default_value_t = 4096, value_name = "BYTES")]
    pub payload_bytes: u32,
    /// Size of the ring between kernel and agent, in MiB, a power of two
    #[arg(long, default_value_t = 8, value_name = "MIB")]
    pub ring_mib: u32,
    /// Most processes traced at one time
    #[arg(long, default_value_t = 16384, value_name = "COUNT")]
    pub processes_max: u32,
    /// What spans say.
    #[command(flatten)]
    pub spans: SpanOptions,
}

/// What spans say, and which are kept.
#[derive(Clone, Debug, Args)]
pub struct SpanOptions {
    /// Record this request header (may be repeated)
    #[arg(long = "request-header", value_name = "NAME")]
    pub request_headers: Vec<String>,
    /// Record this response header (may be repeated)
    #[arg(long = "response-header", value_name = "NAME")]
    pub response_headers: Vec<String>,
    /// Which traces to keep, by OpenTelemetry's names
    #[arg(long, env = "OTEL_TRACES_SAMPLER", default_value = "always_on", value_name = "NAME")]
    pub sampler: String,
    /// The sampler's argument, as the ratio of traceidratio
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", default_value = "", value_name = "ARG")]
    pub sampler_arg: String,
}

impl SpanOptions {
    /// What the tracker is told.
    pub fn settings(&self) -> Result<Settings, UsageError> {
        let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase()).collect();
        let headers = HeaderCapture {
            request: lower(&self.request_headers),
            response: lower(&self.response_headers),
        };
        // Set to nothing is not set, as the specification asks.
        let name = if self.sampler.is_empty() { "always_on" } else { &self.sampler };
        Ok(Settings { headers, sampler: Sampler::parse(name, &self.sampler_arg)? })
    }
}

impl CaptureOptions {
    /// What the kernel half is told.
    pub fn probe(&self, rules: bool) -> Result<crate::probe::Options, UsageError> {
        let range = |flag, value: u32, good: bool, expected| match good {
            true => Ok(value),
            false => Err(UsageError::Range { flag, value: value.into(), expected }),
        };
        let ring = self.ring_mib;
        let good = ring.is_power_of_two() && ring <= 1024;
        let ring = range("--ring-mib", ring, good, "a power of two up to 1024")?;
        let payload = self.payload_bytes;
        let good = (64..=MAX_PAYLOAD).contains(&payload);
        let payload_limit = range("--payload-bytes", payload, good, "64 to 16384")?;
        let processes = self.processes_max;
        let good = (1..=1 << 22).contains(&processes);
        let processes_max = range("--processes-max", processes, good, "1 to 4194304")?;
        let source = self.source.demanded();
        let ring_bytes = ring << 20;
        Ok(crate::probe::Options { source, ring_bytes, processes_max, payload_limit, rules })
    }
}

/// Most bytes that the kernel half can copy from one operation.
const MAX_PAYLOAD: u32 = 16384;

/// Bounds of every destination, from the `OTEL_BSP_*` variables (OpenTelemetry specification,
/// "Batch Span Processor").
pub fn limits(variable: impl Fn(&str) -> Option<String>) -> Result<Limits, UsageError> {
    let number = |name: &'static str| match variable(name).filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(value) => match value.trim().parse::<u64>() {
            Ok(number) if number > 0 => Ok(Some(number)),
            _ => Err(ConfigError::Value {
                name: name.to_owned(),
                value,
                expected: "a whole number above 0",
            }),
        },
    };
    let mut limits = Limits::default();
    if let Some(spans) = number("OTEL_BSP_MAX_QUEUE_SIZE")? {
        limits.queue_spans = spans;
    }
    if let Some(spans) = number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE")? {
        limits.request_spans = usize::try_from(spans).unwrap_or(usize::MAX);
    }
    if let Some(millis) = number("OTEL_BSP_SCHEDULE_DELAY")? {
        limits.linger = Duration::from_millis(millis).min(LINGER_MAX);
    }
    Ok(limits)
}

/// A span leaves within a second of its end, whatever a variable says.
const LINGER_MAX: Duration = Duration::from_millis(500);
