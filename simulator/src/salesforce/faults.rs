//! What goes wrong between a client and Salesforce, on purpose and repeatably. Which calls are meant is said as for HubSpot.

use serde::{Deserialize, Serialize};

pub use crate::hubspot::When;

/// One way in which calls go wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Which calls.
    #[serde(default)]
    pub when: When,
    /// What happens to them.
    pub what: What,
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// 403 `REQUEST_LIMIT_EXCEEDED` of the day, nothing done.
    RequestLimit,
    /// 403 `REQUEST_LIMIT_EXCEEDED` of long requests side by side, nothing done.
    ConcurrentLimit,
    /// 400 `UNABLE_TO_LOCK_ROW`, nothing done.
    RowLocked,
    /// 500 `UNKNOWN_EXCEPTION`, nothing done.
    UnknownException,
    /// 503 `SERVER_UNAVAILABLE`, nothing done.
    ServerUnavailable,
    /// A status with a page of HTML from the edge (420, 502, 503), nothing done.
    Html(u16),
    /// 504: committed, but the edge gave up waiting.
    TimeoutAfterCommit,
    /// Committed, the body cut in the middle.
    TruncatedBody,
    /// Connection cut, nothing done.
    ResetBefore,
    /// Connection cut after the commit.
    ResetAfter,
    /// The session that made the call ends now: 401 `INVALID_SESSION_ID`.
    EndSession,
    /// 401 that a new session does not mend: the user may not use the REST API.
    NotForRest,
    /// 401 that a new session does not mend: the app is not attached to its agent.
    NotAttached,
    /// The answer takes this many milliseconds longer.
    Slow(u64),
}

impl What {
    /// It happens between the client and the org, whatever was asked.
    pub(crate) fn is_of_the_way(&self) -> bool {
        matches!(
            self,
            Self::Html(_)
                | Self::TimeoutAfterCommit
                | Self::TruncatedBody
                | Self::ResetBefore
                | Self::ResetAfter
                | Self::Slow(_)
        )
    }
}

impl Fault {
    /// A fault of every call.
    pub fn always(what: What) -> Self {
        Self { when: When::default(), what }
    }

    /// A fault of the nth call (1 is the first) whose path contains `path`.
    pub fn nth(path: &str, nth: u64, what: What) -> Self {
        Self { when: When { path: Some(path.to_owned()), nth: Some(nth), ..When::default() }, what }
    }

    /// A fault of a share of all calls.
    pub fn share(probability: f64, what: What) -> Self {
        Self { when: When { probability: Some(probability), ..When::default() }, what }
    }

    /// The same for calls whose path contains `path`.
    #[must_use]
    pub fn on(mut self, path: &str) -> Self {
        self.when.path = Some(path.to_owned());
        self
    }

    /// The same for calls with this method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.when.method = Some(method.to_owned());
        self
    }

    /// The same, at most so often.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.when.times = Some(times);
        self
    }
}

/// Every fault from which a client can recover, together about 5 % of the calls. `seed` only sets where the shares begin;
/// which calls fail follows from the org's own seed.
pub fn five_percent(seed: u64) -> Vec<Fault> {
    let mut kinds = vec![
        What::ConcurrentLimit,
        What::RowLocked,
        What::UnknownException,
        What::ServerUnavailable,
        What::Html(420),
        What::Html(502),
        What::Html(503),
        What::TimeoutAfterCommit,
        What::TruncatedBody,
        What::ResetBefore,
        What::ResetAfter,
        What::EndSession,
    ];
    let share = 0.05 / kinds.len() as f64;
    let shift = (seed % kinds.len() as u64) as usize;
    kinds.rotate_left(shift);
    kinds.into_iter().map(|what| Fault::share(share, what)).collect()
}

/// The faults of an org and how often each has been asked and has struck.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    entries: Vec<(Fault, u64, u64)>,
}

impl Plan {
    pub(crate) fn new(faults: &[Fault]) -> Self {
        Self { entries: faults.iter().map(|fault| (fault.clone(), 0, 0)).collect() }
    }

    /// Those that can strike no more make room.
    pub(crate) fn add(&mut self, fault: Fault) {
        self.entries.retain(|(fault, _, done)| fault.when.times.is_none_or(|times| *done < times));
        self.entries.push((fault, 0, 0));
    }

    /// What may still strike, and how often at most.
    pub(crate) fn left(&self) -> Vec<(Fault, Option<u64>)> {
        let left = self
            .entries
            .iter()
            .map(|(fault, _, done)| (fault.clone(), fault.when.times.map(|times| times.saturating_sub(*done))));
        left.filter(|(_, left)| *left != Some(0)).collect()
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    /// The first fault that strikes this call. Each matching entry counts the call, whether it strikes or not.
    pub(crate) fn strike(&mut self, method: &str, path: &str, rng: &mut fastrand::Rng) -> Option<What> {
        let mut struck = None;
        for (fault, seen, done) in &mut self.entries {
            let when = &fault.when;
            if when.path.as_deref().is_some_and(|part| !path.contains(part))
                || when.method.as_deref().is_some_and(|wanted| !wanted.eq_ignore_ascii_case(method))
            {
                continue;
            }
            *seen += 1;
            if when.nth.is_some_and(|nth| nth != *seen) || when.times.is_some_and(|times| *done >= times) {
                continue;
            }
            // Drawn even when an earlier fault struck, so that adding a fault does not shift the others' chances.
            if when.probability.is_some_and(|probability| rng.f64() >= probability) {
                continue;
            }
            if struck.is_none() {
                *done += 1;
                struck = Some(fault.what.clone());
            }
        }
        struck
    }
}
