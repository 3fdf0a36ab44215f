//! Command-line arguments without secrets.

use crate::span::redact::{self, REDACTED};

/// Words that mark the value of an argument as a secret, lower case.
const SECRET_WORDS: [&str; 8] =
    ["password", "passwd", "secret", "token", "apikey", "api-key", "api_key", "credential"];

/// Headers that carry credentials, lower case.
const SECRET_HEADERS: [&str; 2] = ["authorization", "cookie"];

/// Options that a name and a password follow (`curl -u name:password`).
const USER_OPTIONS: [&str; 3] = ["-u", "--user", "--proxy-user"];

/// Most arguments and bytes of one that are told.
const ARGS_MAX: usize = 64;
const ARG_BYTES_MAX: usize = 256;

/// The arguments as they may be told: values of secret options and user information in URLs gone.
pub fn redact(args: &[String]) -> Vec<String> {
    let (mut next_is_secret, mut next_is_user) = (false, false);
    let mut told = Vec::with_capacity(args.len().min(ARGS_MAX));
    for arg in args.iter().take(ARGS_MAX) {
        let secret = std::mem::replace(&mut next_is_secret, false);
        let is_user = std::mem::replace(&mut next_is_user, USER_OPTIONS.contains(&arg.as_str()));
        told.push(match arg.split_once('=') {
            _ if is_user && arg.contains(':') => {
                format!("{}:{REDACTED}", cut(arg.split(':').next().unwrap_or_default()))
            }
            _ if secret && !arg.starts_with('-') => REDACTED.to_owned(),
            Some((name, _)) if is_secret(name) => format!("{name}={REDACTED}"),
            _ => {
                next_is_secret = arg.starts_with('-') && !arg.contains('=') && is_secret(arg);
                // Whole: where a secret ends is told by what stands behind it.
                cut(&clean(arg))
            }
        });
    }
    told
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// Without secrets of a URL, or of a header (`-H 'Authorization: …'`).
fn clean(arg: &str) -> String {
    let (place, search) = arg.split_at(arg.find(['?', '#']).unwrap_or(arg.len()));
    if place.contains("://") {
        let mut clean = without_user(place);
        for piece in search.split_inclusive(['?', '#']) {
            let (query, mark) = piece.split_at(piece.trim_end_matches(['?', '#']).len());
            clean += &redact::query(query);
            clean += mark;
        }
        return clean;
    }
    match arg.split_once(':') {
        Some((name, value)) if is_header(name) || is_secret(name) => {
            let blank = if value.starts_with(' ') { " " } else { "" };
            format!("{name}:{blank}{REDACTED}")
        }
        _ => arg.to_owned(),
    }
}

fn is_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_HEADERS.iter().any(|header| name.ends_with(header))
}

/// `scheme://user:pass@host` loses what is before the `@`.
fn without_user(arg: &str) -> String {
    let Some((scheme, rest)) = arg.split_once("://") else { return arg.to_owned() };
    let at = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(at).unwrap_or((rest, ""));
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{REDACTED}@{host}{path}"),
        None => arg.to_owned(),
    }
}

fn cut(arg: &str) -> String {
    arg.chars().take(ARG_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let args = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (dirty, clean) in [
            ("app --port 80", "app --port 80"),
            ("app --password hunter2 x", "app --password REDACTED x"),
            ("app --db-password=hunter2", "app --db-password=REDACTED"),
            ("app API_TOKEN=x", "app API_TOKEN=REDACTED"),
            ("app --token --verbose", "app --token --verbose"),
            ("app postgres://u:p@db/x", "app postgres://REDACTED@db/x"),
            ("curl http://h/?a=1&token=x#sig=y", "curl http://h/?a=1&token=REDACTED#sig=REDACTED"),
            ("curl -HAuthorization:x", "curl -HAuthorization:REDACTED"),
            ("curl -u me:hunter2 -u x", "curl -u me:REDACTED -u x"),
            ("curl -H X-Api-Key:x host:80", "curl -H X-Api-Key:REDACTED host:80"),
        ] {
            assert_eq!(redact(&args(dirty)), args(clean));
        }
        let header = ["-H".to_owned(), "Cookie: a=b; c=d".to_owned()];
        assert_eq!(redact(&header), ["-H", "Cookie: REDACTED"]);
    }

    /// What is cut first does not show that it is a secret.
    #[test]
    fn long_secrets_go_as_well() {
        let long = "x".repeat(2 * ARG_BYTES_MAX);
        for (dirty, clean) in [
            (format!("http://me:{long}@host/"), "http://REDACTED@host/".to_owned()),
            (format!("http://host/?{long}=1&token=y"), format!("http://host/?{long}")),
        ] {
            assert_eq!(redact(&[dirty]), [cut(&clean)]);
        }
    }
}
