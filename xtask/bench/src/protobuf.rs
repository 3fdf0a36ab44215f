//! Reads as much of an `ExportTraceServiceRequest` as a sink must know: how many spans there are,
//! and how each found its parent. Field numbers: opentelemetry-proto 1.11, `trace/v1/trace.proto`.

/// A field's value.
enum Field<'a> {
    Number,
    Bytes(&'a [u8]),
}

/// Walks over the fields of a message; ends early where the bytes make no sense.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Field<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => self.varint().map(|_| Field::Number)?,
            1 => self.take(8).map(|_| Field::Number)?,
            2 => {
                let bytes = usize::try_from(self.varint()?).ok()?;
                Field::Bytes(self.take(bytes)?)
            }
            5 => self.take(4).map(|_| Field::Number)?,
            _ => return None,
        };
        Some((tag >> 3, field))
    }
}

/// The nested messages of one field.
fn nested(bytes: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    Fields(bytes).filter_map(move |(field, value)| match value {
        Field::Bytes(bytes) if field == number => Some(bytes),
        _ => None,
    })
}

/// Every span of a request.
pub(crate) fn spans(request: &[u8]) -> impl Iterator<Item = &[u8]> {
    // ResourceSpans, ScopeSpans, Span.
    nested(request, 1).flat_map(|resource| nested(resource, 2)).flat_map(|scope| nested(scope, 2))
}

/// How a span found its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parent {
    /// It has none.
    None,
    /// Proved.
    Exact,
    /// Any other way.
    Other,
}

/// A span's parent.
pub(crate) fn parent(span: &[u8]) -> Parent {
    if nested(span, 4).all(<[u8]>::is_empty) {
        return Parent::None;
    }
    let is = |bytes: &[u8], number, text: &str| nested(bytes, number).any(|b| b == text.as_bytes());
    let exact = nested(span, 9).any(|attribute| {
        is(attribute, 1, "remora.parent.confidence")
            && nested(attribute, 2).any(|value| is(value, 1, "exact"))
    });
    if exact { Parent::Exact } else { Parent::Other }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2, content.len() as u8];
        bytes.extend_from_slice(content);
        bytes
    }

    fn request(spans: &[Vec<u8>]) -> Vec<u8> {
        let spans: Vec<u8> = spans.iter().flat_map(|span| message(2, span)).collect();
        message(1, &message(2, &spans))
    }

    #[test]
    fn spans_are_found_and_their_parents() {
        let attribute = |value: &[u8]| {
            let key = message(1, b"remora.parent.confidence");
            message(9, &[key, message(2, &message(1, value))].concat())
        };
        let parent_id = message(4, b"12345678");
        let root =
            [message(1, b"trace"), vec![6 << 3, 2], vec![7 << 3 | 1, 0, 0, 0, 0, 0, 0, 0, 0]];
        let exact = [parent_id.clone(), attribute(b"exact")].concat();
        let inferred = [parent_id, attribute(b"inferred")].concat();
        let bytes = request(&[root.concat(), exact, inferred]);
        let parents: Vec<Parent> = spans(&bytes).map(parent).collect();
        assert_eq!(parents, [Parent::None, Parent::Exact, Parent::Other]);
    }

    #[test]
    fn damage_ends_the_walk() {
        let bytes = request(&[message(1, b"trace")]);
        for cut in 0..bytes.len() {
            assert_eq!(spans(&bytes[..cut]).count(), 0);
        }
        assert_eq!(spans(&[0xff; 64]).count(), 0);
    }
}
