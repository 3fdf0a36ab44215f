//! Attributes of heads, as `key=value` lines.

use super::*;

fn told(attributes: &Attributes) -> Vec<String> {
    let line = |(key, value): (&str, Value<'_>)| match value {
        Value::Text(text) => format!("{key}={text}"),
        Value::Int(number) => format!("{key}={number}"),
        other => format!("{key}={other:?}"),
    };
    attributes.iter().map(line).collect()
}

fn ends() -> Ends {
    let address = |text: &str| text.parse().ok();
    Ends { local: address("10.0.0.1:8080"), peer: address("10.0.0.2:40000") }
}

#[derive(Default)]
struct Memory {
    standing: Standing,
    sayings: Sayings,
}

fn about(memory: &mut Memory) -> About<'_> {
    About { ends: &ends, standing: &mut memory.standing, sayings: &mut memory.sayings }
}

#[test]
fn a_server_tells_path_and_peer_and_hides_secrets() {
    let mut attributes = Attributes::default();
    let headers = [
        Header { name: "Host", value: b"shop.example:8080" },
        Header { name: "User-Agent", value: b"curl/8" },
        Header { name: "Authorization", value: b"Bearer s3cret" },
    ];
    let target = "/buy?item=1&token=s3cret";
    let head = RequestHead {
        method: "GET",
        target,
        minor_version: 1,
        headers: &headers,
        truncated: false,
    };
    let capture =
        HeaderCapture { request: vec!["authorization".into(), "absent".into()], response: vec![] };
    let name =
        request(&mut attributes, Kind::Server, &head, about(&mut Memory::default()), &capture);
    assert_eq!(name, "GET");
    let told = told(&attributes);
    assert_eq!(
        told,
        [
            "http.request.method=GET",
            "url.path=/buy",
            "url.query=item=1&token=REDACTED",
            "url.scheme=http",
            "server.address=shop.example",
            "server.port=8080",
            "client.address=10.0.0.2",
            "network.peer.address=10.0.0.2",
            "network.peer.port=40000",
            "network.protocol.version=1.1",
            "user_agent.original=curl/8",
            "http.request.header.authorization=Texts([\"REDACTED\"])",
        ]
    );
}

#[test]
fn a_client_tells_the_whole_url_without_user_information() {
    for (method, target, host, url) in [
        ("GET", "/a?b=1", "h:81", "http://h:81/a?b=1"),
        ("GET", "http://user:pw@h/a", "other", "http://h/a"),
        ("OPTIONS", "*", "h", "http://h"),
        ("CONNECT", "h:443", "h:443", "http://h:443"),
        ("GET", "/", "user:pw@h", "http://h/"),
    ] {
        let mut attributes = Attributes::default();
        let headers = [Header { name: "host", value: host.as_bytes() }];
        let head =
            RequestHead { method, target, minor_version: 1, headers: &headers, truncated: false };
        request(
            &mut attributes,
            Kind::Client,
            &head,
            about(&mut Memory::default()),
            &HeaderCapture::default(),
        );
        assert_eq!(attributes.get("url.full"), Some(Value::Text(url)), "{method} {target}");
        assert!(!told(&attributes).join(" ").contains("pw"));
    }
}

#[test]
fn methods_that_no_one_knows_do_not_name_spans() {
    let mut attributes = Attributes::default();
    let head = RequestHead {
        method: "BREW",
        target: "/pot",
        minor_version: 0,
        headers: &[],
        truncated: false,
    };
    let name = request(
        &mut attributes,
        Kind::Server,
        &head,
        about(&mut Memory::default()),
        &HeaderCapture::default(),
    );
    assert_eq!(name, "HTTP");
    assert_eq!(attributes.get("http.request.method"), Some(Value::Text("_OTHER")));
    assert_eq!(attributes.get("http.request.method_original"), Some(Value::Text("BREW")));
    assert_eq!(attributes.get("server.address"), Some(Value::Text("10.0.0.1")));
}

#[test]
fn requests_of_two_connections_may_differ_in_everything() {
    let others = || Ends { local: ends().peer, peer: None };
    let connections: [&dyn Fn() -> Ends; 2] = [&ends, &others];
    let mut standings = [Standing::default(), Standing::default()];
    let mut sayings = Sayings::default();
    let requests = [
        ("/a", "h", Some("curl"), 1),
        ("/b", "h", Some("curl"), 1),
        ("/c", "i", Some("curl"), 1),
        ("/d", "i", None, 1),
        ("/e", "i", None, 0),
        ("http://j/f", "i", None, 0),
        ("https://j/g", "i", None, 0),
        ("/h", "h", Some("curl"), 1),
        ("/i", "", Some("curl"), 1),
        ("/k", "h:1", Some("curl"), 1),
    ];
    for (target, host, agent, minor_version) in requests {
        let mut headers = vec![Header { name: "host", value: host.as_bytes() }];
        headers.extend(agent.map(|agent| Header { name: "user-agent", value: agent.as_bytes() }));
        let headers = headers.as_slice();
        let head = RequestHead { method: "GET", target, minor_version, headers, truncated: false };
        for kind in [Kind::Server, Kind::Client] {
            for (ends, standing) in connections.iter().zip(&mut standings) {
                let say = |standing: &mut Standing, sayings: &mut Sayings| {
                    let mut attributes = Attributes::default();
                    let about = About { ends: *ends, standing, sayings };
                    request(&mut attributes, kind, &head, about, &HeaderCapture::default());
                    told(&attributes)
                };
                let alone = say(&mut Standing::default(), &mut Sayings::default());
                assert_eq!(say(standing, &mut sayings), alone, "{target}");
                assert_eq!(say(standing, &mut sayings), alone, "{target} again");
            }
        }
    }
}

