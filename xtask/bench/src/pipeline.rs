//! `pipeline`: from records in memory to encoded spans, on one core. Runs the program of that
//! name (`src/bin/pipeline`), which holds the agent's own code, and judges what it says.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Settings;
use crate::report::{Report, Target, Unit};
use crate::statistics::{least, median};

const BENCH: &str = "pipeline";
/// Spans a second of one core.
const TARGET: f64 = 600_000.0;
/// The stages of the way, with what a table calls them.
const STAGES: [(&str, &str); 5] = [
    ("track_ns", "decode and track"),
    ("collect_ns", "make spans"),
    ("encode_ns", "encode OTLP"),
    ("drop_ns", "free"),
    ("hand_over_ns", "hand over"),
];

pub(crate) fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    println!("pipeline: records to encoded spans");
    let program = settings.pipeline.as_deref().context("the pipeline's program was not built")?;
    let mut command = Command::new(program);
    command.args(["--rounds", &settings.rounds(9).to_string()]);
    command.args(["--requests", if settings.quick { "20000" } else { "100000" }]);
    if let Some(recording) = &settings.recording {
        command.arg("--recording").arg(recording);
    }
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(output.status.success(), "{}: {}", program.display(), output.status);
    let results: Value = serde_json::from_slice(&output.stdout).context("no results")?;
    for result in results.as_array().context("the results are no array")? {
        let name = result.get("traffic").and_then(Value::as_str).unwrap_or("traffic");
        judge(name, result, report).with_context(|| format!("results of {name}"))?;
    }
    report.raw(BENCH, results);
    println!(
        "  to see where the time goes, build with CARGO_PROFILE_RELEASE_STRIP=none and \
         CARGO_PROFILE_RELEASE_DEBUG=line-tables-only, then: perf record -g {0} --rounds 20, or \
         valgrind --tool=callgrind --toggle-collect='*pipeline::play*' --cache-sim=yes {0} --rounds 0 \
         --requests 20000",
        program.display()
    );
    Ok(())
}

fn judge(name: &str, result: &Value, report: &mut Report) -> Result<()> {
    let number = |key: &str| result.get(key).and_then(Value::as_f64).context("a count is missing");
    let rounds = result.get("rounds").and_then(Value::as_array).context("no rounds")?;
    let spans = number("spans")?;
    let per_span = |keys: &[&str]| -> Vec<f64> {
        let sum = |round: &Value| {
            keys.iter().map(|key| round.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN)).sum()
        };
        rounds.iter().map(sum).map(|ns: f64| ns / spans).collect()
    };
    let all = per_span(&STAGES.map(|(key, _)| key));
    let floor = per_span(&["floor_ns"]);
    let records = number("records")? / spans;
    let note = format!(
        "median of {} rounds, best {:.0}/s; {records:.1} records and {:.0} bytes a span",
        rounds.len(),
        1e9 / least(all.iter().copied()),
        number("record_bytes")? / spans,
    );
    let rate = 1e9 / median(all.iter().copied());
    report.judge(
        BENCH,
        format!("{name}: spans"),
        rate,
        Unit::PerSecond,
        Target::Least(TARGET),
        note,
    );
    for (key, what) in STAGES {
        let each = per_span(&[key]);
        let share = median(each.iter().copied()) / median(all.iter().copied()) * 100.0;
        let note = format!("{share:.0} % of the whole, best {:.0}", least(each.iter().copied()));
        report.tell(BENCH, format!("{name}: {what}, a span"), median(each), Unit::Ns, note);
    }
    let bytes = number("otlp_bytes")? / spans;
    let json = median(per_span(&["json_ns"]));
    let note = format!("not part of the whole; OTLP has {bytes:.0} bytes");
    report.tell(BENCH, format!("{name}: encode JSON instead, a span"), json, Unit::Ns, note);
    let allocations = number("allocations")? / spans;
    let note = format!("a span; {:.0} bytes", number("allocated_bytes")? / spans);
    report.tell(
        BENCH,
        format!("{name}: allocations, of 100 spans"),
        allocations * 100.0,
        Unit::Count,
        note,
    );
    let floor_ns = median(floor);
    let times = median(all) / floor_ns;
    let note = format!("a copy of every record takes {floor_ns:.0} ns a span");
    report.tell(BENCH, format!("{name}: over only copying the records"), times, Unit::Times, note);
    Ok(())
}
