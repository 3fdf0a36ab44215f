//! What to do when a backend does not take a request. Decisions only; the senders wait and resend.

use std::time::{Duration, SystemTime};

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Taken. Some spans may have been rejected; a message is a warning.
    Taken { rejected: u64, message: String },
    /// Not taken, and it never will be.
    Refused { reason: String },
    /// Not taken, but less at a time may be.
    TooLarge { reason: String },
    /// Not taken; it may be later.
    Later { after: Option<Duration>, reason: String },
}

/// Exponential backoff with jitter: half a second, doubling to thirty.
pub(super) struct Backoff {
    next: Duration,
    random: fastrand::Rng,
}

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// A server that asks for more is asked again after this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self { next: FIRST, random: fastrand::Rng::with_seed(seed) }
    }

    /// How long to wait before the next attempt: the schedule's turn, between half of it and all
    /// of it, or longer if the server asks for that.
    pub(super) fn wait(&mut self, asked: Option<Duration>) -> Duration {
        let turn = self.next;
        self.next = (turn * 2).min(LONGEST);
        let own = turn.mul_f64(0.5 + self.random.f64() / 2.0);
        asked.map_or(own, |asked| asked.min(RETRY_AFTER_MAX).max(own))
    }
}

/// Whether an error's text says that a request was too large: HTTP and gRPC have a code for it that
/// servers also use for other things, or do not use (Go's and Java's gRPC, Rust's tonic, Go's
/// `net/http`, whose words the OpenTelemetry Collector passes on).
pub(super) fn is_about_size(text: &str) -> bool {
    const WORDS: [&str; 3] = ["larger than max", "exceeds maximum size", "too large"];
    let text = text.to_ascii_lowercase();
    WORDS.iter().any(|words| text.contains(words))
}

/// `Retry-After` (RFC 9110, section 10.2.3): seconds or a date.
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_when_in_seconds_or_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(retry_after("7", now), Some(Duration::from_secs(7)));
        let date = "Sun, 06 Nov 1994 08:49:47 GMT";
        assert_eq!(retry_after(date, now), Some(Duration::from_secs(10)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }

    #[test]
    fn waits_grow_up_to_a_bound_and_heed_the_server() {
        let mut backoff = Backoff::new(1);
        let mut longest = FIRST;
        for _ in 0..12 {
            let wait = backoff.wait(None);
            assert!(wait >= longest / 2 && wait <= longest, "{wait:?} of {longest:?}");
            longest = (longest * 2).min(LONGEST);
        }
        assert_eq!(backoff.wait(Some(Duration::from_secs(33))), Duration::from_secs(33));
        assert_eq!(backoff.wait(Some(Duration::from_secs(9999))), RETRY_AFTER_MAX);
        // A server that asks for no wait at all is not asked without end.
        assert!(Backoff::new(1).wait(Some(Duration::ZERO)) >= FIRST / 2);
    }
}
