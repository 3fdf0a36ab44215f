//! Protobuf's fields, appended to bytes. How long a message is has to be said before it: where that is
//! worth a thought it is reckoned beforehand, elsewhere the message is written apart.

/// Wire types of protobuf.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// Writes fields.
pub(super) trait Fields {
    /// A number of seven bits a byte.
    fn raw_varint(&mut self, value: u64);
    /// Bytes or text, even if empty.
    fn bytes_field(&mut self, field: u64, bytes: &[u8]);
    /// Text, left out if empty.
    fn text(&mut self, field: u64, text: &str);
    /// An integer, even if zero.
    fn varint(&mut self, field: u64, value: u64);
    fn fixed64(&mut self, field: u64, value: u64);
    fn fixed32(&mut self, field: u64, value: u32);
    /// What goes before a nested message of `bytes` bytes.
    fn message_head(&mut self, field: u64, bytes: usize);
    /// A nested message.
    fn message(&mut self, field: u64, content: impl FnOnce(&mut Vec<u8>));
}

impl Fields for Vec<u8> {
    #[inline]
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn bytes_field(&mut self, field: u64, bytes: &[u8]) {
        self.message_head(field, bytes.len());
        self.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u64, text: &str) {
        if !text.is_empty() {
            self.bytes_field(field, text.as_bytes());
        }
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.raw_varint(field << 3 | VARINT);
        self.raw_varint(value);
    }

    fn fixed64(&mut self, field: u64, value: u64) {
        self.raw_varint(field << 3 | FIXED64);
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn fixed32(&mut self, field: u64, value: u32) {
        self.raw_varint(field << 3 | FIXED32);
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn message_head(&mut self, field: u64, bytes: usize) {
        self.raw_varint(field << 3 | BYTES);
        self.raw_varint(bytes as u64);
    }

    fn message(&mut self, field: u64, content: impl FnOnce(&mut Vec<u8>)) {
        let mut message = Vec::new();
        content(&mut message);
        self.bytes_field(field, &message);
    }
}

/// How many bytes a field of `bytes` bytes takes, with a tag of one byte.
pub(super) fn field_len(bytes: usize) -> usize {
    1 + varint_len(bytes as u64) + bytes
}

/// How many bytes a text takes that is left out if empty, with a tag of one byte.
pub(super) fn text_len(text: &str) -> usize {
    if text.is_empty() { 0 } else { field_len(text.len()) }
}

fn varint_len(value: u64) -> usize {
    // Seven bits a byte, one byte for zero.
    (70 - (value | 1).leading_zeros() as usize) / 7
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_what_is_written() {
        for bytes in [0, 1, 127, 128, 16_383, 16_384] {
            let mut written = Vec::new();
            written.bytes_field(2, &vec![0; bytes]);
            assert_eq!(written.len(), field_len(bytes));
        }
        for value in [0, 1, 0x7f, 0x80, u64::MAX >> 1, u64::MAX] {
            let mut written = Vec::new();
            written.raw_varint(value);
            assert_eq!(written.len(), varint_len(value));
        }
    }
}
