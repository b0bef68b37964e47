//! What goes wrong between a client and HubSpot, on purpose and repeatably.
//! Statuses and their meaning: SOURCES.md "Errors".

use serde::{Deserialize, Serialize};

/// One way in which calls go wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Which calls.
    #[serde(default)]
    pub when: When,
    /// What happens to them.
    pub what: What,
}

/// Which calls a fault concerns: those that meet every condition given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct When {
    /// Part of the path.
    pub path: Option<String>,
    /// The method.
    pub method: Option<String>,
    /// Only the nth call (1 is the first) of those that match path and method.
    pub nth: Option<u64>,
    /// Share of the calls, 0 to 1.
    pub probability: Option<f64>,
    /// At most this many times.
    pub times: Option<u64>,
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// 423, nothing done.
    Locked,
    /// 429 of the ten-second window, nothing done.
    BurstLimit,
    /// 429 of the day, nothing done.
    DailyLimit,
    /// 429 "secondly", nothing done.
    SecondlyLimit,
    /// 477: the account moves to another region; `Retry-After` in seconds. Nothing done.
    Migrating(u64),
    /// A status with a JSON envelope, nothing done.
    Status(u16),
    /// A status with a page of HTML from the edge, nothing done.
    Html(u16),
    /// 524: committed, but the edge gave up waiting.
    TimeoutAfterCommit,
    /// Committed, the body cut in the middle.
    TruncatedBody,
    /// Connection cut, nothing done.
    ResetBefore,
    /// Connection cut after the commit.
    ResetAfter,
    /// 200 with `"results":[]` and no errors, nothing done.
    EmptyResults,
    /// The token that made the call is revoked from now on.
    RevokeToken,
    /// The answer takes this many milliseconds longer.
    Slow(u64),
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

    /// The same, at most so often.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.when.times = Some(times);
        self
    }
}

/// Ready-made sets of faults.
#[derive(Debug, Clone, Copy)]
pub struct Faults;

impl Faults {
    /// Every fault from which a client can recover, together about 5 % of the calls. `seed` only sets where the
    /// shares begin, so that two sets differ; which calls fail follows from the portal's own seed.
    pub fn five_percent(seed: u64) -> Vec<Fault> {
        let mut kinds = vec![
            What::Locked,
            What::BurstLimit,
            What::SecondlyLimit,
            What::Migrating(1),
            What::Status(500),
            What::Status(502),
            What::Html(502),
            What::Status(503),
            What::Html(504),
            What::TimeoutAfterCommit,
            What::TruncatedBody,
            What::ResetBefore,
            What::ResetAfter,
            What::EmptyResults,
        ];
        let share = 0.05 / kinds.len() as f64;
        let shift = (seed % kinds.len() as u64) as usize;
        kinds.rotate_left(shift);
        kinds.into_iter().map(|what| Fault::share(share, what)).collect()
    }
}

/// The faults of a portal and how often each has been asked and has struck.
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
            if when.path.as_deref().is_some_and(|part| !path.contains(part)) {
                continue;
            }
            if when.method.as_deref().is_some_and(|wanted| !wanted.eq_ignore_ascii_case(method)) {
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
