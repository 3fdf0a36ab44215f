//! What backends answer, and what people write to name them.
//!
//! Layout: what is asked (one byte), the status (two bytes), headers up to an empty line, the body.

use super::input::Input;
use crate::export::otlp::config::{self, Config, Overrides, Protocol};
use crate::export::{otlp, zipkin};

pub(super) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let what = input.byte().unwrap_or(0);
    let status = 200 + input.short().unwrap_or(0) % 400;
    match what % 6 {
        0 => otlp::send::judge_http(status, input.0, Protocol::HttpProtobuf),
        1 => otlp::send::judge_http(status, input.0, Protocol::HttpJson),
        2 => otlp::send::judge_grpc(status, input.0),
        3 => zipkin::judge(status, input.0),
        _ => {}
    }
    let Ok(text) = str::from_utf8(input.0) else { return };
    match what % 6 {
        4 => {
            let (url, headers) = text.split_once('\n').unwrap_or((text, ""));
            let _ = zipkin::parse_url(url);
            let variable = |name: &str| name.ends_with("_HEADERS").then(|| headers.to_owned());
            if let Ok(config) = Config::from_url(url, &Overrides::default(), variable) {
                assert!(matches!(config.url.scheme(), "http" | "https"), "{config:?}");
                assert!(config.url.has_host(), "{config:?}");
            }
        }
        5 => {
            for (name, _) in config::parse_headers("x", text).unwrap_or_default() {
                assert!(!name.is_empty() && name.trim() == name);
            }
        }
        _ => {}
    }
}
