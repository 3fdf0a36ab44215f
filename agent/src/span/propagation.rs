//! Trace context in request headers, whichever of the common formats it comes in.
//!
//! Precedence: W3C, then B3 (the single header before the several), Jaeger, Datadog, X-Ray; the
//! first that is valid wins, malformed ones are passed over.

use super::model::{SpanId, TraceId};
use crate::protocol::Header;

#[cfg(test)]
mod tests;

/// What a request says about the span it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span that sent the request.
    pub span_id: SpanId,
    /// W3C trace flags; bit 0 is "sampled". Set when the sender left the decision open.
    pub flags: u8,
    /// W3C `tracestate`; empty if none.
    pub trace_state: String,
    /// The format it was read from.
    pub format: Format,
}

/// The format of a trace header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `traceparent` (W3C Trace Context).
    W3c,
    /// `b3` or `X-B3-*` (Zipkin).
    B3,
    /// `uber-trace-id`.
    Jaeger,
    /// `x-datadog-*`.
    Datadog,
    /// `X-Amzn-Trace-Id`.
    XRay,
}

const SAMPLED: u8 = 1;

/// Longest `tracestate` kept (W3C Trace Context, section 3.3.1.5: at least 512 characters).
const TRACE_STATE_MAX: usize = 512;

/// The values of the trace headers of one request.
#[derive(Default)]
struct Found<'a> {
    traceparent: Option<&'a [u8]>,
    b3: Option<&'a [u8]>,
    b3_trace: Option<&'a [u8]>,
    b3_span: Option<&'a [u8]>,
    b3_sampled: Option<&'a [u8]>,
    b3_flags: Option<&'a [u8]>,
    jaeger: Option<&'a [u8]>,
    datadog_trace: Option<&'a [u8]>,
    datadog_parent: Option<&'a [u8]>,
    datadog_priority: Option<&'a [u8]>,
    datadog_tags: Option<&'a [u8]>,
    xray: Option<&'a [u8]>,
}

/// The context that a request carries, if it carries one.
pub fn read(headers: &[Header<'_>]) -> Option<RemoteContext> {
    let mut found = Found::default();
    let mut any = false;
    for header in headers {
        if let Some(slot) = slot(&mut found, header.name) {
            // One that contradicts itself says nothing.
            let first = slot.get_or_insert(header.value);
            if *first != header.value {
                *first = b"";
            }
            any = true;
        }
    }
    if !any {
        return None;
    }
    w3c(&found, headers)
        .or_else(|| b3_single(found.b3?))
        .or_else(|| b3_multi(&found))
        .or_else(|| jaeger(found.jaeger?))
        .or_else(|| datadog(&found))
        .or_else(|| xray(found.xray?))
}

/// Where a header's value goes, if it is a trace header. Ordinary headers leave by their length.
fn slot<'s, 'a>(found: &'s mut Found<'a>, name: &str) -> Option<&'s mut Option<&'a [u8]>> {
    let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
    match name.len() {
        2 if is("b3") => Some(&mut found.b3),
        10 if is("x-b3-flags") => Some(&mut found.b3_flags),
        11 if is("traceparent") => Some(&mut found.traceparent),
        11 if is("x-b3-spanid") => Some(&mut found.b3_span),
        12 if is("x-b3-traceid") => Some(&mut found.b3_trace),
        12 if is("x-b3-sampled") => Some(&mut found.b3_sampled),
        13 if is("uber-trace-id") => Some(&mut found.jaeger),
        14 if is("x-datadog-tags") => Some(&mut found.datadog_tags),
        15 if is("x-amzn-trace-id") => Some(&mut found.xray),
        18 if is("x-datadog-trace-id") => Some(&mut found.datadog_trace),
        19 if is("x-datadog-parent-id") => Some(&mut found.datadog_parent),
        27 if is("x-datadog-sampling-priority") => Some(&mut found.datadog_priority),
        _ => None,
    }
}

/// `version-trace_id-parent_id-flags`, lower-case hexadecimal; a later version may go on.
fn w3c(found: &Found<'_>, headers: &[Header<'_>]) -> Option<RemoteContext> {
    let value = found.traceparent?;
    let fixed = value.get(..55)?;
    let dashes = [2, 35, 52].iter().all(|at| fixed.get(*at) == Some(&b'-'));
    if !dashes || fixed.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let version = hex_byte(fixed.get(..2)?)?;
    let behind = value.get(55);
    if version == 0xff || (version == 0 && behind.is_some()) || behind.is_some_and(|b| *b != b'-') {
        return None;
    }
    let (trace_id, span_id) = ids(fixed.get(3..35)?, fixed.get(36..52)?)?;
    let flags = hex_byte(fixed.get(53..55)?)?;
    let trace_state = trace_state(headers);
    Some(RemoteContext { trace_id, span_id, flags, trace_state, format: Format::W3c })
}

