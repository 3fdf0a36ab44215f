//! What a client knows of an answer: a reader of HTTP/1 responses that shares nothing with the
//! agent's. It takes bytes in any pieces and counts.

use std::hash::{DefaultHasher, Hasher};

/// Where the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Head,
    Length(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailer,
    Stream,
    Over,
}

/// An answer, as far as it has come.
#[derive(Clone, Debug)]
pub struct Answer {
    at: At,
    to_head: bool,
    line: Vec<u8>,
    body: DefaultHasher,
    /// The head as text, without interim ones.
    pub head: String,
    /// The status of the final answer; 0 until it is known.
    pub status: u16,
    /// Bytes of the final head.
    pub head_bytes: u64,
    /// Bytes of content.
    pub content_bytes: u64,
    /// Bytes behind the final head, framing included.
    pub raw_bytes: u64,
    /// Whether the server says that it will close.
    pub closes: bool,
}

impl Answer {
    /// The answer to a `HEAD` request, or to any other.
    pub fn new(to_head: bool) -> Self {
        Self {
            at: At::Head,
            to_head,
            line: Vec::new(),
            body: DefaultHasher::new(),
            head: String::new(),
            status: 0,
            head_bytes: 0,
            content_bytes: 0,
            raw_bytes: 0,
            closes: false,
        }
    }

    /// Whether its last byte has come.
    pub fn is_over(&self) -> bool {
        self.at == At::Over
    }

    /// Whether any byte has come.
    pub fn has_begun(&self) -> bool {
        self.at != At::Head || !self.line.is_empty() || !self.head.is_empty()
    }

    /// The stream has ended: whether that was where the answer ends.
    pub fn end(&mut self) -> bool {
        if self.at == At::Stream {
            self.at = At::Over;
        }
        self.is_over()
    }

    /// Identifies the content.
    pub fn digest(&self) -> u64 {
        self.body.finish()
    }

    /// Takes bytes up to the answer's end; how many those are.
    ///
    /// # Panics
    /// If they are no answer.
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() && self.at != At::Over {
            used += self.step(&bytes[used..]);
        }
        used
    }

    fn step(&mut self, bytes: &[u8]) -> usize {
        let used = match self.at {
            At::Length(left) | At::Chunk(left) => {
                bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX))
            }
            At::Stream => bytes.len(),
            At::Over => 0,
            At::Head | At::ChunkSize | At::ChunkEnd | At::Trailer => {
                bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1)
            }
        };
        let bytes = &bytes[..used];
        *if self.at == At::Head { &mut self.head_bytes } else { &mut self.raw_bytes } +=
            used as u64;
        match self.at {
            At::Length(left) => {
                self.content(bytes);
                let left = left - used as u64;
                self.at = if left == 0 { At::Over } else { At::Length(left) };
            }
            At::Chunk(left) => {
                self.content(bytes);
                let left = left - used as u64;
                self.at = if left == 0 { At::ChunkEnd } else { At::Chunk(left) };
            }
            At::Stream => self.content(bytes),
            At::Over => {}
            At::Head | At::ChunkSize | At::ChunkEnd | At::Trailer => {
                self.line.extend_from_slice(bytes);
                if bytes.ends_with(b"\n") {
                    let line = std::mem::take(&mut self.line);
                    self.line(String::from_utf8_lossy(&line).trim_end());
                }
            }
        }
        used
    }

    fn content(&mut self, bytes: &[u8]) {
        self.body.write(bytes);
        self.content_bytes += bytes.len() as u64;
    }

    fn line(&mut self, line: &str) {
        self.at = match self.at {
            At::ChunkSize => {
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16);
                match size.unwrap_or_else(|_| panic!("no size of a chunk: {line:?}")) {
                    0 => At::Trailer,
                    size => At::Chunk(size),
                }
            }
            At::ChunkEnd => At::ChunkSize,
            At::Trailer if line.is_empty() => At::Over,
            At::Head if line.is_empty() => self.head_over(),
            At::Head => {
                self.head.push_str(line);
                self.head.push('\n');
                At::Head
            }
            other => other,
        };
    }

    fn head_over(&mut self) -> At {
        let mut words = self.head.split(' ');
        let version = words.next().unwrap_or_default();
        assert!(version.starts_with("HTTP/1."), "no answer: {:?}", self.head);
        let status = words.next().and_then(|word| word.trim().parse().ok());
        self.status = status.unwrap_or_else(|| panic!("no status: {:?}", self.head));
        if (100..200).contains(&self.status) {
            self.head.clear();
            (self.status, self.head_bytes) = (0, 0);
            return At::Head;
        }
        let connection = self.field("connection").unwrap_or_default().to_ascii_lowercase();
        self.closes = connection == "close" || (version == "HTTP/1.0" && connection.is_empty());
        if self.to_head || matches!(self.status, 204 | 304) {
            return At::Over;
        }
        if self.field("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
            return At::ChunkSize;
        }
        match self.field("content-length").and_then(|length| length.parse().ok()) {
            Some(0) => At::Over,
            Some(length) => At::Length(length),
            None => At::Stream,
        }
    }

    /// A field of the head.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_framing_in_every_split() {
        for (bytes, to_head, status, content, raw) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", false, 200, 3, 3),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true, 200, 0, 0),
            ("HTTP/1.1 304 Not\r\nContent-Length: 3\r\n\r\n", false, 304, 0, 0),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                 3;a=b\r\nabc\r\n1\r\nd\r\n0\r\nT: 1\r\n\r\n",
                false,
                201,
                4,
                29,
            ),
        ] {
            let head = if content == 0 { bytes } else { &bytes[..bytes.len() - raw] };
            let last = head.rfind("HTTP/").expect("it begins so");
            for at in 0..bytes.len() {
                let mut answer = Answer::new(to_head);
                let (first, second) = bytes.as_bytes().split_at(at);
                assert_eq!(answer.feed(first) + answer.feed(second), bytes.len(), "{bytes:?}");
                assert!(answer.is_over(), "{bytes:?} {answer:?}");
                let said = (answer.status, answer.content_bytes, answer.raw_bytes);
                assert_eq!(said, (status, content, raw as u64), "{bytes:?} at {at}");
                assert_eq!(answer.head_bytes, (head.len() - last) as u64, "{bytes:?} at {at}");
            }
        }
        let mut answer = Answer::new(false);
        answer.feed(b"HTTP/1.0 200 OK\r\n\r\nto the end");
        assert!(!answer.is_over() && answer.closes && answer.end());
        assert_eq!(answer.content_bytes, 10);
    }
}
