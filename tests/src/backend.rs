//! Real backends: how each is started, where it takes spans, and what it gives back. One that is not
//! here is a constant below, and a row in `xtask/src/backends.rs`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::program::{Program, free_port, listening};
use crate::spans::{self, Span};
use crate::wire::curl;
use crate::zipkin;
use crate::{Scratch, until};

/// What there is to know about a backend.
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// The variable that says where it is; `cargo xtask test` sets it.
    variable: &'static str,
    /// The ports it listens on, by the names that its configuration has for them.
    ports: &'static [&'static str],
    /// How it is run.
    command: fn(&Path, &Backend) -> Command,
    /// The port and the path that answer 200 once it is ready, if listening is not enough.
    ready: Option<(&'static str, &'static str)>,
    /// The spans of a trace.
    read: fn(&Backend, &str) -> Vec<Span>,
    /// What it keeps of a span.
    keeps: fn(&Span) -> Span,
}

/// Jaeger v2 with its store in memory: keeps everything.
pub const JAEGER: Kind = Kind {
    name: "Jaeger",
    variable: "REMORA_TEST_JAEGER",
    ports: &["GRPC_PORT", "HTTP_PORT", "ZIPKIN_PORT", "QUERY_PORT", "HEALTH_PORT"],
    command: |binary, _| {
        let mut command = Command::new(binary);
        command.arg("--config").arg(configuration("jaeger/jaeger.yaml"));
        // Else it sends spans of its own to whoever listens on port 4317.
        command.env("OTEL_TRACES_SAMPLER", "always_off");
        command
    },
    ready: Some(("HEALTH_PORT", "/status")),
    read: |jaeger, trace| {
        // A read that is not raw changes what is stored.
        let path = format!("/api/v3/traces/{trace}?raw_traces=true");
        let answer = jaeger.ask("QUERY_PORT", &path).unwrap_or_default();
        spans::from_resource_spans(&answer["result"]["resourceSpans"])
    },
    keeps: Span::clone,
};

/// The OpenTelemetry Collector, which writes what it takes into a file: keeps everything, and tells
/// what came twice.
pub const COLLECTOR: Kind = Kind {
    name: "OpenTelemetry Collector",
    variable: "REMORA_TEST_OTELCOL",
    ports: &["GRPC_PORT", "HTTP_PORT", "ZIPKIN_PORT"],
    command: |binary, collector| collect(binary, collector, "otelcol/otelcol.yaml"),
    ready: None,
    read: |collector, trace| {
        let mut spans = spans::read(&collector.scratch.file("spans.jsonl"));
        spans.retain(|span| span.trace == trace);
        spans
    },
    keeps: Span::clone,
};

/// A Collector that takes one MiB at a time.
pub const SMALL_COLLECTOR: Kind = Kind {
    ports: &["GRPC_PORT", "HTTP_PORT"],
    command: |binary, collector| collect(binary, collector, "otelcol/small.yaml"),
    ..COLLECTOR
};

/// A Collector that is out of memory from its second second on.
pub const LIMITED_COLLECTOR: Kind = Kind {
    command: |binary, collector| collect(binary, collector, "otelcol/limited.yaml"),
    ..COLLECTOR
};

fn collect(binary: &Path, collector: &Backend, file: &str) -> Command {
    let mut command = Command::new(binary);
    command.arg("--config").arg(configuration(file));
    command.env("SPANS_FILE", collector.scratch.file("spans.jsonl"));
    command
}

/// Zipkin with its store in memory: whole microseconds, and text for everything.
pub const ZIPKIN: Kind = Kind {
    name: "Zipkin",
    variable: "REMORA_TEST_ZIPKIN",
    ports: &["ZIPKIN_PORT"],
    command: |jar, zipkin| {
        let mut command = Command::new("java");
        command.args(["-Xmx160m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-jar"]).arg(jar);
        let port = zipkin.port("ZIPKIN_PORT");
        command.args(["--armeria.ports[0].ip=127.0.0.1", "--armeria.ports[0].protocols[0]=http"]);
        command.arg(format!("--armeria.ports[0].port={port}"));
        command
    },
    ready: Some(("ZIPKIN_PORT", "/health")),
    read: |server, trace| {
        let answer = server.ask("ZIPKIN_PORT", &format!("/api/v2/trace/{trace}"));
        zipkin::spans(&answer.unwrap_or_default())
    },
    keeps: zipkin::kept,
};

/// A running backend; ended with the value.
pub struct Backend {
    kind: &'static Kind,
    ports: Vec<(&'static str, u16)>,
    scratch: Scratch,
    program: Option<Program>,
}

impl Backend {
    /// Starts one and waits until it is ready. `None`: it is not on this machine, which is said.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn start(kind: &'static Kind) -> Option<Self> {
        let Some(binary) = std::env::var_os(kind.variable) else {
            println!("skipped: needs {} (see `cargo xtask backends`)", kind.variable);
            return None;
        };
        let ports = kind.ports.iter().map(|name| (*name, free_port())).collect();
        let mut backend = Self { kind, ports, scratch: Scratch::new(), program: None };
        backend.run(Path::new(&binary));
        Some(backend)
    }

    fn run(&mut self, binary: &Path) {
        let mut command = (self.kind.command)(binary, self);
        let log = File::create(self.scratch.file("log")).expect("the directory is ours");
        command.current_dir(self.scratch.path()).stderr(log);
        command.envs(self.ports.iter().map(|(name, port)| (name, port.to_string())));
        self.program = Some(Program::start(&mut command));
        for (_, port) in &self.ports {
            listening(*port);
        }
        if let Some((port, path)) = self.kind.ready {
            until(self.kind.name, || (curl(self.port(port), path).0 == 200).then_some(()));
        }
    }

    /// One of its ports.
    ///
    /// # Panics
    /// If it has none of that name.
    pub fn port(&self, name: &str) -> u16 {
        let port = self.ports.iter().find(|(known, _)| *known == name);
        port.unwrap_or_else(|| panic!("{} has no {name}", self.kind.name)).1
    }

    /// A URL of one of its ports.
    pub fn url(&self, scheme: &str, port: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.port(port))
    }

    /// What its API answers; `None` if that is not a JSON document.
    pub fn ask(&self, port: &str, path: &str) -> Option<Value> {
        let (status, body) = curl(self.port(port), path);
        // Jaeger answers an unknown path with a page.
        if status == 200 { serde_json::from_str(&body).ok() } else { None }
    }

    /// The spans that it has of a trace, oldest first.
    pub fn trace(&self, trace: &str) -> Vec<Span> {
        let mut spans = (self.kind.read)(self, trace);
        sort(&mut spans);
        spans
    }

    /// Waits until it has all of these spans, which are of one trace, and checks that it has each
    /// once and just as it was, and no other.
    ///
    /// # Panics
    /// If not.
    pub fn has_just(&self, made: &[Span]) {
        let name = self.kind.name;
        let mut expected: Vec<Span> = made.iter().map(self.kind.keeps).collect();
        sort(&mut expected);
        let trace = &expected.first().expect("some spans").trace;
        let got = until(name, || Some(self.trace(trace)).filter(|got| got.len() >= expected.len()));
        for (got, expected) in got.iter().zip(&expected) {
            assert_eq!(got, expected, "{name}");
        }
        assert_eq!(got.len(), expected.len(), "{name} has a span twice");
    }
}

fn sort(spans: &mut [Span]) {
    spans.sort_by(|a, b| (a.start, &a.id).cmp(&(b.start, &b.id)));
}

fn configuration(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("backends").join(path)
}
