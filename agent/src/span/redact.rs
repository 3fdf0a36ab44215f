//! Credentials never leave: URLs lose their user information and the values of query keys that
//! carry secrets.

use std::borrow::Cow;

/// What stands in for a secret, as the semantic conventions ask.
pub const REDACTED: &str = "REDACTED";

/// Query keys whose value is a secret, lower case. The first seven are the conventions' list
/// (`url.query`, semantic conventions 1.44); the others are in common use.
const SECRET_KEYS: [&str; 33] = [
    "x-amz-signature",
    "x-amz-credential",
    "x-amz-security-token",
    "awsaccesskeyid",
    "signature",
    "sig",
    "x-goog-signature",
    "access_token",
    "accesstoken",
    "api-key",
    "api_key",
    "apikey",
    "auth",
    "auth_token",
    "authorization",
    "client_secret",
    "code",
    "credential",
    "credentials",
    "id_token",
    "jwt",
    "key",
    "passwd",
    "password",
    "private_key",
    "pwd",
    "refresh_token",
    "secret",
    "session",
    "session_id",
    "sessionid",
    "sid",
    "token",
];

/// A query string without secrets.
pub fn query(query: &str) -> Cow<'_, str> {
    let secret = |pair: &str| {
        pair.split_once('=').is_some_and(|(key, value)| !value.is_empty() && is_secret(key))
    };
    let separators = ['&', ';'];
    // Bytes are looked at faster than characters, and nearly no query has a secret.
    let pairs = query.as_bytes().split(|byte| separators.contains(&char::from(*byte)));
    let mut keys = pairs.map(|pair| pair.split(|byte| *byte == b'=').next().unwrap_or_default());
    if !keys.any(is_suspect) || !query.split(separators).any(secret) {
        return Cow::Borrowed(query);
    }
    let mut clean = String::with_capacity(query.len());
    for pair in query.split_inclusive(separators) {
        let (body, separator) = match pair.strip_suffix(separators) {
            Some(body) => (body, pair.get(body.len()..).unwrap_or_default()),
            None => (pair, ""),
        };
        match body.split_once('=') {
            Some((key, _)) if secret(body) => {
                clean.push_str(key);
                clean.push('=');
                clean.push_str(REDACTED);
            }
            _ => clean.push_str(body),
        }
        clean.push_str(separator);
    }
    Cow::Owned(clean)
}

/// An authority without user information.
pub fn authority(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// Lengths of the secret keys, a bit each.
const SECRET_LENGTHS: u64 = {
    let mut lengths = 0;
    let mut at = 0;
    while at < SECRET_KEYS.len() {
        lengths |= 1 << SECRET_KEYS[at].len();
        at += 1;
    }
    lengths
};

/// Whether a key may be a secret's: a first look.
fn is_suspect(key: &[u8]) -> bool {
    let length = SECRET_LENGTHS.checked_shr(key.len() as u32).unwrap_or(0) & 1 != 0;
    length || key.contains(&b'%')
}

/// Keys are compared without case and with percent escapes read.
fn is_secret(key: &str) -> bool {
    let key = if key.contains('%') { Cow::Owned(unescape(key)) } else { Cow::Borrowed(key) };
    SECRET_KEYS.iter().any(|secret| key.eq_ignore_ascii_case(secret))
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let digit = |at: usize| behind.get(at).and_then(|byte| (*byte as char).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = behind.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
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
        ] {
            assert_eq!(query(dirty), clean);
        }
        assert_eq!(authority("user:pass@host:80"), "host:80");
        assert_eq!(authority("host:80"), "host:80");
    }
}
