//! How much of an org's calls a run may use. Salesforce counts calls of everybody over a rolling day. Pure.

use crate::config::{Amount, SalesforceQuota};

/// Where a run stops.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuotaLimits {
    /// Of the org's calls of a day: after so many nothing more is asked, whoever used them. The rest is for the user's other apps.
    pub org: Amount,
    /// Of the org's calls of a day: so many may one run use.
    pub run: Amount,
}

impl Default for QuotaLimits {
    fn default() -> Self {
        Self::from(SalesforceQuota::default())
    }
}

impl From<SalesforceQuota> for QuotaLimits {
    fn from(quota: SalesforceQuota) -> Self {
        Self { org: quota.org, run: quota.run }
    }
}

/// What is known of the quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Calls of everybody in the last 24 hours, and how many there may be, as last told.
    pub org: Option<Usage>,
    /// Calls that counted and were made by this run.
    pub run: u64,
}

/// `used` of `most` calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Calls made.
    pub used: u64,
    /// Calls that may be made.
    pub most: u64,
}

impl Usage {
    /// Reads `Sforce-Limit-Info`: `api-usage=U/M`, perhaps with more members (`; per-app-api-usage=17/250(appName=x)`).
    pub fn of_header(text: &str) -> Option<Self> {
        text.split([';', ',']).find_map(|part| {
            let (name, value) = part.split_once('=')?;
            if name.trim() != "api-usage" {
                return None;
            }
            let (used, most) = value.split_once('/')?;
            Some(Self { used: used.trim().parse().ok()?, most: most.trim().parse().ok()? })
        })
    }
}

impl Quota {
    /// Calls that may still be made; `None` before the org has told its numbers.
    pub fn left(&self, limits: QuotaLimits) -> Option<u64> {
        let org = self.org?;
        let of_org = limits.org.of(org.most).saturating_sub(org.used);
        let of_run = limits.run.of(org.most).saturating_sub(self.run);
        Some(of_org.min(of_run))
    }

    /// Whether a call may be made.
    pub fn allows(&self, limits: QuotaLimits) -> bool {
        self.left(limits) != Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_in_its_short_and_its_long_form() {
        let expected = Some(Usage { used: 10_018, most: 100_000 });
        for text in [
            "api-usage=10018/100000",
            "api-usage=10018/100000; per-app-api-usage=17/250(appName=sample-app)",
            "api-bursts=1/750; api-usage=10018/100000",
            "per-app-api-usage=17/250(appName=a=b;c), api-usage=10018/100000",
        ] {
            assert_eq!(Usage::of_header(text), expected, "{text}");
        }
        for text in ["", "api-usage=", "api-usage=x/y", "api-usage=1", "per-app-api-usage=17/250"] {
            assert_eq!(Usage::of_header(text), None, "{text}");
        }
    }

    #[test]
    fn a_run_stops_at_either_share() {
        let limits = QuotaLimits::default();
        let quota = |used, run| Quota { org: Some(Usage { used, most: 1_000 }), run };
        assert_eq!(quota(0, 0).left(limits), Some(250));
        assert_eq!(quota(700, 200).left(limits), Some(50), "what the run may still use");
        assert_eq!(quota(799, 10).left(limits), Some(1), "what the org may still use");
        assert!(!quota(800, 0).allows(limits) && !quota(0, 250).allows(limits) && !quota(2_000, 0).allows(limits));
        assert!(Quota::default().allows(limits), "nothing is known yet");
    }
}
