//! What was measured, as a Markdown table with each target's verdict, and as JSON with everything.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

/// What a figure should be.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// At most this.
    Most(f64),
    /// At least this.
    Least(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::Most(most) => value <= most,
            Self::Least(least) => value >= least,
        }
    }
}

/// How a figure is written.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    /// A ratio to what stands in the row's name.
    Times,
    Percent,
    Ns,
    Ms,
    Mb,
    /// Cores times seconds.
    CoreSeconds,
    PerSecond,
    Count,
}

impl Unit {
    /// For people.
    pub(crate) fn write(self, value: f64) -> String {
        match self {
            _ if value.is_nan() => "–".to_owned(),
            Self::Times => format!("{value:.3}×"),
            Self::Percent => format!("{value:.2} %"),
            Self::Ns => format!("{value:.0} ns"),
            Self::Ms => format!("{value:.0} ms"),
            Self::Mb => format!("{value:.1} MB"),
            Self::CoreSeconds => format!("{value:.4} core-s"),
            Self::PerSecond if value < 1000.0 => format!("{value:.1}/s"),
            Self::PerSecond => format!("{}/s", grouped(value)),
            Self::Count => grouped(value),
        }
    }
}

/// Thousands apart.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

struct Row {
    bench: &'static str,
    what: String,
    value: f64,
    unit: Unit,
    target: Option<Target>,
    note: String,
}

/// Everything that was measured.
pub(crate) struct Report {
    rows: Vec<Row>,
    /// What could not be measured, and why.
    absent: Vec<(String, String)>,
    /// Tables of their own, behind the rows.
    tables: Vec<String>,
    raw: Map<String, Value>,
    machine: String,
    load: String,
    quick: bool,
}

impl Report {
    pub(crate) fn new(quick: bool) -> Self {
        let read = |path: &str| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.trim().to_owned()
        };
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        let machine = format!("Linux {}, {cpus} CPUs", read("/proc/sys/kernel/osrelease"));
        let (rows, raw, load) = (Vec::new(), Map::new(), read("/proc/loadavg"));
        Self { rows, absent: Vec::new(), tables: Vec::new(), raw, machine, load, quick }
    }

    /// A figure with its target.
    pub(crate) fn judge(
        &mut self,
        bench: &'static str,
        what: impl Into<String>,
        value: f64,
        unit: Unit,
        target: Target,
        note: impl Into<String>,
    ) {
        self.add(bench, what.into(), value, unit, Some(target), note.into());
    }

    /// A figure that explains others.
    pub(crate) fn tell(
        &mut self,
        bench: &'static str,
        what: impl Into<String>,
        value: f64,
        unit: Unit,
        note: impl Into<String>,
    ) {
        self.add(bench, what.into(), value, unit, None, note.into());
    }

    fn add(
        &mut self,
        bench: &'static str,
        what: String,
        value: f64,
        unit: Unit,
        target: Option<Target>,
        note: String,
    ) {
        let row = Row { bench, what, value, unit, target, note };
        // At once, for whoever watches.
        println!("  {}", row.markdown());
        self.rows.push(row);
    }

    /// What should have been measured and could not be.
    pub(crate) fn absent(&mut self, what: impl Into<String>, why: impl Into<String>) {
        let (what, why) = (what.into(), why.into());
        println!("  {what}: not measured: {why}");
        self.absent.push((what, why));
    }

    /// A table to be printed behind the rows.
    pub(crate) fn append(&mut self, table: String) {
        self.tables.push(table);
    }

    /// Keeps what figures were made of.
    pub(crate) fn raw(&mut self, key: &str, value: Value) {
        self.raw.insert(key.to_owned(), value);
    }

    /// How many targets are missed.
    pub(crate) fn missed(&self) -> usize {
        self.rows.iter().filter(|row| matches!(row.verdict(), MISSED | UNCLEAR)).count()
    }

    /// How much could not be measured.
    pub(crate) fn missing(&self) -> usize {
        self.absent.len()
    }

    /// Prints the table.
    pub(crate) fn print(&self) {
        println!("\n{}. Load average before: {}.", self.machine, self.load);
        let load = self.load.split(' ').next().and_then(|word| word.parse::<f64>().ok());
        if load.is_some_and(|load| load > BUSY) {
            println!("Something else was running: ratios are rough, latencies mean nothing.");
        }
        if self.quick {
            println!("A quick run: it shows that everything works, its numbers mean little.");
        }
        println!("\n| benchmark | what | measured | target | | how |\n|---|---|---|---|---|---|");
        for row in &self.rows {
            println!("{}", row.markdown());
        }
        let judged = self.rows.iter().filter(|row| row.target.is_some()).count();
        for table in &self.tables {
            println!("\n{table}");
        }
        for (what, why) in &self.absent {
            println!("not measured: {what}: {why}");
        }
        println!("\n{} of {judged} targets met", judged - self.missed());
    }

    /// Writes everything as JSON.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let rows = self.rows.iter().map(Row::json);
        let absent = self.absent.iter().map(|(what, why)| json!({ "what": what, "why": why }));
        let whole = json!({
            "machine": self.machine,
            "load_average_before": self.load,
            "quick": self.quick,
            "rows": rows.collect::<Vec<_>>(),
            "not_measured": absent.collect::<Vec<_>>(),
            "raw": self.raw,
        });
        let text = serde_json::to_string_pretty(&whole)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Load average above which a machine is not quiet.
