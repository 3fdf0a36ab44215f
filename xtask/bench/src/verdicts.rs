//! What the phases of `overhead` mean: ratios inside rounds, and their targets.

use crate::overhead::{Phase, Results, Sample, Traced};
use crate::report::{Report, Target, Unit};
use crate::statistics::{by_round, greatest, median, ratio, spread};

const BENCH: &str = "overhead";
/// What the agent adds to a request over what the floor adds.
const OVER_FLOOR: f64 = 1.3;
const P50: f64 = 1.05;
const P99_OVER_FLOOR: f64 = 1.5;
/// Core-seconds of the agent for 10,000 spans.
const AGENT_CPU: f64 = 0.02;
const WAKE_UPS: f64 = 60.0;
const IDLE_WAKE_UPS: f64 = 2.0;
const MEMORY_MB: f64 = 40.0;

impl Results {
    fn of(&self, phase: Phase, half_load: bool) -> impl Iterator<Item = &Sample> {
        let is = move |s: &&Sample| s.phase == phase && s.half_load == half_load;
        self.samples.iter().filter(is)
    }

    /// Both phases of every round with nothing attached.
    fn untraced(&self, half_load: bool) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |s| s.phase.is_untraced() && s.half_load == half_load)
    }

    /// What two phases say about a figure, combined round by round.
    fn pairs(
        &self,
        (with, without): (Phase, Phase),
        half_load: bool,
        figure: impl Fn(&Sample) -> f64,
        combine: impl Fn(f64, f64) -> f64,
    ) -> Vec<f64> {
        let of = |phase| self.of(phase, half_load).map(|sample| (sample.round, figure(sample)));
        by_round(of(with), of(without), combine)
    }

    /// As [`Results::pairs`], with the mean of what is untraced in the same round.
    fn beside_untraced(
        &self,
        with: Phase,
        half_load: bool,
        figure: impl Fn(&Sample) -> f64,
        combine: impl Fn(f64, f64) -> f64,
    ) -> Vec<f64> {
        let figure = |sample: &Sample| (sample.round, figure(sample));
        by_round(
            self.of(with, half_load).map(figure),
            self.untraced(half_load).map(figure),
            combine,
        )
    }

    fn ratios(&self, with: Phase, half_load: bool, figure: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.beside_untraced(with, half_load, figure, |with, without| with / without)
    }

    fn traced(&self) -> impl Iterator<Item = (&Sample, &Traced)> {
        self.samples.iter().filter_map(|sample| Some((sample, sample.traced.as_ref()?)))
    }
}

/// Fills the report's rows of one server.
pub(crate) fn judge(results: &Results, report: &mut Report) {
    costs(results, report);
    latencies(results, report);
    agent(results, report);
    accounts(results, report);
}

fn costs(results: &Results, report: &mut Report) {
    let name = results.kind.name;
    let rate = median(results.untraced(false).map(|sample| sample.rate));
    let server = median(results.untraced(false).map(|sample| sample.server_us));
    let share = median(results.untraced(false).map(|sample| sample.generator_share));
    let note =
        format!("{server:.2} µs of server CPU a request; the load takes {share:.2} of a core");
    report.tell(BENCH, format!("{name}: untraced"), rate, Unit::PerSecond, note);
    let phases = (Phase::Control, Phase::Untraced);
    let rates = results.pairs(phases, false, |sample| sample.rate, |again, first| again / first);
    let cpu = results.pairs(phases, false, |sample| sample.server_us, |again, first| again / first);
    let note = format!("{}; server CPU {:.3}×", spread(&rates), median(cpu));
    let what = format!("{name}: throughput, untraced again ÷ untraced");
    report.tell(BENCH, what, median(rates.iter().copied()), Unit::Times, note);
    let mut floors = vec![Phase::Floor];
    for phase in results.samples.iter().map(|sample| sample.phase) {
        if matches!(phase, Phase::Other(_)) && !floors.contains(&phase) {
            floors.push(phase);
        }
    }
    for phase in floors {
        let rates = results.ratios(phase, false, |sample| sample.rate);
        let cpu = median(results.ratios(phase, false, |sample| sample.server_us));
        let note = format!("{}; server CPU {cpu:.3}×", spread(&rates));
        let what = format!("{name}: throughput, {}", phase.name());
        report.tell(BENCH, what, median(rates.iter().copied()), Unit::Times, note);
    }
    let rates = results.ratios(Phase::Traced, false, |sample| sample.rate);
    let target = Target::Least(results.kind.throughput);
    let what = format!("{name}: throughput, with ÷ without");
    report.judge(BENCH, what, median(rates.iter().copied()), Unit::Times, target, spread(&rates));
    let cpu = results.ratios(Phase::Traced, false, |sample| sample.server_us);
    let (what, value) =
        (format!("{name}: server CPU, with ÷ without"), median(cpu.iter().copied()));
    match results.kind.cpu {
        Some(most) => {
            report.judge(BENCH, what, value, Unit::Times, Target::Most(most), spread(&cpu));
        }
        None => report.tell(BENCH, what, value, Unit::Times, spread(&cpu)),
    }
    let added = |phase| {
        let cpu = |sample: &Sample| sample.server_us;
        median(results.beside_untraced(phase, false, cpu, |with, without| with - without))
    };
    let (ours, floor) = (added(Phase::Traced), added(Phase::Floor));
    let note = format!("{ours:+.2} µs over {floor:+.2} µs a request");
    let what = format!("{name}: added server CPU, over the floor's");
    let times = ratio(ours, floor, 0.0);
    report.judge(BENCH, what, times, Unit::Times, Target::Most(OVER_FLOOR), note);
}

