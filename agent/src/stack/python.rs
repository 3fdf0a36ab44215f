//! Frames of CPython as the kernel half has copied them (`agent_common::function::InterpretedFrame`).

use agent_common::function::{frame_flags, image_flags, string_bits};

use super::{Frame, Stack, Style};

/// Bytes of a frame's fixed part.
const HEAD: usize = size_of::<agent_common::function::InterpretedFrame>();

/// From this one on (`FRAME_OWNED_BY_CSTACK`), who owns a frame is no code of Python's.
const OF_INTERPRETER: u8 = 3;

/// How a table says on which line an instruction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Lines {
    /// From 3.11 on: `Objects/locations.md`.
    Places,
    /// 3.10: `Objects/lnotab_notes.txt`, `co_linetable`.
    Ranges,
    /// Before: `Objects/lnotab_notes.txt`, `co_lnotab`.
    Steps,
}

impl Lines {
    fn of(written: u32) -> Option<Self> {
        [Self::Places, Self::Ranges, Self::Steps].into_iter().find(|lines| *lines as u32 == written)
    }

    /// The line of an instruction, by a table or the start of one. `None` if that does not reach it, or
    /// says that it has none.
    fn line(self, table: &[u8], is_cut: bool, first_line: u32, at: i32) -> Option<u32> {
        let at = u64::try_from(at).ok()?;
        let line = match self {
            Self::Places => by_places(table, first_line, at),
            Self::Ranges => by_ranges(table, first_line, at),
            Self::Steps => by_steps(table, is_cut, first_line, at),
        };
        u32::try_from(line?).ok().filter(|line| *line > 0)
    }
}

/// The stack that was copied.
pub fn stack(bytes: &[u8], flags: u32, written: u32) -> Stack {
    let mut stack = Stack::default();
    let mut rest = bytes;
    let lines = Lines::of(written);
    while let Some((head, behind)) = rest.split_first_chunk::<HEAD>() {
        let Some((frame, behind)) = frame(head, behind, lines) else { break };
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
fn frame<'a>(
    head: &[u8; HEAD],
    behind: &'a [u8],
    lines: Option<Lines>,
) -> Option<(Option<Frame>, &'a [u8])> {
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
    let is_cut = !is_read(frame_flags::TABLE_CUT);
    let line = lines.filter(|_| is_read(frame_flags::NO_TABLE));
    let line = line.and_then(|lines| lines.line(table, is_cut, first_line, at));
    let frame = Frame {
        function: text(name, word(16)?, word(24)?, is_read(frame_flags::NO_NAME)),
        file: text(file, word(20)?, word(28)?, is_read(frame_flags::NO_FILE)),
        line: line.unwrap_or_default(),
        style: Style::Python,
        ..Frame::default()
    };
    Some((Some(frame), rest))
}

/// A string; one that could not be read is a question mark.
fn text(bytes: &[u8], state: u32, length: u32, is_read: bool) -> String {
    let Some(text) = characters(bytes, state).filter(|_| is_read) else { return "?".to_owned() };
    let is_cut = usize::try_from(length).is_ok_and(|length| text.chars().count() < length);
    let cut = if is_cut { "…" } else { "" };
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    text + cut
}

/// The characters of a string that were copied, by its [`string_bits`].
pub(crate) fn characters(bytes: &[u8], state: u32) -> Option<String> {
    if state & string_bits::COMPACT == 0 {
        return None;
    }
    match state & string_bits::KIND {
        1 if state & string_bits::ASCII != 0 && !bytes.is_ascii() => None,
        1 => Some(bytes.iter().map(|byte| char::from(*byte)).collect()),
        2 => {
            let points = bytes.as_chunks::<2>().0.iter().map(|point| u16::from_le_bytes(*point));
            points.map(|point| char::from_u32(point.into())).collect()
        }
        4 => {
            let points = bytes.as_chunks::<4>().0.iter().map(|point| u32::from_le_bytes(*point));
            points.map(char::from_u32).collect()
        }
        _ => None,
    }
}

fn by_places(table: &[u8], first_line: u32, at: u64) -> Option<i64> {
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
            return has_line.then_some(line);
        }
    }
}

/// Pairs: of how many bytes of code, and how many lines further on those are.
fn by_ranges(table: &[u8], first_line: u32, at: u64) -> Option<i64> {
    const NO_LINE: i8 = -128;
    let (mut line, mut end) = (i64::from(first_line), 0u64);
    for [bytes, lines] in table.as_chunks::<2>().0 {
        let lines = lines.cast_signed();
        end += u64::from(*bytes);
        line += if lines == NO_LINE { 0 } else { i64::from(lines) };
        if at < end {
            return (lines != NO_LINE).then_some(line);
        }
    }
    None
}

