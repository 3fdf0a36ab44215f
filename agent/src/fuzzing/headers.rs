//! What a request says: trace context, attributes, and secrets that must go.
//!
//! Layout: how it is read (one byte), then lines: the method, the target, and headers.

use super::input::Input;
use crate::protocol::{Header, RequestHead, ResponseHead};
use crate::span::attributes::{Attributes, Value};
use crate::span::http::{self, About, Ends, HeaderCapture};
use crate::span::model::Kind;
use crate::span::standing::{Sayings, Standing};
use crate::span::{propagation, redact};

/// Attributes of a request are no longer than this, whatever it says.
const ATTRIBUTE_BYTES_MAX: usize = 24 << 10;

pub(super) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let how = input.byte().unwrap_or(0);
    let mut lines = input.0.split(|byte| *byte == b'\n');
    let mut text = || str::from_utf8(lines.next().unwrap_or_default()).unwrap_or_default();
    let (method, target) = (text(), text());
    let headers: Vec<Header<'_>> = lines.filter_map(header).take(64).collect();
    if let Some(context) = propagation::read(&headers) {
        assert!(context.trace_id.is_valid() && context.span_id.is_valid());
        assert!(context.trace_state.len() <= 512);
    }
    let names = || vec!["cookie".to_owned(), "x".to_owned()];
    let capture = HeaderCapture { request: names(), response: names() };
    let kind = if how & 1 == 0 { Kind::Server } else { Kind::Client };
    let end = |bit: u8| (how & bit != 0).then(|| ([10, 0, 0, bit], 80).into());
    let ends = Ends { local: end(2), peer: end(4) };
    let (minor_version, truncated) = (how >> 7, false);
    let head = RequestHead { method, target, minor_version, headers: &headers, truncated };
    let (mut standing, mut sayings) = (Standing::default(), Sayings::default());
    let mut say = |attributes: &mut Attributes| {
        let about = About { ends: &|| ends, standing: &mut standing, sayings: &mut sayings };
        http::request(attributes, kind, &head, about, &capture);
    };
    let mut attributes = Attributes::default();
    say(&mut attributes);
    // What is remembered of the first request says the same of the second.
    let mut again = Attributes::default();
    say(&mut again);
    assert_eq!(attributes, again);
    let head = ResponseHead { status: 200, minor_version, headers: &headers, truncated };
    http::response(&mut attributes, &head, &capture);
    assert!(attributes.encoded().len() <= ATTRIBUTE_BYTES_MAX);
    assert_eq!(attributes.iter().count(), attributes.len());
    for (key, value) in attributes.iter() {
        assert!(!key.ends_with(".cookie") || format!("{value:?}").contains(redact::REDACTED));
        if let (Value::Text(text), "url.query") = (value, key) {
            assert_eq!(redact::query(text), text, "it is clean");
        }
    }
    for clean in [redact::query, redact::path] {
        let once = clean(target);
        assert_eq!(clean(&once), once, "what is clean stays as it is");
    }
    redact::url(target);
}

fn header(line: &[u8]) -> Option<Header<'_>> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = line.split_at_checked(colon)?;
    let name = str::from_utf8(name).ok().filter(|name| !name.is_empty())?;
    Some(Header { name, value: value.get(1..)?.trim_ascii() })
}
