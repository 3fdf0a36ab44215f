//! What the command line says to people: logs, errors, colours.

use std::error::Error;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::options::{Color, Logs};
use crate::run::Summary;

/// Whether something written to `stream` is to have colours.
pub(super) fn wants_color(color: Color, stream: &impl IsTerminal) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        // https://no-color.org: set and not empty.
        Color::Auto => {
            let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            stream.is_terminal() && !refused
        }
    }
}

/// Logs go to stderr from here on.
pub(super) fn start_logs(logs: &Logs) {
    let filter = EnvFilter::try_new(&logs.log).unwrap_or_else(|error| {
        eprintln!("remora: warning: cannot use log filter `{}`: {error}", logs.log);
        EnvFilter::new("warn")
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(wants_color(logs.color, &std::io::stderr()))
        .with_target(false)
        .init();
}

/// The last line on stderr.
pub(super) fn done(summary: &Summary, stats: bool) {
    let mut line = format!("remora: done {summary}");
    if stats {
        for (name, value) in summary.metrics() {
            line.push_str(&format!(" {name}={value}"));
        }
    }
    eprintln!("{line}");
}

/// An error with its causes. A cause that an outer message repeats is left out.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}
