//! Frames of CPython as the kernel half has copied them (`agent_common::function::InterpretedFrame`).

use agent_common::function::{frame_flags, image_flags};

use super::{Frame, Stack, Style};

/// Bytes of a frame's fixed part.
const HEAD: usize = size_of::<agent_common::function::InterpretedFrame>();

/// Bits of a string's state: it is compact, and of ASCII characters alone.
const ASCII: u32 = 3 << 5;

/// From this one on (`FRAME_OWNED_BY_CSTACK`), who owns a frame is no code of Python's.
const OF_INTERPRETER: u8 = 3;

/// The stack that was copied.
pub fn stack(bytes: &[u8], flags: u32) -> Stack {
    let mut stack = Stack::default();
    let mut rest = bytes;
    while let Some((head, behind)) = rest.split_first_chunk::<HEAD>() {
        let Some((frame, behind)) = frame(head, behind) else { break };
        stack.frames.extend(frame);
        rest = behind;
    }
    stack.end = if flags & image_flags::FAULT != 0 {
        Some("a frame could not be read".to_owned())
    } else if flags & image_flags::CUT != 0 {
        Some("there are too many frames".to_owned())
    } else {
        None
    };
    stack
}

/// The frame, unless it is none of Python's code, and what is behind it.
fn frame<'a>(head: &[u8; HEAD], behind: &'a [u8]) -> Option<(Option<Frame>, &'a [u8])> {
    let half = |at: usize| Some(u16::from_le_bytes(*head.get(at..)?.first_chunk()?));
    let word = |at: usize| Some(u32::from_le_bytes(*head.get(at..)?.first_chunk()?));
    let (first_line, at) = (word(0)?, word(4)?.cast_signed());
    let [owner, flags] = [*head.get(8)?, *head.get(9)?];
    let lengths = [half(10)?, half(12)?, half(14)?].map(usize::from);
    let [name, file, table] = lengths;
    let (name, after) = behind.split_at_checked(name)?;
    let (file, after) = after.split_at_checked(file)?;
    let (table, _) = after.split_at_checked(table)?;
    let all = lengths.iter().sum::<usize>().next_multiple_of(8);
    let rest = behind.get(all.min(behind.len())..)?;
    if owner >= OF_INTERPRETER {
        return Some((None, rest));
    }
    let is_read = |flag| flags & flag == 0;
    let frame = Frame {
        function: text(name, word(16)?, word(24)?, is_read(frame_flags::NO_NAME)),
        file: text(file, word(20)?, word(28)?, is_read(frame_flags::NO_FILE)),
        line: line(table, first_line, at).filter(|_| is_read(frame_flags::NO_TABLE)).unwrap_or(0),
        style: Style::Python,
        ..Frame::default()
    };
    Some((Some(frame), rest))
}

/// A string; what could not be read or is not of ASCII characters is a question mark.
fn text(bytes: &[u8], state: u32, length: u32, is_read: bool) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if is_read && state & ASCII == ASCII => {
            let is_cut = usize::try_from(length).is_ok_and(|length| text.len() < length);
            let cut = if is_cut { "…" } else { "" };
            let text: String = text.chars().filter(|c| !c.is_control()).collect();
            text + cut
        }
        _ => "?".to_owned(),
    }
}

/// The line of an instruction, by the start of a table of places (CPython, `Objects/locations.md`). `None`
/// if the table does not reach it, or says that it has none.
fn line(table: &[u8], first_line: u32, at: i32) -> Option<u32> {
    let at = u64::try_from(at).ok()?;
    let mut bytes = table.iter().copied().peekable();
    let (mut line, mut end) = (i64::from(first_line), 0u64);
    loop {
        let head = bytes.next().filter(|byte| byte & 0x80 != 0)?;
        let kind = head >> 3 & 15;
        let has_line = kind != 15;
        line += match kind {
            13 | 14 => signed(&mut bytes)?,
            11 => 1,
            12 => 2,
            _ => 0,
        };
        // Columns: up to the next entry, whose first bit is set.
        while bytes.next_if(|byte| byte & 0x80 == 0).is_some() {}
        end += (u64::from(head & 7) + 1) * 2;
        if at < end {
            return u32::try_from(line).ok().filter(|line| has_line && *line > 0);
        }
    }
}

/// A number in pieces of six bits, its sign in the lowest.
fn signed(bytes: &mut impl Iterator<Item = u8>) -> Option<i64> {
    let mut value = 0i64;
    for shift in (0..36).step_by(6) {
        let byte = bytes.next()?;
        value |= i64::from(byte & 0x3f) << shift;
        if byte & 0x40 == 0 {
            return Some(if value & 1 != 0 { -(value >> 1) } else { value >> 1 });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(name: &str, file: &str, table: &[u8], at: i32, owner: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(7u32.to_le_bytes());
        bytes.extend(at.to_le_bytes());
        bytes.extend([owner, 0]);
        for length in [name.len(), file.len(), table.len()] {
            bytes.extend((length as u16).to_le_bytes());
        }
        for word in [ASCII, ASCII, name.len() as u32, file.len() as u32] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend([name.as_bytes(), file.as_bytes(), table].concat());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    // As 3.11 writes it for two lines: a short form, one line on, no columns two lines back, no line.
    const TABLE: [u8; 9] = [0x80, 0x00, 0x80 | 11 << 3, 1, 2, 0x80 | 13 << 3 | 1, 5, 0xf8, 0];

    #[test]
    fn lines_by_the_table_of_places() {
        let lines = |at| line(&TABLE, 7, at);
        assert_eq!([lines(0), lines(2), lines(4), lines(6)], [Some(7), Some(8), Some(6), Some(6)]);
        assert_eq!([lines(8), lines(10), lines(-2)], [None, None, None]);
        assert_eq!(line(&TABLE[..3], 7, 4), None);
    }

    #[test]
    fn frames_of_the_interpreter_are_left_out() {
        let bytes = [
            copied("C.f", "/a.py", &TABLE, 2, 0),
            copied("<interpreter trampoline>", "<shim>", &[], 0, 3),
            copied("<module>", "/b.py", &[], 0, 0),
        ]
        .concat();
        let stack = stack(&bytes, image_flags::INTERPRETED);
        let frames: Vec<_> =
            stack.frames.iter().map(|f| (f.function.as_str(), f.file.as_str(), f.line)).collect();
        assert_eq!(frames, [("C.f", "/a.py", 8), ("<module>", "/b.py", 0)]);
        assert_eq!(stack.end, None);
    }

    #[test]
    fn whatever_was_copied_has_an_end() {
        let bytes = [copied("f", "a.py", &TABLE, 2, 0), copied("g", "b.py", &TABLE, 4, 1)].concat();
        for cut in 0..bytes.len() {
            assert!(stack(&bytes[..cut], image_flags::CUT).frames.len() <= 2);
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let _ = stack(&changed, 0);
            }
        }
    }
}
