//! A value put into words, as its language would write it. What could not be read says so; how much there
//! is has a bound, whatever the bytes or the plan say.

use std::fmt::Write as _;

use agent_common::function::chunk_status;

use super::chunks::{Chunks, Image};
use super::interface::{error_text, type_name};
use super::show::{Case, Field, Show};
use crate::inspect::dwarf::place::Unreadable;

/// Most bytes of one value's text.
const TEXT_MAX: usize = 2048;
/// Plans within plans; what compiles is less deep.
const DEPTH_MAX: u32 = 40;
/// Most elements of one list.
const ELEMENTS_MAX: u64 = 256;

/// A value's text while it is put together.
pub(super) struct Text<'c> {
    chunks: &'c Chunks<'c>,
    pub(super) out: String,
    /// Whether this is a value of its own, so that text has no quotes.
    pub(super) bare: bool,
    /// Why the value itself could not be read.
    pub(super) failed: Option<Unreadable>,
}

impl<'c> Text<'c> {
    pub(super) fn new(chunks: &'c Chunks<'c>) -> Self {
        Self { chunks, out: String::new(), bare: false, failed: None }
    }

    fn full(&self) -> bool {
        self.out.len() >= TEXT_MAX
    }

    pub(super) fn push(&mut self, text: &str) {
        if !self.full() {
            self.out.push_str(text);
        }
    }

    fn number(&mut self, number: impl std::fmt::Display) {
        if !self.full() {
            // Writing to a string does not fail.
            let _ = write!(self.out, "{number}");
        }
    }

    fn unavailable(&mut self, reason: Unreadable) {
        if self.bare {
            self.failed = Some(reason);
        } else {
            self.number(format_args!("<{reason}>"));
        }
    }

    pub(super) fn show(&mut self, show: &Show, image: Image<'_>, at: u64, depth: u32) {
        if self.full() || depth > DEPTH_MAX {
            return self.push("…");
        }
        if let Err(reason) = self.try_show(show, image, at, depth) {
            self.unavailable(reason);
        }
        self.bare = false;
    }

