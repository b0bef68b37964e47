//! Three buckets that refuse calls, and an auditor beside them that only counts.

use std::collections::VecDeque;

use jiff::civil::Date;

/// At most `limit` calls in any `interval_ms`: a rolling window, as HubSpot's policy name says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Window {
    accepted: VecDeque<i64>,
}

impl Window {
    /// Calls accepted in the interval that ends now.
    pub(crate) fn used(&mut self, now_ms: i64, interval_ms: u64) -> u32 {
        let since = now_ms.saturating_sub(i64::try_from(interval_ms).unwrap_or(i64::MAX));
        while self.accepted.front().is_some_and(|at| *at <= since) {
            self.accepted.pop_front();
        }
        u32::try_from(self.accepted.len()).unwrap_or(u32::MAX)
    }

    /// Takes one call, or says in how many milliseconds the next would be taken.
    pub(crate) fn take(&mut self, now_ms: i64, interval_ms: u64, limit: u32) -> Result<u32, u64> {
        let used = self.used(now_ms, interval_ms);
        if used >= limit {
            let oldest = self.accepted.front().copied().unwrap_or(now_ms);
            let age = u64::try_from(now_ms.saturating_sub(oldest)).unwrap_or(0);
            return Err(interval_ms.saturating_sub(age).max(1));
        }
        self.accepted.push_back(now_ms);
        Ok(limit - used - 1)
    }
}

/// Calls since the account's last midnight.
#[derive(Debug, Clone, Default)]
pub(crate) struct Day {
    date: Option<Date>,
    used: u64,
}

impl Day {
    pub(crate) fn used(&mut self, date: Date) -> u64 {
        if self.date != Some(date) {
            *self = Self { date: Some(date), used: 0 };
        }
        self.used
    }

    pub(crate) fn take(&mut self, date: Date, limit: Option<u64>) -> bool {
        let used = self.used(date);
        if limit.is_some_and(|limit| used >= limit) {
            return false;
        }
        self.used += 1;
        true
    }
}

/// Counts arrivals in a rolling window, refused ones too, by code of its own: a limiter cannot vouch for itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Auditor {
    arrivals: VecDeque<i64>,
    most: usize,
}

impl Auditor {
    pub(crate) fn arrived(&mut self, now_ms: i64, interval_ms: u64) {
        self.arrivals.push_back(now_ms);
        while let Some(first) = self.arrivals.front() {
            if now_ms.abs_diff(*first) < interval_ms {
                break;
            }
            self.arrivals.pop_front();
        }
        self.most = self.most.max(self.arrivals.len());
    }

    pub(crate) fn most(&self) -> usize {
        self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_rolls_instead_of_starting_afresh() {
        let mut window = Window::default();
        for at in [0, 6_000, 6_000] {
            assert!(window.take(at, 10_000, 3).is_ok());
        }
        assert_eq!(window.take(9_000, 10_000, 3), Err(1_000));
        assert_eq!(window.take(10_000, 10_000, 3), Ok(0), "the call of second 0 has left");
        assert_eq!(window.take(10_001, 10_000, 3), Err(5_999), "those of second 6 have not");
    }

    #[test]
    fn the_auditor_sees_the_fullest_window_and_counts_refused_calls() {
        let mut auditor = Auditor::default();
        for at in [0, 1, 2, 5_000, 10_000, 10_001, 30_000] {
            auditor.arrived(at, 10_000);
        }
        assert_eq!(auditor.most(), 4);
    }
}
