//! A protobuf writer that works from the end of its buffer to the front, so that the length of a
//! nested message is known when it is due, without a second pass or a copy.

/// Wire types of protobuf.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// Bytes written so far stand at the end of `buffer`.
#[derive(Default)]
pub(super) struct Writer {
    buffer: Vec<u8>,
    start: usize,
}

impl Writer {
    /// Forgets what was written, keeps the memory.
    pub(super) fn clear(&mut self) {
        self.start = self.buffer.len();
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    fn len(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// A nested message; what `content` writes last comes first.
    pub(super) fn message(&mut self, field: u64, content: impl FnOnce(&mut Self)) {
        let before = self.len();
        content(self);
        let length = self.len() - before;
        self.raw_varint(length as u64);
        self.raw_varint(field << 3 | BYTES);
    }

    /// Bytes or text, even if empty.
    pub(super) fn bytes_field(&mut self, field: u64, bytes: &[u8]) {
        self.raw(bytes);
        self.raw_varint(bytes.len() as u64);
        self.raw_varint(field << 3 | BYTES);
    }

    /// Text, left out if empty.
    pub(super) fn text(&mut self, field: u64, text: &str) {
        if !text.is_empty() {
            self.bytes_field(field, text.as_bytes());
        }
    }

    /// An integer, even if zero.
    pub(super) fn varint(&mut self, field: u64, value: u64) {
        self.raw_varint(value);
        self.raw_varint(field << 3 | VARINT);
    }

    pub(super) fn fixed64(&mut self, field: u64, value: u64) {
        self.raw(&value.to_le_bytes());
        self.raw_varint(field << 3 | FIXED64);
    }

    pub(super) fn fixed32(&mut self, field: u64, value: u32) {
        self.raw(&value.to_le_bytes());
        self.raw_varint(field << 3 | FIXED32);
    }

    #[inline]
    fn raw_varint(&mut self, mut value: u64) {
        if value < 0x80 {
            return self.raw(&[value as u8]);
        }
        let mut digits = [0; 10];
        let mut count = 0;
        for digit in &mut digits {
            count += 1;
            *digit = value as u8 & 0x7f;
            value >>= 7;
            if value == 0 {
                break;
            }
            *digit |= 0x80;
        }
        self.raw(digits.get(..count).unwrap_or_default());
    }

    /// Replaces the byte that stands `at` bytes behind what was written last.
    pub(super) fn patch(&mut self, at: usize, byte: u8) {
        if let Some(place) = self.buffer.get_mut(self.start + at) {
            *place = byte;
        }
    }

    /// Bytes that are a message's fields already.
    #[inline]
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        if bytes.len() > self.start {
            self.grow(bytes.len());
        }
        let start = self.start - bytes.len();
        if let Some(room) = self.buffer.get_mut(start..self.start) {
            room.copy_from_slice(bytes);
        }
        self.start = start;
    }

    /// Makes room at the front.
    fn grow(&mut self, bytes: usize) {
        let used = self.len();
        let size = (self.buffer.len() * 2).max(used + bytes).max(4096);
        let mut buffer = vec![0; size];
        let start = size - used;
        if let Some(room) = buffer.get_mut(start..) {
            room.copy_from_slice(self.bytes());
        }
        self.buffer = buffer;
        self.start = start;
    }
}
