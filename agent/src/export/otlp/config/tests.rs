//! Flags and variables in, destinations out.

use super::*;

fn say(config: Result<Config, ConfigError>) -> String {
    config.map_or_else(|error| error.to_string(), |c| format!("{:?} {}", c.protocol, c.url))
}

/// A lookup of variables, by the ends of their names.
fn lookup<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
    |name| {
        let name = name.strip_prefix("OTEL_EXPORTER_OTLP_").expect("one of OTLP's");
        let found = variables.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    }
}

fn from(variables: &[(&str, &str)]) -> Option<String> {
    let config = Config::from_environment(&Overrides::default(), lookup(variables));
    config.transpose().map(say)
}

#[test]
fn urls_on_the_command_line() {
    let url = |text| say(Config::from_url(text, &Overrides::default(), |_| None));
    let grpc = format!("Grpc http://h:4317{GRPC_PATH}");
    for (given, meant) in [
        ("http://h:4318", "HttpProtobuf http://h:4318/v1/traces"),
        ("http://h:4318/", "HttpProtobuf http://h:4318/v1/traces"),
        ("http://h:4318/x", "HttpProtobuf http://h:4318/x"),
        ("https://h", "HttpProtobuf https://h/v1/traces"),
        ("https://[::1]:1/x?y=z", "HttpProtobuf https://[::1]:1/x?y=z"),
        ("http://h:4317", &grpc),
        ("grpc://h:4317", &grpc),
        ("grpc://h", &grpc),
        ("grpc://u:p@[::1]/", &format!("Grpc http://u:p@[::1]:4317{GRPC_PATH}")),
        ("grpc://h:80", &format!("Grpc http://h{GRPC_PATH}")),
        ("grpcs://[::1]:443", &format!("Grpc https://[::1]{GRPC_PATH}")),
    ] {
        assert_eq!(url(given), meant);
    }
    assert!(url("localhost:4317").contains("it has no scheme"));
    assert!(url("ftp://h").contains("none of http, https, grpc, grpcs"));
    assert!(url("http://").contains("write it like"));
    assert!(url("http://h:port").contains("write it like"));
}

#[test]
fn endpoints_of_the_environment() {
    let grpc = format!("Grpc http://h:4317{GRPC_PATH}");
    for (variables, meant) in [
        (&[][..], None),
        (&[("ENDPOINT", "")], None),
        (&[("ENDPOINT", ""), ("TRACES_ENDPOINT", "")], None),
        // The general one is a base.
        (&[("ENDPOINT", "http://h:4318")], Some("HttpProtobuf http://h:4318/v1/traces")),
        (&[("ENDPOINT", "http://h/base/")], Some("HttpProtobuf http://h/base/v1/traces")),
        (&[("ENDPOINT", "http://h/base?a=b")], Some("HttpProtobuf http://h/base/v1/traces?a=b")),
        (&[("ENDPOINT", "http://h:4317")], Some(&grpc)),
        // The signal's own is used as it is, and first.
        (&[("TRACES_ENDPOINT", "http://h:4318/")], Some("HttpProtobuf http://h:4318/")),
        (&[("TRACES_ENDPOINT", "http://h:4318/x/")], Some("HttpProtobuf http://h:4318/x/")),
        (
            &[("ENDPOINT", "http://other"), ("TRACES_ENDPOINT", "http://h/x")],
            Some("HttpProtobuf http://h/x"),
        ),
        (
            &[("ENDPOINT", "http://h"), ("TRACES_ENDPOINT", "")],
            Some("HttpProtobuf http://h/v1/traces"),
        ),
        (
            &[("ENDPOINT", "http://h:4317"), ("PROTOCOL", "http/protobuf")],
            Some("HttpProtobuf http://h:4317/v1/traces"),
        ),
        (&[("ENDPOINT", "http://h:4317"), ("PROTOCOL", "")], Some(&grpc)),
        (&[("ENDPOINT", "http://h:4317/x"), ("PROTOCOL", "grpc")], Some(&grpc)),
        (
            &[("ENDPOINT", "http://h"), ("PROTOCOL", "grpc"), ("TRACES_PROTOCOL", "http/json")],
            Some("HttpJson http://h/v1/traces"),
        ),
    ] {
        assert_eq!(from(variables).as_deref(), meant, "{variables:?}");
    }
}

