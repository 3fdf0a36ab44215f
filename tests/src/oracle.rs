//! A server's own log as the truth about what it did, and how a span is held against it.
//!
//! Where the two differ by definition, the definition is written here:
//! * A status is what was written. A server that could write nothing logs one all the same (499, 400);
//!   the span has none and says `connection_closed`.
//! * A size is content without chunks' framing, right or not told.
//! * A request that was read behind another one, but never looked at because the connection ended, is
//!   a span without an answer; no server logs it.
//! * What is not HTTP/1 is no span. What ended before its first line did is counted, not told.

use std::collections::BTreeMap;

use crate::load::{Kind, Outcome};
use crate::spans::Span;

/// What a server's log says about a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The method.
    pub method: String,
    /// The path as it was asked for.
    pub path: String,
    /// The status, written or not.
    pub status: u16,
    /// Bytes written, head and body; `None` if the log does not tell.
    pub sent_bytes: Option<u64>,
    /// Bytes written behind the head, framing included; `None` if the log does not tell.
    pub body_bytes: Option<u64>,
    /// The client's port.
    pub peer_port: Option<u16>,
    /// When the server began and ended by its own clock, nanoseconds since 1970, each as early as the
    /// clock's resolution allows; `None` if the log does not tell.
    pub times: Option<(u64, u64)>,
    /// The process that wrote it.
    pub pid: u32,
}

/// The token in a path.
pub fn token(path: &str) -> Option<usize> {
    path.strip_prefix('/')?.split('/').next()?.parse().ok()
}

/// Whether the agent was given the means to tell everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// Every byte of every request was copied: everything must be told.
    Enough,
    /// Bytes of long operations were not copied. What follows a body that cannot be followed, on a
    /// connection that pipelines, or in pieces of a line, is counted instead of told.
    Cut,
    /// Events were lost: what is told must be true, and there may be less of it.
    Lost,
}

/// Which requests a server logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logs {
    /// Every one that it has looked at.
    All,
    /// Not those that it threw away unanswered, or whose head was not whole.
    Served,
}

/// What a comparison has found.
#[derive(Debug, Default)]
pub struct Found {
    /// What must not be; one text each.
    pub wrong: Vec<String>,
    /// Lines of requests that have an answer but no span.
    pub untold: u64,
    /// Lines of requests that ended, or turned out to be no HTTP/1, before their first line did, and
    /// have no answer.
    pub unfinished: u64,
    /// Spans of requests that the server had read but never looked at.
    pub unlooked: u64,
}

/// Holds every span against the log and against what its client knows, and the other way round.
pub fn compare(
    spans: &[&Span],
    lines: &[Line],
    outcomes: &[Outcome],
    means: Means,
    logs: Logs,
) -> Found {
    let mut found = Found::default();
    let mut by_token: BTreeMap<usize, Vec<&Span>> = BTreeMap::new();
    for span in spans {
        match token(span.path()) {
            Some(token) => by_token.entry(token).or_default().push(span),
            None => found.wrong.push(format!("a span without a token: {span:?}")),
        }
    }
    let outcomes = by_number(outcomes);
    for line in lines {
        let answered = line.sent_bytes != Some(0);
        let Some(token) = token(&line.path) else {
            // The first line was not whole, or not HTTP/1's.
            *if answered { &mut found.untold } else { &mut found.unfinished } += 1;
            continue;
        };
        let Some(outcome) = outcomes.get(&token) else {
            found.wrong.push(format!("logged but never sent: {line:?}"));
            continue;
        };
        match &by_token.remove(&token).unwrap_or_default()[..] {
            [span] => found.wrong.extend(one(span, line, outcome, means)),
            [] if means == Means::Enough || (means == Means::Cut && !outcome.is_hard) => {
                found.wrong.push(format!("no span: {line:?} {}", brief(outcome)));
            }
            [] => found.untold += u64::from(answered),
            several => found.wrong.push(format!("several spans: {line:?} {several:#?}")),
        }
    }
    for (token, spans) in by_token {
        let is_unlooked = |span: &Span| {
            let unanswered = status(span).is_none();
            outcomes.get(&token).is_some_and(|outcome| match logs {
                Logs::All => outcome.pipelined && unanswered,
                // What is not whole is answered with a 400 and logged without its path.
                Logs::Served => outcome.answer.is_none() && (unanswered || !outcome.sent),
            })
        };
        if spans.len() == 1 && is_unlooked(spans[0]) {
            found.unlooked += 1;
        } else {
            let outcome = outcomes.get(&token).map(|outcome| brief(outcome));
            let statuses: Vec<_> = spans.iter().map(|span| status(span)).collect();
            found.wrong.push(format!("no line: {statuses:?} {outcome:?} {spans:?}"));
        }
    }
    found
}

fn by_number(outcomes: &[Outcome]) -> BTreeMap<usize, &Outcome> {
    outcomes.iter().map(|outcome| (outcome.token, outcome)).collect()
}

fn status(span: &Span) -> Option<u16> {
    span.int("http.response.status_code").and_then(|status| status.try_into().ok())
}

fn brief(outcome: &Outcome) -> String {
    let answer = outcome.answer.as_ref().map(|answer| (answer.status, answer.content_bytes));
    format!(
        "{} {:?} answer={answer:?} sent={} pipelined={}",
        outcome.token, outcome.kind, outcome.sent, outcome.pipelined
    )
}

