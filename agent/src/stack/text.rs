//! Stacks as text, as the languages write them.

use std::fmt::Write;

use super::{Frame, Stack, Style};

/// What a stack's innermost frames are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inner {
    /// Code of the program's.
    Own,
    /// The runtime's function that raises.
    Raising,
    /// The functions of Rust's runtime that raise, up to where its own backtraces begin.
    RaisingRust,
}

/// What Rust's own backtraces leave out, and all that it has called.
const RUST_END: &str = "__rust_end_short_backtrace";

/// The text of a stack: a line for each frame, two in Go's style; the last says why there are no more.
pub fn text(stack: &Stack, inner: Inner) -> String {
    if stack.frames.first().is_some_and(|frame| frame.style == Style::Python) {
        return python(stack);
    }
    let mut text = String::new();
    let end = |frame: &Frame| frame.function.contains(RUST_END);
    // With what is inlined into it.
    let first = || stack.frames.iter().position(|frame| !frame.is_inlined).map_or(0, |at| at + 1);
    let left_out = match inner {
        Inner::Own => 0,
        Inner::Raising => first(),
        Inner::RaisingRust => stack.frames.iter().position(end).map_or_else(first, |at| at + 1),
    };
    for frame in stack.frames.iter().skip(left_out) {
        // Writing to a string cannot fail.
        let _ = match frame.style {
            Style::Native | Style::Python => native(frame, &mut text),
            Style::Go => go(frame, &mut text),
        };
    }
    match &stack.end {
        Some(end) => text += &format!("… (not followed further: {end})"),
        None => text.truncate(text.trim_end().len()),
    }
    text
}

/// As Python writes a stack that is no traceback: what has caught an exception is not known here.
fn python(stack: &Stack) -> String {
    let mut lines = vec!["Stack (most recent call last):".to_owned()];
    lines.extend(stack.end.as_ref().map(|end| format!("  … (not followed further: {end})")));
    lines.extend(stack.frames.iter().rev().map(|Frame { function, file, line, .. }| match line {
        0 => format!("  File \"{file}\", in {function}"),
        line => format!("  File \"{file}\", line {line}, in {function}"),
    }));
    lines.join("\n")
}

fn native(frame: &Frame, text: &mut String) -> std::fmt::Result {
    let Frame { function, offset, module, file, line, is_inlined, by_frame_pointer, .. } = frame;
    write!(text, "at ")?;
    match (function.as_str(), module.as_str()) {
        ("", "") => write!(text, "{offset:#x} (unknown)"),
        ("", module) => write!(text, "{offset:#x} ({module})"),
        (function, _) if !file.is_empty() && *line > 0 => {
            write!(text, "{function} ({file}:{line})")
        }
        (function, _) if !file.is_empty() => write!(text, "{function} ({file})"),
        (function, module) if *is_inlined => write!(text, "{function} ({module})"),
        (function, module) => write!(text, "{function}+{offset:#x} ({module})"),
    }?;
    text.push_str(if *is_inlined { " [inlined]" } else { "" });
    writeln!(text, "{}", if *by_frame_pointer { " [by frame pointer]" } else { "" })
}

fn go(frame: &Frame, text: &mut String) -> std::fmt::Result {
    let Frame { function, offset, file, line, .. } = frame;
    writeln!(text, "{function}(...)")?;
    let file = if file.is_empty() { "?" } else { file };
    match offset {
        // Inlined.
        0 => writeln!(text, "\t{file}:{line}"),
        offset => writeln!(text, "\t{file}:{line} +{offset:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_lines() {
        let frame = |function: &str, file: &str, style| Frame {
            function: function.to_owned(),
            offset: 0x1d,
            module: "program".to_owned(),
            file: file.to_owned(),
            line: 12,
            style,
            ..Frame::default()
        };
        let inlined = Frame { is_inlined: true, ..frame("app::next", "lex.h", Style::Native) };
        let frames = vec![
            inlined.clone(),
            Frame { file: String::new(), line: 0, ..inlined.clone() },
            Frame { line: 0, by_frame_pointer: true, ..inlined },
            frame("app::parse", "parse.cpp", Style::Native),
            frame("main", "", Style::Native),
            frame("", "", Style::Native),
            frame("main.work", "/src/main.go", Style::Go),
        ];
        let mut stack = Stack { frames, end: Some("more than 64 frames".to_owned()) };
        assert_eq!(
            text(&stack, Inner::Own),
            "at app::next (lex.h:12) [inlined]\n\
             at app::next (program) [inlined]\n\
             at app::next (lex.h) [inlined] [by frame pointer]\n\
             at app::parse (parse.cpp:12)\n\
             at main+0x1d (program)\n\
             at 0x1d (program)\n\
             main.work(...)\n\
             \t/src/main.go:12 +0x1d\n\
             … (not followed further: more than 64 frames)"
        );
        stack.end = None;
        // What raises, and what is inlined into it, is not the program's.
        assert!(text(&stack, Inner::Raising).starts_with("at main+0x1d"));
        assert!(text(&stack, Inner::Raising).ends_with("+0x1d"));
    }
}
