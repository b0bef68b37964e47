//! When a call to Salesforce that failed is repeated, after which wait, and when it is given up. Pure.
//!
//! Salesforce's table beside HubSpot's in [`crate::http::retry`], with the same bounds: what decides is the error code, and nothing that
//! creates without a key is sent again unless it cannot have been carried out.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::fault::{Class, Fault};
use crate::{
    error::ErrorKind,
    http::{
        Sent,
        retry::{ATTEMPT_RESERVE, ATTEMPTS_MAX, Decision, ELAPSED_MAX, Tries, WAIT_MAX},
    },
};

/// Salesforce waits up to 10 s for a lock itself: a few more tries, or somebody holds it for long.
pub const LOCKED_ATTEMPTS_MAX: u32 = 5;

const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Long calls of others have to end first. Times the attempt.
const THROTTLED_WAIT: Duration = Duration::from_secs(5);
const THROTTLED_WAIT_MAX: Duration = Duration::from_secs(30);

/// How a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No answer.
    Lost(Sent),
    /// A 2xx whose body cannot be read.
    Unreadable,
    /// An answer that is none of 2xx, 300 and 304.
    Answered {
        /// The status.
        status: u16,
        /// What its first error means; [`Class::Data`] for a body that holds none.
        class: Class,
        /// Whether the body was one of Salesforce's, and not a page of a gateway.
        of_salesforce: bool,
        /// What the server asked for.
        retry_after: Option<Duration>,
    },
}

impl Failure {
    /// What an answer says about its failure; `None` for 2xx, 300 (several records have the key) and 304 (not modified).
    pub fn of(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Option<Self> {
        if status.is_success() || matches!(status.as_u16(), 300 | 304) {
            return None;
        }
        let faults = Fault::all(body);
        let retry_after = headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|text| text.trim().parse::<u32>().ok());
        Some(Self::Answered {
            status: status.as_u16(),
            class: faults.first().map_or(Class::Data, Fault::class),
            of_salesforce: faults.first().is_some_and(|fault| !fault.code.is_empty()),
            retry_after: retry_after.map(|seconds| Duration::from_secs(seconds.into())),
        })
    }

    /// Whether the request may have been carried out although it looks failed.
    pub(super) fn may_have_happened(self) -> bool {
        match self {
            Self::Lost(sent) => sent == Sent::Maybe,
            Self::Unreadable => true,
            // 503 and 420 refuse before the org sees the call. Other 5xx may hide a write.
            Self::Answered { status, class, .. } => {
                status >= 500 && status != 503 && !matches!(class, Class::Locked | Class::Quota | Class::Throttled)
            }
        }
    }
}

