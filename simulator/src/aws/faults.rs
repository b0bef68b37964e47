//! Faults on purpose: what AWS does on a bad day, when a test says so.

use std::{sync::Mutex, time::Duration};

use super::{Service, lock};

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// An error answer, without any effect. See the shorthands, such as [`Fault::slow_down`].
    Error {
        /// HTTP status.
        status: u16,
        /// The service's error code: `SlowDown`, `InternalServerError`, …
        code: String,
    },
    /// S3 GET: the connection is cut after so many bytes of the body.
    CutBody {
        /// Bytes that still arrive.
        after: u64,
    },
    /// The connection is closed before anything happens. New connections are closed as soon as they are accepted
    /// (the port stays bound, so a client sees a reset rather than a refusal; both are retried alike).
    Refuse,
    /// The effect happens, the answer is lost.
    LoseAnswer,
    /// The answer comes late.
    Slow {
        /// How late.
        by: Duration,
    },
}

impl Fault {
    /// S3's `503 SlowDown`.
    pub fn slow_down() -> Self {
        Self::error(503, "SlowDown")
    }

    /// S3's `412 PreconditionFailed`.
    pub fn precondition_failed() -> Self {
        Self::error(412, "PreconditionFailed")
    }

    /// S3's `500 InternalError`.
    pub fn internal_error() -> Self {
        Self::error(500, "InternalError")
    }

    /// DynamoDB's `500 InternalServerError`.
    pub fn internal_server_error() -> Self {
        Self::error(500, "InternalServerError")
    }

    /// DynamoDB's `400 ProvisionedThroughputExceededException`.
    pub fn throughput_exceeded() -> Self {
        Self::error(400, "ProvisionedThroughputExceededException")
    }

    /// Secrets Manager's `500 InternalServiceError`.
    pub fn internal_service_error() -> Self {
        Self::error(500, "InternalServiceError")
    }

    /// Any error answer.
    pub fn error(status: u16, code: &str) -> Self {
        Self::Error { status, code: code.to_owned() }
    }
}

/// Which calls it hits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// The next so many calls.
    Next(u32),
    /// Every call for so long, by the cloud's clock.
    For(Duration),
    /// Each call with this probability (0 to 1), under the cloud's seed.
    Probability(f64),
}

#[derive(Debug)]
struct Armed {
    service: Service,
    action: Option<String>,
    resource: Option<String>,
    fault: Fault,
    when: When,
    armed_at: Duration,
}

/// The faults that are armed.
#[derive(Debug)]
pub struct Faults {
    armed: Mutex<(Vec<Armed>, fastrand::Rng)>,
    clock: std::sync::Arc<super::runtime::CloudClock>,
}

impl Faults {
    pub(crate) fn new(clock: std::sync::Arc<super::runtime::CloudClock>, seed: u64) -> Self {
        Self { armed: Mutex::new((Vec::new(), fastrand::Rng::with_seed(seed))), clock }
    }

    /// Arms `fault` for every action of `service`.
    pub fn inject(&self, service: Service, fault: Fault, when: When) {
        self.arm(service, None, None, fault, when);
    }

    /// Arms `fault` for one action (`GetObject`, `UpdateItem`), and, if given, only where the resource's ARN
    /// contains `resource`.
    pub fn inject_on(&self, service: Service, action: &str, resource: Option<&str>, fault: Fault, when: When) {
        self.arm(service, Some(action.to_owned()), resource.map(str::to_owned), fault, when);
    }

    fn arm(&self, service: Service, action: Option<String>, resource: Option<String>, fault: Fault, when: When) {
        let armed_at = self.clock.elapsed();
        lock(&self.armed).0.push(Armed { service, action, resource, fault, when, armed_at });
    }

    /// Disarms everything.
    pub fn clear(&self) {
        lock(&self.armed).0.clear();
    }

    /// The first armed fault that fits this call; counts it.
    pub(crate) fn decide(&self, service: Service, action: &str, resource: &str) -> Option<Fault> {
        let now = self.clock.elapsed();
        let (armed, rng) = &mut *lock(&self.armed);
        armed.retain(|armed| match armed.when {
            When::Next(left) => left > 0,
            When::For(span) => now < armed.armed_at.saturating_add(span),
            When::Probability(_) => true,
        });
        for one in armed.iter_mut() {
            let fits = one.service == service
                && one.action.as_deref().is_none_or(|wanted| wanted == action)
                && one.resource.as_deref().is_none_or(|wanted| resource.contains(wanted));
            if !fits {
                continue;
            }
            match &mut one.when {
                When::Next(left) => *left -= 1,
                When::For(_) => {}
                When::Probability(probability) if rng.f64() < *probability => {}
                When::Probability(_) => continue,
            }
            return Some(one.fault.clone());
        }
        None
    }

    /// Whether connections to `service` are closed at the door now.
    pub(crate) fn refuses(&self, service: Service) -> bool {
        let now = self.clock.elapsed();
        lock(&self.armed).0.iter().any(|armed| {
            armed.service == service
                && armed.fault == Fault::Refuse
                && armed.action.is_none()
                && matches!(armed.when, When::For(span) if now < armed.armed_at.saturating_add(span))
        })
    }
}
