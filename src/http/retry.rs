//! When a call that failed is repeated, after which wait, and when it is given up: one table for everything that is sent.
//!
//! Pure, so that the whole table can be read and tested at once. The loop around it is in [`crate::hubspot::account`].

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::Sent;
use crate::{
    error::ErrorKind,
    mutate::{self, Bug},
};

/// Attempts of one call, the first included. With the waits below this is about two minutes.
pub const ATTEMPTS_MAX: u32 = 8;

/// A 429 costs nothing but time and says nothing about the call: more patience, still bounded by [`ELAPSED_MAX`].
pub const THROTTLED_ATTEMPTS_MAX: u32 = 40;

/// TLS trouble and a token that the gateway cannot parse do not mend themselves within a minute.
pub const HOPELESS_ATTEMPTS_MAX: u32 = 3;

/// Time from the first attempt to the last wait. Longer outages are for the next invocation.
pub const ELAPSED_MAX: Duration = Duration::from_secs(5 * 60);

/// A wait longer than this is not spent inside an invocation: the run yields.
pub const WAIT_MAX: Duration = Duration::from_secs(90);

/// A whole attempt must fit after the wait, or the wait is for nothing.
pub const ATTEMPT_RESERVE: Duration = Duration::from_secs(2);

const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// HubSpot asks for at least two seconds between attempts at a locked record.
const LOCKED_WAIT_MIN: Duration = Duration::from_secs(2);
/// The ten-second window rolls: a part of it is free again soon. Times the attempt.
const ROLLING_WAIT: Duration = Duration::from_secs(2);
const ROLLING_WAIT_MAX: Duration = Duration::from_secs(10);
/// Times the attempt.
const SECONDLY_WAIT: Duration = Duration::from_secs(1);
const SECONDLY_WAIT_MAX: Duration = Duration::from_secs(5);
/// A migration between hosting regions that does not say how long it takes.
const MIGRATION_WAIT: Duration = Duration::from_secs(60);
/// HubSpot's longest `Retry-After`; anything above is a mistake.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Which limit a 429 speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The app's calls in a rolling ten seconds.
    TenSecondly,
    /// A limit per second: search's.
    Secondly,
    /// The account's calls of the day.
    Daily,
    /// It does not say.
    Unnamed,
}

/// How a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No answer.
    Lost(Sent),
    /// A 2xx whose body cannot be read.
    Unreadable,
    /// 429.
    Throttled {
        /// Which limit.
        policy: Policy,
        /// What the server asked for.
        retry_after: Option<Duration>,
    },
    /// Any other status outside 2xx.
    Status {
        /// The status.
        status: u16,
        /// What the server asked for.
        retry_after: Option<Duration>,
    },
}

impl Failure {
    /// What an answer says about its failure; `None` for 2xx.
    pub fn of(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Option<Self> {
        if status.is_success() {
            return None;
        }
        // Only JSON objects are looked into: gateways answer in HTML.
        let json = serde_json::from_slice::<serde_json::Value>(body).ok();
        let retry_after = retry_after(headers).or_else(|| {
            let seconds = json.as_ref()?.get("retry_after")?;
            let seconds = seconds.as_f64().or_else(|| seconds.as_str()?.trim().parse().ok())?;
            Duration::try_from_secs_f64(seconds).ok()
        });
        let retry_after = retry_after.map(|wait| wait.min(RETRY_AFTER_MAX));
        if status == StatusCode::TOO_MANY_REQUESTS {
            let text =
                |name: &str| json.as_ref().and_then(|json| json.get(name)?.as_str()).unwrap_or_default().to_lowercase();
            let (name, message) = (text("policyName"), text("message"));
            let says = |word: &str| name.contains(word) || (name.is_empty() && message.contains(word));
            let policy = match () {
                () if says("daily") => Policy::Daily,
                () if says("ten_secondly") => Policy::TenSecondly,
                () if says("secondly") => Policy::Secondly,
                () => Policy::Unnamed,
            };
            return Some(Self::Throttled { policy, retry_after });
        }
        Some(Self::Status { status: status.as_u16(), retry_after })
    }

    /// Whether the request may have been carried out although it looks failed.
    fn may_have_happened(self) -> bool {
        match self {
            Self::Lost(sent) => sent == Sent::Maybe,
            Self::Unreadable => true,
            Self::Throttled { .. } => false,
            // Refused by the gateway before it reached the application; 500, 502, 504, 520, 522 and 524 may hide a write.
            Self::Status { status, .. } => !matches!(status, 423 | 477 | 521 | 523 | 525 | 526 | 530) && status >= 500,
        }
    }
}

/// `Retry-After` in seconds. The form with a date is not used by HubSpot and not read.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    if mutate::on(Bug::RetryAfterIgnored) {
        return None;
    }
    let seconds: f64 = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tries {
    /// Attempts so far, at least 1.
    pub attempt: u32,
    /// Since the first one began.
    pub elapsed: Duration,
    /// Until the deadline.
    pub remaining: Duration,
}

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Repeat the call after this wait.
    RetryAfter(Duration),
    /// Get another token, then repeat; once.
    Reauthorize,
    /// Give up, with this kind of error.
    Stop(ErrorKind),
}

