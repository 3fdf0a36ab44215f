//! What lies in a Go interface: the name of its type, and what an error of the standard library says.

use super::chunks::{Chunks, Image};
use super::show::Message;

/// The name in Go's descriptor of a type (`abi.Name`: flags, length as a varint, bytes).
pub(super) fn type_name(chunks: &Chunks<'_>, descriptor: u16, name: Option<u16>) -> Option<String> {
    const EXTRA_STAR: u64 = 1 << 1;
    let image = Image::of(chunks.get(descriptor));
    let flags = image.number(20, 1).ok()?;
    let (_, bytes) = chunks.get(name?)?;
    let (_, rest) = bytes.split_first()?;
    let mut length = 0_usize;
    let mut at = 0;
    for byte in rest.iter().take(2) {
        length |= usize::from(byte & 0x7f) << (7 * at);
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let rest = rest.get(at..)?;
    let text = std::str::from_utf8(rest.get(..length.min(rest.len()))?).ok()?;
    let text = if flags & EXTRA_STAR != 0 { text.strip_prefix('*').unwrap_or(text) } else { text };
    (!text.is_empty() && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

/// The message of the errors that the standard library makes: their structs begin with it.
pub(super) fn error_text(chunks: &Chunks<'_>, message: &Message, kind: &str) -> Option<String> {
    if !matches!(kind, "*errors.errorString" | "*fmt.wrapError" | "*fmt.wrapErrors") {
        return None;
    }
    let length = Image::of(chunks.get(message.header)).number(8, 8).ok()?;
    let (_, bytes) = chunks.get(message.text)?;
    let text = std::str::from_utf8(bytes);
    let text = match text {
        Ok(text) => text,
        // Cut within a character.
        Err(error) => std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok()?,
    };
    let whole = length == bytes.len() as u64;
    (!text.is_empty()).then(|| if whole { text.to_owned() } else { format!("{text}…") })
}
