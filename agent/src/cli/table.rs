//! Listings: a table for people, or one JSON object a line for programs.

use std::io::{self, Write};

use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::CliError;

/// Prints rows as JSON lines.
pub(super) fn json_lines<T: Serialize>(rows: &[T]) -> Result<(), CliError> {
    let write = || {
        let mut out = io::stdout().lock();
        for row in rows {
            serde_json::to_writer(&mut out, row).map_err(io::Error::from)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    };
    write().or_else(closed_pipe)
}

/// Prints text.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).or_else(closed_pipe)
}

/// A reader that has seen enough (`remora ps | head`) is no failure.
fn closed_pipe(error: io::Error) -> Result<(), CliError> {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(CliError::Write { what: "the listing", source: error }),
    }
}

/// Columns as wide as their widest cell; the last one as it is.
pub(super) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = heading.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let mut text = String::new();
    let mut line = |cells: &[&str]| {
        let start = text.len();
        for (cell, width) in cells.iter().zip(widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width()) + 2));
        }
        let end = text.get(start..).unwrap_or_default().trim_end().len();
        text.truncate(start + end);
        text.push('\n');
    };
    line(&heading);
    for row in rows {
        line(&row.each_ref().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [["1".to_owned(), "a".to_owned()], ["4711".to_owned(), String::new()]];
        assert_eq!(table(["PID", "NAME"], &rows), "PID   NAME\n1     a\n4711\n");
    }
}