const BUSY: f64 = 0.7;
const MISSED: &str = "**MISSED**";
/// The machine was too noisy for the figure to exist.
const UNCLEAR: &str = "**UNCLEAR**";

impl Row {
    fn verdict(&self) -> &'static str {
        match self.target {
            None => "",
            Some(_) if self.value.is_nan() => UNCLEAR,
            Some(target) if target.is_met(self.value) => "ok",
            Some(_) => MISSED,
        }
    }

    fn target(&self) -> String {
        match self.target {
            None => String::new(),
            Some(Target::Most(most)) => format!("≤ {}", self.unit.write(most)),
            Some(Target::Least(least)) => format!("≥ {}", self.unit.write(least)),
        }
    }

    fn markdown(&self) -> String {
        let mut text = String::new();
        let value = self.unit.write(self.value);
        // Writing to a string cannot fail.
        let _ = write!(text, "| {} | {} | {value} | ", self.bench, self.what);
        let _ = write!(text, "{} | {} | {} |", self.target(), self.verdict(), self.note);
        text
    }

    fn json(&self) -> Value {
        json!({
            "bench": self.bench,
            "what": self.what,
            "value": self.value,
            "text": self.unit.write(self.value),
            "target": self.target(),
            "verdict": self.verdict().trim_matches('*'),
            "note": self.note,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_for_people() {
        for (value, unit, text) in [
            (1.0, Unit::Count, "1"),
            (123.0, Unit::Count, "123"),
            (1234.4, Unit::Count, "1,234"),
            (-1234.0, Unit::Count, "-1,234"),
            (-123.0, Unit::Count, "-123"),
            (1_234_567.0, Unit::PerSecond, "1,234,567/s"),
            (1.5, Unit::PerSecond, "1.5/s"),
            (0.98765, Unit::Times, "0.988×"),
        ] {
            assert_eq!(unit.write(value), text);
        }
    }

    #[test]
    fn verdicts_follow_targets() {
        for (target, value, met) in [
            (Target::Most(1.3), 1.3, true),
            (Target::Most(1.3), 1.31, false),
            (Target::Least(0.82), 0.82, true),
            (Target::Least(0.82), 0.81, false),
            (Target::Least(0.82), f64::NAN, false),
            (Target::Most(0.82), f64::NAN, false),
        ] {
            assert_eq!(target.is_met(value), met, "{value}");
        }
    }
}