/// Pairs: after how many bytes of code there are how many lines more. The last line has no end.
fn by_steps(table: &[u8], is_cut: bool, first_line: u32, at: u64) -> Option<i64> {
    let (mut line, mut start) = (i64::from(first_line), 0u64);
    for [bytes, lines] in table.as_chunks::<2>().0 {
        start += u64::from(*bytes);
        if start > at {
            return Some(line);
        }
        line += i64::from(lines.cast_signed());
    }
    (!is_cut).then_some(line)
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

    const ASCII: u32 = string_bits::COMPACT | string_bits::ASCII | 1;

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
        let lines = |at| Lines::Places.line(&TABLE, false, 7, at);
        assert_eq!([lines(0), lines(2), lines(4), lines(6)], [Some(7), Some(8), Some(6), Some(6)]);
        assert_eq!([lines(8), lines(10), lines(-2)], [None, None, None]);
        assert_eq!(Lines::Places.line(&TABLE[..3], true, 7, 4), None);
    }

    #[test]
    fn lines_of_older_versions() {
        // Two lines on from byte 6 on, no line from 10 on, three back from there.
        let table = [6, 0, 4, 2, 2, 0x80, 4, 0xfd];
        let lines = |at| Lines::Ranges.line(&table, false, 7, at);
        assert_eq!([lines(0), lines(5), lines(6), lines(9)], [Some(7), Some(7), Some(9), Some(9)]);
        assert_eq!([lines(10), lines(12), lines(16), lines(-1)], [None, Some(6), None, None]);
        // Two lines on from byte 6 on, 300 more from 10 on, three back from 12 on.
        let table = [6, 2, 4, 127, 0, 127, 0, 46, 2, 0xfd];
        let line = |table, at| Lines::Steps.line(table, false, 7, at);
        let lines = |at| line(&table, at);
        assert_eq!([lines(0), lines(5), lines(6), lines(9)], [Some(7), Some(7), Some(9), Some(9)]);
        assert_eq!([lines(10), lines(11), lines(12)], [Some(309), Some(309), Some(306)]);
        assert_eq!([lines(5000), lines(-1), line(&[], 3)], [Some(306), None, Some(7)]);
        let cut = |at| Lines::Steps.line(&table[..2], true, 7, at);
        assert_eq!([cut(5), cut(6)], [Some(7), None]);
    }

    #[test]
    fn names_of_other_characters() {
        let (compact, ascii) = (string_bits::COMPACT, string_bits::ASCII);
        let text = |bytes: &[u8], state, length| super::text(bytes, state, length, true);
        assert_eq!(text(b"gr\xf6\xdfe", compact | 1, 5), "größe");
        assert_eq!(text(&[0x3a, 4, 0x3e, 4], compact | 2, 3), "ко…");
        assert_eq!(text(&[0x80, 0xf3, 1, 0, b'a', 0, 0, 0], compact | 4, 2), "\u{1f380}a");
        for (bytes, state) in
            [(b"f", 1), (b"f", compact), (b"f", compact | 3), (b"\xf6", compact | ascii | 1)]
        {
            assert_eq!(text(bytes, state, 1), "?");
        }
        assert_eq!(text(&[0, 0xd8], compact | 2, 1), "?", "half a character");
    }

    #[test]
    fn frames_of_the_interpreter_are_left_out() {
        let bytes = [
            copied("C.f", "/a.py", &TABLE, 2, 0),
            copied("<interpreter trampoline>", "<shim>", &[], 0, 3),
            copied("<module>", "/b.py", &[], 0, 0),
        ]
        .concat();
        let stack = stack(&bytes, image_flags::INTERPRETED, Lines::Places as u32);
        let frames: Vec<_> =
            stack.frames.iter().map(|f| (f.function.as_str(), f.file.as_str(), f.line)).collect();
        assert_eq!(frames, [("C.f", "/a.py", 8), ("<module>", "/b.py", 0)]);
        assert_eq!(stack.end, None);
    }

    #[test]
    fn whatever_was_copied_has_an_end() {
        let bytes = [copied("f", "a.py", &TABLE, 2, 0), copied("g", "b.py", &TABLE, 4, 1)].concat();
        for cut in 0..bytes.len() {
            assert!(stack(&bytes[..cut], image_flags::CUT, 0).frames.len() <= 2);
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                for written in 0..4 {
                    let _ = stack(&changed, 0, written);
                }
            }
        }
    }
}
