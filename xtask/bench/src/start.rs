//! `start`: from the agent's start until it is ready, and from there to the first span at a
//! backend, for a request that is made at once.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::Settings;
use crate::agent::Agent;
use crate::exerciser::{Exerciser, Kind};
use crate::report::{Report, Target, Unit};
use crate::sink::Sink;
use crate::statistics::{greatest, least, median};

const BENCH: &str = "start";
const TARGET_MS: f64 = 300.0;
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    println!("start: until ready, and to the first span");
    let remora = settings.agent.as_deref().context("there is no agent")?;
    let mut subject = Exerciser::start(settings.bytes, 1)?;
    let sink = Sink::start()?;
    let mut args = vec!["--otlp".to_owned(), sink.url()];
    args.extend(settings.agent_args.iter().cloned());
    let (mut ready, mut first) = (Vec::new(), Vec::new());
    for _ in 0..settings.rounds(15) {
        sink.reset();
        let agent = Agent::start(remora, &[subject.pid()], &args)?;
        subject.batch(Kind::Tcp, 1)?;
        let arrived = sink.first_span(PATIENCE).context("no span arrived")?;
        ready.push(agent.took().as_secs_f64() * 1e3);
        first.push(arrived.duration_since(agent.ready_at()).as_secs_f64() * 1e3);
        agent.stop()?;
    }
    for (what, all) in [("start to ready", &ready), ("ready to the first exported span", &first)] {
        let each = || all.iter().copied();
        let note = format!("{} starts, {:.0} to {:.0}", all.len(), least(each()), greatest(each()));
        report.judge(BENCH, what, median(each()), Unit::Ms, Target::Most(TARGET_MS), note);
    }
    report.raw(BENCH, json!({ "ready_ms": ready, "first_span_ms": first }));
    Ok(())
}
