//! Flags and environments, and the destinations that they mean.

use super::*;

/// The destinations that an environment means, in words.
fn of(variables: &[(&str, &str)], flags: &Destinations) -> String {
    let variable = |name: &str| {
        let found = variables.iter().find(|(key, _)| *key == name)?;
        Some(found.1.to_owned())
    };
    let say = |destination: &Destination| match destination {
        Destination::Otlp(config) => format!("otlp {}", config.url),
        Destination::Zipkin(url) => format!("zipkin {url}"),
        Destination::File(path) => format!("file {}", path.display()),
        Destination::JsonStdout => "json".to_owned(),
        Destination::Console(_) => "console".to_owned(),
    };
    match flags.resolve(false, variable) {
        Ok(destinations) => destinations.iter().map(say).collect::<Vec<_>>().join(", "),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_environment_names_exporters() {
    let otlp = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://one:4318");
    let zipkin = ("OTEL_EXPORTER_ZIPKIN_ENDPOINT", "http://two:9411/spans");
    let exporter = |list| ("OTEL_TRACES_EXPORTER", list);
    let rows: [(&[(&str, &str)], &str); 12] = [
        (&[], "console"),
        (&[otlp, zipkin], "otlp http://one:4318/v1/traces, zipkin http://two:9411/spans"),
        (&[exporter(" "), otlp], "otlp http://one:4318/v1/traces"),
        (&[exporter("otlp"), zipkin], "otlp http://localhost:4318/v1/traces"),
        (
            &[exporter("otlp"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
            "otlp http://localhost:4317/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        ),
        (&[exporter("otlp"), otlp], "otlp http://one:4318/v1/traces"),
        (&[exporter("zipkin"), otlp], "zipkin http://localhost:9411/api/v2/spans"),
        (
            &[exporter("zipkin,otlp"), zipkin, otlp],
            "otlp http://one:4318/v1/traces, zipkin http://two:9411/spans",
        ),
        (&[exporter("console, otlp"), otlp], "otlp http://one:4318/v1/traces, console"),
        (&[exporter("console"), otlp], "console"),
        (&[exporter("none"), otlp], "console"),
        (
            &[exporter("otlp,jaeger")],
            "cannot use `otlp,jaeger` for OTEL_TRACES_EXPORTER: expected otlp, zipkin, console or none, separated by commas",
        ),
    ];
    for (variables, expected) in rows {
        assert_eq!(of(variables, &Destinations::default()), expected, "{variables:?}");
    }
}

#[test]
fn flags_win_over_the_environment() {
    let flags = Destinations { files: vec!["spans".into()], ..Destinations::default() };
    assert_eq!(of(&[("OTEL_TRACES_EXPORTER", "otlp")], &flags), "file spans");
    let flags = Destinations { json: true, ..Destinations::default() };
    assert_eq!(of(&[("OTEL_TRACES_EXPORTER", "none")], &flags), "json");
    assert_eq!(
        of(&[("OTEL_TRACES_EXPORTER", "zipkin")], &flags),
        "--json is for --console: leave out the other destinations or add --console"
    );
}
