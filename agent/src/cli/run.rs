//! `remora run` and `remora exec`.

use std::ffi::OsString;

use super::options::{Color, Run, RunOptions, UsageError};
use super::{CliError, options, output};
use crate::discover::rules::Rules;
use crate::platform::privileges;
use crate::run::{self, Plan};

pub(super) fn run(options: Run, color: Color) -> Result<(), CliError> {
    let rules = options.selection.rules()?;
    if rules.is_empty() {
        return Err(UsageError::NothingToTrace.into());
    }
    trace(options.options, rules, options.selection.follow, None, color)
}

pub(super) fn exec(
    options: RunOptions,
    command: Vec<OsString>,
    color: Color,
) -> Result<(), CliError> {
    trace(options, Rules::default(), true, Some(command), color)
}

fn trace(
    run: RunOptions,
    rules: Rules,
    follow: bool,
    command: Option<Vec<OsString>>,
    color: Color,
) -> Result<(), CliError> {
    let color = output::wants_color(color, &std::io::stdout());
    let variable = |name: &str| std::env::var(name).ok();
    let destinations = run.destinations.resolve(color, variable)?;
    let capture = run.capture.probe(rules.matches_new_programs())?;
    let tracker = run.capture.spans.settings()?;
    let functions = run.functions.wishes()?;
    let limits = options::limits(variable)?;
    privileges::check()?;
    let plan = Plan {
        rules,
        follow,
        command,
        capture,
        tracker,
        functions,
        destinations,
        limits,
        record: run.record,
        metrics: run.metrics,
    };
    let summary = run::run(plan)?;
    output::done(&summary, run.stats);
    Ok(())
}
