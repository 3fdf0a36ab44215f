//! One phase of load on a server: how long it lasts, what the server did, and what that cost the
//! server and whatever traced it meanwhile. Knows nothing of what is attached.

use std::time::Duration;

use anyhow::Result;

use crate::Settings;
use crate::load::{Client, Edge, Outcome, Pace, Plan};
use crate::process::Usage;
use crate::statistics::quantile;

/// Kept-alive connections of the load.
const CONNECTIONS: usize = 64;
/// Of a server, before anything is measured: runtimes compile what they run often.
const WARM_UP: Duration = Duration::from_secs(3);
/// The CPU of the load; the servers have the first one, whatever traces may use both.
const LOAD_CPU: usize = 1;

/// What a phase does.
pub(crate) fn plan(settings: &Settings, pace: Pace) -> Plan {
    let usual = if settings.quick { 0.5 } else { 2.0 };
    let measured = Duration::from_secs_f64(settings.seconds.unwrap_or(usual));
    Plan { cpu: LOAD_CPU, connections: CONNECTIONS, pace, warm_up: measured / 5, measured }
}

/// Load whose figures are thrown away, so that the first phase does not pay for a cold server.
pub(crate) fn warm_up(settings: &Settings, client: &Client) -> Result<()> {
    let plan = Plan { warm_up: WARM_UP, ..plan(settings, Pace::Closed) };
    client.run(plan, &mut |_| Ok(())).map(drop)
}

/// What a phase brought.
pub(crate) struct Measured {
    pub(crate) outcome: Outcome,
    /// What it cost the server.
    pub(crate) server: Usage,
    /// What it cost the process that traced it.
    pub(crate) tracer: Usage,
}

impl Measured {
    /// Carries out a plan, with an eye on the server's processes and on the tracer's, if there is one.
    pub(crate) fn of(
        client: &Client,
        plan: Plan,
        server: &[u32],
        tracer: Option<u32>,
    ) -> Result<Self> {
        let usages = || -> Result<(Usage, Usage)> {
            let tracer = tracer.map(Usage::of).transpose()?.unwrap_or_default();
            Ok((Usage::of_all(server)?, tracer))
        };
        let mut begin = (Usage::default(), Usage::default());
        let mut spent = begin;
        let outcome = client.run(plan, &mut |edge| {
            let at = usages()?;
            match edge {
                Edge::Begin => begin = at,
                Edge::End => spent = (at.0.since(begin.0), at.1.since(begin.1)),
            }
            Ok(())
        })?;
        Ok(Self { outcome, server: spent.0, tracer: spent.1 })
    }

    /// Answers a second.
    pub(crate) fn rate(&self) -> f64 {
        self.outcome.answered as f64 / self.outcome.seconds
    }

    /// Server CPU of a request.
    pub(crate) fn server_us(&self) -> f64 {
        self.server.cpu_ns as f64 / 1e3 / self.outcome.answered as f64
    }

    /// Core-seconds that the tracer takes for 10,000 requests.
    pub(crate) fn tracer_core_seconds(&self) -> f64 {
        self.tracer.cpu_ns as f64 / 1e9 / self.outcome.answered as f64 * 1e4
    }

    /// The latency below which a share of the requests stays; NaN of a closed loop.
    pub(crate) fn latency_us(&self, share: f64) -> f64 {
        quantile(self.outcome.latencies_us.iter().copied(), share)
    }

    /// Of one core, that the load took.
    pub(crate) fn generator_share(&self) -> f64 {
        self.outcome.generator_cpu_ns as f64 / 1e9 / self.outcome.seconds
    }
}
