//! What goes and what stays.

use proptest::prelude::*;

use super::*;

#[test]
fn secrets_go_and_the_rest_stays() {
    for (dirty, clean) in [
        ("", ""),
        ("a=1&b=2", "a=1&b=2"),
        ("token=abc", "token=REDACTED"),
        ("a=1&Token=abc&b=2", "a=1&Token=REDACTED&b=2"),
        ("%74oken=abc", "%74oken=REDACTED"),
        ("token=", "token="),
        ("token", "token"),
        ("X-Amz-Signature=f00;x=1", "X-Amz-Signature=REDACTED;x=1"),
        ("q=token=abc", "q=token=abc"),
        ("password=a=b&c", "password=REDACTED&c"),
        ("sig=1&sig=2&&sig=3&", "sig=REDACTED&sig=REDACTED&&sig=REDACTED&"),
        ("q=1#id_token=abc&b=2", "q=1#id_token=REDACTED&b=2"),
        ("tokens=1&my_token=2", "tokens=1&my_token=2"),
    ] {
        assert_eq!(query(dirty), clean);
    }
    assert_eq!(authority("user:pass@host:80"), "host:80");
    assert_eq!(authority("a@b@host"), "host");
    assert_eq!(authority("host:80"), "host:80");
}

#[test]
fn paths_and_whole_urls() {
    for (dirty, clean) in [
        ("/a/token=b", "/a/token=b"),
        ("/a;jsessionid=1/b;x=y;token=2", "/a;jsessionid=REDACTED/b;x=y;token=REDACTED"),
        ("/back#state=1&access_token=2", "/back#state=1&access_token=REDACTED"),
        ("", ""),
    ] {
        assert_eq!(path(dirty), clean);
    }
    for (dirty, clean) in [
        ("https://h/back#id_token=1&b=2", "https://h/back#id_token=REDACTED&b=2"),
        ("http://me:pw@h:80/a;sid=1?key=2&b=3#f", "http://h:80/a;sid=REDACTED?key=REDACTED&b=3#f"),
        ("http://h?token=1", "http://h?token=REDACTED"),
        ("me:pw@h", "h"),
        ("http://h/a@b", "http://h/a@b"),
        ("", ""),
    ] {
        assert_eq!(url(dirty), clean);
    }
}

/// Of every length that secret keys have.
const KEYS: [&str; 20] = [
    "sig",
    "auth",
    "token",
    "secret",
    "api-key",
    "password",
    "signature",
    "sessionid",
    "jsessionid",
    "session_id",
    "accesstoken",
    "private_key",
    "access_token",
    "client_secret",
    "refresh_token",
    "awsaccesskeyid",
    "x-amz-signature",
    "x-amz-credential",
    "x-goog-signature",
    "x-amz-security-token",
];

proptest! {
    #[test]
    fn no_secret_survives(
        key in prop::sample::select(&KEYS[..]),
        upper: bool,
        before in "[a-z=&;]{0,8}",
        behind in "[&;][a-z=&;]{0,8}",
    ) {
        let key = if upper { key.to_uppercase() } else { key.to_owned() };
        let dirty = format!("{before}&{key}=S3CRET{behind}");
        let clean = query(&dirty);
        prop_assert!(!clean.contains("S3CRET"), "{}", clean);
        let again = query(&clean);
        prop_assert_eq!(&again, &clean);
    }

    #[test]
    fn what_names_no_secret_is_left_alone(text in "[x-z=&;%/?]{0,20}") {
        prop_assert_eq!(query(&text), text.as_str());
    }

    #[test]
    fn anything_is_taken(text: String) {
        query(&text);
        path(&text);
        authority(&text);
        url(&text);
    }
}

#[test]
fn values_of_programs() {
    let check = |key: &str, text: &str, expected: &str| assert_eq!(value(key, text), expected);
    check("remora.arg.password", "hunter2", REDACTED);
    check("remora.arg.user.api_key", "k", REDACTED);
    check("remora.arg.name", "x: y, 1", "x: y, 1");
    check(
        "remora.arg.login",
        r#"{name: "a", password: "q\"}, x", token: {a: [1, 2]}, id: 7}"#,
        r#"{name: "a", password: REDACTED, token: REDACTED, id: 7}"#,
    );
    check("remora.arg.login", r#"{password: "cut"#, "{password: REDACTED");
    check("remora.arg.url", "http://u:p@h/a?sig=1&b=2", "http://h/a?sig=REDACTED&b=2");
}