/// What to do about `failure`.
///
/// `repeatable`: whether carrying the call out twice does no harm. `chance` (from 0 to 1) spreads the waits.
pub fn retry_decision(failure: Failure, repeatable: bool, tries: Tries, chance: f64) -> Decision {
    if failure.may_have_happened() && !repeatable {
        return Decision::Stop(ErrorKind::Unknown);
    }
    let doubled = BACKOFF_FIRST.saturating_mul(1 << tries.attempt.saturating_sub(1).min(8)).min(BACKOFF_MAX);
    let backoff = doubled.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
    // A little later than asked for, never earlier: those who were refused together should not come back together.
    let asked = |wait: Duration| wait.saturating_add(Duration::from_millis(250).mul_f64(chance.clamp(0.0, 1.0)));
    match failure {
        Failure::Lost(Sent::Never) => {
            wait_or(backoff, ATTEMPTS_MAX, tries, ErrorKind::Unavailable { retry_after: None })
        }
        Failure::Lost(Sent::Maybe) | Failure::Unreadable => wait_or(backoff, ATTEMPTS_MAX, tries, ErrorKind::Unknown),
        Failure::Throttled { policy, retry_after } => {
            let wait = match policy {
                Policy::Daily if !mutate::on(Bug::DayIgnored) => return Decision::Stop(ErrorKind::DailyLimit),
                Policy::Daily => ROLLING_WAIT,
                Policy::TenSecondly | Policy::Unnamed => {
                    ROLLING_WAIT.saturating_mul(tries.attempt).min(ROLLING_WAIT_MAX)
                }
                Policy::Secondly => SECONDLY_WAIT.saturating_mul(tries.attempt).min(SECONDLY_WAIT_MAX),
            };
            let wait = asked(retry_after.unwrap_or(wait));
            wait_or(wait, THROTTLED_ATTEMPTS_MAX, tries, ErrorKind::Throttled { retry_after })
        }
        Failure::Status { status, retry_after } => {
            let unavailable = ErrorKind::Unavailable { retry_after };
            let polite = retry_after.map_or(backoff, asked);
            match status {
                401 => Decision::Reauthorize,
                403 => Decision::Stop(ErrorKind::Forbidden),
                404 => Decision::Stop(ErrorKind::NotFound),
                408 | 425 => wait_or(polite, ATTEMPTS_MAX, tries, unavailable),
                423 => wait_or(polite.max(asked(LOCKED_WAIT_MIN)), ATTEMPTS_MAX, tries, unavailable),
                477 => {
                    let wait = asked(retry_after.unwrap_or(MIGRATION_WAIT));
                    let kind = ErrorKind::Unavailable { retry_after: Some(retry_after.unwrap_or(MIGRATION_WAIT)) };
                    wait_or(wait, ATTEMPTS_MAX, tries, kind)
                }
                525 | 526 | 530 => wait_or(polite, HOPELESS_ATTEMPTS_MAX, tries, unavailable),
                500..=599 => wait_or(polite, ATTEMPTS_MAX, tries, unavailable),
                _ => Decision::Stop(ErrorKind::Refused),
            }
        }
    }
}