    fn try_show(
        &mut self,
        show: &Show,
        image: Image<'_>,
        at: u64,
        depth: u32,
    ) -> Result<(), Unreadable> {
        match show {
            Show::Nothing => self.push("()"),
            Show::Unavailable(reason) => return Err(*reason),
            Show::Int { bytes: 16, signed } => {
                let part: [u8; 16] =
                    image.part(at, 16)?.try_into().map_err(|_| Unreadable::Invalid)?;
                if *signed {
                    self.number(i128::from_le_bytes(part));
                } else {
                    self.number(u128::from_le_bytes(part));
                }
            }
            Show::Int { bytes, signed: true } => {
                let number = image.signed(at, *bytes)?;
                self.number(number);
            }
            Show::Int { bytes, signed: false } => {
                let number = image.number(at, *bytes)?;
                self.number(number);
            }
            Show::Bits { first, count, signed, names } => {
                let number = bits(image, at, *first, *count, *signed)?;
                match names.iter().find(|(value, _)| *value == number) {
                    Some((_, name)) => self.push(&name.0),
                    None if *signed => self.number(number),
                    None => self.number(number as u64),
                }
            }
            Show::Bool => match image.number(at, 1)? {
                0 => self.push("false"),
                1 => self.push("true"),
                _ => return Err(Unreadable::Invalid),
            },
            Show::Char { bytes } => {
                let number = image.number(at, *bytes)?;
                let found = u32::try_from(number).ok().and_then(char::from_u32);
                match found {
                    // C's are bytes of any encoding.
                    Some(c) if *bytes > 1 || c.is_ascii_graphic() || c == ' ' => {
                        self.number(format_args!("{c:?}"));
                    }
                    Some(_) if *bytes == 1 => {
                        let number = image.signed(at, 1)?;
                        self.number(number);
                    }
                    _ => return Err(Unreadable::Invalid),
                }
            }
            Show::Enum { bytes, signed, names } => {
                let number = image.number(at, *bytes)?;
                let extended = if *signed { image.signed(at, *bytes)? } else { number as i64 };
                match names.iter().find(|(value, _)| *value == extended) {
                    Some((_, name)) => self.push(&name.0),
                    None if *signed => self.number(extended),
                    None => self.number(number),
                }
            }
            Show::Address => self.address(image.number(at, 8)?),
            Show::Pointer { chunk, bytes, reference, to } => {
                let address = image.number(at, 8)?;
                let behind = Image::of(self.chunks.get(*chunk));
                if address < 4096 || behind.bytes.len() < *bytes as usize {
                    self.address(address);
                } else if depth > DEPTH_MAX {
                    self.push("…");
                } else if *reference {
                    // Written like what it refers to.
                    self.try_show(to, behind, 0, depth + 1)?;
                } else {
                    self.push("&");
                    self.show_inner(to, behind, 0, depth);
                }
            }
            Show::CString { chunk } => self.c_string(image.number(at, 8)?, *chunk),
            Show::Text { chunk, length_at, length_bytes, shift } => {
                let length = image.number(at.saturating_add(*length_at), *length_bytes)?;
                let length = length.checked_shr((*shift).into()).unwrap_or(0);
                self.text(*chunk, length)?;
            }
            Show::ShortString {
                long_bit_at,
                long_mask,
                size_at,
                size_shift,
                inline_at,
                inline_bytes,
                text,
            } => {
                let flags = image.number(at.saturating_add(*long_bit_at), 1)?;
                if flags & u64::from(*long_mask) != 0 {
                    return self.try_show(text, image, at, depth + 1);
                }
                let size = image.number(at.saturating_add(*size_at), 1)?;
                let length = size.checked_shr((*size_shift).into()).unwrap_or(0);
                if length > u64::from(*inline_bytes) {
                    return Err(Unreadable::Invalid);
                }
                let bytes = image.part(at.saturating_add(*inline_at), length)?;
                self.characters(bytes, false);
            }
            Show::Slice { chunk, length_at, stride, of } => {
                let length = image.number(at.saturating_add(*length_at), 8)?;
                self.elements(*chunk, length, *stride, of, depth)?;
            }
            Show::Span { chunk, from_at, to_at, stride, of } => {
                let from = image.number(at.saturating_add(*from_at), 8)?;
                let to = image.number(at.saturating_add(*to_at), 8)?;
                let bytes = to.checked_sub(from).ok_or(Unreadable::Invalid)?;
                let length = bytes.checked_div((*stride).into()).ok_or(Unreadable::Invalid)?;
                self.elements(*chunk, length, *stride, of, depth)?;
            }
            Show::Array { count, shown, stride, of } => {
                self.push("[");
                for number in 0..u64::from(*shown).min(*count).min(ELEMENTS_MAX) {
                    if number > 0 {
                        self.push(", ");
                    }
                    let from = number.checked_mul((*stride).into());
                    let from = from.and_then(|from| from.checked_add(at));
                    self.show_inner(of, image, from.ok_or(Unreadable::Invalid)?, depth);
                }
                if u64::from(*shown) < *count {
                    self.push(", …");
                }
                self.push("]");
            }
            Show::CharArray { bytes } => {
                let bytes = image.part(at, (*bytes).into())?;
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                self.characters(bytes.get(..end).unwrap_or_default(), false);
            }
            Show::Struct { fields, .. } if is_tuple(fields) => {
                self.push("(");
                self.fields(show, image, at, depth);
                self.push(")");
            }
            Show::Struct { .. } => {
                self.push("{");
                self.fields(show, image, at, depth);
                self.push("}");
            }
            Show::Variants { tag_at, tag_bytes, variants } => {
                let case = case_of(image, *tag_at, *tag_bytes, variants, at)?;
                self.push(&case.name.0);
                let at = at.saturating_add(case.at);
                match &case.show {
                    Show::Struct { fields, .. } if fields.is_empty() => {}
                    Show::Nothing => {}
                    Show::Struct { fields, .. } if is_tuple(fields) => {
                        self.push("(");
                        self.fields(&case.show, image, at, depth);
                        self.push(")");
                    }
                    inner => {
                        self.push(" ");
                        self.show_inner(inner, image, at, depth);
                    }
                }
            }
            Show::Interface { descriptor, name, message } => {
                if image.number(at, 8)? == 0 {
                    self.push("nil");
                    return Ok(());
                }
                let Some(kind) = type_name(self.chunks, *descriptor, *name) else {
                    return Err(Unreadable::Type);
                };
                self.push(&kind);
                let text = message.as_ref().and_then(|m| error_text(self.chunks, m, &kind));
                if let Some(text) = text {
                    self.number(format_args!("({text:?})"));
                }
            }
        }
        Ok(())
    }

    fn show_inner(&mut self, show: &Show, image: Image<'_>, at: u64, depth: u32) {
        self.bare = false;
        self.show(show, image, at, depth + 1);
    }

    /// The members of a struct without what is around them.
    fn fields(&mut self, show: &Show, image: Image<'_>, at: u64, depth: u32) {
        let Show::Struct { fields, cut } = show else {
            return self.show_inner(show, image, at, depth);
        };
        for (number, field) in fields.iter().enumerate() {
            if self.full() {
                break;
            }
            if number > 0 {
                self.push(", ");
            }
            if !field.name.0.is_empty() {
                self.push(&field.name.0);
                self.push(": ");
            }
            self.show_inner(&field.show, image, at.saturating_add(field.at), depth);
        }
        if *cut {
            self.push(if fields.is_empty() { "…" } else { ", …" });
        }
    }