/// What to do about `failure`. `repeatable`: whether carrying the call out twice does no harm. `chance` (0 to 1) spreads the waits.
pub fn retry_decision(failure: Failure, repeatable: bool, tries: Tries, chance: f64) -> Decision {
    if failure.may_have_happened() && !repeatable {
        return Decision::Stop(ErrorKind::Unknown);
    }
    let doubled = BACKOFF_FIRST.saturating_mul(1 << tries.attempt.saturating_sub(1).min(8)).min(BACKOFF_MAX);
    let backoff = doubled.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
    match failure {
        Failure::Lost(Sent::Never) => {
            wait_or(backoff, ATTEMPTS_MAX, tries, ErrorKind::Unavailable { retry_after: None })
        }
        Failure::Lost(Sent::Maybe) | Failure::Unreadable => wait_or(backoff, ATTEMPTS_MAX, tries, ErrorKind::Unknown),
        Failure::Answered { status, class, of_salesforce, retry_after } => {
            let unavailable = ErrorKind::Unavailable { retry_after };
            let polite = retry_after.map_or(backoff, |asked| asked.max(backoff));
            match (class, status) {
                (Class::Session, _) => Decision::Reauthorize,
                (Class::NotTheSession, _) => Decision::Stop(ErrorKind::Forbidden),
                (Class::Quota, _) => Decision::Stop(ErrorKind::DailyLimit),
                (Class::Throttled, _) | (_, 429) => {
                    let wait = THROTTLED_WAIT.saturating_mul(tries.attempt).min(THROTTLED_WAIT_MAX);
                    let wait = retry_after
                        .unwrap_or(wait)
                        .saturating_add(Duration::from_secs(2).mul_f64(chance.clamp(0.0, 1.0)));
                    wait_or(wait, ATTEMPTS_MAX, tries, ErrorKind::Throttled { retry_after })
                }
                (Class::Locked, _) => wait_or(polite, LOCKED_ATTEMPTS_MAX, tries, unavailable),
                // Without one of Salesforce's bodies it is somebody in between who wants a credential.
                (_, 401) if of_salesforce => Decision::Reauthorize,
                (_, 401 | 407) => Decision::Stop(ErrorKind::Forbidden),
                (_, 403) => Decision::Stop(ErrorKind::Forbidden),
                (_, 408 | 420 | 425 | 428) | (Class::Unavailable, _) | (_, 500..=599) => {
                    wait_or(polite, ATTEMPTS_MAX, tries, unavailable)
                }
                (Class::Gone, _) | (_, 404) => Decision::Stop(ErrorKind::NotFound),
                (Class::LostRace, _) | (_, 412) => Decision::Stop(ErrorKind::Conflict),
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
    use serde_json::json;

    const FIRST: Tries = Tries { attempt: 1, elapsed: Duration::ZERO, remaining: Duration::from_secs(900) };

    fn of(status: u16, code: &str, message: &str) -> Failure {
        let body = match code {
            "" => "<html><body>Down for Maintenance</body></html>".to_owned(),
            code => json!([{"errorCode": code, "message": message}]).to_string(),
        };
        Failure::of(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes()).unwrap()
    }

    #[test]
    fn each_failure_gets_the_wait_or_the_stop_of_the_table() {
        let half = Decision::RetryAfter(Duration::from_millis(500));
        let stop = Decision::Stop;
        let table = [
            ("ended session", of(401, "INVALID_SESSION_ID", "Session expired or invalid"), Decision::Reauthorize),
            ("odd header", of(401, "INVALID_AUTH_HEADER", "INVALID_HEADER_TYPE"), Decision::Reauthorize),
            (
                "no REST for the user",
                of(401, "INVALID_SESSION_ID", "This session is not valid for use with the REST API"),
                stop(ErrorKind::Forbidden),
            ),
            (
                "no agent",
                of(401, "INVALID_SESSION_ID", "Connected app is not attached to Agent"),
                stop(ErrorKind::Forbidden),
            ),
            ("a proxy", of(401, "", ""), stop(ErrorKind::Forbidden)),
            ("quota", of(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."), stop(ErrorKind::DailyLimit)),
            (
                "concurrent",
                of(403, "REQUEST_LIMIT_EXCEEDED", "ConcurrentPerOrgLongTxn Limit exceeded."),
                Decision::RetryAfter(Duration::from_secs(5)),
            ),
            ("lock", of(400, "UNABLE_TO_LOCK_ROW", "x"), half),
            ("not allowed", of(403, "INSUFFICIENT_ACCESS", "x"), stop(ErrorKind::Forbidden)),
            ("edge", of(420, "", ""), half),
            ("502 in HTML", of(502, "", ""), half),
            ("503 in HTML", of(503, "", ""), half),
            ("500", of(500, "UNKNOWN_EXCEPTION", "x"), half),
            ("503", of(503, "SERVER_UNAVAILABLE", "x"), half),
            ("reset", Failure::Lost(Sent::Maybe), half),
            ("refused connection", Failure::Lost(Sent::Never), half),
            ("bad statement", of(400, "MALFORMED_QUERY", "x"), stop(ErrorKind::Refused)),
            ("cursor", of(400, "INVALID_QUERY_LOCATOR", "x"), stop(ErrorKind::Refused)),
            ("gone", of(404, "ENTITY_IS_DELETED", "x"), stop(ErrorKind::NotFound)),
            ("lost race", of(412, "PRECONDITION_FAILED", "x"), stop(ErrorKind::Conflict)),
            ("lost race without a body", of(412, "", ""), stop(ErrorKind::Conflict)),
            ("retired version", of(410, "UNSUPPORTED_API_VERSION", "x"), stop(ErrorKind::Refused)),
            ("address too long", of(414, "", ""), stop(ErrorKind::Refused)),
        ];
        for (what, failure, expected) in table {
            assert_eq!(retry_decision(failure, true, FIRST, 0.0), expected, "{what}");
        }
    }

    #[test]
    fn a_create_is_sent_again_only_where_it_cannot_have_happened() {
        for (failure, repeated) in [
            (Failure::Lost(Sent::Never), true),
            (of(400, "UNABLE_TO_LOCK_ROW", "x"), true),
            (of(503, "", ""), true),
            (of(420, "", ""), true),
            (of(403, "REQUEST_LIMIT_EXCEEDED", "Concurrent"), true),
            (Failure::Lost(Sent::Maybe), false),
            (Failure::Unreadable, false),
            (of(500, "UNKNOWN_EXCEPTION", "x"), false),
            (of(502, "", ""), false),
            (of(504, "", ""), false),
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
        for failure in [
            Failure::Lost(Sent::Maybe),
            Failure::Unreadable,
            of(503, "", ""),
            of(400, "UNABLE_TO_LOCK_ROW", "x"),
            of(403, "REQUEST_LIMIT_EXCEEDED", "Concurrent"),
        ] {
            for tries in [
                Tries { attempt: 1_000, ..FIRST },
                Tries { elapsed: ELAPSED_MAX, ..FIRST },
                Tries { remaining: ATTEMPT_RESERVE, ..FIRST },
            ] {
                assert!(
                    matches!(retry_decision(failure, true, tries, 1.0), Decision::Stop(_)),
                    "{failure:?} {tries:?}"
                );
            }
        }
    }
}