/// The wait, if attempts, time and deadline leave room for it.
fn wait_or(wait: Duration, attempts_max: u32, tries: Tries, kind: ErrorKind) -> Decision {
    let fits = wait <= WAIT_MAX
        && tries.attempt < attempts_max
        && tries.elapsed.saturating_add(wait) <= ELAPSED_MAX
        && tries.remaining > wait.saturating_add(ATTEMPT_RESERVE);
    if fits { Decision::RetryAfter(wait) } else { Decision::Stop(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;
    const FIRST: Tries = Tries { attempt: 1, elapsed: Duration::ZERO, remaining: Duration::from_secs(900) };

    fn of(status: u16, retry_after: Option<&str>, body: &str) -> Failure {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(http::header::RETRY_AFTER, value.parse().unwrap());
        }
        Failure::of(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes()).unwrap()
    }

    const ROLLING: &str =
        r#"{"message":"You have reached your ten_secondly_rolling limit.","policyName":"TEN_SECONDLY_ROLLING"}"#;
    const SECONDLY: &str = r#"{"message":"You have reached your secondly limit.","policyName":"SECONDLY"}"#;
    const SEARCH: &str = r#"{"message":"You have reached your secondly limit.","category":"RATE_LIMITS"}"#;
    const DAILY: &str = r#"{"message":"You have reached your daily limit.","policyName":"DAILY"}"#;
    const HTML: &str = "<html><body>502 Bad Gateway</body></html>";

    #[test]
    fn each_failure_gets_the_wait_or_the_stop_of_the_table() {
        let unavailable = |seconds: Option<u64>| ErrorKind::Unavailable { retry_after: seconds.map(S) };
        // chance 0: half of the doubled wait, and exactly what was asked for.
        let table = [
            ("rolling 429", of(429, None, ROLLING), Decision::RetryAfter(S(2))),
            ("rolling 429 that says when", of(429, Some("7"), ROLLING), Decision::RetryAfter(S(7))),
            ("secondly 429", of(429, None, SECONDLY), Decision::RetryAfter(S(1))),
            ("search 429", of(429, None, SEARCH), Decision::RetryAfter(S(1))),
            ("daily 429", of(429, None, DAILY), Decision::Stop(ErrorKind::DailyLimit)),
            ("daily 429 that says when", of(429, Some("3"), DAILY), Decision::Stop(ErrorKind::DailyLimit)),
            ("Cloudflare's 429", of(429, None, r#"{"retry_after":5}"#), Decision::RetryAfter(S(5))),
            ("429 in HTML", of(429, None, HTML), Decision::RetryAfter(S(2))),
            (
                "429 with a wait for another day",
                of(429, Some("86400"), ROLLING),
                Decision::Stop(ErrorKind::Throttled { retry_after: Some(S(86_400)) }),
            ),
            ("locked", of(423, None, ""), Decision::RetryAfter(S(2))),
            ("locked for longer", of(423, Some("6"), ""), Decision::RetryAfter(S(6))),
            ("migration", of(477, Some("20"), ""), Decision::RetryAfter(S(20))),
            ("long migration", of(477, Some("86400"), ""), Decision::Stop(unavailable(Some(86_400)))),
            ("500", of(500, None, "{}"), Decision::RetryAfter(Duration::from_millis(500))),
            ("502 in HTML", of(502, None, HTML), Decision::RetryAfter(Duration::from_millis(500))),
            ("503 that says when", of(503, Some("4"), ""), Decision::RetryAfter(S(4))),
            ("504", of(504, None, ""), Decision::RetryAfter(Duration::from_millis(500))),
            ("524", of(524, None, HTML), Decision::RetryAfter(Duration::from_millis(500))),
            ("530", of(530, None, HTML), Decision::RetryAfter(Duration::from_millis(500))),
            ("408", of(408, None, ""), Decision::RetryAfter(Duration::from_millis(500))),
            ("refused connection", Failure::Lost(Sent::Never), Decision::RetryAfter(Duration::from_millis(500))),
            ("reset", Failure::Lost(Sent::Maybe), Decision::RetryAfter(Duration::from_millis(500))),
            ("2xx that cannot be read", Failure::Unreadable, Decision::RetryAfter(Duration::from_millis(500))),
            ("401", of(401, None, "{}"), Decision::Reauthorize),
            ("403", of(403, None, "{}"), Decision::Stop(ErrorKind::Forbidden)),
            ("404", of(404, None, "{}"), Decision::Stop(ErrorKind::NotFound)),
            ("400", of(400, None, "{}"), Decision::Stop(ErrorKind::Refused)),
            ("409", of(409, None, "{}"), Decision::Stop(ErrorKind::Refused)),
            ("redirect", of(302, None, ""), Decision::Stop(ErrorKind::Refused)),
        ];
        for (what, failure, expected) in table {
            assert_eq!(retry_decision(failure, true, FIRST, 0.0), expected, "{what}");
        }
    }

    #[test]
    fn what_must_not_happen_twice_is_repeated_only_where_it_cannot_have_happened() {
        for (failure, repeated) in [
            (Failure::Lost(Sent::Never), true),
            (of(429, None, ROLLING), true),
            (of(423, None, ""), true),
            (of(521, None, ""), true),
            (Failure::Lost(Sent::Maybe), false),
            (Failure::Unreadable, false),
            (of(500, None, ""), false),
            (of(502, None, HTML), false),
            (of(524, None, ""), false),
        ] {
            let decision = retry_decision(failure, false, FIRST, 0.5);
            assert_eq!(matches!(decision, Decision::RetryAfter(_)), repeated, "{failure:?}");
            if !repeated {
                assert_eq!(decision, Decision::Stop(ErrorKind::Unknown));
            }
        }
    }

    #[test]
    fn every_failure_ends_by_attempts_by_time_and_by_the_deadline() {
        let failures = [
            Failure::Lost(Sent::Never),
            Failure::Unreadable,
            of(503, None, ""),
            of(423, None, ""),
            of(429, None, ROLLING),
            of(477, None, ""),
        ];
        for failure in failures {
            for tries in [
                Tries { attempt: 1_000, ..FIRST },
                Tries { elapsed: ELAPSED_MAX, ..FIRST },
                Tries { remaining: ATTEMPT_RESERVE, ..FIRST },
            ] {
                let decision = retry_decision(failure, true, tries, 1.0);
                assert!(matches!(decision, Decision::Stop(_)), "{failure:?} {tries:?} {decision:?}");
            }
        }
        assert!(matches!(
            retry_decision(of(530, None, ""), true, Tries { attempt: 3, ..FIRST }, 0.0),
            Decision::Stop(_)
        ));
    }

    #[test]
    fn waits_grow_are_spread_and_stay_below_their_limit() {
        let wait = |attempt, chance| match retry_decision(of(503, None, ""), true, Tries { attempt, ..FIRST }, chance) {
            Decision::RetryAfter(wait) => wait,
            other => panic!("{other:?}"),
        };
        assert_eq!((wait(1, 0.0), wait(1, 1.0)), (Duration::from_millis(500), S(1)));
        assert_eq!((wait(3, 0.0), wait(3, 1.0)), (S(2), S(4)));
        assert_eq!(wait(7, 1.0), BACKOFF_MAX);
    }

    #[test]
    fn nonsense_in_retry_after_is_not_a_wait() {
        for value in ["soon", "-3", "NaN", "1e300", ""] {
            assert!(matches!(of(503, Some(value), ""), Failure::Status { retry_after: None, .. }), "{value}");
        }
    }
}
