//! What the parser tells of a conversation.
//!
//! A script has an operation a line, as a server sees it: `>` bytes read, `<` bytes written. In
//! them `\r`, `\n`, `\xNN` are escapes, `{N}` stands for N bytes that were not copied, and what is
//! behind it is the operation's suffix; `(TEXT*N)` repeats. Other lines: `> gap N`, `> gap ?`,
//! `> end`, `close`, `vanish`, `# comment`.
//! The answer has a line for each that told something.

mod losses;
mod messages;
mod properties;

use std::fmt::Write as _;

use expect_test::Expect;

use super::*;
use crate::fuzzing::Witness;

/// Runs a script on a connection; what it tells, a line for each operation.
fn run(connection: &mut Connection, script: &str) -> String {
    let mut witness = Witness::default();
    let mut answer = String::new();
    let mut over = false;
    for line in script.lines().map(str::trim_start).filter(|line| !line.is_empty()) {
        let mut said = Vec::new();
        let mut sink = |event: Event<'_>| {
            witness.see(&event);
            said.extend(say(&event));
        };
        let (arrow, rest) = line.split_at_checked(1).expect("an arrow");
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        let direction = if arrow == "<" { Direction::Outbound } else { Direction::Inbound };
        match (arrow, rest) {
            ("#", _) => continue,
            ("c", "lose") => connection.close(&mut sink),
            ("v", "anish") => connection.vanish(&mut sink),
            (_, "gap ?") => connection.gap(direction, None, &mut sink),
            (_, "end") => connection.end(direction, &mut sink),
            (_, gap) if gap.starts_with("gap ") => {
                let bytes = gap[4..].parse().expect("a number");
                connection.gap(direction, Some(bytes), &mut sink);
            }
            (">" | "<", operation) => {
                let (prefix, unseen, suffix) = bytes(operation);
                let len = prefix.len() as u64 + unseen + suffix.len() as u64;
                let segment = Segment { prefix: &prefix, len, suffix: &suffix };
                connection.feed(direction, segment, &mut sink);
            }
            _ => panic!("no operation: {line}"),
        }
        over |= matches!(line, "close" | "vanish");
        if !said.is_empty() {
            let arrow = if over { "." } else { arrow };
            writeln!(answer, "{arrow} {}", said.join(", ")).expect("a string takes all");
        }
    }
    if over {
        witness.at_the_end();
    }
    answer
}

/// An event in short. `None`: the next one implies it.
fn say(event: &Event<'_>) -> Option<String> {
    let size = |bytes: &Option<u64>| bytes.map_or("?".to_owned(), |bytes| bytes.to_string());
    let how = |end: &End| match end {
        End::Complete => "",
        End::CloseDelimited => " by close",
        End::Aborted => " aborted",
        End::Unseen => " unseen",
    };
    let version = |minor: u8, truncated: bool| {
        let version = if minor == 0 { " 1.0" } else { "" };
        format!("{version}{}", if truncated { " cut" } else { "" })
    };
    Some(match event {
        Event::RequestStart { exchange, offset: 0, .. } => format!("{exchange} begins"),
        Event::RequestStart { exchange, offset, .. } => format!("{exchange} begins@{offset}"),
        Event::RequestHead { exchange, head } => {
            let version = version(head.minor_version, head.truncated);
            format!("{exchange} {} {}{version}", head.method, head.target)
        }
        Event::RequestEnd { exchange, body_bytes, end } => {
            format!("{exchange} sent {}{}", size(body_bytes), how(end))
        }
        Event::Interim { exchange, status } => format!("{exchange} interim {status}"),
        Event::ResponseStart { .. } => return None,
        Event::ResponseHead { exchange, head } => {
            let version = version(head.minor_version, head.truncated);
            format!("{exchange} {}{version}", head.status)
        }
        Event::ResponseAdrift { exchange } => format!("{exchange} adrift"),
        Event::ResponseEnd { exchange, body_bytes, end } => {
            format!("{exchange} over {}{}", size(body_bytes), how(end))
        }
        Event::Abandoned { exchange } => format!("{exchange} abandoned"),
        Event::Mistaken { exchange } => format!("{exchange} mistaken"),
        Event::Untold => "untold".to_owned(),
        Event::Unknown { bytes, .. } => format!("unknown {bytes}"),
    })
}

/// Prefix, number of bytes not copied, suffix.
fn bytes(text: &str) -> (Vec<u8>, u64, Vec<u8>) {
    match text.split_once('{') {
        None => (unescape(text), 0, Vec::new()),
        Some((prefix, rest)) => {
            let (unseen, suffix) = rest.split_once('}').expect("a number in braces");
            (unescape(prefix), unseen.parse().expect("a number"), unescape(suffix))
        }
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        match first {
            '\\' => {
                let (escape, behind) = rest.split_at(1);
                rest = behind;
                match escape {
                    "r" => out.push(b'\r'),
                    "n" => out.push(b'\n'),
                    "t" => out.push(b'\t'),
                    "x" => {
                        out.push(u8::from_str_radix(&rest[..2], 16).expect("two digits"));
                        rest = &rest[2..];
                    }
                    _ => panic!("no escape: {escape}"),
                }
            }
            '(' if rest.contains('*') => {
                let (inside, behind) = rest.split_once(')').expect("a bracket");
                let (what, times) = inside.rsplit_once('*').expect("a number of times");
                let what = unescape(what);
                (0..times.parse().expect("a number")).for_each(|_| out.extend(&what));
                rest = behind;
            }
            other => out.extend(other.to_string().as_bytes()),
        }
    }
    out
}

fn check(script: &str, expected: Expect) {
    expected.assert_eq(&run(&mut Connection::default(), script));
}

fn check_older(requests: Option<Direction>, script: &str, expected: Expect) {
    expected.assert_eq(&run(&mut Connection::older(Limits::default(), requests), script));
}