#[test]
fn outcomes() {
    let unset = (StatusCode::Unset, None);
    let error = |word: &'static str| (StatusCode::Error, Some(Cow::Borrowed(word)));
    let complete = Some(End::Complete);
    assert_eq!(outcome(Kind::Server, Some(404), complete), unset);
    assert_eq!(outcome(Kind::Client, Some(404), complete), error("404"));
    assert_eq!(outcome(Kind::Server, Some(503), complete), error("503"));
    assert_eq!(outcome(Kind::Server, Some(200), Some(End::Unseen)), unset);
    assert_eq!(outcome(Kind::Client, Some(200), Some(End::Aborted)), error("connection_closed"));
    assert_eq!(outcome(Kind::Client, None, None), error("connection_closed"));
    // "HTTP/1.1 000" and "HTTP/1.1 099" are responses, but those are no codes.
    for status in [0, 99] {
        assert_eq!(outcome(Kind::Server, Some(status), complete), error("invalid_status"));
        let mut attributes = Attributes::default();
        let head = ResponseHead { status, minor_version: 1, headers: &[], truncated: false };
        response(&mut attributes, &head, &HeaderCapture::default());
        assert_eq!(attributes, Attributes::default());
    }
}

#[test]
fn text_is_cut_between_characters() {
    assert_eq!(cut("añb", 2), "a");
    assert_eq!(cut("añb", 3), "añ");
}

#[test]
fn no_form_of_target_leaks_a_secret() {
    for target in [
        "/a?token=S3CRET",
        "/a;jsessionid=S3CRET/b",
        "http://me:S3CRET@h/a?token=S3CRET",
        "HTTP://S3CRET@h",
        "http://me:S3CRET@h?token=S3CRET",
        "?token=S3CRET",
        "?token=S3CRET&next=http://h/",
        "?a=b&token=S3CRET://h",
        "me:S3CRET@h:80",
        "me:S3CRET@h:80/a?token=S3CRET",
        "a?token=S3CRET&next=http://h/",
        "*?token=S3CRET",
        "/a?b=c&%54oken=S3CRET#token=x",
    ] {
        for method in ["GET", "CONNECT", "OPTIONS"] {
            for kind in [Kind::Server, Kind::Client] {
                let mut attributes = Attributes::default();
                let headers = [
                    Header { name: "Host", value: b"me:S3CRET@h" },
                    Header { name: "Cookie", value: b"S3CRET" },
                ];
                let (minor_version, truncated) = (1, false);
                let headers = &headers[..];
                let head = RequestHead { method, target, minor_version, headers, truncated };
                let capture =
                    HeaderCapture { request: vec!["cookie".to_owned()], response: vec![] };
                request(&mut attributes, kind, &head, about(&mut Memory::default()), &capture);
                let told = told(&attributes);
                let leaks = told.iter().filter(|line| line.contains("S3CRET"));
                assert_eq!(leaks.collect::<Vec<_>>(), Vec::<&String>::new(), "{method} {target}");
            }
        }
    }
}

#[test]
fn hosts_and_ports() {
    for (authority, host, port) in [
        ("h", "h", None),
        ("h:80", "h", Some(80)),
        ("h:", "h", None),
        ("h:99999", "h", None),
        ("[::1]", "::1", None),
        ("[::1]:80", "::1", Some(80)),
        ("[::1", "[::1", None),
        ("", "", None),
    ] {
        assert_eq!(split_host(authority), (host, port), "{authority}");
    }
}

#[test]
fn what_peers_choose_is_bounded() {
    let mut attributes = Attributes::default();
    let long = "x".repeat(100_000);
    let target = format!("/{long}?{long}");
    let names = ["Host", "User-Agent"].into_iter().chain(std::iter::repeat_n("X-A", 500));
    let headers: Vec<_> = names.map(|name| Header { name, value: long.as_bytes() }).collect();
    let head = RequestHead {
        method: "GET",
        target: &target,
        minor_version: 1,
        headers: &headers,
        truncated: false,
    };
    let capture = HeaderCapture { request: vec!["x-a".to_owned()], response: vec![] };
    request(&mut attributes, Kind::Client, &head, about(&mut Memory::default()), &capture);
    let bytes: usize = told(&attributes).iter().map(String::len).sum();
    assert!(bytes < 20_000, "{bytes} bytes");
}

#[test]
fn what_headers_with_urls_carry_is_redacted() {
    let url = &b"https://me:pw@h/back?code=1&a=b#id_token=2"[..];
    let headers = ["Location", "X-Other"].map(|name| Header { name, value: url });
    let head = ResponseHead { status: 302, minor_version: 1, headers: &headers, truncated: false };
    let capture = HeaderCapture { request: Vec::new(), response: vec!["location".to_owned()] };
    let mut attributes = Attributes::default();
    response(&mut attributes, &head, &capture);
    let expected = "http.response.header.location=\
                    Texts([\"https://h/back?code=REDACTED&a=b#id_token=REDACTED\"])";
    assert_eq!(told(&attributes), ["http.response.status_code=302", expected]);
}
