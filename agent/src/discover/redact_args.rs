//! Command-line arguments without secrets.

use crate::span::redact::REDACTED;

/// Words that mark the value of an argument as a secret, lower case.
const SECRET_WORDS: [&str; 8] =
    ["password", "passwd", "secret", "token", "apikey", "api-key", "api_key", "credential"];

/// Most arguments and bytes of one that are told.
const ARGS_MAX: usize = 64;
const ARG_BYTES_MAX: usize = 256;

/// The arguments as they may be told: values of secret options and user information in URLs gone.
pub fn redact(args: &[String]) -> Vec<String> {
    let mut next_is_secret = false;
    let mut told = Vec::with_capacity(args.len().min(ARGS_MAX));
    for arg in args.iter().take(ARGS_MAX) {
        let secret = std::mem::replace(&mut next_is_secret, false);
        told.push(match arg.split_once('=') {
            _ if secret && !arg.starts_with('-') => REDACTED.to_owned(),
            Some((name, _)) if is_secret(name) => format!("{name}={REDACTED}"),
            _ => {
                next_is_secret = arg.starts_with('-') && !arg.contains('=') && is_secret(arg);
                without_user(&cut(arg))
            }
        });
    }
    told
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
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
        ] {
            assert_eq!(redact(&args(dirty)), args(clean));
        }
    }
}