/// Every `tracestate` header in order, joined, as far as whole members fit.
fn trace_state(headers: &[Header<'_>]) -> String {
    let mut state = String::new();
    for header in headers.iter().filter(|header| header.name.eq_ignore_ascii_case("tracestate")) {
        let Ok(value) = std::str::from_utf8(header.value) else { continue };
        for member in value.split(',').map(str::trim).filter(|member| member.contains('=')) {
            if state.len() + member.len() + 1 > TRACE_STATE_MAX {
                return state;
            }
            if !state.is_empty() {
                state.push(',');
            }
            state.push_str(member);
        }
    }
    state
}

/// `trace_id-span_id[-sampled[-parent_span_id]]`; `0` alone only denies sampling.
fn b3_single(value: &[u8]) -> Option<RemoteContext> {
    let mut parts = value.split(|byte| *byte == b'-');
    let (trace_id, span_id) = ids(parts.next()?, parts.next()?)?;
    let flags = if parts.next() == Some(b"0") { 0 } else { SAMPLED };
    let trace_state = String::new();
    Some(RemoteContext { trace_id, span_id, flags, trace_state, format: Format::B3 })
}

fn b3_multi(found: &Found<'_>) -> Option<RemoteContext> {
    let (trace_id, span_id) = ids(found.b3_trace?, found.b3_span?)?;
    let denied = matches!(found.b3_sampled, Some(b"0" | b"false"));
    let debug = found.b3_flags == Some(b"1");
    let flags = if denied && !debug { 0 } else { SAMPLED };
    let trace_state = String::new();
    Some(RemoteContext { trace_id, span_id, flags, trace_state, format: Format::B3 })
}

/// `trace_id:span_id:parent_span_id:flags`, leading zeroes left out, colons possibly escaped.
fn jaeger(value: &[u8]) -> Option<RemoteContext> {
    let text = std::str::from_utf8(value).ok()?;
    let text = text.replace("%3A", ":").replace("%3a", ":");
    let mut parts = text.split(':');
    let (trace_id, span_id) = (parts.next()?, parts.next()?);
    let (trace_id, span_id) = ids(trace_id.as_bytes(), span_id.as_bytes())?;
    parts.next()?;
    let flags = u8::from_str_radix(parts.next()?, 16).ok()? & SAMPLED;
    let trace_state = String::new();
    Some(RemoteContext { trace_id, span_id, flags, trace_state, format: Format::Jaeger })
}

/// Decimal 64-bit ids; the upper half of the trace id is a tag.
fn datadog(found: &Found<'_>) -> Option<RemoteContext> {
    let low = decimal(found.datadog_trace?)?;
    let span = decimal(found.datadog_parent?)?;
    let tags = std::str::from_utf8(found.datadog_tags.unwrap_or_default()).unwrap_or_default();
    let high = tags
        .split(',')
        .find_map(|tag| tag.trim().strip_prefix("_dd.p.tid="))
        .and_then(|hex| u64::from_str_radix(hex, 16).ok())
        .unwrap_or(0);
    let id = (u128::from(high) << 64) | u128::from(low);
    if id == 0 || span == 0 {
        return None;
    }
    // Priorities are -1, 0 (drop), 1 and 2 (keep).
    let dropped = matches!(found.datadog_priority, Some(b"0" | b"-1"));
    Some(RemoteContext {
        trace_id: TraceId(id.to_be_bytes()),
        span_id: SpanId(span.to_be_bytes()),
        flags: if dropped { 0 } else { SAMPLED },
        trace_state: String::new(),
        format: Format::Datadog,
    })
}

/// `Root=1-8hex-24hex;Parent=16hex;Sampled=1`, fields in any order.
fn xray(value: &[u8]) -> Option<RemoteContext> {
    let text = std::str::from_utf8(value).ok()?;
    let field = |name: &str| {
        let fields = text.split(';').map(str::trim);
        fields.filter_map(|field| field.split_once('=')).find(|(key, _)| *key == name)
    };
    let (_, root) = field("Root")?;
    let (time, random) = root.strip_prefix("1-")?.split_once('-')?;
    if time.len() != 8 || random.len() != 24 {
        return None;
    }
    let (_, parent) = field("Parent")?;
    let (trace_id, span_id) = ids(format!("{time}{random}").as_bytes(), parent.as_bytes())?;
    let denied = field("Sampled").is_some_and(|(_, sampled)| sampled == "0");
    let flags = if denied { 0 } else { SAMPLED };
    let trace_state = String::new();
    Some(RemoteContext { trace_id, span_id, flags, trace_state, format: Format::XRay })
}

/// Hexadecimal ids of up to 128 and 64 bits, right-aligned, neither zero.
fn ids(trace: &[u8], span: &[u8]) -> Option<(TraceId, SpanId)> {
    let trace_id = TraceId(hex(trace, 32)?.to_be_bytes());
    let span_id = SpanId(u64::try_from(hex(span, 16)?).ok()?.to_be_bytes());
    (trace_id.is_valid() && span_id.is_valid()).then_some((trace_id, span_id))
}

fn hex(digits: &[u8], most: usize) -> Option<u128> {
    if digits.is_empty() || digits.len() > most {
        return None;
    }
    digits.iter().try_fold(0u128, |value, digit| {
        let digit = (*digit as char).to_digit(16)?;
        Some((value << 4) | u128::from(digit))
    })
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    u8::try_from(hex(digits, 2)?).ok()
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}
