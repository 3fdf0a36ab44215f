//! `remora run` and `remora exec`.

use std::ffi::OsString;

use super::options::{Color, Run, RunOptions, UsageError};
use super::{CliError, output};
use crate::discover::rules::Rules;
use crate::export::Limits;
use crate::platform::privileges;
use crate::run::{self, Plan};
use crate::span::tracker::Settings;

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
    options: RunOptions,
    rules: Rules,
    follow: bool,
    command: Option<Vec<OsString>>,
    color: Color,
) -> Result<(), CliError> {
    let color = output::wants_color(color, &std::io::stdout());
    let variable = |name: &str| std::env::var(name).ok();
    let destinations = options.destinations.resolve(color, variable)?;
    let capture = options.capture.probe(rules.matches_new_programs())?;
    privileges::check()?;
    let plan = Plan {
        rules,
        follow,
        command,
        capture,
        tracker: Settings { headers: options.capture.headers() },
        destinations,
        limits: Limits::default(),
        record: options.record,
    };
    let summary = run::run(plan)?;
    output::done(&summary, options.stats);
    Ok(())
}
