//! One table: headers in, `trace span flags [state]` out.

use super::*;

#[track_caller]
fn check(headers: &[(&str, &str)], expected: Option<&str>) {
    let headers: Vec<_> =
        headers.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
    let told = read(&headers).map(|context| {
        let RemoteContext { trace_id, span_id, flags, trace_state, format } = context;
        format!("{format:?} {trace_id} {span_id} {flags:02x} {trace_state}").trim_end().to_owned()
    });
    assert_eq!(told.as_deref(), expected);
}

const T: &str = "0af7651916cd43dd8448eb211c80319c";
const S: &str = "b7ad6b7169203331";

#[test]
fn w3c() {
    let valid = format!("00-{T}-{S}-01");
    check(&[("Traceparent", &valid)], Some(&format!("W3c {T} {S} 01")));
    let states =
        [("traceparent", valid.as_str()), ("tracestate", "a=1, b=2"), ("tracestate", "c=3")];
    check(&states, Some(&format!("W3c {T} {S} 01 a=1,b=2,c=3")));
    check(&[("traceparent", &format!("01-{T}-{S}-00-more"))], Some(&format!("W3c {T} {S} 00")));
    for malformed in [
        format!("ff-{T}-{S}-01"),
        format!("00-{T}-{S}-01-more"),
        format!("00-{}-{S}-01", T.to_uppercase()),
        format!("00-{}-{S}-01", "0".repeat(32)),
        format!("00-{T}-{}-01", "0".repeat(16)),
        format!("00-{T}-{S}"),
        format!("00_{T}-{S}-01"),
        String::new(),
    ] {
        check(&[("traceparent", &malformed)], None);
    }
}

#[test]
fn b3() {
    check(&[("b3", &format!("{T}-{S}-1"))], Some(&format!("B3 {T} {S} 01")));
    check(&[("b3", &format!("{T}-{S}-0-{S}"))], Some(&format!("B3 {T} {S} 00")));
    check(&[("b3", "0")], None);
    let short = [("X-B3-TraceId", "8448eb211c80319c"), ("X-B3-SpanId", S), ("X-B3-Sampled", "0")];
    check(&short, Some(&format!("B3 00000000000000008448eb211c80319c {S} 00")));
    let both =
        [("b3", format!("{T}-{S}-d")), ("x-b3-traceid", "1".into()), ("x-b3-spanid", "2".into())];
    let both: Vec<_> = both.iter().map(|(name, value)| (*name, value.as_str())).collect();
    check(&both, Some(&format!("B3 {T} {S} 01")));
}

#[test]
fn jaeger() {
    let expected = format!("Jaeger 00000000000000000000000000000abc {S} 01");
    check(&[("uber-trace-id", &format!("abc:{S}:0:1"))], Some(&expected));
    check(&[("uber-trace-id", &format!("abc%3A{S}%3A0%3A1"))], Some(&expected));
    check(&[("uber-trace-id", "abc:0:0:1")], None);
}

#[test]
fn datadog() {
    let ids = [("x-datadog-trace-id", "10"), ("x-datadog-parent-id", "255")];
    check(&ids, Some("Datadog 0000000000000000000000000000000a 00000000000000ff 01"));
    let more = [
        ids[0],
        ids[1],
        ("x-datadog-tags", "a=b,_dd.p.tid=640cfd8d00000000"),
        ("x-datadog-sampling-priority", "-1"),
    ];
    check(&more, Some("Datadog 640cfd8d00000000000000000000000a 00000000000000ff 00"));
    check(&[("x-datadog-trace-id", "0x10"), ("x-datadog-parent-id", "1")], None);
}

#[test]
fn xray() {
    let value = "Parent=53995c3f42cd8ad8;Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0";
    let expected = "XRay 5759e988bd862e3fe1be46a994272793 53995c3f42cd8ad8 00";
    check(&[("X-Amzn-Trace-Id", value)], Some(expected));
    check(&[("X-Amzn-Trace-Id", "Root=1-5759e988-bd862e3fe1be46a994272793")], None);
}

#[test]
fn the_first_valid_format_wins() {
    let w3c = format!("00-{T}-{S}-01");
    let b3 = format!("1-{S}-1");
    check(&[("b3", &b3), ("traceparent", &w3c)], Some(&format!("W3c {T} {S} 01")));
    let expected = format!("B3 {}1 {S} 01", "0".repeat(31));
    check(&[("b3", &b3), ("traceparent", "nonsense")], Some(&expected));
}
