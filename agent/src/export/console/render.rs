//! One trace as a tree with a waterfall: spans in, text out.

use std::collections::HashMap;
use std::fmt::Write;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::callers;
use crate::span::attributes::Value;
use crate::span::model::{Confidence, Kind, Span, SpanId, StatusCode, UnixNs};

/// Deepest level that is indented; deeper ones are drawn at this one.
const DEPTH_MAX: usize = 24;
/// Most spans drawn of one trace; the rest is counted.
const SPANS_MAX: usize = 500;
/// Columns of a duration: `999 µs`, `12.3 ms`.
const DURATION_WIDTH: usize = 8;

const RESET: &str = "\x1b[0m";
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
/// Colours by which services are told apart: readable on dark and on light.
const SERVICES: [&str; 6] =
    ["\x1b[36m", "\x1b[35m", "\x1b[34m", "\x1b[96m", "\x1b[95m", "\x1b[94m"];

/// Text with a colour; `None` is plain.
type Piece = (Option<&'static str>, String);

/// Draws the spans of one trace.
pub(super) fn trace(spans: &[&Span], width: usize, color: bool, out: &mut String) {
    let Some(start) = spans.iter().map(|span| span.start).min() else { return };
    let end = spans.iter().map(|span| span.end).max().unwrap_or(start);
    let frame = Frame::new(start, end, width, color);
    frame.heading(spans, out);
    for (depth, last, span) in in_order(spans).into_iter().take(SPANS_MAX) {
        frame.line(depth, &last, span, out);
    }
    if let Some(rest) = spans.len().checked_sub(SPANS_MAX).filter(|rest| *rest > 0) {
        let _ = writeln!(out, "  … and {rest} more spans");
    }
    out.push('\n');
}

/// Parents before their children, siblings by time; with the depth, and, for each level, whether it
/// is the last of its siblings.
fn in_order<'a>(spans: &[&'a Span]) -> Vec<(usize, Vec<bool>, &'a Span)> {
    let present: HashMap<SpanId, ()> = spans.iter().map(|span| (span.span_id, ())).collect();
    let mut children: HashMap<Option<SpanId>, Vec<&'a Span>> = HashMap::new();
    for span in spans {
        let parent = span.parent.map(|parent| parent.span_id);
        let parent = parent.filter(|id| present.contains_key(id) && *id != span.span_id);
        children.entry(parent).or_default().push(span);
    }
    for siblings in children.values_mut() {
        siblings.sort_by_key(|span| std::cmp::Reverse((span.start, span.end)));
    }
    // A stack, not a recursion: chains may be as long as there are spans.
    let mut ordered = Vec::new();
    let mut stack: Vec<(usize, Vec<bool>, &Span)> = Vec::new();
    let push = |stack: &mut Vec<(usize, Vec<bool>, &'a Span)>,
                depth: usize,
                above: &[bool],
                siblings: Vec<&'a Span>| {
        for (index, span) in siblings.into_iter().enumerate() {
            let mut last: Vec<bool> = above.iter().take(DEPTH_MAX).copied().collect();
            last.push(index == 0);
            stack.push((depth, last, span));
        }
    };
    push(&mut stack, 0, &[], children.remove(&None).unwrap_or_default());
    while let Some((depth, last, span)) = stack.pop() {
        if let Some(below) = children.remove(&Some(span.span_id)) {
            push(&mut stack, depth + 1, &last, below);
        }
        ordered.push((depth, last, span));
    }
    ordered
}

/// What is the same for all lines of a trace.
struct Frame {
    start: UnixNs,
    length_ns: u64,
    color: bool,
    /// Columns for tree and text.
    text: usize,
    /// Columns for the bar; 0 if there is no room.
    bar: usize,
}

impl Frame {
    fn new(start: UnixNs, end: UnixNs, width: usize, color: bool) -> Self {
        // The last column stays empty: some terminals wrap there.
        let usable = width.saturating_sub(1).max(24);
        let bar = if usable < 70 { 0 } else { (usable / 4).min(40) };
        let text = usable - DURATION_WIDTH - if bar > 0 { bar + 4 } else { 2 };
        Self { start, length_ns: (end.0 - start.0).max(1), color, text, bar }
    }

    fn paint(&self, out: &mut String, color: Option<&str>, text: &str) {
        match color.filter(|_| self.color) {
            Some(color) => {
                out.push_str(color);
                out.push_str(text);
                out.push_str(RESET);
            }
            None => out.push_str(text),
        }
    }

    fn heading(&self, spans: &[&Span], out: &mut String) {
        let Some(first) = spans.first() else { return };
        let clock = time_of_day(self.start);
        self.paint(out, Some(BOLD), &clock);
        let count = spans.len();
        let plural = if count == 1 { "" } else { "s" };
        let rest = format!("  trace {}  {count} span{plural}", first.trace_id);
        self.paint(out, Some(DIM), &rest);
        out.push('\n');
    }

    fn line(&self, depth: usize, last: &[bool], span: &Span, out: &mut String) {
        let mut used = 0;
        if depth > 0 {
            let mut tree = String::new();
            for level in last.get(1..last.len() - 1).unwrap_or_default() {
                tree.push_str(if *level { "   " } else { "│  " });
            }
            tree.push_str(if last.last() == Some(&true) { "└─ " } else { "├─ " });
            used += self.piece(&(Some(DIM), tree), self.text, out);
        }
        for piece in describe(span) {
            used += self.piece(&piece, self.text.saturating_sub(used), out);
        }
        for _ in used..self.text {
            out.push(' ');
        }
        let duration = duration(span.end.0 - span.start.0);
        let _ = write!(out, "  {duration:>DURATION_WIDTH$}");
        if self.bar > 0 {
            out.push_str("  ");
            let color = if span.status == StatusCode::Error { RED } else { service_color(span) };
            let bar = self.bar(span);
            self.paint(out, Some(color), bar.trim_end());
        }
        out.push('\n');
    }