/// One span, its line and what its client knows.
fn one(span: &Span, line: &Line, outcome: &Outcome, means: Means) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |what: &str, said: String, truth: String| {
        if said != truth {
            let brief = brief(outcome);
            found.push(format!("{what}: span {said}, truth {truth}: {line:?} {brief} {span:?}"));
        }
    };
    check("method", span.text("http.request.method").to_owned(), line.method.clone());
    check("path", span.path().to_owned(), line.path.clone());
    // A log that counts what it meant to send does not tell whether anything was.
    let perhaps = line.sent_bytes.is_none() && outcome.answer.is_none();
    let lossy = means == Means::Lost || perhaps;
    let written = (line.sent_bytes != Some(0)).then_some(line.status);
    if status(span).is_some() || !lossy {
        check("status", format!("{:?}", status(span)), format!("{written:?}"));
    }
    if let Some(port) = line.peer_port {
        check("peer", format!("{:?}", span.int("network.peer.port")), format!("{:?}", Some(port)));
    }
    if written.is_none() && !lossy {
        check("error", span.text("error.type").to_owned(), "connection_closed".to_owned());
    }
    let said = span.int("http.response.body.size").map(|size| size as u64);
    let chunked = outcome.kind == Kind::Chunks && line.status == 200;
    match (said, &outcome.answer) {
        (Some(said), Some(answer)) => {
            check("response body", said.to_string(), answer.content_bytes.to_string());
        }
        (Some(said), None) if !chunked => {
            if let Some(body) = line.body_bytes {
                check("response body", said.to_string(), body.to_string());
            } else if let Some(sent) = line.sent_bytes {
                // Only with the head, which is some hundred bytes.
                let is_less = (50..1000).contains(&sent.saturating_sub(said));
                check("response body and head", is_less.to_string(), true.to_string());
            }
        }
        (Some(said), None) => {
            let most = line.body_bytes.unwrap_or(u64::MAX);
            check("response body bound", (said <= most).to_string(), true.to_string());
        }
        (None, _) => {
            let may_lack = chunked || written.is_none() || lossy;
            check("response body told", may_lack.to_string(), true.to_string());
        }
    }
    if let (Some(answer), Some(said)) = (&outcome.answer, status(span)) {
        check("client's status", said.to_string(), answer.status.to_string());
    }
    if let Some(said) = span.int("http.request.body.size") {
        let whole = outcome.answer.is_some() && outcome.sent && line.status < 400;
        let most = outcome.content_bytes as i64;
        let truth = if whole { most } else { most.min(said) };
        check("request body", said.to_string(), truth.to_string());
    }
    found
}

/// Holds the spans' times against a log whose clock stands still between two turns of a worker's
/// loop, as nginx's does: what a turn does happens after the time it logs and, since a worker does
/// one thing at a time, before any later time that the same worker logs.
///
/// By definition a request begins when its first byte is read, though a server may look at it only
/// when the one before it has been answered; a server that closes may wait for its client before it
/// logs; and a request that nothing was written for ends with its connection, which the server may
/// learn later.
pub fn compare_times(spans: &[&Span], lines: &[Line], outcomes: &[Outcome]) -> Vec<String> {
    let mut clocks: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let mut by_token: BTreeMap<usize, &Line> = BTreeMap::new();
    for line in lines {
        let (began, ended) = line.times.expect("the log tells");
        clocks.entry(line.pid).or_default().extend([began, ended]);
        by_token.extend(token(&line.path).map(|token| (token, line)));
    }
    for clock in clocks.values_mut() {
        clock.sort_unstable();
    }
    let outcomes = by_number(outcomes);
    let mut found = Vec::new();
    for span in spans {
        let Some(token) = token(span.path()) else { continue };
        let (Some(line), Some(outcome)) = (by_token.get(&token), outcomes.get(&token)) else {
            continue;
        };
        let (Some((began, ended)), Some(clock)) = (line.times, clocks.get(&line.pid)) else {
            continue;
        };
        let next = |time: u64| clock.get(clock.partition_point(|at| *at <= time)).copied();
        let is_before_next =
            |at: u64, time: u64| next(time).is_none_or(|next| at <= next + SLACK_NS);
        let is_behind = |at: u64, time: u64| at + SLACK_NS >= time;
        let begins_late = is_behind(span.start, began) || outcome.pipelined;
        if !begins_late || !is_before_next(span.start, began) {
            found.push(format!("starts at {}: {line:?} {} {span:?}", span.start, brief(outcome)));
        }
        let ends_late =
            is_behind(span.end, ended) || outcome.kind.closes() || line.sent_bytes == Some(0);
        if !ends_late || !is_before_next(span.end, ended) {
            found.push(format!("ends at {}: {line:?} {} {span:?}", span.end, brief(outcome)));
        }
    }
    found
}

/// Holds the spans' times against a log whose clock is read when a request has been read and when
/// it has been answered: both happen within the span, or around its ends.
pub fn compare_precise_times(spans: &[&Span], lines: &[Line], outcomes: &[Outcome]) -> Vec<String> {
    let lines: BTreeMap<usize, &Line> =
        lines.iter().filter_map(|line| Some((token(&line.path)?, line))).collect();
    let outcomes = by_number(outcomes);
    let mut found = Vec::new();
    for span in spans {
        let Some(token) = token(span.path()) else { continue };
        let (Some(line), Some(outcome)) = (lines.get(&token), outcomes.get(&token)) else {
            continue;
        };
        let Some((began, ended)) = line.times else { continue };
        let begins_before = span.start <= began + SLACK_NS;
        let ends_before = span.end <= ended + SLACK_NS;
        if !begins_before || !ends_before || span.end + SLACK_NS < began {
            let (start, end) = (span.start, span.end);
            found.push(format!("{start} to {end}: {line:?} {} {span:?}", brief(outcome)));
        }
    }
    found
}

/// What a clock in milliseconds and the agent's view of wall time may be apart.
const SLACK_NS: u64 = 1_000_000;
