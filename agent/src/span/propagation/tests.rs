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

#[test]
fn headers_that_contradict_themselves_say_nothing() {
    let one = format!("00-{T}-{S}-01");
    let other = format!("00-{T}-{}-01", "1".repeat(16));
    check(&[("traceparent", &one), ("traceparent", &other)], None);
    check(&[("traceparent", &one), ("Traceparent", &one)], Some(&format!("W3c {T} {S} 01")));
    // Something else may still be said.
    let b3 = format!("{T}-{S}");
    let contradiction = [("traceparent", one.as_str()), ("traceparent", &other), ("b3", &b3)];
    check(&contradiction, Some(&format!("B3 {T} {S} 01")));
    let ids = [("x-b3-traceid", T), ("x-b3-traceid", "1"), ("x-b3-spanid", S)];
    check(&ids, None);
}

#[test]
fn sampling_decisions() {
    for (headers, flags) in [
        (&[("b3", "1-2-d")][..], "01"),
        (&[("b3", "1-2-0")], "00"),
        (&[("b3", "1-2")], "01"),
        (&[("x-b3-traceid", "1"), ("x-b3-spanid", "2"), ("x-b3-sampled", "true")], "01"),
        (&[("x-b3-traceid", "1"), ("x-b3-spanid", "2"), ("x-b3-sampled", "false")], "00"),
        (
            &[
                ("x-b3-traceid", "1"),
                ("x-b3-spanid", "2"),
                ("x-b3-sampled", "0"),
                ("x-b3-flags", "1"),
            ],
            "01",
        ),
        (&[("uber-trace-id", "1:2:0:3")], "01"),
        (&[("uber-trace-id", "1:2:0:2")], "00"),
        (&[("x-datadog-trace-id", "1"), ("x-datadog-parent-id", "2")], "01"),
        (
            &[
                ("x-datadog-trace-id", "1"),
                ("x-datadog-parent-id", "2"),
                ("x-datadog-sampling-priority", "0"),
            ],
            "00",
        ),
        (
            &[
                ("x-datadog-trace-id", "1"),
                ("x-datadog-parent-id", "2"),
                ("x-datadog-sampling-priority", "2"),
            ],
            "01",
        ),
    ] {
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
        let context = read(&headers).expect("ids");
        assert_eq!(format!("{:02x}", context.flags), flags, "{headers:?}");
    }
}

#[test]
fn what_is_malformed_is_passed_over() {
    let long = "1".repeat(33);
    let huge = u128::from(u64::MAX).to_string() + "0";
    for headers in [
        &[("b3", "")][..],
        &[("b3", "1")],
        &[("b3", "-")],
        &[("b3", "0-0-1")],
        &[("b3", "g-1-1")],
        &[("b3", long.as_str())],
        &[("x-b3-traceid", "1")],
        &[("x-b3-spanid", "1")],
        &[("x-b3-traceid", long.as_str()), ("x-b3-spanid", "1")],
        &[("x-b3-traceid", "1"), ("x-b3-spanid", "11111111111111111")],
        &[("uber-trace-id", "1:2:3")],
        &[("uber-trace-id", "1:2:3:x")],
        &[("uber-trace-id", "1%3A2%3A3%3A")],
        &[("uber-trace-id", "%3A%3A%3A")],
        &[("x-datadog-trace-id", "1")],
        &[("x-datadog-trace-id", ""), ("x-datadog-parent-id", "1")],
        &[("x-datadog-trace-id", "0"), ("x-datadog-parent-id", "1")],
        &[("x-datadog-trace-id", "-1"), ("x-datadog-parent-id", "1")],
        &[("x-datadog-trace-id", "+1"), ("x-datadog-parent-id", "1")],
        &[("x-datadog-trace-id", huge.as_str()), ("x-datadog-parent-id", "1")],
        &[("x-amzn-trace-id", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=0")],
        &[("x-amzn-trace-id", "Root=2-5759e988-bd862e3fe1be46a994272793;Parent=1")],
        &[("x-amzn-trace-id", "Root=1-5759e988bd862e3fe1be46a994272793;Parent=1")],
        &[("x-amzn-trace-id", "Root=1-5759e98g-bd862e3fe1be46a994272793;Parent=1")],
        &[("x-amzn-trace-id", ";;=;")],
    ] {
        check(headers, None);
    }
}

#[test]
fn a_tracestate_keeps_whole_members_up_to_its_bound() {
    let valid = format!("00-{T}-{S}-01");
    let member = |length: usize| format!("k={}", "v".repeat(length - 2));
    let (short, long) = (member(200), member(511));
    for (states, kept) in [
        (vec![short.as_str(), &short, &short], format!("{short},{short}")),
        (vec![&long], long.clone()),
        (vec![&long, &short], long.clone()),
        (vec!["no member", "a=1,,b=2 , c=3"], "a=1,b=2,c=3".to_owned()),
    ] {
        let mut headers = vec![("traceparent", valid.as_str())];
        headers.extend(states.iter().map(|state| ("tracestate", *state)));
        check(&headers, Some(format!("W3c {T} {S} 01 {kept}").as_str()));
    }
    check(&[("tracestate", "a=1")], None);
}
