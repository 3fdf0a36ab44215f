//! What reads values of functions: a plan as recordings have it, up to a zero byte, then the chunks of a
//! hit.

use crate::function::value::Reader;

pub(super) fn run(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (plan, rest) = bytes.split_at(end);
    let Ok(reader) = serde_json::from_slice::<Reader>(plan) else { return };
    let chunks = rest.get(1..).unwrap_or_default();
    let values = reader.read(chunks);
    assert_eq!(reader.read(chunks), values, "the same bytes say the same");
    let _ = reader.failure(chunks);
}
