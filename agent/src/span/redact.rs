//! Credentials never leave: URLs lose their user information and the values of query keys that
//! carry secrets.

use std::borrow::Cow;

/// What stands in for a secret, as the semantic conventions ask.
pub const REDACTED: &str = "REDACTED";

/// Whether a query key of these letters, lower case, has a secret for its value. `sig`, `signature`,
/// `awsaccesskeyid` and the ones with `x-` are the conventions' list (`url.query`, semantic
/// conventions 1.44); the others are in common use. By length, since most keys then need no look.
fn is_secret_key(key: &str) -> bool {
    is_secret_name(key.as_bytes())
}

/// As [`is_secret_key`], of bytes.
fn is_secret_name(key: &[u8]) -> bool {
    let keys: &[&str] = match key.len() {
        3 => &["jwt", "key", "otp", "pwd", "sid", "sig"],
        4 => &["auth", "code"],
        5 => &["token"],
        6 => &["apikey", "passwd", "secret"],
        7 => &["api-key", "api_key", "session"],
        8 => &["id_token", "password"],
        9 => &["phpsessid", "secretkey", "sessionid", "signature"],
        10 => &[
            "access_key",
            "auth_token",
            "credential",
            "jsessionid",
            "passphrase",
            "secret_key",
            "session_id",
        ],
        11 => &["accesstoken", "credentials", "private_key"],
        12 => &["access_token"],
        13 => &["authorization", "client_secret", "refresh_token"],
        14 => &["awsaccesskeyid"],
        15 => &["x-amz-signature"],
        16 => &["x-amz-credential", "x-goog-signature"],
        20 => &["x-amz-security-token"],
        _ => &[],
    };
    let first = key.first().map(u8::to_ascii_lowercase);
    let may_be = |secret: &&&str| secret.bytes().next() == first;
    keys.iter().filter(may_be).any(|secret| key.eq_ignore_ascii_case(secret.as_bytes()))
}

/// A value of a program's own, named by the last part of `key`, without what names itself a secret: the
/// value itself, members of it (`{password: "x"}`), or what a URL carries.
pub fn value<'t>(key: &str, text: &'t str) -> Cow<'t, str> {
    let name = key.rsplit('.').next().unwrap_or(key);
    if is_secret_key(name) {
        return Cow::Borrowed(REDACTED);
    }
    if text.contains("://") && !text.contains(char::is_whitespace) {
        return Cow::Owned(url(text));
    }
    if text.contains(": ") { Cow::Owned(members(text)) } else { Cow::Borrowed(text) }
}

/// `name: value` pairs without the values of secrets.
fn members(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(": ") {
        let (before, behind) = rest.split_at(at + 2);
        clean.push_str(before);
        rest = behind;
        let name =
            before[..at].rsplit(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').next();
        if name.is_some_and(is_secret_key) {
            clean.push_str(REDACTED);
            rest = behind_value(behind);
        }
    }
    clean.push_str(rest);
    clean
}

/// What follows a value: a quoted text, something in brackets, or anything up to a comma or bracket.
fn behind_value(text: &str) -> &str {
    let mut depth = 0;
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' if depth > 0 => depth -= 1,
            ',' | '}' | ']' | ')' if depth == 0 => return &text[at..],
            _ => {}
        }
    }
    ""
}

/// A URL without user information and secrets.
pub fn url(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (&url[..scheme.len() + 3], rest),
        None => ("", url),
    };
    let (rest, fragment) = rest.split_at(rest.find('#').unwrap_or(rest.len()));
    let (place, search) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
    let (host, place) = place.split_at(place.find('/').unwrap_or(place.len()));
    let search = search.strip_prefix('?').map(|search| format!("?{}", query(search)));
    let (host, place, search) = (authority(host), path(place), search.unwrap_or_default());
    // What single sign-on hands to a browser is there.
    let fragment = fragment.strip_prefix('#').map(|text| format!("#{}", query(text)));
    format!("{scheme}{host}{place}{search}{}", fragment.unwrap_or_default())
}

/// A path without secrets among its parameters (`/a;key=value/b`), or in a fragment, which is no part of what
/// a client should send.
pub fn path(path: &str) -> Cow<'_, str> {
    if memchr::memchr2(b';', b'#', path.as_bytes()).is_none() {
        return Cow::Borrowed(path);
    }
    pairs(path, *b";/#&")
}

/// Whether a text has one of some characters. Without a way out of the loop, so that the compiler makes
/// it one over many bytes at a time.
fn has_any<const N: usize>(text: &str, of: &[u8; N]) -> bool {
    let is_one = |byte: u8| of.iter().fold(false, |is, one| is | (*one == byte));
    text.bytes().fold(false, |found, byte| found | is_one(byte))
}

/// A query string without secrets.
pub fn query(query: &str) -> Cow<'_, str> {
    pairs(query, *b"&;#")
}

/// Text in which separators (ASCII) stand between pairs of key and value.
fn pairs<const N: usize>(query: &str, separators: [u8; N]) -> Cow<'_, str> {
    let secret = |pair: &str| {
        pair.split_once('=').is_some_and(|(key, value)| !value.is_empty() && is_secret(key))
    };
    // Most have none.
    if !may_have_secrets(query.as_bytes(), separators) {
        return Cow::Borrowed(query);
    }
    let separators = separators.map(char::from);
    let mut clean = String::with_capacity(query.len());
    for pair in query.split_inclusive(&separators[..]) {
        let (body, separator) = match pair.strip_suffix(&separators[..]) {
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

/// Whether a pair's key is that of a secret, or has escapes that would have to be read. Byte by byte: keys
/// are short, and looking for characters is slower.
fn may_have_secrets<const N: usize>(query: &[u8], separators: [u8; N]) -> bool {
    let mut key_begins = Some(0);
    for (at, byte) in query.iter().enumerate() {
        match *byte {
            byte if separators.contains(&byte) => key_begins = Some(at + 1),
            b'%' if key_begins.is_some() => return true,
            b'=' => {
                let key = key_begins.take().and_then(|begins| query.get(begins..at));
                if key.is_some_and(is_secret_name) {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

/// An authority without user information, and without what is none of its parts.
pub fn authority(authority: &str) -> &str {
    if !has_any(authority, b"@/?#") {
        return authority;
    }
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    host.split(['/', '?', '#']).next().unwrap_or_default()
}

/// Keys are compared without case and with percent escapes read.
fn is_secret(key: &str) -> bool {
    if key.contains('%') { is_secret_key(&unescape(key)) } else { is_secret_key(key) }
}

/// Reads percent escapes; what is none stays.
pub(crate) fn unescape(text: &str) -> String {
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
mod tests;