    /// Writes as much as fits; returns the columns used.
    fn piece(&self, (color, text): &Piece, room: usize, out: &mut String) -> usize {
        let fitted = fit(text, room);
        self.paint(out, *color, &fitted);
        fitted.width()
    }

    /// Eighths of a column, so that short spans differ.
    fn bar(&self, span: &Span) -> String {
        const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
        let total = self.bar as u128 * 8;
        let scale = |at: UnixNs| {
            (u128::from(at.0.saturating_sub(self.start.0)) * total / u128::from(self.length_ns))
                as usize
        };
        // Begins at a full column: there are no blocks that fill from the right.
        let first = (scale(span.start) / 8).min(self.bar - 1);
        let eighths = scale(span.end).saturating_sub(first * 8).max(1);
        let mut bar = " ".repeat(first);
        bar.extend(std::iter::repeat_n('█', eighths / 8));
        bar.extend((eighths % 8).checked_sub(1).and_then(|index| EIGHTHS.get(index)));
        bar
    }
}

/// Service, what was asked, how it ended, and doubts.
fn describe(span: &Span) -> Vec<Piece> {
    let mut pieces = vec![(Some(service_color(span)), printable(&span.resource.service_name))];
    let arrow = match span.kind {
        Kind::Client | Kind::Producer => " → ",
        _ => "  ",
    };
    pieces.push((None, format!("{arrow}{}", printable(&span.name))));
    if let Some(target) = target(span) {
        pieces.push((None, format!(" {}", printable(&target))));
    }
    // Why it failed comes first, where there is not room for all.
    let failed = span.status == StatusCode::Error;
    let values = if span.kind == Kind::Internal { printable(&values(span)) } else { String::new() };
    if !failed {
        pieces.push((Some(DIM), values.clone()));
    }
    if let Some(Value::Int(status)) = span.attributes.get("http.response.status_code") {
        let color = match status {
            500.. => RED,
            400.. => YELLOW,
            _ => GREEN,
        };
        pieces.push((Some(color), format!(" {status}")));
    }
    if let Some(Value::Text(error)) = span.attributes.get("error.type")
        && error.parse::<u16>().is_err()
    {
        pieces.push((Some(RED), format!(" {}", printable(error))));
    }
    for event in &span.events {
        if let Some(Value::Text(message)) = event.attributes.get("exception.message") {
            pieces.push((Some(RED), format!(": {}", printable(message))));
        }
        if let Some(Value::Text(stack)) = event.attributes.get("exception.stacktrace") {
            pieces.push((Some(DIM), printable(&callers::innermost(stack))));
        }
    }
    if failed && !values.is_empty() {
        pieces.push((Some(DIM), format!(" {values}")));
    }
    if let Some(parent) = span.parent {
        if parent.confidence == Confidence::Inferred {
            pieces.push((Some(YELLOW), format!(" ?{}", parent.method.as_str())));
        } else if parent.is_told() {
            pieces.push((Some(DIM), format!(" ↖{}", parent.span_id)));
        }
    }
    if span.attributes.get("remora.lost").is_some() {
        pieces.push((Some(YELLOW), " events lost".to_owned()));
    }
    pieces
}

/// What a function was given and gave back: `(id=7, name=ada) → true`.
fn values(span: &Span) -> String {
    let shown = |value| match value {
        Value::Text(text) => text.to_owned(),
        Value::Int(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        other => format!("{other:?}"),
    };
    let mut args = Vec::new();
    let mut result = String::new();
    for (key, value) in span.attributes.iter() {
        if let Some(name) = key.strip_prefix("remora.arg.") {
            args.push(format!("{name}={}", shown(value)));
        } else if key == "remora.return" {
            result = format!(" → {}", shown(value).trim_end());
        }
    }
    if args.is_empty() { result } else { format!("({}){result}", args.join(", ")) }
}

/// Path of a request served; address and path of one that was made.
fn target(span: &Span) -> Option<String> {
    let text = |key: &str| match span.attributes.get(key) {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    };
    if let Some(url) = text("url.full") {
        return Some(url.split_once("://").map_or(url, |(_, rest)| rest).to_owned());
    }
    let path = text("url.path")?;
    Some(match text("url.query") {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    })
}

fn service_color(span: &Span) -> &'static str {
    let sum = span
        .resource
        .service_name
        .bytes()
        .fold(7_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    SERVICES.get(sum % SERVICES.len()).copied().unwrap_or(BOLD)
}

/// Without anything that a terminal would obey: traced programs choose these texts.
fn printable(text: &str) -> String {
    let obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if obeyed(c) { '·' } else { c }).collect()
}

fn fit(text: &str, room: usize) -> String {
    if text.width() <= room {
        return text.to_owned();
    }
    let mut fitted = String::new();
    let mut used = 0;
    for c in text.chars() {
        let width = c.width().unwrap_or(0);
        if used + width + 1 > room {
            break;
        }
        used += width;
        fitted.push(c);
    }
    if room > 0 {
        fitted.push('…');
    }
    fitted
}

/// UTC, because that is what backends show as well.
fn time_of_day(at: UnixNs) -> String {
    let millis = at.0 / 1_000_000;
    let (seconds, millis) = (millis / 1000 % 86_400, millis % 1000);
    format!("{:02}:{:02}:{:02}.{millis:03}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Three digits and a unit.
fn duration(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..999_500 => (ns as f64 / 1e3, "µs"),
        999_500..999_500_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {unit}")
}
