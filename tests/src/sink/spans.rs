//! Which spans are in a request: no more of protobuf and JSON than that.

use serde_json::Value;

use super::Received;
use crate::spans;

/// Trace and span id of each, in order.
pub(super) fn ids(request: &Received) -> Vec<String> {
    match request.header("content-type") {
        "application/grpc" => {
            let (frame, message) = request.body.split_at(request.body.len().min(5));
            if frame.first() == Some(&1) { Vec::new() } else { protobuf(message) }
        }
        _ if !request.header("content-encoding").is_empty() => Vec::new(),
        "application/x-protobuf" => protobuf(&request.body),
        _ => json(&String::from_utf8_lossy(&request.body)),
    }
}

fn json(text: &str) -> Vec<String> {
    let body: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    match body.as_array() {
        // Zipkin's.
        Some(list) => {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            list.iter().map(|span| text(&span["traceId"]) + &text(&span["id"])).collect()
        }
        None => spans::parse(text).into_iter().map(|span| span.trace + &span.id).collect(),
    }
}

/// `ExportTraceServiceRequest.resource_spans (1) .scope_spans (2) .spans (2)`, then the ids (1, 2).
fn protobuf(message: &[u8]) -> Vec<String> {
    let mut ids = Vec::new();
    for resource in fields(message, 1) {
        for scope in fields(resource, 2) {
            for span in fields(scope, 2) {
                let id: Vec<&[u8]> = [fields(span, 1), fields(span, 2)].concat();
                ids.push(id.concat().iter().map(|byte| format!("{byte:02x}")).collect());
            }
        }
    }
    ids
}

/// The length-delimited fields of one number.
fn fields(mut message: &[u8], wanted: u64) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let length = match tag & 7 {
            0 => {
                varint(&mut message);
                0
            }
            1 => 8,
            2 => varint(&mut message) as usize,
            5 => 4,
            other => panic!("no wire type: {other}"),
        };
        let (value, rest) = message.split_at(length);
        message = rest;
        if tag >> 3 == wanted && tag & 7 == 2 {
            found.push(value);
        }
    }
    found
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = message.split_first().expect("a whole message");
        *message = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}
