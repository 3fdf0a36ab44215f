//! A JSON writer without a tree: for spans, which are written once and in order.

use std::fmt::Display;
use std::io::Write;

/// Writes JSON values to the end of a buffer.
pub(super) struct Json<'a> {
    out: &'a mut Vec<u8>,
    /// Whether the next key or element is the first of its object or array.
    first: bool,
}

impl<'a> Json<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, first: true }
    }

    /// A key; its value must follow.
    pub(super) fn key(&mut self, key: &str) -> &mut Self {
        self.separate();
        self.text(key);
        self.out.push(b':');
        self
    }

    /// The fields of an object without its braces, for [`raw_fields`](Self::raw_fields).
    pub(super) fn fields(&mut self, fields: impl FnOnce(&mut Self)) {
        self.first = true;
        fields(self);
    }

    /// Fields that are written already.
    pub(super) fn raw_fields(&mut self, fields: &[u8]) {
        if !fields.is_empty() {
            self.separate();
            self.out.extend_from_slice(fields);
        }
    }

    pub(super) fn object(&mut self, fields: impl FnOnce(&mut Self)) {
        self.out.push(b'{');
        self.first = true;
        fields(self);
        self.first = false;
        self.out.push(b'}');
    }

    pub(super) fn array<T>(
        &mut self,
        items: impl Iterator<Item = T>,
        mut item: impl FnMut(&mut Self, T),
    ) {
        self.out.push(b'[');
        self.first = true;
        for value in items {
            self.separate();
            item(self, value);
        }
        self.first = false;
        self.out.push(b']');
    }

    /// A string.
    pub(super) fn text(&mut self, text: &str) {
        self.out.push(b'"');
        let mut plain = 0;
        let bytes = text.as_bytes();
        for (at, byte) in bytes.iter().enumerate() {
            let escaped: Option<&[u8]> = match byte {
                b'"' => Some(b"\\\""),
                b'\\' => Some(b"\\\\"),
                b'\n' => Some(b"\\n"),
                b'\r' => Some(b"\\r"),
                b'\t' => Some(b"\\t"),
                0..0x20 | 0x7f => None,
                _ => continue,
            };
            self.out.extend_from_slice(bytes.get(plain..at).unwrap_or_default());
            plain = at + 1;
            match escaped {
                Some(escaped) => self.out.extend_from_slice(escaped),
                None => self.raw(format_args!("\\u{byte:04x}")),
            }
        }
        self.out.extend_from_slice(bytes.get(plain..).unwrap_or_default());
        self.out.push(b'"');
    }

    /// A value that prints without quotes, backslashes and control characters, as a string.
    pub(super) fn display(&mut self, value: impl Display) {
        self.raw(format_args!("\"{value}\""));
    }

    /// A number or a boolean.
    pub(super) fn number(&mut self, value: impl Display) {
        self.raw(format_args!("{value}"));
    }

    /// A floating-point number; JSON has no others than finite ones, proto3 writes them as strings.
    pub(super) fn double(&mut self, value: f64) {
        if value.is_finite() {
            self.raw(format_args!("{value:?}"));
        } else if value.is_nan() {
            self.text("NaN");
        } else {
            self.text(if value > 0.0 { "Infinity" } else { "-Infinity" });
        }
    }

    /// Bytes in lower-case hexadecimal.
    pub(super) fn hex(&mut self, bytes: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.out.push(b'"');
        for byte in bytes {
            let digits = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
            self.out.extend_from_slice(&digits);
        }
        self.out.push(b'"');
    }

    /// Bytes in base64 (RFC 4648, section 4).
    pub(super) fn base64(&mut self, bytes: &[u8]) {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        self.out.push(b'"');
        for chunk in bytes.chunks(3) {
            let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
            let word = byte(0) << 16 | byte(1) << 8 | byte(2);
            for digit in 0..4 {
                let index = (word >> (18 - 6 * digit)) & 63;
                let digit = if digit > chunk.len() { b'=' } else { DIGITS[index as usize] };
                self.out.push(digit);
            }
        }
        self.out.push(b'"');
    }

    fn raw(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a Vec cannot fail.
        let _ = self.out.write_fmt(text);
    }

    fn separate(&mut self) {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
    }
}
