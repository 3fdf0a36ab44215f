//! What a sink can answer, and how HTTP and gRPC say it.

use std::time::{Duration, SystemTime};

/// An answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Taken.
    Take,
    /// Taken but for some spans, or with a warning.
    Partial(u64, &'static str),
    /// Taken, with an answer that is no answer.
    TakeOddly,
    /// Taken, but the connection is reset before the answer.
    TakeAndReset,
    /// Taken when the test says so.
    Hold,
    /// Not now: this HTTP status, or UNAVAILABLE.
    Later(u16),
    /// Not now, but after so many seconds: this HTTP status, or RESOURCE_EXHAUSTED.
    LaterAfter(u16, u64),
    /// Not now, but at a date that is now: this HTTP status, or UNAVAILABLE.
    LaterAt(u16),
    /// Never: this HTTP status, this gRPC status.
    Refuse(u16, u16),
    /// Not so much at a time.
    TooLarge,
    /// Somewhere else.
    Redirect(u16),
    /// Nothing; the connection stays open.
    Silence,
    /// A reset of the connection.
    Reset,
    /// Bytes that are no answer in any protocol.
    Garbage,
}

/// An answer as gRPC says it.
#[derive(Debug, Default)]
pub(super) struct Grpc {
    pub(super) code: u16,
    pub(super) message: &'static str,
    /// `grpc-status-details-bin`.
    pub(super) details: Option<String>,
}

impl Answer {
    /// Whether the sink keeps the spans.
    pub(super) fn takes(&self) -> bool {
        matches!(
            self,
            Self::Take | Self::Partial(..) | Self::TakeOddly | Self::TakeAndReset | Self::Hold
        )
    }

    /// Status, headers and body over HTTP.
    pub(super) fn http(&self, is_json: bool) -> (u16, Vec<(&'static str, String)>, Vec<u8>) {
        let status = |status| (status, Vec::new(), b"as the test says".to_vec());
        match self {
            Self::TakeOddly => (200, Vec::new(), b"\xff\xff no \x00 answer".to_vec()),
            Self::Partial(rejected, message) if is_json => {
                let partial = format!(
                    "{{\"partialSuccess\":{{\"rejectedSpans\":\"{rejected}\",\
                     \"errorMessage\":\"{message}\"}}}}"
                );
                (200, Vec::new(), partial.into_bytes())
            }
            Self::Partial(rejected, message) => (200, Vec::new(), partial(*rejected, message)),
            Self::Later(code) | Self::Refuse(code, _) => status(*code),
            Self::LaterAfter(code, seconds) => {
                (*code, vec![("Retry-After", seconds.to_string())], Vec::new())
            }
            Self::LaterAt(code) => (*code, vec![("Retry-After", now())], Vec::new()),
            Self::TooLarge => status(413),
            Self::Redirect(port) => {
                (307, vec![("Location", format!("http://127.0.0.1:{port}/"))], Vec::new())
            }
            _ if is_json => (200, Vec::new(), b"{\"partialSuccess\":{}}".to_vec()),
            _ => (200, Vec::new(), Vec::new()),
        }
    }

    /// Status and message over gRPC; `None`: not as gRPC does it at all.
    pub(super) fn grpc(&self) -> (Option<Grpc>, Vec<u8>) {
        let code = |code, message| Some(Grpc { code, message, details: None });
        match self {
            Self::Garbage | Self::Redirect(_) => (None, b"<html>".to_vec()),
            Self::TakeOddly => (code(0, ""), b"\xff\xff no \x00 answer".to_vec()),
            Self::Partial(rejected, message) => (code(0, ""), partial(*rejected, message)),
            Self::Later(_) | Self::LaterAt(_) => (code(14, "as the test says"), Vec::new()),
            Self::LaterAfter(_, seconds) => {
                let details = Some(base64(&retry_info(*seconds)));
                (Some(Grpc { code: 8, message: "slow down", details }), Vec::new())
            }
            Self::Refuse(_, status) => (code(*status, "as the test says"), Vec::new()),
            Self::TooLarge => {
                (code(8, "grpc: received message larger than max (9 vs. 4)"), Vec::new())
            }
            _ => (code(0, ""), Vec::new()),
        }
    }
}

/// `ExportTraceServiceResponse` with `partial_success`.
fn partial(rejected: u64, message: &str) -> Vec<u8> {
    let mut partial = vec![0x08, rejected as u8, 0x12, message.len() as u8];
    partial.extend_from_slice(message.as_bytes());
    [&[0x0a, partial.len() as u8][..], &partial].concat()
}

/// `google.rpc.Status` with a `google.rpc.RetryInfo`.
fn retry_info(seconds: u64) -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| [&[tag, bytes.len() as u8][..], bytes].concat();
    let info = field(0x0a, &[0x08, seconds as u8]);
    let kind = field(0x0a, b"type.googleapis.com/google.rpc.RetryInfo");
    let any = [kind, field(0x12, &info)].concat();
    [&[0x08, 8][..], &field(0x1a, &any)].concat()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(word >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text
}

/// The present moment as an HTTP date (RFC 9110, section 5.6.7).
fn now() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let output = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{}", now.as_secs()), "+%a, %d %b %Y %H:%M:%S GMT"])
        .env("LC_ALL", "C")
        .output();
    String::from_utf8_lossy(&output.expect("date(1) is there").stdout).trim().to_owned()
}
