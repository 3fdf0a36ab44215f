//! What the phases of `peers` mean: ratios inside rounds, one row a tracer, in a Markdown table that can
//! be shown as it is; and whether the agent is the cheapest.

use std::fmt::Write as _;

use super::{Phase, Results, Sample, Tracer};
use crate::report::{Report, Target, Unit, grouped};
use crate::statistics::{by_round, greatest, median, spread};

const BENCH: &str = "peers";
/// The agent's throughput over a peer's.
const OVER_PEER: f64 = 1.0;
/// Below this share of what is asked at half load, requests wait ever longer: how long is only a
/// matter of how long one measures.
const KEEPS_UP: f64 = 0.95;

impl Results {
    fn of(&self, phase: Phase, half_load: bool) -> impl Iterator<Item = &Sample> {
        let is = move |s: &&Sample| s.phase == phase && s.half_load == half_load;
        self.samples.iter().filter(is)
    }

    fn untraced(&self, half_load: bool) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |s| s.phase.is_untraced() && s.half_load == half_load)
    }

    /// A figure over what is untraced in the same round.
    fn ratios(&self, of: Phase, half_load: bool, figure: impl Fn(&Sample) -> f64) -> Vec<f64> {
        let figure = |sample: &Sample| (sample.round, figure(sample));
        let (with, without) = (self.of(of, half_load), self.untraced(half_load));
        by_round(with.map(figure), without.map(figure), |with, without| with / without)
    }

    /// The throughput of one phase over that of another in the same round.
    fn rates(&self, of: Phase, over: Phase) -> Vec<f64> {
        let rate = |sample: &Sample| (sample.round, sample.rate);
        by_round(self.of(of, false).map(rate), self.of(over, false).map(rate), |a, b| a / b)
    }

    fn tracers(&self, of: Phase, half_load: bool) -> impl Iterator<Item = &Tracer> {
        self.of(of, half_load).filter_map(|sample| sample.tracer.as_ref())
    }
}

/// Fills the report's rows of one server.
pub(super) fn judge(results: &Results, report: &mut Report) {
    let kind = results.kind.name;
    let rate = median(results.untraced(false).map(|sample| sample.rate));
    let server = median(results.untraced(false).map(|sample| sample.server_us));
    let again = results.rates(Phase::UntracedAgain, Phase::Untraced);
    let note = format!(
        "{server:.2} µs of server CPU a request; untraced again {:.3}×",
        median(again.iter().copied())
    );
    report.tell(BENCH, format!("{kind}: untraced"), rate, Unit::PerSecond, note);
    for (place, (name, failed)) in results.names.iter().zip(&results.failed).enumerate() {
        let what = format!("{kind}: remora's throughput over that of {name}");
        if let Some(reason) = failed {
            report.absent(what, reason.clone());
            continue;
        }
        let over = results.rates(Phase::Remora, Phase::Peer(place));
        let value = median(over.iter().copied());
        report.judge(BENCH, what, value, Unit::Times, Target::Least(OVER_PEER), spread(&over));
    }
}

/// The table of all servers.
pub(super) fn markdown(all: &[Results]) -> String {
    let mut text = String::from(
        "| server, untraced | tracer | throughput | server CPU | p50 · p99 at half load \
         | tracer's CPU, 10,000 requests | memory | spans a request |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for results in all {
        let rate = median(results.untraced(false).map(|sample| sample.rate));
        let server = median(results.untraced(false).map(|sample| sample.server_us));
        let mut subject =
            format!("{}, {}/s, {server:.1} µs a request", results.kind.name, grouped(rate));
        let peers = (0..results.names.len()).map(Phase::Peer);
        for phase in std::iter::once(Phase::Remora).chain(peers) {
            let row = match phase {
                Phase::Peer(place) => match results.failed.get(place).and_then(Option::as_ref) {
                    Some(_) => " could not be measured | | | | | |".to_owned(),
                    None => row(results, phase),
                },
                _ => row(results, phase),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "| {subject} | {} |{row}", results.name(phase));
            subject.clear();
        }
    }
    text
}

fn row(results: &Results, phase: Phase) -> String {
    let rate = median(results.ratios(phase, false, |sample| sample.rate));
    let server = median(results.ratios(phase, false, |sample| sample.server_us));
    let keeps_up = median(results.ratios(phase, true, |sample| sample.rate)) >= KEEPS_UP;
    let latency = if keeps_up {
        let p50 = median(results.ratios(phase, true, |sample| sample.p50_us));
        let p99 = median(results.ratios(phase, true, |sample| sample.p99_us));
        format!("{p50:.2}× · {p99:.1}×")
    } else {
        "queue grows".to_owned()
    };
    let core_seconds: Vec<f64> =
        results.tracers(phase, false).filter_map(|tracer| tracer.core_seconds).collect();
    let memory = greatest(results.tracers(phase, false).map(|tracer| tracer.memory_mb));
    let spans = median(results.tracers(phase, false).map(|tracer| tracer.spans));
    // One that lives inside takes of the server's.
    let (cpu, memory) = if core_seconds.is_empty() {
        ("inside".to_owned(), format!("{memory:+.0} MB"))
    } else {
        (format!("{:.3} core-s", median(core_seconds)), format!("{memory:.0} MB"))
    };
    format!(" {rate:.2} | {server:.2} | {latency} | {cpu} | {memory} | {spans:.2} |")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::KINDS;

    fn sample(round: usize, phase: Phase, half_load: bool, rate: f64) -> Sample {
        let tracer = (!phase.is_untraced()).then(|| Tracer {
            core_seconds: (phase == Phase::Remora).then_some(0.0126),
            memory_mb: 25.4,
            spans: 1.0,
        });
        let (server_us, p50_us) = (1e6 / rate, 1e7 / rate);
        Sample { round, phase, half_load, rate, server_us, p50_us, p99_us: 2.0 * p50_us, tracer }
    }

    #[test]
    fn a_row_is_a_tracer() {
        let mut samples = Vec::new();
        for (half_load, full) in [(false, 100_000.0), (true, 50_000.0)] {
            for round in 0..3 {
                // The machine is slower from round to round, which ratios must not show.
                let full = full / (round + 1) as f64;
                samples.push(sample(round, Phase::Untraced, half_load, full));
                samples.push(sample(round, Phase::UntracedAgain, half_load, full));
                let traced = if half_load { full } else { 0.8 * full };
                samples.push(sample(round, Phase::Remora, half_load, traced));
                samples.push(sample(round, Phase::Peer(0), half_load, 0.25 * full));
            }
        }
        let names = vec!["another", "a third"];
        let failed = vec![None, Some("it is not there".to_owned())];
        let results = Results { kind: &KINDS[0], names, samples, failed };
        let text = markdown(std::slice::from_ref(&results));
        let rows: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| nginx, 50,000/s, 20.0 µs a request | remora | 0.80 | 1.25 | 1.00× · 1.0× \
                 | 0.013 core-s | 25 MB | 1.00 |",
                "|  | another | 0.25 | 4.00 | queue grows | inside | +25 MB | 1.00 |",
                "|  | a third | could not be measured | | | | | |",
            ]
        );
        let mut report = Report::new(true);
        judge(&results, &mut report);
        assert_eq!((report.missed(), report.missing()), (0, 1));
    }
}