fn latencies(results: &Results, report: &mut Report) {
    let name = results.kind.name;
    let base = |figure: fn(&Sample) -> f64| median(results.untraced(true).map(figure));
    let p50 = results.ratios(Phase::Traced, true, |sample| sample.p50_us);
    let floor = median(results.ratios(Phase::Floor, true, |sample| sample.p50_us));
    let note = format!(
        "untraced {:.0} µs; the floor's {floor:.3}×; {}",
        base(|sample| sample.p50_us),
        spread(&p50)
    );
    let what = format!("{name}: p50 at half load, with ÷ without");
    report.judge(BENCH, what, median(p50), Unit::Times, Target::Most(P50), note);
    let phases = (Phase::Traced, Phase::Floor);
    let p99 = results.pairs(phases, true, |sample| sample.p99_us, |with, floor| with / floor);
    let over_untraced = median(results.ratios(Phase::Traced, true, |sample| sample.p99_us));
    let note = format!(
        "untraced {:.0} µs; over it {over_untraced:.2}×; {}",
        base(|sample| sample.p99_us),
        spread(&p99)
    );
    let what = format!("{name}: p99 at half load, over the floor's");
    report.judge(BENCH, what, median(p99), Unit::Times, Target::Most(P99_OVER_FLOOR), note);
}

fn agent(results: &Results, report: &mut Report) {
    let name = results.kind.name;
    let of = |half_load, figure: fn(&Traced) -> f64| {
        let traced = results.traced().filter(move |(sample, _)| sample.half_load == half_load);
        traced.map(move |(_, traced)| figure(traced))
    };
    let cpu = median(of(false, |traced| traced.core_seconds));
    let half = median(of(true, |traced| traced.core_seconds));
    let note = format!("all exported; at half load {half:.4}");
    let what = format!("{name}: the agent's CPU for 10,000 spans");
    report.judge(BENCH, what, cpu, Unit::CoreSeconds, Target::Most(AGENT_CPU), note);
    let wake_ups = median(of(false, |traced| traced.wake_ups));
    let half = median(of(true, |traced| traced.wake_ups));
    let what = format!("{name}: the agent's wake-ups under load");
    let note = format!("voluntary switches of all threads; at half load {half:.1}");
    report.judge(BENCH, what, wake_ups, Unit::PerSecond, Target::Most(WAKE_UPS), note);
    let memory = greatest(of(false, |traced| traced.memory_mb));
    let what = format!("{name}: the agent's memory at its most");
    report.judge(BENCH, what, memory, Unit::Mb, Target::Most(MEMORY_MB), "resident, 1 target");
    if let Some((wake_ups, memory)) = results.idle {
        let note = format!("{memory:.1} MB resident then");
        let target = Target::Most(IDLE_WAKE_UPS);
        report.judge(
            BENCH,
            "the agent's wake-ups when idle",
            wake_ups,
            Unit::PerSecond,
            target,
            note,
        );
    }
}

/// Every request is a span at the backend, or a counted loss.
fn accounts(results: &Results, report: &mut Report) {
    let name = results.kind.name;
    let (mut expected, mut arrived, mut lost, mut wrong) = (0, 0, 0, 0);
    let (mut roots, mut inferred) = (0, 0);
    for (_, Traced { sent, done, sink, .. }) in results.traced() {
        let spans = sent * results.kind.spans;
        expected += spans;
        arrived += sink.spans;
        lost += done.lost;
        // What the agent says it did must be what happened.
        wrong += done.exported.abs_diff(sink.spans);
        roots += sink.roots.abs_diff(*sent);
        inferred += sink.inferred;
    }
    let missing = expected.abs_diff(arrived);
    let note = format!(
        "{expected} requested, {arrived} arrived, the agent counted {lost} losses and was wrong by {wrong}"
    );
    let what = format!("{name}: spans lost or uncounted");
    let value = missing.max(lost).max(wrong) as f64;
    report.judge(BENCH, what, value, Unit::Count, Target::Most(0.0), note);
    if results.kind.spans > 1 {
        let what = format!("{name}: spans whose parent is missing or not exact");
        let note = format!("{inferred} inferred, {roots} roots too many or too few");
        let value = (inferred + roots) as f64;
        report.judge(BENCH, what, value, Unit::Count, Target::Most(0.0), note);
    }
}
