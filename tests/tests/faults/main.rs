//! Backends that are away, slow, wrong or hostile: what is traced never notices, every span is either
//! delivered or counted as lost with its reason, and none is delivered twice unless the backend took
//! it without saying so.

mod answers;
mod away;
mod settings;

use std::collections::BTreeSet;
use std::process::Command;

use remora_tests::agent::{Agent, Ended, binary};
use remora_tests::program::{Program, free_port, service};
use remora_tests::wire::{curl, get};
use remora_tests::{is_root, until};

/// How spans are carried.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Carrier {
    Grpc,
    Protobuf,
    Json,
    Zipkin,
}
use Carrier::{Grpc, Json, Protobuf, Zipkin};

/// Those that differ in how they fail.
const ALL: [Carrier; 3] = [Grpc, Protobuf, Zipkin];

impl Carrier {
    /// What losses are called by.
    fn name(self) -> &'static str {
        if self == Zipkin { "zipkin" } else { "otlp" }
    }

    fn flags(self, scheme: &str, port: u16) -> Vec<String> {
        let (flag, scheme) = match (self, scheme) {
            (Grpc, "https") => ("--otlp", "grpcs"),
            (Grpc, _) => ("--otlp", "grpc"),
            (Protobuf | Json, scheme) => ("--otlp", scheme),
            (Zipkin, scheme) => ("--zipkin", scheme),
        };
        let mut flags = vec![flag.to_owned(), format!("{scheme}://127.0.0.1:{port}")];
        if self == Json {
            flags.extend(["--otlp-protocol", "http/json"].map(str::to_owned));
        }
        flags
    }
}

/// A traced server, and an agent that sends its spans to one backend only.
struct Scene {
    carrier: Carrier,
    target: Program,
    target_port: u16,
    agent: Agent,
    metrics: u16,
    asked: u64,
}

impl Scene {
    fn start(carrier: Carrier, backend: u16) -> Self {
        Self::with(carrier, &carrier.flags("http", backend), &[])
    }

    fn with(carrier: Carrier, flags: &[String], variables: &[(&str, &str)]) -> Self {
        let (target, target_port) = service("target", &[]);
        let mut command = Command::new(binary());
        let metrics = free_port();
        command.args(["run", "--pid", &target.pid().to_string(), "--ring-mib", "1"]).args(flags);
        command.arg("--metrics").arg(format!("127.0.0.1:{metrics}"));
        command.envs(variables.iter().copied());
        let mut agent = Agent::start(&mut command);
        agent.ready();
        Self { carrier, target, target_port, agent, metrics, asked: 0 }
    }

    /// Asks the traced server, which answers as if nothing had happened.
    fn ask(&mut self, times: u64) {
        for _ in 0..times {
            let answer = get(self.target_port, "/");
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("target"), "{answer}");
        }
        self.asked += times;
    }

    /// Waits until the agent has been told that so many spans are taken.
    fn wait_for_exported(&self, spans: u64) {
        until("the agent to know", || {
            let (_, metrics) = curl(self.metrics, "/metrics");
            let mut lines = metrics.lines();
            let is_it = |line: &str| {
                line.starts_with("remora_exported_spans_total{")
                    && line.ends_with(&format!("}} {spans}"))
            };
            lines.any(is_it).then_some(())
        });
    }

    /// Ends it and checks the account: every request made a span, and every span is in it once.
    /// `losses` are the reasons and their counts.
    fn end(self, losses: &[(&str, u64)]) -> Ended {
        let Self { carrier, mut target, target_port, agent, asked, .. } = self;
        let ended = agent.stop();
        assert!(get(target_port, "/").ends_with("target"), "it is as well as before");
        target.kill();
        assert_eq!(ended.code, Some(0), "{:#?}", ended.log);
        let lost: u64 = losses.iter().map(|(_, lost)| lost).sum();
        let mut expected = format!("spans={asked} exported={} lost={lost}", asked - lost);
        for (reason, lost) in losses {
            expected += &format!(" {}.{reason}={lost}", carrier.name());
        }
        assert_eq!(ended.done(), expected, "{carrier:?}: {:#?}", ended.log);
        ended
    }
}

/// Runs a scene for several carriers at one time.
fn each(carriers: &[Carrier], scene: impl Fn(Carrier) + Sync) {
    if !is_root() {
        return;
    }
    std::thread::scope(|scope| {
        for carrier in carriers {
            let scene = &scene;
            scope.spawn(move || scene(*carrier));
        }
    });
}

/// How many different spans these are, and how many in all.
fn different(ids: &[String]) -> (usize, usize) {
    (ids.iter().collect::<BTreeSet<_>>().len(), ids.len())
}
