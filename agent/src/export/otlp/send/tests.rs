//! What answers mean.

use super::*;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::try_from(*name).expect("a name");
        headers.insert(name, HeaderValue::try_from(*value).expect("a value"));
    }
    headers
}

fn say(verdict: Verdict) -> String {
    match verdict {
        Verdict::Taken { rejected: 0, message } if message.is_empty() => "taken".to_owned(),
        Verdict::Taken { rejected, message } => {
            format!("taken but {rejected} {message}").trim().to_owned()
        }
        Verdict::Refused { .. } => "refused".to_owned(),
        Verdict::TooLarge { .. } => "too large".to_owned(),
        Verdict::Later { after: None, .. } => "later".to_owned(),
        Verdict::Later { after: Some(after), .. } => format!("later {} ms", after.as_millis()),
    }
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).expect("a status")
}

#[test]
fn http_codes() {
    for protocol in [Protocol::HttpProtobuf, Protocol::HttpJson] {
        for code in 200..600 {
            let verdict = http_verdict(status(code), &HeaderMap::new(), b"", protocol);
            let expected = match code {
                200..300 => "taken",
                413 => "too large",
                429 | 502 | 503 | 504 => "later",
                _ => "refused",
            };
            assert_eq!(say(verdict), expected, "{code}");
        }
    }
    // Some servers have another code for what is too large.
    let words = b"http: request body too large";
    let verdict = http_verdict(status(400), &HeaderMap::new(), words, Protocol::HttpProtobuf);
    assert_eq!(say(verdict), "too large");
    let say_after = |code, after| {
        let headers = headers(&[("retry-after", after)]);
        say(http_verdict(status(code), &headers, b"", Protocol::HttpProtobuf))
    };
    assert_eq!(say_after(503, "7"), "later 7000 ms");
    assert_eq!(say_after(429, "soon"), "later");
    assert_eq!(say_after(400, "7"), "refused");
}