#[test]
fn options_of_the_environment() {
    let config = |variables: &[(&str, &str)]| {
        Config::from_url("http://h", &Overrides::default(), lookup(variables)).expect("valid")
    };
    let plain = config(&[]);
    assert_eq!((plain.gzip, plain.timeout), (false, Duration::from_secs(10)));
    assert_eq!((plain.headers.len(), plain.certificate, plain.client), (0, None, None));
    let full = config(&[
        ("HEADERS", "other=1"),
        ("TRACES_HEADERS", "Api-Key=a%20b, x=y=z,,"),
        ("COMPRESSION", "gzip"),
        ("TIMEOUT", "250"),
        ("CERTIFICATE", "/ca.pem"),
        ("CLIENT_CERTIFICATE", "/me.pem"),
        ("TRACES_CLIENT_KEY", "/me.key"),
    ]);
    let headers = [("api-key", "a b"), ("x", "y=z")];
    assert_eq!(full.headers, headers.map(|(k, v)| (k.to_owned(), v.to_owned())));
    assert_eq!((full.gzip, full.timeout), (true, Duration::from_millis(250)));
    assert_eq!(full.certificate, Some("/ca.pem".into()));
    assert_eq!(full.client, Some(("/me.pem".into(), "/me.key".into())));
    // The signal's own wins, also to say no; nothing is nothing.
    let no = config(&[("COMPRESSION", "gzip"), ("TRACES_COMPRESSION", "none")]);
    assert!(!no.gzip);
    let unset = config(&[("COMPRESSION", "gzip"), ("TRACES_COMPRESSION", ""), ("TIMEOUT", "")]);
    assert_eq!((unset.gzip, unset.timeout), (true, Duration::from_secs(10)));
}

#[test]
fn flags_win() {
    let overrides = Overrides {
        protocol: Some(Protocol::HttpJson),
        headers: vec![("x".to_owned(), "flag".to_owned())],
        gzip: Some(false),
    };
    let variables = [
        ("ENDPOINT", "http://h:4317"),
        ("PROTOCOL", "grpc"),
        ("COMPRESSION", "gzip"),
        ("HEADERS", "x=variable"),
    ];
    let config = Config::from_environment(&overrides, lookup(&variables));
    let config = config.expect("valid").expect("an endpoint");
    assert_eq!(config.url.as_str(), "http://h:4317/v1/traces");
    assert_eq!((config.protocol, config.gzip), (Protocol::HttpJson, false));
    // The sender sets them in order: the last one stays.
    assert_eq!(config.headers.last(), Some(&("x".to_owned(), "flag".to_owned())));
    // A URL that names gRPC itself is more special than any option.
    let config = Config::from_url("grpc://h", &overrides, lookup(&variables)).expect("valid");
    assert_eq!(config.protocol, Protocol::Grpc);
}

#[test]
fn what_means_nothing_is_an_error_that_names_it() {
    for (variable, value, expected) in [
        ("PROTOCOL", "soap", "grpc, http/protobuf or http/json"),
        ("TRACES_PROTOCOL", "HTTP/JSON", "grpc, http/protobuf or http/json"),
        ("COMPRESSION", "zstd", "gzip or none"),
        ("TIMEOUT", "10s", "milliseconds"),
        ("TIMEOUT", "-1", "milliseconds"),
        ("TIMEOUT", "0", "milliseconds above 0"),
        ("CLIENT_KEY", "/me.key", "a client's certificate and its key, or neither"),
        ("CLIENT_CERTIFICATE", "/me.pem", "a client's certificate and its key, or neither"),
        ("HEADERS", "no-equals-sign", "key=value"),
        ("HEADERS", "=nothing", "key=value"),
        ("ENDPOINT", "localhost:4317", "it has no scheme"),
    ] {
        let mut variables = vec![(variable, value)];
        if variable != "ENDPOINT" {
            variables.push(("ENDPOINT", "http://h"));
        }
        let said = from(&variables).expect("an answer");
        let shown = variable != "HEADERS";
        assert!(said.contains(expected), "{variable}={value}: {said}");
        assert_eq!(said.contains(value), shown, "{variable}={value}: {said}");
        if variable != "ENDPOINT" {
            assert!(said.contains(variable), "{variable}: {said}");
        }
    }
}

#[test]
fn secrets_are_not_shown() {
    let error =
        Config::from_url("htp://me:s3cret@h/?token=s3cret", &Overrides::default(), |_| None);
    let error = error.expect_err("no scheme of ours").to_string();
    assert!(error.contains("htp://h/?token=REDACTED"), "{error}");
    let overrides = Overrides {
        headers: vec![("authorization".to_owned(), "Bearer s3cret\n".to_owned())],
        ..Overrides::default()
    };
    let config = Config::from_url("http://h", &overrides, |_| None).expect("valid");
    let error = crate::export::otlp::send::Sender::new(config).err().expect("no header value");
    assert!(!error.to_string().contains("s3cret"), "{error}");
}
