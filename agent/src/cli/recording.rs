//! `remora record` and `remora replay`.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::destinations::Destinations;
use super::options::{CaptureOptions, Color, FunctionOptions, Selection, SpanOptions, UsageError};
use super::{CliError, output};
use crate::export::{Exporters, Limits};
use crate::pipeline::Pipeline;
use crate::pipeline::recording::Player;
use crate::platform::privileges;
use crate::run::{self, Plan, Summary};

/// Flags of `remora record`.
#[derive(Debug, Args)]
pub(super) struct Record {
    /// The file to write; it will hold raw traffic
    file: PathBuf,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    capture: CaptureOptions,
    #[command(flatten)]
    functions: FunctionOptions,
}

/// Flags of `remora replay`.
#[derive(Debug, Args)]
pub(super) struct Replay {
    /// The recording
    file: PathBuf,
    #[command(flatten)]
    destinations: Destinations,
    #[command(flatten)]
    spans: SpanOptions,
    /// Print every count at the end, not only the losses
    #[arg(long)]
    stats: bool,
}

pub(super) fn record(options: Record) -> Result<(), CliError> {
    let rules = options.selection.rules()?;
    if rules.is_empty() {
        return Err(UsageError::NothingToTrace.into());
    }
    let capture = options.capture.probe(rules.matches_new_programs())?;
    let tracker = options.capture.spans.settings()?;
    privileges::check()?;
    let summary = run::run(Plan {
        rules,
        follow: options.selection.follow,
        command: None,
        capture,
        tracker,
        functions: options.functions.wishes()?,
        destinations: Vec::new(),
        limits: Limits::default(),
        record: Some(options.file),
        metrics: None,
    })?;
    output::done(&summary, false);
    Ok(())
}

/// How long the exporters may take at the end.
const FLUSH: Duration = Duration::from_secs(30);

pub(super) fn replay(options: Replay, color: Color) -> Result<(), CliError> {
    let color = output::wants_color(color, &std::io::stdout());
    let destinations = options.destinations.resolve(color, |name| std::env::var(name).ok())?;
    let tracker = options.spans.settings()?;
    let name = options.file.display().to_string();
    let file = File::open(&options.file)
        .map_err(|source| CliError::Open { path: options.file, source })?;
    let damaged = |source| CliError::Replay { file: name.clone(), source };
    let mut player = Player::new(BufReader::new(file)).map_err(damaged)?;
    let mut pipeline = Pipeline::new(tracker, player.seed());
    let limits = Limits::default();
    let exporters = Exporters::start(destinations, limits).map_err(run::RunError::from)?;
    let mut spans = Vec::new();
    let result = loop {
        match player.next_step() {
            Ok(Some(step)) => pipeline.step(&step, &mut spans),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
        if !spans.is_empty() {
            exporters.wait_for_room();
            exporters.put(&mut spans);
            pipeline.reuse(&mut spans);
            exporters.wake();
        }
    };
    // What came before the damage is worth having.
    let accounts = exporters.finish(FLUSH);
    let summary = Summary {
        intake: pipeline.intake(),
        tallies: pipeline.tallies(),
        accounts,
        ..Summary::default()
    };
    output::done(&summary, options.stats);
    result.map_err(damaged)
}