#[test]
fn partial_success_over_http() {
    let json = |text: &str| {
        say(http_verdict(status(200), &HeaderMap::new(), text.as_bytes(), Protocol::HttpJson))
    };
    for (answer, said) in [
        ("", "taken"),
        ("{}", "taken"),
        (r#"{"partialSuccess":{}}"#, "taken"),
        (r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"no"}}"#, "taken but 3 no"),
        (r#"{"partialSuccess":{"rejectedSpans":3}}"#, "taken but 3"),
        (r#"{"partialSuccess":{"errorMessage":"old"}}"#, "taken but 0 old"),
        (r#"{"partialSuccess":{"rejectedSpans":-3}}"#, "taken"),
        (r#"{"partialSuccess":null}"#, "taken"),
        ("<html>", "taken"),
        ("[[[[", "taken"),
    ] {
        assert_eq!(json(answer), said, "{answer}");
    }
    let binary = |bytes: &[u8]| {
        say(http_verdict(status(200), &HeaderMap::new(), bytes, Protocol::HttpProtobuf))
    };
    for (answer, said) in [
        (&b""[..], "taken"),
        (b"\x0a\x00", "taken"),
        (b"\x0a\x06\x08\x03\x12\x02no", "taken but 3 no"),
        // Unknown fields before; cut; a length beyond the end; a wire type that is none.
        (b"\x50\x01\x0a\x02\x08\x03", "taken but 3"),
        (b"\x0a\x06\x08", "taken"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "taken"),
        (b"\x0f", "taken"),
        (b"<html>", "taken"),
    ] {
        assert_eq!(binary(answer), said, "{answer:x?}");
    }
}

#[test]
fn grpc_codes() {
    for code in 0..20u32 {
        let trailers = headers(&[("grpc-status", &code.to_string())]);
        let expected = match code {
            0 => "taken",
            // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS.
            1 | 4 | 10 | 11 | 14 | 15 => "later",
            _ => "refused",
        };
        let in_trailers = grpc_verdict(status(200), &HeaderMap::new(), &trailers, b"");
        assert_eq!(say(in_trailers), expected, "{code}");
        let in_headers = grpc_verdict(status(200), &trailers, &HeaderMap::new(), b"");
        assert_eq!(say(in_headers), expected, "{code}");
    }
    for code in ["8", "11", "13"] {
        let message = "grpc: received message larger than max (5 vs. 4)";
        let trailers = headers(&[("grpc-status", code), ("grpc-message", message)]);
        let verdict = grpc_verdict(status(200), &HeaderMap::new(), &trailers, b"");
        let expected = if code == "13" { "refused" } else { "too large" };
        assert_eq!(say(verdict), expected, "{code}");
    }
    let answer = b"\x00\x00\x00\x00\x08\x0a\x06\x08\x03\x12\x02no";
    let trailers = headers(&[("grpc-status", "0")]);
    let verdict = grpc_verdict(status(200), &HeaderMap::new(), &trailers, answer);
    assert_eq!(say(verdict), "taken but 3 no");
    let verdict = grpc_verdict(status(200), &HeaderMap::new(), &trailers, b"\x00");
    assert_eq!(say(verdict), "taken");
}

#[test]
fn answers_that_are_not_grpc() {
    // gRPC, "HTTP to gRPC status code mapping"; 200 is UNKNOWN, which is not to be tried again.
    for (code, expected) in [
        (200, "refused"),
        (400, "refused"),
        (401, "refused"),
        (404, "refused"),
        (429, "later"),
        (500, "refused"),
        (502, "later"),
        (503, "later"),
        (504, "later"),
    ] {
        let verdict = grpc_verdict(status(code), &HeaderMap::new(), &HeaderMap::new(), b"");
        assert_eq!(say(verdict), expected, "{code}");
        let nonsense = headers(&[("grpc-status", "-1")]);
        let verdict = grpc_verdict(status(code), &HeaderMap::new(), &nonsense, b"");
        assert_eq!(say(verdict), expected, "{code}");
    }
}

/// `google.rpc.Status` with one detail, in base64 without padding.
fn details(type_url: &str, detail: &[u8]) -> String {
    let field = |number: u8, bytes: &[u8]| {
        let mut out = vec![number << 3 | 2, bytes.len() as u8];
        out.extend(bytes);
        out
    };
    let any = [field(1, type_url.as_bytes()), field(2, detail)].concat();
    let status = [vec![8, 8], field(2, b"slow"), field(3, &any)].concat();
    let mut out = Vec::new();
    crate::export::json::Json::new(&mut out).base64(&status);
    String::from_utf8(out).expect("text").trim_matches(['"', '=']).to_owned()
}

#[test]
fn retry_info_says_when() {
    let url = "type.googleapis.com/google.rpc.RetryInfo";
    let say_with = |code: &str, details: &str| {
        let trailers = headers(&[("grpc-status", code), ("grpc-status-details-bin", details)]);
        say(grpc_verdict(status(200), &HeaderMap::new(), &trailers, b""))
    };
    let two_and_a_half = details(url, b"\x0a\x08\x08\x02\x10\x80\xca\xb5\xee\x01");
    for (code, details, said) in [
        ("8", two_and_a_half.as_str(), "later 2500 ms"),
        ("14", &two_and_a_half, "later 2500 ms"),
        ("3", &two_and_a_half, "refused"),
        ("8", &details("type.googleapis.com/google.rpc.Help", b"\x0a\x02\x08\x02"), "refused"),
        ("8", &details(url, b""), "later 0 ms"),
        ("8", "!", "refused"),
        ("8", "", "refused"),
    ] {
        assert_eq!(say_with(code, details), said, "{code} {details}");
    }
    // Minus one second and minus one nanosecond.
    let minus =
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    let delay = [&[0x0a, minus.len() as u8][..], minus].concat();
    assert_eq!(say_with("8", &details(url, &delay)), "later 0 ms");
    // The longest that can be said.
    let most = b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x10\xff\xff\xff\xff\xff\xff\xff\xff\x7f";
    let delay = [&[0x0a, most.len() as u8][..], most].concat();
    assert!(say_with("8", &details(url, &delay)).starts_with("later "));
}

#[test]
fn base64_with_and_without_padding() {
    for (text, bytes) in [
        ("", Some(&b""[..])),
        ("Zg==", Some(b"f")),
        ("Zg", Some(b"f")),
        ("Zm8=", Some(b"fo")),
        ("Zm9vYmFy", Some(b"foobar")),
        ("-_-_", Some(b"\xfb\xff\xbf")),
        ("+/+/", Some(b"\xfb\xff\xbf")),
        ("Zm 8", None),
        ("Z\u{e9}", None),
    ] {
        assert_eq!(base64(text).as_deref(), bytes, "{text}");
    }
}