    fn address(&mut self, address: u64) {
        if address == 0 {
            self.push("null");
        } else {
            self.number(format_args!("{address:#x}"));
        }
    }

    fn c_string(&mut self, address: u64, chunk: u16) {
        let Some((chunk, bytes)) = self.chunks.get(chunk).filter(|_| address >= 4096) else {
            return self.address(address);
        };
        let text = printable(bytes);
        match text {
            Some(_) if chunk.status & chunk_status::FAULT != 0 => self.address(address),
            Some(_) => self.characters(bytes, chunk.status & chunk_status::CUT != 0),
            None => self.address(address),
        }
    }

    fn text(&mut self, chunk: u16, length: u64) -> Result<(), Unreadable> {
        if length == 0 {
            self.characters(&[], false);
            return Ok(());
        }
        let (chunk, bytes) = self.chunks.get(chunk).ok_or(Unreadable::Room)?;
        let whole = bytes.len() as u64 == length;
        if chunk.status & chunk_status::FAULT != 0 {
            return Err(Unreadable::Fault);
        }
        if bytes.len() as u64 > length || (!whole && chunk.status & chunk_status::CUT == 0) {
            return Err(Unreadable::Invalid);
        }
        self.characters(bytes, !whole);
        Ok(())
    }

    /// Characters as text, or as bytes if they are none.
    fn characters(&mut self, bytes: &[u8], cut: bool) {
        match printable(bytes) {
            Some(text) if self.bare => self.push(text),
            Some(text) => self.number(format_args!("{text:?}")),
            None => {
                self.push("0x");
                for byte in bytes.iter().take(64) {
                    self.number(format_args!("{byte:02x}"));
                }
                if bytes.len() > 64 {
                    self.push("…");
                }
            }
        }
        if cut {
            self.push("…");
        }
    }

    fn elements(
        &mut self,
        chunk: u16,
        length: u64,
        stride: u32,
        of: &Show,
        depth: u32,
    ) -> Result<(), Unreadable> {
        if length == 0 {
            self.push("[]");
            return Ok(());
        }
        let image = Image::of(self.chunks.get(chunk));
        let here = (image.bytes.len() as u64).checked_div(stride.into()).unwrap_or(0);
        let here = here.min(length).min(ELEMENTS_MAX);
        if here == 0 {
            self.number(format_args!("[{length} elements]"));
            return Ok(());
        }
        self.push("[");
        for number in 0..here {
            if number > 0 {
                self.push(", ");
            }
            self.show_inner(of, image, number * u64::from(stride), depth);
        }
        if here < length {
            self.number(format_args!(", … {length} elements"));
        }
        self.push("]");
        Ok(())
    }
}

/// Some bits as a number: what has no sign may be more than fits, and is taken as it is.
fn bits(image: Image<'_>, at: u64, first: u64, count: u8, signed: bool) -> Result<i64, Unreadable> {
    if count == 0 || count > 64 {
        return Err(Unreadable::Invalid);
    }
    let from = at.saturating_add(first / 8);
    let shift = (first % 8) as u32;
    let bytes = (u32::from(count) + shift).div_ceil(8);
    let mut number = 0_u128;
    for (n, byte) in image.part(from, bytes.into())?.iter().enumerate() {
        number |= u128::from(*byte) << (8 * n);
    }
    let above = 64 - u32::from(count);
    let number = ((number >> shift) as u64) << above;
    Ok(if signed { number as i64 >> above } else { (number >> above) as i64 })
}

fn is_tuple(fields: &[Field]) -> bool {
    !fields.is_empty() && fields.iter().all(|field| field.name.0.is_empty())
}

/// Text, if it is valid UTF-8 up to where it may have been cut, and has no controls but white space.
fn printable(bytes: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok()?
        }
        Err(_) => return None,
    };
    let odd = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    (!text.chars().any(odd)).then_some(text)
}

/// Which of its cases a value is, by its tag.
pub(super) fn case_of<'v>(
    image: Image<'_>,
    tag_at: u64,
    tag_bytes: u8,
    variants: &'v [Case],
    at: u64,
) -> Result<&'v Case, Unreadable> {
    if tag_bytes == 0 {
        return variants.first().ok_or(Unreadable::Invalid);
    }
    let tag = image.number(at.saturating_add(tag_at), tag_bytes)?;
    let named = |case: &&Case| case.tags.is_some_and(|(from, to)| from <= tag && tag <= to);
    variants
        .iter()
        .find(named)
        .or_else(|| variants.iter().find(|case| case.tags.is_none()))
        .ok_or(Unreadable::Invalid)
}
